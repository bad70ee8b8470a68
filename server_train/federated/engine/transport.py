"""How a message reaches a client and its reply comes back, in bytes; `engine` counts what passes here."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from server_train.federated.local.client import Client
from server_train.federated.messages.codec import decode, encode
from server_train.federated.messages.compression import Compression, unpack
from server_train.federated.strategies.base import Strategy


class NotSent(ConnectionError):
    """Nothing was sent: the client is gone, or still busy with an earlier message."""


class Transport(Protocol):
    """Something that carries bytes to clients and back."""

    @property
    def clients(self) -> int:
        """How many clients there are; they are numbered from 0."""

    def begin(self, payloads: Mapping[int, bytes]) -> None:
        """These exchanges come next, client -> payload: a network may start them side by side.

        One of them may never be asked for, where simulated time ran out before.
        """

    def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
        """Let `client` work on `payload`; its reply, and the rows of work it took.

        Raises:
            ConnectionError: the client vanished; it is out of this round and asked again in the next. `NotSent` where
                it was gone before.
            DataError: its training failed.
        """


class InProcess:
    """All clients in this process: fast and repeatable. Messages are encoded and decoded as on a real network."""

    def __init__(self, clients: Sequence[Client], strategy: Strategy, compression: Compression | None = None) -> None:
        """`strategy` needs only its options: its server side is never touched here. `compression` is of uploads."""
        self._clients, self._strategy, self._compression = list(clients), strategy, compression or Compression()

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self._clients)

    def begin(self, payloads: Mapping[int, bytes]) -> None:
        """Nothing: clients here work one after the other."""

    def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
        """Train the client here and now."""
        return answer(self._clients[client], self._strategy, payload, self._compression)


def answer(client: Client, strategy: Strategy, payload: bytes, compression: Compression) -> tuple[bytes, int]:
    """A client's part of one exchange, the same on every transport: its reply, and the rows of work it took.

    Raises:
        DataError: the payload cannot be read, or training failed.
    """
    before = client.work
    reply = strategy.train(client, unpack(decode(payload), client.model.size))
    return encode(compression.pack(reply, strategy.compressible, client.memory)), client.work - before
