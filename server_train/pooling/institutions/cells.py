"""Cells of the pooled rows: which counts of an institution a row falls into."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from distill.data.grids import ColumnGrid, column_grid
from distill.data.schema import Schema
from server_train.models.features import category_codes, number_values

CELLS = 16  # of about equal mass, a number that takes more values is cut into


@dataclass(frozen=True)
class Cells:
    """How rows become cells.

    Attributes:
        schema: Of the rows; the target is left out.
        edges: For each feature the first base-grid leaf of every cell but the first, ascending.
    """

    schema: Schema
    edges: tuple[np.ndarray, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Cells of each feature."""
        return tuple(len(e) + 1 for e in self.edges)

    def of(self, frame: pd.DataFrame) -> np.ndarray:
        """Each row's cells as positions among all features' cells, int64, shape (rows, features)."""
        starts = np.concatenate([[0], np.cumsum(self.widths)[:-1]])
        parts = [
            np.searchsorted(edges, _leaves(grid, frame), side="right") + start
            for grid, edges, start in zip(_grids(self.schema), self.edges, starts, strict=True)
        ]
        return np.stack(parts, axis=1).astype(np.int64)


def find_cells(schema: Schema, frame: pd.DataFrame) -> Cells:
    """Cells that suit the rows of `frame`, which are synthetic and in public values."""
    return Cells(schema, tuple(_edges(grid, _leaves(grid, frame)) for grid in _grids(schema)))


def _grids(schema: Schema) -> list[ColumnGrid]:
    return [column_grid(c) for c in schema.columns if c.name != schema.target]


def _leaves(grid: ColumnGrid, frame: pd.DataFrame) -> np.ndarray:
    """Base-grid leaf of each row's value; missing ones get the last cell."""
    column, values = grid.column, frame[grid.column.name]
    if column.kind == "categorical":
        return category_codes(column, values)
    return grid.leaves_of(number_values(column, values)).astype(np.int64)


def _edges(grid: ColumnGrid, leaves: np.ndarray) -> np.ndarray:
    """Where cells begin, but for the first: at every category, at a number's values if these are few, else at quantiles."""
    if grid.column.kind == "categorical":
        return np.arange(1, grid.cells)
    known = leaves[leaves < grid.leaves]
    values = np.unique(known)
    if len(values) > CELLS:
        values = np.unique(np.quantile(known, np.arange(CELLS) / CELLS, method="inverted_cdf"))
    return np.append(values[1:], grid.leaves) if grid.column.nullable else values[1:]
