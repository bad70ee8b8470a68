"""Rows that go into a linear layer: what comes out of it and what they add to its gradient, against rows that are laid out."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from distill.common import exact
from distill.privacy.row_vectors import Dense, OneHot
from tests.fakes.private_tables import assert_row_local

WIDTHS = (4, 1, 6, 300)
STARTS = np.cumsum([0, *WIDTHS[:-1]])
BITS = 36
Vectors = OneHot | Dense


def codes_of(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, w, rows) for w in WIDTHS], axis=1).astype(np.uint16)


def laid_out(codes: np.ndarray) -> np.ndarray:
    """One-hot rows of length 1, written out."""
    rows = np.zeros((len(codes), sum(WIDTHS)))
    np.put_along_axis(rows, codes + STARTS, len(WIDTHS) ** -0.5, axis=1)
    return rows


def one_hot(rows: int, seed: int) -> tuple[Callable[[np.ndarray], Vectors], np.ndarray]:
    """Some of the rows as vectors, by their numbers, and all of them laid out."""
    codes = codes_of(rows, seed)
    return lambda chosen: OneHot(codes[chosen], STARTS, sum(WIDTHS)), laid_out(codes)


def dense(rows: int, seed: int) -> tuple[Callable[[np.ndarray], Vectors], np.ndarray]:
    values = np.random.default_rng(seed).normal(0, 2, (rows, 11)).astype(np.float32)
    return lambda chosen: Dense(values[chosen]), exact.on_grid(values)


KINDS = pytest.mark.parametrize("kind", [one_hot, dense])
Kind = Callable[[int, int], tuple[Callable[[np.ndarray], Vectors], np.ndarray]]


@KINDS
def test_a_layer_makes_of_rows_what_it_makes_of_rows_laid_out(kind: Kind, seed):
    vectors, rows = kind(60, seed)
    weight = np.random.default_rng(seed).normal(size=(7, rows.shape[1]))
    got = vectors(np.arange(60)).times(weight)
    assert (got.shape, got.dtype) == ((60, 7), np.float64)
    rounding = 0 if kind is one_hot else 2.0**-17 * np.abs(rows).sum(axis=1)[:, None]
    assert (np.abs(got - rows @ weight.T) <= rounding + 1e-13).all()


@KINDS
def test_squares_are_the_squared_lengths_of_rows(kind: Kind, seed):
    vectors, rows = kind(60, seed)
    expected = np.square(rows).sum(axis=1)
    np.testing.assert_allclose(np.broadcast_to(vectors(np.arange(60)).squares, 60), expected, rtol=1e-14)


@KINDS
def test_what_a_layer_makes_of_a_row_and_its_length_are_the_same_to_the_last_bit_beside_any_others(kind: Kind, seed):
    vectors, rows = kind(3000, seed)
    for out in (1, 2, 33):
        weight = np.random.default_rng(seed).normal(size=(out, rows.shape[1]))
        assert_row_local(lambda chosen, weight=weight: vectors(chosen).times(weight), 3000, seed)
    assert_row_local(lambda chosen: np.broadcast_to(vectors(chosen).squares, len(chosen)).copy(), 3000, seed)


def cut(value: float, scale: float) -> int:
    """Towards zero, in exact arithmetic of the two factors' rounded product."""
    return int(Fraction(value * scale))


@pytest.mark.parametrize("bits", [BITS, 20, 5])
@KINDS
def test_sums_are_of_each_rows_part_cut_towards_zero_in_whole_numbers(kind: Kind, bits: int, seed):
    """Row by row and number by number, in Python's own whole numbers."""
    vectors, rows = kind(30, seed)
    outputs = np.random.default_rng(seed).uniform(-0.4, 0.4, (30, 3))
    weight, bias = vectors(np.arange(30)).summed(outputs, bits)
    assert (weight.dtype, bias.dtype) == (np.int64, np.int64)
    if kind is one_hot:
        scale, ones = len(WIDTHS) ** -0.5 * 2.0**bits, (rows > 0).astype(int)
        parts = [
            [[cut(o, scale) * int(one) for one in row] for o in out] for row, out in zip(ones, outputs, strict=True)
        ]
        biases = [[cut(o, 2.0**bits) for o in out] for out in outputs]
    else:
        steps = (rows * 2.0**16).astype(int)
        parts = [
            [[cut(o, 2.0 ** (bits - 16)) * int(v) for v in row] for o in out]
            for row, out in zip(steps, outputs, strict=True)
        ]
        biases = [[cut(o, 2.0 ** (bits - 16)) * 2**16 for o in out] for out in outputs]
    assert weight.tolist() == np.sum(np.array(parts, dtype=object), axis=0).tolist()
    assert bias.tolist() == np.sum(np.array(biases, dtype=object), axis=0).tolist()


@KINDS
def test_a_sum_is_the_sum_of_its_rows_to_the_last_step(kind: Kind, seed):
    """So one row more or less, anywhere, moves it by that row alone."""
    vectors, _ = kind(200, seed)
    outputs = np.random.default_rng(seed).normal(size=(200, 5))

    def summed(chosen: np.ndarray) -> np.ndarray:
        weight, bias = vectors(chosen).summed(outputs[chosen], BITS)
        return np.concatenate([weight.ravel(), bias])

    whole, alone = summed(np.arange(200)), [summed(np.array([i])) for i in range(200)]
    np.testing.assert_array_equal(whole, np.sum(alone, axis=0))
    for without in (0, 1, 100, 198, 199):
        np.testing.assert_array_equal(whole - summed(np.delete(np.arange(200), without)), alone[without])


@KINDS
def test_what_is_cut_is_never_longer_than_it_was(kind: Kind, seed):
    vectors, rows = kind(50, seed)
    outputs = np.random.default_rng(seed).normal(0, 0.1, (50, 4))
    for i in range(50):
        weight, bias = vectors(np.array([i])).summed(outputs[i : i + 1], BITS)
        true = np.outer(outputs[i], rows[i])
        assert (np.abs(weight) <= np.abs(true) * 2.0**BITS * (1 + 1e-15)).all()
        assert (np.abs(bias) <= np.abs(outputs[i]) * 2.0**BITS).all()
        slack = 1.0 if kind is one_hot else 2.0**16 * np.maximum(np.abs(rows[i]), 1)  # a step of what is cut
        assert (np.abs(weight - true * 2.0**BITS) <= slack + 1).all()


@KINDS
def test_no_rows_at_all_give_nothing_and_add_nothing(kind: Kind):
    vectors, rows = kind(5, 0)
    none = vectors(np.zeros(0, dtype=int))
    assert none.times(np.ones((3, rows.shape[1]))).shape == (0, 3)
    weight, bias = none.summed(np.zeros((0, 3)), BITS)
    assert (weight.shape, bias.shape) == ((3, rows.shape[1]), (3,))
    assert not weight.any()
    assert not bias.any()


def test_the_largest_batch_that_there_may_be_is_summed_without_rounding():
    """65,536 rows alike, each as long as a gradient may be: a sum of odd numbers of steps up to 2**52."""
    rows, length = 1 << 16, 1 - 2.0**-36
    for alike in (lambda n: OneHot(np.zeros((n, 1), np.uint8), np.zeros(1, int), 1), lambda n: Dense(np.ones((n, 1)))):
        one, many = (alike(n).summed(np.full((n, 1), length), BITS) for n in (1, rows))
        assert [part.item() for part in many] == [rows * part.item() for part in one]
        assert one[1].item() > 2**BITS - 2**17
