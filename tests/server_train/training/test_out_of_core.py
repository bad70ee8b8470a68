import numpy as np
import pandas as pd
import pytest
import torch

from distill.data.schema import Schema
from distill.errors import ConfigError, DataError
from server_train.evaluation.metrics import evaluate_scores
from server_train.models.features import class_codes, fit_encoder
from server_train.models.model import probabilities
from server_train.pooling.pool_file import PoolCard, open_pool, writing_pool
from server_train.training import fit, out_of_core, rows
from server_train.training.boosting import BoostingSettings
from server_train.training.fit import ModelChoice, fit_stored
from server_train.training.network import TrainingSettings, fit_network
from server_train.training.out_of_core import fitting, train_stored
from server_train.training.rows import MemoryRows
from tests.fakes.hubs import BINARY, TERNARY, class_chances, table
from tests.fakes.pools import NO_COST, stored_pool
from tests.fakes.registries import institution

QUICK = TrainingSettings(steps=100, dropout=0.2)


def scores(trained, frame):
    return probabilities(trained.network, trained.encoder.encode(frame))


@pytest.mark.parametrize(
    ("schema", "weights"),
    [(BINARY, 1.0), (TERNARY, np.array([0.5, 2.0, 3.0]))],
    ids=["two classes", "three classes, weighted"],
)
def test_a_pool_on_disk_trains_the_network_that_its_rows_train_in_memory(tmp_path, schema, weights):
    """Two routes to one network: the same rows held out, the same encoder, order and dropout."""
    pool = stored_pool(tmp_path / "p.parquet", schema, 3000)
    done = train_stored(pool, QUICK, scratch=tmp_path, weights=weights)
    trained = done.trained
    frame, soft = pool.rows(0, 3000)
    labels = (soft * weights).astype(np.float32)
    encoder = fit_encoder(schema, frame[:2700])
    assert encoder.curves == trained.encoder.curves
    inputs = encoder.encode(frame)
    held_out = tuple(torch.from_numpy(v[2700:]) for v in (inputs.dense, inputs.codes, labels))
    used = MemoryRows(inputs.dense[:2700], inputs.codes[:2700], labels[:2700])
    prior = (soft * weights)[:2700].sum(axis=0, dtype=float) / 2700
    wanted = fit_network(encoder, used, held_out, prior=prior, settings=QUICK)
    assert trained.curve == wanted.curve
    assert (scores(trained, frame) == probabilities(wanted.network, inputs)).all()
    assert trained.held_out.tolist() == list(range(2700, 3000))
    pd.testing.assert_frame_equal(done.held_out_rows, frame[2700:].reset_index(drop=True))
    assert (done.held_out_labels == soft[2700:]).all()


def test_a_pool_of_many_blocks_reaches_the_true_ranking(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 500)
    monkeypatch.setattr(rows, "BUFFER_BLOCKS", 4)
    pool = stored_pool(tmp_path / "p.parquet", BINARY, 8000)
    trained = train_stored(pool, TrainingSettings(steps=400), scratch=tmp_path).trained
    fresh = table(4000, BINARY, 9)
    labels = class_codes(BINARY, fresh)
    best = evaluate_scores(labels, class_chances(fresh, 2), BINARY.classes).roc_auc
    assert evaluate_scores(labels, scores(trained, fresh), BINARY.classes).roc_auc > best - 0.015


def test_the_same_seed_trains_the_same_network_and_leaves_nothing_behind(tmp_path):
    pool = stored_pool(tmp_path / "p.parquet", BINARY, 1000)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    one, two = (train_stored(pool, QUICK, scratch=scratch).trained for _ in range(2))
    frame = pool.rows(0, 100)[0]
    assert (scores(one, frame) == scores(two, frame)).all()
    assert list(scratch.iterdir()) == []


def test_encoded_rows_have_no_name_while_training_so_a_killed_one_leaves_none(tmp_path):
    pool = stored_pool(tmp_path / "p.parquet", BINARY, 1000)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    seen = []
    train_stored(pool, QUICK, scratch=scratch, on_epoch=lambda epoch: seen.append(list(scratch.iterdir())))
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("kind", ["numbers", "categories"])
def test_rows_of_one_kind_of_column_train_too(tmp_path, kind):
    column = {
        "numbers": {"name": "x", "kind": "continuous", "min": 0, "max": 1},
        "categories": {"name": "x", "kind": "categorical", "categories": ["a", "b"]},
    }[kind]
    target = {"name": "y", "kind": "categorical", "categories": [0, 1]}
    schema = Schema.model_validate({"name": "t", "target": "y", "columns": [column, target]})
    chance = np.random.default_rng(0).random(2000)
    x = chance if kind == "numbers" else np.where(chance < 0.5, "a", "b").astype(object)
    frame = pd.DataFrame({"x": x, "y": (chance > 0.5).astype(int)})
    card = PoolCard(schema=schema, rows=2000, class_prior=(0.5, 0.5), institutions=[institution()], privacy=NO_COST)
    with writing_pool(tmp_path / "p.parquet", card) as writer:
        writer.write(frame, np.column_stack([1 - chance, chance]))
    trained = train_stored(open_pool(tmp_path / "p.parquet"), QUICK, scratch=tmp_path).trained
    assert evaluate_scores(frame["y"].to_numpy(), scores(trained, frame), schema.classes).roc_auc > 0.98


def test_a_damaged_row_group_ends_the_training(tmp_path):
    pool = stored_pool(tmp_path / "p.parquet", BINARY, 1000)
    data = bytearray(pool.path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 400] = bytes(400)
    pool.path.write_bytes(data)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(DataError, match="damaged"):
        train_stored(open_pool(pool.path), QUICK, scratch=scratch)
    assert list(scratch.iterdir()) == []


def test_too_few_rows_are_refused(tmp_path):
    pool = stored_pool(tmp_path / "p.parquet", BINARY, 19)
    with pytest.raises(ConfigError, match="19 pooled rows are too few"):
        train_stored(pool, QUICK, scratch=tmp_path)


def test_large_pools_are_taken_in_large_batches_and_few_passes():
    settings = TrainingSettings()
    assert fitting(settings, 999_999) == settings
    large = fitting(settings, 10_000_000)
    assert (large.batch_size, large.epochs(10_000_000)) == (out_of_core.LARGE_BATCH, 5)
    assert settings.epochs(180_000) == 10
    assert fitting(TrainingSettings(batch_size=50_000), 10_000_000).batch_size == 50_000


@pytest.mark.parametrize("kind", ["mlp", "logistic", "boosting"])
def test_every_kind_of_model_learns_from_a_pool_on_disk(tmp_path, monkeypatch, kind):
    """A network from all its rows, the others from as many as memory is meant to hold; weights of classes are calibrated away."""
    monkeypatch.setattr(fit, "IN_MEMORY", 3000)
    pool = stored_pool(tmp_path / "p.parquet", BINARY, 6000)
    choice = ModelChoice(kind=kind, class_weights="balanced", boosting=BoostingSettings(iterations=60))
    fitted = fit_stored(pool, TrainingSettings(steps=300), choice, scratch=tmp_path)
    assert fitted.rows == (6000 if kind == "mlp" else 3000)
    assert fitted.weights[1] > 1.2 * fitted.weights[0]
    fresh = pool.rows(0, 6000)[0]
    chances = fitted.scorer.probabilities(fresh)
    assert chances.mean(axis=0) == pytest.approx(pool.card.class_prior, abs=0.02)
    labels = class_codes(BINARY, fresh)
    best = evaluate_scores(labels, pool.rows(0, 6000)[1].astype(float), BINARY.classes).roc_auc
    assert evaluate_scores(labels, chances, BINARY.classes).roc_auc > best - 0.03
