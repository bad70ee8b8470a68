"""The Flower engine: seats and messages with clients in this process, and for real, with processes over loopback."""

import functools
import json
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from distill.data.demo import BANKS, bank_table
from distill.data.tables import write_table
from distill.errors import ConfigError, DataError
from server_train.federated.engine.run import OnRound, Round, RunSettings, run
from server_train.federated.engine.transport import InProcess, NotSent
from server_train.federated.engine.wall_clock import WallClock
from server_train.federated.flower.addresses import listen
from server_train.federated.flower.client import FlowerClient
from server_train.federated.flower.library import FitRes, GetPropertiesRes, GrpcBridgeClosed, Parameters
from server_train.federated.flower.server import FlowerTransport, host
from server_train.federated.flower.traffic import CountingProxy, Counts
from server_train.federated.institution.participant import Participant
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp, Vector
from server_train.federated.messages.codec import decode, encode
from server_train.federated.messages.protocol import Kind, Terms
from server_train.federated.messages.sketches import answer, curves_of, one_hot, public_curves
from server_train.federated.strategies.catalogue import make_strategy
from server_train.models.features import Encoder, class_codes
from tests.fakes.federations import SCHEMA, bank

ROWS = 300
CURVES = encode(answer(public_curves(SCHEMA)))
ENCODER = Encoder(SCHEMA, curves_of(SCHEMA, decode(CURVES)))
MODEL = Mlp([ENCODER.n_dense + ENCODER.n_codes, 64, 32, 2])
START = MODEL.initial(np.random.default_rng(0))
LOCAL = LocalSettings(learning_rate=0.1)


def terms_of(strategy: str) -> Terms:
    return Terms(strategy=strategy, local=LOCAL)


def in_process(strategy_name: str, rounds: int, clients: int = 3) -> tuple[list[Round], Vector]:
    """The same run without a network: its record and final weights."""
    strategy = make_strategy(strategy_name)
    frames = [bank(ROWS, i) for i in range(clients)]
    members = [
        Client(
            i,
            one_hot(ENCODER.encode(frame), ENCODER.n_codes),
            class_codes(SCHEMA, frame),
            MODEL,
            LOCAL,
            np.random.default_rng([0, 3, i]),
        )
        for i, frame in enumerate(frames)
    ]
    record = run(strategy, InProcess(members, strategy), START, RunSettings(rounds=rounds), lambda weights: {})
    return record, strategy.weights


class Line:
    """Flower's line to a client, without a network: calls go straight to the client, until the line is cut."""

    def __init__(self, participant: Participant) -> None:
        self.cid, self._client = str(id(self)), FlowerClient(participant)
        self.cut = self.dismissed = False
        self.hold = threading.Event()
        self.hold.set()

    def get_properties(self, ins: object, timeout: float | None, group_id: int | None) -> GetPropertiesRes:
        self._check()
        return self._client.get_properties(ins)

    def fit(self, ins: object, timeout: float | None, group_id: int | None) -> FitRes:
        self._check()
        assert self.hold.wait(10)
        return self._client.fit(ins)

    def reconnect(self, ins: object, timeout: float | None, group_id: int | None) -> None:
        self.dismissed = True

    def _check(self) -> None:
        if self.cut:
            raise GrpcBridgeClosed


def seated(*numbers: int, clients: int = 2, notes: list[str] | None = None) -> tuple[FlowerTransport, list[Line]]:
    """A transport with clients on some of its seats, not yet told any terms."""
    transport = FlowerTransport(clients, SCHEMA.digest(), notes.append if notes is not None else lambda text: None)
    lines = [Line(Participant(i, SCHEMA, bank(ROWS, i))) for i in numbers]
    for line in lines:
        transport.admit(line)
    return transport, lines


def test_strategies_run_on_seated_clients_as_they_do_in_process():
    transport, _ = seated(0, 1)
    transport.gather(0.0)
    transport.agree([terms_of("scaffold").encode(), CURVES])
    strategy = make_strategy("scaffold")
    record = run(strategy, transport, START, RunSettings(rounds=2), lambda weights: {}, clock=WallClock())
    expected, weights = in_process("scaffold", 2, clients=2)
    np.testing.assert_array_equal(strategy.weights, weights)
    assert (record[-1].client_down, record[-1].client_up) == (expected[-1].client_down, expected[-1].client_up)
    told = len(terms_of("scaffold").encode()) + len(CURVES)
    assert [(t.down, t.up) for t in transport.setup] == [(told, 0)] * 2


def test_a_second_client_of_one_number_is_told_so_and_sent_home():
    notes: list[str] = []
    transport, (first,) = seated(0, notes=notes)
    twin = Participant(0, SCHEMA, bank(50, 0))
    line = Line(twin)
    transport.admit(line)
    assert twin.refusal == "there is a client 0 already; give each client a number of its own."
    assert line.dismissed
    assert not first.dismissed
    assert notes == ["client 0 has joined", f"a client was refused: {twin.refusal}"]


def test_a_client_with_another_schema_is_told_so_and_sent_home():
    stranger = Participant(0, SCHEMA.model_copy(update={"columns": SCHEMA.columns[1:]}), bank(50, 0))
    line = Line(stranger)
    FlowerTransport(1, SCHEMA.digest()).admit(line)
    assert "its schema is not the server's" in stranger.refusal
    assert line.dismissed


def test_missing_clients_are_named_after_the_wait():
    transport, _ = seated(1, clients=3)
    with pytest.raises(ConfigError, match=r"2 of 3 clients did not join within 0\.01 seconds: 0, 2\."):
        transport.gather(0.01)


def test_a_vanished_client_is_out_of_the_round_and_sent_nothing_more():
    notes: list[str] = []
    transport, lines = seated(0, 1, notes=notes)
    transport.agree([terms_of("fedavg").encode(), CURVES])
    lines[1].cut = True
    strategy = make_strategy("fedavg")
    record = run(strategy, transport, START, RunSettings(rounds=3), lambda weights: {}, clock=WallClock())
    assert [r.participants for r in record[1:]] == [(0,), (0,), (0,)]
    assert [r.lost[1] for r in record[1:]] == ["client 1 vanished", "client 1 has left", "client 1 has left"]
    assert record[-1].client_down[0] == 3 * record[-1].client_down[1]
    assert notes[-1] == "client 1 has left"


def test_a_client_that_joins_again_hears_the_terms_and_goes_on():
    transport, (_, lost) = seated(0, 1)
    transport.agree([terms_of("scaffold").encode(), CURVES])
    strategy = make_strategy("scaffold")

    def on_round(one: Round) -> None:
        if one.number == 1:
            transport.leave(lost)
        if one.number == 2:
            transport.admit(Line(Participant(1, SCHEMA, bank(ROWS, 1))))

    settings = RunSettings(rounds=3)
    record = run(strategy, transport, START, settings, lambda weights: {}, clock=WallClock(), on_round=on_round)
    assert [r.participants for r in record[1:]] == [(0, 1), (0,), (0, 1)]
    assert transport.setup[1].down == 2 * transport.setup[0].down


def test_when_all_have_left_the_run_gives_up_in_words():
    transport, lines = seated(0, 1)
    for line in lines:
        transport.leave(line)
    with pytest.raises(DataError, match=r"no client gave a usable reply in 10 rounds in a row.*client 0 has left"):
        run(make_strategy("fedavg"), transport, START, RunSettings(rounds=20), lambda w: {}, clock=WallClock())


def test_a_client_still_at_work_is_not_asked_again_and_is_waited_for_at_the_end():
    transport, (line, _) = seated(0, 1)
    transport.agree([terms_of("fedavg").encode(), CURVES])
    line.hold.clear()
    payload = encode(make_message())
    slow = threading.Thread(target=functools.partial(transport.exchange, 0, payload))
    slow.start()
    with pytest.raises(NotSent, match="client 0 is still at work"):
        wait_until_busy(transport, payload)
    threading.Timer(0.1, line.hold.set).start()
    transport.finish(10.0)
    slow.join(10)
    assert transport.exchange(0, payload)[1] > 0


def make_message():
    strategy = make_strategy("fedavg")
    strategy.start(START, 2)
    return strategy.broadcast(0)


def wait_until_busy(transport: FlowerTransport, payload: bytes) -> None:
    while not transport._seats[0].busy.locked():
        pass
    transport.exchange(0, payload)


@pytest.mark.parametrize(
    "found", [Parameters([], Kind.REPLY), Parameters([b""], "numpy"), Parameters([b""], Kind.TRAIN)]
)
def test_an_answer_of_another_form_is_refused(found, monkeypatch):
    transport, (line, _) = seated(0, 1)
    monkeypatch.setattr(line, "fit", lambda ins, timeout, group_id: FitRes(None, found, 0, {}))
    with pytest.raises(DataError, match="client 0 gave an answer of an unknown form"):
        transport.exchange(0, b"")


def test_what_fails_at_a_client_names_the_client():
    transport, _ = seated(0, 1)
    with pytest.raises(DataError, match="client 0 does not send quantiles of its rows"):
        transport.sketches()
    with pytest.raises(DataError, match="client 0: the server's terms cannot be read"):
        transport.agree([b"{", CURVES])


def test_a_client_that_leaves_during_the_set_up_ends_the_run():
    transport, lines = seated(0, 1)
    lines[1].cut = True
    with pytest.raises(DataError, match="the set-up failed: client 1 vanished"):
        transport.agree([terms_of("fedavg").encode(), CURVES])


def test_a_taken_port_is_refused_before_flower_hears_of_it():
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="cannot listen on"):
        host(FlowerTransport(1, ""), f"127.0.0.1:{taken.getsockname()[1]}", lambda: None)


@dataclass
class Captured(Counts):
    """Keeps what passes."""

    streams: dict[str, bytearray] = field(default_factory=lambda: {"up": bytearray(), "down": bytearray()})

    def add(self, direction: str, chunk: bytes) -> None:
        super().add(direction, chunk)
        self.streams[direction] += chunk


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, section 3.4


def taken_apart(stream: bytes, kind: type) -> tuple[list, dict[str, int]]:
    """One direction of a captured connection: Flower's messages, and the bytes of each layer."""
    layers = {"preface": len(PREFACE) if stream.startswith(PREFACE) else 0, "heads of data": 0, "other frames": 0}
    at, data = layers["preface"], bytearray()
    while at < len(stream):  # a frame: length (3 bytes), type, flags, stream id (4 bytes)
        size = int.from_bytes(stream[at : at + 3], "big")
        if stream[at + 3] == 0:
            assert not stream[at + 4] & 8, "padding"
            layers["heads of data"] += 9
            data += stream[at + 9 : at + 9 + size]
        else:
            layers["other frames"] += 9 + size
        at += 9 + size
    messages, at = [], 0
    while at < len(data):  # gRPC: a flag (1 byte: compressed or not), length (4 bytes), message
        assert not data[at], "compressed"
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        messages.append(kind.FromString(bytes(data[at + 5 : at + 5 + size])))
        at += 5 + size
    layers["gRPC prefixes"] = 5 * len(messages)
    layers["messages"] = sum(m.ByteSize() for m in messages)
    return messages, layers


@dataclass
class Joining:
    """Client processes of the real command, each behind a counting proxy of its own."""

    folder: Path
    server: tuple[str, int]
    proxies: list[CountingProxy] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, number: int) -> None:
        proxy = CountingProxy(self.server, new_counts=Captured)
        words = ["--number", number, "--address", f"127.0.0.1:{proxy.port}", "--schema", self.folder / "schema.json"]
        words += ["--data", self.folder / f"{number}.parquet", "--json"]
        code = "from cli.app import main; main()"
        command = [sys.executable, "-W", "error", "-c", code, "federated", "join", *map(str, words)]
        self.proxies.append(proxy)
        self.processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder)
        )

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for proxy in self.proxies:
            proxy.close()


@pytest.fixture
def joining(tmp_path):
    (tmp_path / "schema.json").write_text(SCHEMA.model_dump_json(exclude_none=True), encoding="utf-8")
    for i in range(3):
        write_table(bank_table(BANKS[i], rows=ROWS, rng=np.random.default_rng(i)), tmp_path / f"{i}.parquet")
    with socket.create_server(("127.0.0.1", 0)) as free:
        server = free.getsockname()
    found = Joining(tmp_path, server)
    yield found
    found.close()


@pytest.mark.slow
def test_real_processes_give_the_weights_and_the_payload_of_a_run_in_process(joining):
    """One server and three client processes over loopback: three strategies in turn, then a client is killed."""
    from flwr.proto.transport_pb2 import ClientMessage, ServerMessage  # only once our door has silenced flwr

    transport = FlowerTransport(3, SCHEMA.digest())
    outcomes: list[tuple[list[Round], Vector]] = []

    def one_run(name: str, rounds: int, on_round: OnRound | None = None) -> None:
        transport.agree([terms_of(name).encode(), CURVES])
        strategy, settings = make_strategy(name), RunSettings(rounds=rounds)
        record = run(strategy, transport, START, settings, lambda w: {}, clock=WallClock(), on_round=on_round)
        outcomes.append((record, strategy.weights))

    def kill(one: Round) -> None:
        if one.number == 1:
            joining.processes[1].kill()

    def body() -> None:
        for number in range(3):
            joining.start(number)
        transport.gather(300.0)
        one_run("fedavg", 3)
        one_run("scaffold", 3)
        one_run("fedasync", 2)
        one_run("fedavg", 4, kill)

    host(transport, "{}:{}".format(*joining.server), body)
    words = [process.communicate(timeout=60) for process in joining.processes]

    for name, (record, weights) in zip(("fedavg", "scaffold"), outcomes, strict=False):
        expected, expected_weights = in_process(name, 3)  # scaffold needs what clients remember between rounds
        np.testing.assert_allclose(weights, expected_weights, rtol=0, atol=1e-6)
        assert record[-1].client_down == expected[-1].client_down
        assert record[-1].client_up == expected[-1].client_up
    assert sum(len(one.participants) for one in outcomes[2][0]) == 6

    survived, _ = outcomes[3]
    assert survived[1].participants == (0, 1, 2)
    assert [one.participants for one in survived[2:]] == [(0, 2)] * 3
    assert all("client 1" in one.lost[1] for one in survived[2:])
    assert [process.returncode for process in joining.processes] == [0, -9, 0]
    assert [err for _, err in words] == [""] * 3

    reported = json.loads(words[0][0])
    for direction, kind, field_name in (("down", ServerMessage, "fit_ins"), ("up", ClientMessage, "fit_res")):
        probe, captured = joining.proxies[0].connections  # the first only looks whether somebody listens
        assert probe.up == 0
        stream = bytes(captured.streams[direction])
        messages, layers = taken_apart(stream, kind)
        assert sum(layers.values()) == len(stream) == getattr(captured, direction)
        parts = [part for m in messages for part in getattr(m, field_name).parameters.tensors]
        payload = sum(map(len, parts))
        assert payload == reported[direction]
        counted = sum(getattr(record[-1], f"client_{direction}")[0] for record, _ in outcomes)
        told = [terms_of(name).encode() + CURVES for name in ("fedavg", "scaffold", "fedasync", "fedavg")]
        after_the_end = payload - counted - (sum(map(len, told)) if direction == "down" else 0)
        # Of the asynchronous run one reply may come when its last round is over.
        assert after_the_end == 0 or (direction == "up" and after_the_end in map(len, parts))
        assert len(stream) - payload <= 300 + 120 * len(messages) + 0.002 * payload
