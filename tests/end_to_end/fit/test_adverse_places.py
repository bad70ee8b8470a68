"""Disks that fill up, folders that cannot be written, clocks that run backwards: nothing lost, nothing half-written, a clear word."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill.common.keys import generate_key, load_signing_key
from distill.errors import LedgerError
from distill.ledger import Ledger, Reservation, create_ledger, open_ledger
from distill.ledger.entries import entry as ledger_entry
from distill.privacy.events import Event
from distill.project import Project
from distill.releases import lifecycle, placement
from distill.releases.placement import TRIAL_BYTES
from tests.end_to_end.small_banks import (
    DELTA,
    EPSILON,
    SCHEMA,
    Bank,
    distill,
    loans,
    make_bank,
    quicken,
    refusal,
    result_of,
)

PAGE = 4096  # a tmpfs gives out whole pages
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0)
REST = Event(name="encode", mechanism="gaussian", noise_multiplier=20.0, round=1)


def mounted(*words: str) -> None:
    """Run `mount`; skip the test where it is not allowed."""
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("small disks and read-only ones are mounted, which needs Linux and `mount`")
    ran = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.skip(f"mounting is not allowed here (it needs root): {ran.stderr.strip()}")


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of its own with room for `size` bytes."""
    folder.mkdir()
    mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody can write to, root included."""
    mounted("--bind", str(folder), str(folder))
    try:
        mounted("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def leave(disk: Path, pages: int) -> None:
    """Fill a small disk so that only so many pages are free."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    room = os.statvfs(disk)
    filler.write_bytes(bytes((room.f_bavail - pages) * PAGE))
    assert os.statvfs(disk).f_bavail == pages


# --- the ledger alone, at every size of what is left -------------------------------------------------------------------


def said_last(ran: Any) -> str:
    """The one line with which a fit ended, after what it showed of its plan and progress."""
    assert ran.exit_code == 2, ran.output
    line = str(ran.stderr).strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


def to_its_plan(ledger: Ledger, key: Any) -> Reservation:
    made = ledger.reserve(epsilon=0.5, delta=1e-6, purpose="p", actor="operator", events=[SIZE], key=key)
    made.plan([REST])
    return made


def told_by(step: Callable[[], Any]) -> str | None:
    """The words with which the ledger refused; None: it did not."""
    try:
        step()
    except LedgerError as error:
        return str(error)
    return None


@pytest.mark.parametrize("step", ["grant", "reserve", "plan", "commit", "abandon"])
def test_a_disk_with_any_number_of_free_pages_takes_an_entry_or_leaves_the_ledger_as_it_was(tmp_path, step):
    key = generate_key(tmp_path / "key.pem")
    with small_disk(tmp_path / "disk", 512 << 10) as disk:
        ledger = create_ledger(disk / "ledger.db", dataset="0" * 32, unit="row", key=key)
        ledger.grant(epsilon=EPSILON, delta=DELTA, reason="r", actor="officer", key=key)
        fresh = ledger.reserve(epsilon=0.5, delta=1e-6, purpose="p", actor="operator", events=[SIZE], key=key)
        planned = to_its_plan(ledger, key)
        take: dict[str, Callable[[], Any]] = {
            "grant": lambda: ledger.grant(epsilon=3.0, delta=DELTA, reason="r", actor="officer", key=key),
            "reserve": lambda: to_its_plan(ledger, key),
            "plan": lambda: fresh.plan([REST]),
            "commit": lambda: planned.commit("ab" * 32),
            "abandon": lambda: fresh.abandon("too small"),
        }
        entries = ledger.entries()
        for pages in range(64):
            leave(disk, pages)
            refused = told_by(take[step])
            (disk / "filler").unlink()
            if refused is None:
                break
            assert "cannot write the ledger" in refused
            assert "Free some space" in refused
            found = ledger.entries()
            assert found[: len(entries)] == entries
            # Of the two entries that `reserve` takes here, the first may have had room.
            assert len(found) - len(entries) in ((0, 1) if step == "reserve" else (0,)), f"{pages} free pages"
            entries = found
        assert 0 < pages < 63, "the sizes that were tried hold both ends"
        books = ledger.verify(key.public_hex).summary
        assert books.entries == len(entries) + (2 if step == "reserve" else 1)
        assert [p.name for p in disk.iterdir()] == ["ledger.db"]


# --- fits --------------------------------------------------------------------------------------------------------------

STAGES = {
    "reserve": (Ledger, "reserve"),
    "plan": (Reservation, "plan"),
    "write": (lifecycle, "commit_and_place"),
    "commit": (Reservation, "commit"),
    "rename": (placement, "_move"),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank with a narrow table, to copy."""
    columns = [column for column in SCHEMA["columns"] if column["name"] in ("region", "default")]
    rows = loans(1500)[[column["name"] for column in columns]]
    return make_bank(tmp_path_factory.mktemp("template") / "bank", rows, schema={**SCHEMA, "columns": columns})


def moved(template: Bank, folder: Path) -> Bank:
    """The same bank in another folder."""
    shutil.copytree(template.folder, folder)
    return Bank(Project.open(folder), schema=template.schema)


@pytest.mark.parametrize("pages", [0, 12])
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_up_at_any_stage_of_a_fit(template, tmp_path, monkeypatch, stage, pages):
    """Only so many pages are left from this stage on. Whatever comes of it, the books are right and the next fit can go on."""
    quicken(monkeypatch)
    with small_disk(tmp_path / "disk", TRIAL_BYTES + (512 << 10)) as disk:
        bank = moved(template, disk / "bank")
        owner, name = STAGES[stage]
        real = getattr(owner, name)

        def full_from_here(*arguments: Any, **named: Any) -> Any:
            leave(disk, pages)
            return real(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full_from_here)
            ran = bank.fit()
        (disk / "filler").unlink()
        books = bank.ledger.verify(bank.key.public_hex).summary
        status = books.releases[0].status if books.releases else "nothing"
        if ran.exit_code:
            line = said_last(ran)
            assert "cannot" in line or "the release is committed, but" in line
            assert "Free some space" in line or "permissions" in line, line
        assert books.spent_epsilon == (EPSILON if books.releases else 0)
        assert bank.project.out.exists() == (ran.exit_code == 0)
        again = bank.fit()
        if status == "nothing":
            assert again.exit_code == 0, again.stderr
        elif status in ("reserved", "planned"):
            assert "1 unfinished release(s) included" in refusal(again)
        else:
            assert ("exists already" if ran.exit_code == 0 else "in place now") in refusal(again)
        if status in ("nothing", "committed"):
            assert bank.bundle.digest == bank.books.releases[0].bundle
        assert not [p.name for p in bank.folder.iterdir() if p.name.endswith((".tmp", "-wal", "-shm"))]


def test_a_disk_without_room_for_a_bundle_is_told_before_anything_is_charged(template, tmp_path):
    with small_disk(tmp_path / "disk", TRIAL_BYTES // 2) as disk:
        bank = moved(template, disk / "bank")
        line = refusal(bank.fit())
        assert "cannot write the bundle" in line
        assert "Free some space" in line
        assert bank.books.releases == ()
        assert not list(bank.folder.glob(".*.tmp"))


def test_a_project_that_cannot_be_written_can_be_read_and_verified_but_not_spent(template, tmp_path):
    bank = moved(template, tmp_path / "bank")
    files = bank.files()
    with read_only(bank.folder):
        assert result_of("ledger", "verify", "--project", bank.folder)["verified"]
        assert result_of("ledger", "show", "--project", bank.folder)["granted_epsilon"] == EPSILON
        line = refusal(bank.fit())
        assert "cannot write the bundle" in line
        assert "Read-only file system" in line
        line = refusal(bank.fit("--out", tmp_path / "elsewhere.distill"))
        assert "cannot open the ledger" in line
        assert "nothing was recorded" in line
        grant = ("--epsilon", 3, "--delta", DELTA, "--reason", "r")
        assert "cannot open the ledger" in refusal(distill("ledger", "grant", *grant, "--project", bank.folder))
    assert bank.files() == files
    assert bank.books.releases == ()
    assert not (tmp_path / "elsewhere.distill").exists()


@pytest.mark.parametrize("stage", ["reserve", "plan", "write", "commit", "rename"])
def test_a_project_that_turns_read_only_in_the_middle_of_a_fit(template, tmp_path, monkeypatch, stage):
    """As a disk does after an error of its own. What was recorded before stands, and nothing is half-written."""
    quicken(monkeypatch)
    bank = moved(template, tmp_path / "bank")
    owner, name = STAGES[stage]
    real = getattr(owner, name)
    with contextlib.ExitStack() as until_the_end, monkeypatch.context() as patch:

        def read_only_from_here(*arguments: Any, **named: Any) -> Any:
            until_the_end.enter_context(read_only(bank.folder))
            return real(*arguments, **named)

        patch.setattr(owner, name, read_only_from_here)
        line = said_last(bank.fit())
        assert "cannot" in line or "the release is committed, but" in line
    books = bank.ledger.verify(bank.key.public_hex).summary
    expected = {
        "reserve": [],
        "plan": ["reserved"],
        "write": ["planned"],
        "commit": ["planned"],
        "rename": ["committed"],
    }
    assert [r.status for r in books.releases] == expected[stage]
    assert books.spent_epsilon == (EPSILON if books.releases else 0)
    assert not bank.project.out.exists()
    again = bank.fit()
    assert (again.exit_code == 0) == (stage == "reserve"), again.stderr
    assert ("in place now" in again.stderr) == (stage == "rename")
    assert not [p.name for p in bank.folder.iterdir() if p.name.endswith((".tmp", "-wal", "-shm"))]


# --- clocks ------------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_backwards_changes_neither_order_nor_books(tmp_path, monkeypatch):
    key = generate_key(tmp_path / "key.pem")
    real, years = ledger_entry.today(), iter((2030, 2029, 2031, 1999))  # opening, grant, two reservations
    monkeypatch.setattr(ledger_entry, "today", lambda: f"{next(years)}{real[4:]}")
    ledger = create_ledger(tmp_path / "ledger.db", dataset="0" * 32, unit="row", key=key)
    ledger.grant(epsilon=EPSILON, delta=DELTA, reason="r", actor="officer", key=key)
    to_its_plan(ledger, key).commit("ab" * 32)
    to_its_plan(ledger, key)
    entries = ledger.entries()
    assert [e.kind for e in entries] == ["open", "grant", "reserve", "plan", "commit", "reserve", "plan"]
    assert [e.sequence for e in entries] == list(range(1, 8))
    assert sorted(e.time for e in entries) != [e.time for e in entries]
    books = ledger.verify(key.public_hex).summary
    assert [r.status for r in books.releases] == ["committed", "planned"]
    shown = result_of("ledger", "show", "--ledger", ledger.path)
    assert [row["sequence"] for row in shown["rows"]] == list(range(1, 8))


IN_A_ZONE = """
import sys
from pathlib import Path
from distill.privacy.events import Event
from distill.common.keys import load_signing_key
from distill.ledger import open_ledger
ledger, key = open_ledger(Path(sys.argv[1])), load_signing_key(Path(sys.argv[2]))
size = Event(name="size", mechanism="laplace", noise_multiplier=100.0)
ledger.reserve(epsilon=0.1, delta=1e-6, purpose=sys.argv[3], actor="operator", events=[size], key=key)
ledger.verify(key.public_hex)
"""


def test_operators_in_two_time_zones_write_one_ledger_in_one_time(tmp_path):
    key = generate_key(tmp_path / "key.pem")
    ledger = create_ledger(tmp_path / "ledger.db", dataset="0" * 32, unit="row", key=key)
    ledger.grant(epsilon=EPSILON, delta=DELTA, reason="r", actor="officer", key=key)
    zones = ["Asia/Tokyo", "America/New_York"]
    for zone in zones:
        command = [sys.executable, "-c", IN_A_ZONE, str(ledger.path), str(tmp_path / "key.pem"), zone]
        subprocess.run(command, env={**os.environ, "TZ": zone}, check=True)
    entries = open_ledger(ledger.path).entries()
    assert [e.body["purpose"] for e in entries[2:]] == zones
    times = [e.time for e in entries]
    assert times == sorted(times), "all in UTC, so written order is time order"
    assert ledger.verify(load_signing_key(tmp_path / "key.pem").public_hex).summary.spent_epsilon == pytest.approx(0.2)
