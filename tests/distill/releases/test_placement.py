"""However the end of a release is cut short: what was committed gets to its place, what was not is gone."""

import hashlib
import os
from types import SimpleNamespace

import pytest

from distill.common import files
from distill.common.keys import generate_key
from distill.errors import BundleError, LedgerError
from distill.ledger import create_ledger
from distill.privacy.events import Event
from distill.releases import placement
from distill.releases.placement import commit_and_place, recover, require_nothing_left

DATASET = "0123456789abcdef0123456789abcdef"
BUNDLE = b"all that travels"
DIGEST = hashlib.sha256(BUNDLE).hexdigest()
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0, purpose="noisy row count")
REST = Event(name="encode", mechanism="gaussian", noise_multiplier=20.0, round=1)


@pytest.fixture
def ledger(tmp_path):
    key = generate_key(tmp_path / "key.pem")
    ledger = create_ledger(tmp_path / "ledger.db", dataset=DATASET, unit="row", key=key)
    ledger.grant(epsilon=2.0, delta=1e-4, reason="first year", actor="officer", key=key)
    ledger.key = key
    return ledger


@pytest.fixture
def reservation(ledger):
    """A planned release."""
    made = ledger.reserve(epsilon=0.5, delta=1e-5, purpose="p", actor="operator", events=[SIZE], key=ledger.key)
    made.plan([REST])
    return made


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "bank.distill"


def write(place):
    files.write_exactly(place, BUNDLE)
    return DIGEST


def dead(out, data=BUNDLE):
    """What a process that died leaves beside `out`."""
    with files.staged(out) as temporary:
        files.write_exactly(temporary, data)
    return temporary


def names(out):
    return sorted(path.name for path in out.parent.iterdir())


def status(ledger):
    (release,) = ledger.summary().releases
    return release.status


def stopped(*_, **__):
    raise KeyboardInterrupt


# --- committing and placing ------------------------------------------------------------------------------------------


def test_a_bundle_is_committed_and_in_place(reservation, ledger, out):
    placed = commit_and_place(out, write, reservation, overwrite=False)
    assert (placed.digest, placed.size, placed.head) == (DIGEST, len(BUNDLE), ledger.head())
    assert out.read_bytes() == BUNDLE
    assert names(out) == ["bank.distill"]
    assert [r.bundle for r in ledger.summary().releases] == [DIGEST]


def test_a_bundle_that_cannot_be_written_leaves_nothing(reservation, ledger, out):
    def half(place):
        place.write_bytes(b"half")
        raise BundleError("cannot make a bundle")

    with pytest.raises(BundleError, match="cannot make"):
        commit_and_place(out, half, reservation, overwrite=False)
    assert (names(out), status(ledger)) == ([], "planned")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LedgerError("the disk is full")])
def test_a_bundle_that_was_not_committed_is_removed(reservation, ledger, out, monkeypatch, error):
    def refused(digest):
        raise error

    monkeypatch.setattr(reservation, "commit", refused)
    with pytest.raises(type(error)):
        commit_and_place(out, write, reservation, overwrite=False)
    assert (names(out), status(ledger)) == ([], "planned")


def test_ctrl_c_right_after_the_commit_still_puts_the_bundle_in_place(reservation, ledger, out, monkeypatch):
    commit = reservation.commit

    def committed_then_stopped(digest):
        commit(digest)
        raise KeyboardInterrupt

    monkeypatch.setattr(reservation, "commit", committed_then_stopped)
    with pytest.raises(KeyboardInterrupt):
        commit_and_place(out, write, reservation, overwrite=False)
    assert (names(out), out.read_bytes(), status(ledger)) == (["bank.distill"], BUNDLE, "committed")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", ["link", "replace", "unlink", "fsync"])
def test_ctrl_c_in_the_middle_of_the_rename_still_ends_it(reservation, out, monkeypatch, step, overwrite):
    """The first call of each step is interrupted, once it was made."""
    called = []

    def once(real):
        def step_then_stop(*arguments, **named):
            done = real(*arguments, **named)
            called.append(step)
            if len(called) == 1:
                raise KeyboardInterrupt
            return done

        return step_then_stop

    real_move = files.put_in_place

    def move(*arguments, **named):
        monkeypatch.setattr(files.os, step, once(getattr(os, step)))
        monkeypatch.setattr(files, "put_in_place", real_move)
        real_move(*arguments, **named)

    monkeypatch.setattr(files, "put_in_place", move)
    needed = {"link": not overwrite, "replace": overwrite, "unlink": not overwrite, "fsync": True}[step]
    if needed:
        with pytest.raises(KeyboardInterrupt):
            commit_and_place(out, write, reservation, overwrite=overwrite)
    else:
        commit_and_place(out, write, reservation, overwrite=overwrite)
    assert (names(out), out.read_bytes(), bool(called)) == (["bank.distill"], BUNDLE, needed)


def test_a_bundle_that_cannot_be_moved_stays_and_recover_moves_it(reservation, ledger, out, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "put_in_place", forbidden)
    with pytest.raises(BundleError, match=r"the release is committed, but .*permissions.*the bundle is at .*recover"):
        commit_and_place(out, write, reservation, overwrite=False)
    monkeypatch.undo()
    assert not out.exists()
    ((place, release),) = recover(out, ledger).placed
    assert (place, release.bundle, out.read_bytes(), names(out)) == (out, DIGEST, BUNDLE, ["bank.distill"])


def test_a_file_that_came_in_between_is_kept(reservation, ledger, out):
    def and_another(place):
        out.write_bytes(b"of somebody else")
        return write(place)

    with pytest.raises(BundleError, match=r"the release is committed, but .*File exists"):
        commit_and_place(out, and_another, reservation, overwrite=False)
    assert out.read_bytes() == b"of somebody else"
    ((place, release),) = recover(out, ledger).placed
    assert place.name == f"bank-{release.release[:8]}.distill"
    assert (place.read_bytes(), out.read_bytes()) == (BUNDLE, b"of somebody else")


# --- after a process that died ----------------------------------------------------------------------------------------


def test_a_committed_bundle_of_a_dead_run_is_put_in_place_before_anything_is_paid(reservation, ledger, out):
    dead(out)
    reservation.commit(DIGEST)
    with pytest.raises(BundleError, match=r"is in place now: .*bank\.distill \(release .*Nothing was read or charged"):
        require_nothing_left(out, ledger)
    assert (out.read_bytes(), names(out)) == (BUNDLE, ["bank.distill"])
    require_nothing_left(out, ledger)  # once


def test_a_committed_bundle_meant_for_another_name_is_found_too(reservation, ledger, out):
    dead(out.with_name("elsewhere.distill"))
    reservation.commit(DIGEST)
    assert [place.name for place, _ in recover(out, ledger).placed] == ["elsewhere.distill"]


def test_a_run_that_died_between_link_and_unlink_left_only_a_second_name(reservation, ledger, out):
    os.link(dead(out), out)
    reservation.commit(DIGEST)
    assert recover(out, ledger).placed == ()
    assert (names(out), out.read_bytes()) == (["bank.distill"], BUNDLE)


@pytest.mark.parametrize("data", [b"", b"half a bun", BUNDLE])
@pytest.mark.usefixtures("reservation")
def test_what_was_never_committed_is_removed(ledger, out, data):
    temporary = dead(out, data)
    found = recover(out, ledger)
    assert (found.placed, found.removed, names(out)) == ((), (temporary,), [])


def test_what_is_being_written_is_left_alone(reservation, ledger, out):
    with files.staged(out) as temporary:
        write(temporary)
        assert recover(out, ledger).removed == ()
        reservation.commit(DIGEST)
        assert recover(out, ledger).placed == ()
        assert temporary.read_bytes() == BUNDLE
    assert len(recover(out, ledger).placed) == 1


def test_files_of_others_are_left_alone(ledger, out, monkeypatch):
    dead(out.with_name("other.distill"))
    for name in ("bank.distill.tmp", ".bank.distill.tmp", ".bank.distill.0123456789abcdeg.tmp"):
        out.with_name(name).write_bytes(b"x")
    dead(out)
    another = SimpleNamespace(manifest=SimpleNamespace(dataset="f" * 32))
    monkeypatch.setattr(placement, "read_bundle", lambda _: another)
    before = names(out)
    assert recover(out, ledger).removed == ()
    assert names(out) == before
    assert len(before) == 5


def test_a_folder_that_is_not_there_holds_nothing(ledger, tmp_path):
    found = recover(tmp_path / "none" / "bank.distill", ledger)
    assert (found.placed, found.removed) == ((), ())


def test_the_ledger_is_asked_after_the_lock_was_had(reservation, ledger, out, monkeypatch):
    """A run that commits and dies while another looks on must not lose its bundle."""
    dead(out)
    real = files.left_behind

    def committed_meanwhile(temporary):
        reservation.commit(DIGEST)
        return real(temporary)

    monkeypatch.setattr(files, "left_behind", committed_meanwhile)
    assert len(recover(out, ledger).placed) == 1


# --- temporary files --------------------------------------------------------------------------------------------------


def test_a_temporary_name_leads_back_to_its_place(out):
    assert files.place_of(files.temporary_beside(out)) == out
    assert files.place_of(out) is None


def test_a_staged_file_that_is_taken_for_left_behind_too_early_is_staged_anew(out, monkeypatch):
    real, taken = files._locked, []

    def slow(handle, *, wait):
        if wait and not taken:
            taken.extend(out.parent.iterdir())
            taken[0].unlink()
        return real(handle, wait=wait)

    monkeypatch.setattr(files, "_locked", slow)
    with files.staged(out) as temporary:
        assert [temporary.name] == names(out)
        assert temporary != taken[0]
        with files.left_behind(temporary) as gone:
            assert not gone


def test_where_nothing_can_be_locked_nothing_is_taken_for_left_behind(ledger, out, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    temporary = dead(out)
    assert recover(out, ledger).removed == ()
    assert temporary.exists()
