"""FedProx: FedAvg whose clients are held near the server's weights, and which takes partial work for what it is.

Source: Li et al. 2020, arXiv:1812.06127, equation 2 and algorithm 2.
"""

from dataclasses import dataclass

import numpy as np

from distill.errors import ConfigError
from server_train.federated.local.client import Client, LocalRun
from server_train.federated.local.mlp import Vector
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.fedavg import FedAvg


@dataclass(kw_only=True)
class FedProx(FedAvg):
    """FedAvg with a proximal term at each client: local loss + mu / 2 * ||w - w_server||^2.

    Partial work: the paper asks of a reply only that it is an inexact minimiser (gamma-inexact, definition 2), so a
    slow client may do less and still counts in full. Here a client's own `LocalSettings` say how much it does: give a
    slow one fewer `epochs` or `steps`. The engine never cuts training short: a slow client makes the round wait, and at
    a deadline it is left out altogether.

    The paper samples clients by their share of rows and averages plainly; here all that are asked are averaged by their
    rows, which is the same in expectation.

    Attributes:
        mu: Strength of the term, named as in the paper; 0 is FedAvg. The paper tries 0.001 to 1.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        super().__post_init__()
        if not 0 <= self.mu < np.inf:
            raise ConfigError(f"mu must be at least 0, not {self.mu:g}.")

    def train(self, client: Client, message: Message) -> Message:
        """Local epochs with every gradient pulled back to the server's weights; the difference goes back."""
        start = message.tensors["weights"]
        return Message({"update": self.proximal_run(client, start).weights - start}, {"rows": client.rows})

    def proximal_run(self, client: Client, start: Vector) -> LocalRun:
        """Client: local training from `start`, shape (size,), with mu * (w - start) added to every gradient."""
        return client.train(start, correction=lambda weights: self.mu * (weights - start))
