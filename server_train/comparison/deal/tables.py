"""The rows that all runs of a comparison share: the clients' tables and the test rows.

Either each file of a folder is one client's table, or one table is dealt by a `partition`. Test rows are set aside
before anything is dealt, from every class in proportion (from whole units where the schema names a unit column), or
come from a file of their own. All frames are canonical (see `distill.data.tables`).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from distill.data.schema import Schema, load_schema
from distill.data.sources import CSV_SUFFIXES, PARQUET_SUFFIXES
from distill.data.tables import read_table
from distill.errors import ConfigError, DataError
from server_train.comparison.deal.partition import Partition
from server_train.comparison.deal.partition_file import parse_partition
from server_train.models.features import class_codes

CLIENTS, DEAL, TEST_SHARE = 5, "iid", 0.2
LEAST_TEST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the rows are and how they are dealt.

    Attributes:
        place: A table, or a folder that holds one table a client.
        schema: The public schema of all tables.
        test: Test rows; None: `test_share` of the rows is set aside.
        test_share: Share of the rows; None: a fifth, unless `test` is given.
        clients: Number of clients that a table is dealt to; None: five, or what a saved partition says.
        partition: How a table is dealt, as `partition.parse_partition` takes it; None: iid.
    """

    place: Path
    schema: Path
    test: Path | None = None
    test_share: float | None = None
    clients: int | None = None
    partition: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.test is not None and self.test_share is not None:
            raise ConfigError("test rows come from --test or from --test-share, not from both; give one.")
        if self.test_share is not None and not 0 < self.test_share < 1:
            raise ConfigError(f"test_share must be above 0 and below 1, not {self.test_share!r}.")
        if self.clients is not None and self.clients < 1:
            raise ConfigError(f"clients must be at least 1, not {self.clients}.")
        if self.place.is_dir() and (self.clients is not None or self.partition is not None):
            raise ConfigError(
                f"{self.place} is a folder, in which each table is one client; --clients and --partition deal a single table."
            )


@dataclass(frozen=True, eq=False)
class Tables:
    """What `Source` names, read and checked; `clients` has one entry, of no name, where a table is still to be dealt."""

    source: Source
    schema: Schema
    clients: dict[str, pd.DataFrame]
    test: pd.DataFrame | None


@dataclass(frozen=True, eq=False)
class Dealt:
    """The rows of one repetition.

    Attributes:
        schema: Of all frames.
        clients: Each client's rows by its name; none is empty.
        test: Rows that no client holds (or those of the test file), with two classes at least.
        words: How the rows were dealt.
        partition: The deal, where a table was dealt.
        digest: SHA-256 of all rows: equal where two repetitions share every row.
    """

    schema: Schema
    clients: dict[str, pd.DataFrame]
    test: pd.DataFrame
    words: str
    partition: Partition | None
    digest: str


def read_tables(source: Source) -> Tables:
    """Read every table that `source` names.

    Raises:
        SchemaError, DataError: the schema or a table cannot be used.
        ConfigError: the folder holds no tables, or two of one name.
    """
    schema = load_schema(source.schema)
    schema.require_confirmed()
    schema.require_classes("`compare`")
    if source.place.is_dir():
        clients = {name: read_table(path, schema) for name, path in _client_files(source).items()}
    else:
        clients = {"": read_table(source.place, schema)}
    empty = [name for name, frame in clients.items() if not len(frame)]
    if empty:
        raise DataError(f"{', '.join(empty) or source.place} has no rows. Remove the table, or fill it.")
    test = read_table(source.test, schema, role="evaluate") if source.test is not None else None
    if test is not None:
        _check_test(test, schema)
    return Tables(source, schema, clients, test)


def deal(tables: Tables, seed: int) -> Dealt:
    """Set the test rows aside and deal the rest; `seed` decides both.

    Raises:
        ConfigError: the deal cannot be made.
        DataError: the test rows cannot tell anything, or a client is left without rows.
    """
    source, schema = tables.source, tables.schema
    clients, tests = tables.clients, [] if tables.test is None else [tables.test]
    if tables.test is None:
        rng = np.random.default_rng([seed, 1])
        kept = {}
        for name, frame in clients.items():
            aside = _set_aside(frame, schema, source.test_share or TEST_SHARE, rng)
            kept[name] = frame[~aside].reset_index(drop=True)
            tests.append(frame[aside])
        clients = kept
    partition, words = None, "each table of the folder is one client"
    if "" in clients:
        saved = (source.partition or "").endswith(".json")
        partition = parse_partition(
            source.partition or DEAL,
            frame=clients[""],
            target=schema.require_classes("`compare`"),
            clients=source.clients or (None if saved else CLIENTS),
            seed=seed,
        )
        words = partition.words
        clients = {f"client-{i}": part for i, part in enumerate(partition.deal(clients[""]), start=1)}
    empty = [name for name, frame in clients.items() if not len(frame)]
    if empty:
        raise DataError(f"setting test rows aside leaves {', '.join(empty)} without rows; lower --test-share.")
    test = pd.concat(tests, ignore_index=True).drop(columns=[schema.unit] if schema.unit else [], errors="ignore")
    _check_test(test, schema)
    return Dealt(schema, clients, test, words, partition, _digest([*clients.items(), ("test", test)], schema))


def digest_of(frame: pd.DataFrame, schema: Schema) -> str:
    """SHA-256 of one frame's rows and its schema."""
    return _digest([("", frame)], schema)


def _client_files(source: Source) -> dict[str, Path]:
    """The tables of a folder by their names without suffix, the test file left out."""
    test = source.test.resolve() if source.test else None
    paths = [p for p in sorted(source.place.iterdir()) if p.suffix.lower() in CSV_SUFFIXES + PARQUET_SUFFIXES]
    paths = [p for p in paths if p.is_file() and not p.name.startswith(".") and p.resolve() != test]
    if not paths:
        raise ConfigError(f"{source.place} holds no .csv or .parquet files; put one table a client there.")
    names = [p.stem for p in paths]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"{source.place}: two tables are called {twice[0]!r}; a client has one table.")
    return dict(zip(names, paths, strict=True))


def _set_aside(frame: pd.DataFrame, schema: Schema, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which rows are for testing, bool, shape (rows,): by class, or whole units where rows belong to units."""
    aside = np.zeros(len(frame), dtype=bool)
    if schema.unit is not None:
        codes, units = pd.factorize(frame[schema.unit])
        chosen = rng.permutation(len(units))[: round(share * len(units))]
        return np.asarray(np.isin(codes, chosen))
    codes = class_codes(schema, frame)
    for code in range(len(schema.classes)):
        members = rng.permutation(np.flatnonzero(codes == code))
        aside[members[: round(share * len(members))]] = True
    return aside


def _check_test(test: pd.DataFrame, schema: Schema) -> None:
    """Refuse test rows on which no ranking can be judged."""
    if len(test) < LEAST_TEST_ROWS:
        raise DataError(
            f"fewer than {LEAST_TEST_ROWS} test rows are too few to judge anything; raise --test-share or name a file with --test."
        )
    if len(np.unique(class_codes(schema, test))) < 2:
        raise DataError(
            f"the test rows hold a single class of {schema.target!r}, so no ranking can be judged; name other rows with --test."
        )


def _digest(frames: list[tuple[str, pd.DataFrame]], schema: Schema) -> str:
    """SHA-256 over names and rows."""
    out = hashlib.sha256(schema.digest().encode())
    for name, frame in frames:
        rows = pd.util.hash_pandas_object(frame, index=False, categorize=False).to_numpy()
        out.update(f"\n{name}\n{len(frame)}\n".encode() + rows.tobytes())
    return out.hexdigest()
