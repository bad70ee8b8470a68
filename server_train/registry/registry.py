"""The registry of trained models in one SQLite file, `models.db`: every training run is one version, with the model's files.

A version and its files are written in one transaction, so it is there whole or not at all. Versions are never changed or removed:
the file's triggers refuse it, and each version's digest covers its files and the version before, so a change behind the triggers'
back shows whenever it is read. Like any chain of digests, it cannot show that somebody wrote all of it anew: for that, keep the newest
digest (`train-global` prints it) elsewhere.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from distill.common import sqlite
from distill.common.canonical_json import parse_canonical
from distill.common.metadata import acting_user, now
from distill.errors import ConfigError, RegistryError, RegistryTamperedError
from server_train.models.model import ModelCard
from server_train.registry.version import LARGEST_FILE, Mark, Version, entries_of, is_file_name, promoted, record_of

REGISTRY_FILE = "models.db"
RESTORE = "Restore it from a backup."
_KEPT = ("versions", "files", "marks")
_SHAPE = sqlite.Shape(
    what="registry of models",
    application_id=0x444D4F44,  # "DMOD"
    version=1,
    tables={
        "versions": "CREATE TABLE versions (number INTEGER PRIMARY KEY, body BLOB NOT NULL, digest TEXT NOT NULL) STRICT",
        "files": "CREATE TABLE files (version INTEGER NOT NULL, name TEXT NOT NULL, content BLOB NOT NULL, "
        "PRIMARY KEY (version, name)) STRICT, WITHOUT ROWID",
        "marks": "CREATE TABLE marks (sequence INTEGER PRIMARY KEY, body BLOB NOT NULL, digest TEXT NOT NULL) STRICT",
    },
    triggers={
        f"{table}_never_{what.lower()}": f"CREATE TRIGGER {table}_never_{what.lower()} BEFORE {what} ON {table} BEGIN "
        f"SELECT RAISE(ABORT, 'what was registered stays as it is'); END"
        for table in _KEPT
        for what in ("UPDATE", "DELETE")
    },
    largest=LARGEST_FILE + (1 << 20),
    refused=RegistryError,
    damaged=RegistryTamperedError,
    mend="Name the registry with --registry; `distill train-global` makes one.",
    restore=RESTORE,
)
T = TypeVar("T")
Entry = TypeVar("Entry", Version, Mark)


@dataclass(frozen=True)
class History:
    """All that a registry says, with its chains checked; the files of its versions are not read.

    Attributes:
        versions: In the order of training.
        marks: What was promoted and rolled back, in order.
    """

    versions: tuple[Version, ...]
    marks: tuple[Mark, ...]

    @property
    def stacks(self) -> dict[str, list[int]]:
        """As `model_version.promoted`."""
        return promoted(self.marks)

    @property
    def current(self) -> dict[str, int]:
        """By schema digest the number of the promoted version."""
        return {digest: stack[-1] for digest, stack in self.stacks.items()}

    def version(self, number: int) -> Version:
        """One version. Raises ConfigError if there is none of this number."""
        if 1 <= number <= len(self.versions):
            return self.versions[number - 1]
        there = f"versions 1 to {len(self.versions)}" if self.versions else "no version yet"
        raise ConfigError(f"there is no version {number}; the registry holds {there} (`distill models list`).")


class Registry:
    """A registry on disk. Holds no connection and no cache; the file is made for the first version.

    Every method raises RegistryError if the file cannot be read or written (nothing is recorded then), RegistryTamperedError if it
    holds something else than was recorded.
    """

    def __init__(self, path: Path | str, *, by: str | None = None) -> None:
        """Name the file, which need not exist, and who registers and promotes; None: the user who runs this."""
        self.path, self.by = Path(path), acting_user() if by is None else by

    def history(self) -> History:
        """All versions and marks."""
        with self._existing() as connection:
            return _history(connection, self.path)

    def add(self, card: ModelCard, files: Mapping[str, bytes], recipe: Mapping[str, Any]) -> Version:
        """Register a model with its files, by their names: all of it or nothing.

        Args:
            card: Of the model.
            files: Content by name, a relative path inside the model's folder.
            recipe: What makes the model again from the same bundles: arguments of `train_global`.
        """
        entries, record = entries_of(files), record_of(card, recipe)

        def write(connection: sqlite3.Connection) -> Version:
            known = _history(connection, self.path).versions
            version = Version(
                number=len(known) + 1,
                made=now(),
                made_by=self.by,
                record=record,
                files=entries,
                previous=known[-1].digest if known else "",
            )
            row = (version.number, version.body, version.digest)
            connection.execute("INSERT INTO versions VALUES (?, ?, ?)", row)
            for name, content in files.items():
                connection.execute("INSERT INTO files VALUES (?, ?, ?)", (version.number, name, content))
            return version

        return self._write(write)

    def promote(self, number: int, *, reason: str = "", allow_rehearsal: bool = False) -> Mark:
        """Make a version the current one of its schema. Raises ConfigError if there is none, it is current, or not private."""

        def choose(history: History) -> tuple[str, Version]:
            version = history.version(number)
            if history.current.get(version.record.schema_digest) == number:
                raise ConfigError(f"version {number} is the current one already.")
            if version.record.rehearsal and not allow_rehearsal:
                raise ConfigError(
                    f"version {number} is a REHEARSAL, NOT PRIVATE: promote one of real releases (for a trial: --allow-rehearsal)."
                )
            return "promote", version

        return self._mark(choose, reason)

    def rollback(self, *, schema: str | None = None, reason: str = "") -> Mark:
        """Make the version current that was promoted before the current one.

        Args:
            schema: Name of the schema or the first digits of its digest; may be left out where versions of one only were promoted.
            reason: Why.

        Raises:
            ConfigError: nothing was promoted before, or it is not clear for which schema.
        """

        def choose(history: History) -> tuple[str, Version]:
            stack = history.stacks[chosen_schema(history, schema)]
            if len(stack) < 2:
                raise ConfigError(f"nothing was promoted before version {stack[-1]}; promote another one instead.")
            return "rollback", history.version(stack[-2])

        return self._mark(choose, reason)

    def files(self, number: int) -> dict[str, bytes]:
        """The files of a version by name, each checked against its digest. Raises ConfigError if there is no such version."""
        with self._existing() as connection:
            return _files(connection, self.path, _history(connection, self.path).version(number))

    def verify(self) -> History:
        """Check everything: the file itself, both chains, every byte of every model, and that nothing else is in the file."""
        with self._existing() as connection:
            problem = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if problem != "ok":
                raise _tampered(self.path, "SQLite finds its pages damaged")
            history = _history(connection, self.path)
            for version in history.versions:
                _files(connection, self.path, version)
            held = connection.execute("SELECT COUNT(*) FROM files").fetchone()[0]
            if held != sum(len(v.files) for v in history.versions):
                raise _tampered(self.path, "it holds files of no version")
            return history

    def _mark(self, choose: Callable[[History], tuple[str, Version]], reason: str) -> Mark:
        if len(reason) > 2000 or not all(c.isprintable() or c == "\n" for c in reason):
            raise ConfigError("--reason must be printable text of at most 2000 characters.")

        def write(connection: sqlite3.Connection) -> Mark:
            history = _history(connection, self.path)
            action, version = choose(history)
            mark = Mark(
                sequence=len(history.marks) + 1,
                action=action,  # type: ignore[arg-type]  # checked by the model
                schema_digest=version.record.schema_digest,
                version=version.number,
                version_digest=version.digest,
                at=now(),
                by=self.by,
                reason=reason,
                previous=history.marks[-1].digest if history.marks else "",
            )
            connection.execute("INSERT INTO marks VALUES (?, ?, ?)", (mark.sequence, mark.body, mark.digest))
            return mark

        self._require()
        return self._write(write)

    def _require(self) -> None:
        if not self.path.exists():
            raise RegistryError(f"no registry of models at {self.path}. {_SHAPE.mend}")

    @contextlib.contextmanager
    def _existing(self) -> Iterator[sqlite3.Connection]:
        self._require()
        with sqlite.reading(self.path, _SHAPE) as connection:
            connection.text_factory = str
            yield connection

    def _write(self, what: Callable[[sqlite3.Connection], T]) -> T:
        return sqlite.kept(self.path, _SHAPE, what)


def chosen_schema(history: History, which: str | None) -> str:
    """The digest of the schema that is meant, of those with a promoted version. Raises ConfigError."""
    names = {v.record.schema_digest: v.record.schema_name for v in history.versions}
    there = {digest: names[digest] for digest in history.current}
    meant = [
        d for d, name in there.items() if which is None or name == which or (len(which) > 5 and d.startswith(which))
    ]
    if len(meant) == 1:
        return meant[0]
    listed = ", ".join(f"{name!r} ({digest[:8]})" for digest, name in sorted(there.items(), key=lambda item: item[1]))
    if not listed:
        raise ConfigError("no version is promoted yet (`distill models promote N`).")
    said = "versions of several schemas are promoted" if which is None else f"{which!r} is not one promoted schema"
    raise ConfigError(f"{said}; name one of: {listed}.")


def _history(connection: sqlite3.Connection, path: Path) -> History:
    versions = _chain(connection, path, Version, "SELECT number, body, digest FROM versions ORDER BY number")
    marks = _chain(connection, path, Mark, "SELECT sequence, body, digest FROM marks ORDER BY sequence")
    history = History(versions, marks)
    for mark in marks:
        if mark.version > len(versions) or versions[mark.version - 1].digest != mark.version_digest:
            raise _tampered(path, f"version {mark.version}, which was promoted, is gone or another one")
    try:
        promoted(marks)
    except RegistryError as error:
        raise _tampered(path, str(error)) from None
    return history


def _chain(connection: sqlite3.Connection, path: Path, kind: type[Entry], asked: str) -> tuple[Entry, ...]:
    """All versions, or all marks: numbered without a gap, each with its own digest and that of the one before it."""
    found: list[Entry] = []
    name = kind.__name__.lower()
    for place, (number, body, digest) in enumerate(connection.execute(asked), start=1):
        if number != place or hashlib.sha256(body).hexdigest() != digest:
            raise _tampered(path, f"{name} {place} is missing or not what was recorded")
        try:
            entry = kind.model_validate(parse_canonical(body))
        except (ValueError, ValidationError):
            raise _tampered(path, f"{name} {place} is not in the form of one") from None
        stated = entry.number if isinstance(entry, Version) else entry.sequence
        if stated != place or entry.previous != (found[-1].digest if found else ""):
            raise _tampered(path, f"{name} {place} does not follow the one before it")
        found.append(entry)
    return tuple(found)


def _files(connection: sqlite3.Connection, path: Path, version: Version) -> dict[str, bytes]:
    asked = "SELECT name, content FROM files WHERE version = ? ORDER BY name"
    found: dict[str, bytes] = dict(connection.execute(asked, (version.number,)))
    for name in sorted({*version.files, *found}):
        entry, content = version.files.get(name), found.get(name)
        if entry is None or content is None or not is_file_name(name):
            raise _tampered(path, f"the files of version {version.number} are not those that were recorded")
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _tampered(path, f"{name} of version {version.number} is not the file that was recorded")
    return found


def _tampered(path: Path, problem: str) -> RegistryTamperedError:
    return RegistryTamperedError(f"{path}: {problem}. {RESTORE}")
