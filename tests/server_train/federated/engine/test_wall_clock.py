"""Real time: exchanges side by side, replies in the order in which they come, deadlines that hold."""

import threading
import time
from collections.abc import Mapping

import numpy as np
import pytest

from server_train.federated.engine.clock import Clock
from server_train.federated.engine.run import Round, RunSettings, run
from server_train.federated.engine.transport import InProcess, NotSent
from server_train.federated.engine.wall_clock import WallClock
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import Message, decode, encode
from server_train.federated.strategies.fedasync import FedAsync
from server_train.federated.strategies.fedavg import FedAvg
from tests.fakes.federations import blobs

START = np.zeros(3)


class Sleepers:
    """Clients that answer an update of ones after as many seconds as they are told; a client is busy meanwhile."""

    def __init__(self, *seconds: float) -> None:
        self.clients, self._seconds = len(seconds), seconds
        self._busy = [threading.Lock() for _ in seconds]

    def begin(self, payloads: Mapping[int, bytes]) -> None:
        assert payloads

    def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
        if not self._busy[client].acquire(blocking=False):
            raise NotSent(f"client {client} is busy")
        time.sleep(self._seconds[client])
        self._busy[client].release()
        numbers = {"rows": 1, "round": decode(payload).numbers.get("round", 0.0)}
        return encode(Message({"update": np.ones(3)}, numbers)), 10**12  # work that a simulation would charge for


def record_of(strategy: FedAvg | FedAsync, transport: Sleepers, **settings: float) -> list[Round]:
    return run(strategy, transport, START, RunSettings(**settings), lambda weights: {}, clock=WallClock())


def test_a_round_takes_as_long_as_its_slowest_client_and_not_their_sum():
    record = record_of(FedAvg(), Sleepers(0.3, 0.3, 0.3, 0.3), rounds=2)
    assert [r.participants for r in record] == [(), (0, 1, 2, 3), (0, 1, 2, 3)]
    assert record[0].seconds == 0.0
    assert 0.3 <= record[1].seconds < 4 * 0.3
    assert 2 * 0.3 <= record[2].seconds < 8 * 0.3


def test_time_never_runs_backwards_and_each_client_counts_as_often_as_it_answers():
    record = record_of(FedAsync(), Sleepers(0.02, 0.5), rounds=6)
    seconds = [r.seconds for r in record]
    assert seconds == sorted(seconds)
    came = [client for r in record for client in r.participants]
    assert len(came) == 12
    assert came[:3] == [0, 0, 0]  # while the slow one works


def test_a_deadline_holds_and_a_client_still_at_work_is_sent_nothing():
    record = record_of(FedAvg(), Sleepers(0.01, 2.0), rounds=3, deadline=0.2)
    assert [r.participants for r in record[1:]] == [(0,), (0,), (0,)]
    assert [r.lost[1] for r in record[1:]] == [
        "no reply within 0.2 seconds, the round's deadline",
        "client 1 is busy",
        "client 1 is busy",
    ]
    assert record[1].seconds >= 0.2
    assert record[-1].seconds < 2.0  # nobody waits for a busy client
    once = len(encode(Message({"weights": START})))
    assert record[-1].client_down == (3 * once, once)


def test_a_defect_in_a_thread_ends_the_run():
    class Broken(Sleepers):
        def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
            raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        record_of(FedAvg(), Broken(0.0), rounds=1)


def test_threads_train_real_clients_to_the_same_weights_as_a_simulation(seed):
    model, settings, weights = Mlp([10, 8, 2]), LocalSettings(learning_rate=0.1), []
    for clock in (Clock(), WallClock()):
        strategy = FedAvg(server_momentum=0.5)
        clients = [Client(i, *blobs(100 + i, i), model, settings, np.random.default_rng([seed, i])) for i in range(3)]
        start = model.initial(np.random.default_rng(seed))
        run(strategy, InProcess(clients, strategy), start, RunSettings(rounds=4), lambda w: {}, clock=clock)
        weights.append(strategy.weights)
    np.testing.assert_array_equal(weights[0], weights[1])
