"""Drawing class labels from probabilities with less noise than independent coins.

A classifier that is trained on drawn labels suffers from their sampling noise. Here each draw leans against the error that
earlier draws left on the same feature values, so that label counts stay near their expectation in every bin of
every feature, while each row's chance stays near its own probability.
Source: the idea of the self-balancing walk, Alweiss, Liu & Sawhney, arXiv:2006.14009.
"""

import numpy as np

LEAN = 0.2
BATCH = 32


def balanced_labels(chances: np.ndarray, cells: np.ndarray, n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """One class a row, drawn from `chances`, balanced over the rows' feature values.

    Args:
        chances: Class probabilities of each row, (n, classes).
        cells: Position of each row's feature values in a one-hot row, (n, features), below `n_cells`.
        n_cells: Length of a one-hot row.
        rng: Modelling randomness.

    Returns:
        Class index of each row, (n,).
    """
    n, classes = chances.shape
    if classes == 1:
        return np.zeros(n, dtype=np.int64)
    excess = np.zeros((n_cells, classes))  # drawn minus expected labels so far, per feature value
    labels = np.empty(n, dtype=np.int64)
    for rows in np.split(rng.permutation(n), range(BATCH, n, BATCH)):
        leaning = np.clip(chances[rows] - LEAN * excess[cells[rows]].mean(axis=1), 0.0, 1.0) + 1e-12
        upper = np.cumsum(leaning / leaning.sum(axis=1, keepdims=True), axis=1)
        labels[rows] = np.minimum((rng.random((len(rows), 1)) > upper).sum(axis=1), classes - 1)
        error = -chances[rows]
        error[np.arange(len(rows)), labels[rows]] += 1.0
        np.add.at(excess, cells[rows], error[:, None, :])
    return labels
