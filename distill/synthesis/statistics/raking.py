"""Raking: scaling rows or a table until their sums are the released ones. It is post-processing of what was released.

Source of both: iterative proportional fitting, Deming & Stephan 1940, doi:10.1214/aoms/1177731829.
"""

import numpy as np

ROW_ROUNDS = 5
TABLE_ROUNDS = 30
SMOOTHING = 0.01  # portion of independence mixed in, so that no cell is impossible


def rake_rows(codes: np.ndarray, weight: np.ndarray, shares: list[np.ndarray]) -> np.ndarray:
    """Scale the weights of rows until each column's weighted shares are near the given ones.

    Args:
        codes: Bin of each row in each column, (rows, columns).
        weight: Weight of each row to begin with, (rows,).
        shares: Released share of each bin, one vector a column.

    Returns:
        Weights with mean 1, (rows,).
    """
    for _ in range(ROW_ROUNDS):
        for column, share in enumerate(shares):
            now = np.bincount(codes[:, column], weight, minlength=len(share)) / weight.sum()
            # Kept within 1/3..3 a step, so that a bin which the rows hardly cover cannot blow up a few of them.
            factor = np.clip(share / np.maximum(now, 1e-9), 1 / 3, 3)
            weight = weight * factor[codes[:, column]]
    return np.asarray(weight / weight.mean())


def rake_table(table: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Scale a table of counts to given sums of its rows and columns; its odds ratios stay.

    Args:
        table: Counts at least 0, (m, k).
        down: Sum of each row, (m,).
        across: Sum of each column, (k,).
    """
    total = down.sum()
    table = (1 - SMOOTHING) * table / table.sum() + SMOOTHING * np.outer(down, across) / (total * across.sum())
    for _ in range(TABLE_ROUNDS):
        table = table * (across / total / np.maximum(table.sum(axis=0), 1e-12))
        table = table * (down / total / np.maximum(table.sum(axis=1), 1e-12))[:, None]
    return np.asarray(table * total)
