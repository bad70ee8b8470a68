"""Rounds of a federated run: who takes part, what travels, what is lost on the way, and the record of it all."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from distill import check
from distill.errors import DataError
from server_train.federated.messages import Message, decode, encode
from server_train.federated.mlp import Vector
from server_train.federated.strategy import Strategy
from server_train.federated.transport import Transport

Evaluate = Callable[[Vector], dict[str, float]]  # global weights -> figures on test rows


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How long and with whom.

    Attributes:
        rounds: Aggregations of all clients' replies; an asynchronous strategy aggregates `rounds` times the number
            of participants, one reply at a time.
        participation: Share of the clients asked in each round, in (0, 1]; at least one is.
        seed: Of the choice of participants.
    """

    rounds: int = 100
    participation: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        check.positive(rounds=self.rounds, participation=self.participation)
        check.at_most(1.0, participation=self.participation)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One point of a run; counts and times are totals since its start.

    Attributes:
        number: From 0, the state before any training.
        seconds: Simulated time.
        down, up: Payload bytes from and to the server, all clients together.
        participants: Clients whose replies were aggregated.
        lost: Clients that were asked but gave nothing usable, with the reason.
        metrics: Figures of the global weights.
    """

    number: int
    seconds: float
    down: int
    up: int
    participants: tuple[int, ...]
    lost: dict[int, str] = field(default_factory=dict)
    metrics: dict[str, float]


def run(
    strategy: Strategy,
    transport: Transport,
    weights: Vector,
    settings: RunSettings,
    evaluate: Evaluate,
    *,
    on_round: Callable[[Round], None] | None = None,
) -> list[Round]:
    """Run `strategy` from `weights`; the record starts with round 0. The final weights are `strategy.weights`."""
    rng = np.random.default_rng(settings.seed)
    strategy.start(weights, transport.clients)
    asked = max(1, round(settings.participation * transport.clients))
    record = [Round(number=0, seconds=0.0, down=0, up=0, participants=(), metrics=evaluate(strategy.weights))]
    for number in range(1, settings.rounds + 1):
        chosen = np.sort(rng.permutation(transport.clients)[:asked]).tolist()
        down, up = record[-1].down, record[-1].up
        replies: dict[int, Message] = {}
        lost: dict[int, str] = {}
        for client in chosen:
            payload = encode(strategy.broadcast(client))
            down += len(payload)
            try:
                answer, _ = transport.exchange(client, payload)
                up += len(answer)
                reply = decode(answer)
                strategy.accept(reply)
                replies[client] = reply
            except (ConnectionError, DataError) as error:
                lost[client] = str(error)
        if replies:
            strategy.aggregate(replies)
        record.append(
            Round(
                number=number,
                seconds=0.0,
                down=down,
                up=up,
                participants=tuple(replies),
                lost=lost,
                metrics=evaluate(strategy.weights),
            )
        )
        if on_round:
            on_round(record[-1])
    return record
