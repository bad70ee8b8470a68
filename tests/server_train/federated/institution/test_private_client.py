"""Private clients: they hold no row, train by paid noisy steps, and say which strategies they cannot serve."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from distill.common.keys import SigningKey, generate_key
from distill.data.grids import base_grids
from distill.data.schema import Column, Schema
from distill.data.tables import OTHER, canonical_table
from distill.errors import ConfigError, DataError, UnpaidReadError
from distill.ledger import create_ledger
from distill.privacy.events import epsilon_of
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.releases import lifecycle
from distill.releases import training as private_training
from distill.releases.training import (
    STEPS,
    PrivateSteps,
    PrivateTraining,
    TrainingPlan,
    TrainingRequest,
    begin_training,
    make_training_plan,
)
from server_train.federated.engine.run import RunSettings, run
from server_train.federated.engine.transport import InProcess, NotSent
from server_train.federated.institution.private_client import (
    TUNED,
    PrivateClient,
    agree,
    cell_features,
    noisy_sketch,
    require_private,
)
from server_train.federated.local.client import LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import decode, encode
from server_train.federated.messages.sketches import check_sketch, one_hot, public_curves
from server_train.federated.strategies.catalogue import STRATEGIES, make_strategy
from server_train.models.features import Encoder, class_codes
from tests.fakes.federations import NARROW, SCHEMA, bank

FALSE_ALARM = 1e-6  # chance that correct code fails a statistical test on one fresh seed
QUICK = PrivateSteps(rounds=2, steps=2, scaling=0)
LOCAL = LocalSettings(learning_rate=0.5, epochs=7, batch_size=3)  # epochs and batch size play no part
UNFIT = {"qfedavg", "contribution", "moon"}


class NoNoise(NoiseSource):
    """Answers exactly, and every sample holds every row: for tests of what lies under the noise."""

    def __init__(self, seed: int | None) -> None:
        super().__init__(0)

    def laplace_count(self, count: int, *, scale: float) -> int:
        return count

    def lattice_gaussian(self, size: int, *, stddev: float) -> np.ndarray:
        return np.zeros(size, dtype=np.int64)

    def poisson_sample(self, size: int, *, rate: float) -> np.ndarray:
        return np.arange(size)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return generate_key(tmp_path_factory.mktemp("keys") / "key.pem")


@functools.cache
def known_plan(schema: Schema, noisy_size: int, settings: PrivateSteps) -> TrainingPlan:
    return make_training_plan(schema, noisy_size, settings, epsilon=8.0, delta=1e-5)


@pytest.fixture
def begin(tmp_path: Path, key: SigningKey, monkeypatch):
    """A function that begins a release of epsilon 8, each with a ledger of its own.

    Counts of rows come without noise, so that calibrating a plan, which takes a second, is done once.
    """
    number = iter(range(100))
    monkeypatch.setattr(NoiseSource, "laplace_count", lambda self, count, scale: count)
    monkeypatch.setattr(
        private_training,
        "make_training_plan",
        lambda schema, size, settings, **budget: known_plan(schema, size, settings),
    )

    def begun(frame: pd.DataFrame, settings: PrivateSteps = QUICK, schema: Schema = SCHEMA) -> PrivateTraining:
        ledger = create_ledger(tmp_path / f"{next(number)}.db", dataset="ab" * 16, unit="row", key=key)
        ledger.grant(epsilon=8.0, delta=1e-5, reason="test", actor="officer", key=key)
        return begin_training(
            frame, TrainingRequest(schema=schema, name="bank", epsilon=8.0, delta=1e-5, settings=settings), ledger, key
        )

    return begun


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(lifecycle, "NoiseSource", NoNoise)


ENCODER = Encoder(SCHEMA, public_curves(SCHEMA))
FEATURES = cell_features(ENCODER)
MODEL = Mlp([sum(t.shape[1] for t in FEATURES.values()), 8, 2])
START = MODEL.initial(np.random.default_rng(0))


def client(training: PrivateTraining, number: int = 0, local: LocalSettings = LOCAL) -> PrivateClient:
    return PrivateClient(number, training, FEATURES, MODEL, local)


def test_cells_become_what_the_encoder_makes_of_their_values():
    """Cell by cell as row by row: numbers to within a leaf, categories and missing values exactly."""
    frame = bank(500, 1)
    rows = one_hot(ENCODER.encode(frame), ENCODER.n_codes)
    grids = base_grids(SCHEMA)
    cells = np.hstack([t[grids[i].encode(frame[grids[i].column.name])] for i, t in FEATURES.items()])
    assert cells.shape == rows.shape
    np.testing.assert_allclose(cells, rows, atol=1e-3)
    dense = ENCODER.n_dense
    np.testing.assert_array_equal(cells[:, dense:], rows[:, dense:])


def test_cells_of_unlisted_and_missing_categories_have_features_of_their_own():
    columns = [Column(name="job", kind="categorical", categories=["a", "b"], other=True, nullable=True)]
    schema = Schema(name="s", columns=[*columns, NARROW.columns[1]], target="good")
    (table,) = cell_features(Encoder(schema, {})).values()
    np.testing.assert_array_equal(table, np.eye(4))
    assert base_grids(schema)[0].labels == ["a", "b", OTHER]


def test_a_client_holds_no_row_and_states_the_noisy_count(begin, monkeypatch):
    monkeypatch.setattr(NoiseSource, "laplace_count", lambda self, count, scale: count + 50)
    one = client(begin(bank(300, 0)))
    assert one.rows == 350
    for name in ("x", "y"):
        with pytest.raises(ConfigError, match="it holds no rows"):
            getattr(one, name)
    assert not hasattr(one, "z")
    assert repr(one) == "PrivateClient(number=0, rows=350, steps_left=4)"
    assert not [v for v in vars(one).values() if isinstance(v, np.ndarray | pd.DataFrame)]


def test_what_the_plan_fixes_is_taken_from_the_plan(begin):
    one = client(begin(bank(300, 0), PrivateSteps(rounds=3, steps=4, batch_size=60, scaling=0)))
    assert (one.settings.steps, one.settings.batch_size, one.settings.learning_rate) == (4, 60, 0.5)
    assert one.train(START).steps == 4
    assert one.work == 4 * 60


def test_without_noise_or_clipping_a_step_is_one_of_plain_gradient_descent(begin, exact):
    frame = bank(300, 2)
    one = client(begin(frame, PrivateSteps(rounds=1, steps=3, clip_norm=50.0, scaling=0)))
    x, y = one_hot(ENCODER.encode(frame), ENCODER.n_codes), class_codes(SCHEMA, frame)
    weights = START.copy()
    for _ in range(3):
        weights -= 0.5 * MODEL.gradient(weights, x, y)
    np.testing.assert_allclose(one.train(START).weights, weights, atol=2e-4)


def test_momentum_decay_and_correction_act_as_for_any_client(begin, exact):
    frame = bank(300, 2)
    local = LocalSettings(learning_rate=0.3, momentum=0.5, weight_decay=0.1)
    one = client(begin(frame, PrivateSteps(rounds=1, steps=2, clip_norm=50.0, scaling=0)), local=local)
    x, y = one_hot(ENCODER.encode(frame), ENCODER.n_codes), class_codes(SCHEMA, frame)
    weights, velocity = START.copy(), np.zeros_like(START)
    for _ in range(2):
        velocity = 0.5 * velocity + MODEL.gradient(weights, x, y) + 0.2 * (weights - START) + 0.1 * weights
        weights -= 0.3 * velocity
    got = one.train(START, correction=lambda w: 0.2 * (w - START))
    np.testing.assert_allclose(got.weights, weights, atol=2e-4)


def test_one_huge_row_moves_a_step_by_at_most_the_clip_norm(begin, exact):
    """Features of a million in one row: its gradient has a norm beyond 1e5, and moves the sum by 0.5."""
    frame = pd.DataFrame({"amount": np.append(np.linspace(0.0, 100.0, 400), 250.0), "good": "no"})
    model = Mlp([2, 4, 2])
    start = model.initial(np.random.default_rng(1))
    cells = base_grids(NARROW)[0].cells
    table = {0: np.where(np.arange(cells)[:, None] == cells - 1, 1e6, 0.1) * np.ones((1, 2))}
    sums = []
    for rows in (frame, frame.head(400)):
        settings = PrivateSteps(rounds=1, steps=1, clip_norm=0.5, scaling=0)
        training = begin(canonical_table(rows, NARROW), settings, NARROW)
        one = PrivateClient(0, training, table, model, LocalSettings(learning_rate=1.0))
        sums.append((start - one.train(start).weights).astype(float) * one.rows)
    x, y = np.full((1, 2), 1e6, np.float32), np.array([0])
    assert np.linalg.norm(model.gradient(start, x, y)) > 1e5
    assert np.linalg.norm(sums[0] - sums[1]) == pytest.approx(0.5, rel=1e-2)


def test_a_step_carries_noise_of_the_planned_spread(begin, monkeypatch):
    """Chi-square over all weights and steps: correct code fails once in 1e6 runs."""
    training = begin(bank(300, 0), PrivateSteps(rounds=20, steps=1, clip_norm=0.7, scaling=0))
    one = client(training)
    monkeypatch.setattr(NoiseSource, "poisson_sample", lambda self, size, *, rate: np.zeros(0, dtype=np.int64))
    moved = np.concatenate([(one.train(START).weights - START).astype(float) for _ in range(20)])
    event = training.plan.event(STEPS)
    noise = moved / 0.5 * event.sampling_rate * training.rows / (event.noise_multiplier * 0.7)
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=noise.size)
    assert low < np.square(noise).sum() < high
    assert noise.size == 20 * MODEL.size


def test_a_client_stops_when_its_steps_are_taken_and_reads_no_more(begin, monkeypatch):
    one = client(begin(bank(300, 0)))
    for _ in range(2):
        one.train(START)
    for ask in (one.train, one.gradient):
        with pytest.raises(NotSent, match="client 0 has taken all the steps that its budget pays for"):
            ask(START)
    monkeypatch.setattr(PrivateTable, "_records", lambda *chosen: pytest.fail("a row was looked at"))
    with pytest.raises(UnpaidReadError, match="all are used"):
        one.training.gradient(MODEL.layers(START))
    assert one.training.reads == {"size": 1, STEPS: 4}


def test_a_full_gradient_is_the_mean_of_a_rounds_noisy_ones(begin, exact):
    frame = bank(300, 2)
    one = client(begin(frame, PrivateSteps(rounds=1, steps=3, clip_norm=50.0, scaling=0)))
    x, y = one_hot(ENCODER.encode(frame), ENCODER.n_codes), class_codes(SCHEMA, frame)
    np.testing.assert_allclose(one.gradient(START), MODEL.gradient(START, x, y), atol=2e-4)
    assert one.training.steps_left == 0


def test_losses_and_representations_of_rows_are_refused(begin):
    one = client(begin(bank(300, 0)))
    with pytest.raises(ConfigError, match="nothing pays for a loss"):
        one.loss(START)
    with pytest.raises(ConfigError, match="is not clipped row by row"):
        one.train(START, pull=lambda x: pytest.fail("a row was looked at"))
    assert one.training.reads == {"size": 1}


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_runs_on_private_clients_or_is_refused_with_the_reason(name, begin):
    if name in UNFIT:
        with pytest.raises(ConfigError, match=r"pays for gradients only|does not cover"):
            require_private(make_strategy(name))
        return
    strategy = make_strategy(name)
    require_private(strategy)
    clients = [client(begin(bank(300, i)), i) for i in range(2)]
    record = run(strategy, InProcess(clients, strategy), START, RunSettings(rounds=2), lambda w: {})
    answers = [i for r in record for i in r.participants]
    assert len(answers) >= 2
    assert not np.array_equal(strategy.weights, START)
    for one in clients:
        assert one.training.reads[STEPS] == 2 * answers.count(one.number)


def test_every_tuned_strategy_can_be_made_and_serves_private_clients():
    assert set(TUNED) == set(STRATEGIES) - UNFIT
    for name, tuned in TUNED.items():
        require_private(make_strategy(name, tuned.options))
        LocalSettings(learning_rate=tuned.learning_rate)


def test_rounds_beyond_the_plan_find_nobody_and_say_why(begin):
    strategy = make_strategy("fedavg")
    clients = [client(begin(bank(300, i)), i) for i in range(2)]
    with pytest.raises(DataError, match="has taken all the steps that its budget pays for"):
        run(strategy, InProcess(clients, strategy), START, RunSettings(rounds=20), lambda w: {})
    assert [one.training.reads[STEPS] for one in clients] == [4, 4]


def test_the_noisy_sketch_is_one_that_the_server_takes(begin):
    training = begin(bank(600, 0), PrivateSteps(rounds=1, steps=1, scaling=0.2))
    message = decode(encode(noisy_sketch(training)))
    check_sketch(SCHEMA, message)
    assert message.tensors["classes"].sum() == pytest.approx(600, rel=0.3)
    assert training.reads["training.classes"] == 1


def test_clients_agree_on_scaling_by_what_they_released(begin):
    frames = [bank(1500, i) for i in range(2)]
    trainings = [begin(frame, PrivateSteps(rounds=1, steps=1, scaling=0.5)) for frame in frames]
    agreed = agree(trainings)
    assert len(agreed.up) == 2
    assert min(agreed.up) > 65 * 4 * len(agreed.encoder.numbers)
    assert agreed.down > 0
    positives = np.concatenate([class_codes(SCHEMA, f) for f in frames]).mean()
    assert agreed.prior[1] == pytest.approx(positives, abs=0.03)
    ranks = agreed.encoder.encode(pd.concat(frames, ignore_index=True)).dense[:, 0]
    plain = ENCODER.encode(pd.concat(frames, ignore_index=True)).dense[:, 0]
    assert abs(ranks.mean()) < 0.1 < abs(plain.mean())  # public bounds alone are lopsided
    assert abs(ranks.std() - 1) < 0.15


@pytest.mark.parametrize("batch_size", [0, 100])
def test_a_private_run_learns_and_its_ledgers_add_up(begin, batch_size):
    frames, test = [bank(2000, i) for i in range(3)], bank(1500, 4)
    settings = PrivateSteps(rounds=8, steps=3, batch_size=batch_size, scaling=0.05)
    trainings = [begin(frame, settings) for frame in frames]
    agreed = agree(trainings)
    features = cell_features(agreed.encoder)
    local = LocalSettings(learning_rate=2.0)
    clients = [PrivateClient(i, t, features, MODEL, local) for i, t in enumerate(trainings)]
    x, y = one_hot(agreed.encoder.encode(test), agreed.encoder.n_codes), class_codes(SCHEMA, test)
    strategy = make_strategy("fedavg")
    record = run(
        strategy,
        InProcess(clients, strategy),
        MODEL.initial(np.random.default_rng(0), agreed.prior),
        RunSettings(rounds=8),
        lambda w: {"auc": float(roc_auc_score(y, MODEL.probabilities(w, x)[:, 1]))},
    )
    assert record[-1].metrics["auc"] > 0.65
    for one in clients:
        digest = one.finish()
        (release,) = one.training.reservation.ledger.summary().releases
        assert (release.status, release.bundle) == ("committed", digest)
        assert epsilon_of(release.events, 1e-5) <= 8.0
        assert one.training.reads == {e.name: e.count for e in release.events}


def test_a_client_with_one_class_takes_part(begin):
    frame = bank(1500, 0)
    only = frame[class_codes(SCHEMA, frame) == 1].head(150)
    trainings = [
        begin(only, PrivateSteps(rounds=2, steps=1, scaling=0.05)),
        begin(bank(300, 1), PrivateSteps(rounds=2, steps=1)),
    ]
    agreed = agree(trainings)
    features = cell_features(agreed.encoder)
    clients = [PrivateClient(i, t, features, MODEL, LOCAL) for i, t in enumerate(trainings)]
    strategy = make_strategy("fedadam")
    record = run(strategy, InProcess(clients, strategy), START, RunSettings(rounds=2), lambda w: {})
    assert record[-1].participants == (0, 1)
    assert np.isfinite(strategy.weights).all()


def test_training_that_diverges_is_told_in_words(begin):
    one = client(begin(bank(300, 0)), local=LocalSettings(learning_rate=1e38, weight_decay=1e6))
    with pytest.raises(DataError, match="client 0: training diverged"):
        one.train(START)
