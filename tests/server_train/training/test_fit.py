"""Every kind of model behind one interface: it learns, it is saved and read, weights and calibration do what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest

from distill.errors import ConfigError, ModelError, SchemaError
from server_train.evaluation.metrics import evaluate_numbers, evaluate_scores
from server_train.models.calibration import Calibration, class_probabilities, fit_calibration
from server_train.models.model import CARD, load_model
from server_train.training.class_weights import read_class_weights, weigh_classes
from server_train.training.fit import ModelChoice
from server_train.training.logistic import LogisticSettings
from server_train.training.network import TrainingSettings
from tests.fakes.model_kinds import SCHEMAS, chances, fitted, law, model_of, rows_of, saved, taught

KINDS = ("mlp", "logistic", "boosting")
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("task", SCHEMAS)
def test_a_saved_model_of_any_kind_and_task_gives_identical_scores(task, kind, tmp_path):
    model = saved(model_of(task, kind), tmp_path)
    rows = rows_of(500, 9)
    loaded = load_model(tmp_path)
    assert loaded.card == model.card
    assert (loaded.predict(rows) == model.predict(rows)).all()
    assert model.predict(rows).sum(axis=1) == pytest.approx(np.ones(500))
    assert model.predict(rows.head(0)).shape == (0, len(model.card.outputs))
    if task == "number":
        assert (loaded.predict_number(rows) == model.predict_number(rows)).all()


@each_kind
@pytest.mark.parametrize("task", ["two classes", "three classes"])
def test_every_kind_learns_the_ranking(task, kind):
    """A line cannot follow the law's interactions, so a logistic regression gets a wider margin."""
    got, _ = fitted(task, kind, rows=4000, steps=400)
    fresh, _, _ = taught(task, 4000, 1)
    labels = np.array([list(SCHEMAS[task].classes).index(y) for y in fresh["y"]])
    best = evaluate_scores(labels, chances(fresh, len(SCHEMAS[task].classes)), SCHEMAS[task].classes)
    ours = evaluate_scores(labels, got.scorer.probabilities(fresh), SCHEMAS[task].classes)
    assert ours.roc_auc > best.roc_auc - (0.05 if kind == "logistic" else 0.03)
    assert ours.log_loss < best.log_loss + 0.06


def test_boosted_numbers_are_predicted():
    model, rows = model_of("number", "boosting", rows=4000), taught("number", 3000, 4)[0]
    judged = evaluate_numbers(rows["y"].to_numpy(), model.predict_number(rows))
    assert judged.r2 > 0.6
    direct = model.scorer.scores(rows)[:, 0].clip(model.scorer.means[0], model.scorer.means[-1])
    assert model.predict_number(rows) == pytest.approx(direct)  # the two bins around it have that mean


@each_kind
def test_the_same_seed_trains_the_same_model(kind):
    one, two = (fitted("three classes", kind, rows=800)[0].scorer.tensors() for _ in range(2))
    assert all((one[name] == two[name]).all() for name in one)


@each_kind
def test_the_learning_curve_is_reported_as_it_comes_and_ends_above_the_floor(kind):
    got, _ = fitted("two classes", kind)
    assert [e.number for e in got.curve] == list(range(1, len(got.curve) + 1))
    least = min(e.validation_loss for e in got.curve)
    assert got.curve[got.best_epoch - 1].validation_loss == pytest.approx(least, abs=2e-5)
    assert all(e.validation_loss >= got.floor - 1e-6 for e in got.curve)
    assert len(got.held_out_rows) == 200
    assert got.scorer.inputs_read == (7 if kind == "boosting" else 10 + 4 + 5 + 3)
    assert got.scorer.parameters > 0


def test_a_weaker_penalty_is_kept_only_where_held_out_rows_gain():
    """Random labels on few rows: the strongest penalty is the best."""
    from server_train.training.fit import fit_model

    frame, _, _ = taught("two classes", 200, 0)
    labels = np.eye(2)[np.random.default_rng(1).integers(0, 2, 200)]
    choice = ModelChoice(kind="logistic", logistic=LogisticSettings(strengths=(1e-4, 10.0, 100.0)))
    got = fit_model(SCHEMAS["two classes"], frame, labels, TrainingSettings(), choice)
    assert got.best_epoch == 1
    assert len(got.curve) == 2


@each_kind
def test_calibration_takes_class_weights_back(kind):
    """Balanced training pulls the mean score of a class of a tenth to about one half; calibrated, it is a tenth again."""
    from server_train.training.fit import fit_model

    frame, soft, _ = taught("two classes", 4000, 0)
    rare = soft * [0.97, 0.08]
    rare = (rare / rare.sum(axis=1, keepdims=True)).astype(np.float32)
    fits = {
        calibrate: fit_model(
            SCHEMAS["two classes"],
            frame,
            rare,
            TrainingSettings(steps=300),
            ModelChoice(kind=kind, class_weights="balanced", calibrate=calibrate),
        )
        for calibrate in (False, True)
    }
    share = rare[:, 1].mean()
    means = {calibrate: got.scorer.probabilities(frame)[:, 1].mean() for calibrate, got in fits.items()}
    assert share < 0.15
    assert means[False] > 0.35
    assert means[True] == pytest.approx(share, abs=0.02)
    assert fits[True].weights @ rare.mean(axis=0, dtype=float) == pytest.approx(1.0)
    assert fits[True].weights[1] / fits[True].weights[0] == pytest.approx((1 - share) / share, rel=1e-4)


def test_calibration_finds_slope_and_offsets_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    truth = class_probabilities(logits, Calibration(slope=0.5, offsets=(0.3, -0.2, -0.1)))
    found = fit_calibration(logits, truth)
    assert found.slope == pytest.approx(0.5, abs=1e-3)
    assert np.subtract(found.offsets, found.offsets[0]) == pytest.approx([0, -0.5, -0.4], abs=1e-3)


def test_a_class_that_never_occurs_leaves_calibration_finite():
    logits = np.random.default_rng(0).normal(0, 1, (500, 3))
    found = fit_calibration(logits, np.column_stack([np.full((500, 2), 0.5), np.zeros(500)]))
    assert class_probabilities(logits, found)[:, 2].max() < 1e-3


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (None, None),
        (["none"], None),
        (["balanced"], "balanced"),
        (["yes=5"], {"yes": 5.0}),
        (["yes=5", "a=b=.5"], {"yes": 5.0, "a=b": 0.5}),
    ],
)
def test_class_weights_are_read(words, meaning):
    assert read_class_weights(words) == meaning


def test_class_weights_are_read_from_a_file(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text('{"yes": 5, "no": 0.5}')
    assert read_class_weights([str(file)]) == {"yes": 5.0, "no": 0.5}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "not valid JSON"),
        ("[1]", "one JSON object"),
        ('{"yes": "5"}', "one JSON object"),
        ('{"yes": true}', "one JSON object"),
        (" " * (2**20 + 1), "no larger than"),
    ],
)
def test_files_that_hold_no_class_weights_are_refused(tmp_path, content, words):
    file = tmp_path / "weights.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_class_weights([str(file)])


@pytest.mark.parametrize("typed", [["yes=x"], ["=5"], ["yes=nan"], ["balanced", "yes=5"], ["yes=1", "no"]])
def test_words_that_are_no_class_weights_are_refused(typed):
    with pytest.raises(ConfigError, match="write none, balanced, a JSON file, or NAME=WEIGHT"):
        read_class_weights(typed)


def test_class_weights_must_fit_the_classes():
    schema, soft = SCHEMAS["two classes"], np.full((10, 2), 0.5, np.float32)
    weighted, factors = weigh_classes(schema, soft, {"yes": 3.0})
    assert factors == pytest.approx([0.5, 1.5])
    assert weighted == pytest.approx(soft * factors)
    with pytest.raises(ConfigError, match="'maybe' is no class of 'y'; it has no, yes"):
        weigh_classes(schema, soft, {"maybe": 2.0})
    for weight in (0.0, -1.0, 1e9):
        with pytest.raises(ConfigError, match="weights must be between"):
            weigh_classes(schema, soft, {"yes": weight})
    with pytest.raises(SchemaError, match="works on classes only"):
        weigh_classes(SCHEMAS["number"], soft, "balanced")


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("boosting", {"kind": "mlp", "hidden": [8]}, "do not fit together"),
        ("boosting", {"kind": "logistic"}, "do not fit together"),
        ("boosting", {"kind": "forest"}, "see kind"),
        ("boosting", {"hidden": [4]}, "kind, layers and calibration disagree"),
        ("mlp", {"hidden": []}, "kind, layers and calibration disagree"),
        ("logistic", {"calibration": {"slope": 1.0, "offsets": [0.0]}}, "kind, layers and calibration disagree"),
        ("logistic", {"calibration": {"slope": -1.0, "offsets": [0.0, 0.0]}}, "see calibration.slope"),
        ("mlp", {"hidden": [65536, 65536, 65536]}, "do not fit together"),  # 17 GB, were it allocated
    ],
)
def test_cards_that_contradict_themselves_are_refused(kind, changes, words, tmp_path):
    saved(model_of("two classes", kind), tmp_path)
    card = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**card, **changes}))
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    """Written past our own writer, which refuses them too."""
    import hashlib

    from safetensors.numpy import save

    model = saved(model_of("two classes", "logistic"), tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        saved(replace(model, scorer=Spoilt(model.scorer)), tmp_path)
    data = save(Spoilt(model.scorer).tensors())
    (tmp_path / "model.safetensors").write_bytes(data)
    card = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**card, "weights_sha256": hashlib.sha256(data).hexdigest()}))
    with pytest.raises(ModelError, match="do not fit together"):
        load_model(tmp_path)


class Spoilt:
    """A scorer with one weight that is no number."""

    def __init__(self, scorer):
        self.scorer = scorer

    def tensors(self):
        tensors = {name: values.copy() for name, values in self.scorer.tensors().items()}
        tensors["bias"][0] = np.nan
        return tensors


def test_the_law_of_these_tests_needs_more_than_a_line():
    """Else the kinds would not be told apart."""
    from server_train.training.fit import fit_model

    frame, soft, _ = taught("two classes", 4000, 0)
    line, trees = (
        fit_model(SCHEMAS["two classes"], frame, soft, TrainingSettings(), ModelChoice(kind=kind))
        for kind in ("logistic", "boosting")
    )
    assert min(e.validation_loss for e in trees.curve) < min(e.validation_loss for e in line.curve) - 0.005
    assert law(frame).std() > 0.5
