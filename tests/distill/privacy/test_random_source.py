"""The operating system's draws follow the laws that they claim; each test fails sound code with a chance of 1e-6 at most."""

import numpy as np
import pytest
import scipy.stats

from distill.privacy.random_source import FARTHEST, SeededRandom, SystemRandom
from tests.fakes.private_tables import FALSE_ALARM

SOURCE = SystemRandom()
SOURCES, NAMES = [SOURCE, SeededRandom(np.random.default_rng(7))], ["system", "seeded"]
STDDEV = 3.7 * 2.0**36


def within(statistic, law):
    """Inside the central part of `law` that sound code leaves once in a million draws."""
    low, high = law.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2])
    return low <= statistic <= high


def test_uniform_numbers_fill_the_open_unit_interval_evenly():
    draws = SOURCE.uniform(200_000)
    assert 0 < draws.min() < draws.max() < 1
    assert scipy.stats.kstest(draws, "uniform").pvalue > FALSE_ALARM
    assert np.all(draws * 2.0**53 % 2 == 1)  # the odd multiples: 0 and 1 are out of reach


def standard_normal(size, source=SOURCE):
    """Draws of a lattice so fine that they are as good as continuous."""
    drawn = source.lattice_normal(size, STDDEV)
    assert drawn.dtype == np.int64
    return drawn / STDDEV


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_normal_numbers_are_normal_also_in_their_tails(source):
    """Kolmogorov-Smirnov for the body, and the number beyond each of two far points against its binomial law."""
    draws = standard_normal(400_000, source)
    assert scipy.stats.kstest(draws, "norm").pvalue > FALSE_ALARM
    for far in (3.0, 4.0):
        law = scipy.stats.binom(draws.size, 2 * scipy.stats.norm.sf(far))
        assert within((np.abs(draws) > far).sum(), law)


def test_numbers_in_a_row_are_uncorrelated():
    draws = standard_normal(400_000)
    for lag in (1, 2, 7):
        assert within((draws[lag:] * draws[:-lag]).sum() / np.sqrt(draws.size - lag), scipy.stats.norm)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
@pytest.mark.parametrize("rate", [0.001, 0.05, 0.7])
def test_every_record_joins_as_often_as_the_rate_says_and_on_its_own(source, rate):
    """Sizes follow the binomial law, every third of the places gets its part, neighbours join independently."""
    size, rounds = 3000, 400
    joined = np.zeros((rounds, size), dtype=bool)
    for number in range(rounds):
        sample = source.poisson_sample(size, rate)
        assert np.unique(sample).size == sample.size
        joined[number, sample] = True
    for part in (joined, joined[:, :1000], joined[:, 2000:], joined[:, :1], joined[:, -1:]):
        assert within(part.sum(), scipy.stats.binom(part.size, rate))
    spread = joined.sum(axis=1)
    chi = ((spread - size * rate) ** 2).sum() / (size * rate * (1 - rate))
    low, high = scipy.stats.chi2.ppf([1e-9, 1 - 1e-9], rounds)  # the binomial is a little off the normal it stands for
    assert low < chi < high
    both = (joined[:, 1:] & joined[:, :-1]).sum()
    expected, count = rate**2, rounds * (size - 1)
    deviation = np.sqrt(count * (expected * (1 - expected) + 2 * (rate**3 - rate**4)))
    assert abs(both - count * expected) < 6 * deviation + 6


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_every_bit_of_a_word_is_a_fair_coin_of_its_own(source):
    words = source.words(100_000)
    assert words.dtype == np.uint64
    bits = np.unpackbits(words.view(np.uint8)).reshape(-1, 64)
    low, high = scipy.stats.binom(len(bits), 0.5).ppf([FALSE_ALARM / 256, 1 - FALSE_ALARM / 256])
    assert ((low <= bits.sum(axis=0)) & (bits.sum(axis=0) <= high)).all()
    differ = (bits != np.roll(bits, 1, axis=1)).sum(axis=0)
    assert ((low <= differ) & (differ <= high)).all()


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_gaps_between_those_who_join_are_geometric_also_where_they_are_longer_than_one_draw_may_span(rate):
    """Chi-square of the gaps, up to a quarter further than a single draw reaches and beyond."""
    size = int(3_000_000 / rate)
    gaps = np.diff(SOURCE.poisson_sample(size, rate))
    edges = np.append(np.floor(np.linspace(0, 1.25, 12) * FARTHEST / rate), np.inf)
    chances = np.diff(scipy.stats.geom(rate).cdf(edges))
    observed = np.histogram(gaps, edges + 0.5)[0]
    assert (chances * gaps.size).min() > 10
    assert scipy.stats.chisquare(observed, chances * gaps.size).pvalue > FALSE_ALARM


def test_rates_at_the_ends_take_everyone_or_nearly_nobody():
    assert np.array_equal(SOURCE.poisson_sample(50, 1.0), np.arange(50))
    assert SOURCE.poisson_sample(0, 0.5).size == 0
    assert SOURCE.poisson_sample(1000, 1e-300).size == 0


def test_a_permutation_puts_every_number_everywhere_alike():
    rounds, size = 4000, 8
    seen = np.zeros((size, size))
    for _ in range(rounds):
        order = SOURCE.permutation(size)
        assert sorted(order) == list(range(size))
        seen[np.arange(size), order] += 1
    chi = ((seen - rounds / size) ** 2).sum() / (rounds / size)
    assert within(chi, scipy.stats.chi2((size - 1) ** 2))


def test_nothing_repeats():
    assert not np.array_equal(SOURCE.uniform(8), SOURCE.uniform(8))
    assert not np.array_equal(SOURCE.words(8), SOURCE.words(8))
    assert not np.array_equal(SystemRandom().lattice_normal(8, STDDEV), SystemRandom().lattice_normal(8, STDDEV))
