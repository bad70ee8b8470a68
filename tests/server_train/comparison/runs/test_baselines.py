import numpy as np
import pytest

from distill.errors import ConfigError
from server_train.comparison.runs.baselines import Baseline, Conditions, chosen
from server_train.comparison.runs.federated import federated_run
from server_train.comparison.runs.scaling import prepare
from server_train.federated.engine.clock import LOW, Clock, Tier
from server_train.federated.local.client import LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import Message, encode
from server_train.federated.messages.compression import Compression
from server_train.federated.strategies.catalogue import STRATEGIES
from tests.fakes.comparisons import dealt

CERTAIN_LOSS = Tier(name="gone", speed=1.0, down=1e6, up=1e6, latency=0.0, drop_out=1.0)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    found = dealt(tmp_path_factory.mktemp("rows"), clients=3)
    prepared = prepare(found)
    return found, prepared, Mlp([prepared.test_x.shape[1], 8, 2])


def go(rows, baseline=None, *, seed=0, **conditions):
    steps = []
    run = federated_run(
        baseline or Baseline(name="fedavg"),
        *rows,
        Conditions(rounds=3, **conditions),
        seed=seed,
        progress=lambda done, total: steps.append((done, total)),
    )
    return run, steps


def test_words_become_baselines():
    found = chosen(["fedavg", "fedavg"], ["fedavg.server_momentum=0.9"])
    assert [b.label for b in found] == ["FedAvg (server_momentum 0.9)"]
    assert [b.name for b in chosen(["all"], [])] == list(STRATEGIES)


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["fedavgg"], [], "no strategy 'fedavgg'"),
        (["fedavg"], ["fedavg.mu=1"], "has no option 'mu'"),
        (["fedavg"], ["fedavg.server_rate=fast"], "not 'fast'"),
        (["fedavg"], ["fedprox.mu=1"], "'fedprox' is not among the chosen"),
        (["fedavg"], ["server_rate=1"], "must be written STRATEGY"),
        (["fedavg"], ["fedavg.server_rate"], "must be written STRATEGY"),
        (["nowhere:Strategy"], [], "cannot be imported"),
    ],
)
def test_wrong_words_are_refused(names, options, words):
    with pytest.raises(ConfigError, match=words):
        chosen(names, options)


def test_conditions_that_cannot_work_are_refused_at_once():
    with pytest.raises(ConfigError, match="rounds"):
        Conditions(rounds=0)
    with pytest.raises(ConfigError, match="participation"):
        Conditions(participation=1.5)


def test_bytes_are_set_up_and_a_message_each_way_a_round(rows):
    found, prepared, model = rows
    run, steps = go(rows)
    weights = np.zeros(model.size, np.float32)
    down, up = len(encode(Message({"weights": weights}))), len(encode(Message({"update": weights}, {"rows": 1.0})))
    assert [p.round for p in run.points] == [0, 1, 2, 3]
    for point in run.points:
        assert point.down == sum(prepared.down) + 3 * point.round * down
        assert point.up == sum(prepared.up) + 3 * point.round * up
    assert run.final.up == sum(t.up for t in run.traffic)
    assert run.final.down == sum(t.down for t in run.traffic)
    assert [t.client for t in run.traffic] == list(found.clients)
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_seed_repeats_a_run_and_training_helps(rows):
    first, again, other = go(rows)[0], go(rows)[0], go(rows, seed=1)[0]
    assert first.points == again.points != other.points
    assert first.final.log_loss < first.points[0].log_loss
    assert first.epsilon is None


def test_slow_lines_take_longer_and_compression_less(rows):
    up, down = sum(rows[1].up), sum(rows[1].down)
    fast = go(rows)[0].final
    slow = go(rows, clock=Clock(tiers=(LOW,)))[0].final
    small = go(rows, compression=Compression("float16"))[0].final
    kept = go(rows, compression=Compression("topk", 0.1))[0].final
    assert slow.seconds > 5 * fast.seconds
    assert small.up - up < 0.7 * (fast.up - up)
    assert small.down - down < 0.7 * (fast.down - down)
    assert kept.up < small.up
    assert kept.down == fast.down  # whole weights travel down


def test_a_run_that_nobody_answers_ends_with_a_note(rows):
    run, _ = go(rows, clock=Clock(tiers=(CERTAIN_LOSS,)))
    assert all(p.participants == 0 for p in run.points)
    assert any("exchanges were lost" in note for note in run.notes)


def test_a_run_that_diverges_keeps_what_it_had(rows):
    with np.errstate(all="ignore"):
        run, _ = go(rows, local=LocalSettings(learning_rate=1e30))
    assert run.points[0].round == 0
    assert any("finite" in note for note in run.notes)


def test_a_baseline_may_have_a_learning_rate_of_its_own():
    shared = LocalSettings(learning_rate=0.1, batch_size=32)
    one, two = chosen(["fedavg", "scaffold"], ["scaffold.learning_rate=0.01"])
    assert one.local(shared) is shared
    assert two.local(shared) == LocalSettings(learning_rate=0.01, batch_size=32)
    assert two.label == "SCAFFOLD (learning_rate 0.01)"
    with pytest.raises(ConfigError, match=r"scaffold.learning_rate is a number, not 'fast'"):
        chosen(["scaffold"], ["scaffold.learning_rate=fast"])
    with pytest.raises(ConfigError, match="learning_rate"):
        chosen(["scaffold"], ["scaffold.learning_rate=0"])
