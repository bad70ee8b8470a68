"""The SQLite file under the ledger: one table of entries that only grows, and one row that seals its end.

Every operation opens its own connection, so any number of processes and threads may use one ledger. Writers take the
write lock first (`BEGIN IMMEDIATE`), so what a writer reads is what it builds on, and `synchronous=FULL` puts a
committed entry on the disk before anything is read from the private table. The file must lie on a local disk: SQLite's
locks are not reliable on network shares.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from distill import durable
from distill.errors import LedgerError, LedgerTamperedError
from distill.ledger.entry import MAX_ENTRY_BYTES, Entry

STORE_FORMAT = 2
OLD_FORMATS = (1,)
APPLICATION_ID = 0x44495354  # "DIST"
BUSY_SECONDS = 30.0
_TABLES = {
    "entries": "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, entry TEXT NOT NULL) STRICT",
    "head": "CREATE TABLE head "
    "(one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, seal TEXT NOT NULL) STRICT",
}
_APPEND_ONLY = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
# `INSERT OR REPLACE` removes rows without firing DELETE triggers, so inserting has a trigger of its own.
_TRIGGERS = {
    "entries_insert": "CREATE TRIGGER entries_insert BEFORE INSERT ON entries "
    f"WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM entries) {_APPEND_ONLY}",
    "entries_update": f"CREATE TRIGGER entries_update BEFORE UPDATE ON entries {_APPEND_ONLY}",
    "entries_delete": f"CREATE TRIGGER entries_delete BEFORE DELETE ON entries {_APPEND_ONLY}",
    "head_insert": f"CREATE TRIGGER head_insert BEFORE INSERT ON head WHEN EXISTS (SELECT 1 FROM head) {_APPEND_ONLY}",
    "head_update": "CREATE TRIGGER head_update BEFORE UPDATE ON head "
    f"WHEN NEW.one IS NOT OLD.one OR NEW.sequence IS NOT OLD.sequence + 1 {_APPEND_ONLY}",
    "head_delete": f"CREATE TRIGGER head_delete BEFORE DELETE ON head {_APPEND_ONLY}",
}
_SCHEMA = sorted(
    [("table", name, name, sql) for name, sql in _TABLES.items()]
    + [("trigger", name, name.split("_")[0], sql) for name, sql in _TRIGGERS.items()]
)


def create(path: Path, first: Entry, seal: str) -> None:
    """Make the file with its first entry: whole or not at all, never over an existing one. Raises LedgerError."""
    temporary = durable.temporary_beside(path)
    try:
        with durable.wrapped("write the ledger", path, LedgerError):
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_exactly(temporary, b"", mode=0o600, exclusive=True)
        with _connection(temporary, path) as connection:
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={STORE_FORMAT}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            with _transaction(connection):
                for statement in (*_TABLES.values(), *_TRIGGERS.values()):
                    connection.execute(statement)
                connection.execute("INSERT INTO entries VALUES (?, ?)", (first.sequence, first.to_bytes().decode()))
                connection.execute("INSERT INTO head VALUES (1, ?, ?)", (first.sequence, seal))
        with durable.wrapped("write the ledger", path, LedgerError):
            durable.put_in_place(temporary, path, overwrite=False)
    finally:
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temporary.with_name(temporary.name + ending).unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, on one consistent snapshot. Raises LedgerError."""
    with _connection(path, path) as connection:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("BEGIN")
        check_shape(connection, path)
        yield connection


@contextlib.contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that holds the write lock; leaving the block commits, an exception undoes. Raises LedgerError."""
    with _connection(path, path) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        with _transaction(connection):
            check_shape(connection, path)
            yield connection


def rows(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes]]:
    """All entries in order, as stored."""
    yield from connection.execute("SELECT sequence, entry FROM entries ORDER BY sequence")


def head(connection: sqlite3.Connection) -> tuple[int, str]:
    """The sealed end: (sequence, seal). Raises ValueError if there is not exactly one."""
    found = connection.execute("SELECT sequence, seal FROM head").fetchmany(2)
    if len(found) != 1:
        raise ValueError("the seal on the end of the chain is missing")
    return found[0][0], found[0][1].decode("ascii", errors="replace")


def append(connection: sqlite3.Connection, entry: Entry, seal: str) -> None:
    """Add `entry` and move the seal, inside `writing`."""
    connection.execute("INSERT INTO entries VALUES (?, ?)", (entry.sequence, entry.to_bytes().decode()))
    connection.execute("UPDATE head SET sequence = ?, seal = ?", (entry.sequence, seal))


def check_shape(connection: sqlite3.Connection, path: Path) -> None:
    """The file is a ledger, its tables and triggers are exactly ours. Raises LedgerError or LedgerTamperedError."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LedgerError(f"{path} is an SQLite file, but not a ledger. `distill init` makes one.")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > STORE_FORMAT:
        raise LedgerError(f"the ledger {path} was written by a newer version (format {version}); update distill.")
    if version in OLD_FORMATS:
        raise LedgerError(
            f"the ledger {path} is of format {version}, from before the first published version, and cannot be continued. "
            "Keep it, make a new one with `distill init`, and grant what was left."
        )
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchmany(len(_SCHEMA) + 1)
    shape = sorted(tuple(b"" if v is None else v for v in row) for row in found)
    if version != STORE_FORMAT or shape != [tuple(v.encode() for v in row) for row in _SCHEMA]:
        raise LedgerTamperedError(
            f"{path}: its tables or triggers are not those of a ledger, so entries could have been changed. "
            "Restore the ledger from a backup."
        )


def check_pages(connection: sqlite3.Connection) -> None:
    """SQLite's own check of the file's structure. Raises ValueError."""
    if connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != b"ok":
        raise ValueError("the file's pages are damaged")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Take the write lock now; commit at the end, or undo everything."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # after a full disk SQLite has rolled back already
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _connection(file: Path, path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the existing `file`; errors of SQLite become ours and name `path`."""
    try:
        with contextlib.closing(_open(file)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise _translated(error, path) from None


def _open(file: Path) -> sqlite3.Connection:
    """Open `file`, never make it; in a folder that cannot be written (an auditor's copy) it opens read-only."""
    fixed = not os.access(file.parent, os.W_OK) and not file.with_name(file.name + "-wal").exists()
    uri = f"file:{quote(str(file.absolute()))}?" + ("immutable=1" if fixed else "mode=rw")
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.text_factory = bytes  # whatever is in the file is looked at as bytes first
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4 * MAX_ENTRY_BYTES)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _translated(error: sqlite3.Error, path: Path) -> LedgerError:
    """An error of SQLite in our words."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerError(
            f"the ledger {path} was in use by another process for more than {BUSY_SECONDS:g} s; "
            "nothing was recorded. Try again."
        )
    if code == sqlite3.SQLITE_NOTADB:
        return LedgerError(f"{path} is not a ledger. Name the ledger's file, or run `distill init` to make one.")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return LedgerError(
            f"cannot write the ledger {path}: {error}; nothing was recorded. "
            "Free some space or check the disk, then try again."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return LedgerError(
            f"cannot open the ledger {path} for writing: {error}; nothing was recorded. "
            "Check the permissions of the file and its folder."
        )
    return LedgerTamperedError(f"{path}: the file is damaged ({error}). Restore the ledger from a backup.")
