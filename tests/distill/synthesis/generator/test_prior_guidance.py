"""The hub's word in an institution's own bins, and how far a noisy statistic follows it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.data.bins import ColumnBins
from distill.exchange.generator_codec import record_probabilities
from distill.synthesis import pipeline
from distill.synthesis.generator.generator import Generator
from distill.synthesis.generator.prior_guidance import GlobalTerm, global_term, overlap
from distill.synthesis.stages import discriminate
from distill.synthesis.statistics.denoising import denoise_pairs, shrink_classes, shrink_towards
from distill.synthesis.statistics.raking import rake_table
from tests.fakes.private_tables import EVERY_KIND, plain_bins, schema_of, statistics_of, toy_generator

NUMBER = schema_of({"name": "x", "kind": "integer", "min": 0, "max": 9, "nullable": True}, classes=(0, 1))


def cut(bins: ColumnBins, *starts: int) -> ColumnBins:
    """Bins of a nullable column's leaves that begin at `starts`, missing apart; masses grow with the leaf."""
    edges = np.array([*starts, bins.grid.leaves])
    return ColumnBins(bins.grid, edges, 1.0 + edges, np.arange(len(edges)))


def test_mass_is_spread_over_own_bins_by_the_leaves_they_share():
    whole = plain_bins(NUMBER)[0]
    given, own = cut(whole, 0, 4), cut(whole, 0, 2, 8)
    np.testing.assert_allclose(overlap(given, own), [[1 / 2, 1 / 2, 0, 0], [0, 4 / 6, 2 / 6, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(overlap(own, own), np.eye(4))


def test_a_bin_without_mass_is_spread_over_its_leaves():
    whole = plain_bins(NUMBER)[0]
    given = replace(cut(whole, 0, 4), masses=np.zeros(3))
    np.testing.assert_allclose(overlap(given, cut(whole, 0, 2))[0], [1 / 2, 1 / 2, 0])


def test_own_margins_are_met_and_odds_ratios_stay():
    rng = np.random.default_rng(0)
    table, down, across = rng.random((3, 4)) + 0.1, rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(4))
    got = rake_table(table, down, across)
    np.testing.assert_allclose(got.sum(axis=1), down, rtol=1e-6)
    np.testing.assert_allclose(got.sum(axis=0), across, rtol=1e-4)
    # One percent of independence is mixed in beforehand, so ratios are those of that mixture.
    mixed = 0.99 * table / table.sum() + 0.01 * np.outer(down, across)
    ratio = got[0, 0] * got[1, 1] / (got[0, 1] * got[1, 0])
    assert ratio == pytest.approx(mixed[0, 0] * mixed[1, 1] / (mixed[0, 1] * mixed[1, 0]), rel=1e-6)


@pytest.fixture(scope="module")
def joint() -> Generator:
    return toy_generator()


@pytest.fixture(scope="module")
def term(joint: Generator) -> GlobalTerm:
    """The joint model in its own bins."""
    return global_term(joint, joint.bins, np.random.default_rng(0))


def test_in_the_same_bins_pairs_are_those_of_the_joint_model(joint, term):
    probabilities = np.split(record_probabilities(joint), np.cumsum(joint.layout.features)[:-1], axis=1)
    weighted = [p * joint.weights[:, None] for p in probabilities]
    one_way = [w.sum(axis=0) for w in weighted]
    for i, j in ((0, 1), (2, 6)):
        together = probabilities[i].T @ weighted[j]
        wanted = 0.99 * together + 0.01 * np.outer(one_way[i], one_way[j])
        np.testing.assert_allclose(term.pair_guess(i, j, one_way), wanted, atol=1e-6)


def test_class_counts_follow_the_head_at_own_class_sizes(joint, term):
    sizes = np.array([300.0, 700.0])
    for feature in (0, 5):
        got = term.class_guess(feature, sizes)
        np.testing.assert_allclose(got.sum(axis=1), sizes)
        rows = joint.layout.features[feature]
        seen = [np.average(term.codes[:, feature] == b, weights=term.chances[:, 1]) for b in range(rows)]
        np.testing.assert_allclose(got[1] / 700, seen, atol=0.01)


def test_the_head_says_the_same_in_the_same_bins_but_for_the_class_sizes(joint, term):
    weight, bias = term.head(np.array([0.5, 0.5]))
    codes = term.codes[:3000] + joint.layout.starts[:-1]
    said = bias + weight.T[codes].sum(axis=1)
    truth = joint.head[1] + joint.head[0].T[codes].sum(axis=1)
    gap = (said - truth)[:, 1] - (said - truth)[:, 0]
    assert np.abs(gap - gap.mean()).max() < 0.1
    assert np.std(truth[:, 1] - truth[:, 0]) > 0.5


def test_the_same_seed_gives_the_same_term(joint, term):
    again = global_term(joint, joint.bins, np.random.default_rng(0))
    np.testing.assert_array_equal(again.codes, term.codes)
    np.testing.assert_array_equal(again.chances, term.chances)


def test_a_right_guess_takes_noise_and_a_wrong_one_does_no_harm():
    """Mean squared error over 200 draws, seeded; a James-Stein estimate is never worse than the noisy values on average."""
    rng = np.random.default_rng(1)
    truth = rng.dirichlet(np.ones(12)) * 1000
    right, wrong = truth + rng.normal(0, 1, 12), truth[::-1] * 1.0
    right += (truth.sum() - right.sum()) / 12
    errors = {"right": 0.0, "wrong": 0.0, "none": 0.0}
    for _ in range(200):
        noisy = truth + rng.normal(0, 10, 12)
        errors["right"] += np.square(shrink_towards(noisy, right, 100.0) - truth).sum()
        errors["wrong"] += np.square(shrink_towards(noisy, wrong, 100.0) - truth).sum()
        errors["none"] += np.square(noisy - truth).sum()
    assert errors["right"] < 0.4 * errors["none"]
    assert errors["wrong"] < 1.01 * errors["none"]


def test_a_pair_follows_the_nearer_of_the_hubs_guess_and_independence():
    rng = np.random.default_rng(2)
    first, second = rng.dirichlet(np.full(6, 5.0)), rng.dirichlet(np.full(6, 5.0))
    truth = rake_table(np.eye(6) + 0.3, first, second)
    noisy, stddev = truth + rng.normal(0, 0.02, (6, 6)), 0.02

    def error(*guesses: np.ndarray) -> float:
        pairs = denoise_pairs([(0, 1)], [noisy], [first, second], stddev, guesses=list(guesses) or None)
        return float(np.square(pairs.shares[0] - truth).sum())

    assert error(truth) < 0.1 * error()
    far = rake_table(np.fliplr(np.eye(6)) + 0.01, first, second)
    assert error(far) == error()


def test_class_counts_keep_what_sets_an_institution_apart():
    truth = np.array([[400.0, 100, 50, 50], [50, 50, 100, 200]])
    other = truth[:, ::-1] * truth.sum(axis=1, keepdims=True) / truth[:, ::-1].sum(axis=1, keepdims=True)
    kept = shrink_classes(truth, 2.0, other)
    np.testing.assert_allclose(kept, truth, atol=1.0)
    faint = np.array([[1.0, -1, 1, -1], [-1, 1, -1, 1]])
    np.testing.assert_allclose(shrink_classes(truth + faint, 2.0, truth), truth)


def test_a_schema_of_every_kind_is_looked_at_through_other_bins(joint):
    own = plain_bins(EVERY_KIND, target=4)
    got = global_term(joint, own, np.random.default_rng(0))
    assert got.layout.features == tuple(b.n_bins for b in own[:-1])
    for part in got.records:
        np.testing.assert_allclose(part.sum(axis=1), 1)
    np.testing.assert_allclose(got.chances.mean(axis=0), joint.class_prior, atol=1e-5)
    assert all(got.codes[:, i].max() < w for i, w in enumerate(got.layout.features))


def test_the_class_head_starts_near_whichever_explains_own_class_counts(joint):
    """A hub whose labels are turned round moves the start by less than a tenth of the way to it; a right one by most of it."""
    codes = joint.draw_codes(20_000, np.random.default_rng(3))
    counts, _ = statistics_of(codes, joint.layout.features, 2)
    own = discriminate.head_start(counts)[0].numpy()
    way = {}
    for name, head in (("right", joint.head), ("turned", (-joint.head[0], -joint.head[1]))):
        term = global_term(replace(joint, head=head), joint.bins, np.random.default_rng(0))
        start, bias = pipeline._head_start(counts, term, torch.from_numpy(codes.astype(np.int64)))
        hub = term.head(counts.prior)[0]
        way[name] = float(((start - own) * (hub - own)).sum() / np.square(hub - own).sum())
        assert np.isfinite(bias).all()
    assert way["turned"] < 0.1
    assert way["right"] > 0.6
