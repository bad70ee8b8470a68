"""The door's answers, coordinate by coordinate and step by step: noise in each of them, samples of each step anew.

A law that holds on average can hide a coordinate without noise, a step that nobody joined, a sample that is used twice. So
each coordinate, each pair of successive answers and each record's way through the steps is tested on its own. Correct code
fails any test here less than once in a million runs.
"""

import numpy as np
import pytest
import scipy.stats

from distill.data.encoded_table import EncodedTable
from distill.privacy.cells import Cross
from distill.privacy.dpsgd import lattice_bits
from distill.privacy.events import Event
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Gradients, Network
from tests.fakes.private_tables import FALSE_ALARM, Paid, category, schema_of

RECORDS = 40
SCHEMA = schema_of(category("place", *range(RECORDS)))
UNITS = SCHEMA.model_copy(update={"unit": "customer"})
MULTIPLIER = 0.8


def table(event: Event) -> PrivateTable:
    """One unit a place, each with as many equal rows as the event allows."""
    most = event.rows_per_unit
    places = np.repeat(np.arange(RECORDS, dtype=np.uint8), most)
    units = None if most == 1 else places.astype(np.uint32)
    rows = EncodedTable([places, np.zeros(len(places), np.uint8)], units)
    made = PrivateTable(rows, SCHEMA if most == 1 else UNITS, Paid([event]), NoiseSource(), rows_per_unit=most)
    made.recode([lambda cells: cells] * 2, target=1)
    return made


def step_event(count: int, *, rate: float, multiplier: float = MULTIPLIER, most: int = 1) -> Event:
    return Event(
        name="steps",
        mechanism="poisson_gaussian",
        noise_multiplier=multiplier,
        sampling_rate=rate,
        count=count,
        rows_per_unit=most,
    )


def flat_head(share: float = 1.0) -> Network:
    """A class head without an opinion: a record's gradient is half a step in the weights of its own place, and the biases."""
    return Network(((np.zeros((2, RECORDS)), np.zeros(2)),), loss="classes", share=share, starts=np.zeros(1, dtype=int))


def critic(share: float) -> Network:
    rng = np.random.default_rng(5)
    layers = ((rng.normal(size=(3, RECORDS + 2)), rng.normal(size=3)), (rng.normal(size=(1, 3)), rng.normal(size=1)))
    return Network(layers, loss="real", share=share, starts=np.array([0, RECORDS]))


def answers(event: Event, gradients: list[Gradients]) -> np.ndarray:
    """All the event's answers in units of their noise, (steps, coordinates)."""
    asked = table(event)
    scale = [g.share**0.5 / g.clip / event.cell_stddev for g in gradients]
    return np.array(
        [
            np.concatenate([a * s for a, s in zip(asked.noisy_gradient("steps", gradients), scale, strict=True)])
            for _ in range(event.count)
        ]
    )


def assert_each_normal(noise: np.ndarray) -> None:
    """Every column is standard normal, on its own."""
    worst = min(scipy.stats.kstest(column, "norm").pvalue for column in noise.T)
    assert worst > FALSE_ALARM / noise.shape[1]


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("rate", [1e-12, 1.0], ids=["nobody joins", "all join"])
def test_each_coordinate_of_each_network_has_its_whole_noise(rate: float, most: int):
    gradients = [flat_head(0.75), critic(0.25)]
    found = answers(step_event(1500, rate=rate, most=most), gradients)
    if rate == 1.0:
        found = found - answers(step_event(1, rate=1.0, multiplier=1e-5, most=most), gradients) * (1e-5 / MULTIPLIER)
    assert_each_normal(found)


def test_the_noise_of_successive_steps_is_drawn_anew():
    """Neither repeated nor correlated: sums and differences of successive answers are normal too."""
    found = answers(step_event(2001, rate=1e-12), [flat_head()])
    assert len(np.unique(found)) == found.size
    assert_each_normal((found[1:] - found[:-1])[::2] / 2**0.5)
    assert_each_normal((found[1:] + found[:-1])[::2] / 2**0.5)
    together = np.corrcoef(np.hstack([found[1:], found[:-1]]).T)
    apart = together[~np.eye(len(together), dtype=bool)]
    assert np.abs(apart).max() * len(found) ** 0.5 < scipy.stats.norm.isf(FALSE_ALARM / apart.size)


@pytest.mark.parametrize("most", [1, 3])
def test_each_unit_joins_each_step_on_its_own(most: int):
    """By what the weights of its place say; the noise is a fortieth of what a row adds."""
    steps, rate = 3000, 0.3
    event = step_event(steps, rate=rate, multiplier=0.0125 / most, most=most)
    joined = np.abs(answers(event, [flat_head()])[:, :RECORDS]) * event.cell_stddev > 0.25
    sides = [FALSE_ALARM / (2 * RECORDS), 1 - FALSE_ALARM / (2 * RECORDS)]
    totals, sizes = joined.sum(axis=0), joined.sum(axis=1)
    low, high = scipy.stats.binom.ppf(sides, steps, rate)
    assert ((low < totals) & (totals < high)).all()
    for counts, trials in (
        (totals, steps),
        (sizes, RECORDS),
    ):  # an epoch would even out the first, a batch size the second
        spread = np.square(counts - trials * rate).sum() / (trials * rate * (1 - rate))
        low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=len(counts))
        assert low < spread < high
    for lag in (1, 2, 3):
        for first in (0, 1):  # a sample that is used twice shows in every second pair
            both = (joined[first:-lag:2] & joined[first + lag :: 2][: len(joined[first:-lag:2])]).ravel()
            low, high = scipy.stats.binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], both.size, rate**2)
            assert low < both.sum() < high
    pairs = np.corrcoef(joined.T)[np.triu_indices(RECORDS, 1)]
    assert np.abs(pairs).max() * steps**0.5 < scipy.stats.norm.isf(FALSE_ALARM / (2 * pairs.size)) * 1.1


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_each_cell_of_each_block_has_its_whole_noise(mechanism: str):
    """Of two blocks, also in cells that nobody is in; rounded noise is made smooth by what rounding took away."""
    reads = 400
    event = Event(name="counts", mechanism=mechanism, noise_multiplier=6.0, blocks=2, count=reads)
    asked, cells = table(event), [Cross((0,), (RECORDS,)), Cross((1, 0), (2, RECORDS))]
    rng = np.random.default_rng()
    found = []
    for _ in range(reads):
        if mechanism == "gaussian":
            blocks = asked.noisy_counts("counts", cells, [event.cell_stddev] * 2)
        else:
            blocks = asked.laplace_counts("counts", cells)
        truth = np.concatenate([np.ones(2 * RECORDS), np.zeros(RECORDS)])
        found.append((np.concatenate(blocks) - truth + rng.uniform(-0.5, 0.5, truth.size)) / event.cell_stddev)
    law = {"gaussian": "norm", "laplace": "laplace"}[mechanism]
    columns = np.array(found).T
    assert min(scipy.stats.kstest(c, law).pvalue for c in columns) > FALSE_ALARM / len(columns)
    apart = np.corrcoef(columns)[np.triu_indices(len(columns), 1)]
    assert np.abs(apart).max() * reads**0.5 < scipy.stats.norm.isf(FALSE_ALARM / (2 * apart.size)) * 1.1


def test_every_answer_is_a_whole_number_of_steps_whoever_is_in_the_table():
    """The attack on floating-point noise: whether low bits lie off a lattice tells whether a row is there. Here none do.

    Nor do they lean to one side: the eight lowest bits are uniform, with the row and without it.
    """
    steps = 400
    for rate in (1e-12, 1.0):
        event = step_event(steps, rate=rate)
        asked = table(event)
        whole = np.array([asked.noisy_gradient("steps", [flat_head()])[0] for _ in range(steps)])
        whole = whole * 2.0 ** lattice_bits(event.cell_stddev)
        np.testing.assert_array_equal(whole, np.rint(whole))
        lowest = np.bincount(whole.astype(np.int64).ravel() & 255, minlength=256)
        assert scipy.stats.chisquare(lowest).pvalue > FALSE_ALARM
