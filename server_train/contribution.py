"""How much each institution's bundle counts, in terms that a report can show one by one.

Two questions, two weights. *Rows*: how many of the pooled rows are drawn from an institution's generator; its share
of the noisy row counts. *Head*: how far its class head is believed; the information its rows hold about each contrast
between two classes, which is high for many balanced rows and zero for an institution that holds one class only.

For two classes the head's information is n * p * (1 - p), the precision of a log-odds. For more it is the matrix
n * (diag(p) - p p^T), the precision of a multinomial's log-probabilities; both follow from one formula below.
Everything here is post-processing of what the bundles state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOISE_VARIANCE = 100.0  # of one class count, in rows squared: the order that a release at epsilon 1-2 carries
LEAST_COUNT = 5.0  # a class with fewer noisy rows teaches a head nothing that can be told from noise
PSEUDO_COUNT = 5.0  # added to every class count before a prior is divided by, so that a tiny one cannot blow up


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """One institution's weights and the terms they come from.

    Attributes:
        institution: Its name, as stated in the bundle.
        noisy_rows: Released row count (at least 1).
        class_prior: Released class frequencies, made non-negative and summing to one.
        label_balance: 1 where all classes are equally frequent, 0 where there is one class only.
        head_information: What the generator states about its class head; 0: unusable.
        row_share: Share of the pooled rows, in [0, 1]; sums to one over institutions.
        head_share: Share in the combined class head, in [0, 1]; sums to one, or is zero where no head is usable.
    """

    institution: str
    noisy_rows: float
    class_prior: tuple[float, ...]
    label_balance: float
    head_information: float
    row_share: float
    head_share: float


def clean_prior(class_prior: Sequence[float] | np.ndarray) -> np.ndarray:
    """Class frequencies from a noisy release: negative ones become 0, the rest sums to one (uniform if all are 0)."""
    prior = np.clip(np.nan_to_num(np.asarray(class_prior, dtype=float)), 0.0, None)
    total = prior.sum()
    return prior / total if total > 0 else np.full(len(prior), 1.0 / len(prior))


def smoothed_prior(noisy_rows: float, class_prior: np.ndarray, *, pseudo_count: float = PSEUDO_COUNT) -> np.ndarray:
    """Class frequencies after adding `pseudo_count` rows to each class; every entry is above zero."""
    counts = noisy_rows * class_prior + pseudo_count
    return np.asarray(counts / counts.sum())


def label_balance(class_prior: np.ndarray) -> float:
    """Gini diversity of the class frequencies, scaled to 1 for equal classes; for two classes 4 * p * (1 - p)."""
    classes = len(class_prior)
    return float((1.0 - np.square(class_prior).sum()) * classes / (classes - 1)) if classes > 1 else 0.0


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


def head_shares(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Each head's share of all information: trace(total^+ L_i) / rank; for two classes simply its part of the sum."""
    total = np.sum(matrices, axis=0)
    inverse = pseudo_inverse(total)
    shares = np.clip([float(np.trace(inverse @ matrix)) for matrix in matrices], 0.0, None)
    return np.asarray(shares / shares.sum() if shares.sum() > 0 else shares)


def pseudo_inverse(matrix: np.ndarray) -> np.ndarray:
    """Moore-Penrose inverse of a symmetric matrix; directions without information map to zero."""
    return np.asarray(np.linalg.pinv(matrix, rcond=1e-9, hermitian=True))


def contributions(
    names: Sequence[str], noisy_rows: Sequence[float], priors: Sequence[np.ndarray], information: Sequence[float]
) -> tuple[Contribution, ...]:
    """The weights of all institutions; row shares sum to one, and so do head shares if any head is usable."""
    rows = np.maximum(np.asarray(noisy_rows, dtype=float), 1.0)
    clean = [clean_prior(p) for p in priors]
    matrices = [head_matrix(n, p, h) for n, p, h in zip(rows, clean, information, strict=True)]
    shares = head_shares(matrices)
    return tuple(
        Contribution(
            institution=name,
            noisy_rows=float(n),
            class_prior=tuple(float(v) for v in prior),
            label_balance=label_balance(prior),
            head_information=float(stated),
            row_share=float(n / rows.sum()),
            head_share=float(share),
        )
        for name, n, prior, stated, share in zip(names, rows, clean, information, shares, strict=True)
    )


def global_prior(members: Sequence[Contribution]) -> np.ndarray:
    """Class frequencies of all institutions together: each prior weighted by its share of the rows."""
    return np.asarray(sum(c.row_share * np.asarray(c.class_prior) for c in members))
