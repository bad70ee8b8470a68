"""Products that are the same to the last bit beside any other rows, and as near to the true ones as they say."""

from collections.abc import Callable

import numpy as np
import pytest

from distill.common import exact
from tests.fakes.private_tables import assert_row_local

PRODUCTS = {"product": exact.product, "fine_product": exact.fine_product}
Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


def factors(seed: int, rows: int, inner: int, columns: int, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, scale, (rows, inner)), rng.normal(0, scale, (inner, columns))


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("inner", [1, 7, 64, 500, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("columns", [1, 2, 33])
def test_a_rows_product_is_the_same_to_the_last_bit_beside_any_others(product: Product, inner: int, columns: int, seed):
    left, right = factors(seed, 70, inner, columns)
    assert_row_local(lambda chosen: product(left[chosen], right), 70, seed)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_a_rows_product_is_the_same_in_a_large_batch_and_from_single_precision(product: Product, seed):
    left, right = factors(seed, 3000, 5000, 5)
    assert_row_local(lambda chosen: product(left[chosen], right), 3000, seed)
    single = left.astype(np.float32)
    assert_row_local(lambda chosen: product(single[chosen], right), 100, seed)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_how_the_factors_lie_in_memory_makes_no_difference(product: Product, seed):
    left, right = factors(seed, 50, 300, 9)
    plain = product(left, right)
    wide = np.zeros((100, 600))
    wide[::2, ::2] = left
    for same in (np.asfortranarray(left), wide[::2, ::2], left[::-1][::-1]):
        np.testing.assert_array_equal(product(same, np.asfortranarray(right)), plain)


def test_an_ordinary_product_would_not_pass_these_tests():
    """Else they would see nothing: some batch size moves some last bit of numpy's own product."""
    left, right = factors(0, 70, 500, 33)
    with pytest.raises(AssertionError):
        assert_row_local(lambda chosen: left[chosen] @ right, 70)


@pytest.mark.parametrize("inner", [1, 300, 2048, 5000])
@pytest.mark.parametrize("scale", [0.01, 3.0, 100.0])
def test_a_product_is_exactly_that_of_the_factors_on_the_grid(inner: int, scale: float, seed):
    """In whole numbers; at the largest scale most factors are at the limits."""
    left, right = factors(seed, 20, inner, 4, scale)
    whole_left, whole_right = (
        np.rint(np.clip(f, -32, 32) * 2.0**16).astype(np.int64).astype(object) for f in (left, right)
    )
    expected = (whole_left @ whole_right).astype(float) * 2.0**-32
    np.testing.assert_array_equal(exact.product(left, right), expected)
    np.testing.assert_array_equal(exact.product_on_grid(exact.on_grid(left), right), expected)


def test_the_largest_sums_that_there_may_be_are_exact():
    """Of 2048 factors at the limits: one step of the grid more still shows."""
    left, right = np.full((2, exact.INNER), 32.0), np.full((exact.INNER, 1), 32.0)
    left[1, 0] -= 2.0**-16
    top, below = exact.product(left, right)[:, 0]
    assert (top, top - below) == (2.0**21, 2.0**-11)
    left, right = np.full((1, exact.INNER), 32 - 2.0**-16), np.full((exact.INNER, 1), 32 - 2.0**-16)
    assert exact.product(left, right).item() * 2**32 == 2048 * (2**21 - 1) ** 2


@pytest.mark.parametrize(
    ("product", "rounding"), [(exact.product, 2.0**-17), (exact.fine_product, 2.0**-33)], ids=PRODUCTS
)
@pytest.mark.parametrize("inner", [1, 300, 5000])
def test_a_product_is_as_near_to_the_true_one_as_the_rounding_of_its_factors(
    product: Product, rounding: float, inner: int, seed
):
    """Each factor is off by at most half a step, and the product of both fine parts may be left out."""
    left, right = factors(seed, 20, inner, 4)
    left, right = np.clip(left, -32, 32), np.clip(right, -32, 32)
    true = left.astype(np.longdouble) @ right.astype(np.longdouble)
    slack = rounding * (np.abs(left).sum(axis=1)[:, None] + np.abs(right).sum(axis=0)) + inner * 2.0**-34
    assert (np.abs(product(left, right) - true) <= slack + 1e-14 * np.abs(true)).all()


def test_a_fine_product_is_finer_than_a_plain_one(seed):
    left, right = factors(seed, 40, 200, 6)
    true = left.astype(np.longdouble) @ right.astype(np.longdouble)
    coarse, fine = (np.abs(product(left, right) - true).max() for product in (exact.product, exact.fine_product))
    assert fine < 2.0**-12 * coarse


@pytest.mark.parametrize(("rows", "inner", "columns"), [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 3000, 1)])
@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_products_without_rows_columns_or_factors_are_empty_or_zero(product, rows, inner, columns):
    got = product(np.ones((rows, inner)), np.ones((inner, columns)))
    assert got.shape == (rows, columns)
    assert not got.any()


@pytest.mark.parametrize("bits", [16, 32])
def test_values_go_to_the_nearest_multiple_and_not_beyond_the_limits(bits, seed):
    values = np.random.default_rng(seed).normal(0, 30, (50, 7))
    before = values.copy()
    got = exact.on_grid(values, bits=bits)
    np.testing.assert_array_equal(values, before)
    assert (got.shape, got.dtype) == (values.shape, np.float64)
    np.testing.assert_array_equal(got * 2.0**bits, np.rint(got * 2.0**bits))
    assert (np.abs(got) <= 32).all()
    inside = np.abs(values) <= 32
    assert (np.abs(got - values)[inside] <= 2.0 ** -(bits + 1)).all()
    np.testing.assert_array_equal(got[~inside], 32 * np.sign(values[~inside]))


def test_what_is_no_number_and_what_is_endless_go_to_the_limits():
    values = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-300, -0.0, 32.0, -32.0, 2.0**-17, 3 * 2.0**-17])
    expected = [-32, 32, -32, 32, -32, 0, 0, 32, -32, 0, 2.0**-15]  # halves go to the even multiple
    assert exact.on_grid(values).tolist() == expected
    assert exact.on_grid(values, limit=2.0).tolist() == [min(max(e, -2), 2) for e in expected]
    single = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-38, 2.0**-16], dtype=np.float32)
    assert exact.on_grid(single).tolist() == [-32, 32, -32, 32, -32, 0, 2.0**-16]
    assert exact.on_grid(np.array([7, -40])).tolist() == [7, -32]


def test_a_row_that_holds_no_number_spoils_no_other(seed):
    left, right = factors(seed, 30, 40, 5)
    plain = exact.product(left, right)
    left[11, 3], left[12] = np.nan, np.inf
    others = np.delete(np.arange(30), [11, 12])
    np.testing.assert_array_equal(exact.product(left, right)[others], plain[others])
    assert np.isfinite(exact.product(left, right)).all()
