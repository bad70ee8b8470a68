"""The one interface of a federated strategy: four methods, two for each side.

Server side: `start`, `broadcast` (what a client gets), `aggregate` (what becomes of the replies). Client side: `train`.
On a real network the two sides are different objects in different processes, so `train` may use only the options of
the strategy, the client (with its `memory`) and the message; the server's state must never be read there.

Your own strategy: a subclass in a file of yours, a dataclass whose fields are its options, named as `mymodule:MyStrategy`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from distill.errors import DataError
from server_train.federated.local.client import Client
from server_train.federated.local.mlp import Vector
from server_train.federated.messages.codec import Message


@dataclass(kw_only=True)
class Strategy(ABC):
    """What travels and how replies are combined.

    Attributes:
        needs_loss: Clients report losses of their rows; such a strategy cannot run under record-level privacy, which
            pays for gradients only.
        needs_representations: Clients train on an extra loss in their rows' representations; it cannot run there either,
            for clipping bounds the gradient of the loss alone.
        asynchronous: Each reply is aggregated as it arrives, by itself; else all replies of a round together.
        compressible: Tensors of a reply that compression may shrink: differences of the weights' shape (size,), where
            what is left out of one reply can be made good in the next.
        weights: The server's current model, shape (size,).
        round: Aggregations so far.
    """

    needs_loss: ClassVar[bool] = False
    needs_representations: ClassVar[bool] = False
    asynchronous: ClassVar[bool] = False
    compressible: ClassVar[tuple[str, ...]] = ("update",)
    weights: Vector = field(init=False, repr=False)
    round: int = field(init=False, default=0, repr=False)
    clients: int = field(init=False, default=0, repr=False)

    def start(self, weights: Vector, clients: int) -> None:
        """Server: begin with `weights` and this many clients in all."""
        self.weights, self.clients, self.round = weights.copy(), clients, 0

    def broadcast(self, client: int) -> Message:
        """Server: what `client` gets before it trains."""
        return Message({"weights": self.weights})

    @abstractmethod
    def train(self, client: Client, message: Message) -> Message:
        """Client: train on its rows and say what goes back."""

    @abstractmethod
    def aggregate(self, replies: Mapping[int, Message]) -> None:
        """Server: replace `weights` by what `replies` (client -> message, at least one) make of them."""

    def accept(self, reply: Message) -> None:
        """Server: refuse a reply that cannot be aggregated. Raises DataError.

        Values that are not finite were refused when the message was decoded.
        """
        self.require_vector(reply, "update", "an update")
        if not reply.numbers.get("rows", 0.0) > 0:
            raise DataError("an update must come from at least one row")

    def require_vector(self, reply: Message, name: str, words: str) -> None:
        """Refuse a reply whose tensor `name` is not of the weights' shape and type. Raises DataError naming `words`."""
        vector = reply.tensors.get(name)
        if vector is None or vector.shape != self.weights.shape or vector.dtype != self.weights.dtype:
            raise DataError(f"{words} must hold {self.weights.size} numbers of type {self.weights.dtype}")


def row_shares(replies: Mapping[int, Message]) -> np.ndarray:
    """Each reply's share of all rows, in the order of `replies`, shape (replies,)."""
    rows = np.array([m.numbers["rows"] for m in replies.values()], dtype=np.float64)
    return np.asarray(rows / rows.sum())


def weighted_update(replies: Mapping[int, Message], shares: np.ndarray) -> Vector:
    """Sum of the replies' updates times `shares`, in float64, shape (size,)."""
    return np.asarray(
        sum(s * m.tensors["update"].astype(np.float64) for s, m in zip(shares, replies.values(), strict=True))
    )
