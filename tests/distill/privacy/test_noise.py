"""The noise is what it says: the right law, fresh each time, and Poisson samples are independent coins.

Every statistical test here fails correct code less than once in a million runs (FALSE_ALARM, split over its parts).
"""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

from distill.errors import ConfigError
from distill.privacy.noise import MIN_COUNT_STDDEV, NoiseSource
from tests.fakes.private_tables import FALSE_ALARM, assert_follows, rounded_gaussian, rounded_laplace

FINE = 2.0**30  # steps of a lattice so fine that a draw over it is as good as continuous


@pytest.fixture(params=["private", "rehearsal"])
def source(request: pytest.FixtureRequest, seed: int) -> NoiseSource:
    return NoiseSource(None if request.param == "private" else seed)


def binomial_bounds(trials: int, chance: float, tests: int = 1) -> tuple[float, float]:
    """A range that a binomial count leaves less than FALSE_ALARM / tests of the time."""
    tail = FALSE_ALARM / tests / 2
    return scipy.stats.binom.ppf(tail, trials, chance), scipy.stats.binom.isf(tail, trials, chance)


def assert_spread(noise: np.ndarray, stddev: float) -> None:
    """Chi-square test of the variance and a z-test of the mean."""
    n = noise.size
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 4, 1 - FALSE_ALARM / 4], df=n)
    assert low < np.square(noise / stddev).sum() < high
    assert abs(noise.mean()) < scipy.stats.norm.isf(FALSE_ALARM / 4) * stddev / np.sqrt(n)


def test_noise_on_counts_has_the_stated_spread_and_is_whole(source):
    """At 40,000 draws a stddev that is 4 % off is missed less than once in a million."""
    noise = source.gaussian_counts(np.zeros((200, 200), dtype=np.int64), stddev=20.0)
    assert noise.shape == (200, 200)
    assert noise.dtype == np.int64
    assert_spread(noise.ravel().astype(float), 20.0)


@pytest.mark.parametrize(("stddev", "reach"), [(2.0, 6), (2.5, 7), (11.3, 34)])
def test_noise_on_counts_is_the_normal_law_rounded(source, stddev, reach):
    """Every value up to three deviations out, and each tail beyond as a whole."""
    draws = source.gaussian_counts(np.zeros(30_000, dtype=np.int64), stddev=stddev)
    assert_follows(draws, rounded_gaussian(stddev), reach)


def test_noise_on_counts_is_not_the_discrete_gaussian():
    """Their variances differ by 1/12: at a stddev of 2 and a million draws by 14 deviations. The rounded one hides more."""
    draws = NoiseSource(1).gaussian_counts(np.zeros(1_000_000, dtype=np.int64), stddev=2.0).astype(float)
    slack = scipy.stats.norm.isf(FALSE_ALARM / 2) * (4 + 1 / 12) * (2 / draws.size) ** 0.5
    assert abs(draws.var() - 4 - 1 / 12) < slack < 1 / 24


@pytest.mark.parametrize(("scale", "reach"), [(0.7, 3), (2.0, 7), (20.0, 40)])
def test_laplace_noise_on_counts_is_the_laplace_law_rounded(source, scale, reach):
    counts = np.arange(30_000).reshape(100, 300)
    noise = source.laplace_counts(counts, scale=scale) - counts
    assert noise.dtype == np.int64
    assert_follows(noise.ravel(), rounded_laplace(scale), reach)
    n, limit = noise.size - 1, scipy.stats.norm.isf(FALSE_ALARM / 2) * noise.astype(float).var()
    assert abs((noise.ravel()[:-1] * noise.ravel()[1:]).mean()) < limit / np.sqrt(n)


@pytest.mark.parametrize("deviations", [2.5, 3.5])
def test_the_tails_of_gaussian_noise_are_neither_cut_nor_fat(source, deviations):
    """Each tail by itself; a normal law cut at four deviations would still pass, one cut at three would not."""
    whole = source.gaussian_counts(np.zeros(60_000, dtype=np.int64), stddev=10.0)
    fine = source.lattice_gaussian(1_000_000, stddev=10.0 * FINE) / FINE
    for noise, edge in ((whole, 10 * deviations + 0.5), (fine, 10 * deviations)):
        low, high = binomial_bounds(noise.size, scipy.stats.norm.sf(edge / 10), tests=4)
        assert low <= (noise > edge).sum() <= high
        assert low <= (noise < -edge).sum() <= high


def test_noise_is_added_to_the_counts_cell_by_cell(source):
    counts = np.array([[0, 10**12], [-5, 7]])
    assert np.abs(source.gaussian_counts(counts, stddev=3.0) - counts).max() < 3.0 * 12


def test_noise_of_different_cells_is_uncorrelated(source):
    noise = source.gaussian_counts(np.zeros((20_000, 2), dtype=np.int64), stddev=5.0).astype(float)
    n = len(noise) - 1
    limit = scipy.stats.norm.isf(FALSE_ALARM / 4) * 25 / np.sqrt(n)
    assert abs((noise[:-1, 0] * noise[:-1, 1]).mean()) < limit
    assert abs((noise[:-1, 0] * noise[1:, 0]).mean()) < limit


@pytest.mark.parametrize("stddev", [0.0, -1.0, float("nan"), float("inf"), 1.9])
def test_too_little_noise_on_counts_is_refused(source, stddev):
    with pytest.raises(ConfigError, match=r"stddev must be|below 2; lower epsilon"):
        source.gaussian_counts(np.zeros(3, dtype=np.int64), stddev=stddev)


def test_the_least_noise_survives_the_rounding_of_a_plan(source):
    """A plan stores stddev / sqrt(blocks) and the stage multiplies back; 15 blocks lose the last bit."""
    for blocks in range(1, 200):
        stddev = MIN_COUNT_STDDEV / np.sqrt(blocks) * np.sqrt(blocks)
        assert source.gaussian_counts(np.zeros(1, dtype=np.int64), stddev=stddev).shape == (1,)


@pytest.mark.parametrize(("scale", "reach"), [(0.7, 3), (2.0, 7), (20.0, 20)])
def test_the_noisy_row_count_is_the_laplace_law_rounded(source, scale, reach):
    draws = np.array([source.laplace_count(1000, scale=scale) for _ in range(2500)]) - 1000
    assert_follows(draws, rounded_laplace(scale), reach)


@pytest.mark.parametrize("scale", [0.1, 50.0, 1000.0])
def test_the_noisy_row_count_is_whole_and_near(source, scale):
    got = source.laplace_count(10**9, scale=scale)
    assert isinstance(got, int)
    assert abs(got - 10**9) < 25 * scale + 25


@pytest.mark.parametrize("scale", [0.0, -2.0, float("nan"), float("inf")])
def test_a_useless_laplace_scale_is_refused(source, scale):
    with pytest.raises(ConfigError, match="scale must be a finite number above 0"):
        source.laplace_count(10, scale=scale)


def test_gradient_noise_is_normal_with_the_stated_spread(source):
    drawn, again = (source.lattice_gaussian(100_000, stddev=2.5 * FINE) for _ in range(2))
    assert drawn.dtype == np.int64
    noise, again = drawn / FINE, again / FINE
    assert_spread(noise, 2.5)
    assert scipy.stats.kstest(noise / 2.5, "norm").pvalue > FALSE_ALARM
    assert abs((noise * again).mean()) < scipy.stats.norm.isf(FALSE_ALARM / 2) * 2.5**2 / np.sqrt(100_000)


def test_every_record_joins_on_its_own(source):
    """Marginal chances, all pairs, and the law of the batch size; a fixed batch size fails the last."""
    records, rounds, rate = 40, 12_000, 0.3
    joined = np.zeros((rounds, records), dtype=np.int64)
    for row in joined:
        chosen = source.poisson_sample(records, rate=rate)
        row[chosen] += 1
    assert joined.max() == 1  # nobody joins twice
    low, high = binomial_bounds(rounds, rate, tests=3 * records)
    assert ((low <= joined.sum(axis=0)) & (joined.sum(axis=0) <= high)).all()
    together = (joined.T @ joined)[np.triu_indices(records, 1)]
    low, high = binomial_bounds(rounds, rate**2, tests=3 * together.size)
    assert ((low <= together) & (together <= high)).all()
    sizes, support = joined.sum(axis=1), np.arange(4, 21)
    chances = scipy.stats.binom.pmf(support, records, rate)
    chances[0], chances[-1] = scipy.stats.binom.cdf(4, records, rate), scipy.stats.binom.sf(19, records, rate)
    observed = np.bincount(np.clip(sizes, 4, 20) - 4, minlength=17)
    assert scipy.stats.chisquare(observed, chances * rounds).pvalue > FALSE_ALARM / 3


@pytest.mark.parametrize("rate", [0.004, 0.2])  # numpy chooses by two different algorithms
def test_a_large_table_is_sampled_evenly(source, rate):
    records, rounds, groups = 25_000, 120, 25
    counts, neighbours = np.zeros(records, dtype=np.int64), 0
    for _ in range(rounds):
        chosen = source.poisson_sample(records, rate=rate)
        assert len(np.unique(chosen)) == len(chosen)
        counts[chosen] += 1
        here = np.zeros(records, dtype=bool)
        here[chosen] = True
        neighbours += int((here[0::2] & here[1::2]).sum())
    low, high = binomial_bounds(rounds * records // groups, rate, tests=2 * groups)
    blocks = counts.reshape(groups, -1).sum(axis=1)
    assert ((low <= blocks) & (blocks <= high)).all()
    low, high = binomial_bounds(rounds * records // 2, rate**2, tests=2)
    assert low <= neighbours <= high


def test_extreme_rates_take_everyone_or_nobody(source):
    assert sorted(source.poisson_sample(50, rate=1.0)) == list(range(50))
    assert len(source.poisson_sample(50, rate=1e-12)) == 0
    assert len(source.poisson_sample(0, rate=0.5)) == 0


def test_one_row_a_unit_is_drawn_evenly_wherever_it_stands(source):
    units = np.array([3, 0, 3, 1, 3, 0, 3])
    rounds = 4000
    chosen = np.array([source.choose_per_group(units) for _ in range(rounds)])
    assert chosen.shape == (rounds, 3)
    assert (np.sort(units[chosen], axis=1) == [0, 1, 3]).all()
    times = np.bincount(chosen.ravel(), minlength=7)
    for place, chance in {0: 0.25, 2: 0.25, 4: 0.25, 6: 0.25, 1: 0.5, 5: 0.5, 3: 1.0}.items():
        low, high = binomial_bounds(rounds, chance, tests=7)
        assert low <= times[place] <= high


def draw_everything(source: NoiseSource) -> list[object]:
    return [
        source.laplace_count(0, scale=1e6),
        source.gaussian_counts(np.zeros(20, dtype=np.int64), stddev=1e6).tolist(),
        source.laplace_counts(np.zeros(20, dtype=np.int64), scale=1e6).tolist(),
        source.lattice_gaussian(20, stddev=FINE).tolist(),
        sorted(source.poisson_sample(1000, rate=0.5).tolist()),
        source.choose_per_group(np.arange(1000) // 5).tolist(),
    ]


def test_a_rehearsal_repeats_itself_and_says_so(seed):
    assert draw_everything(NoiseSource(seed)) == draw_everything(NoiseSource(seed))
    assert NoiseSource(seed).rehearsal


def test_private_noise_never_repeats_and_ignores_global_seeds():
    np.random.seed(0)  # noqa: NPY002 (the point of the test)
    first = draw_everything(NoiseSource())
    np.random.seed(0)  # noqa: NPY002
    second = draw_everything(NoiseSource())
    assert all(a != b for a, b in zip(first, second, strict=True))
    assert not NoiseSource().rehearsal


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_of_each_group_as_many_as_allowed_are_drawn_evenly_and_side_by_side(source, most):
    groups = np.array([3, 0, 3, 1, 3, 0, 3])
    rounds = 3000
    chosen = np.array([source.choose_per_group(groups, most) for _ in range(rounds)])
    kept = {0: min(2, most), 1: 1, 3: min(4, most)}
    assert (groups[chosen] == np.repeat(list(kept), list(kept.values()))).all()
    assert all(len(set(row)) == len(row) for row in chosen.tolist())
    times = np.bincount(chosen.ravel(), minlength=7)
    for place, group in enumerate(groups):
        low, high = binomial_bounds(rounds, kept[group] / (groups == group).sum(), tests=7)
        assert low <= times[place] <= high
    if most == 2:  # pairs of the large group too: all six alike
        pairs = np.sort(chosen[:, -2:], axis=1)
        counts = np.unique(pairs, axis=0, return_counts=True)[1]
        assert len(counts) == 6
        assert scipy.stats.chisquare(counts).pvalue > FALSE_ALARM


def test_no_group_at_all_gives_nothing(source):
    assert source.choose_per_group(np.zeros(0, dtype=int), 3).shape == (0,)


def test_a_small_sample_of_a_huge_table_costs_no_memory_that_grows_with_it(source):
    source.poisson_sample(1000, rate=0.5)
    tracemalloc.start()
    chosen = source.poisson_sample(10_000_000, rate=0.002)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(chosen) > 19_000  # 20,000 expected, seven deviations
    assert peak < 5e6  # one number a row would be 8e7
