"""Federated training under a budget: planned and charged before it reads, noise as planned, nothing answered beyond it."""

import dataclasses
import functools
import hashlib
import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from distill.common.keys import SigningKey, generate_key
from distill.data.grids import base_grids
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.errors import BudgetError, ConfigError, SchemaError, UnpaidReadError
from distill.ledger import Ledger, create_ledger, open_ledger
from distill.privacy.events import epsilon_of
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Network, Records
from distill.releases import lifecycle
from distill.releases import training as private_training
from distill.releases.training import (
    CLASSES,
    STEPS,
    PrivateSteps,
    PrivateTraining,
    TrainingPlan,
    TrainingRequest,
    begin_training,
    make_training_plan,
)
from tests.fakes.private_tables import (
    EVERY_KIND,
    FALSE_ALARM,
    NoNoise,
    OneByOne,
    OnlySamples,
    every_kind,
    integer,
    number,
    schema_of,
)

ROWS = 600
QUICK = PrivateSteps(rounds=2, steps=2, scaling=0.05)
REQUEST = TrainingRequest(schema=EVERY_KIND, name="bank", epsilon=4.0, delta=1e-5, settings=QUICK)
FRAME = canonical_table(every_kind(ROWS, 0), EVERY_KIND)
GRIDS = base_grids(EVERY_KIND)
RANKS = np.linspace(0, 1, 9)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return generate_key(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture
def ledger(tmp_path, key) -> Ledger:
    """With a grant for one release of `REQUEST`."""
    ledger = create_ledger(tmp_path / "ledger.db", dataset="ab" * 16, unit="row", key=key)
    ledger.grant(epsilon=4.0, delta=1e-5, reason="test", actor="officer", key=key)
    return ledger


@functools.cache
def known_plan(schema: Schema, noisy_size: int, settings: PrivateSteps) -> TrainingPlan:
    return make_training_plan(schema, noisy_size, settings, epsilon=4.0, delta=1e-5)


@pytest.fixture(autouse=True)
def quick_plans(monkeypatch):
    """Counts of rows come without noise, so that calibrating a plan, which takes a second, is done once."""
    monkeypatch.setattr(NoiseSource, "laplace_count", lambda self, count, scale: count)
    monkeypatch.setattr(
        private_training,
        "make_training_plan",
        lambda schema, size, settings, **budget: known_plan(schema, size, settings),
    )


@pytest.fixture
def exact(monkeypatch):
    """Answers without noise, to look at what lies under it."""
    monkeypatch.setattr(lifecycle, "NoiseSource", lambda seed: NoNoise())


def features(width: int = 1, value: float = 1.0) -> dict[int, np.ndarray]:
    """The first column's cells as constant features."""
    return {0: np.full((GRIDS[0].cells, width), value)}


def layers_for(width: int) -> list[np.ndarray]:
    """A model that is sure of a third class, which no row has: what a row's gradient is, `means_in` says."""
    return [np.zeros((width, 3)), np.array([0.0, 0.0, 1e4])]


def means_in(gradient: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Of a gradient at `layers_for`: means over rows of their features, of their classes and of one.

    That is where no row is clipped: a row's gradient is as long as the root of twice its squared features and one.
    """
    weight, bias = gradient[: 3 * width].reshape(width, 3), gradient[3 * width :]
    return weight[:, 2], -bias[:2], float(bias[2])


@pytest.fixture
def no_row_may_be_seen(monkeypatch):
    """A function after whose call every look at a row fails the test."""

    def forbid() -> None:
        def seen(self: Network, records: Records) -> None:
            raise AssertionError("a row was looked at before it was paid for")

        monkeypatch.setattr(Network, "factors", seen)

    return forbid


def status(ledger: Ledger) -> str:
    (release,) = ledger.summary().releases
    return release.status


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        PrivateSteps(scaling=0),
        PrivateSteps(rounds=40, steps=3, batch_size=100),
        PrivateSteps(rounds=1, steps=1, batch_size=10**6, clip_norm=0.1),
    ],
)
@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-6), (2.0, 1e-5)])
def test_a_plan_costs_the_grant_or_just_under(settings, epsilon, delta):
    plan = make_training_plan(EVERY_KIND, 5000, settings, epsilon=epsilon, delta=delta)
    assert 0.99 * epsilon < plan.joint_epsilon <= epsilon
    steps = plan.event(STEPS)
    assert steps.count == settings.rounds * settings.steps
    assert steps.sampling_rate == min(1.0, settings.batch_size / 5000 or 1.0)
    assert plan.has(CLASSES) == (settings.scaling > 0)


def test_steps_on_all_rows_cost_what_one_gaussian_of_their_joint_precision_costs():
    plan = make_training_plan(EVERY_KIND, 5000, PrivateSteps(rounds=30, steps=1, scaling=0), epsilon=2.0, delta=1e-5)
    size, steps = plan.events
    one = steps.model_copy(
        update={"mechanism": "gaussian", "count": 1, "noise_multiplier": steps.noise_multiplier / 30**0.5}
    )
    assert plan.joint_epsilon == pytest.approx(epsilon_of([size, one], 1e-5), rel=1e-9)


def test_a_larger_share_for_scaling_leaves_more_noise_on_the_steps():
    plans = [
        make_training_plan(EVERY_KIND, 5000, PrivateSteps(scaling=share), epsilon=2.0, delta=1e-5)
        for share in (0.02, 0.3)
    ]
    few, many = (p.event(STEPS).noise_multiplier for p in plans)
    assert few < many
    assert plans[0].event(CLASSES).noise_multiplier > plans[1].event(CLASSES).noise_multiplier


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rounds": 0}, "rounds must be"),
        ({"steps": 0}, "steps must be"),
        ({"clip_norm": float("nan")}, "clip_norm must be"),
        ({"batch_size": -1}, "batch_size must be at least 0"),
        ({"scaling": 1.0}, "the rest pays for the steps"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        PrivateSteps(**wrong)


def test_the_ledgers_entries_say_what_the_run_costs(ledger, key):
    training = begin_training(FRAME, REQUEST, ledger, key)
    (release,) = open_ledger(ledger.path).summary().releases
    assert release.events == training.plan.events
    assert epsilon_of(release.events, release.delta) == pytest.approx(training.plan.joint_epsilon, rel=1e-12)
    assert release.epsilon_release <= release.epsilon == 4.0
    assert (release.status, release.rehearsal) == ("planned", False)
    assert ledger.verify(key.public_hex).releases[0].epsilon_pld == pytest.approx(training.plan.joint_epsilon, rel=1e-6)


def test_a_whole_run_reads_as_planned_and_commits_the_digest_of_its_answers(ledger, key):
    training = begin_training(FRAME, REQUEST, ledger, key)
    training.sketch(RANKS)
    training.sketch(RANKS[:3])  # what was counted once is not counted again
    training.featurise(features(3))
    for left in (4, 3, 2, 1):
        assert training.steps_left == left
        training.gradient(layers_for(3))
    assert training.reads == {e.name: e.count for e in training.plan.events}
    digest = training.finish()
    (release,) = ledger.summary().releases
    assert (release.status, release.bundle) == ("committed", digest)
    assert training.finish() == digest
    ledger.verify(key.public_hex)


def test_the_digest_is_of_every_answer_in_turn(ledger, key, monkeypatch):
    answers = []
    answer = PrivateTable.noisy_gradient
    monkeypatch.setattr(PrivateTable, "noisy_gradient", lambda *args: answers.extend(answer(*args)) or answers[-1:])
    training = begin_training(
        FRAME, dataclasses.replace(REQUEST, settings=PrivateSteps(rounds=2, steps=1, scaling=0)), ledger, key
    )
    training.featurise(features(3))
    for _ in range(2):
        training.gradient(layers_for(3))
    said = str(training.rows).encode() + b"".join(a.tobytes() for a in answers)
    assert training.finish() == hashlib.sha256(said).hexdigest()


def test_nothing_is_answered_beyond_the_plan(ledger, key, no_row_may_be_seen):
    training = begin_training(FRAME, REQUEST, ledger, key)
    training.featurise(features())
    for _ in range(4):
        training.gradient(layers_for(1))
    no_row_may_be_seen()
    with pytest.raises(UnpaidReadError, match=r"pays for 4 read\(s\), and all are used"):
        training.gradient(layers_for(1))
    assert training.reads[STEPS] == 4


def test_nothing_is_answered_once_the_release_is_finished(ledger, key, no_row_may_be_seen):
    training = begin_training(FRAME, REQUEST, ledger, key)
    training.featurise(features())
    training.gradient(layers_for(1))
    training.finish()
    no_row_may_be_seen()
    for read in (lambda: training.gradient(layers_for(1)), lambda: training.sketch(RANKS)):
        with pytest.raises(UnpaidReadError, match="finished: nothing more is answered"):
            read()
    assert training.steps_left == 0
    assert training.reads == {"size": 1, STEPS: 1}


def test_no_row_is_read_without_a_planned_event(ledger, key, no_row_may_be_seen):
    """A door whose reservation holds round 0 only answers nothing of the later rounds."""
    training = begin_training(FRAME, REQUEST, ledger, key)
    training.reservation.events = training.reservation.events[:1]
    training.featurise(features())
    no_row_may_be_seen()
    for read in (lambda: training.gradient(layers_for(1)), lambda: training.sketch(RANKS)):
        with pytest.raises(UnpaidReadError, match="no reserved event"):
            read()
    assert training.reads == {"size": 1}


def test_a_run_that_the_grant_does_not_cover_reads_nothing(ledger, key, monkeypatch):
    def unread(*arguments: object) -> None:
        raise AssertionError("the rows were entered before anything was reserved")

    monkeypatch.setattr(lifecycle, "PrivateTable", unread)
    with pytest.raises(BudgetError, match="asks for epsilon 5"):
        begin_training(FRAME, dataclasses.replace(REQUEST, epsilon=5.0), ledger, key)
    assert not ledger.summary().releases


def test_a_schema_that_nobody_confirmed_is_refused_before_anything_is_charged(ledger, key):
    columns = [c.model_copy(update={"from_data": c.name == "age"}) for c in EVERY_KIND.columns]
    draft = EVERY_KIND.model_copy(update={"columns": tuple(columns)})
    with pytest.raises(SchemaError, match="age"):
        begin_training(FRAME, dataclasses.replace(REQUEST, schema=draft), ledger, key)
    assert not ledger.summary().releases


def test_too_few_rows_end_the_release_with_only_the_count_charged(ledger, key, exact):
    with pytest.raises(BudgetError, match=r"below 50: too few to train .* Only the row count"):
        begin_training(FRAME.head(30), REQUEST, ledger, key)
    (release,) = ledger.summary().releases
    assert (release.status, release.epsilon_release) == ("abandoned", pytest.approx(0.04))


@pytest.mark.parametrize("at", ["plan", "sketch", "gradient"])
def test_a_process_that_dies_leaves_its_whole_reservation_spent(ledger, key, monkeypatch, at):
    def dies(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    if at == "plan":
        monkeypatch.setattr(private_training, "make_training_plan", dies)
        with pytest.raises(KeyboardInterrupt):
            begin_training(FRAME, REQUEST, ledger, key)
    else:
        training = begin_training(FRAME, REQUEST, ledger, key)
        training.featurise(features())
        monkeypatch.setattr(NoiseSource, "gaussian_counts" if at == "sketch" else "lattice_gaussian", dies)
        with pytest.raises(KeyboardInterrupt):
            training.sketch(RANKS) if at == "sketch" else training.gradient(layers_for(1))
    books = open_ledger(ledger.path).summary()
    assert books.releases[0].stands
    assert (books.spent_epsilon, books.spent_delta) == (4.0, 1e-5)
    with pytest.raises(BudgetError, match="1 unfinished release"):
        begin_training(FRAME, REQUEST, ledger, key)


def test_a_rehearsal_repeats_itself_and_says_so(tmp_path, key):
    said = []
    for name in ("a", "b"):
        ledger = create_ledger(tmp_path / name, dataset="ab" * 16, unit="row", key=key)
        ledger.grant(epsilon=4.0, delta=1e-5, reason="test", actor="officer", key=key)
        training = begin_training(FRAME, dataclasses.replace(REQUEST, rehearsal=7), ledger, key)
        training.sketch(RANKS)
        training.featurise(features(2))
        said.append((training.rows, training.gradient(layers_for(2)).tolist(), training.finish()))
        assert training.rehearsal
        assert ledger.summary().releases[0].rehearsal
        assert ledger.summary().spent_epsilon == 0
    assert said[0] == said[1]


def test_without_a_rehearsal_no_two_runs_are_alike(tmp_path, key):
    said = []
    for name in ("a", "b"):
        ledger = create_ledger(tmp_path / name, dataset="ab" * 16, unit="row", key=key)
        ledger.grant(epsilon=4.0, delta=1e-5, reason="test", actor="officer", key=key)
        training = begin_training(FRAME, REQUEST, ledger, key)
        training.featurise(features(2))
        said.append(training.gradient(layers_for(2)))
        assert not training.rehearsal
    assert (said[0] != said[1]).all()


def with_noise(ledger: Ledger, key: SigningKey, settings: PrivateSteps) -> PrivateTraining:
    return begin_training(FRAME, dataclasses.replace(REQUEST, settings=settings), ledger, key)


def test_a_step_carries_the_planned_noise_over_the_expected_rows(ledger, key):
    """Chi-square, `size` degrees of freedom: correct code fails once in 1e6 runs; a stddev 3% off passes once in 1e9."""
    hidden, clip_norm = 12_000, 0.5
    training = with_noise(ledger, key, PrivateSteps(rounds=1, steps=1, batch_size=200, clip_norm=clip_norm, scaling=0))
    training.featurise(features())
    silent = [np.zeros((1, hidden)), np.zeros(hidden), np.zeros((hidden, 3)), np.zeros(3)]  # only its last biases learn
    got = training.gradient(silent)
    event = training.plan.event(STEPS)
    expected_rows = event.sampling_rate * training.rows
    assert expected_rows == pytest.approx(200)
    assert got.size == 5 * hidden + 3
    noise = got[:-3] * expected_rows / (event.noise_multiplier * clip_norm)
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=noise.size)
    assert low < np.square(noise).sum() < high


def test_sampling_and_normaliser_use_the_noisy_count_not_the_real_one(ledger, key, monkeypatch):
    """The released count is made 1.5 times the real one: the rate falls, the normaliser stays the batch size."""
    monkeypatch.setattr(NoiseSource, "laplace_count", lambda self, count, scale: count + count // 2)
    monkeypatch.setattr(NoiseSource, "lattice_gaussian", OnlySamples.lattice_gaussian)
    training = with_noise(ledger, key, PrivateSteps(rounds=300, steps=1, batch_size=90, clip_norm=4.0, scaling=0))
    training.featurise(features())
    assert training.rows == 900
    assert training.plan.event(STEPS).sampling_rate == 0.1
    shares = np.array([means_in(training.gradient(layers_for(1)), 1)[2] for _ in range(300)])
    seen = np.rint(90 * shares)
    np.testing.assert_allclose(90 * shares, seen, atol=1e-3)
    low, high = scipy.stats.binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], 300 * ROWS, 0.1)
    assert low <= sum(seen) <= high
    assert np.var(seen) > 0  # Poisson samples, not batches of one size


def test_a_sum_is_divided_by_the_rows_that_the_noisy_count_makes_one_expect(ledger, key, monkeypatch):
    monkeypatch.setattr(NoiseSource, "laplace_count", lambda self, count, scale: count + count // 2)
    monkeypatch.setattr(NoiseSource, "lattice_gaussian", NoNoise.lattice_gaussian)
    monkeypatch.setattr(NoiseSource, "poisson_sample", NoNoise.poisson_sample)
    for batch_size, expected_rows in ((90, 90), (0, 900), (5000, 900)):
        settings = PrivateSteps(rounds=1, steps=1, batch_size=batch_size, clip_norm=4.0, scaling=0)
        ledger.grant(epsilon=20.0, delta=1e-4, reason="test", actor="officer", key=key)
        training = with_noise(ledger, key, settings)
        training.featurise(features())
        value, _, one = means_in(training.gradient(layers_for(1)), 1)
        assert value.item() == pytest.approx(one) == pytest.approx(600 / expected_rows, rel=1e-4)


def test_one_outlier_moves_the_sum_by_at_most_the_clip_norm(key, exact, tmp_path):
    """The same rows, and one more whose feature is as large as there may be: of it alone the model is wrong, and sure."""
    schema = schema_of(number("ratio", 0, 1))
    rows = pd.DataFrame({"ratio": np.append(np.linspace(0, 0.5, 500), 1.0), "label": 0})
    layers, sums = [np.array([[-4.0, 4.0]]), np.array([6.9, 0.0])], []
    for frame in (rows, rows.head(500)):
        one = create_ledger(tmp_path / f"{len(frame)}.db", dataset="ab" * 16, unit="row", key=key)
        one.grant(epsilon=4.0, delta=1e-5, reason="test", actor="officer", key=key)
        settings = PrivateSteps(rounds=1, steps=1, clip_norm=0.25, scaling=0)
        request = dataclasses.replace(REQUEST, schema=schema, settings=settings)
        training = begin_training(canonical_table(frame, schema), request, one, key)
        cells = 65_536
        training.featurise({0: np.where(np.arange(cells)[:, None] == cells - 1, 1e6, 2.0**-10)})
        sums.append(training.gradient(layers) * training.rows)
    assert np.linalg.norm(sums[0] - sums[1]) == pytest.approx(0.25, rel=1e-3)
    doubt = 1 / (1 + np.exp(6.9 - 8 * 2.0**-10))  # of the class that all rows have: short of the clip norm
    np.testing.assert_allclose(sums[1][2:], [-500 * doubt, 500 * doubt], rtol=1e-3)


def test_gradients_see_features_in_their_order_and_the_class_apart(ledger, key, monkeypatch):
    """Row by row."""
    monkeypatch.setattr(lifecycle, "NoiseSource", lambda seed: OneByOne())
    training = with_noise(ledger, key, PrivateSteps(rounds=ROWS, steps=1, clip_norm=64.0, scaling=0))
    late, home = 3, 6
    tables = {home: np.arange(GRIDS[home].cells)[:, None] * 1.0, late: np.eye(GRIDS[late].cells)}
    training.featurise(tables)
    width = 1 + GRIDS[late].cells
    seen = [means_in(ROWS * training.gradient(layers_for(width)), width) for _ in range(ROWS)]
    x, classes, ones = (np.array(part) for part in zip(*seen, strict=True))
    np.testing.assert_allclose(ones, 1, atol=1e-3)
    np.testing.assert_allclose(x[:, 0], FRAME["home"].astype(str).astype(int), atol=1e-2)
    cells = np.where(FRAME["late"].isna(), GRIDS[late].cells - 1, FRAME["late"].fillna(0)).astype(int)
    np.testing.assert_allclose(x[:, 1:], np.eye(GRIDS[late].cells)[cells], atol=1e-2)
    np.testing.assert_allclose(classes, np.eye(2)[FRAME["label"].astype(str).astype(int)], atol=1e-3)


def test_a_gradient_is_that_of_the_mean_loss_laid_out_as_the_layers_are(ledger, key, exact):
    """Two hidden layers, against autograd in float64."""
    training = with_noise(ledger, key, PrivateSteps(rounds=1, steps=1, clip_norm=64.0, scaling=0))
    rng = np.random.default_rng(0)
    table = np.round(rng.normal(size=(GRIDS[6].cells, 3)), 2)
    training.featurise({6: table})
    sizes = [3, 5, 4, 2]
    layers = [part for a, b in itertools.pairwise(sizes) for part in (rng.normal(size=(a, b)), rng.normal(size=b))]
    x = torch.as_tensor(table[FRAME["home"].astype(str).astype(int)])
    parameters = [torch.tensor(part, requires_grad=True) for part in layers]
    for i in (0, 2, 4):
        x = (x if i == 0 else x.relu()) @ parameters[i] + parameters[i + 1]
    loss = torch.nn.functional.cross_entropy(x, torch.as_tensor(FRAME["label"].astype(str).astype(int).to_numpy()))
    expected = np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(loss, parameters)])
    np.testing.assert_allclose(training.gradient(layers), expected, atol=1e-3)


def test_features_for_another_number_of_cells_are_refused(ledger, key):
    training = begin_training(FRAME, REQUEST, ledger, key)
    with pytest.raises(ConfigError, match="column 'ratio' has 65536 cells, and features were given for 3"):
        training.featurise({0: np.zeros((3, 1))})


def test_the_sketch_tells_the_numbers_spread_within_its_noise(tmp_path, key):
    rows = 20_000
    frame = canonical_table(every_kind(rows, 1), EVERY_KIND)
    ledger = create_ledger(tmp_path / "ledger.db", dataset="ab" * 16, unit="row", key=key)
    ledger.grant(epsilon=4.0, delta=1e-5, reason="test", actor="officer", key=key)
    training = begin_training(frame, dataclasses.replace(REQUEST, rehearsal=1), ledger, key)
    told = training.sketch(RANKS)
    numbers = ["ratio", "balance", "age", "late", "salary"]
    for i, name in enumerate(numbers):
        if name == "late":  # so few values are not counted
            assert told.quantiles[i].tolist() == pytest.approx(np.linspace(0, 5, 9).tolist(), abs=1)
            continue
        values = frame[name].to_numpy(dtype=float, na_value=np.nan)
        known = values[~np.isnan(values)]
        assert told.known[i] == pytest.approx(len(known), rel=0.03)
        inner = told.quantiles[i][1:-1]
        # Where the noisy quantile lies among the real values; ties count up to their far side.
        reached = [((known < q).mean(), (known <= q).mean()) for q in inner]
        slack = 0.03 if name != "salary" else 0.06
        for rank, (below, upto) in zip(RANKS[1:-1], reached, strict=True):
            assert below - slack < rank < upto + slack, name
        assert (np.diff(told.quantiles[i]) >= 0).all()
    assert told.mean[2] == pytest.approx(frame["age"].mean(), abs=1)
    assert told.spread[2] == pytest.approx(frame["age"].std(), rel=0.05)
    counts = frame["label"].value_counts(sort=False).to_numpy()
    noise = training.plan.event(CLASSES).cell_stddev
    assert np.abs(told.classes - counts).max() < 6 * noise  # fails once in 2e8 runs


def test_without_a_share_for_scaling_only_public_bounds_are_told(ledger, key):
    training = with_noise(ledger, key, PrivateSteps(rounds=1, steps=1, scaling=0))
    told = training.sketch(RANKS)
    assert training.reads == {"size": 1}
    ages, balances = told.quantiles[2], told.quantiles[1]
    np.testing.assert_allclose(ages, 18 + RANKS * 82, atol=1.5)
    assert balances[0] == pytest.approx(-1e5)
    assert balances[-1] == pytest.approx(1e6)
    assert abs(balances[4]) < 50  # the middle of a signed-log scale
    np.testing.assert_allclose(told.classes, training.rows / 2)
    np.testing.assert_allclose(told.known, training.rows)


@pytest.mark.parametrize("only", [0, 1])
def test_a_table_of_one_class_trains_like_any_other(ledger, key, only):
    training = begin_training(FRAME[FRAME["label"].astype(str) == str(only)].head(200), REQUEST, ledger, key)
    training.sketch(RANKS)
    training.featurise(features())
    assert np.isfinite(training.gradient(layers_for(1))).all()
    training.finish()
    assert status(ledger) == "committed"


def test_an_empty_sample_is_answered_with_noise_alone(ledger, key, monkeypatch):
    monkeypatch.setattr(NoiseSource, "poisson_sample", lambda self, size, rate: np.zeros(0, dtype=np.int64))
    training = begin_training(FRAME, REQUEST, ledger, key)
    training.featurise(features(4))
    assert training.gradient(layers_for(4)).shape == (15,)


def test_a_unit_counts_once_however_many_rows_it_has(tmp_path, key, exact):
    ledger = create_ledger(tmp_path / "ledger.db", dataset="ab" * 16, unit="customer", key=key)
    ledger.grant(epsilon=4.0, delta=1e-5, reason="test", actor="officer", key=key)
    schema = schema_of(integer("level", 0, 3), unit="customer")
    frame = pd.DataFrame(
        {"level": np.arange(400) % 4, "label": np.arange(400) % 2, "customer": [f"c{k % 120}" for k in range(400)]}
    )
    request = dataclasses.replace(
        REQUEST, schema=schema, settings=PrivateSteps(rounds=1, steps=1, clip_norm=4, scaling=0)
    )
    training = begin_training(canonical_table(frame, schema), request, ledger, key)
    training.featurise({0: np.ones((4, 1))})
    assert training.rows == 120
    value, _, one = means_in(training.gradient(layers_for(1)) * 120, 1)
    assert value.item() == pytest.approx(one) == pytest.approx(120, rel=1e-4)


def test_nothing_public_on_a_training_shows_the_rows(ledger, key):
    training = begin_training(FRAME, REQUEST, ledger, key)
    public = {name for name in vars(training) if not name.startswith("_")}
    assert public == {"plan", "reservation"}
