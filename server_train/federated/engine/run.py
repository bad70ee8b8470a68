"""A federated run in simulated time: who takes part, what travels, what is lost on the way, and the record of it all.

Every exchange is a simpy process: the client downloads, works, uploads, and each takes the seconds that the clock answers
for the bytes and rows at hand. Training is real and happens in simulated order, so a slow client of an asynchronous
strategy really starts from weights that have grown old. The same seeds give the same record.

Synchronous strategies: a round ends when its last reply is in or lost, or at the deadline. Asynchronous ones: as many
clients as take part are busy at any time, each reply is aggregated as it arrives, and a round of the record is as many
exchanges as clients take part. A client from which nothing usable came is lost for the rest of the round, with the reason.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from distill.common import checks
from distill.errors import ConfigError, DataError
from server_train.federated.engine.clock import Clock
from server_train.federated.engine.transport import NotSent, Transport
from server_train.federated.local.mlp import Vector
from server_train.federated.messages.codec import Message, decode, encode
from server_train.federated.messages.compression import Compression, unpack
from server_train.federated.strategies.base import Strategy

MAX_BARREN_ROUNDS = 10  # in a row without one usable reply; then the run gives up
Evaluate = Callable[[Vector], dict[str, float]]  # global weights -> figures on test rows
OnRound = Callable[["Round"], None]
Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How long and with whom.

    Attributes:
        rounds: Aggregations of all clients' replies; for an asynchronous strategy, `rounds` times the number of
            participants is how many exchanges there are, lost ones included.
        participation: Share of the clients asked in each round, in (0, 1]; at least one is. Asynchronous: share of the
            clients busy at any time; who is free is asked at random.
        seed: Of the choice of participants.
        deadline: Seconds after which a round ends, whoever is missing; None: it waits for all. What a client has begun to
            send by then counts as sent. Asynchronous strategies wait for nobody and do without.
        evaluate_every: Rounds from one evaluation to the next; the first and the last round always are evaluated.
        download: Compression of what the server sends; float16 or int8.
    """

    rounds: int = 100
    participation: float = 1.0
    seed: int = 0
    deadline: float | None = None
    evaluate_every: int = 1
    download: Compression = field(default_factory=Compression)

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        checks.positive(rounds=self.rounds, participation=self.participation, evaluate_every=self.evaluate_every)
        checks.at_most(1.0, participation=self.participation)
        if self.deadline is not None:
            checks.positive(deadline=self.deadline)
        if self.download.method == "topk":
            raise ConfigError("downloads carry whole weights, of which topk would drop most. Choose float16 or int8.")


@dataclass(frozen=True, kw_only=True)
class Round:
    """One point of a run; counts and times are totals since its start.

    Attributes:
        number: From 0, the state before any training.
        seconds: Simulated time.
        down, up: Payload bytes from and to the server, all clients together; a message counts when it sets out.
        client_down, client_up: The same for every client, in their order.
        participants: Clients whose replies were aggregated; asynchronous: in order of arrival, one as often as it came.
        lost: Clients that were asked but gave nothing usable, with the reason.
        metrics: Figures of the global weights; empty where they were not evaluated.
    """

    number: int
    seconds: float
    down: int
    up: int
    client_down: tuple[int, ...] = ()
    client_up: tuple[int, ...] = ()
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
    clock: Clock | None = None,
    on_round: OnRound | None = None,
) -> list[Round]:
    """Run `strategy` from `weights`; the record starts with round 0. The final weights are `strategy.weights`.

    Args:
        strategy: Its server side is used here.
        transport: Carries messages to the clients.
        weights: Where to begin, shape (size,); left as they are.
        settings: How long and with whom.
        evaluate: Figures of global weights, as often as the settings say.
        clock: What everything takes; None: all clients on fast machines and lines.
        on_round: Called with each round as it ends, the one with number 0 excepted.

    Raises:
        ConfigError: there are no clients.
        DataError: no client gave anything usable for `MAX_BARREN_ROUNDS` rounds in a row, or the global weights are no
            longer finite.
    """
    if not transport.clients:
        raise ConfigError("a federated run needs at least one client.")
    strategy.start(weights, transport.clients)
    federation = _Run(strategy, transport, settings, evaluate, clock or Clock(), on_round)
    whole = federation.asynchronous() if strategy.asynchronous else federation.synchronous()
    federation.env.run(until=federation.env.process(whole))
    return federation.record


class _Run:
    """State of one run, and its processes."""

    def __init__(
        self,
        strategy: Strategy,
        transport: Transport,
        settings: RunSettings,
        evaluate: Evaluate,
        clock: Clock,
        on_round: OnRound | None,
    ) -> None:
        self.strategy, self.transport, self.settings = strategy, transport, settings
        self.evaluate, self.clock, self.on_round = evaluate, clock, on_round
        clients = transport.clients
        self.env = clock.environment()
        self.rng = np.random.default_rng(settings.seed)
        self.asked = max(1, round(settings.participation * clients))
        self.drop_outs = [clock.drop_outs(client) for client in range(clients)]
        self.down, self.up = [0] * clients, [0] * clients
        self.replied: list[int] = []  # of the round under way, as are the lost
        self.lost: dict[int, str] = {}
        self.barren = 0
        self.idle = list(range(clients))  # asynchronous: clients without an exchange under way
        self.next_round = self.env.event()
        self.record: list[Round] = []
        self._write()

    @property
    def over(self) -> bool:
        """Whether the last round is in the record."""
        return len(self.record) > self.settings.rounds

    def synchronous(self) -> Process:
        """Round after round: ask the chosen, wait, aggregate."""
        while not self.over:
            chosen = np.sort(self.rng.permutation(self.transport.clients)[: self.asked]).tolist()
            replies: dict[int, Message] = {}
            payloads = {client: self._payload(client) for client in chosen}
            self.transport.begin(payloads)
            tasks = [self.env.process(self._collect(c, payload, replies)) for c, payload in payloads.items()]
            yield from self._wait(tasks)
            if replies:  # in the clients' order, so that no sum depends on the clock
                self._aggregate(dict(sorted(replies.items())))
            self._end_round()

    def asynchronous(self) -> Process:
        """Clients come and go; the run ends with the last round."""
        for _ in range(self.asked):
            self.env.process(self._stay_busy())
        while not self.over:
            yield self.next_round

    def _wait(self, tasks: list[simpy.Process]) -> Process:
        """Until all are done; at the deadline the rest are told to stop."""
        if self.settings.deadline is not None:
            yield self.env.all_of(tasks) | self.env.timeout(self.settings.deadline)
            for task in tasks:
                if task.is_alive:
                    task.interrupt()
        yield self.env.all_of(tasks)

    def _collect(self, client: int, payload: bytes, replies: dict[int, Message]) -> Process:
        """One exchange of a synchronous round: its reply into `replies`, or the client among the lost."""
        try:
            replies[client] = yield from self._exchange(client, payload)
        except simpy.Interrupt:
            self.lost[client] = f"no reply within {self.settings.deadline:g} seconds, the round's deadline"
        except (ConnectionError, DataError) as error:
            self.lost[client] = str(error)

    def _stay_busy(self) -> Process:
        """One exchange after the other, each with a client that is free; replies are aggregated as they arrive."""
        while not self.over:
            free = [client for client in self.idle if client not in self.lost]
            if not free:
                yield self.next_round
                continue
            client = free[self.rng.integers(len(free))]
            self.idle.remove(client)
            payload = self._payload(client)
            self.transport.begin({client: payload})
            try:
                reply = yield from self._exchange(client, payload)
            except (ConnectionError, DataError) as error:
                reply, self.lost[client] = None, str(error)
            if self.over:  # it ended in the very moment of the last one
                return
            if reply is not None:
                self._aggregate({client: reply})
            self.idle.append(client)
            if len(self.replied) + len(self.lost) >= self.asked:
                self._end_round()

    def _exchange(self, client: int, payload: bytes) -> Generator[simpy.Event, Any, Message]:
        """Download, work, upload; the reply. A client that fails at its work does so at once: nobody knows when it did.

        Raises ConnectionError or DataError where nothing usable comes back.
        """
        self.down[client] += len(payload)
        yield self.env.timeout(self.clock.download_seconds(client, len(payload)))
        if next(self.drop_outs[client]):
            raise ConnectionError(f"dropped out after its download (tier {self.clock.tier(client).name})")
        try:
            answer = yield self.clock.work(self.env, client, lambda: self.transport.exchange(client, payload))
        except NotSent:
            self.down[client] -= len(payload)
            raise
        self.up[client] += len(answer)
        yield self.env.timeout(self.clock.upload_seconds(client, len(answer)))
        reply = unpack(decode(answer), self.strategy.weights.size)
        self.strategy.accept(reply)
        return reply

    def _payload(self, client: int) -> bytes:
        """What the server sends now."""
        message = self.strategy.broadcast(client)
        shape = self.strategy.weights.shape
        vectors = [n for n, t in message.tensors.items() if t.shape == shape and t.dtype.kind == "f"]
        return encode(self.settings.download.pack(message, vectors))

    def _aggregate(self, replies: dict[int, Message]) -> None:
        self.strategy.aggregate(replies)
        self.replied.extend(replies)
        if not np.isfinite(self.strategy.weights).all():
            raise DataError(
                f"round {len(self.record)}: the global weights are no longer finite. Lower the learning rate, "
                "or the strategy's step on the server."
            )

    def _end_round(self) -> None:
        """Into the record, and on to the next. Raises DataError after too many rounds without a usable reply."""
        self.barren = 0 if self.replied else self.barren + 1
        if self.barren == MAX_BARREN_ROUNDS:
            client, reason = min(self.lost.items())
            raise DataError(
                f"no client gave a usable reply in {self.barren} rounds in a row; the last words on client {client}: "
                f"{reason.rstrip('.')}."
            )
        self._write()
        self.replied, self.lost = [], {}
        self.next_round.succeed()
        self.next_round = self.env.event()
        if self.on_round:
            self.on_round(self.record[-1])

    def _write(self) -> None:
        """A point of the record, from the state as it is."""
        number = len(self.record)
        due = number % self.settings.evaluate_every == 0 or number == self.settings.rounds
        self.record.append(
            Round(
                number=number,
                seconds=float(self.env.now),
                down=sum(self.down),
                up=sum(self.up),
                client_down=tuple(self.down),
                client_up=tuple(self.up),
                participants=tuple(self.replied),
                lost=dict(sorted(self.lost.items())),
                metrics=self.evaluate(self.strategy.weights) if due else {},
            )
        )
