"""How the rows of one table are dealt to clients.

Promise: in every `Partition` each row belongs to exactly one client, each client has at least one row, and a client's
rows are listed in the order of the table. The same arguments and numpy release give the same deal; a saved file gives
it on any.

For simulations on public data only. A deal by label or by column shows which rows are alike, a saved file carries a
digest of columns that can be guessed when their values are few, and errors quote row positions: make none of a
private table.
"""

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from distill.common import checks
from distill.common.canonical_json import canonical
from distill.errors import ConfigError

Kind = Literal["iid", "dirichlet", "quantity", "by"]
Values: TypeAlias = "pd.Series[Any] | NDArray[Any] | Sequence[Any]"

FORMAT, VERSION = "distill-partition", 1  # of a saved deal
SAVED = ("kind", "rows", "seed", "alpha", "min_rows", "column", "target", "table")
MIN_ROWS = 10  # the authors' code of arXiv:2102.02079 deals again until each client has ten rows
TRIES = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Partition:
    """Which client holds which rows.

    Attributes:
        kind: `iid`, `dirichlet` (by label), `quantity` or `by` (neighbouring values of a column).
        rows: Number of rows of the table.
        positions: For each client its row positions from 0, ascending, int64, read-only; shape (rows of client,).
        seed: What the deal was drawn from; None for `by`, which draws nothing.
        alpha: Dirichlet concentration of `dirichlet` and `quantity`; small is uneven.
        min_rows: The least that `dirichlet` and `quantity` had to give each client.
        column: The column of `by`, where it is known by name.
        target: The target column of the table that the deal is tied to; None before `tied_to`.
        table: SHA-256 (hex) of that table's target and `column`, row by row; None before `tied_to`.

    Raises:
        ConfigError: The positions are no partition of the rows, or a setting does not belong to `kind`.
    """

    kind: Kind
    rows: int
    positions: tuple[NDArray[np.int64], ...]
    seed: int | None = None
    alpha: float | None = None
    min_rows: int | None = None
    column: str | None = None
    target: str | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        _check_settings(self)
        object.__setattr__(self, "positions", _checked(self.positions, self.rows))

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.positions)

    @property
    def words(self) -> str:
        """The deal as `parse_partition` takes it, for reports: `iid`, `dirichlet:0.5`, `quantity:0.5`, `by:age`."""
        detail = self.column if self.kind == "by" else self.alpha
        return self.kind if detail is None else f"{self.kind}:{detail}"

    def digest(self) -> str:
        """SHA-256 (hex) of the deal and its settings; equal where a saved file would be equal."""
        return hashlib.sha256(to_bytes(self)).hexdigest()

    def tied_to(self, frame: pd.DataFrame, target: str) -> "Partition":
        """This deal, marked as made for `frame`, so that it is refused for another table.

        Args:
            frame: The table, shape (rows, n_columns); it holds `target` and, for `by`, the column dealt by.
            target: Name of the target column.

        Raises:
            ConfigError: A column is not there once, or the number of rows differs.
        """
        _check_row_count(self, len(frame))
        return replace(self, target=target, table=_table_digest(frame, target, self.column))

    def require_fits(self, frame: pd.DataFrame, target: str) -> None:
        """Refuse any table but the one this deal is tied to, told by its rows' order of target and column.

        Raises:
            ConfigError: Another number of rows, another target, other values or another order of rows; or the deal
                is tied to no table.
        """
        _check_row_count(self, len(frame))
        if self.table is None:
            raise ConfigError(f"the partition {self.words} is tied to no table; call `tied_to` with the table first.")
        if target != self.target:
            raise ConfigError(
                f"the partition {self.words} was made for the target {self.target!r}, not {target!r}. "
                "Take the partition that was saved with this target, or deal anew."
            )
        if _table_digest(frame, target, self.column) != self.table:
            told_by = repr(target) if self.column in (None, target) else f"{target!r} and {self.column!r}"
            raise ConfigError(
                f"the partition {self.words} was made for another table: {told_by} hold other values, or the rows are "
                "in another order. Use the table as it was when the partition was saved, or deal anew."
            )

    def deal(self, frame: pd.DataFrame) -> list[pd.DataFrame]:
        """One table a client, rows in the order of `frame`, index from 0. Raises ConfigError for another table."""
        if self.target is None:
            _check_row_count(self, len(frame))
        else:
            self.require_fits(frame, self.target)
        return [frame.iloc[part].reset_index(drop=True) for part in self.positions]


@dataclass(frozen=True, kw_only=True)
class ClientSummary:
    """What a report tells of one client.

    Attributes:
        client: Its number, from 1.
        rows: How many it holds.
        shares: Of each class of the whole table in the client's rows, in the order of the classes; sums to one.
    """

    client: int
    rows: int
    shares: dict[str, float]


# The dealing functions take a seed, not a generator: the seed is part of what a saved partition states.


def iid(rows: int, clients: int, seed: int) -> Partition:
    """Deal shuffled rows evenly; sizes differ by one at most.

    Args:
        rows: Number of rows of the table.
        clients: Number of clients, from 1 to `rows`.
        seed: Whole number, 0 or more.

    Raises:
        ConfigError: An argument is out of range.
    """
    rows, clients, seed = _whole(rows=rows), _whole(clients=clients), _whole(0, seed=seed)
    _check_enough(rows, clients, 1)
    order = np.random.default_rng(seed).permutation(rows)
    return Partition(kind="iid", rows=rows, positions=tuple(np.array_split(order, clients)), seed=seed)


def label_dirichlet(labels: Values, clients: int, alpha: float, seed: int, min_rows: int = MIN_ROWS) -> Partition:
    """Deal the rows of each class by shares over the clients drawn from Dirichlet(alpha).

    Label skew as in arXiv:1909.06335 and arXiv:2102.02079, in the second one's form: shares of a class over clients
    (the first draws each client's mix of classes, with equal sizes). Unlike that paper's code, a client that is
    already full still takes its share of the next class. Sizes are skewed with the labels, and below alpha = 0.1 or
    so a client nearly *is* a label, so look at `iid` beside it.

    Args:
        labels: Class of each row, shape (rows,), all numbers or all texts, none missing.
        clients: Number of clients, from 1 to the number of rows.
        alpha: Concentration, positive and finite.
        seed: Whole number, 0 or more.
        min_rows: Deal again, up to 1000 times, until each client has so many rows; at least 1.

    Raises:
        ConfigError: An argument is out of range, a label is missing, or no deal reaches `min_rows`.
    """
    codes, classes = _classes(labels)
    rows, clients, seed = len(codes), _whole(clients=clients), _whole(0, seed=seed)
    alpha, min_rows = _alpha(alpha), _whole(min_rows=min_rows)
    _check_enough(rows, clients, min_rows)
    members = [np.flatnonzero(codes == code) for code in range(len(classes))]
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        by_class = [_cut(rng.permutation(m), rng.dirichlet([alpha] * clients)) for m in members]
        parts = [np.concatenate(part) for part in zip(*by_class, strict=True)]
        if min(map(len, parts)) >= min_rows:
            return Partition(
                kind="dirichlet", rows=rows, positions=tuple(parts), seed=seed, alpha=alpha, min_rows=min_rows
            )
    raise _no_deal("dirichlet", rows, clients, alpha, seed, min_rows)


def quantity_dirichlet(rows: int, clients: int, alpha: float, seed: int, min_rows: int = MIN_ROWS) -> Partition:
    """Deal shuffled rows in sizes drawn from Dirichlet(alpha); every client's class mix is the table's in expectation.

    Args:
        rows: Number of rows of the table.
        clients: Number of clients, from 1 to `rows`.
        alpha: Concentration, positive and finite.
        seed: Whole number, 0 or more.
        min_rows: Draw sizes again, up to 1000 times, until each client has so many rows; at least 1.

    Raises:
        ConfigError: An argument is out of range, or no deal reaches `min_rows`.

    Source: arXiv:2102.02079, quantity skew.
    """
    rows, clients, seed = _whole(rows=rows), _whole(clients=clients), _whole(0, seed=seed)
    alpha, min_rows = _alpha(alpha), _whole(min_rows=min_rows)
    _check_enough(rows, clients, min_rows)
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    for _ in range(TRIES):
        parts = _cut(order, rng.dirichlet([alpha] * clients))
        if min(map(len, parts)) >= min_rows:
            return Partition(
                kind="quantity", rows=rows, positions=tuple(parts), seed=seed, alpha=alpha, min_rows=min_rows
            )
    raise _no_deal("quantity", rows, clients, alpha, seed, min_rows)


def feature_skew(values: Values, clients: int) -> Partition:
    """Deal neighbouring values of one column together, evenly; draws nothing.

    Numbers are in order of size, anything else (categories too) in order of its text; missing values come last. Equal
    values keep the order of the table, and a frequent one may be shared by neighbouring clients.

    Args:
        values: The column, shape (rows,); a Series keeps its name.
        clients: Number of clients, from 1 to the number of rows.

    Raises:
        ConfigError: `clients` is out of range.
    """
    series = pd.Series(values)
    clients = _whole(clients=clients)
    _check_enough(len(series), clients, 1)
    missing = series.isna().to_numpy(dtype=bool)
    known = series[~missing]
    keys = known.to_numpy() if pd.api.types.is_numeric_dtype(known) else known.astype(str).to_numpy()
    order = np.concatenate([np.flatnonzero(~missing)[np.argsort(keys, kind="stable")], np.flatnonzero(missing)])
    column = None if series.name is None else str(series.name)
    return Partition(kind="by", rows=len(series), positions=tuple(np.array_split(order, clients)), column=column)


def summarise(partition: Partition, labels: Values) -> tuple[ClientSummary, ...]:
    """Rows and class shares of each client, in order.

    Args:
        partition: The deal.
        labels: Class of each row of its table, shape (rows,), none missing.

    Raises:
        ConfigError: The number of labels is not the number of rows, or a label is missing.
    """
    codes, classes = _classes(labels)
    _check_row_count(partition, len(codes))
    out = []
    for number, part in enumerate(partition.positions, start=1):
        shares = np.bincount(codes[part], minlength=len(classes)) / len(part)
        named = dict(zip(classes, shares.tolist(), strict=True))
        out.append(ClientSummary(client=number, rows=len(part), shares=named))
    return tuple(out)


def to_bytes(partition: Partition) -> bytes:
    """A deal as it is saved: settings, and each client's positions as steps from the one before (the first from -1)."""
    steps = [np.diff(part, prepend=-1).tolist() for part in partition.positions]
    fields = {name: getattr(partition, name) for name in SAVED}
    return canonical({"format": FORMAT, "version": VERSION, "steps": steps, **fields})


def _check_settings(partition: Partition) -> None:
    """The settings that `kind` has are there, and no others."""
    if partition.kind not in get_args(Kind):
        raise ConfigError(f"kind must be one of {', '.join(get_args(Kind))}, not {partition.kind!r}.")
    _whole(rows=partition.rows)
    drawn, uneven = partition.kind != "by", partition.kind in ("dirichlet", "quantity")
    for name, wanted in (("seed", drawn), ("alpha", uneven), ("min_rows", uneven)):
        if (getattr(partition, name) is not None) != wanted:
            raise ConfigError(f"{name} must {'be given' if wanted else 'not be given'} for kind {partition.kind!r}.")
    if partition.column is not None and drawn:
        raise ConfigError(f"column must not be given for kind {partition.kind!r}.")
    if uneven:
        _alpha(partition.alpha)
        _whole(min_rows=partition.min_rows)
    if drawn:
        _whole(0, seed=partition.seed)
    if (partition.target is None) != (partition.table is None):
        raise ConfigError("target and table must be given together, or neither; `tied_to` sets both.")


def _checked(positions: Sequence[ArrayLike], rows: int) -> tuple[NDArray[np.int64], ...]:
    """Sorted read-only copies, of which each row is in exactly one."""
    parts = [np.asarray(part) for part in positions]
    for number, part in enumerate(parts, start=1):
        if part.ndim != 1 or part.dtype.kind not in "iu":
            raise ConfigError(f"client {number}: its row positions must be a list of whole numbers.")
        if not len(part):
            raise ConfigError(f"client {number} has no rows; every client needs at least one.")
        if part.min() < 0 or part.max() >= rows:
            raise ConfigError(f"client {number}: row positions must lie from 0 to {rows - 1}.")
    owners = np.repeat(np.arange(1, len(parts) + 1), [len(part) for part in parts])
    flat = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)
    if len(flat) < rows:  # before anything of size `rows` is made: the number may come from a file
        raise ConfigError(f"the clients hold {len(flat)} of {rows} rows; every row needs a client.")
    twice = np.flatnonzero(np.bincount(flat, minlength=rows) > 1)
    if len(twice):
        holders = ", ".join(map(str, owners[flat == twice[0]][:5]))
        raise ConfigError(f"row position {twice[0]} is dealt more than once (to clients {holders}).")
    out = tuple(np.sort(part).astype(np.int64) for part in parts)
    for part in out:
        part.flags.writeable = False
    return out


def _whole(least: int = 1, **value: Any) -> int:
    """The one named value as an int of at least `least`."""
    ((name, given),) = value.items()
    try:
        number = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {given!r}.")
    return number


def _alpha(alpha: Any) -> float:
    """A usable Dirichlet concentration."""
    checks.positive(alpha=alpha)
    return float(alpha)


def _check_enough(rows: int, clients: int, min_rows: int) -> None:
    """There are rows for every client."""
    if clients > rows:
        raise ConfigError(f"{clients} clients cannot share {rows} rows; lower the number of clients.")
    if clients * min_rows > rows:
        raise ConfigError(
            f"{rows} rows cannot give each of {clients} clients {min_rows}; lower min_rows or the number of clients."
        )


def _no_deal(kind: Kind, rows: int, clients: int, alpha: float, seed: int, min_rows: int) -> ConfigError:
    """What to say when no try was even enough."""
    return ConfigError(
        f"{kind}:{alpha} with seed {seed}: no deal of {rows} rows in {TRIES} tries gives each of {clients} clients "
        f"at least {min_rows}. Raise alpha, or lower min_rows or the number of clients."
    )


def _cut(rows: NDArray[np.int64], shares: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Consecutive pieces of `rows` in proportion to `shares`, shape (clients,)."""
    cuts = (np.cumsum(shares)[:-1] * len(rows)).astype(int)
    return np.split(rows, cuts)


def _classes(labels: Values) -> tuple[NDArray[np.int64], list[str]]:
    """Each row's place in the sorted list of classes, shape (rows,), and that list as text."""
    values = np.asarray(labels)
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise ConfigError(f"{len(missing)} rows have no label (the first at position {missing[0]}); drop them first.")
    try:
        classes, codes = np.unique(values, return_inverse=True)
    except TypeError:
        raise ConfigError(
            "labels must be all numbers or all texts, not a mix; convert the target column first."
        ) from None
    return codes.astype(np.int64), [str(c) for c in classes]


def column_of(frame: pd.DataFrame, name: str) -> "pd.Series[Any]":
    """The one column of that name."""
    names = list(map(str, frame.columns))
    if names.count(name) != 1:
        shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        problem = "is there more than once" if name in names else "is not in the table"
        raise ConfigError(f"column {name!r} {problem}; its columns are: {shown}.")
    return frame.iloc[:, names.index(name)]


def _check_row_count(partition: Partition, rows: int) -> None:
    """The table has the rows that were dealt."""
    if rows != partition.rows:
        raise ConfigError(
            f"the partition {partition.words} was made for a table of {partition.rows} rows; this one has {rows}. "
            "Use the table as it was when the partition was saved, or deal anew."
        )


def _table_digest(frame: pd.DataFrame, target: str, column: str | None) -> str:
    """SHA-256 (hex) of the columns that tell a table from others, row by row."""
    names = dict.fromkeys([target] if column is None else [target, column])
    return hashlib.sha256(canonical([[name, _texts(column_of(frame, name))] for name in names])).hexdigest()


def _texts(values: "pd.Series[Any]") -> list[str | None]:
    """Each value as text, a whole number alike whether it is an integer, a float or a category; None is missing."""
    missing = values.isna().tolist()
    return [None if gone else _text(value) for gone, value in zip(missing, values.tolist(), strict=True)]


def _text(value: object) -> str:
    """One value; `tolist` made it a plain Python one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
