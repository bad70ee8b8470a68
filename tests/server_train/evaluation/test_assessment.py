"""An evaluation on real rows as a whole: figures, thresholds, groups, and its page."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from distill.data.schema import Schema
from distill.errors import ConfigError, DataError, ModelError
from server_train.evaluation.assessment import Question, assess
from server_train.evaluation.decisions import Costs
from server_train.evaluation.private_scorer import KNOTS, MOST_RIGHT, ModelScorer, score_knots
from server_train.models.cards import TrainingCard
from server_train.reports.evaluation_report import render_evaluation
from tests.fakes.hubs import BINARY, TERNARY, class_chances, table

NUMBER = Schema.model_validate(
    {
        "name": "claims",
        "target": "amount",
        "columns": [
            {"name": "age", "kind": "integer", "min": 18, "max": 100},
            {"name": "amount", "kind": "continuous", "min": 0, "max": 1000},
        ],
    }
)


def fake_model(schema, **training):
    """Knows the truth behind every table of `hub_fakes`; of a number, ten times the age."""
    card = SimpleNamespace(
        rehearsal=False,
        schema_=schema,
        schema_digest="d" * 64,
        weights_sha256="a" * 64,
        created="2026-01-01T00:00:00+00:00",
        versions={"distill": "0"},
        institutions=[],
        training=TrainingCard(**training),
    )

    def number_of(frame):
        return 10.0 * frame["age"].to_numpy(float)

    def predict(frame):
        plain = frame.assign(grade=frame["grade"].astype(str).astype(int), region=frame["region"].astype(object))
        return class_chances(plain, len(schema.classes))

    return SimpleNamespace(schema=schema, card=card, predict=predict, predict_number=number_of)


@pytest.fixture
def rows(tmp_path):
    def write(schema, n=600, **columns):
        path = tmp_path / "rows.csv"
        table(n, schema, 4).assign(**columns).to_csv(path, index=False)
        return path

    return write


def test_two_classes_have_every_kind_of_figure(rows):
    costs = Costs(false_positive=1, false_negative=3)
    sex = np.random.default_rng(0).choice(["f", "m"], 600)
    found = assess(fake_model(BINARY), rows(BINARY, sex=sex), Question(by=("region", "age", "sex"), costs=costs))
    said = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert said["private"] is False
    assert "Publishing one is a release" in said["word"]
    assert said["roc_auc"] > 0.6
    assert said["calibration"]["1"]["slope"] == pytest.approx(1, abs=0.4)
    assert said["decisions"]["in_force"] == said["decisions"]["by_costs"]
    assert said["decisions"]["in_force"]["threshold"] == 0.25
    assert said["decisions"]["cheapest_here"]["cost_a_row"] <= said["decisions"]["by_costs"]["cost_a_row"]
    taken = said["decisions"]["in_force"]
    assert said["confusion"] == [
        [taken["true_negatives"], taken["false_positives"]],
        [taken["false_negatives"], taken["true_positives"]],
    ]
    assert [s["column"] for s in said["slices"]] == ["region", "age", "sex"]
    assert [g["group"] for g in said["slices"][2]["groups"]] == ["f", "m"]


def test_a_threshold_by_hand_is_in_force_beside_that_of_the_costs(rows):
    question = Question(threshold=0.7, costs=Costs(false_positive=1, false_negative=1))
    found = assess(fake_model(BINARY), rows(BINARY), question)
    assert (found.decisions["in_force"].threshold, found.decisions["by_costs"].threshold) == (0.7, 0.5)


def test_three_classes_are_judged_one_by_one(rows):
    found = assess(fake_model(TERNARY), rows(TERNARY), Question(by=("grade",)))
    assert set(found.calibration) == {"paid", "late", "lost"}
    assert found.decisions == {}
    assert np.sum(found.confusion) == 600
    assert set(found.slices[0].differences) == {"accuracy_difference", "paid", "late", "lost"}


def number_rows(path):
    rng = np.random.default_rng(0)
    age = rng.integers(18, 90, 500)
    pd.DataFrame({"age": age, "amount": (10 * age + rng.normal(0, 20, 500)).clip(0, 1000)}).to_csv(path, index=False)
    return path


def test_a_number_has_residuals_and_no_thresholds(tmp_path):
    data = number_rows(tmp_path / "rows.csv")
    found = assess(fake_model(NUMBER), data, Question(by=("age",)))
    assert found.figures.rmse == pytest.approx(20, rel=0.15)
    assert len(found.slices[0].groups) == 4
    page = render_evaluation(found, fake_model(NUMBER).card)
    assert "Histogram of the residuals" in page
    assert "not private" in page
    with pytest.raises(ConfigError, match="is a number: leave them out"):
        assess(fake_model(NUMBER), data, Question(threshold=0.5))


@pytest.mark.parametrize(
    ("question", "error", "message"),
    [
        (Question(threshold=1.5), ConfigError, "within 0 and 1"),
        (Question(by=("default",)), ConfigError, "is the target itself"),
        (Question(by=("shoe",)), DataError, "missing: 'shoe'"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(rows, question, error, message):
    with pytest.raises(error, match=message):
        assess(fake_model(BINARY), rows(BINARY), question)


def test_costs_with_three_classes_are_refused_with_the_reason(rows):
    with pytest.raises(ConfigError, match=r"decide between two classes.*has 3 classes"):
        assess(fake_model(TERNARY), rows(TERNARY), Question(costs=Costs(false_positive=1, false_negative=2)))


@pytest.mark.parametrize("schema", [BINARY, TERNARY], ids=["two", "three"])
def test_the_page_needs_nothing_beside_it_escapes_names_and_draws_no_row(rows, schema):
    sex = np.array(["<script>alert(1)</script>", "$\\frac{m}$"] * 300)
    found = assess(fake_model(schema), rows(schema, sex=sex), Question(by=("sex", "age")))
    page = render_evaluation(found, fake_model(schema).card)
    assert "not private, for this house only" in page
    assert "Publishing one is a release" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert page.count("<img") >= 4


def test_rows_of_one_class_still_get_a_page(tmp_path):
    frame = table(300, BINARY, 4)
    frame[frame["default"] == 0].to_csv(tmp_path / "rows.csv", index=False)
    found = assess(fake_model(BINARY), tmp_path / "rows.csv", Question(by=("grade",)))
    assert found.figures.roc_auc is None
    assert "nothing to rank" in render_evaluation(found, fake_model(BINARY).card)


# ---- bins of the scores -----------------------------------------------------------------------------------------------


def with_knots(schema, scores):
    return fake_model(schema, score_knots=score_knots(scores))


@pytest.mark.parametrize(("schema", "blocks"), [(BINARY, ["1"]), (TERNARY, ["paid", "late", "lost", MOST_RIGHT])])
@pytest.mark.parametrize("known", [True, False], ids=["knots", "no knots"])
def test_bins_are_public_and_hold_the_thresholds(schema, blocks, known):
    frame = table(3000, schema, 1)
    model = with_knots(schema, fake_model(schema).predict(frame)) if known else fake_model(schema)
    found = ModelScorer(model, thresholds=[0.31]).blocks(8)
    assert [b.name for b in found] == blocks
    for b in found:
        assert list(b.edges) == sorted(set(b.edges))
        assert len(b.middles) == len(b.wins) == len(b.losses[0]) == len(b.edges) + 1
        assert all(low <= m <= high for m, low, high in zip(b.middles, (0, *b.edges), (*b.edges, 1), strict=True))
        assert all(0.5 - 1e-9 <= w < 1 for w in b.wins)
    if schema is BINARY:
        assert {0.31, 0.5} <= set(found[0].edges)


def test_knots_put_bins_where_either_class_is():
    """A rare class: .29 of the bins lie where half of the mixture's rare part is, though 1 % of the rows are there."""
    scores = np.append(np.linspace(0.001, 0.01, 9900), np.linspace(0.5, 0.99, 100))
    (knots,) = score_knots(np.stack([1 - scores, scores], axis=1))
    assert len(knots) == KNOTS
    assert 0.27 < np.mean(np.array(knots) > 0.4) < 0.31


def test_inside_a_bin_wins_are_those_of_calibrated_rows():
    """Against rows drawn from the chances themselves."""
    rng = np.random.default_rng(0)
    scores = rng.beta(1, 3, 200_000)
    (block,) = ModelScorer(with_knots(BINARY, np.stack([1 - scores, scores], axis=1))).blocks(4)
    holds = rng.random(200_000) < scores
    for i, (low, high) in enumerate(zip((0, *block.edges), (*block.edges, 1), strict=True)):
        inside = (scores >= low) & (scores < high)
        one, other = scores[inside & holds], scores[inside & ~holds]
        wins = np.searchsorted(np.sort(other), one).mean() / len(other)
        assert block.wins[i] == pytest.approx(wins, abs=0.02)
        assert block.losses[0][i] == pytest.approx((other**2).mean(), rel=0.05, abs=1e-3)
        assert block.losses[1][i] == pytest.approx(((1 - one) ** 2).mean(), rel=0.05, abs=1e-3)


@pytest.mark.parametrize(
    "knots",
    [
        [[0.2, 0.1]],
        [[0.1, 0.2], [0.1, 0.2]],
        [[0.0, 0.5]],
        [[0.5, 1.5]],
        [["a", "b"]],
        [[float("nan"), 0.5]],
        "knots",
        [[0.5]],
        7,
    ],
)
def test_knots_that_make_no_sense_are_refused(knots):
    with pytest.raises(ModelError, match="score_knots"):
        ModelScorer(fake_model(BINARY, score_knots=knots))
