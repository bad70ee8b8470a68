"""FedAvg: clients train for some epochs, the server averages by row counts; with server momentum (FedAvgM).

Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1. Server momentum and step: Hsu et al. 2019, arXiv:1909.06335.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from server_train.federated.client import Client
from server_train.federated.messages import Message
from server_train.federated.mlp import Vector
from server_train.federated.strategy import Strategy, row_shares, weighted_update


@dataclass(kw_only=True)
class FedAvg(Strategy):
    """Average of the clients' updates, weighted by their rows.

    Attributes:
        server_rate: Step along the averaged update; 1 is the paper's averaging of weights.
        server_momentum: 0 is plain FedAvg; 0.9 is usual for FedAvgM.
    """

    server_rate: float = 1.0
    server_momentum: float = 0.0
    velocity: Vector | None = field(init=False, default=None, repr=False)

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
            previous = 0.0 if self.velocity is None else self.velocity
            update = self.velocity = self.server_momentum * previous + update
        self.weights = (self.weights + self.server_rate * update).astype(self.weights.dtype)
        self.round += 1
