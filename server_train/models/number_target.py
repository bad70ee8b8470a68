"""A target that is a number: one set of bins for all institutions, and what an institution's own bins say about them.

Each institution's class head speaks of bins that it placed itself, from its own noisy counts. They become comparable on the
*common bins*: every edge of every institution is kept, and neighbours lighter than `LEAST_MASS` of all rows are joined. Rows are
spread over the pieces of a bin by released masses and evenly inside a piece, whatever their features; so on a common
bin that lies in one bin of an institution, its head says exactly what it said about that bin. The rest of the hub then works
as it does with classes. Source of predicting a number by a softmax over bins: arXiv:1806.04613.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.data.bins import ColumnBins
from distill.data.grids import column_grid
from distill.data.schema import Column, Schema

LEAST_MASS = 1 / 32  # of all rows, in a common bin; lighter ones only beside heavy values
LOWEST = 1e-12


class BinnedGenerator(Protocol):
    """What is needed of one institution's generator beyond `pool.Generator` (`distill.synthesis.generator.generator.Generator` has it)."""

    noisy_rows: int
    class_prior: np.ndarray
    bins: Sequence[ColumnBins]
    count_noise: float

    def draw(self, n: int, rng: np.random.Generator) -> pd.DataFrame:
        """`n` rows in public values, the target among them."""

    def class_log_probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Log-probability of each of its own bins of the target for each row, shape (rows, own bins)."""


class TargetBins(BaseModel):
    """The common bins as `model.json` holds them.

    Attributes:
        starts: First leaf of each piece on the target's base grid, ascending from 0.
        masses: Share of all rows in each piece.
        bin_of_piece: Bin of each piece, 0, 1, 2 ... in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    starts: tuple[int, ...] = Field(min_length=1)
    masses: tuple[float, ...]
    bin_of_piece: tuple[int, ...]

    @model_validator(mode="after")
    def _sound(self) -> "TargetBins":
        if not len(self.starts) == len(self.masses) == len(self.bin_of_piece):
            raise ValueError("pieces, masses and bins must be of one length")
        if self.starts[0] or any(b <= a for a, b in pairwise(self.starts)) or min(self.masses) < 0:
            raise ValueError("pieces must ascend from 0, with masses of at least 0")
        if self.bin_of_piece[0] or any(b - a not in (0, 1) for a, b in pairwise(self.bin_of_piece)):
            raise ValueError("bins must be numbered in order")
        return self

    def on(self, column: Column) -> ColumnBins:
        """The bins of this target column. Raises ValueError where they reach beyond its grid."""
        grid = column_grid(column)
        if self.starts[-1] >= grid.leaves:
            raise ValueError("the target's bins do not fit its column")
        return ColumnBins(grid, np.array(self.starts), np.array(self.masses), np.array(self.bin_of_piece))


def stored_bins(bins: ColumnBins) -> TargetBins:
    """Bins as the model card keeps them."""
    return TargetBins(
        starts=tuple(bins.starts.tolist()),
        masses=tuple(bins.masses.tolist()),
        bin_of_piece=tuple(bins.bin_of_piece.tolist()),
    )


@dataclass(frozen=True)
class OnCommonBins:
    """One institution's generator, speaking of the common bins; `pool.Generator` in all it needs.

    Attributes:
        own: The generator as it came.
        common: The common bins.
        spread: Share of each own bin in each common bin, shape (own bins, common bins); rows sum to one.
    """

    own: BinnedGenerator
    common: ColumnBins
    spread: np.ndarray

    @property
    def noisy_rows(self) -> int:
        """Released number of rows."""
        return self.own.noisy_rows

    @property
    def class_prior(self) -> np.ndarray:
        """Released share of rows in each common bin, (common bins,)."""
        return np.asarray(self.own.class_prior @ self.spread)

    @property
    def head_information(self) -> float:
        """How much the class head can know: noisy rows times the prior's Gini impurity over the common bins."""
        return (
            float(self.noisy_rows * (1 - np.square(self.class_prior).sum())) if len(self.own.class_prior) > 1 else 0.0
        )

    @property
    def count_noise(self) -> float:
        """Stddev of the noise on one released class count, in rows."""
        return self.own.count_noise

    def draw(self, n: int, rng: np.random.Generator) -> pd.DataFrame:
        """`n` rows in public values, the target among them."""
        return self.own.draw(n, rng)

    def class_log_probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Log-probability of each common bin for each row, shape (rows, common bins)."""
        return np.asarray(np.log(np.exp(self.own.class_log_probabilities(frame)) @ self.spread + LOWEST).clip(max=0.0))


def on_common_bins(
    schema: Schema, generators: Sequence[BinnedGenerator], counted: np.ndarray | None = None
) -> tuple[ColumnBins, list[OnCommonBins]]:
    """Common bins of the target over all institutions, and every generator speaking of them; rows weigh alike.

    `counted`: rows of each institution as they count, (institutions,); None: all that it claims. One that counts for nothing
    leaves no edge and no mass.
    """
    assert schema.target_place is not None
    own = [g.bins[schema.target_place] for g in generators]
    rows = np.maximum([float(g.noisy_rows) for g in generators], 1.0) if counted is None else counted
    starts = np.unique(np.concatenate([b.starts for b in own]))
    within = [shares_within(b, starts) for b in own]
    masses = sum(n * g.class_prior @ share for n, g, share in zip(rows / rows.sum(), generators, within, strict=True))
    heard = [b for b, n in zip(own, rows, strict=True) if n > 0]
    edges = np.unique(np.concatenate([b.starts[np.diff(b.bin_of_piece, prepend=-1) > 0] for b in heard]))
    cells = np.searchsorted(edges, starts, side="right") - 1
    joined = _join_light(np.bincount(cells, masses))
    common = ColumnBins(own[0].grid, starts, np.asarray(masses), joined[cells])
    one_hot = np.eye(common.n_bins)[common.bin_of_piece]
    spoken = [OnCommonBins(g, common, share @ one_hot) for g, share in zip(generators, within, strict=True)]
    return common, spoken


def bin_means(bins: ColumnBins) -> np.ndarray:
    """Mean value of the rows in each bin, by masses and evenly inside a piece; shape (n_bins,)."""
    low, high = bins.grid.span(bins.starts, bins.stops)
    masses = np.where(_empty(bins)[bins.bin_of_piece], bins.stops - bins.starts, bins.masses)
    return np.asarray(
        np.bincount(bins.bin_of_piece, masses * (low + high) / 2) / np.bincount(bins.bin_of_piece, masses)
    )


def hats(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Chances of the two bins around each value, such that their mean is the value; shape (rows, bins).

    Args:
        values: Numbers, shape (rows, 1); those beyond the outer means count as these.
        means: Mean of each bin, ascending, shape (bins,).
    """
    values = np.clip(values, means[0], means[-1])
    before, after = hat_edges(means)
    rising, falling = (values - before) / (means - before), (after - values) / (after - means)
    return np.asarray(np.clip(np.minimum(rising, falling), 0.0, 1.0))


def hat_edges(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each bin's chance begins and ends: the neighbours' means, and beyond the outer ones anywhere."""
    beyond = max(means[-1] - means[0], abs(means[0]), 1.0)
    return np.append(means[0] - beyond, means[:-1]), np.append(means[1:], means[-1] + beyond)


def bin_labels(bins: ColumnBins) -> list[str]:
    """Each bin as "low to high" in the target's own values."""
    first = np.flatnonzero(np.diff(bins.bin_of_piece, prepend=-1))
    low, high = bins.grid.span(bins.starts[first], np.append(bins.starts[first[1:]], bins.grid.leaves))
    return [f"{a:,.6g}" if a == b else f"{a:,.6g} to {b:,.6g}" for a, b in zip(low, high, strict=True)]


def target_codes(bins: ColumnBins, values: "pd.Series[float]") -> np.ndarray:
    """Bin of each value of the target, int64, shape (rows,)."""
    return bins.coarse(bins.grid.encode(values)).astype(np.int64)


def as_binned(generators: Sequence[object]) -> list[BinnedGenerator]:
    """Generators of a schema whose target is a number: they have bins of it."""
    return [cast(BinnedGenerator, g) for g in generators]


def shares_within(own: ColumnBins, starts: np.ndarray) -> np.ndarray:
    """Share of each own bin in each run of leaves that begins at `starts`; (own bins, runs), rows sum to one."""
    stops = np.append(starts[1:], own.grid.cells)
    piece = np.searchsorted(own.starts, starts, side="right") - 1
    leaves = own.stops - own.starts
    masses = np.where(_empty(own)[own.bin_of_piece], leaves, own.masses)
    share = masses[piece] * (stops - starts) / leaves[piece]
    out = np.zeros((own.n_bins, len(starts)))
    out[own.bin_of_piece[piece], np.arange(len(starts))] = share
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def _empty(bins: ColumnBins) -> np.ndarray:
    """Bins without any mass: their leaves count alike. Shape (n_bins,)."""
    return np.asarray(np.bincount(bins.bin_of_piece, bins.masses) <= 0)


def _join_light(masses: np.ndarray) -> np.ndarray:
    """Number of the bin of each cell: one of `LEAST_MASS` stands alone, lighter neighbours are joined up to it."""
    bins = np.zeros(len(masses), dtype=np.int64)
    filled = 0.0
    for i, mass in enumerate(masses):
        new = i > 0 and (mass >= LEAST_MASS or filled >= LEAST_MASS)
        bins[i] = bins[i - 1] + new if i else 0
        filled = mass if new else filled + mass
    return bins
