"""The common refinement of all institutions' bins: cells that every institution puts into a bin of its own whole.

Each institution measures its features in bins that it placed itself. Two values that no institution tells apart share a common
bin, so there are only as many as institutions tell apart together, and every institution's bin is a union of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from distill.data.bins import ColumnBins
from distill.synthesis.generator.generator import Generator
from server_train.models.number_target import shares_within

LOWEST = 1e-7  # probability of a common bin in a record, at least


@dataclass(frozen=True, eq=False)
class CommonBins:
    """The common bins of all features.

    Attributes:
        features: Of each feature, in table order; pieces carry the share of all institutions' rows.
        own: For each institution, position of the own bin (among its features' bins) that each common bin lies in, shape
            (common bins of all features,).
        within: For each institution, share of the own bin's rows in each common bin, likewise.
    """

    features: tuple[ColumnBins, ...]
    own: tuple[np.ndarray, ...]
    within: tuple[np.ndarray, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Common bins of each feature."""
        return tuple(b.n_bins for b in self.features)


@dataclass(frozen=True, eq=False)
class Marginals:
    """One institution's released histograms.

    Attributes:
        bins: Bins of each feature.
        shares: Share of each bin, for each feature.
        rows: Share of all rows that the institution stands for.
    """

    bins: Sequence[ColumnBins]
    shares: Sequence[np.ndarray]
    rows: float


def common_bins(institutions: Sequence[Marginals]) -> CommonBins:
    """Return the common refinement of all institutions' bins."""
    parts = [
        _refined(institutions, feature) for feature in range(len(institutions[0].bins))
    ]  # per feature: the refinement and each institution's bin of each common bin
    features = tuple(refined for refined, _ in parts)
    own, within = [], []
    for number, institution in enumerate(institutions):
        starts = np.cumsum([0, *(b.n_bins for b in institution.bins)])
        places = [codes[number] + start for (_, codes), start in zip(parts, starts, strict=False)]
        own.append(np.concatenate(places))
        within.append(_within(own[-1], np.concatenate([np.bincount(f.bin_of_piece, f.masses) for f in features])))
    return CommonBins(features, tuple(own), tuple(within))


def records_on(
    common: CommonBins, number: int, generator: Generator, n: int, *, offset: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """`n` of institution `number`'s soft records, evenly by weight: in its own bins, and as logits on the common ones.

    Args:
        common: The common bins.
        number: Position of the institution among those that `common` was made of.
        generator: The institution's.
        n: How many records; one may come several times.
        offset: Where in the first of `n` equal parts of all weight the first record lies, in [0, 1).

    Returns:
        Probabilities (n, own bins) and logits (n, common bins), float64.
    """
    points = (np.arange(n) + offset) / n
    ends = np.cumsum(generator.weights / generator.weights.sum())
    chosen = np.searchsorted(ends, points).clip(max=len(ends) - 1)
    shares = generator.layout.softmax(torch.from_numpy(generator.logits[chosen].astype(np.float32))).double().numpy()
    return shares, np.log(np.maximum(shares[:, common.own[number]] * common.within[number], LOWEST))


def _refined(institutions: Sequence[Marginals], feature: int) -> tuple[ColumnBins, np.ndarray]:
    """Return one feature's common bins, and each institution's own bin of each, (institutions, common bins)."""
    own = [i.bins[feature] for i in institutions]
    grid = own[0].grid
    starts = np.unique(np.concatenate([b.starts for b in own]))
    codes = np.stack([b.coarse(starts).astype(np.int64) for b in own])
    missing = (starts >= grid.leaves)[None].astype(np.int64)  # first, so that the missing bin comes last
    kinds, bin_of_piece = np.unique(np.vstack([missing, codes]), axis=1, return_inverse=True)
    masses = sum(i.rows * (i.shares[feature] @ shares_within(i.bins[feature], starts)) for i in institutions)
    return ColumnBins(grid, starts, np.asarray(masses), bin_of_piece.ravel()), kinds[1:]


def _within(own: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Share of each common bin in the own bin it lies in; evenly where nothing is known of that bin."""
    totals, numbers = np.bincount(own, masses), np.bincount(own)
    known = totals[own] > 0
    return np.asarray(np.where(known, masses / np.where(known, totals[own], 1.0), 1.0 / numbers[own]))
