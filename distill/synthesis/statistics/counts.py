"""The noisy statistics that stages hand to each other and that travel in the bundle as latent statistics."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassCounts:
    """Noisy counts per class and bin, made consistent.

    Attributes:
        classes: Noisy number of rows of each class, shape (n_classes,).
        by_column: For each feature, counts of shape (n_classes, n_bins); each class sums to its entry of `classes`.
        stddev: Noise on one raw cell.
    """

    classes: np.ndarray
    by_column: list[np.ndarray]
    stddev: float

    @property
    def total(self) -> float:
        """Noisy number of rows, better than that of stage 0."""
        return float(self.classes.sum())

    @property
    def prior(self) -> np.ndarray:
        """Noisy class shares, shape (n_classes,)."""
        return np.asarray(self.classes / self.classes.sum())

    @property
    def shares(self) -> list[np.ndarray]:
        """Noisy share of each bin of each feature, classes together; shapes (n_bins,)."""
        return [c.sum(axis=0) / self.total for c in self.by_column]


@dataclass(frozen=True)
class PairCounts:
    """Noisy co-occurrence of pairs of features.

    Attributes:
        pairs: Positions among the features, (i, j) with i < j.
        shares: One block of shape (bins_i, bins_j) a pair: denoised counts over the noisy number of rows.
        stddev: Noise on one released cell, as a share of the rows.
        aims: What candidates are fitted to, shaped like `shares`; None: `shares` themselves.
        signal: Portion of each pair's observed dependence that noise does not explain, 0 to 1; None: 1 everywhere.
        released: The counts as they were released, over the noisy number of rows; None: `shares` themselves.
        rounding: Step that `released` was rounded to, in units of `stddev`; 0: not rounded.
    """

    pairs: list[tuple[int, int]]
    shares: list[np.ndarray]
    stddev: float
    aims: list[np.ndarray] | None = None
    signal: list[float] | None = None
    released: list[np.ndarray] | None = None
    rounding: float = 0.0

    @property
    def spread(self) -> float:
        """Stddev of one cell of `released` about the truth, as a share of the rows: its noise and its rounding."""
        return spread(self.stddev, self.rounding)


def spread(stddev: float, rounding: float) -> float:
    """Stddev of Gaussian noise after rounding to steps of `rounding` times itself (Sheppard's correction, 1898)."""
    return float(stddev * np.sqrt(1 + rounding**2 / 12))
