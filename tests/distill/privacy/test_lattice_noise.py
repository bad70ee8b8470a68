"""The discrete Gaussian of many draws follows its law to the lowest bit; each statistical test fails once in a million runs."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from distill.privacy import lattice_noise
from distill.privacy.lattice_noise import AT_ONCE, LEAST_STDDEV, MOST_STDDEV, STRIPS, draw
from distill.privacy.random_source import SystemRandom
from tests.fakes.private_tables import FALSE_ALARM

WORDS = SystemRandom().words
WIDE = 2.0**36 * 3.7
STDDEVS = [LEAST_STDDEV, 300.7, 2.0**20, WIDE, MOST_STDDEV]


def chances(stddev: float, reach: int) -> np.ndarray:
    """Of the whole numbers from -reach to reach under the exact law."""
    weights = np.exp(-np.square(np.arange(reach + 1, dtype=np.longdouble)) / (2 * stddev**2))
    positive = np.arange(reach + 1, int(14 * stddev) + 1, dtype=np.longdouble)
    total = 2 * (weights[1:].sum() + np.exp(-np.square(positive) / (2 * stddev**2)).sum()) + weights[0]
    return np.concatenate([weights[:0:-1], weights]).astype(float) / float(total)


def assert_fit(observed: np.ndarray, expected: np.ndarray) -> None:
    assert expected.min() > 10  # else the chi-square law would not hold
    assert scipy.stats.chisquare(observed, expected * (observed.sum() / expected.sum())).pvalue > FALSE_ALARM


@pytest.mark.parametrize("stddev", [LEAST_STDDEV, 300.7])
def test_small_draws_have_the_exact_chance_of_every_single_number(stddev):
    """Up to three deviations out, and both tails beyond as a whole each; two million draws."""
    drawn, reach = draw(2_000_000, stddev, WORDS), int(3 * stddev)
    expected = chances(stddev, reach)
    tail = (1 - expected.sum()) / 2
    expected = np.concatenate([[tail], expected, [tail]]) * drawn.size
    observed = np.bincount(np.clip(drawn, -reach - 1, reach + 1) + reach + 1, minlength=2 * reach + 3)
    assert_fit(observed, expected)


def test_small_draws_have_the_exact_chance_of_every_strip_and_of_far_tails():
    """Strips are four wide; up to 4.5 deviations out in groups of two strips, then the tails beyond."""
    drawn, reach, group = draw(4_000_000, LEAST_STDDEV, WORDS), 1152, 8
    fine = chances(LEAST_STDDEV, reach)
    positive = fine[reach + 1 :].reshape(-1, group).sum(axis=1)
    tail = (1 - fine.sum()) / 2
    keep = positive * drawn.size > 20
    assert keep[: int(3.9 * LEAST_STDDEV / group)].all()
    for sign in (1, -1):
        groups = np.bincount(np.clip((sign * drawn - 1) // group, -1, len(positive)) + 1, minlength=len(positive) + 2)
        observed = np.append(groups[1:-1][keep], groups[1:-1][~keep].sum() + groups[-1])
        assert_fit(observed, np.append(positive[keep], positive[~keep].sum() + tail) * drawn.size)


@pytest.mark.parametrize("stddev", [2.0**20, WIDE, MOST_STDDEV])
def test_wide_draws_are_normal_in_body_and_tails(stddev):
    """Kolmogorov-Smirnov, and the numbers beyond each of three far points on either side against their binomial law."""
    drawn = draw(1_000_000, stddev, WORDS) / stddev
    assert scipy.stats.kstest(drawn, "norm").pvalue > FALSE_ALARM
    for far in (2.0, 3.0, 4.0):
        for side in (drawn, -drawn):
            law = scipy.stats.binom(drawn.size, scipy.stats.norm.sf(far))
            low, high = law.ppf([FALSE_ALARM / 12, 1 - FALSE_ALARM / 12])
            assert low <= (side > far).sum() <= high


@pytest.mark.parametrize("stddev", STDDEVS)
def test_mean_and_variance_are_those_of_the_law(stddev):
    drawn = draw(1_000_000, stddev, WORDS) / stddev
    assert abs(drawn.mean()) * 1000 < scipy.stats.norm.isf(FALSE_ALARM / 4)
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 4, 1 - FALSE_ALARM / 4], df=drawn.size)
    assert low < np.square(drawn).sum() < high


@pytest.mark.parametrize("stddev", [2.0**20, WIDE, MOST_STDDEV])
def test_low_bits_are_fair_and_tell_nothing_of_the_high_ones(stddev):
    """The law is so wide that its low bits are uniform to 1e-9; all bytes, and whether they go with size or sign."""
    drawn = draw(500_000, stddev, WORDS)
    low = int(math.log2(stddev)) - 8  # below, a number is flat over its neighbours
    for shift in range(0, low - 7, 8):
        byte = (drawn >> shift) & 255
        assert_fit(np.bincount(byte, minlength=256), np.full(256, drawn.size / 256))
        for beside in (drawn < 0, np.abs(drawn) > stddev):
            observed = np.bincount(byte[beside], minlength=256)
            assert_fit(observed, np.full(256, beside.sum() / 256))


def test_both_signs_come_alike_and_zero_once():
    """Twice as often, zero would be 100 deviations off."""
    drawn = draw(4_000_000, LEAST_STDDEV, WORDS)
    middle = chances(LEAST_STDDEV, 2)
    for number, chance in zip(range(-2, 3), middle, strict=True):
        low, high = scipy.stats.binom(drawn.size, chance).ppf([FALSE_ALARM / 12, 1 - FALSE_ALARM / 12])
        assert low <= (drawn == number).sum() <= high
    low, high = scipy.stats.binom((drawn != 0).sum(), 0.5).ppf([FALSE_ALARM / 12, 1 - FALSE_ALARM / 12])
    assert low <= (drawn > 0).sum() <= high


@pytest.mark.parametrize("stddev", [LEAST_STDDEV, WIDE])
def test_draws_after_one_another_are_independent(stddev):
    """Of values, of sizes and of signs, a few places apart and in the next call."""
    size, lags = 1_000_000, (1, 2, 3, 64, AT_ONCE)
    first, second = (draw(size, stddev, WORDS) / stddev for _ in range(2))
    limit = scipy.stats.norm.isf(FALSE_ALARM / (6 * (len(lags) + 1)))
    for of in (lambda x: x, lambda x: (np.square(x) - 1) / 2**0.5, np.sign):
        pairs = [(of(first[lag:]), of(first[:-lag])) for lag in lags] + [(of(first), of(second))]
        for one, other in pairs:
            assert abs((one * other).sum()) < limit * one.size**0.5


@pytest.mark.parametrize("size", [0, 1, 2, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE + 5])
def test_as_many_are_drawn_as_asked_for(size):
    drawn = draw(size, WIDE, WORDS)
    assert (drawn.shape, drawn.dtype) == ((size,), np.int64)
    assert size < 3 or len(np.unique(drawn)) == size  # no piece is left unfilled or filled twice


@pytest.mark.parametrize(
    "stddev", [LEAST_STDDEV * (1 - 1e-12), MOST_STDDEV * (1 + 1e-12), 0.0, -300.0, float("nan"), float("inf")]
)
def test_a_stddev_outside_the_limits_is_refused(stddev):
    with pytest.raises(ValueError, match="is outside"):
        draw(3, stddev, WORDS)


def test_every_draw_is_made_of_words_of_the_source():
    """The same words give the same draws, and nothing else is looked at."""
    taken = []

    def noted(size: int) -> np.ndarray:
        taken.append(WORDS(size))
        return taken[-1]

    drawn = draw(40_000, WIDE, noted)
    left = iter(taken)
    np.testing.assert_array_equal(draw(40_000, WIDE, lambda size: next(left)), drawn)
    assert next(left, None) is None


# ---- the table of strips --------------------------------------------------------------------------------------------


def shares_of(strips: lattice_noise._Strips) -> list[Fraction]:
    """The exact chance of each strip, put together from all columns of the table."""
    whole, found = 1 << 128, [Fraction(0)] * STRIPS
    for column in range(STRIPS):
        other = int(strips.other[column])
        own = (int(strips.high[column]) << 64) + int(strips.low[column])
        found[column] += Fraction(own, whole * STRIPS)
        found[other] += Fraction(whole - own, whole * STRIPS)
    return found


def true_shares(stddev: float, width_bits: int) -> list[Decimal]:
    """Of the strips, by their first numbers, to forty digits; the strips that are left out counted in."""
    with localcontext() as context:
        context.prec = 60
        at = [Decimal(i) * Decimal(2) ** width_bits / Decimal(stddev) for i in range(3 * STRIPS)]
        weights = [(-(a * a) / 2).exp() for a in at]
        total = sum(weights)
        return [w / total for w in weights]


@pytest.mark.parametrize("stddev", STDDEVS)
def test_the_table_gives_every_strip_its_weight(stddev):
    """In ratio within 2**-46 where a strip may come at all, and to 2**-110 everywhere."""
    strips = lattice_noise._strips(stddev)
    assert 64 <= stddev / 2.0**strips.width_bits < 128
    found = shares_of(strips)
    assert sum(found) == 1
    for got, true in zip(found, true_shares(stddev, strips.width_bits), strict=False):
        off = abs(got - Fraction(true))
        assert off <= Fraction(true) * Fraction(1, 2**46) + Fraction(1, 2**110)
    reach = lattice_noise.REACH * stddev / 2.0**strips.width_bits
    assert not any(found[math.ceil(reach) :])


@pytest.mark.parametrize("stddev", STDDEVS)
def test_columns_lose_nothing_of_the_weights_that_they_are_made_of(stddev):
    """To the last step of 2**-139: what rounding down leaves over, up to a step a strip, goes to the first."""
    strips = lattice_noise._strips(stddev)
    steps = [share * STRIPS * 2**128 for share in shares_of(strips)]
    assert all(step.denominator == 1 for step in steps)
    reach = math.ceil(lattice_noise.REACH * stddev / 2.0**strips.width_bits)
    at = [i * 2.0**strips.width_bits / stddev for i in range(reach)]
    weights = [int(math.exp(-(a**2) / 2) * 2.0**128) for a in at]
    rounded = [w * STRIPS * 2**128 // sum(weights) for w in weights]
    assert steps[1:reach] == rounded[1:]
    assert 0 <= steps[0] - rounded[0] <= reach


@pytest.mark.parametrize("stddev", [LEAST_STDDEV, 300.7])
def test_strip_sign_and_rejection_together_give_the_exact_law(stddev):
    """Every number that a column can give is asked for; its chance is the strip's, times that of being kept."""
    strips = lattice_noise._strips(stddev)
    width = 1 << strips.width_bits
    found, weights = shares_of(strips), []
    for strip in range(0, 600, 7):
        for inside in range(width):
            weights.append((strip * width + inside, found[strip] * kept_of(strips, stddev, strip, inside)))
    first, scale = weights[0]
    assert first == 0
    for number, weight in weights:
        ratio = float(weight / scale) / math.exp(-(number**2) / (2 * stddev**2))
        assert ratio == pytest.approx(1, abs=2.0**-45)


def kept_of(strips: lattice_noise._Strips, stddev: float, strip: int, inside: int) -> Fraction:
    """Of 2**53 values of the last word, the share at which a number is kept; found by bisection."""
    column = next(c for c in range(STRIPS) if c == strip or strips.other[c] == strip)
    to_strip = 0 if column == strip and strips.high[column] else (1 << 64) - 1

    def kept(keep: int) -> bool:
        words = np.array([column | inside << 11, to_strip, keep << 11], dtype=np.uint64)
        got = lattice_noise._kept(strips, stddev, lambda size: words, 1)
        assert got.size == 0 or got.item() == (strip << strips.width_bits) + inside
        return bool(got.size)

    low, high = 0, 1 << 53  # kept below low, lost from high on
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if kept(middle) else (low, middle)
    return Fraction(low, 1 << 53)


def test_the_sign_bit_turns_a_number_over_and_drops_a_negative_zero():
    strips = lattice_noise._strips(WIDE)

    def kept(column: int, inside: int, sign: int) -> list[int]:
        words = np.array([column | inside << 11 | sign << 63, 0, 0], dtype=np.uint64)
        return lattice_noise._kept(strips, WIDE, lambda size: words, 1).tolist()

    number = (3 << strips.width_bits) + 12_345
    assert kept(3, 12_345, 0) == [number]
    assert kept(3, 12_345, 1) == [-number]
    assert kept(0, 0, 0) == [0]
    assert kept(0, 0, 1) == []


def test_where_the_upper_half_of_a_chance_is_a_tie_the_lower_half_decides():
    strips = lattice_noise._strips(WIDE)
    column = next(c for c in range(STRIPS) if strips.other[c] != c and 0 < strips.low[c] < (1 << 64) - 1)
    for low, strip in ((int(strips.low[column]) - 1, column), (int(strips.low[column]), strips.other[column])):
        words = iter([np.array([column, strips.high[column], 0], np.uint64), np.array([low], np.uint64)])
        got = lattice_noise._kept(strips, WIDE, lambda size, words=words: next(words), 1)
        assert got.tolist() == [int(strip) << strips.width_bits]
        assert next(words, None) is None
