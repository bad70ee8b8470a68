"""Rows generated at the client for its sparse classes, between pairs of its own rows of the class; they never leave it.

SMOTE (Chawla et al. 2002, arXiv:1106.1813) draws a row on the line from a row to one of its nearest neighbours of the
same class. Encoded rows mix scaled numbers with one-hot categories and missing flags, which must stay 0 or 1. One rule
serves all, without knowing which column is which: a feature is interpolated where both parents are non-zero, and copied
from the first parent elsewhere. So a category is the first parent's (1 between 1 and 1), and so is a missing flag; a
number that is missing in either parent (encoded as zero) keeps the first parent's value. The two features of one number
(rank and standardised value) share the position on the line; between near neighbours that is close to what one number in
between would give.
"""

import numpy as np

NEIGHBOURS = 5  # the second parent is one of so many nearest rows; SMOTE's usual value
MOST_PARENTS = 1000  # rows of a class that distances are computed between: bounds memory at 4 MB


def with_generated(
    x: np.ndarray, y: np.ndarray, *, least_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The rows and, after them, generated rows of every class that has less than `least_share` of them.

    Each such class grows to `least_share` of the real rows, but to no more than twice its own: a handful of rows shown
    many times over is learnt by heart. A class with one row or none is left alone: there is no pair to go between.

    Args:
        x: Encoded rows, shape (n, features).
        y: Their classes, shape (n,).
        least_share: In [0, 1]; 0 generates nothing.
        rng: Of the parents and the positions between them.

    Returns:
        The same arrays where nothing is generated; else longer copies of the same types.
    """
    parts_x, parts_y = [x], [y]
    for one, count in zip(*np.unique(y, return_counts=True), strict=True):
        wanted = min(int(np.ceil(least_share * len(y))) - int(count), int(count))
        if wanted > 0 and count > 1:
            parts_x.append(between_neighbours(x[y == one], wanted, rng))
            parts_y.append(np.full(wanted, one, dtype=y.dtype))
    return (np.concatenate(parts_x), np.concatenate(parts_y)) if len(parts_x) > 1 else (x, y)


def between_neighbours(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows between a row and one of its nearest neighbours, shape (count, features); `rows` holds at least two."""
    parents = rows if len(rows) <= MOST_PARENTS else rows[rng.permutation(len(rows))[:MOST_PARENTS]]
    squares = np.square(parents).sum(axis=1)
    distances = squares[:, None] + squares - 2.0 * parents @ parents.T
    np.fill_diagonal(distances, np.inf)
    near = min(NEIGHBOURS, len(parents) - 1)
    neighbours = np.argpartition(distances, near - 1, axis=1)[:, :near]
    first = rng.integers(len(parents), size=count)
    second = neighbours[first, rng.integers(near, size=count)]
    return between(parents[first], parents[second], rng.random((count, 1)))


def between(first: np.ndarray, second: np.ndarray, position: np.ndarray) -> np.ndarray:
    """`first` moved towards `second` by `position`, in [0, 1] and shape (n, 1), where both are non-zero; shape (n, features)."""
    moved = first + position.astype(first.dtype) * (second - first)
    return np.asarray(np.where((first != 0) & (second != 0), moved, first))
