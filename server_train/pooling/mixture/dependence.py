"""Which pairs of columns depend on each other at all, to judge by the noisy pairs of all institutions together.

A pair of which noise is all there is has nothing to teach: fitted as released, its noise becomes a dependence between columns that
have none, and what is wrong in every wide pair by a little is wrong by much altogether. So a pair is fitted as released only if
its counts are farther from independence, all institutions together, than noise explains. In a table whose columns nearly all
depend on each other every pair passes, however faint; in one where few do, it takes more to be believed. How much more
follows from the table: at most `FALSE` of the pairs that pass may be expected to be independent ones (false discovery
rate, Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x), and the share of independent pairs is twice that of the pairs
that lie nearer to independence than noise alone would leave them (Storey 2002, doi:10.1111/1467-9868.00346).
Post-processing of the bundles.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from distill.synthesis.statistics.counts import PairCounts

FALSE = 0.5  # of the pairs that pass, about, may be independent; a missed dependence costs more than a little noise
BELIEVED = (-2.0, 5.0)  # stddevs; what one institution may say about a pair, so that none of them can speak for all

Pair = tuple[int, int]


def excess(pairs: PairCounts, one_way: Sequence[np.ndarray]) -> dict[Pair, float]:
    """How far each pair of one institution is from independence beyond what its noise explains, in stddevs of that.

    Args:
        pairs: As released.
        one_way: Released share of each bin of each feature.

    Returns:
        About standard normal for independent columns: the sum of a block's squared distances from independence has mean
        size * stddev**2 and variance 2 * size * stddev**4 under Gaussian noise.
    """
    found = {}
    for (i, j), block in zip(pairs.pairs, pairs.released or pairs.shares, strict=True):
        energy = np.square((block - np.outer(one_way[i], one_way[j])) / pairs.spread).sum()
        found[i, j] = float((energy - block.size) / np.sqrt(2 * block.size))
    return found


def dependent_pairs(institutions: Sequence[tuple[Mapping[Pair, float], float]]) -> frozenset[Pair]:
    """Return the pairs that are believed to depend on each other.

    Args:
        institutions: Of each, the excess of every pair that it measured, and how much its statistics count, in [0, 1].
    """
    sums: dict[Pair, float] = defaultdict(float)
    squares: dict[Pair, float] = defaultdict(float)
    for excesses, trust in institutions:
        for pair, value in excesses.items():
            sums[pair] += trust * float(np.clip(value, *BELIEVED))
            squares[pair] += trust**2
    together = {pair: sums[pair] / np.sqrt(squares[pair]) for pair in sums if squares[pair] > 0}
    least = _threshold(np.array(list(together.values())))
    return frozenset(pair for pair, value in together.items() if value >= least)


def _threshold(values: np.ndarray) -> float:
    """The least value from which on at most `FALSE` of the pairs are expected to be independent; infinite: there is none."""
    ascending = np.sort(values)
    independent = min(1.0, 2 * float((ascending < 0).mean())) if len(ascending) else 0.0
    passing = 1 - np.arange(len(ascending)) / max(len(ascending), 1)
    enough = np.flatnonzero(independent * ndtr(-ascending) <= FALSE * passing)
    return float(ascending[enough[0]]) if len(enough) else float("inf")
