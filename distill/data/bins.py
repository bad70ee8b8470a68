"""Coarse bins: the few intervals or groups of cells that a column is measured in.

Bins are built from noisy counts alone (stage encode), so they may travel. A bin is a set of *pieces* (runs of base-grid
leaves) with noisy masses; a value is drawn by picking a piece inside the bin and a value inside the piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from distill.data.grids import ColumnGrid


@dataclass(frozen=True, eq=False)
class ColumnBins:
    """The coarse bins of one column.

    Attributes:
        grid: The column's base grid.
        starts: First leaf of each piece, ascending; a piece ends where the next one starts. Shape (n_pieces,).
        masses: Noisy share of rows in each piece, nonnegative. Shape (n_pieces,).
        bin_of_piece: Coarse bin of each piece, 0..n_bins-1. Shape (n_pieces,).

    Where the column may be missing, the last piece is the missing cell and the last bin holds it alone.
    """

    grid: ColumnGrid
    starts: np.ndarray
    masses: np.ndarray
    bin_of_piece: np.ndarray

    @property
    def n_bins(self) -> int:
        """Number of coarse bins, the missing bin included."""
        return int(self.bin_of_piece.max()) + 1

    @property
    def stops(self) -> np.ndarray:
        """One past the last leaf of each piece."""
        return np.append(self.starts[1:], self.grid.cells)

    def coarse(self, leaves: np.ndarray) -> np.ndarray:
        """Coarse bin of each leaf code; same shape, uint16."""
        piece = np.searchsorted(self.starts, leaves, side="right") - 1
        return self.bin_of_piece[piece].astype(np.uint16)

    def draw(self, bins: np.ndarray, rng: np.random.Generator) -> "pd.Series[Any]":
        """One value for each coarse bin in `bins`, as `tables.read_table` would give it."""
        pieces = self._draw_pieces(bins, rng)
        start, stop = self.starts[pieces], self.stops[pieces]
        if self.grid.column.kind == "categorical":
            codes = np.where(start >= self.grid.leaves, -1, start)
            return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(self.grid.labels)))
        values = self.grid.decode(start.astype(np.float64), stop.astype(np.float64), rng)
        return pd.Series(np.where(start >= self.grid.leaves, np.nan, values))

    def quantiles(self, at: np.ndarray) -> np.ndarray:
        """Quantiles of the known values at ranks `at` in [0, 1], by the noisy masses; numbers only, float64.

        Mass is spread evenly between the two ends of a piece; a piece of one value is a jump.
        """
        known = self.starts < self.grid.leaves
        masses = self.masses[known].astype(np.float64)
        if not masses.sum() > 0:  # nothing is known of any value: as if spread evenly over the leaves
            masses = (self.stops - self.starts)[known].astype(np.float64)
        low, high = self.grid.span(self.starts[known], np.minimum(self.stops[known], self.grid.leaves))
        upper = np.cumsum(masses) / masses.sum()
        ranks = np.column_stack([np.append(0.0, upper[:-1]), upper])[masses > 0].ravel()
        values = np.column_stack([low, high])[masses > 0].ravel()
        return np.asarray(np.interp(at, ranks, values))  # where one piece ends and the next begins, the next one counts

    def _draw_pieces(self, bins: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Index of one piece inside each given bin, by mass (uniform over leaves where a bin's masses are all zero)."""
        order = np.argsort(self.bin_of_piece, kind="stable")
        masses = self.masses.astype(np.float64)
        totals = np.bincount(self.bin_of_piece, masses, minlength=self.n_bins)
        masses = np.where(totals[self.bin_of_piece] > 0, masses, self.stops - self.starts)
        totals = np.bincount(self.bin_of_piece, masses, minlength=self.n_bins)
        upper = np.cumsum((masses / totals[self.bin_of_piece])[order])  # bin b occupies (b, b + 1]
        position = np.searchsorted(upper, bins + rng.random(bins.shape), side="left")
        first = np.searchsorted(self.bin_of_piece[order], bins, side="left")
        last = np.searchsorted(self.bin_of_piece[order], bins, side="right") - 1
        return np.asarray(order[np.clip(position, first, last)])


def one_hot_slices(bins: Sequence[ColumnBins]) -> list[slice]:
    """Where each column's bins lie in a concatenated one-hot row."""
    stops = np.cumsum([b.n_bins for b in bins])
    return [slice(int(stop) - b.n_bins, int(stop)) for b, stop in zip(bins, stops, strict=True)]
