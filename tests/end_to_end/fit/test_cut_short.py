"""A fit that ends in the middle: nothing is half-written, the reservation stands, and `ledger show` says so."""

import os
import signal
import sqlite3

import pytest

from distill.common import files as durable
from distill.common import metadata
from distill.ledger.entries import store as ledger_store
from distill.releases import fit
from tests.end_to_end.small_banks import DELTA, EPSILON, Bank, distill, full_disk, refusal, result_of


def nothing_learnt(*_: object) -> None:
    """In the place of all stages, where only what comes after them is looked at."""
    raise MemoryError("4711 rows")


def assert_stands(bank: Bank, files: dict[str, int], status: str = "planned") -> None:
    """No bundle, no temporary file; the ledger verifies and counts the release in full, so a second one is refused."""
    assert bank.files() == files
    assert not bank.project.out.exists()
    books = bank.ledger.verify(bank.key.public_hex).summary
    assert [r.status for r in books.standing] == [status]
    assert (books.spent_epsilon, books.spent_delta) == (EPSILON, DELTA)
    assert books.remaining_epsilon == 0
    shown = result_of("ledger", "show", "--project", bank.folder)
    assert [r["release"] for r in shown["standing"]] == [books.standing[0].release]
    assert (shown["spent_epsilon"], shown["remaining_epsilon"]) == (EPSILON, 0)
    text = distill("ledger", "show", "--project", bank.folder)
    assert text.exit_code == 0, text.output
    assert "(STANDING)" in text.stdout
    assert "count as spent in full" in text.stdout
    again = refusal(bank.fit())
    assert "1 unfinished release(s) included" in again
    assert "distill ledger show" in again


def test_ctrl_c_leaves_the_reservation_and_ledger_show_says_so(bank):
    files = bank.files()
    code, out, err = bank.stop_fit(bank.begin_fit(), signal.SIGINT)
    assert code == 130, err
    assert out == ""
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: interrupted.")
    assert "reservation stands" in last
    assert "distill ledger show" in last
    assert_stands(bank, files)


def test_a_killed_fit_leaves_the_reservation(bank):
    files = bank.files()
    code, out, _ = bank.stop_fit(bank.begin_fit(), signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert out == ""
    assert_stands(bank, files)


def test_a_defect_in_the_middle_leaves_the_reservation_and_quotes_no_value(bank, monkeypatch):
    files = bank.files()
    monkeypatch.delenv("DISTILL_DEBUG", raising=False)
    monkeypatch.setattr(fit, "distil", nothing_learnt)
    ran = bank.fit()
    assert ran.exit_code == 1
    assert "unexpected MemoryError" in ran.stderr
    assert "4711" not in ran.stderr
    assert_stands(bank, files)


@pytest.mark.parametrize("step", ["fsync", "write"])
def test_a_disk_that_fills_up_leaves_no_half_bundle(bank, quick, monkeypatch, step):
    files = bank.files()
    distil = fit.distil

    class FullFile:
        """Takes a few bytes, then there is no more room."""

        def __init__(self, handle: int, mode: str) -> None:
            self.handle = handle

        def __enter__(self) -> "FullFile":
            return self

        def __exit__(self, *_: object) -> None:
            os.close(self.handle)

        def write(self, data: bytes) -> None:
            os.write(self.handle, data[:1000])
            full_disk()

    def and_then_it_is_full(*arguments: object) -> object:
        done = distil(*arguments)
        if step == "fsync":
            monkeypatch.setattr(durable.os, "fsync", full_disk)
        else:
            monkeypatch.setattr(durable.os, "fdopen", FullFile)
        return done

    monkeypatch.setattr(fit, "distil", and_then_it_is_full)
    ran = bank.fit()
    monkeypatch.undo()
    assert ran.exit_code == 2
    line = ran.stderr.strip().splitlines()[-1]
    assert line.startswith("error: cannot write the bundle")
    assert "No space left on device" in line
    assert "Free some space" in line
    assert_stands(bank, files)


def test_a_full_disk_under_the_ledger_at_the_very_end_leaves_no_bundle(bank, quick, monkeypatch):
    files, append = bank.files(), ledger_store.append

    def full_at_the_commit(connection: object, entry: object, seal: str) -> None:
        if entry.kind == "commit":  # type: ignore[attr-defined]
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        append(connection, entry, seal)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger_store, "append", full_at_the_commit)
    ran = bank.fit()
    monkeypatch.undo()
    assert ran.exit_code == 2
    assert "cannot write the ledger" in ran.stderr
    assert "Free some space" in ran.stderr
    assert_stands(bank, files)


@pytest.mark.parametrize("by_command", [False, True])
def test_a_bundle_that_a_killed_fit_committed_is_put_in_place_and_costs_nothing_more(bank, quick, by_command):
    """Killed between commit and rename: the bundle lies under its temporary name."""
    assert bank.fit().exit_code == 0
    out, spent = bank.project.out, bank.books.spent_epsilon
    digest = bank.bundle.digest
    out.rename(durable.temporary_beside(out))
    if by_command:
        found = result_of("bundle", "recover", "--project", bank.folder)
        assert found == {"placed": [{"bundle": str(out), "release": bank.books.releases[0].release}], "removed": []}
        assert distill("bundle", "recover", "--project", bank.folder).stdout == "nothing was left behind\n"
    else:
        said = refusal(bank.fit())
        assert f"its bundle is in place now: {out} (release {bank.books.releases[0].release[:8]})" in said
        assert "exists already" in refusal(bank.fit())
    assert (bank.bundle.digest, bank.books.spent_epsilon) == (digest, spent)
    assert not list(bank.folder.rglob("*.tmp"))


def test_a_user_without_a_name_can_fit(bank, monkeypatch):
    """As in a container that runs under a number."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(metadata.getpass, "getuser", nameless)
    monkeypatch.setattr(fit, "distil", nothing_learnt)
    assert bank.fit().exit_code == 1  # in the stages, which are not there
    assert [e.actor for e in bank.ledger.entries()][-2:] == ["unknown user", "unknown user"]
