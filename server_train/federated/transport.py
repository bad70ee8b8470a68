"""How a message reaches a client and its reply comes back, in bytes; `engine` counts what passes here."""

from collections.abc import Sequence
from typing import Protocol

from server_train.federated.client import Client
from server_train.federated.messages import decode, encode
from server_train.federated.strategy import Strategy


class Transport(Protocol):
    """Something that carries bytes to clients and back."""

    @property
    def clients(self) -> int:
        """How many clients there are; they are numbered from 0."""

    def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
        """Let `client` work on `payload`; its reply, and the rows of work it took.

        Raises:
            ConnectionError: the client vanished; it is out of this round and asked again in the next.
            DataError: its training failed.
        """


class InProcess:
    """All clients in this process: fast and repeatable. Messages are encoded and decoded as on a real network."""

    def __init__(self, clients: Sequence[Client], strategy: Strategy) -> None:
        """`strategy` needs only its options: its server side is never touched here."""
        self._clients, self._strategy = list(clients), strategy

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self._clients)

    def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
        """Train the client here and now."""
        one = self._clients[client]
        before = one.work
        reply = self._strategy.train(one, decode(payload))
        return encode(reply), one.work - before
