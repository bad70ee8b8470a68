"""The SQLite file under the ledger: one table of entries that only grows, and one row that seals its end.

A committed entry is on the disk before anything is read from the private table (`sqlite_file`).
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from distill.common import sqlite
from distill.errors import LedgerError, LedgerTamperedError
from distill.ledger.entries.entry import MAX_ENTRY_BYTES, Entry

STORE_FORMAT = 2
APPLICATION_ID = 0x44495354  # "DIST"
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
_LEDGER = sqlite.Shape(
    what="ledger",
    application_id=APPLICATION_ID,
    version=STORE_FORMAT,
    tables=_TABLES,
    triggers=_TRIGGERS,
    largest=4 * MAX_ENTRY_BYTES,
    refused=LedgerError,
    damaged=LedgerTamperedError,
    mend="Name the ledger's file, or run `distill init` to make one.",
    restore="Restore the ledger from a backup.",
    older={
        1: "from before the first published version, and cannot be continued. Keep it, make a new one with `distill init`, "
        "and grant what was left."
    },
)


def create(path: Path, first: Entry, seal: str) -> None:
    """Make the file with its first entry: whole or not at all, never over an existing one. Raises LedgerError."""

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO entries VALUES (?, ?)", (first.sequence, first.to_bytes().decode()))
        connection.execute("INSERT INTO head VALUES (1, ?, ?)", (first.sequence, seal))

    sqlite.create(path, _LEDGER, fill)


def reading(path: Path) -> contextlib.AbstractContextManager[sqlite3.Connection]:
    """A connection that cannot write, on one consistent snapshot. Raises LedgerError."""
    return sqlite.reading(path, _LEDGER)


def writing(path: Path) -> contextlib.AbstractContextManager[sqlite3.Connection]:
    """A connection that holds the write lock; leaving the block commits, an exception undoes. Raises LedgerError."""
    return sqlite.writing(path, _LEDGER)


def rows(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes]]:
    """All entries in order, as stored. Raises ValueError for one that is not text."""
    for sequence, entry in connection.execute("SELECT sequence, entry FROM entries ORDER BY sequence"):
        if not isinstance(entry, bytes):  # a damaged page can hold another type, whatever the table says
            raise ValueError("an entry is not text")
        yield sequence, entry


def head(connection: sqlite3.Connection) -> tuple[int, str]:
    """The sealed end: (sequence, seal). Raises ValueError if there is not exactly one."""
    found = connection.execute("SELECT sequence, seal FROM head").fetchmany(2)
    if len(found) != 1 or not isinstance(found[0][1], bytes):
        raise ValueError("the seal on the end of the chain is missing")
    return found[0][0], found[0][1].decode("ascii", errors="replace")


def append(connection: sqlite3.Connection, entry: Entry, seal: str) -> None:
    """Add `entry` and move the seal, inside `writing`."""
    connection.execute("INSERT INTO entries VALUES (?, ?)", (entry.sequence, entry.to_bytes().decode()))
    connection.execute("UPDATE head SET sequence = ?, seal = ?", (entry.sequence, seal))


def check_pages(connection: sqlite3.Connection) -> None:
    """SQLite's own check of the file's structure. Raises ValueError."""
    if connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != b"ok":
        raise ValueError("the file's pages are damaged")
