"""Stage 2, relate: which values go together.

One Gaussian release of co-occurrence counts for a set of column pairs (L2 sensitivity sqrt(pairs), add or remove one row).
Wide tables get a first, very coarse pass over all pairs, from which the pairs worth measuring are chosen. The noisy blocks are
then denoised: what a block adds to independence is low-rank, the noise is not. The denoised blocks are the best statistics to
read one by one. Candidates are fitted to all blocks at once, which averages noise out by itself; there the bias of shrinking
does more harm, so a block with much signal is aimed at as it was released (measured: docs/research/plan.md). What travels is the
release itself, for a hub averages the noise of all institutions out: whoever reads it denoises by the same function.
"""

from itertools import combinations

import numpy as np

from distill.data.bins import ColumnBins
from distill.privacy.cells import Cross, Lookup
from distill.privacy.private_table import PrivateTable
from distill.synthesis.generator.prior_guidance import GlobalTerm
from distill.synthesis.planning.plan import SCOUT_BINS, Plan
from distill.synthesis.statistics.counts import ClassCounts, PairCounts
from distill.synthesis.statistics.denoising import denoise_pairs


def count_pairs(
    table: PrivateTable,
    plan: Plan,
    bins: list[ColumnBins],
    features: list[int],
    counts: ClassCounts,
    term: GlobalTerm | None = None,
) -> PairCounts:
    """Release the co-occurrence of pairs of features and denoise it.

    Args:
        table, plan: The rows and what was planned (events `relate.pairs` and, on wide tables, `relate.scout`).
        bins: Coarse bins of every column of the table.
        features: Positions of the features among the table's columns.
        counts: One-way counts, towards whose independence the blocks are shrunk.
        term: What the hub's joint model says of these pairs, if there is one: a block is shrunk towards that, at the one-way
            counts of this institution, where it is the nearer guess.
    """
    pairs = list(combinations(range(len(features)), 2))
    if plan.has("relate.scout"):
        pairs = _choose_pairs(table, plan, bins, features, counts, pairs)
    if not plan.has("relate.pairs"):
        return PairCounts([], [], 0.0)
    event = plan.event("relate.pairs")
    widths = [bins[f].n_bins for f in features]
    cells = [Cross((features[i], features[j]), (widths[i], widths[j])) for i, j in pairs]
    released = table.noisy_counts(event.name, cells, [event.cell_stddev] * len(pairs))
    blocks = [r.reshape(widths[i], widths[j]) / counts.total for (i, j), r in zip(pairs, released, strict=True)]
    guesses = None if term is None else [term.pair_guess(i, j, counts.shares) for i, j in pairs]
    return denoise_pairs(pairs, blocks, counts.shares, event.cell_stddev / counts.total, guesses=guesses)


def _choose_pairs(
    table: PrivateTable,
    plan: Plan,
    bins: list[ColumnBins],
    features: list[int],
    counts: ClassCounts,
    pairs: list[tuple[int, int]],
) -> list[tuple[int, int]]:
    """The coarse first pass: the `plan.pairs` pairs that deviate most from independence, given the noise."""
    event = plan.event("relate.scout")
    groups = [_thirds(share) for share in counts.shares]
    both = (SCOUT_BINS, SCOUT_BINS)
    cells = [Lookup((features[i], features[j]), (groups[i], groups[j]), both) for i, j in pairs]
    released = table.noisy_counts(event.name, cells, [event.cell_stddev] * len(pairs))
    grouped = [np.bincount(g, s, SCOUT_BINS) for g, s in zip(groups, counts.shares, strict=True)]
    score = [
        np.square(r.reshape(SCOUT_BINS, -1) / counts.total - np.outer(grouped[i], grouped[j])).sum()
        for (i, j), r in zip(pairs, released, strict=True)
    ]
    best = np.sort(np.argsort(score)[::-1][: plan.pairs])
    return [pairs[k] for k in best]


def _thirds(shares: np.ndarray) -> np.ndarray:
    """Group of each bin so that neighbouring bins form groups of about equal mass; shape (n_bins,)."""
    middle = np.cumsum(shares) - shares / 2
    return np.minimum((middle * SCOUT_BINS).astype(np.int64), SCOUT_BINS - 1)
