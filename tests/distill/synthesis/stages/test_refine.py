"""Stage 5's candidates: they move towards the statistics, keep their classes and weights, and give gradients to the critic."""

import dataclasses

import numpy as np
import pytest
import torch

from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.stages import refine
from distill.synthesis.stages.refine import Candidates
from distill.synthesis.statistics.counts import ClassCounts, PairCounts
from tests.fakes.private_tables import statistics_of

LAYOUT = Layout((4, 3, 5), 2)


def rows_of(n: int, seed: int, layout: Layout = LAYOUT) -> np.ndarray:
    """Column 1 follows column 0, and the class follows column 2."""
    rng = np.random.default_rng(seed)
    first = rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])
    second = np.where(rng.random(n) < 0.7, first % 3, rng.integers(0, 3, n))
    third = rng.integers(0, 5, n)
    return np.stack([first, second, third, (third + rng.integers(0, 3, n)) % layout.classes], axis=1)


def started(counts: ClassCounts, pairs: PairCounts, seed: int, n: int = 200) -> Candidates:
    candidates = Candidates(
        LAYOUT, *refine.start_from_classes(LAYOUT, counts, n, np.random.default_rng(seed)), learning_rate=0.05
    )
    candidates.aim_at(counts, pairs)
    return candidates


def test_steps_bring_the_candidates_to_the_statistics(seed):
    counts, pairs = statistics_of(rows_of(20_000, seed), LAYOUT.features, 2)
    candidates = started(counts, pairs, seed)
    first = candidates.step()
    for _ in range(300):
        last = candidates.step()
    assert sum(last) < 0.02 * sum(first)
    drawn = candidates.draw(20_000, np.random.default_rng(seed)).numpy()
    again, pairs_again = statistics_of(drawn, LAYOUT.features, 2)
    for wanted, got in zip([*counts.by_column, *pairs.shares], [*again.by_column, *pairs_again.shares], strict=True):
        assert np.abs(wanted / wanted.sum() - got / got.sum()).sum() < 0.08


def test_the_loss_is_zero_where_the_candidates_are_the_rows():
    """One hard record for each row: both distances vanish up to float rounding."""
    rows = rows_of(300, 0)
    counts, pairs = statistics_of(rows, LAYOUT.features, 2)
    probabilities = LAYOUT.one_hot(torch.from_numpy(rows[:, :-1]))
    candidates = Candidates(
        LAYOUT, 40 * probabilities, torch.from_numpy(rows[:, -1]), torch.full((300,), 1 / 300), 0.05
    )
    candidates.aim_at(counts, pairs)
    one_way, two_way = candidates.statistics_loss(probabilities)
    assert float(one_way) < 1e-6
    assert float(two_way) < 1e-6


def test_the_loss_of_the_truth_under_noise_is_one(seed):
    """Both parts are means over their cells, in units of the noise: 1 in expectation, so 1 is the noise floor."""
    rng = np.random.default_rng(seed)
    rows = rows_of(400, seed)
    exact, exact_pairs = statistics_of(rows, LAYOUT.features, 2)
    probabilities = LAYOUT.one_hot(torch.from_numpy(rows[:, :-1]))
    candidates = Candidates(LAYOUT, probabilities, torch.from_numpy(rows[:, -1]), torch.full((400,), 1 / 400), 0.05)
    losses = []
    for _ in range(200):
        noisy = ClassCounts(exact.classes, [b + rng.normal(0, 4, b.shape) for b in exact.by_column], 4.0)
        blocks = [b + rng.normal(0, 0.01, b.shape) for b in exact_pairs.shares]
        candidates.aim_at(noisy, PairCounts(exact_pairs.pairs, blocks, 0.01))
        losses.append([float(x) for x in candidates.statistics_loss(probabilities)])
    error = np.std(losses, axis=0) / len(losses) ** 0.5
    assert (np.abs(np.mean(losses, axis=0) - 1) < 6 * error).all()


def test_without_pairs_only_the_one_way_counts_are_fitted():
    counts, _ = statistics_of(rows_of(1000, 0), LAYOUT.features, 2)
    candidates = started(counts, PairCounts([], [], 0.0), 0)
    first = candidates.step()
    assert first[1] == 0.0
    for _ in range(100):
        last = candidates.step()
    assert last[0] < 0.1 * first[0]


def test_an_adversary_moves_the_candidates():
    """A critic that likes the last bin of column 0 pulls mass there, against the statistics."""
    counts, pairs = statistics_of(rows_of(2000, 1), LAYOUT.features, 2)
    counts, pairs = dataclasses.replace(counts, stddev=200.0), dataclasses.replace(pairs, stddev=0.1)
    shares = []
    for strength in (0.0, 300.0):
        candidates, draws = started(counts, pairs, 1), np.random.default_rng(2)
        for _ in range(60):
            disliked = -candidates.straight_through(400, draws)[:, 3].mean()
            candidates.step(disliked, strength)
        shares.append(float((candidates.draw(4000, draws)[:, 0] == 3).float().mean()))
    assert shares[1] > shares[0] + 0.1


def test_straight_through_rows_are_hard_in_value_and_soft_in_gradient():
    counts, pairs = statistics_of(rows_of(500, 2), LAYOUT.features, 2)
    candidates = started(counts, pairs, 2)
    rows = candidates.straight_through(64, np.random.default_rng(0))
    assert rows.shape == (64, LAYOUT.width)
    segments = rows.detach().split(LAYOUT.widths, dim=1)
    for segment in segments:
        torch.testing.assert_close(segment.max(dim=1).values, torch.ones(64))
        torch.testing.assert_close(segment.sum(dim=1), torch.ones(64))
    rows[:, 0].sum().backward()
    assert candidates.logits.grad is not None
    assert candidates.logits.grad[:, :4].abs().sum() > 0
    assert not candidates.logits.grad[:, 4:].any()


def test_drawn_rows_keep_the_class_of_their_candidate_and_its_weight(seed):
    counts, pairs = statistics_of(rows_of(5000, seed), LAYOUT.features, 2)
    candidates = started(counts, pairs, seed)
    drawn = candidates.draw(20_000, np.random.default_rng(seed)).numpy()
    assert (drawn >= 0).all()
    assert (drawn < np.array(LAYOUT.widths)).all()
    assert np.mean(drawn[:, -1]) == pytest.approx(counts.prior[1], abs=0.02)


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.99, 0.01], [1 - 1e-6, 1e-6], [0.7, 0.2, 0.1], [0.02] * 50])
def test_every_class_has_candidates_and_weighs_its_prior(prior):
    prior = np.array(prior) / np.sum(prior)
    classes = refine.allot_classes(prior, 1000)
    sizes = torch.bincount(classes, minlength=len(prior)).numpy()
    assert sizes.sum() == 1000
    assert (sizes >= 0.09 * 1000 / len(prior)).all()
    np.testing.assert_allclose(sizes / 1000, prior, atol=0.06)
    weights = refine.class_weights(classes, prior)
    np.testing.assert_allclose(np.bincount(classes, weights.numpy(), minlength=len(prior)), prior, atol=1e-6)


def test_candidates_start_at_the_class_histograms(seed):
    counts, _ = statistics_of(rows_of(5000, seed), LAYOUT.features, 2)
    logits, classes, weights = refine.start_from_classes(LAYOUT, counts, 4000, np.random.default_rng(seed), spread=0.1)
    start = Candidates(LAYOUT, logits, classes, weights, 0.05)
    drawn, _ = statistics_of(start.draw(20_000, np.random.default_rng(seed)).numpy(), LAYOUT.features, 2)
    for wanted, got in zip(counts.by_column, drawn.by_column, strict=True):
        assert np.abs(wanted / wanted.sum() - got / got.sum()).sum() < 0.06


def test_candidates_from_clusters_follow_the_clusters_shares(seed):
    """Two clusters that differ in column 0; the noisy shares say 80 : 20."""
    counts, _ = statistics_of(rows_of(1000, seed), LAYOUT.features, 2)
    decoded = torch.zeros(600, LAYOUT.width)
    members = torch.arange(600) % 2
    decoded[members == 0, 0] = decoded[members == 1, 3] = 12.0
    dense = torch.as_tensor(np.random.default_rng(seed).random(600)) < 0.5
    logits, classes, weights = refine.start_from_clusters(
        LAYOUT, counts, decoded, members, dense, np.array([0.8, 0.2]), 2000, np.random.default_rng(seed)
    )
    assert logits.shape == (2000, LAYOUT.feature_width)
    first = LAYOUT.softmax(logits)[:, 0]
    assert float((first > 0.9).float().mean()) == pytest.approx(0.8, abs=0.06)
    np.testing.assert_allclose(np.bincount(classes, weights.numpy()), counts.prior, atol=1e-6)
    assert bool(logits.isfinite().all())


def test_a_class_that_no_cluster_shows_still_gets_candidates():
    counts = ClassCounts(
        np.array([999.0, 1.0]), [np.outer([999.0, 1.0], np.full(w, 1 / w)) for w in LAYOUT.features], 2.0
    )
    decoded = torch.zeros(50, LAYOUT.width)
    decoded[:, LAYOUT.feature_width] = 500.0  # every sample is surely of class 0
    logits, classes, _ = refine.start_from_clusters(
        LAYOUT,
        counts,
        decoded,
        torch.zeros(50, dtype=torch.int64),
        torch.ones(50, dtype=torch.bool),
        np.ones(1),
        100,
        np.random.default_rng(0),
    )
    assert int((classes == 1).sum()) >= 4
    assert bool(logits.isfinite().all())
