"""Euclidean projection of noisy counts onto the counts that could be: nonnegative, with a given sum."""

import numpy as np


def project_to_simplex(counts: np.ndarray, total: float | None = None) -> np.ndarray:
    """Nearest nonnegative vector with the given sum.

    Args:
        counts: Noisy counts, shape (n,).
        total: Wanted sum, positive. None: shares are wanted, of the counts' own (positive) sum.

    Source: Wang & Carreira-Perpinan, arXiv:1309.1541, algorithm 1.
    """
    aim = max(float(counts.sum()), 1.0) if total is None else total
    descending = np.sort(counts)[::-1]
    excess = (np.cumsum(descending) - aim) / np.arange(1, counts.size + 1)
    shift = excess[np.flatnonzero(descending > excess)[-1]]
    projected = np.maximum(counts - shift, 0.0)
    return np.asarray(projected / aim if total is None else projected)
