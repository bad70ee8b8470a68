"""Matrix products that come out the same to the last bit whatever stands beside them.

A floating-point product depends on the order of its additions, and a library picks that order by the size of the whole: the
result for one row then depends, in its last bits, on how many other rows there are. What a private row adds to an answer must
depend on that row alone. So both factors are rounded to whole multiples of a power of two, few enough that every sum in
between is a whole number below 2**53, which float64 holds exactly: no order and no library changes it.

The rounding is part of the function that is computed, the same for every row. It is much finer than any noise here.
"""

import numpy as np

GRID_BITS = 16  # factors are multiples of 2**-16 ...
LIMIT = 32.0  # ... and within [-32, 32]
INNER = 1 << 11  # products of two factors added up exactly: 2 * (16 + 5) + 11 = 53 bits


def on_grid(values: np.ndarray, *, bits: int = GRID_BITS, limit: float = LIMIT) -> np.ndarray:
    """`values` as the nearest multiples of 2**-bits within [-limit, limit]; float64. What is not a number becomes -limit."""
    whole: np.ndarray = np.multiply(values, 2.0**bits, dtype=np.float64)
    np.rint(whole, out=whole)
    np.fmax(whole, -limit * 2.0**bits, out=whole)
    np.fmin(whole, limit * 2.0**bits, out=whole)
    whole *= 2.0**-bits
    return whole


def product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`rows @ matrix` of the factors on the grid, (n, a) times (a, b); each row's result depends on that row alone."""
    return product_on_grid(on_grid(rows), matrix)


def product_on_grid(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """As `product`, of rows that lie on the grid already.

    Inner dimensions beyond `INNER` are added up piece by piece, in one order for every row.
    """
    right = on_grid(matrix)
    total = rows[:, :INNER] @ right[:INNER]
    for start in range(INNER, rows.shape[1], INNER):
        total += rows[:, start : start + INNER] @ right[start : start + INNER]
    return np.asarray(total)


def fine_product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """As `product`, to about 2**-26 of the factors' limits instead of 2**-16: each factor is a coarse and a fine part.

    Source: splitting factors so that partial products are free of rounding, Ozaki et al. 2012, doi:10.1007/s11075-011-9478-1.
    """
    left, right = on_grid(rows, bits=2 * GRID_BITS), on_grid(matrix, bits=2 * GRID_BITS)
    coarse_left, coarse_right = on_grid(left), on_grid(right)
    scale = 2.0**GRID_BITS
    fine_left, fine_right = (left - coarse_left) * scale, (right - coarse_right) * scale
    fine = product(coarse_left, fine_right) + product(fine_left, coarse_right)
    return np.asarray(product(coarse_left, coarse_right) + fine / scale)
