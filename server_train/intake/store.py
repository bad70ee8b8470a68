"""The hub's memory in one SQLite file: which keys it trusts, and what it has seen of each data set's ledger.

It is read and written in single transactions, so any number of hub processes may share it, and what one has seen the next
one knows. It holds public facts only: keys, hashes, budgets, names.
"""

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from distill.common import sqlite
from distill.common.metadata import now
from distill.errors import ConfigError, HubFileError
from distill.exchange.bundle import Bundle
from server_train.intake.ledger_heads import SeenLedger, SeenRelease, after_all
from server_train.intake.trust import TrustedKey

HUB_FILE = "hub.db"
_TABLES = {
    "keys": "CREATE TABLE keys (public_key TEXT PRIMARY KEY, name TEXT NOT NULL, added TEXT NOT NULL, added_by TEXT NOT NULL, "
    "note TEXT NOT NULL, removed TEXT) STRICT, WITHOUT ROWID",
    "ledgers": "CREATE TABLE ledgers (dataset TEXT PRIMARY KEY, hashes BLOB NOT NULL, shown_by TEXT NOT NULL) "
    "STRICT, WITHOUT ROWID",
    "releases": "CREATE TABLE releases (dataset TEXT NOT NULL, release TEXT NOT NULL, sequence INTEGER NOT NULL, "
    "epsilon REAL NOT NULL, delta REAL NOT NULL, epsilon_total REAL NOT NULL, adds_up INTEGER NOT NULL, "
    "rehearsal INTEGER NOT NULL, origin TEXT NOT NULL, digest TEXT NOT NULL, file TEXT NOT NULL, institution TEXT NOT NULL, "
    "public_key TEXT NOT NULL, seen TEXT NOT NULL, PRIMARY KEY (dataset, release)) STRICT, WITHOUT ROWID",
}
_SHAPE = sqlite.Shape(
    what="hub's memory",
    application_id=0x44485542,  # "DHUB"
    version=1,
    tables=_TABLES,
    largest=64 << 20,
    refused=HubFileError,
    damaged=HubFileError,
    mend="Name the hub's file with --hub; `distill hub trust add` makes one.",
    restore="Restore it from a backup.",
)
T = TypeVar("T")
Row = TypeVar("Row", TrustedKey, SeenRelease)


class HubStore:
    """The hub's memory on disk. Holds no connection and no cache; the file is made by the first thing to remember.

    Every method raises HubFileError if the file cannot be read or written; nothing is recorded then.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist."""
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether there is anything to remember yet."""
        return self.path.exists()

    def all_keys(self) -> tuple[TrustedKey, ...]:
        """All keys, by name; also those that are trusted no longer."""
        return self._read(_keys)

    def add_key(self, public_hex: str, *, name: str, by: str) -> TrustedKey:
        """Trust a key from now on; adding it again changes nothing. Raises ConfigError if it or the name is taken."""
        if not name.strip() or not name.isprintable() or len(name) > 500:
            raise ConfigError("the name must be one line of printable text, at most 500 characters (--name).")
        new = TrustedKey(public_key=public_hex, name=name, added=now(), added_by=by)

        def add(connection: sqlite3.Connection) -> TrustedKey:
            for key in (k for k in _keys(connection) if k.removed is None):
                if (key.public_key, key.name) == (public_hex, name):
                    return key
                if key.public_key == public_hex:
                    raise ConfigError(f"key {public_hex[:16]}... is trusted already, as {key.name!r}.")
                if key.name == name:
                    raise ConfigError(
                        f"{name!r} is the name of key {key.public_key[:16]}...; choose another (--name), or remove that key first."
                    )
            _insert(connection, "INSERT OR REPLACE INTO keys", new)
            return new

        return self._write(add)

    def remove_key(self, which: str) -> TrustedKey:
        """Trust a key no longer, named by its hex digits or its name. Raises ConfigError if there is none."""
        trusted = [k for k in self.all_keys() if k.removed is None]
        found = next((k for k in trusted if k.public_key == which), None) or next(
            (k for k in trusted if k.name == which), None
        )
        if found is None:
            names = ", ".join(k.name for k in trusted) or "none"
            raise ConfigError(f"no trusted key has the digits or the name {which!r}; trusted: {names}.")
        said = (now(), found.public_key)
        self._write(lambda c: c.execute("UPDATE keys SET removed = ? WHERE public_key = ?", said))
        return found

    def ledgers(self) -> tuple[SeenLedger, ...]:
        """All that was seen, by data set."""
        return self._read(_ledgers)

    def remember(self, bundles: Sequence[Bundle], vouchers: Sequence[str]) -> tuple[TrustedKey, ...]:
        """Compare bundles with each other and with what was seen, under the write lock, and remember all of them or none.

        Args:
            bundles: Of trusted signers.
            vouchers: For each the trusted key that speaks for it; where that is another one than its signer and the hub
                keeps it, the signer is kept as its successor.

        Returns:
            The successors that are new.

        Raises:
            LedgerConflictError, LedgerForkError: As `hub_heads.after`.
        """

        def write(connection: sqlite3.Connection) -> tuple[TrustedKey, ...]:
            for ledger in after_all(_ledgers(connection, bundles), bundles, now()):
                _put_ledger(connection, ledger)
            new = [_succeed(connection, b, v) for b, v in zip(bundles, vouchers, strict=True)]
            return tuple(key for key in new if key is not None)

        return self._write(write)

    def _read(self, what: Callable[[sqlite3.Connection], tuple[T, ...]]) -> tuple[T, ...]:
        if not self.exists:
            return ()
        with sqlite.reading(self.path, _SHAPE) as connection:
            connection.text_factory = str
            return what(connection)

    def _write(self, what: Callable[[sqlite3.Connection], T]) -> T:
        return sqlite.kept(self.path, _SHAPE, what)


def _keys(connection: sqlite3.Connection) -> tuple[TrustedKey, ...]:
    return tuple(_rows(connection, TrustedKey, "keys", "ORDER BY name, added"))


def _ledgers(connection: sqlite3.Connection, bundles: Sequence[Bundle] | None = None) -> tuple[SeenLedger, ...]:
    """What was seen of the data sets of `bundles`, or of all."""
    asked = "SELECT dataset, hashes, shown_by FROM ledgers ORDER BY dataset"
    wanted = None if bundles is None else {b.manifest.dataset for b in bundles}
    found = []
    for dataset, hashes, shown_by in connection.execute(asked):
        if wanted is None or dataset in wanted:
            releases = tuple(_rows(connection, SeenRelease, "releases", "WHERE dataset = ? ORDER BY sequence", dataset))
            found.append(SeenLedger(dataset=dataset, hashes=hashes, shown_by=shown_by, releases=releases))
    return tuple(found)


def _put_ledger(connection: sqlite3.Connection, ledger: SeenLedger) -> None:
    """Keep the longest chain, and the releases that are new."""
    row = (ledger.dataset, ledger.hashes, ledger.shown_by)
    connection.execute("INSERT OR REPLACE INTO ledgers VALUES (?, ?, ?)", row)
    for release in ledger.releases:
        _insert(connection, "INSERT OR IGNORE INTO releases", release)


def _succeed(connection: sqlite3.Connection, bundle: Bundle, voucher: str) -> TrustedKey | None:
    """Keep the signer of `bundle` as the successor of the key that speaks for it, if that is kept and it is not."""
    known = {k.public_key: k for k in _keys(connection)}
    signer, before = bundle.manifest.public_key, known.get(voucher)
    if before is None or signer in known:
        return None
    taken = {k.name for k in known.values()}
    name = next(n for n in (f"{before.name} ({i})" for i in itertools.count(2)) if n not in taken)
    note = f"{voucher[:16]}... handed over to it in the ledger of data set {bundle.manifest.dataset}"
    new = TrustedKey(public_key=signer, name=name, added=now(), added_by="a rotation", note=note)
    _insert(connection, "INSERT INTO keys", new)
    return new


def _rows(connection: sqlite3.Connection, kind: type[Row], table: str, rest: str, *values: str) -> Iterator[Row]:
    """Rows of a table whose columns are the fields of `kind`."""
    columns = fields(kind)
    asked = f"SELECT {', '.join(c.name for c in columns)} FROM {table} {rest}"
    for row in connection.execute(asked, values):
        found: dict[str, Any] = {
            c.name: bool(value) if c.type is bool else value for c, value in zip(columns, row, strict=True)
        }
        yield kind(**found)


def _insert(connection: sqlite3.Connection, into: str, row: TrustedKey | SeenRelease) -> None:
    values = asdict(row)
    columns = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(f"{into} ({columns[0]}) VALUES ({columns[1]})", values)
