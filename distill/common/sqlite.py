"""One SQLite file for one purpose: made whole or not at all, opened for each transaction, its shape checked every time.

Every operation opens its own connection, so any number of processes and threads may use one file. Writers take the write
lock first (`BEGIN IMMEDIATE`), so what a writer reads is what it builds on, and `synchronous=FULL` puts what was committed
on the disk. The file must lie on a local disk: SQLite's locks are not reliable on network shares.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from distill.common import files
from distill.errors import DistillError

BUSY_SECONDS = 30.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a file of one kind holds, and what to say when it does not.

    Attributes:
        what: Its name in messages, such as `ledger`.
        application_id, version: Written into the file's header.
        tables, triggers: Name -> SQL; a trigger's name begins with its table's, and no table has an index beside it (STRICT,
            and WITHOUT ROWID where the key is no integer).
        largest: Bytes of a value, at most.
        refused: Raised where the file cannot be opened, read or written.
        damaged: Raised where it holds something else than it should.
        mend: How to get a right one, a sentence.
        restore: What to do about a damaged one, a sentence.
        older: Earlier versions -> why they cannot be used and what to do.
    """

    what: str
    application_id: int
    version: int
    tables: Mapping[str, str]
    triggers: Mapping[str, str] = field(default_factory=dict)
    largest: int
    refused: type[DistillError]
    damaged: type[DistillError]
    mend: str
    restore: str
    older: Mapping[int, str] = field(default_factory=dict)


def create(path: Path, shape: Shape, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Make the file with what `fill` puts in: whole or not at all, never over an existing one. Raises `shape.refused`."""
    with files.wrapped(f"write the {shape.what}", path, shape.refused):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.sweep(path)
        # Grown in a folder of its own, because SQLite puts files of its own beside it.
        with files.staged_folder(path) as folder:
            temporary = folder / path.name
            files.write_exactly(temporary, b"", mode=0o600, exclusive=True)
            with _connection(temporary, path, shape) as connection:
                connection.execute(f"PRAGMA application_id={shape.application_id}")
                connection.execute(f"PRAGMA user_version={shape.version}")
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                with _transaction(connection):
                    for statement in (*shape.tables.values(), *shape.triggers.values()):
                        connection.execute(statement)
                    fill(connection)
            files.put_in_place(temporary, path, overwrite=False)


@contextlib.contextmanager
def reading(path: Path, shape: Shape) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, on one consistent snapshot. Raises `shape.refused`, `shape.damaged`."""
    with _connection(path, path, shape) as connection:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("BEGIN")
        check_shape(connection, path, shape)
        yield connection


@contextlib.contextmanager
def writing(path: Path, shape: Shape) -> Iterator[sqlite3.Connection]:
    """A connection that holds the write lock; leaving the block commits, an exception undoes. Raises as `reading`."""
    with _connection(path, path, shape) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        with _transaction(connection):
            check_shape(connection, path, shape)
            yield connection


def kept(path: Path, shape: Shape, what: Callable[[sqlite3.Connection], T]) -> T:
    """What `what` returns after it wrote, in one transaction, into the file at `path`; which is made first if there is none.

    What dead runs left beside the file is removed on the way. Raises as `reading`.
    """
    if not path.exists():
        try:
            create(path, shape, lambda _: None)
        except shape.refused:
            if not path.exists():  # else another process made it in the meantime
                raise
    files.sweep(path)
    with writing(path, shape) as connection:
        connection.text_factory = str
        return what(connection)


def check_shape(connection: sqlite3.Connection, path: Path, shape: Shape) -> None:
    """The file is of this kind, its tables and triggers are exactly ours. Raises `shape.refused` or `shape.damaged`."""
    what = shape.what
    if connection.execute("PRAGMA application_id").fetchone()[0] != shape.application_id:
        raise shape.refused(f"{path} is an SQLite file, but not a {what}. {shape.mend}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > shape.version:
        raise shape.refused(f"the {what} {path} was written by a newer version (format {version}); update distill.")
    if version in shape.older:
        raise shape.refused(f"the {what} {path} is of format {version}, {shape.older[version]}")
    expected = sorted(
        [("table", name, name, sql) for name, sql in shape.tables.items()]
        + [("trigger", name, name.split("_")[0], sql) for name, sql in shape.triggers.items()]
    )
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchmany(len(expected) + 1)
    there = sorted(tuple(b"" if v is None else v for v in row) for row in found)
    if version != shape.version or there != [tuple(v.encode() for v in row) for row in expected]:
        raise shape.damaged(
            f"{path}: its tables or triggers are not those of a {what}, so what it holds could have been changed. "
            f"{shape.restore}"
        )


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
def _connection(file: Path, path: Path, shape: Shape) -> Iterator[sqlite3.Connection]:
    """A connection to the existing `file`; errors of SQLite become ours and name `path`."""
    try:
        with contextlib.closing(_open(file, shape.largest)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise _translated(error, path, shape) from None
    except UnicodeDecodeError:  # the library decodes names in a damaged schema for its messages
        raise _damaged(path, shape, "its schema is not text") from None


def _open(file: Path, largest: int) -> sqlite3.Connection:
    """Open `file`, never make it; in a folder that cannot be written (an auditor's copy) it opens read-only."""
    fixed = not os.access(file.parent, os.W_OK) and not file.with_name(file.name + "-wal").exists()
    uri = f"file:{quote(str(file.absolute()))}?" + ("immutable=1" if fixed else "mode=rw")
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.text_factory = bytes  # whatever is in the file is looked at as bytes first
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, largest)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _translated(error: sqlite3.Error, path: Path, shape: Shape) -> DistillError:
    """An error of SQLite in our words."""
    what, code = shape.what, getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return shape.refused(
            f"the {what} {path} was in use by another process for more than {BUSY_SECONDS:g} s; "
            "nothing was recorded. Try again."
        )
    if code == sqlite3.SQLITE_NOTADB:
        return shape.refused(f"{path} is not a {what}. {shape.mend}")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return shape.refused(
            f"cannot write the {what} {path}: {error}; nothing was recorded. "
            "Free some space or check the disk, then try again."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return shape.refused(
            f"cannot open the {what} {path} for writing: {error}; nothing was recorded. "
            "Check the permissions of the file and its folder."
        )
    return _damaged(path, shape, str(error))


def _damaged(path: Path, shape: Shape, problem: str) -> DistillError:
    return shape.damaged(f"{path}: the file is damaged ({problem}). {shape.restore}")
