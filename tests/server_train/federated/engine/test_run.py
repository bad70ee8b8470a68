"""The engine: bytes against a captured stream, simulated times by hand, what is lost, asynchronous order, repeatability."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.numpy

from distill.errors import ConfigError, DataError
from server_train.federated.engine.clock import HIGH, LOW, Clock, Tier, parse_tiers
from server_train.federated.engine.run import MAX_BARREN_ROUNDS, Round, RunSettings, run
from server_train.federated.engine.transport import InProcess
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import Message, decode, encode, framing_bytes
from server_train.federated.messages.compression import parse_compression
from server_train.federated.strategies.base import Strategy
from server_train.federated.strategies.fedavg import FedAvg

MODEL = Mlp([3, 2])  # 3 * 2 + 2 = 8 weights


def clients_of(n: int, *, rows: int = 20, model: Mlp = MODEL) -> list[Client]:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(n, rows, model.sizes[0])).astype(np.float32)
    y = (x[:, :, 0] > 0).astype(int)
    settings = LocalSettings(batch_size=8, learning_rate=0.5)
    return [Client(i, x[i], y[i], model, settings, np.random.default_rng([0, i])) for i in range(n)]


class Recording(InProcess):
    """In-process, and keeps every payload and answer that passes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sent: list[tuple[int, bytes]] = []
        self.came: list[tuple[int, bytes]] = []

    def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
        self.sent.append((client, payload))
        reply, work = super().exchange(client, payload)
        self.came.append((client, reply))
        return reply, work


class Scripted:
    """Clients that answer what a function says: (client, message) -> (reply or its bytes, rows of work)."""

    def __init__(self, clients: int, script: Callable[[int, Message], tuple[Message | bytes, int]]) -> None:
        self.clients, self._script = clients, script
        self.asked: list[int] = []

    def begin(self, payloads: Mapping[int, bytes]) -> None:
        assert payloads

    def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
        self.asked.append(client)
        reply, work = self._script(client, decode(payload))
        return (reply if isinstance(reply, bytes) else encode(reply)), work


@dataclass(kw_only=True)
class OnArrival(Strategy):
    """Asynchronous: adds every update as it comes."""

    asynchronous: ClassVar[bool] = True
    order: list[int] = field(init=False, default_factory=list)

    def train(self, client: Client, message: Message) -> Message:
        run = client.train(message.tensors["weights"])
        return Message({"update": run.weights - message.tensors["weights"]}, {"rows": client.rows})

    def aggregate(self, replies: Mapping[int, Message]) -> None:
        self.order += replies
        for reply in replies.values():
            self.weights = self.weights + reply.tensors["update"]


def one_step(work: int = 1) -> Callable[[int, Message], tuple[Message, int]]:
    """Every client answers an update of ones over one row."""
    return lambda _, message: (Message({"update": np.ones_like(message.tensors["weights"])}, {"rows": 1}), work)


def first_weight(weights: np.ndarray) -> dict[str, float]:
    return {"w": float(weights[0])}


ZEROS = np.zeros(8, np.float32)
# One second of latency each way and 1000 bytes a second: times are easy to add up.
SLOW_LINE = Tier(name="slow line", speed=1.0, down=1000.0, up=500.0, latency=1.0)
# A line that takes half a second whatever it carries, to within a millionth.
STEADY = Tier(name="steady", speed=1.0, down=1e12, up=1e12, latency=0.5)


# Bytes


@pytest.mark.parametrize("word", ["none", "float16", "int8", "topk:0.5"])
def test_payload_bytes_equal_the_captured_streams_and_each_is_its_tensors_plus_the_framing(word: str) -> None:
    strategy = FedAvg()
    transport = Recording(clients_of(3), strategy, parse_compression(word))
    record = run(strategy, transport, ZEROS, RunSettings(rounds=4), first_weight)
    for stream, total, by_client in (
        (transport.sent, record[-1].down, record[-1].client_down),
        (transport.came, record[-1].up, record[-1].client_up),
    ):
        assert len(stream) == 3 * 4
        sizes = [decode(data).tensor_bytes + framing_bytes(data) for _, data in stream]
        assert sizes == [len(data) for _, data in stream]
        assert total == sum(sizes)
        assert by_client == tuple(sum(len(data) for client, data in stream if client == c) for c in range(3))


def framed(tensors: dict[str, tuple[str, list[int], int]]) -> int:
    """Length of a safetensors file, from the format's description: 8 bytes, a JSON header filled up to 8s, the data."""
    header, at = {}, 0
    for name, (kind, shape, size) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"))
    return 8 + -(-len(text) // 8) * 8 + at


def test_a_known_model_costs_the_known_bytes() -> None:
    """8 weights: 32 bytes down; 32 and an 8-byte row count up; each in its frame."""
    strategy = FedAvg()
    record = run(strategy, InProcess(clients_of(2), strategy), ZEROS, RunSettings(rounds=3), first_weight)
    down = framed({"weights": ("F32", [8], 32)})
    up = framed({"number.rows": ("F64", [], 8), "update": ("F32", [8], 32)})
    assert [r.down for r in record] == [0, 2 * down, 4 * down, 6 * down]
    assert [r.up for r in record] == [0, 2 * up, 4 * up, 6 * up]
    assert record[-1].client_down == (3 * down, 3 * down)


def test_compression_makes_a_larger_model_cheaper_both_ways_and_still_learns() -> None:
    model = Mlp([50, 20, 2])
    figures = {}
    for word in ("none", "float16", "int8", "topk:0.1"):
        compression = parse_compression(word)
        strategy = FedAvg()
        download = parse_compression("none" if word.startswith("topk") else word)
        clients = clients_of(3, rows=100, model=model)
        record = run(
            strategy,
            InProcess(clients, strategy, compression),
            model.initial(np.random.default_rng(0)),
            RunSettings(rounds=30, download=download),
            lambda w, clients=clients: {"loss": float(np.mean([model.losses(w, c.x, c.y).mean() for c in clients]))},
        )
        figures[word] = (record[-1].down, record[-1].up, record[-1].metrics["loss"] / record[0].metrics["loss"])
    plain_down, plain_up, _ = figures["none"]
    assert figures["float16"][0] < 0.55 * plain_down
    assert figures["float16"][1] < 0.55 * plain_up
    assert figures["int8"][1] < 0.35 * plain_up
    assert figures["topk:0.1"][1] < 0.25 * plain_up
    assert all(loss < 0.3 for _, _, loss in figures.values()), figures


# Simulated time


def test_a_round_takes_as_long_as_its_slowest_client_by_hand() -> None:
    """Client 0 works 2 rows, client 1 works 5 rows at 0.5 seconds and at half speed."""
    strategy = FedAvg()
    work = {0: 2, 1: 5}
    transport = Scripted(2, lambda c, m: (one_step()(c, m)[0], work[c]))
    clock = Clock(tiers=(SLOW_LINE, replace(SLOW_LINE, speed=0.5)), seconds_per_row=0.5)
    record = run(strategy, transport, ZEROS, RunSettings(rounds=2), first_weight, clock=clock)
    down, up = record[1].client_down[0], record[1].client_up[0]
    one_round = (1 + down / 1000) + 5 * 0.5 / 0.5 + (1 + up / 500)
    assert [r.seconds for r in record] == pytest.approx([0.0, one_round, 2 * one_round])


def arrivals(speeds: tuple[float, ...], rounds: int) -> tuple[OnArrival, list[Round]]:
    """Each client works one row, which takes one second at speed 1; it answers what it got, plus one."""
    strategy = OnArrival()
    transport = Scripted(len(speeds), lambda _, m: (Message({"update": m.tensors["weights"] + 1}, {"rows": 1}), 1))
    clock = Clock(tiers=tuple(replace(STEADY, speed=speed) for speed in speeds), seconds_per_row=1.0)
    return strategy, run(strategy, transport, ZEROS, RunSettings(rounds=rounds), first_weight, clock=clock)


def test_asynchronous_replies_are_aggregated_in_the_order_they_arrive_with_real_staleness() -> None:
    """An exchange takes client 0 two seconds and client 1 five: arrivals at 2, 4, 5, 6.

    Client 0 gets 0 and sends 1 (sum 1, at 2 s), gets 1 and sends 2 (sum 3, at 4 s), gets 3 and sends 4 (at 6 s);
    client 1 got 0 at the start and sends 1 (sum 4, at 5 s). In the end 8.
    """
    strategy, record = arrivals((1.0, 0.25), rounds=2)
    assert strategy.order == [0, 0, 1, 0]
    assert [r.seconds for r in record] == pytest.approx([0.0, 4.0, 6.0])
    assert [r.metrics["w"] for r in record] == [0.0, 3.0, 8.0]
    assert [r.participants for r in record] == [(), (0, 0), (1, 0)]


def test_asynchronous_downloads_under_way_count_and_so_does_only_what_has_been_sent() -> None:
    _, record = arrivals((1.0, 0.25), rounds=2)
    down, up = record[1].client_down[1], record[1].client_up[0] // 2
    assert record[1].client_down == (2 * down, down)  # at 4 s, before client 0 is asked again
    assert record[1].client_up == (2 * up, 0)  # client 1 begins to send at 4.5 s
    assert record[2].client_up == (3 * up, up)


def test_equal_asynchronous_clients_give_no_arrival_beyond_the_last_round() -> None:
    strategy, record = arrivals((1.0, 1.0, 1.0), rounds=4)
    assert len(strategy.order) == 12
    assert record[-1].seconds == pytest.approx(8.0)
    assert float(strategy.weights[0]) == record[-1].metrics["w"]


def test_with_less_participation_fewer_asynchronous_clients_are_busy_and_all_get_their_turn() -> None:
    strategy = OnArrival()
    clock = Clock(tiers=(STEADY,), seconds_per_row=1.0)
    settings = RunSettings(rounds=20, participation=0.5)
    record = run(strategy, Scripted(4, one_step()), ZEROS, settings, first_weight, clock=clock)
    assert {len(r.participants) for r in record[1:]} == {2}
    assert record[-1].seconds == pytest.approx(40.0)  # two busy at a time, two seconds each, forty exchanges
    assert set(strategy.order) == {0, 1, 2, 3}


# What is lost


def test_a_client_that_drops_out_has_downloaded_and_sends_nothing() -> None:
    strategy = FedAvg()
    transport = Scripted(2, one_step())
    clock = Clock(tiers=(HIGH, replace(LOW, drop_out=1.0)))
    record = run(strategy, transport, ZEROS, RunSettings(rounds=3), first_weight, clock=clock)
    assert [r.participants for r in record[1:]] == [(0,)] * 3
    assert record[1].lost == {1: "dropped out after its download (tier low)"}
    assert record[-1].client_down[1] == record[-1].client_down[0] > 0
    assert record[-1].client_up[1] == 0
    assert transport.asked == [0, 0, 0]


@pytest.mark.parametrize("strategy_class", [FedAvg, OnArrival])
def test_drop_outs_follow_the_clocks_seed(strategy_class: type[Strategy]) -> None:
    def lost(seed: int) -> list[dict[int, str]]:
        clock = Clock(tiers=(replace(LOW, drop_out=0.5),), seed=seed)
        record = run(strategy_class(), Scripted(4, one_step()), ZEROS, RunSettings(rounds=8), first_weight, clock=clock)
        return [r.lost for r in record]

    assert lost(0) == lost(0)
    assert lost(0) != lost(1)


def test_the_deadline_ends_a_round_and_loses_who_is_late() -> None:
    """One second each way; client 1 works 10 seconds and is told to stop before it sends anything."""
    strategy = FedAvg()
    transport = Scripted(2, lambda c, m: (one_step()(c, m)[0], (1, 10)[c]))
    clock = Clock(tiers=(replace(STEADY, latency=1.0),), seconds_per_row=1.0)
    settings = RunSettings(rounds=2, deadline=5.0)
    record = run(strategy, transport, ZEROS, settings, first_weight, clock=clock)
    assert [r.seconds for r in record] == pytest.approx([0.0, 5.0, 10.0])
    assert record[1].lost == {1: "no reply within 5 seconds, the round's deadline"}
    assert record[-1].client_up[1] == 0
    assert record[-1].metrics == {"w": 2.0}


def test_what_a_late_client_has_begun_to_send_counts_as_sent() -> None:
    strategy = FedAvg()
    clock = Clock(tiers=(STEADY, replace(STEADY, latency=2.6)), seconds_per_row=1.0)  # client 1 sends from 3.6 to 6.2 s
    settings = RunSettings(rounds=1, deadline=5.0)
    record = run(strategy, Scripted(2, one_step()), ZEROS, settings, first_weight, clock=clock)
    assert set(record[1].lost) == {1}
    assert record[1].client_up[1] == record[1].client_up[0] > 0


def test_a_client_still_downloading_at_the_deadline_never_trains() -> None:
    transport = Scripted(2, one_step())
    clock = Clock(tiers=(STEADY, replace(STEADY, latency=9.0)), seconds_per_row=1.0)
    run(FedAvg(), transport, ZEROS, RunSettings(rounds=2, deadline=5.0), first_weight, clock=clock)
    assert transport.asked == [0, 0]


def test_a_round_that_is_in_before_the_deadline_does_not_wait_for_it() -> None:
    clock = Clock(tiers=(STEADY,), seconds_per_row=1.0)
    settings = RunSettings(rounds=3, deadline=50.0)
    record = run(FedAvg(), Scripted(2, one_step()), ZEROS, settings, first_weight, clock=clock)
    assert [r.seconds for r in record] == pytest.approx([0.0, 2.0, 4.0, 6.0])
    assert not any(r.lost for r in record)


def test_a_client_that_vanishes_is_asked_again_in_the_next_round() -> None:
    seen: list[int] = []

    def script(client: int, message: Message) -> tuple[Message, int]:
        seen.append(client)
        if client == 1 and seen.count(1) == 2:
            raise ConnectionError("the line is dead")
        return one_step()(client, message)

    record = run(FedAvg(), Scripted(2, script), ZEROS, RunSettings(rounds=3), first_weight)
    assert [r.participants for r in record[1:]] == [(0, 1), (0,), (0, 1)]
    assert record[2].lost == {1: "the line is dead"}
    assert record[-1].metrics == {"w": 3.0}


def test_a_vanished_asynchronous_client_sits_out_the_round_and_time_goes_on() -> None:
    def script(client: int, message: Message) -> tuple[Message, int]:
        if client == 1:
            raise ConnectionError("gone")
        return one_step()(client, message)

    clock = Clock(tiers=(STEADY,), seconds_per_row=1.0)
    record = run(OnArrival(), Scripted(3, script), ZEROS, RunSettings(rounds=3), first_weight, clock=clock)
    assert [sorted(r.participants) for r in record[1:]] == [[0, 2]] * 3
    assert [r.lost for r in record[1:]] == [{1: "gone"}] * 3
    assert [r.seconds for r in record] == pytest.approx([0.0, 2.0, 4.0, 6.0])


def raw(update: np.ndarray, rows: float = 1.0) -> bytes:
    """A reply past all checks of the sender."""
    return safetensors.numpy.save({"update": update, "number.rows": np.array(rows, np.float64)})


NAN = np.full(8, np.nan, np.float32)
BAD_REPLIES = {
    "NaN": (raw(NAN), "not finite"),
    "infinity": (raw(np.full(8, np.inf, np.float32)), "not finite"),
    "NaN rows": (raw(ZEROS, np.nan), "not finite"),
    "a wrong shape": (raw(np.zeros(7, np.float32)), "must hold 8 numbers"),
    "whole numbers": (raw(np.zeros(8, np.int64)), "must hold 8 numbers"),
    "no rows": (raw(ZEROS, 0.0), "at least one row"),
    "negative rows": (raw(ZEROS, -5.0), "at least one row"),
    "nothing": (b"", "cannot be read"),
    "noise": (b"\xff" * 100, "cannot be read"),
    "a packed update out of range": (
        encode(
            Message({"update@index": np.array([9], np.uint16), "update@value": np.ones(1, np.float32)}, {"rows": 1})
        ),
        "not a model of 8 weights",
    ),
}


@pytest.mark.parametrize("strategy_class", [FedAvg, OnArrival])
@pytest.mark.parametrize("case", BAD_REPLIES)
def test_a_reply_that_cannot_be_used_is_lost_with_its_reason_and_the_run_goes_on(
    case: str, strategy_class: type[Strategy]
) -> None:
    bad, reason = BAD_REPLIES[case]
    transport = Scripted(2, lambda c, m: (bad, 1) if c == 1 else one_step()(c, m))
    record = run(strategy_class(), transport, ZEROS, RunSettings(rounds=2), first_weight)
    assert len(record) == 3
    for point in record[1:]:
        assert 1 not in point.participants
        assert reason in point.lost[1]
    assert record[-1].client_up[1] >= 2 * len(bad)  # it was sent nevertheless
    assert record[-1].metrics["w"] >= 2.0


def test_a_client_whose_training_diverges_is_lost_with_the_mend() -> None:
    clients = clients_of(2)
    clients[1].x[0, 0] = np.float32(np.inf)
    strategy = FedAvg()
    with np.errstate(all="ignore"):
        record = run(strategy, InProcess(clients, strategy), ZEROS, RunSettings(rounds=1), first_weight)
    assert record[1].participants == (0,)
    assert "Lower the learning rate" in record[1].lost[1]


@pytest.mark.parametrize("strategy_class", [FedAvg, OnArrival])
def test_a_run_in_which_nobody_ever_answers_gives_up_with_the_last_reason(strategy_class: type[Strategy]) -> None:
    def script(client: int, message: Message) -> tuple[Message, int]:
        raise ConnectionError("host unreachable")

    transport = Scripted(3, script)
    with pytest.raises(DataError, match=r"no client gave a usable reply in 10 rounds in a row.*host unreachable"):
        run(strategy_class(), transport, ZEROS, RunSettings(rounds=100), first_weight)
    assert len(transport.asked) == 3 * MAX_BARREN_ROUNDS


def test_barren_rounds_that_end_in_time_are_forgiven() -> None:
    asked: list[int] = []

    def script(client: int, message: Message) -> tuple[Message, int]:
        asked.append(client)
        if len(asked) % MAX_BARREN_ROUNDS:
            raise ConnectionError("away")
        return one_step()(client, message)

    record = run(FedAvg(), Scripted(1, script), ZEROS, RunSettings(rounds=2 * MAX_BARREN_ROUNDS), first_weight)
    assert record[-1].metrics == {"w": 2.0}


def test_global_weights_that_blow_up_end_the_run_with_the_mend() -> None:
    @dataclass(kw_only=True)
    class Exploding(FedAvg):
        def aggregate(self, replies: Mapping[int, Message]) -> None:
            self.weights = NAN

    with pytest.raises(DataError, match=r"round 1: the global weights are no longer finite\. Lower"):
        run(Exploding(), Scripted(1, one_step()), ZEROS, RunSettings(rounds=5), first_weight)


# The record


@pytest.mark.parametrize("strategy_class", [FedAvg, OnArrival])
def test_the_same_seeds_give_the_same_record(strategy_class: type[Strategy]) -> None:
    def record(seed: int) -> list[Round]:
        strategy = strategy_class()
        clock = Clock(tiers=parse_tiers("high,medium,low"), seed=seed)
        settings = RunSettings(rounds=6, participation=0.6, seed=seed)
        return run(strategy, InProcess(clients_of(5), strategy), ZEROS, settings, first_weight, clock=clock)

    assert record(0) == record(0)
    assert record(0) != record(1)


def test_a_synchronous_model_does_not_depend_on_the_clock() -> None:
    def final(words: str) -> bytes:
        strategy = FedAvg()
        clock = Clock(tiers=tuple(replace(tier, drop_out=0.0) for tier in parse_tiers(words)))
        run(strategy, InProcess(clients_of(5), strategy), ZEROS, RunSettings(rounds=3), first_weight, clock=clock)
        return strategy.weights.tobytes()

    assert final("high") == final("low,high,medium")


def test_metrics_are_taken_as_often_as_asked_and_at_both_ends() -> None:
    settings = RunSettings(rounds=7, evaluate_every=3)
    record = run(FedAvg(), Scripted(1, one_step()), ZEROS, settings, first_weight)
    assert {r.number: r.metrics["w"] for r in record if r.metrics} == {0: 0.0, 3: 3.0, 6: 6.0, 7: 7.0}


def test_each_round_is_told_as_it_ends() -> None:
    told: list[Round] = []
    record = run(FedAvg(), Scripted(1, one_step()), ZEROS, RunSettings(rounds=3), first_weight, on_round=told.append)
    assert told == record[1:]


def test_participation_asks_its_share_of_the_clients() -> None:
    settings = RunSettings(rounds=30, participation=0.4)
    record = run(FedAvg(), Scripted(5, one_step()), ZEROS, settings, first_weight)
    assert {len(r.participants) for r in record[1:]} == {2}
    assert {client for r in record for client in r.participants} == set(range(5))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"rounds": -1},
        {"participation": 0.0},
        {"participation": 1.5},
        {"evaluate_every": 0},
        {"deadline": 0.0},
        {"deadline": float("nan")},
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RunSettings(**wrong)


def test_topk_is_refused_for_downloads() -> None:
    with pytest.raises(ConfigError, match="Choose float16 or int8"):
        RunSettings(download=parse_compression("topk:0.1"))


def test_a_run_without_clients_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one client"):
        run(FedAvg(), Scripted(0, one_step()), ZEROS, RunSettings(), first_weight)


def test_a_hundred_clients_run_in_one_process() -> None:
    for strategy in (FedAvg(), OnArrival()):
        clock = Clock(tiers=parse_tiers("high,medium,low"))
        transport = InProcess(clients_of(100, rows=10), strategy)
        record = run(strategy, transport, ZEROS, RunSettings(rounds=3), first_weight, clock=clock)
        assert len(record[-1].client_down) == 100
        assert [len(r.participants) + len(r.lost) for r in record] == [0, 100, 100, 100]
