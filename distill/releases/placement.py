"""The place of a release's file: looked at before anything is charged, and filled at the end.

The file is written under a temporary name, its digest is committed, and then it is moved into place.

Between the two steps a process may die: then the release is committed, and its bundle lies under the temporary name. `recover`
finds it by its digest and puts it in place; what was never committed must not be sent, and is removed.
"""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.common import files
from distill.errors import BundleError, LedgerError
from distill.exchange.bundle import MAX_FILE, read_bundle
from distill.ledger import Ledger, Release, Reservation
from distill.ledger.reservation import Books

TRIAL_BYTES = 1 << 20  # room for a bundle, looked for before anything is charged


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A bundle that is committed and in place: its SHA-256, its bytes, and the hash of the entry that committed it."""

    digest: str
    size: int
    head: str


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What was found of runs that died.

    Attributes:
        placed: Committed bundles that are in place now, with their releases.
        removed: Temporary files that no committed entry knows.
    """

    placed: tuple[tuple[Path, Release], ...]
    removed: tuple[Path, ...]


def require_place(out: Path, *, protected: Sequence[Path], overwrite: bool) -> None:
    """Refuse, before anything is charged, a place for a bundle that cannot be written or must not be replaced.

    Args:
        out: Where the bundle is to go.
        protected: Files that are never replaced: the table or bundle that it comes from, and the ledger.
        overwrite: Whether another file at `out` may be replaced.

    Raises:
        BundleError: `out` is such a place.
    """
    if out.is_dir():
        raise BundleError(f"{out} is a directory; name a file for the bundle.")
    if out.resolve() in [path.resolve() for path in protected]:
        raise BundleError(f"{out} is the table or the ledger itself; name another file for the bundle.")
    if out.exists() and not overwrite:
        raise BundleError(f"{out} exists already; name another file with --out or allow replacing it with --overwrite.")
    with files.wrapped("write the bundle", out, BundleError):
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.staged(out) as trial:
            files.write_exactly(trial, bytes(TRIAL_BYTES))
            trial.unlink()


def commit_and_place(out: Path, write: Callable[[Path], str], reservation: Reservation, *, overwrite: bool) -> Placed:
    """Have a bundle written beside `out`, commit its digest, and move it to `out`.

    Whatever interrupts this, Ctrl-C too: a bundle that was committed ends in its place, one that was not is removed; where neither
    can be done, it stays for `recover`.

    Args:
        out: Where the bundle goes.
        write: Fills the file that it is given and returns its SHA-256.
        reservation: Of the release.
        overwrite: Whether a file at `out` may be replaced.

    Raises:
        LedgerError: Nothing was committed.
        BundleError: The bundle cannot be written; or the release is committed, and the bundle cannot be moved (it stays where
            the message says).
    """
    digest = ""
    with files.wrapped("write the bundle", out, BundleError), files.staged(out) as temporary:
        try:
            digest = write(temporary)
            files.date(temporary, reservation.day)
            size = temporary.stat().st_size
            entry = reservation.commit(digest)
            _move(temporary, out, overwrite=overwrite)
        except BaseException:
            with contextlib.suppress(LedgerError, OSError):  # the first error is the one to tell
                if digest and _release_of(digest, reservation.ledger):
                    files.put_in_place(temporary, out, overwrite=overwrite)
                else:
                    temporary.unlink(missing_ok=True)
            raise
    return Placed(digest=digest, size=size, head=entry.hash)


def recover(out: Path, ledger: Ledger) -> Recovered:
    """Put in place what dead runs committed but did not move, and remove what they did not commit. Replaces no file.

    All committed bundles in the folder of `out` are put in place, whatever their names; only those meant for `out` are ever
    removed, and never a bundle of another data set. A bundle whose place is taken gets its release's id behind its name.

    Raises:
        BundleError: A file cannot be read, moved or removed.
        LedgerError, LedgerTamperedError: The ledger cannot be read.
    """
    placed, removed = [], []
    with files.wrapped("recover the bundle", out, BundleError):
        for temporary in sorted(out.parent.glob(".*.tmp")):
            place = files.place_of(temporary)
            with files.left_behind(temporary) as dead, contextlib.suppress(FileNotFoundError):
                if place is None or not dead or temporary.stat().st_size > MAX_FILE:
                    continue
                # The ledger is asked after the lock was had: its run may have committed until then.
                release = _release_of(hashlib.sha256(temporary.read_bytes()).hexdigest(), ledger)
                if release is not None:
                    placed += _placed(temporary, place, release)
                elif place.name == out.name and not _of_another(temporary, ledger):
                    temporary.unlink()
                    removed.append(temporary)
    return Recovered(placed=tuple(placed), removed=tuple(removed))


def require_nothing_left(out: Path, ledger: Ledger) -> None:
    """`recover`, before a further release is paid for: the bundle that it would make may have been there all along.

    Raises:
        BundleError: A committed bundle was put in place; nothing was read or charged.
        LedgerError, LedgerTamperedError: As `recover`.
    """
    placed = recover(out, ledger).placed
    if placed:
        bundles = ", ".join(f"{place} (release {release.release[:8]})" for place, release in placed)
        raise BundleError(
            f"an earlier run was cut short after its release was committed; its bundle is in place now: {bundles}. "
            "Nothing was read or charged by this run. For a further release run it again, with another --out or --overwrite."
        )


def _move(temporary: Path, out: Path, *, overwrite: bool) -> None:
    """Put a committed bundle in place. Raises BundleError that says where it is otherwise."""
    try:
        files.put_in_place(temporary, out, overwrite=overwrite)
    except OSError as error:
        raise BundleError(
            f"the release is committed, but {files.problem(error, out)}; the bundle is at {temporary}. "
            f"`distill bundle recover --out {out}` puts it in place."
        ) from None


def _release_of(digest: str, ledger: Books) -> Release | None:
    """The release that was committed with this bundle."""
    return next((r for r in ledger.state().releases.values() if r.bundle == digest), None)


def _placed(temporary: Path, place: Path, release: Release) -> list[tuple[Path, Release]]:
    """Move a committed bundle into place; nothing to tell if it is there already and only its second name was left."""
    if place.exists() and place.samefile(temporary):
        temporary.unlink()
        return []
    beside = place.with_name(f"{place.stem}-{release.release[:8]}{place.suffix}")
    with contextlib.suppress(FileExistsError):
        files.put_in_place(temporary, place, overwrite=False)
        return [(place, release)]
    files.put_in_place(temporary, beside, overwrite=False)
    return [(beside, release)]


def _of_another(temporary: Path, ledger: Ledger) -> bool:
    """Whether this is a whole bundle of a data set with a ledger of its own, which may have committed it."""
    with contextlib.suppress(BundleError):
        return read_bundle(temporary).manifest.dataset != ledger.dataset
    return False
