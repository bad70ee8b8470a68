"""The one read of a published evaluation: what it costs, which noise it gets, and how far one unit moves it."""

import math

import numpy as np
import pytest

from distill.data.encoded_table import EncodedTable
from distill.errors import UnpaidReadError
from distill.exchange.noisy_scores import Block
from distill.privacy import accountant
from distill.privacy.budget import NO_DELTA
from distill.privacy.calibration import size_event
from distill.privacy.events import Event, RenyiLimit, gaussian_renyi, renyi_of
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.releases.evaluation import FEWEST_BINS, MOST_BINS, choose_bins, count_blocks, table_event
from tests.fakes.private_tables import NoNoise, Paid, assert_follows, category, number, rounded_laplace, schema_of

SCHEMA = schema_of(number("score"), category("kind", "a", "b"))
PURE = NO_DELTA


def block(name: str, bins: int) -> Block:
    middles = tuple((np.arange(bins) + 0.5) / bins)
    return Block(name, tuple(np.arange(1, bins) / bins), middles, (0.5,) * bins, (middles, middles))


def opened(codes: list[np.ndarray], event: Event, noise: NoiseSource, units: np.ndarray | None = None) -> PrivateTable:
    most = event.rows_per_unit
    return PrivateTable(EncodedTable(codes, units), SCHEMA, Paid([event]), noise, rows_per_unit=most)


@pytest.mark.parametrize(("epsilon", "blocks", "rows"), [(0.1, 1, 1), (1.0, 1, 5), (0.5, 4, 1)])
def test_the_release_costs_what_is_reserved_and_not_more(epsilon, blocks, rows):
    event = table_event(blocks, epsilon=epsilon, delta=PURE, rows_per_unit=rows)
    events = [e.model_dump(mode="json") for e in (size_event(epsilon, rows), event)]
    assert 0.99 * epsilon < accountant.epsilon(events, PURE) <= epsilon * (1 + 1e-9)
    assert event.mechanism == "laplace"
    # By hand: a unit adds one to one cell of each block, in each of its rows.
    assert event.cell_stddev == pytest.approx(blocks * rows / (0.99 * epsilon), rel=1e-3)


def test_the_smaller_noise_is_taken():
    assert table_event(1, epsilon=0.5, delta=1e-5).mechanism == "laplace"
    many = table_event(51, epsilon=0.5, delta=1e-5)
    assert many.mechanism == "gaussian"
    assert many.cell_stddev < math.sqrt(2) * table_event(51, epsilon=0.5, delta=PURE).cell_stddev


def test_under_a_renyi_filter_the_noise_keeps_to_the_limit():
    limit = RenyiLimit(8.0, gaussian_renyi(0.5, 1e-5, 8.0))
    event = table_event(1, epsilon=0.5, delta=1e-5, limit=limit)
    assert renyi_of([size_event(0.5), event], limit.order) <= limit.most * (1 + 1e-9)
    assert event.mechanism == "gaussian"


def test_bins_grow_with_the_signal_within_their_limits():
    bins = [choose_bins(n, 0.5) for n in (-300, 0, 1_000, 20_000, 100_000, 10**9)]
    assert bins == sorted(bins)
    assert (bins[0], bins[-1]) == (FEWEST_BINS, MOST_BINS)
    assert FEWEST_BINS < choose_bins(50_000, 0.5) < MOST_BINS


def test_rows_fall_into_the_cell_of_their_score_and_a_score_on_an_edge_into_the_bin_above():
    holds = np.array([0, 0, 1, 1, 1], dtype=np.uint8)
    scores = np.array([0.0, 0.5, 0.49, 1.0, 0.75])
    event = table_event(1, epsilon=1.0, delta=PURE)
    (found,) = count_blocks(opened([holds, scores], event, NoNoise()), [block("1", 4)], event)
    assert found.counts.tolist() == [[1, 0, 1, 0], [0, 1, 0, 2]]
    assert found.scale == event.cell_stddev


@pytest.mark.parametrize("most", [1, 3])
def test_one_unit_with_many_alike_rows_moves_each_block_by_as_many_as_it_may_have(most):
    """The outlier: a customer of forty rows, all with the highest score and of the other class."""
    event = table_event(2, epsilon=1.0, delta=PURE, rows_per_unit=most)
    blocks = [block("1", 4), block("2", 8)]

    def counts(units: np.ndarray) -> list[np.ndarray]:
        outlier = units == 7
        codes = [outlier.astype(np.uint8), np.where(outlier, 1.0, 0.1)] * 2
        return [b.counts for b in count_blocks(opened(codes, event, NoNoise(), units), blocks, event)]

    without = counts(np.arange(5))
    moved = [a - b for a, b in zip(counts(np.append(np.arange(5), np.full(40, 7))), without, strict=True)]
    assert [np.abs(m).sum() for m in moved] == [most, most]
    assert event.noise_multiplier * 2 * most == pytest.approx(event.cell_stddev)  # noise for just that, in L1


def test_every_cell_of_every_block_gets_the_stated_laplace_noise():
    """Chi-square against the Laplace law, rounded to whole counts, over 30,000 cells."""
    event = Event(name="evaluate.scores", mechanism="laplace", noise_multiplier=1.2, blocks=2, rows_per_unit=2)
    codes = [np.zeros(3, np.uint8), np.full(3, 0.0)] * 2
    found = count_blocks(opened(codes, event, NoiseSource()), [block("1", 7500), block("2", 7500)], event)
    noise = np.concatenate([b.counts.ravel() for b in found])
    noise[[0, 15_000]] -= 3
    assert_follows(noise, rounded_laplace(1.2 * 4), reach=20)


def test_gaussian_noise_is_drawn_where_it_is_planned():
    event = Event(name="evaluate.scores", mechanism="gaussian", noise_multiplier=3.0, blocks=1)
    (found,) = count_blocks(
        opened([np.zeros(3, np.uint8), np.zeros(3)], event, NoiseSource(1)), [block("1", 500)], event
    )
    assert (found.law, found.scale) == ("gaussian", 3.0)
    assert 2.5 < found.counts.std() < 3.5


def test_a_table_is_paid_once_and_for_all_its_blocks():
    event = table_event(1, epsilon=1.0, delta=PURE)
    table = opened([np.zeros(3, np.uint8), np.zeros(3)] * 2, event, NoNoise())
    with pytest.raises(UnpaidReadError, match="fewer blocks"):
        count_blocks(table, [block("1", 4), block("2", 4)], event)
    count_blocks(table, [block("1", 4)], event)
    with pytest.raises(UnpaidReadError, match="all are used"):
        count_blocks(table, [block("1", 4)], event)
