"""A black-box audit of the door: answers follow the law that the events promise, and nobody tells neighbours apart better.

The auditor sees answers only. Law: chi-square and Kolmogorov-Smirnov tests of the noise in whole answers. Distinguishing:
one unit, as unlike the rest as can be, is added to a table; from many answers with and without it a threshold test gives a
lower bound on epsilon (Clopper-Pearson, arXiv:2101.04535 has the method) that must not exceed what the accountant states.
Each test fails correct code less than once in a million runs (FALSE_ALARM), and each saboteur is caught.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from distill.data.encoded_table import encode_frame
from distill.data.tables import canonical_table
from distill.privacy.cells import Cross
from distill.privacy.events import Event, epsilon_of
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Network
from tests.fakes.private_tables import (
    FALSE_ALARM,
    NoNoise,
    Paid,
    assert_follows,
    category,
    rounded_gaussian,
    rounded_laplace,
    schema_of,
)

SIDE = 90
CELLS = SIDE**2  # places where a unit may be
PLACE, STARTS = Cross((0, 1), (SIDE, SIDE)), np.array([0, SIDE, 2 * SIDE])
SCHEMA = schema_of(category("line", *range(SIDE)), category("seat", *range(SIDE)), unit="customer")
DELTAS = (1e-6, 1e-2, 0.1, 0.3)  # a guarantee holds at every delta; an attack shows best at one of them
THRESHOLDS = (-1.0, 0.0, 0.5, 1.0, 2.0)  # in units of what one more unit adds
ROWS_PER_UNIT = [1, 3]


def table(places: list[int], event: Event, noise: NoiseSource) -> PrivateTable:
    """A private table of one unit a place, each with as many equal rows as the event allows."""
    most = event.rows_per_unit
    units = np.repeat(np.arange(len(places)), most)
    line, seat = np.divmod(np.repeat(places, most), SIDE)
    frame = pd.DataFrame({"line": line, "seat": seat, "label": 0, "customer": units.astype(str)})
    encoded = encode_frame(canonical_table(frame, SCHEMA), SCHEMA)
    made = PrivateTable(encoded, SCHEMA, Paid([event]), noise, rows_per_unit=most)
    made.recode([lambda cells: cells] * 3, target=2)
    return made


def size_event(m: int, count: int) -> Event:
    return Event(name="read", mechanism="laplace", noise_multiplier=0.8, count=count, rows_per_unit=m)


def counts_event(m: int, blocks: int) -> Event:
    return Event(name="read", mechanism="gaussian", noise_multiplier=2.5, blocks=blocks, rows_per_unit=m)


def step_event(m: int, count: int) -> Event:
    return Event(
        name="read",
        mechanism="poisson_gaussian",
        noise_multiplier=0.8,
        sampling_rate=0.4,
        count=count,
        rows_per_unit=m,
    )


# ---- the law of whole answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", ROWS_PER_UNIT)
def test_the_released_size_follows_the_stated_law(m):
    answers, event = 1500, size_event(m, 1500)
    asked = table([0] * 7, event, NoiseSource())
    noise = np.array([asked.noisy_size("read") for _ in range(answers)]) - 7 * m
    assert_follows(noise, rounded_laplace(0.8 * m), reach=2 * m)


@pytest.mark.parametrize("m", ROWS_PER_UNIT)
def test_every_block_of_a_release_follows_the_law_of_its_own_noise(m):
    """Two blocks share the noise unevenly; counts in the blocks are the truth plus it."""
    event = counts_event(m, 2)
    stddevs = [event.cell_stddev * 2, event.cell_stddev * math.sqrt(4 / 7)]  # 1/4 + 7/4 of the precision of a block: 2
    blocks = table([5] * 9, event, NoiseSource()).noisy_counts("read", [PLACE] * 2, stddevs)
    for noisy, stddev in zip(blocks, stddevs, strict=True):
        noisy[5] -= 9 * m
        assert_follows(noisy, rounded_gaussian(stddev), reach=int(2.2 * stddev))


@pytest.mark.parametrize("m", ROWS_PER_UNIT)
def test_a_gradient_sum_follows_the_stated_law(m):
    """On 100,000 weights; every row is in the sample, and pulls at four of them as hard as it can."""
    event = step_event(m, 1).model_copy(update={"sampling_rate": 1.0})
    sure = Network(((np.zeros((1, 99_999)), np.array([-1e4])),), loss="real", clip=0.25, starts=STARTS)
    (noisy,) = table([0] * 7, event, NoiseSource()).noisy_gradient("read", [sure])
    noisy[STARTS] += 7 * m * 0.25 / 6**0.5
    noisy[-1] += 7 * m * 0.25 / 2**0.5
    assert scipy.stats.kstest(noisy / (0.8 * 0.25 * m), "norm").pvalue > FALSE_ALARM


# ---- telling neighbours apart ---------------------------------------------------------------------------------------


def proven_excess(event: Event, without: np.ndarray, joined: np.ndarray) -> float:
    """By how much answers prove more than the event's epsilon; above 0 less than once in a million if it holds.

    For answers A and B on neighbours, P(A in S) <= exp(epsilon) P(B in S) + delta for every set S of answers. The sets
    are the two sides of fixed thresholds, in both directions; each chance is bounded at a confidence that all share.
    """
    stated = {delta: epsilon_of([event.model_copy(update={"count": 1})], delta) for delta in DELTAS}
    worst = -math.inf
    sides = [(t, sign) for t in THRESHOLDS for sign in (1, -1)]
    tail = FALSE_ALARM / (4 * len(sides))  # two bounds a set and direction
    for (threshold, sign), (a, b) in itertools.product(sides, [(joined, without), (without, joined)]):
        hits, others = int((sign * a > sign * threshold).sum()), int((sign * b > sign * threshold).sum())
        at_least = scipy.stats.beta.ppf(tail, hits, a.size - hits + 1) if hits else 0.0
        at_most = scipy.stats.beta.isf(tail, others + 1, b.size - others) if others < b.size else 1.0
        proven = [math.log((at_least - d) / at_most) - stated[d] for d in DELTAS if at_least > d]
        worst = max([worst, *proven])
    return worst


def size_answers(m: int, noise: NoiseSource) -> tuple[Event, np.ndarray, np.ndarray]:
    answers = 1500
    event = size_event(m, answers)
    tables = [table([0] * units, event, noise) for units in (7, 8)]
    without, joined = ([t.noisy_size("read") for _ in range(answers)] for t in tables)
    return event, (np.array(without) - 7 * m) / m, (np.array(joined) - 7 * m) / m


def count_answers(m: int, noise: NoiseSource) -> tuple[Event, np.ndarray, np.ndarray]:
    """Each cell is a trial of its own: its noise is drawn apart, and a unit there moves no other cell.

    A unit is in one cell of each of 3 blocks; the best score is the sum over blocks.
    """
    event = counts_event(m, 3)
    scores = []
    for places in ([0], list(range(CELLS))):
        asked = table(places, event, noise)
        blocks = asked.noisy_counts("read", [PLACE] * 3, [event.cell_stddev] * 3)
        scores.append(np.sum(blocks, axis=0)[1:] / (3 * m))
    return event, scores[0], scores[1]


def step_answers(m: int, noise: NoiseSource) -> tuple[Event, np.ndarray, np.ndarray]:
    """One step of DP-SGD on one linear layer; the added unit's rows pull as hard as they can, the others not at all.

    The best score is the sum's length in the direction in which these rows pull.
    """
    answers, clip = 2500, 0.25
    event = step_event(m, answers)
    weight = np.zeros((1, 2 * SIDE + 2))
    weight[0, SIDE - 1] = -4000.0
    critic = Network(((weight, np.array([1000.0])),), loss="real", clip=clip, starts=STARTS)
    pull = np.zeros(critic.size)
    pull[[SIDE - 1, 2 * SIDE - 1, 2 * SIDE, -1]] = -np.sqrt([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    tables = [table(places, event, noise) for places in ([0] * 3, [0] * 3 + [CELLS - 1])]
    without, joined = (np.array([t.noisy_gradient("read", [critic])[0] @ pull for _ in range(answers)]) for t in tables)
    return event, without / (m * clip), joined / (m * clip)


RELEASES = {"size": size_answers, "counts": count_answers, "step": step_answers}
Release = Callable[[int, NoiseSource], tuple[Event, np.ndarray, np.ndarray]]


@pytest.mark.parametrize("m", ROWS_PER_UNIT)
@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_no_attack_proves_more_than_the_stated_epsilon(release: Release, m: int) -> None:
    assert proven_excess(*release(m, NoiseSource())) <= 0


class TooQuiet(NoiseSource):
    """Adds half of the noise that it is asked for."""

    def laplace_count(self, count: int, *, scale: float) -> int:
        return super().laplace_count(count, scale=scale / 2)

    def gaussian_counts(self, counts: np.ndarray, *, stddev: float) -> np.ndarray:
        return super().gaussian_counts(counts, stddev=stddev / 2)

    def lattice_gaussian(self, size: int, *, stddev: float) -> np.ndarray:
        return super().lattice_gaussian(size, stddev=stddev / 2)


class AllJoin(NoiseSource):
    """Samples everybody, whatever the rate."""

    def poisson_sample(self, size: int, *, rate: float) -> np.ndarray:
        return np.arange(size)


class MeetsTheGroup(NoiseSource):
    """Adds the noise of one row, however many a unit has."""

    def __init__(self, m: int) -> None:
        super().__init__()
        self._m = m

    def laplace_count(self, count: int, *, scale: float) -> int:
        return super().laplace_count(count, scale=scale / self._m)

    def gaussian_counts(self, counts: np.ndarray, *, stddev: float) -> np.ndarray:
        return super().gaussian_counts(counts, stddev=stddev / self._m)

    def lattice_gaussian(self, size: int, *, stddev: float) -> np.ndarray:
        return super().lattice_gaussian(size, stddev=stddev / self._m)


@pytest.mark.parametrize(
    ("release", "m", "saboteur"),
    [
        *((name, 1, TooQuiet()) for name in RELEASES),
        *((name, 3, MeetsTheGroup(3)) for name in RELEASES),
        ("step", 1, AllJoin()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, NoiseSource) else str(value),
)
def test_the_audit_catches_too_little_noise_and_too_large_samples(release: str, m: int, saboteur: NoiseSource) -> None:
    """By a margin, so that chance does not hide it: 0.03 is several deviations of the bound."""
    assert proven_excess(*RELEASES[release](m, saboteur)) > 0.03


def test_the_audits_own_table_puts_each_unit_where_it_says():
    _, without, joined = count_answers(3, NoNoise())
    assert (without == 0).all()
    assert (joined == 1).all()


def test_the_audits_own_step_pulls_as_hard_as_it_may_and_no_other_unit_pulls():
    for m in ROWS_PER_UNIT:
        _, without, joined = step_answers(m, NoNoise())
        np.testing.assert_allclose(without, 0, atol=1e-9)
        np.testing.assert_allclose(joined, 1, rtol=1e-8)
