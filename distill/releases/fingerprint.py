"""Is this a copy of that table? A keyed fingerprint of the encoded rows; it says how many rows two tables have in common.

Each row becomes 64 bits: what its cells mean is hashed with a secret, and the hashes are added up. The smallest of these
are kept, and two tables that share rows share them in the same proportion (bottom-k sketches, Cohen and Kaplan 2007).
Five sketches are kept: of whole rows, and of rows without one of four groups of columns.

Noticed: another file or format, other names of columns, another order of rows or of columns, other categories or bounds
of columns whose cells are single values, rows added or removed, and a column added or dropped, where the other columns
still tell rows apart. Not noticed: other bounds of a number on a fine grid (its cells move), values rounded or changed
throughout, several columns added or dropped, the same customers described by other columns, and tables in which rows repeat.

A fingerprint is as private as its table: whoever has it and the secret can test whether a row that they know is in it.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distill.data.encoded_table import EncodedTable
from distill.data.grids import ColumnGrid, base_grids
from distill.data.schema import Schema

GROUPS = 4  # a changed column spoils the sketches that hold it, not that of the rows without its group
SIZES = (4096, *[1024] * GROUPS)  # hashes kept; of whole rows more, to know a fiftieth of a table from its whole
# A copy is what shares half of the smaller table's rows beyond chance; five disjoint parts of real tables share at most .006.
COPIED = 0.5
# Beyond this, rows repeat so often that one in common says little; and at least so many hashes of the smaller table to judge
# by. At both bounds, two tables that share rows by chance alone pass for copies with probability 5e-9 (binomial).
MOST_CHANCE, LEAST = 0.3, 64
CHUNK_ROWS = 1 << 16  # few enough that a chunk's hashes stay in the processor's cache

Hashes = npt.NDArray[np.uint64]
_EVERY = (1 << 64) - 1


@dataclass(frozen=True, eq=False)
class Sketch:
    """The smallest hashes of a table's rows.

    Attributes:
        hashes: Distinct, in order.
        limit: Every row whose hash is at most this is in `hashes`.
        chance: How likely a further row of the same population would be one that the table has: one minus the portion of
            rows that occur once (Good 1953), as far as `hashes` tell.
    """

    hashes: Hashes
    limit: int
    chance: float

    def shared(self, other: "Sketch") -> float | None:
        """Portion of the smaller table's distinct rows that the other table has, beyond what chance explains.

        Returns:
            At most 1, about 0 for two samples of one population; None where that cannot be told.
        """
        limit = np.uint64(min(self.limit, other.limit))
        mine, theirs = (s.hashes[: np.searchsorted(s.hashes, limit, side="right")] for s in (self, other))
        fewer, chance = min(len(mine), len(theirs)), max(self.chance, other.chance)
        if fewer < LEAST or chance > MOST_CHANCE:
            return None
        common = len(np.intersect1d(mine, theirs, assume_unique=True))
        return (common / fewer - chance) / (1 - chance)


@dataclass(frozen=True)
class Fingerprint:
    """Sketches of a table: of whole rows, then of rows without each group of columns."""

    sketches: tuple[Sketch, ...]

    def copy_of(self, other: "Fingerprint") -> bool:
        """Whether the two tables, or all but one group of their columns, hold mostly the same rows."""
        shares = (mine.shared(theirs) for mine, theirs in zip(self.sketches, other.sketches, strict=True))
        return any(share is not None and share >= COPIED for share in shares)


def fingerprint(rows: EncodedTable, schema: Schema, key: bytes) -> Fingerprint:
    """The fingerprint of `rows`; two can be compared if they were made with the same `key`, at most 64 bytes."""
    grids = base_grids(schema)
    columns = [(codes, _cells(g, key), _group(g, key)) for codes, g in zip(rows.codes, grids, strict=True)]
    smallest = [_Smallest(size) for size in SIZES]
    for start in range(0, len(rows.codes[0]), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        sums = np.zeros((GROUPS, len(rows.codes[0][chunk])), dtype=np.uint64)
        for codes, cells, group in columns:
            sums[group] += cells[codes[chunk]]  # a sum does not mind the order of columns; it wraps at 2**64
        whole = sums.sum(axis=0)
        for kept, hashes in zip(smallest, (whole, *(whole - part for part in sums)), strict=True):
            kept.add(_mixed(hashes))
    return Fingerprint(tuple(kept.sketch() for kept in smallest))


class _Smallest:
    """The smallest distinct hashes among many, and how often each came."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._hashes: Hashes = np.empty(0, dtype=np.uint64)
        self._times = np.empty(0, dtype=np.int64)
        self._limit = _EVERY

    def add(self, hashes: Hashes) -> None:
        """Further hashes, (n,)."""
        new, times = np.unique(hashes[hashes <= np.uint64(self._limit)], return_counts=True)
        both, place = np.unique(np.concatenate([self._hashes, new]), return_inverse=True)
        total = np.zeros(len(both), dtype=np.int64)
        np.add.at(total, place, np.concatenate([self._times, times]))
        if len(both) >= self._size:
            self._limit = int(both[self._size - 1])
        self._hashes, self._times = both[: self._size], total[: self._size]

    def sketch(self) -> Sketch:
        """What was kept."""
        chance = 1 - (self._times == 1).sum() / max(self._times.sum(), 1)
        return Sketch(self._hashes, self._limit, float(chance))


def _cells(grid: ColumnGrid, key: bytes) -> Hashes:
    """A hash of what each cell of a column means, (cells,): its value, or its place on a fine grid."""
    if grid.by_value:
        values = np.array([_hash(key, f"value {text}") for text in _values(grid)], dtype=np.uint64)
    else:
        place = np.arange(grid.leaves, dtype=np.uint64)
        values = _mixed(np.uint64(_hash(key, f"grid {_described(grid)} {grid.leaves}")) + place * np.uint64(_STRIDE))
    return np.append(values, np.uint64(_hash(key, "missing")))[: grid.cells]


def _group(grid: ColumnGrid, key: bytes) -> int:
    """Which group of columns a column is in; of columns alike, the same."""
    return _hash(key, f"group {_described(grid)}") % GROUPS


def _described(grid: ColumnGrid) -> str:
    """What the schema says of a column, without its name."""
    column = grid.column
    if column.kind == "categorical":
        return repr(sorted(grid.labels))
    return f"{float(column.min or 0)} {float(column.max or 0)}"


def _values(grid: ColumnGrid) -> list[str]:
    """The one value of each cell."""
    if grid.column.kind == "categorical":
        return grid.labels
    low = int(grid.column.min or 0)
    return [str(low + i) for i in range(grid.leaves)]


def _hash(key: bytes, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8, key=key).digest(), "little")


# Constants and steps of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195): each bit out depends on all in.
_STRIDE, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mixed(values: Hashes) -> Hashes:
    """`values` mixed one to one, in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(_FIRST)
    values ^= values >> np.uint64(27)
    values *= np.uint64(_SECOND)
    values ^= values >> np.uint64(31)
    return values
