"""A client of a federated run in a process of its own: what it answers to each kind of message.

Knows nothing of Flower: a message is a kind and byte strings, as in `flower_terms`. The rows stay here. Consent is the
client's: it sends a sketch of its rows only where it was told that it may, and it loads no strategy of somebody's own
unless it was started with the same name, since a name decides which module is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from distill.data.schema import Schema
from distill.errors import ConfigError, DataError
from server_train.federated.engine.transport import answer
from server_train.federated.local.client import Client
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import decode, encode
from server_train.federated.messages.compression import Compression, parse_compression
from server_train.federated.messages.protocol import Hello, Kind, Terms, failure, reason_in
from server_train.federated.messages.sketches import curves_of, one_hot, sketch
from server_train.federated.strategies.base import Strategy
from server_train.federated.strategies.catalogue import STRATEGIES, make_strategy
from server_train.models.features import Encoder, class_codes


@dataclass(frozen=True)
class Answer:
    """What goes back.

    Attributes:
        kind: REPLY or FAILED.
        body: The content.
        work: Rows of work it took.
    """

    kind: Kind
    body: bytes = b""
    work: int = 0


@dataclass(frozen=True)
class _Ready:
    """What training needs."""

    client: Client
    strategy: Strategy
    compression: Compression


@dataclass
class Participant:
    """One client.

    Attributes:
        number: Its place among the clients, from 0.
        schema, frame: The public schema, and the rows in canonical form.
        may_sketch: Whether quantiles of the rows may go to the server.
        own_strategy: A strategy outside this software, as `module:Class`, that the server may name.
        refusal: Why the server did not take it.
        trainings, down, up: Training messages answered, and bytes of all messages from and to the server.
    """

    number: int
    schema: Schema = field(repr=False)
    frame: pd.DataFrame = field(repr=False)
    may_sketch: bool = False
    own_strategy: str | None = None
    refusal: str | None = field(default=None, init=False)
    trainings: int = field(default=0, init=False)
    down: int = field(default=0, init=False)
    up: int = field(default=0, init=False)
    _ready: _Ready | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a client without rows."""
        if not len(self.frame):
            raise DataError(f"client {self.number} has no rows. Name another table.")

    @property
    def hello(self) -> Hello:
        """Who it is."""
        return Hello(self.number, self.schema.digest())

    def handle(self, kind: str, parts: Sequence[bytes]) -> Answer:
        """Answer one message; whatever goes wrong becomes a FAILED answer, and the next message is welcome."""
        self.down += sum(map(len, parts))
        try:
            found = self._answer(kind, parts)
        except Exception as error:  # the server is to hear of it, not to lose the client
            found = Answer(Kind.FAILED, failure(error))
        self.up += len(found.body)
        return found

    def _answer(self, kind: str, parts: Sequence[bytes]) -> Answer:
        match kind, list(parts):
            case Kind.TRAIN, [payload]:
                return self._train(payload)
            case Kind.TERMS, [terms, curves]:
                self._ready = self._agree(Terms.decode(terms), curves)
                return Answer(Kind.REPLY)
            case Kind.SKETCH, []:
                return self._sketch()
            case Kind.REFUSED, [reason]:
                self.refusal = reason_in(reason)
                return Answer(Kind.REPLY)
        raise DataError("a message of an unknown kind came from the server")

    def _train(self, payload: bytes) -> Answer:
        if self._ready is None:
            raise DataError(f"client {self.number} was asked to train before it knew the terms.")
        body, work = answer(self._ready.client, self._ready.strategy, payload, self._ready.compression)
        self.trainings += 1
        return Answer(Kind.REPLY, body, work)

    def _sketch(self) -> Answer:
        if not self.may_sketch:
            raise ConfigError(
                f"client {self.number} does not send quantiles of its rows: it was not started with --allow-sketch. "
                "Start it with that option, or the server with --scaling bounds."
            )
        return Answer(Kind.REPLY, encode(sketch(self.schema, self.frame)))

    def _agree(self, terms: Terms, curves: bytes) -> _Ready:
        """Get ready to train on these terms. Raises ConfigError or DataError where it cannot."""
        if terms.strategy not in STRATEGIES and terms.strategy != self.own_strategy:
            raise ConfigError(
                f"client {self.number} does not load strategy {terms.strategy!r}. "
                f"Start it with --strategy {terms.strategy}, in a folder where that module is."
            )
        encoder = Encoder(self.schema, curves_of(self.schema, decode(curves)))
        x = one_hot(encoder.encode(self.frame), encoder.n_codes)
        client = Client(
            number=self.number,
            x=x,
            y=class_codes(self.schema, self.frame),
            model=Mlp([x.shape[1], *terms.hidden, len(self.schema.classes)]),
            settings=terms.local,
            rng=np.random.default_rng([terms.seed, 3, self.number]),
        )
        return _Ready(client, make_strategy(terms.strategy, terms.options), parse_compression(terms.compression))
