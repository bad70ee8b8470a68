"""Stage 6: a critic may select as far as the statistics agree, and no further."""

import dataclasses

import numpy as np
import pytest

from distill.synthesis.generator.generator import Generator
from distill.synthesis.stages import select
from distill.synthesis.statistics.counts import ClassCounts, PairCounts
from tests.fakes.private_tables import EVERY_KIND, statistics_of, toy_generator

TRIAL_ROWS = 4000


def honest() -> tuple[Generator, ClassCounts, PairCounts]:
    """A generator without a critic's opinion, and the statistics of its own rows."""
    plain = toy_generator()
    critic = tuple(np.zeros_like(p) for p in plain.critic)
    plain = dataclasses.replace(plain, critic=critic, critic_power=0.0)
    codes = plain.draw_codes(20_000, np.random.default_rng(0))
    counts, pairs = statistics_of(codes, plain.layout.features, plain.layout.classes)
    return dataclasses.replace(plain, shares=tuple(counts.shares), class_prior=counts.prior), counts, pairs


def likes(generator: Generator, pieces: list[int], strength: float) -> Generator:
    """The generator with a critic that calls rows real where they hold all of the given one-hot positions."""
    hidden = np.zeros_like(generator.critic[0])
    hidden[0, pieces] = 1.0
    bias = np.zeros_like(generator.critic[1])
    bias[0] = 0.5 - len(pieces)
    out = np.zeros_like(generator.critic[2])
    out[0] = 2 * strength
    return dataclasses.replace(generator, critic=(hidden, bias, out, np.zeros(1)))


def test_a_critic_that_knows_better_is_followed():
    """The statistics hold a tie between two columns that the records lack and the critic sees."""
    generator, _, _ = honest()
    starts = generator.layout.starts
    critical = likes(generator, [int(starts[0]), int(starts[4])], 1.5)
    truth = dataclasses.replace(critical, critic_power=1.0).draw_codes(40_000, np.random.default_rng(0))
    counts, pairs = statistics_of(truth, generator.layout.features, generator.layout.classes)
    critical = dataclasses.replace(critical, shares=tuple(counts.shares), class_prior=counts.prior)
    assert select.calibrate(critical, counts, pairs, np.random.default_rng(1), TRIAL_ROWS).critic_power >= 0.5


def test_a_critic_that_leads_away_from_the_statistics_is_ignored():
    """It invents a tie between two columns; choosing rows by pairs undoes some of that, but not all, and the blocks show it."""
    generator, counts, pairs = honest()
    starts = generator.layout.starts
    wrong = likes(generator, [int(starts[0]) + 1, int(starts[2]) + 2], 3.0)
    assert select.calibrate(wrong, counts, pairs, np.random.default_rng(1), TRIAL_ROWS).critic_power <= 0.5


def test_selection_never_moves_away_from_the_statistics(seed):
    generator, counts, pairs = honest()
    rng = np.random.default_rng(seed)
    wrong = likes(generator, rng.choice(generator.layout.feature_width, 3, replace=False).tolist(), 2.0)
    chosen = select.calibrate(wrong, counts, pairs, rng, TRIAL_ROWS)

    def distance(g: Generator) -> float:
        return select.distance(g.draw_codes(20_000, np.random.default_rng(5)), counts, pairs)

    assert distance(chosen) <= 1.1 * distance(dataclasses.replace(wrong, critic_power=0.0))


def test_the_distance_of_rows_from_their_own_statistics_is_zero(seed):
    codes = toy_generator(EVERY_KIND, seed=seed).draw_codes(500, np.random.default_rng(seed))
    widths = toy_generator(EVERY_KIND, seed=seed).layout.features
    counts, pairs = statistics_of(codes, widths, 2)
    assert select.distance(codes, counts, pairs) == pytest.approx(0, abs=1e-12)
    shuffled = np.random.default_rng(seed).permuted(codes, axis=0)
    assert select.distance(shuffled, counts, pairs) > 0.1


def test_the_distance_is_the_mean_absolute_difference_of_shares():
    counts = ClassCounts(np.array([50.0, 50.0]), [np.array([[50.0, 0.0], [0.0, 50.0]])], 2.0)
    codes = np.array([[0, 0]] * 8)  # all of one cell: half of the mass is wrong, on both sides
    assert select.distance(codes, counts, PairCounts([], [], 0.0)) == pytest.approx(1.0)
