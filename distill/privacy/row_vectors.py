"""Private rows as vectors that go into a linear layer: one-hot rows, never laid out, or rows of numbers.

What a layer makes of a row, and what the row adds to a sum, follows from that row alone to the last bit (see `exact`).
"""

import numpy as np

from distill.common import exact


class OneHot:
    """Rows of a one in each column's segment, scaled to length 1; never laid out."""

    def __init__(self, codes: np.ndarray, starts: np.ndarray, width: int) -> None:
        """Of codes (n, columns), whose segments begin at `starts` (columns,) in rows of `width`."""
        from scipy.sparse import csr_array

        n, columns = codes.shape
        places = (codes + np.asarray(starts, dtype=np.int64)).ravel()
        ends = np.arange(0, n * columns + 1, columns)
        self._ones = csr_array((np.ones(n * columns), places, ends), shape=(n, width))
        self._scale = columns**-0.5

    @property
    def squares(self) -> float:
        """Squared length of each row."""
        return 1.0

    def times(self, weight: np.ndarray) -> np.ndarray:
        """The rows times a weight (out, width) turned over; a sum of few numbers, row by row in one order; (n, out)."""
        return np.asarray(self._scale * np.asarray(self._ones @ np.ascontiguousarray(weight.T, dtype=np.float64)))

    def summed(self, outputs: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums over rows of outputs (n, out) times the row, (out, width), and of the outputs, (out,): a layer's gradient.

        Each term is cut towards zero to multiples of 2**-bits; int64, in such steps.
        """
        cut = np.trunc(outputs * (self._scale * 2.0**bits))
        weight = np.asarray((self._ones.T @ cut).T, dtype=np.int64)
        return weight, np.trunc(outputs * 2.0**bits).sum(axis=0).astype(np.int64)


class Dense:
    """Rows of numbers on the grid of exact products."""

    def __init__(self, values: np.ndarray) -> None:
        """`values`: (n, width)."""
        self.values = exact.on_grid(values)

    @property
    def squares(self) -> np.ndarray:
        """Squared length of each row, (n,)."""
        return np.asarray(np.square(self.values).sum(axis=1))

    def times(self, weight: np.ndarray) -> np.ndarray:
        """The rows times a weight (out, width) turned over, (n, out)."""
        return exact.product_on_grid(self.values, weight.T)

    def summed(self, outputs: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """As of `OneHot`."""
        cut = np.trunc(outputs * 2.0 ** (bits - exact.GRID_BITS))
        weight = np.asarray(cut.T @ (self.values * 2.0**exact.GRID_BITS), dtype=np.int64)
        return weight, cut.sum(axis=0).astype(np.int64) << exact.GRID_BITS
