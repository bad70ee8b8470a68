import json
from dataclasses import replace

import numpy as np
import pytest

from distill.errors import DataError, ModelError
from server_train.models.model import CARD, WEIGHTS, Model, ModelCard, NetworkScorer, load_model, save_model
from server_train.training.network import TrainingSettings, train
from tests.fakes.hubs import BINARY, TERNARY, class_chances, table


def trained_model(schema):
    frame = table(800, schema, 0)
    settings = TrainingSettings(steps=20, hidden=(16, 8))
    trained = train(schema, frame, class_chances(frame, len(schema.classes)), settings)
    card = ModelCard(
        created="2026-01-01T00:00:00+00:00",
        versions={},
        schema=schema,
        schema_digest=schema.digest(),
        preprocessing=trained.encoder.curves,
        hidden=settings.hidden,
        training={},
    )
    return Model(card, NetworkScorer(trained.encoder, trained.network))


@pytest.fixture(scope="module")
def model():
    return trained_model(BINARY)


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, tmp_path)
    return tmp_path


@pytest.mark.parametrize("schema", [BINARY, TERNARY], ids=["two classes", "three classes"])
def test_a_loaded_model_gives_identical_scores(schema, tmp_path):
    model, rows = trained_model(schema), table(300, schema, 9)
    save_model(model, tmp_path)
    for path in (tmp_path, tmp_path / CARD):
        assert (load_model(path).predict(rows) == model.predict(rows)).all()
    assert load_model(tmp_path).schema == schema


def test_scores_are_probabilities_in_the_order_of_the_rows(model):
    rows = table(200, BINARY, 9)
    scores = model.predict(rows)
    assert scores.sum(axis=1) == pytest.approx(np.ones(200))
    assert model.predict(rows.iloc[::-1])[::-1] == pytest.approx(scores, abs=1e-6)
    assert model.predict(rows.head(0)).shape == (0, 2)


def test_rows_are_scored_in_pieces(model, monkeypatch):
    rows = table(100, BINARY, 9)
    whole = model.predict(rows)
    monkeypatch.setattr("server_train.models.model.PREDICT_ROWS", 7)
    assert model.predict(rows) == pytest.approx(whole, abs=1e-6)


def test_rows_of_another_table_are_refused(model):
    with pytest.raises(DataError, match="columns missing: income"):
        model.predict(table(10, BINARY, 0).drop(columns="income"))


def test_the_files_hold_no_pickle_and_name_each_other(folder):
    card = json.loads((folder / CARD).read_text())
    assert card["schema"]["target"] == "default"
    assert len(card["weights_sha256"]) == 64
    assert not (folder / WEIGHTS).read_bytes().startswith((b"PK", b"\x80"))


def edit(folder, **changes):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / CARD).unlink(), "model.json is missing"),
        (lambda f: (f / WEIGHTS).unlink(), "model.safetensors is missing"),
        (lambda f: (f / CARD).write_text("{"), "not valid JSON"),
        (lambda f: (f / CARD).write_bytes(b"\xff\xfe"), "not valid JSON"),
        (lambda f: (f / CARD).write_text("[]"), "does not describe a model"),
        (lambda f: edit(f, format="other"), "does not describe a model"),
        (lambda f: edit(f, format_version=99), "format version 99"),
        (lambda f: edit(f, format_version="x"), "damaged .see format_version"),
        (lambda f: edit(f, extra=1), "damaged .see extra"),
        (lambda f: edit(f, hidden=[16, 9]), "do not fit together"),
        (lambda f: edit(f, hidden=[10**9, 8]), "layer widths"),
        (lambda f: edit(f, preprocessing={}), "do not fit together"),
        (lambda f: edit(f, schema_digest="0" * 64), "schema digest"),
        (lambda f: (f / WEIGHTS).write_bytes(b"junk"), "its digest differs"),
    ],
)
def test_a_damaged_model_is_refused_with_the_reason(folder, spoil, words):
    spoil(folder)
    with pytest.raises(ModelError, match=words):
        load_model(folder)


def test_no_model_at_all_is_said_plainly(tmp_path):
    with pytest.raises(ModelError, match="no model at"):
        load_model(tmp_path / "nowhere")
    file = tmp_path / "data.csv"
    file.write_text("a,b\n")
    with pytest.raises(ModelError, match="no model at"):
        load_model(file)


def test_weights_that_are_no_tensors_are_refused_even_with_the_right_digest(folder):
    import hashlib

    (folder / WEIGHTS).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!")
    edit(folder, weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())
    with pytest.raises(ModelError, match="do not fit together"):
        load_model(folder)


def test_a_model_of_the_first_format_is_still_read(model, folder):
    """It had networks alone, and no word of a kind."""
    import hashlib

    from safetensors.torch import save

    (folder / WEIGHTS).write_bytes(save(dict(model.scorer.network.state_dict())))
    card = json.loads((folder / CARD).read_text())
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    del card["kind"], card["calibration"]
    (folder / CARD).write_text(json.dumps({**card, "format_version": 1, "weights_sha256": digest}))
    rows = table(100, BINARY, 9)
    assert (load_model(folder).predict(rows) == model.predict(rows)).all()


def test_a_model_is_a_value(model):
    assert replace(model, card=model.card) == model
