"""Drawing from a released model: rows fit the schema, follow the released statistics, and labels follow the head."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from distill.data.schema import Schema
from distill.data.tables import canonical_table, to_public
from distill.synthesis.statistics.class_odds import match_prior
from distill.synthesis.statistics.raking import rake_rows
from tests.fakes.private_tables import EVERY_KIND, every_kind, schema_of, statistics_of, toy_generator

THREE = Schema.model_validate(
    {
        **EVERY_KIND.model_dump(),
        "columns": [
            {"name": "label", "kind": "categorical", "categories": ["low", "mid", "high"]},
            *(c.model_dump() for c in EVERY_KIND.features),
        ],
    }
)


@pytest.mark.parametrize("schema", [EVERY_KIND, THREE], ids=["binary", "three classes, target first"])
@pytest.mark.parametrize("n", [1, 7, 3000])
def test_drawn_rows_fit_the_schema_in_public_terms(schema, n, seed):
    frame = toy_generator(schema).draw(n, np.random.default_rng(seed))
    assert frame.shape == (n, len(schema.columns))
    assert list(frame.columns) == [c.name for c in schema.columns]
    again = to_public(canonical_table(frame, schema), schema)  # reads as a table that needs no mending
    pd.testing.assert_frame_equal(again, frame, check_dtype=n > 1000)
    assert frame["label"].isin(schema.classes).all()


def test_every_kind_of_value_appears():
    frame = toy_generator().draw(5000, np.random.default_rng(0))
    for column in EVERY_KIND.columns:
        assert frame[column.name].isna().any() == column.nullable, column.name
    assert set(frame["job"].dropna()) == {"clerk", "smith", "baker", "(other)"}
    assert set(frame["home"]) == set(range(30))
    assert frame["age"].nunique() > 60


def test_the_released_one_way_shares_are_met():
    """Also where the records lack them: raking moves each column to the shares that were released."""
    generator = toy_generator()
    rng = np.random.default_rng(0)
    shares = tuple(0.7 * s + 0.3 * rng.dirichlet(np.ones(len(s))) for s in generator.shares)
    codes = dataclasses.replace(generator, shares=shares).draw_codes(20_000, rng)
    for j, wanted in enumerate(shares):
        got = np.bincount(codes[:, j], minlength=len(wanted)) / len(codes)
        assert np.abs(got - wanted).sum() < 0.06


@pytest.mark.parametrize("prior", [(0.5, 0.5), (0.93, 0.07), (0.999, 0.001)])
def test_the_released_class_prior_is_met(prior):
    generator = dataclasses.replace(toy_generator(), class_prior=np.array(prior))
    frame = generator.draw(10_000, np.random.default_rng(1))
    assert (frame["label"] == 1).mean() == pytest.approx(prior[1], abs=0.012)


def test_labels_follow_the_class_head():
    """Rows that the head is sure of get its class far more often than the others."""
    generator = toy_generator()
    frame = generator.draw(10_000, np.random.default_rng(2))
    log_odds = np.diff(generator.class_log_probabilities(frame), axis=1)[:, 0]
    order = np.argsort(log_odds)
    low, high = frame["label"].iloc[order[:2000]].mean(), frame["label"].iloc[order[-2000:]].mean()
    assert high > low + 0.3


def test_the_class_head_gives_log_probabilities_for_any_row():
    generator, frame = toy_generator(), every_kind(500, 0)
    log_chances = generator.class_log_probabilities(frame)
    np.testing.assert_allclose(np.exp(log_chances).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(generator.class_log_probabilities(frame.drop(columns="label")), log_chances)
    weight, bias = generator.head
    cells = generator.encode(frame) + generator.layout.starts[:-1]
    logits = weight.T[cells].sum(axis=1) + bias
    np.testing.assert_allclose(log_chances, logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), atol=1e-4)


def test_public_rows_get_the_codes_that_the_table_gives_them():
    generator, frame = toy_generator(), every_kind(300, 5)
    frame.loc[:20, "job"] = "astronaut"  # becomes "(other)"
    canonical = canonical_table(frame, EVERY_KIND)
    got = generator.encode(frame)
    for j, bins in enumerate(generator.feature_bins):
        expected = bins.coarse(bins.grid.encode(canonical[bins.grid.column.name]))
        np.testing.assert_array_equal(got[:, j], expected)


def test_drawn_rows_encode_to_the_codes_they_were_drawn_from():
    generator = toy_generator()
    codes = generator.draw_codes(400, np.random.default_rng(3))
    again = generator.encode(generator.draw(400, np.random.default_rng(3)))
    assert np.mean(again == codes[:, :-1]) > 0.999


def test_the_critic_shapes_what_is_kept():
    """A critic that likes the second bin of age raises it only as far as raking allows; ties to it stay."""
    generator = toy_generator()
    rng = np.random.default_rng(0)
    plain = dataclasses.replace(generator, critic_power=0.0).draw_codes(10_000, rng)
    keen = dataclasses.replace(generator, critic_power=1.0).draw_codes(10_000, rng)
    assert generator.critic_logit(keen).mean() > generator.critic_logit(plain).mean()


def test_the_same_seed_draws_the_same_rows():
    generator = toy_generator()
    first, second, other = (generator.draw(200, np.random.default_rng(s)) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(other)


def test_what_the_head_can_know_is_rows_times_impurity():
    generator = dataclasses.replace(toy_generator(), class_prior=np.array([0.75, 0.25]), noisy_rows=1000)
    assert generator.head_information == pytest.approx(1000 * (1 - 0.75**2 - 0.25**2))
    assert dataclasses.replace(generator, class_prior=np.array([1.0, 0.0])).head_information == 0


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.97, 0.03], [0.2, 0.3, 0.5]])
def test_matching_a_prior_shifts_log_odds_by_a_constant_a_class(prior, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (4000, len(prior)))
    before = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    after = match_prior(before, np.array(prior))
    np.testing.assert_allclose(np.exp(after).mean(axis=0), prior, atol=2e-3)
    np.testing.assert_allclose(np.exp(after).sum(axis=1), 1)
    shift = (after - before) - (after - before)[:, :1]
    np.testing.assert_allclose(shift, np.tile(shift[0], (4000, 1)), atol=1e-8)


def test_matching_survives_a_class_without_any_chance():
    sure = np.log(np.tile([1 - 1e-12, 1e-12], (50, 1)))
    for prior in ([1.0, 0.0], [0.5, 0.5], [0.0, 1.0]):
        assert np.isfinite(match_prior(sure, np.array(prior))).all()


def test_raking_meets_every_margin_and_keeps_ties(seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, (5000, 2))
    codes[:, 1] = np.where(rng.random(5000) < 0.5, codes[:, 0], codes[:, 1])
    wanted = [np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])]
    weight = rake_rows(codes, np.ones(5000), wanted)
    assert weight.mean() == pytest.approx(1)
    for j, share in enumerate(wanted):
        np.testing.assert_allclose(np.bincount(codes[:, j], weight) / weight.sum(), share, atol=0.01)
    table = np.zeros((3, 3))
    np.add.at(table, (codes[:, 0], codes[:, 1]), weight)
    assert table[0, 0] * table[1, 1] / (table[0, 1] * table[1, 0]) > 5  # odds ratios are what raking leaves alone


def test_raking_to_a_bin_without_rows_stays_finite():
    weight = rake_rows(np.zeros((10, 1), dtype=np.int64), np.ones(10), [np.array([0.1, 0.9])])
    np.testing.assert_allclose(weight, 1)


def test_two_columns_are_enough():
    schema = schema_of({"name": "x", "kind": "continuous", "min": 0, "max": 1})
    frame = toy_generator(schema).draw(50, np.random.default_rng(0))
    assert frame["x"].between(0, 1).all()


def test_draws_keep_what_the_records_tie_together():
    """Pair shares of drawn rows are those of the soft records (no critic, no raking needed)."""
    generator = dataclasses.replace(toy_generator(records=4), critic_power=0.0)
    parts = np.split(generator.logits, generator.layout.starts[1:-1], axis=1)
    soft = [np.exp(p - np.logaddexp.reduce(p, axis=1, keepdims=True)) for p in parts]
    codes = generator.draw_codes(40_000, np.random.default_rng(0))
    _, pairs = statistics_of(codes, generator.layout.features, 2)
    for (i, j), got in zip(pairs.pairs, pairs.shares, strict=True):
        expected = (generator.weights[:, None] * soft[i]).T @ soft[j]
        assert np.abs(got - expected).sum() < 0.1


def test_a_seed_draws_what_a_stream_from_it_draws():
    generator = toy_generator()
    of_seed, of_stream = generator.draw(50, seed=3), generator.draw(50, np.random.default_rng(3))
    pd.testing.assert_frame_equal(of_seed, of_stream)
    assert not generator.draw(50, seed=4).equals(of_seed)
