import numpy as np
import pandas as pd
import pytest

from distill.data.schema import Schema
from distill.errors import ConfigError
from server_train.evaluation.metrics import evaluate_scores
from server_train.models.features import class_codes
from server_train.models.model import probabilities
from server_train.training.network import TrainingSettings, train
from tests.fakes.hubs import BINARY, TERNARY, class_chances, table

XOR = Schema.model_validate(
    {
        "name": "xor",
        "target": "y",
        "columns": [
            {"name": "a", "kind": "continuous", "min": -1, "max": 1},
            {"name": "b", "kind": "categorical", "categories": ["low", "high"]},
            {"name": "y", "kind": "categorical", "categories": ["no", "yes"]},
        ],
    }
)


def scores(trained, frame):
    return probabilities(trained.network, trained.encoder.encode(frame))


def test_the_network_learns_what_no_linear_model_can():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.uniform(-1, 1, 4000), "b": rng.choice(np.array(["low", "high"], dtype=object), 4000)}
    )
    truth = ((frame["a"] > 0) ^ (frame["b"] == "high")).to_numpy().astype(int)
    trained = train(
        XOR, frame.assign(y=np.array(["no", "yes"], dtype=object)[truth]), np.eye(2)[truth], TrainingSettings(steps=400)
    )
    assert evaluate_scores(truth, scores(trained, frame), XOR.classes).roc_auc > 0.99


@pytest.mark.parametrize("schema", [BINARY, TERNARY], ids=["two classes", "three classes"])
def test_training_on_soft_labels_reaches_the_true_ranking(schema):
    frame, fresh = table(6000, schema, 0), table(4000, schema, 1)
    trained = train(schema, frame, class_chances(frame, len(schema.classes)), TrainingSettings(steps=500))
    labels = class_codes(schema, fresh)
    got = evaluate_scores(labels, scores(trained, fresh), schema.classes)
    best = evaluate_scores(labels, class_chances(fresh, len(schema.classes)), schema.classes)
    assert got.roc_auc > best.roc_auc - 0.01
    assert got.log_loss < best.log_loss + 0.02


def test_the_same_seed_trains_the_same_network():
    frame = table(2000, BINARY, 0)
    soft = class_chances(frame, 2)
    one, two = (train(BINARY, frame, soft, TrainingSettings(steps=60, seed=4)) for _ in range(2))
    assert (scores(one, frame) == scores(two, frame)).all()
    other = train(BINARY, frame, soft, TrainingSettings(steps=60, seed=5))
    assert not (scores(one, frame) == scores(other, frame)).all()


def test_training_halts_on_held_out_rows_and_keeps_the_best_epoch():
    """Random labels on few rows: nothing to learn, so the held-out loss soon rises."""
    frame = table(400, BINARY, 0)
    labels = np.eye(2)[np.random.default_rng(0).integers(0, 2, 400)]
    seen = []
    trained = train(BINARY, frame, labels, TrainingSettings(batch_size=32, patience=3), on_epoch=seen.append)
    losses = [e.validation_loss for e in trained.curve]
    assert len(trained.curve) < TrainingSettings(batch_size=32).epochs(360)
    assert losses[trained.best_epoch - 1] == pytest.approx(min(losses), abs=1e-4)
    assert tuple(seen) == trained.curve
    assert len(trained.held_out) == 40


def test_no_loss_falls_below_the_floor():
    frame = table(3000, BINARY, 0)
    trained = train(BINARY, frame, class_chances(frame, 2), TrainingSettings(steps=200))
    assert all(e.validation_loss >= trained.floor - 1e-6 for e in trained.curve)


def test_a_class_that_never_occurs_does_no_harm():
    frame = table(1000, TERNARY, 0)
    soft = np.column_stack([class_chances(frame, 2), np.zeros(1000)])
    trained = train(TERNARY, frame, soft, TrainingSettings(steps=100))
    assert scores(trained, frame)[:, 2].max() < 0.01


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 0}, "batch_size must be a finite number above 0"),
        ({"validation_share": 0.9}, "validation_share must be at most 0.5"),
        ({"hidden": ()}, "hidden must hold widths"),
        ({"dropout": 1.0}, "dropout must be in"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        TrainingSettings(**change)


def test_dropout_trains_too():
    frame = table(1000, BINARY, 0)
    trained = train(BINARY, frame, class_chances(frame, 2), TrainingSettings(steps=50, dropout=0.2))
    assert np.isfinite(scores(trained, frame)).all()


def test_too_few_rows_are_refused():
    frame = table(19, BINARY, 0)
    with pytest.raises(ConfigError, match="19 pooled rows are too few"):
        train(BINARY, frame, class_chances(frame, 2), TrainingSettings())
