"""FedAsync: each model is mixed into the global one as it arrives, the less the more the global one has moved on.

Source: Xie, Koyejo and Gupta 2019, arXiv:1903.03934, algorithm 1 and its three staleness functions; the defaults are
values from its experiments. Staleness here is the number of aggregations between sending a model and mixing in what
came of it, so that an answer to the current model has staleness 0 and full weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from distill.common import checks
from distill.errors import ConfigError, DataError
from server_train.federated.local.client import Client
from server_train.federated.local.mlp import Vector
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.base import Strategy

STALENESS = ("constant", "polynomial", "hinge")


@dataclass(kw_only=True)
class FedAsync(Strategy):
    """Asynchronous mixing; every client counts the same, and a fast one counts more often.

    Attributes:
        alpha: Weight of a fresh model, in (0, 1]; named as in the paper, like the next ones.
        staleness: How that weight falls with age: "constant", "polynomial" or "hinge".
        a: Exponent of "polynomial", slope of "hinge".
        b: Age up to which "hinge" keeps the full weight.
        rho: Strength of the client's pull to the model it got.
        sent: The round of the model that each client got last.
        versions: Those models, by round: clients answer with a difference, as everywhere.
    """

    asynchronous: ClassVar[bool] = True
    alpha: float = 0.6
    staleness: str = "polynomial"
    a: float = 0.5
    b: float = 4.0
    rho: float = 0.005
    sent: dict[int, int] = field(init=False, default_factory=dict, repr=False)
    versions: dict[int, Vector] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        checks.positive(alpha=self.alpha)
        checks.at_most(1.0, alpha=self.alpha)
        if self.staleness not in STALENESS:
            raise ConfigError(f"staleness must be one of {', '.join(STALENESS)}, not {self.staleness!r}.")
        for name in ("a", "b", "rho"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name):g}.")

    def start(self, weights: Vector, clients: int) -> None:
        """Begin with nothing on its way."""
        super().start(weights, clients)
        self.sent, self.versions = {}, {}

    def broadcast(self, client: int) -> Message:
        """The current model and its round, which the reply repeats."""
        self.sent[client] = self.round
        self.versions[self.round] = self.weights
        waited_for = set(self.sent.values())
        self.versions = {number: weights for number, weights in self.versions.items() if number in waited_for}
        return Message({"weights": self.weights}, {"round": self.round})

    def train(self, client: Client, message: Message) -> Message:
        """Local steps on loss + rho / 2 * |weights - start|**2; the difference goes back, with the round."""
        start = message.tensors["weights"]
        correction = (lambda weights: self.rho * (weights - start)) if self.rho else None
        run = client.train(start, correction=correction)
        return Message({"update": run.weights - start}, {"rows": client.rows, "round": message.numbers["round"]})

    def accept(self, reply: Message) -> None:
        """Refuse a reply to a model that no client is known to train. Raises DataError."""
        super().accept(reply)
        if reply.numbers.get("round") not in self.versions:
            raise DataError("a reply must name the round of the model it started from, one that a client still has")

    def aggregate(self, replies: Mapping[int, Message]) -> None:
        """Mix in each reply, one after the other: one aggregation each."""
        for reply in replies.values():
            number = int(reply.numbers["round"])
            share = self.share(self.round - number)
            trained = self.versions[number] + reply.tensors["update"].astype(np.float64)
            self.weights = ((1.0 - share) * self.weights + share * trained).astype(self.weights.dtype)
            self.round += 1

    def share(self, staleness: int) -> float:
        """Weight of a model that is `staleness` aggregations old: `alpha` times the paper's s, in (0, 1]."""
        if self.staleness == "polynomial":
            return float(self.alpha * (staleness + 1.0) ** -self.a)
        if self.staleness == "hinge" and staleness > self.b:
            return self.alpha / (self.a * (staleness - self.b) + 1.0)
        return self.alpha
