from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.schema import Schema
from distill.data.tables import canonical_table, to_public
from distill.errors import BundleError
from distill.synthesis.statistics.class_odds import log_normalise, match_prior
from server_train.models.features import fit_encoder
from server_train.pooling.institutions.generators import stack
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.labelling.labeller import combine_heads, heads_connect
from server_train.pooling.pool import allocate, default_rows, draw_pool
from server_train.pooling.weighing.contribution import Statement, contributions
from tests.fakes.hubs import BINARY, TERNARY, TableGenerator, class_chances, skewed, table


def member(rows, prior):
    prior = np.asarray(prior, dtype=float)
    stated = Statement(
        institution="i", noisy_rows=rows, class_prior=prior, head_information=rows * (1 - np.square(prior).sum())
    )
    return contributions([stated])[0]


def worries(pool):
    """Notes on more than what stand-ins without pairs lead to, be they judged or not."""
    usual = ("nobody can say which one is right", "are drawn from its bundle as it came")
    return [note for note in pool.notes if not any(words in note for words in usual)]


def log_odds(logs):
    return logs[:, 1] - logs[:, 0]


def test_a_head_is_corrected_for_its_own_class_frequencies():
    """By hand: a head that knew p = .2 says .5: evidence 1 / (.2/.8) = 4 in odds, so .8 at p = .5."""
    logs = np.log([[0.5, 0.5]])
    combined = combine_heads([(logs, member(1e9, [0.8, 0.2]))], prior=np.array([0.5, 0.5]))
    assert np.exp(combined) == pytest.approx(np.array([[0.2, 0.8]]), rel=1e-6)


def test_two_heads_are_averaged_by_information_after_the_correction():
    """By hand: evidence log 4 with information 1e9 * .16, and 0 with 1e9 * .25; at even odds their mean remains."""
    members = [member(1e9, [0.8, 0.2]), member(1e9, [0.5, 0.5])]
    combined = combine_heads([(np.log([[0.5, 0.5]]), m) for m in members], prior=np.array([0.5, 0.5]))
    assert log_odds(combined)[0] == pytest.approx(np.log(4) * 0.16 / (0.16 + 0.25), rel=1e-5)


def test_one_institution_alone_keeps_its_head():
    rng = np.random.default_rng(0)
    logs = log_normalise(rng.normal(size=(50, 3)))
    one = member(1e9, [0.5, 0.3, 0.2])
    assert combine_heads([(logs, one)], prior=np.array([0.5, 0.3, 0.2])) == pytest.approx(logs, rel=1e-5)


def test_a_class_that_an_institution_lacks_is_judged_by_the_others():
    """The first head has never seen class 2 and gives it next to nothing; the second knows it well."""
    blind = np.log(np.maximum([[0.5, 0.5, 0.0]], 1e-12))
    seeing = np.log([[0.2, 0.2, 0.6]])
    heads = [(blind, member(1e8, [0.5, 0.5, 0.0])), (seeing, member(1e8, [1 / 3, 1 / 3, 1 / 3]))]
    combined = np.exp(combine_heads(heads, prior=np.full(3, 1 / 3)))
    assert combined == pytest.approx(np.array([[0.2, 0.2, 0.6]]), rel=1e-4)


def test_a_tiny_class_prior_does_not_blow_up():
    rare = member(10_000, [0.9999, 0.0001])
    other = member(10_000, [0.7, 0.3])
    logs = np.log([[1 - 1e-12, 1e-12], [0.5, 0.5]])
    combined = combine_heads([(logs, rare), (logs, other)], prior=np.array([0.8, 0.2]))
    assert np.isfinite(combined).all()
    assert log_odds(combined)[1] > log_odds(combined)[0]


@given(st.integers(0, 10_000), st.lists(st.floats(0.01, 1), min_size=1, max_size=9))
def test_rows_are_allocated_to_the_last_one(total, shares):
    shares = np.array(shares) / sum(shares)
    counts = allocate(total, shares)
    assert counts.sum() == total
    assert (np.abs(counts - total * shares) <= 1 + 1e-6).all()


@pytest.mark.parametrize("prior", [[0.9, 0.1], [0.3, 0.3, 0.4], [0.98, 0.02, 0.0]])
def test_an_intercept_makes_the_mean_label_frequency_the_global_one(prior):
    logs = log_normalise(np.random.default_rng(1).normal(size=(5000, len(prior)), scale=2))
    matched = np.exp(match_prior(logs, np.array(prior)))
    assert matched.mean(axis=0) == pytest.approx(prior, abs=1e-4)
    assert matched.sum(axis=1) == pytest.approx(np.ones(5000))


@pytest.mark.parametrize("schema", [BINARY, TERNARY], ids=["two classes", "three classes"])
def test_the_pool_carries_the_true_class_chances_although_every_institution_is_skewed(schema):
    """The heads are the truth at each institution's own class frequencies, so the pool must give back the truth.

    Not row by row, for a row's label is partly its own institution's word, but on average wherever the truth is the same.
    """
    whole = table(30_000, schema, 0)
    parts = [skewed(table(20_000, schema, 1), schema, 0.2), table(20_000, schema, 2)]
    institutions = [Institution(name=f"bank {i}", generator=TableGenerator(schema, p)) for i, p in enumerate(parts)]
    pool = draw_pool(schema, institutions, rows=8000, rng=np.random.default_rng(0))
    assert worries(pool) == []
    assert pool.soft_labels.mean(axis=0) == pytest.approx(pool.prior, abs=1e-3)
    base = class_chances(whole, len(schema.classes)).mean(axis=0)
    wanted = log_normalise(np.log(class_chances(pool.frame, len(schema.classes))) + np.log(pool.prior) - np.log(base))
    for k in range(len(schema.classes)):
        alike = np.argsort(np.argsort(wanted[:, k])) * 8 // len(wanted)  # eighths of about the same truth
        for part in range(8):
            gap = (pool.soft_labels[:, k] - np.exp(wanted[:, k]))[alike == part].mean()
            assert abs(gap) < 0.03, (k, part)
    assert [c.name for c in schema.columns] == list(pool.frame.columns)


def test_drawn_labels_follow_the_soft_ones():
    alone = Institution(name="a", generator=TableGenerator(BINARY, table(5000, BINARY, 3)))
    pool = draw_pool(BINARY, [alone], rows=20_000, rng=np.random.default_rng(0))
    high = pool.soft_labels[:, 1] > 0.7
    assert pool.frame.loc[high, "default"].mean() == pytest.approx(pool.soft_labels[high, 1].mean(), abs=0.03)
    assert pool.frame["default"].dtype == np.int64


@dataclass
class OfItsOwnRows(TableGenerator):
    """Its head knows nothing but how often each class occurs at home."""

    def class_log_probabilities(self, frame):
        return np.tile(np.log(self.class_prior), (len(frame), 1))


def test_what_sets_customers_of_institutions_apart_reaches_the_labels():
    """Grade alone tells good from bad, and each institution has one grade: no head has any evidence, the union has."""
    whole = table(12_000, BINARY, 6)
    whole["default"] = (np.random.default_rng(0).random(len(whole)) < 0.25 * whole["grade"]).astype(int)
    parts = [whole[whole["grade"] == g].reset_index(drop=True) for g in (1, 2, 3)]
    institutions = [
        Institution(name=f"grade {g}", generator=OfItsOwnRows(BINARY, part))
        for g, part in zip((1, 2, 3), parts, strict=True)
    ]
    pool = draw_pool(BINARY, institutions, rows=6000, rng=np.random.default_rng(0))
    assert worries(pool) == []
    for g, part in zip((1, 2, 3), parts, strict=True):
        chance = pool.soft_labels[(pool.frame["grade"] == g).to_numpy(), 1]
        assert chance == pytest.approx(np.full(len(chance), part["default"].mean()), abs=0.03), g


def test_a_correction_that_does_not_hold_is_left_out_and_a_note_says_so():
    """The head's word on a row is chance, so nothing about it carries over from one row to another."""

    @dataclass
    class Chance(TableGenerator):
        def class_log_probabilities(self, frame):
            said = np.random.default_rng(len(frame)).dirichlet([0.1, 0.1], len(frame)).clip(1e-9)
            return np.log(said / said.sum(axis=1, keepdims=True))

    institutions = [
        Institution(name=name, generator=Chance(BINARY, table(100, BINARY, seed)))
        for name, seed in (("a", 1), ("b", 2))
    ]
    for institution in institutions:
        institution.generator.count_noise = 0.0
    pool = draw_pool(BINARY, institutions, rows=100, rng=np.random.default_rng(0))
    assert any("used as they are" in note for note in pool.notes)


def test_the_same_seed_draws_the_same_pool():
    institutions = [
        Institution(name="a", generator=TableGenerator(BINARY, table(500, BINARY, 3))),
        Institution(name="b", generator=TableGenerator(BINARY, table(900, BINARY, 4))),
    ]
    one, two = (draw_pool(BINARY, institutions, rows=1000, rng=np.random.default_rng(7)) for _ in range(2))
    pd.testing.assert_frame_equal(one.frame, two.frame)
    assert (one.soft_labels == two.soft_labels).all()
    assert np.bincount(one.origin).tolist() == [357, 643]


def test_an_institution_with_one_class_gives_rows_but_no_opinion():
    honest = table(5000, BINARY, 1)
    only_good = skewed(table(5000, BINARY, 2), BINARY, 0.0)
    institutions = [
        Institution(name="mixed", generator=TableGenerator(BINARY, honest)),
        Institution(name="good only", generator=TableGenerator(BINARY, only_good)),
    ]
    pool = draw_pool(BINARY, institutions, rows=2000, rng=np.random.default_rng(0))
    assert pool.members[1].head_share == 0
    assert (pool.origin == 1).sum() > 500
    assert any("good only" in note and "class head is not used" in note for note in pool.notes)


def test_without_any_usable_head_the_drawn_labels_remain_and_a_note_says_so():
    frame = table(4000, BINARY, 1)
    halves = [frame[frame["default"] == c].reset_index(drop=True) for c in (0, 1)]
    institutions = [
        Institution(name=f"only {c}", generator=TableGenerator(BINARY, half)) for c, half in enumerate(halves)
    ]
    pool = draw_pool(BINARY, institutions, rows=1000, rng=np.random.default_rng(0))
    assert set(np.unique(pool.soft_labels)) == {0.0, 1.0}
    assert (pool.frame["default"].to_numpy() == pool.origin).all()
    assert "trust the model only after" in " ".join(pool.notes)
    assert not heads_connect(pool.members)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda g: setattr(g, "draw", lambda n, rng: g.frame.iloc[: n - 1]), "rows instead of"),
        (lambda g: setattr(g, "draw", lambda n, rng: g.frame.iloc[:n].drop(columns="age")), "without the column.*age"),
        (lambda g: setattr(g, "draw", lambda n, rng: {}["nothing"]), "drawing rows failed"),
        (lambda g: setattr(g, "class_log_probabilities", lambda f: np.full((len(f), 2), np.nan)), "no probabilities"),
        (lambda g: setattr(g, "class_log_probabilities", lambda f: np.zeros((len(f), 3))), "no probabilities"),
        (lambda g: setattr(g, "class_log_probabilities", lambda f: 1 / 0), "class head failed"),
        (lambda g: setattr(g, "class_prior", np.array([0.2, 0.3, 0.5])), "make no sense"),
    ],
)
def test_a_broken_generator_is_a_bundle_error_that_names_the_institution(break_it, words):
    generator = TableGenerator(BINARY, table(500, BINARY, 1))
    break_it(generator)
    with pytest.raises(BundleError, match=f"'bank'.*{words}"):
        draw_pool(BINARY, [Institution(name="bank", generator=generator)], rows=100, rng=np.random.default_rng(0))


def test_the_default_pool_grows_with_the_institutions_within_limits():
    assert default_rows([100, 200]) == 20_000
    assert default_rows([10_000, 5_000]) == 60_000
    assert default_rows([1e6]) == 200_000


def test_stacked_frames_have_the_public_types_of_one_table():
    """Whatever is missing in which part: the types are those that `to_public` gives all rows together."""
    schema = Schema.model_validate(
        {
            "name": "t",
            "target": "y",
            "columns": [
                {"name": "whole", "kind": "integer", "min": 0, "max": 9, "nullable": True},
                {"name": "code", "kind": "categorical", "categories": [1, 2], "nullable": True},
                {"name": "open", "kind": "categorical", "categories": [1, 2], "other": True},
                {"name": "part", "kind": "continuous", "min": 0, "max": 1, "nullable": True},
                {"name": "y", "kind": "categorical", "categories": ["a", "b"]},
            ],
        }
    )
    full = pd.DataFrame({"whole": [1, 2], "code": [1, 2], "open": [1, 7], "part": [0.5, 1], "y": ["a", "b"]})
    gaps = pd.DataFrame({"whole": [None, 3], "code": [None, 1], "open": [2, 2], "part": [None, 0], "y": ["b", "b"]})
    parts = [to_public(canonical_table(f, schema), schema) for f in (full, gaps)]
    both = pd.concat([full.astype(object), gaps.astype(object)], ignore_index=True)
    for frames in (parts, parts[:1]):
        wanted = to_public(canonical_table(both.head(2 * len(frames)), schema), schema)
        pd.testing.assert_frame_equal(stack(schema, frames), wanted)
    encoded = fit_encoder(schema, stack(schema, parts)).encode(stack(schema, parts))
    assert encoded.codes.tolist() == [[0, 3], [1, 5], [2, 4], [0, 4]]
