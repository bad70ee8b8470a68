"""Stage 6, select: the discriminator as quality control, as far as the statistics agree.

Selection weighs over-generated rows by the critic's density ratio. Its strength is the largest of a few for which the kept
rows are no further from the noisy statistics than without it. Post-processing: no private row is read here.
"""

from dataclasses import replace

import numpy as np

from distill.synthesis.generator.generator import Generator
from distill.synthesis.statistics.counts import ClassCounts, PairCounts

STRENGTHS = (1.0, 0.5, 0.25, 0.0)


def calibrate(
    generator: Generator, counts: ClassCounts, pairs: PairCounts, rng: np.random.Generator, trial_rows: int
) -> Generator:
    """Give the generator the strongest critic that does not move its rows away from the noisy statistics.

    Args:
        generator: What was learnt.
        counts, pairs: The released statistics.
        rng: Modelling randomness.
        trial_rows: Rows that are drawn to judge each strength.
    """
    trials = [replace(generator, critic_power=s) for s in STRENGTHS]
    seed = int(rng.integers(2**62))  # the same draws for each, so that a difference is the critic's
    distances = [distance(t.draw_codes(trial_rows, np.random.default_rng(seed)), counts, pairs) for t in trials]
    allowed = distances[-1] * 1.01
    return next(t for t, d in zip(trials, distances, strict=True) if d <= allowed)


def distance(codes: np.ndarray, counts: ClassCounts, pairs: PairCounts) -> float:
    """Mean absolute difference between the rows' shares and the statistics: class counts plus pair blocks."""
    label, n = codes[:, -1], len(codes)
    gaps = []
    for j, target in enumerate(counts.by_column):
        table = np.bincount(label * target.shape[1] + codes[:, j], minlength=target.size).reshape(target.shape)
        gaps.append(np.abs(table / n - target / counts.total).sum())
    for (i, j), target in zip(pairs.pairs, pairs.shares, strict=True):
        table = np.bincount(codes[:, i] * target.shape[1] + codes[:, j], minlength=target.size).reshape(target.shape)
        gaps.append(np.abs(table / n - target).sum())
    return float(np.mean(gaps))
