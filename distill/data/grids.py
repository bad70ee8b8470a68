"""Base grids: how a public column description turns values into small integers, and back.

A base grid depends on the public schema alone. Categories are cells of their own (then "other", then missing).
Numbers live on a tree: `branching ** depth` leaves over the bounds, spaced linearly or (for bounds that span
thousands) on a signed-log scale, so that both a spike at zero and a tail of millions can be resolved. `encode` and
`leaves_of` are row-local: they look at one value at a time and release nothing.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from distill.data.schema import OTHER, Column, Schema

FLAT_CELLS = 24  # integers with at most this many values need no tree: every value is a cell
VALUE_LEAVES = 4096  # integers with at most this many values get a leaf each
DEEP_BRANCHING, DEEP_DEPTH = 16, 4  # any other number: 65,536 cells, missing among them, so that a code fits two bytes
LOG_ABOVE = 4000.0  # bounds beyond this magnitude use the signed-log scale


@dataclass(frozen=True)
class ColumnGrid:
    """The base grid of one column.

    Attributes:
        column: Its public description.
        leaves: Number of ordered value cells, before the missing cell.
        branching, depth: The tree over the leaves; depth 0 for categories and short integers.
        log_scale: Leaves are equal steps of sign(x) * log1p(|x|) instead of x.
    """

    column: Column
    leaves: int
    branching: int
    depth: int
    log_scale: bool

    @property
    def cells(self) -> int:
        """Leaves plus one for missing, where the column may be missing."""
        return self.leaves + self.column.nullable

    @property
    def code_type(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smallest type that holds every cell's number: uint8 or uint16."""
        return np.min_scalar_type(self.cells - 1)

    @property
    def by_value(self) -> bool:
        """Whether every leaf is exactly one value (categories, short and middling integers)."""
        return self.column.kind == "categorical" or (
            self.column.kind == "integer" and not self.log_scale and self._values <= VALUE_LEAVES
        )

    @property
    def _values(self) -> float:
        return self._high - self._low + 1

    @property
    def _low(self) -> float:
        return float(self.column.min if self.column.min is not None else 0.0)

    @property
    def _high(self) -> float:
        return float(self.column.max if self.column.max is not None else 0.0)

    def _scale(self, x: np.ndarray | float) -> np.ndarray:
        return np.sign(x) * np.log1p(np.abs(x)) if self.log_scale else np.asarray(x, dtype=np.float64)

    def encode(self, values: "pd.Series[float]") -> np.ndarray:
        """Leaf index of each value of a canonical frame's column; see `leaves_of`."""
        if self.column.kind == "categorical":
            return self.leaves_of(values.cat.codes.to_numpy())
        return self.leaves_of(values.to_numpy(dtype=np.float64))

    def leaves_of(self, values: np.ndarray) -> np.ndarray:
        """Leaf index of each value; missing values get the last cell.

        Args:
            values: Shape (n,). Of a number float64, NaN is missing; of a categorical column codes of its categories in
                the schema's order, then OTHER, and a negative code is missing.

        Returns:
            Shape (n,), of `code_type`.
        """
        if self.column.kind == "categorical":
            return np.where(values < 0, self.leaves, values).astype(self.code_type)
        x = values
        missing = np.isnan(x)
        x = np.clip(np.where(missing, self._low, x), self._low, self._high)
        if self.by_value:
            leaf = np.rint(x - self._low)
        else:
            low, high = self._scale(self._low), self._scale(self._high)
            leaf = np.floor((self._scale(x) - low) / (high - low) * self.leaves)
        leaf = np.clip(leaf, 0, self.leaves - 1)  # two roundings of one bound may differ in the last bit
        return np.where(missing, self.leaves, leaf).astype(self.code_type)

    def decode(self, start: np.ndarray, stop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A value drawn uniformly from the leaves start..stop-1, one for each entry. Numbers only; float64."""
        low, high = self.span(start, stop)
        if self.column.kind == "integer":
            return np.asarray(low + np.floor(rng.random(low.shape) * (high - low + 1)))
        return np.asarray(np.clip(low + rng.random(low.shape) * (high - low), self._low, self._high))

    def span(self, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest value in the leaves start..stop-1, one pair for each entry. Numbers only; float64.

        Of an integer the whole numbers inside count; where there is none, the nearest. A single leaf around zero is zero,
        so that a spike at zero stays one.
        """
        start, stop = np.asarray(start, dtype=np.float64), np.asarray(stop, dtype=np.float64)
        if self.by_value:
            return self._low + start, self._low + stop - 1
        low, high = self._edge(start), self._edge(stop)
        if self.column.kind == "integer":
            first, last = np.ceil(low), np.where(stop >= self.leaves, self._high, np.ceil(high) - 1)
            nearest, whole = np.rint(low), last >= first
            low, high = np.where(whole, first, nearest), np.where(whole, last, nearest)
            return np.clip(low, self._low, self._high), np.clip(high, self._low, self._high)
        zero = (stop - start == 1) & (low <= 0) & (high >= 0)
        return np.where(zero, 0.0, low), np.where(zero, 0.0, high)

    def middles(self) -> np.ndarray:
        """One value for every cell of a number: what lies in the middle of its leaf; NaN for missing. float64."""
        low, high = self.span(np.arange(self.leaves), np.arange(1, self.leaves + 1))
        middle = (low + high) / 2
        if self.column.kind == "integer":
            middle = np.rint(middle)
        return np.append(middle, np.nan) if self.column.nullable else middle

    def _edge(self, leaf: np.ndarray) -> np.ndarray:
        """Where each leaf of a number begins, as a value; `leaves` itself is the upper bound."""
        low, high = self._scale(self._low), self._scale(self._high)
        scaled = low + (high - low) * leaf / self.leaves
        return np.asarray(np.sign(scaled) * np.expm1(np.abs(scaled)) if self.log_scale else scaled)

    @property
    def labels(self) -> list[str]:
        """Texts of a categorical column's leaves, in order: its categories, then OTHER where allowed."""
        return [str(c) for c in self.column.categories or ()] + [OTHER] * self.column.other


def column_grid(column: Column) -> ColumnGrid:
    """The base grid of a column, from its public description alone."""
    if column.kind == "categorical":
        return ColumnGrid(column, len(column.categories or ()) + column.other, 1, 0, False)
    assert column.min is not None
    assert column.max is not None
    values = column.max - column.min + 1
    if column.kind == "integer" and values <= VALUE_LEAVES:
        depth = 0 if values <= FLAT_CELLS else (2 if values <= 256 else 3)
        branching = math.ceil(values ** (1 / depth) - 1e-9) if depth else 1
        return ColumnGrid(column, int(values), branching, depth, False)
    small, large = sorted((abs(column.min), abs(column.max)))
    one_side = column.min > 0 or column.max < 0
    # Within a factor of two a log scale is nearly linear, and on very narrow bounds its two ends would round to one.
    log_scale = large > LOG_ABOVE and not (one_side and large < 2 * small)
    return ColumnGrid(column, DEEP_BRANCHING**DEEP_DEPTH - column.nullable, DEEP_BRANCHING, DEEP_DEPTH, log_scale)


def base_grids(schema: Schema) -> tuple[ColumnGrid, ...]:
    """One grid a column, in the order of the schema."""
    return tuple(column_grid(c) for c in schema.columns)


def encode_table(frame: pd.DataFrame, grids: tuple[ColumnGrid, ...]) -> list[np.ndarray]:
    """Leaf codes of each column, in the order of `grids`, uint8 or uint16."""
    return [g.encode(frame[g.column.name]) for g in grids]
