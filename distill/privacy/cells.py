"""What may be counted of private rows: which one cell of a histogram a row falls into, said in public terms.

A stage does not look at rows. It says what it wants counted by one of the values below, all of whose fields are public or
released already, and the door (`private_table`) computes it. Each cell follows from its row alone, to the last bit, so a row
adds one to at most one cell, whatever other rows there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.common import exact
from distill.privacy.row_vectors import OneHot

ROWS_AT_ONCE = 2048  # put through a network: few enough for the processor's cache
Rows = Sequence[np.ndarray]  # one array a column, in schema order: base-grid leaves, or coarse bins


@dataclass(frozen=True, eq=False)
class Cross:
    """The cells of some coarse columns crossed, the last column fastest.

    Attributes:
        columns: Positions in the table.
        widths: Coarse bins of each.
    """

    columns: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def size(self) -> int:
        """Cells."""
        return int(np.prod(self.widths))

    def of(self, rows: Rows) -> np.ndarray:
        """The cell of each row, int64, (n,)."""
        cell = rows[self.columns[0]].astype(np.int64)
        for column, width in zip(self.columns[1:], self.widths[1:], strict=True):
            cell *= width
            cell += rows[column]
        return cell


@dataclass(frozen=True, eq=False)
class Lookup:
    """Cells looked up column by column, crossed; a row that some table gives -1 is not counted.

    Attributes:
        columns: Positions in the table.
        tables: For each, what its codes become, int64, (codes,).
        widths: Values that each table holds.
    """

    columns: tuple[int, ...]
    tables: tuple[np.ndarray, ...]
    widths: tuple[int, ...]

    @property
    def size(self) -> int:
        """Cells."""
        return int(np.prod(self.widths))

    def of(self, rows: Rows) -> np.ndarray:
        """The cell of each row or -1, int64, (n,)."""
        cell, counted = np.zeros(len(rows[0]), dtype=np.int64), np.ones(len(rows[0]), dtype=bool)
        for column, table, width in zip(self.columns, self.tables, self.widths, strict=True):
            value = table[rows[column]]
            counted &= value >= 0
            cell = cell * width + value
        return np.where(counted, cell, -1)


@dataclass(frozen=True, eq=False)
class ScoreBins:
    """Whether something holds of a row, and the bin of its score: all bins of the rows of which it does not hold come first.

    Attributes:
        holds, score: Positions of a column of 0 and 1 and of a column of scores.
        edges: Inner edges of the bins, ascending; a score on an edge is in the bin above.
    """

    holds: int
    score: int
    edges: np.ndarray

    @property
    def size(self) -> int:
        """Cells."""
        return 2 * (len(self.edges) + 1)

    def of(self, rows: Rows) -> np.ndarray:
        """The cell of each row, int64, (n,)."""
        above = np.searchsorted(self.edges, rows[self.score], side="right")
        return np.asarray(rows[self.holds].astype(np.int64) * (len(self.edges) + 1) + above)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The centre nearest to where a network of one hidden layer puts a row of coarse codes.

    Attributes:
        order: Positions of the columns in a one-hot row.
        starts: First position of each of their segments.
        layers: Weight (out, in) and bias (out,) of the hidden layer and of the output, whose first entries are the point.
        centres: (clusters, point).
    """

    order: tuple[int, ...]
    starts: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    centres: np.ndarray

    @property
    def size(self) -> int:
        """Centres."""
        return len(self.centres)

    def of(self, rows: Rows) -> np.ndarray:
        """The number of each row's centre, int64, (n,)."""
        codes = np.stack([rows[i] for i in self.order], axis=1)
        parts = [self._of(codes[start : start + ROWS_AT_ONCE]) for start in range(0, len(codes), ROWS_AT_ONCE)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def _of(self, codes: np.ndarray) -> np.ndarray:
        (first, first_bias), (second, second_bias) = self.layers
        point = self.centres.shape[1]
        hidden = np.maximum(OneHot(codes, self.starts, first.shape[1]).times(first) + first_bias, 0)
        return nearest(exact.product(hidden, second[:point].T) + second_bias[:point], self.centres)


Cells = Cross | Lookup | ScoreBins | Nearest


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Number of the centre (clusters, d) nearest to each point (n, d), the first of equals; row by row, int64, (n,)."""
    towards = exact.product(points, centres.T) - np.square(exact.on_grid(centres)).sum(axis=1) / 2
    return np.asarray(towards.argmax(axis=1), dtype=np.int64)
