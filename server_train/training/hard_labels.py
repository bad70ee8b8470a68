"""Soft labels for learners that take one label a row: each row once a class, weighted by the class's probability.

The weighted loss is then the cross-entropy to the soft labels, exactly.
"""

import numpy as np

LEAST_CHANCE = 1e-6  # a class less likely than this does not get its copy of a row


def hard_labels(soft: np.ndarray, rng: np.random.Generator, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and weights that stand for soft labels: about `limit` at most, every class at least once.

    Each row comes once a class; where that is too many, as often as fits, with labels drawn from its own; where even
    once is too many, rows are drawn too.

    Args:
        soft: Class probabilities times class weights, at least 0, shape (rows, classes).
        rng: Source of what is drawn.
        limit: Of labelled rows.
    """
    classes = soft.shape[1]
    rows = np.arange(len(soft))
    if len(rows) * classes > limit:
        times = max(1, limit // len(rows))
        rows = np.repeat(rows if len(rows) <= limit else np.sort(rng.permutation(len(rows))[:limit]), times)
        totals = soft[rows].sum(axis=1)
        labels = (
            (soft[rows].cumsum(axis=1) < (rng.random(len(rows)) * totals)[:, None]).sum(axis=1).clip(max=classes - 1)
        )
        weights = totals / times
    else:
        kept = soft > LEAST_CHANCE
        rows, labels = np.nonzero(kept)
        weights = soft[kept]
    absent = np.setdiff1d(np.arange(classes), labels)
    return (
        np.append(rows, np.zeros(len(absent), dtype=np.int64)),
        np.append(labels, absent),
        np.append(weights, np.full(len(absent), LEAST_CHANCE)).astype(float),
    )
