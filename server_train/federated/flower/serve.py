"""A federated run on several machines, the server's side from start to end: files in, clients gathered, files out.

The strategies and the engine are those of every other run; time is real, and bytes are counted twice: as payload by the
engine and, where asked for, on the wire by a proxy a client.
"""

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from distill.common import checks, files
from distill.common.metadata import versions
from distill.data.schema import Schema, load_schema
from distill.data.tables import read_table
from distill.errors import ConfigError, DataError
from server_train.evaluation.metrics import evaluate_scores
from server_train.federated.engine import run
from server_train.federated.engine.wall_clock import WallClock
from server_train.federated.flower.addresses import parse_address, read_pem
from server_train.federated.flower.server import FlowerTransport, Traffic, host
from server_train.federated.flower.traffic import CountingProxy, Counts
from server_train.federated.local.mlp import Mlp, Vector
from server_train.federated.messages.codec import Message, decode, encode
from server_train.federated.messages.compression import parse_compression
from server_train.federated.messages.protocol import Terms
from server_train.federated.messages.sketches import (
    answer,
    check_sketch,
    class_shares,
    curves_of,
    merge,
    one_hot,
    public_curves,
)
from server_train.federated.strategies.base import Strategy
from server_train.federated.strategies.catalogue import make_strategy
from server_train.models.cards import TrainingCard
from server_train.models.features import Encoder, class_codes
from server_train.models.model import Model, ModelCard, NetworkScorer, network_for, save_model

ROUNDS, RECORD = "rounds.csv", "federated.json"
SCALINGS = ("bounds", "sketch")
FIGURES = ("roc_auc", "accuracy", "log_loss")
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a server is asked to do.

    Attributes:
        address: host:port to listen at.
        clients: How many there are.
        schema, test: Public schema, and rows to judge the global model on.
        out: Folder for the model and the record.
        terms: What clients are told.
        rounds, participation, deadline: As in `engine.RunSettings`.
        scaling: "bounds": by the schema alone; "sketch": by quantiles of the clients' rows.
        wait: Seconds for all clients to join.
        certificate, key: PEM files of the server, for TLS.
        wire_port: First of as many ports as there are clients; client i may use port + i, and its bytes on the wire
            are counted there.
    """

    address: str
    clients: int
    schema: Path
    test: Path
    out: Path
    terms: Terms
    rounds: int = 20
    participation: float = 1.0
    deadline: float | None = None
    scaling: str = "bounds"
    wait: float = 300.0
    certificate: Path | None = None
    key: Path | None = None
    wire_port: int | None = None

    def __post_init__(self) -> None:
        """Refuse, before anything is read, what cannot work."""
        parse_address(self.address)
        checks.positive(clients=self.clients, wait=self.wait)
        if self.scaling not in SCALINGS:
            raise ConfigError(f"scaling must be one of {', '.join(SCALINGS)}, not {self.scaling!r}.")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("TLS needs both: --certificate and --key.")
        if self.wire_port is not None and not 0 < self.wire_port <= 65_536 - self.clients:
            raise ConfigError(f"no {self.clients} ports follow {self.wire_port}; choose a lower --wire-port.")
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"{self.out} is a file; name a folder.")
        self.strategy()
        self.run_settings()

    def strategy(self) -> Strategy:
        """A fresh one."""
        return make_strategy(self.terms.strategy, self.terms.options)

    def run_settings(self) -> run.RunSettings:
        """As the engine takes them."""
        compression = parse_compression(self.terms.compression)
        return run.RunSettings(
            rounds=self.rounds,
            participation=self.participation,
            seed=self.terms.seed,
            deadline=self.deadline,
            download=parse_compression("none") if compression.method == "topk" else compression,
        )


@dataclass(frozen=True)
class Served:
    """A finished run.

    Attributes:
        record: Round by round, from 0.
        setup: Set-up bytes of each client.
        wire: Bytes on the wire of each client, where they were counted; else empty.
        folder: Where the model and the record are.
    """

    record: list[run.Round]
    setup: tuple[Traffic, ...]
    wire: tuple[Counts, ...]
    folder: Path


@dataclass(frozen=True, eq=False)
class _Rows:
    """The schema and the test rows."""

    schema: Schema
    test: pd.DataFrame
    labels: np.ndarray = field(repr=False)


def serve(service: Service, *, note: Note = lambda text: None, on_round: run.OnRound | None = None) -> Served:
    """Wait for the clients, run all rounds, write the model and the record; in the main thread only.

    Args:
        service: What is asked for.
        note: Hears who joins, leaves and is refused, from any thread.
        on_round: Called with each round as it ends.

    Raises:
        ConfigError, SchemaError, DataError: a file or a port cannot be used, a client did not join or could not agree, or
            no client answers any more.
    """
    rows = _read(service)
    certificate, key = (None if path is None else read_pem(path) for path in (service.certificate, service.key))
    with files.wrapped("make the folder", service.out, ConfigError):
        service.out.mkdir(parents=True, exist_ok=True)
    transport = FlowerTransport(service.clients, rows.schema.digest(), note)
    wire: list[CountingProxy] = []
    with contextlib.ExitStack() as proxies:

        def body() -> list[run.Round]:
            wire.extend(proxies.enter_context(proxy) for proxy in _proxies(service))  # behind them somebody listens now
            return _run(service, rows, transport, on_round)

        record = host(transport, service.address, body, certificate=certificate, key=key)
        counts = tuple(proxy.total for proxy in wire)
    served = Served(record, transport.setup, counts, service.out)
    _write_record(service, served)
    return served


def _run(service: Service, rows: _Rows, transport: FlowerTransport, on_round: run.OnRound | None) -> list[run.Round]:
    """Everything between the first client and the last round; the model is written at the end."""
    transport.gather(service.wait)
    sketches = [_checked(rows.schema, client, data) for client, data in enumerate(_sketches(service, transport))]
    curves = encode(answer(merge(rows.schema, sketches) if sketches else public_curves(rows.schema)))
    transport.agree([service.terms.encode(), curves])
    encoder = Encoder(rows.schema, curves_of(rows.schema, decode(curves)))
    x = one_hot(encoder.encode(rows.test), encoder.n_codes)
    model = Mlp([x.shape[1], *service.terms.hidden, len(rows.schema.classes)])

    def judge(weights: Vector) -> dict[str, float]:
        judged = evaluate_scores(rows.labels, model.probabilities(weights, x), rows.schema.classes)
        return {"roc_auc": judged.roc_auc or 0.0, "accuracy": judged.accuracy, "log_loss": judged.log_loss}

    strategy = service.strategy()
    rng = np.random.default_rng([service.terms.seed, 2])
    start = model.initial(rng, class_shares(sketches) if sketches else None)
    settings = service.run_settings()
    record = run.run(strategy, transport, start, settings, judge, clock=WallClock(), on_round=on_round)
    _write_model(service, record, encoder, model, strategy.weights)
    return record


def _read(service: Service) -> _Rows:
    """Schema and test rows."""
    schema = load_schema(service.schema)
    schema.require_confirmed()
    schema.require_classes("federated training")
    test = read_table(service.test, schema, role="evaluate")
    labels = class_codes(schema, test)
    if len(np.unique(labels)) < 2:
        raise DataError(f"{service.test}: the test rows hold a single class, so no ranking can be judged. Name others.")
    return _Rows(schema, test, labels)


def _proxies(service: Service) -> list[CountingProxy]:
    """One a client, where wire bytes are to be counted."""
    if service.wire_port is None:
        return []
    bound, port = parse_address(service.address)
    inner = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)
    return [CountingProxy((inner, port), bound, service.wire_port + i) for i in range(service.clients)]


def _sketches(service: Service, transport: FlowerTransport) -> Sequence[bytes]:
    return transport.sketches() if service.scaling == "sketch" else []


def _checked(schema: Schema, client: int, data: bytes) -> Message:
    """A client's sketch. Raises DataError where it is none."""
    try:
        message = decode(data)
        check_sketch(schema, message)
    except DataError as error:
        raise DataError(f"client {client}: {error}") from None
    return message


def _write_model(service: Service, record: list[run.Round], encoder: Encoder, model: Mlp, weights: Vector) -> None:
    """The global model as `distill evaluate` and `predict` read it, marked as not private."""
    network = network_for(encoder, service.terms.hidden, classes=len(encoder.schema.classes))
    first, bias, *rest = [torch.from_numpy(layer.copy()) for layer in model.layers(weights)]
    state = {"dense": first[: encoder.n_dense], "table": first[encoder.n_dense :], "bias": bias}
    for i, layer in enumerate(rest):
        state[f"{'biases' if i % 2 else 'weights'}.{i // 2}"] = layer
    network.load_state_dict(state)
    card = ModelCard(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        schema=encoder.schema,
        schema_digest=encoder.schema.digest(),
        preprocessing=encoder.curves,
        hidden=service.terms.hidden,
        training=TrainingCard.model_validate(
            {
                "federated": service.terms.model_dump(mode="json"),
                "clients": service.clients,
                "rounds": record[-1].number,
                **record[-1].metrics,
            }
        ),
        rehearsal=True,  # nothing bounds what these weights tell of a row
    )
    with files.wrapped("write the model into", service.out, ConfigError):
        save_model(Model(card, NetworkScorer(encoder, network.eval())), service.out)


def _write_record(service: Service, served: Served) -> None:
    """rounds.csv and federated.json."""
    names = ["round", "seconds", "down", "up", "replies", "lost", *FIGURES]
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(names)
    for one in served.record:
        figures = [one.metrics.get(name, "") for name in FIGURES]
        replies = len(one.participants)
        writer.writerow([one.number, f"{one.seconds:.3f}", one.down, one.up, replies, len(one.lost), *figures])
    content = {
        "terms": service.terms.model_dump(mode="json"),
        "scaling": service.scaling,
        "clients": client_bytes(served),
        "rounds": [dataclasses.asdict(one) for one in served.record],
    }
    with files.wrapped("write the record into", service.out, ConfigError):
        files.write_whole(service.out / ROUNDS, table.getvalue().encode())
        files.write_whole(service.out / RECORD, (json.dumps(content, indent=1) + "\n").encode())


def client_bytes(served: Served) -> list[dict[str, Any]]:
    """Bytes of each client: payload of the rounds and of the set-up, and on the wire where that was counted."""
    last = served.record[-1]
    out = []
    for i, setup in enumerate(served.setup):
        line: dict[str, Any] = {
            "client": i,
            "down": last.client_down[i],
            "up": last.client_up[i],
            "setup_down": setup.down,
            "setup_up": setup.up,
        }
        if served.wire:
            line |= {"wire_down": served.wire[i].down, "wire_up": served.wire[i].up}
        out.append(line)
    return out
