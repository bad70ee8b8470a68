"""Evidence: what a released statistic says of a model's weights, as information matrices."""

from collections.abc import Sequence

import numpy as np

EVIDENCE_LIMIT = 10.0  # natural-log units; what one head may say about one class of one row
LOWEST_LOG = -30.0

LEAST_COUNT = 5.0  # a class with fewer noisy rows teaches a head nothing that can be told from noise
PSEUDO_COUNT = 5.0  # added to every class count before a prior is divided by, so that a tiny one cannot blow up

NOISE_VARIANCE = 100.0  # of one class count, in rows squared: the order that a release at epsilon 1-2 carries


def clean_prior(class_prior: Sequence[float] | np.ndarray) -> np.ndarray:
    """Class frequencies from a noisy release: negative ones become 0, the rest sums to one (uniform if all are 0)."""
    prior = np.clip(np.nan_to_num(np.asarray(class_prior, dtype=float)), 0.0, None)
    total = prior.sum()
    return prior / total if total > 0 else np.full(len(prior), 1.0 / len(prior))


def smoothed_prior(noisy_rows: float, class_prior: np.ndarray, *, pseudo_count: float = PSEUDO_COUNT) -> np.ndarray:
    """Class frequencies after adding `pseudo_count` rows to each class; every entry is above zero."""
    counts = noisy_rows * class_prior + pseudo_count
    return np.asarray(counts / counts.sum())


def class_precision(
    noisy_rows: float, class_prior: np.ndarray, *, noise_variance: float = NOISE_VARIANCE
) -> np.ndarray:
    """Precision of what an institution knows about each class on its own, shape (classes,).

    A log-probability estimated from m rows has variance 1/m; noise of variance v on the count adds v/m**2. The
    precision is m**2 / (m + v), and 0 below `LEAST_COUNT` rows.
    """
    counts = noisy_rows * class_prior
    precision = np.square(counts) / np.maximum(counts + noise_variance, 1e-12)
    return np.asarray(np.where(counts >= LEAST_COUNT, precision, 0.0))


def information_matrix(precision: np.ndarray) -> np.ndarray:
    """Information about the contrasts between classes, shape (classes, classes): diag(m) - m m^T / sum(m).

    The rows sum to zero (an offset common to all classes carries no information). With m = n * p this is
    n * (diag(p) - p p^T); for two classes the entry of the one contrast is n * p * (1 - p).
    """
    total = precision.sum()
    if total <= 0:
        return np.zeros((len(precision), len(precision)))
    return np.asarray(np.diag(precision) - np.outer(precision, precision) / total)


def head_matrix(noisy_rows: float, class_prior: np.ndarray, head_information: float) -> np.ndarray:
    """The information matrix of one institution's class head, scaled by what its generator states about it.

    `head_information` is on the scale of n * (1 - sum(p**2)) / 2, which for two classes is n * p * (1 - p); a head
    that states less (a smaller budget, say) counts less in proportion, one that states 0 not at all.
    """
    expected = noisy_rows * (1.0 - np.square(class_prior).sum()) / 2.0
    if not np.isfinite(head_information) or head_information <= 0 or expected <= 0:
        return np.zeros((len(class_prior), len(class_prior)))
    scale = head_information / expected
    return np.asarray(scale * information_matrix(class_precision(noisy_rows, class_prior)))


def pseudo_inverse(matrix: np.ndarray) -> np.ndarray:
    """Moore-Penrose inverse of a symmetric matrix; directions without information map to zero."""
    return np.asarray(np.linalg.pinv(matrix, rcond=1e-9, hermitian=True))


def counted_matrix(noisy_rows: float, counted: float, class_prior: np.ndarray, head_information: float) -> np.ndarray:
    """`head_matrix` of as many rows as count."""
    return head_matrix(counted, class_prior, head_information * counted / noisy_rows)


def evidence(logs: np.ndarray, rows: float, class_prior: np.ndarray) -> np.ndarray:
    """What a head says beyond its institution's class frequencies, limited on both sides; (rows, classes)."""
    own = np.log(smoothed_prior(rows, class_prior))
    return np.asarray(np.clip(np.maximum(logs, LOWEST_LOG) - own, -EVIDENCE_LIMIT, EVIDENCE_LIMIT))
