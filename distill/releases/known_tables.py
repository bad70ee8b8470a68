"""Which tables this machine's user has released from, so that a renamed copy does not get a second budget.

One folder a user: $DISTILL_STATE, else $XDG_STATE_HOME/distill, else ~/.local/state/distill. It holds a secret
(`tables.key`) and, per data set, fingerprints of the tables that releases were reserved on last (`tables.json`), both
readable by their owner only, and as private as the tables themselves. Nothing of it enters a project's folder, a ledger, a
bundle or a message, but the names and ledgers of data sets. Removing the folder removes this check and nothing else.

The answer, copy or not, depends on rows and is not charged: it is for the operator, as is the refusal of a table that does
not fit its schema.
"""

import base64
import hashlib
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.common import files
from distill.data.encoded_table import EncodedTable
from distill.data.schema import Schema
from distill.errors import ConfigError, CopiedTableError, StateError
from distill.ledger import Ledger
from distill.releases.fingerprint import SIZES, Fingerprint, Sketch, fingerprint

STATE_VARIABLE = "DISTILL_STATE"
KEPT = 4  # different tables a data set: a table grows, or is replaced
BUSY_SECONDS = 30.0  # a lock is held for as long as a reservation takes
_KEY_BYTES = 32


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredSketch(_Stored):
    """A sketch as JSON holds it; `hashes` are eight bytes each, little-endian, in base 64."""

    hashes: str
    limit: Annotated[int, Field(ge=0, lt=1 << 64)]
    chance: Annotated[float, Field(ge=0, le=1)]


class KnownTable(_Stored):
    """A table that a release was reserved on.

    Attributes:
        dataset, ledger, name: Id, ledger and public name of the data set.
        time: Of the reservation, ISO, UTC.
        sketches: Its fingerprint.
    """

    dataset: str
    ledger: str
    name: str
    time: str
    sketches: Annotated[tuple[StoredSketch, ...], Field(min_length=len(SIZES), max_length=len(SIZES))]

    def fingerprint(self) -> Fingerprint:
        """What is known of its rows. Raises ValueError if there are no hashes."""
        found = ((np.frombuffer(base64.b64decode(s.hashes, validate=True), dtype="<u8"), s) for s in self.sketches)
        return Fingerprint(tuple(Sketch(hashes.astype(np.uint64), s.limit, s.chance) for hashes, s in found))


class _Tables(_Stored):
    """`tables.json`; `key` tells the secret that it was made with, not what it is."""

    format: Literal[1] = 1
    key: str
    tables: tuple[KnownTable, ...] = ()


def state_folder(project: Path) -> Path:
    """Where known tables are kept. Raises ConfigError if that is inside the folder `project`, which may be passed on."""
    named, base = os.environ.get(STATE_VARIABLE), os.environ.get("XDG_STATE_HOME", "")
    if not named:
        try:
            return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "distill"
        except RuntimeError:
            raise ConfigError(f"there is no home folder; set {STATE_VARIABLE} to a folder for known tables.") from None
    folder = Path(named).resolve()
    if folder.is_relative_to(project.resolve()):
        raise ConfigError(
            f"{STATE_VARIABLE} is {folder}, inside the project's folder: what is kept there is as private as the table and "
            "stays out of what may be passed on. Name a folder elsewhere."
        )
    return folder


@contextmanager
def remembered(folder: Path | None, rows: EncodedTable, schema: Schema, ledger: Ledger, name: str) -> Iterator[None]:
    """Refuse a copy of a table that another, unlinked data set released from; the body reserves, then `rows` are remembered.

    No other reservation is checked or remembered meanwhile. If the body raises, nothing is remembered.

    Args:
        folder: Of known tables; None does nothing.
        rows, schema: The private table.
        ledger: Of the data set.
        name: Public name of the data set, for later messages.

    Raises:
        CopiedTableError: It is such a copy.
        StateError: The folder or a file in it cannot be used.
    """
    if folder is None:
        yield
        return
    with files.wrapped("make the folder of known tables", folder, StateError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = _secret(folder / "tables.key")
    mine = fingerprint(rows, schema, key)
    with _locked(folder / "tables.lock"):
        path = folder / "tables.json"
        known = _read(path, hashlib.blake2b(key, digest_size=16).hexdigest())
        prints = _fingerprints(path, known.tables)
        _refuse_copy(mine, known.tables, prints, ledger)
        yield
        new = _known(mine, ledger, name)
        same = [k for k in known.tables if k.dataset == ledger.dataset and k.sketches != new.sketches]
        others = [k for k in known.tables if k.dataset != ledger.dataset]
        data = known.model_copy(update={"tables": (*others, *same[1 - KEPT :], new)}).model_dump_json()
        with files.wrapped("write", path, StateError):
            files.write_whole(path, data.encode("utf-8"), mode=0o600)


def _refuse_copy(mine: Fingerprint, known: Sequence[KnownTable], prints: Sequence[Fingerprint], ledger: Ledger) -> None:
    """Raise CopiedTableError if `mine` is a copy of a known table of another data set that the ledger is not linked to."""
    apart = {ledger.dataset, *ledger.state().links}
    copied = {
        table.dataset: table
        for table, other in zip(known, prints, strict=True)
        if table.dataset not in apart and mine.copy_of(other)
    }
    if not copied:
        return
    names = " and ".join(f"{t.name!r} (ledger {t.ledger})" for t in copied.values())
    mends = " and ".join(f"`distill ledger link {t.ledger} --reason TEXT`" for t in copied.values())
    raise CopiedTableError(
        f"this table is mostly the same rows as that of {names}, so a release here would be a second budget for the same "
        f"records. Fit it in that project; or have the privacy officer declare that budgets add up: {mends}. Nothing was charged."
    )


def _known(mine: Fingerprint, ledger: Ledger, name: str) -> KnownTable:
    """What is kept of a table."""
    texts = (base64.b64encode(s.hashes.astype("<u8").tobytes()).decode("ascii") for s in mine.sketches)
    sketches = (
        StoredSketch(hashes=t, limit=s.limit, chance=s.chance) for t, s in zip(texts, mine.sketches, strict=True)
    )
    return KnownTable(
        dataset=ledger.dataset,
        ledger=str(ledger.path.resolve()),
        name=name,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        sketches=tuple(sketches),
    )


def _fingerprints(path: Path, known: Sequence[KnownTable]) -> list[Fingerprint]:
    try:
        return [table.fingerprint() for table in known]
    except ValueError:
        raise _damaged(path) from None


def _read(path: Path, key: str) -> _Tables:
    """What is known, made with the secret that `key` tells; nothing yet where there is no file."""
    if not path.exists():
        return _Tables(key=key)
    try:
        found = _Tables.model_validate_json(_private(path))
    except ValidationError:
        raise _damaged(path) from None
    if found.key != key:
        raise StateError(
            f"{path} was made with another tables.key than the one beside it, so nothing can be compared. Restore that key, or "
            "remove both files: only the check for copied tables forgets."
        )
    return found


def _secret(path: Path) -> bytes:
    """The secret at `path`, drawn now if there is none."""
    with files.wrapped("write", path, StateError):
        try:
            if not path.exists():
                files.write_whole(path, secrets.token_bytes(_KEY_BYTES), mode=0o600, overwrite=False)
        except FileExistsError:
            pass  # another process was quicker
    key = _private(path)
    if len(key) != _KEY_BYTES:
        raise _damaged(path)
    return key


def _private(path: Path) -> bytes:
    """The bytes of a file that only its owner may read. Raises StateError."""
    with files.wrapped("read", path, StateError), open(path, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if os.name == "posix" and mode & 0o077:
            raise StateError(
                f"{path} can be read or changed by other users (mode {mode:04o}), and is as private as your tables. Close it "
                f"with `chmod 600 {path}`; if it may have been copied, treat it as you would a copied table."
            )
        return file.read()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`; the system lets go of it if this process dies."""
    with files.wrapped("lock", path, StateError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            raise StateError(f"{path} is locked by another process, or cannot be ({error}). Try again.") from None
        yield


def _damaged(path: Path) -> StateError:
    return StateError(
        f"{path} is damaged. Restore it, or remove its folder {path.parent}: only the check for copied tables forgets."
    )
