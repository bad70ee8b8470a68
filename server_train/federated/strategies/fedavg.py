"""FedAvg: clients train for some epochs, the server averages by row counts; with server momentum (FedAvgM).

Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1. Server momentum and step: Hsu et al. 2019, arXiv:1909.06335.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from distill.common import checks
from distill.errors import ConfigError
from server_train.federated.local.client import Client
from server_train.federated.local.mlp import Vector
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.base import Strategy, row_shares, weighted_update


@dataclass(kw_only=True)
class FedAvg(Strategy):
    """Average of the clients' updates, weighted by their rows.

    Attributes:
        server_rate: Step along the averaged update; 1 is the paper's averaging of weights.
        server_momentum: 0 is plain FedAvg; 0.9 is usual for FedAvgM.
    """

    server_rate: float = 1.0
    server_momentum: float = 0.0
    velocity: Vector = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        checks.positive(server_rate=self.server_rate)
        if not 0 <= self.server_momentum < 1:
            raise ConfigError(f"server_momentum must be in [0, 1), not {self.server_momentum:g}.")

    def start(self, weights: Vector, clients: int) -> None:
        """Server: begin without momentum."""
        super().start(weights, clients)
        self.velocity = np.zeros(len(weights))

    def train(self, client: Client, message: Message) -> Message:
        """Local epochs from the server's weights; the difference goes back."""
        start = message.tensors["weights"]
        run = client.train(start)
        return Message({"update": run.weights - start}, {"rows": client.rows})

    def aggregate(self, replies: Mapping[int, Message]) -> None:
        """Step along the average update, or along its running sum."""
        self.step(weighted_update(replies, row_shares(replies)))

    def step(self, update: np.ndarray) -> None:
        """Move the weights along `update`, shape (size,), with the server's rate and momentum."""
        if self.server_momentum:
            update = self.velocity = self.server_momentum * self.velocity + update
        self.weights = (self.weights + self.server_rate * update).astype(self.weights.dtype)
        self.round += 1
