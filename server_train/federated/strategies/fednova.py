"""FedNova: updates are averaged per unit of local work, so a client that takes more steps does not pull harder.

Source: Wang et al. 2020, arXiv:2007.07481. A local update is -learning_rate * G a, where column j of G is the gradient
of step j and a_j is how much of it is left in the end: ones for plain SGD, (1 - rho^(T-j)) / (1 - rho) with
momentum rho, (1 - learning_rate * mu)^(T-1-j) with a proximal term.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distill.errors import DataError
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.base import row_shares, weighted_update
from server_train.federated.strategies.fedprox import FedProx


@dataclass(kw_only=True)
class FedNova(FedProx):
    """Average of the updates, each divided by its ||a||_1, times tau_eff, the average ||a||_1; shares are by rows.

    With this tau_eff (as in the authors' code for SGD with and without momentum) clients that take equally many steps
    give FedAvg, and with `mu` FedProx; their code takes the plain average of steps where `mu` is not 0.
    Server momentum is the paper's as well.

    Attributes:
        mu: Strength of a proximal term in local training, as in FedProx; 0: none.
    """

    mu: float = 0.0

    def train(self, client: Client, message: Message) -> Message:
        """Local epochs; the difference goes back with ||a||_1, the steps it amounts to."""
        start = message.tensors["weights"]
        run = self.proximal_run(client, start)
        steps = effective_steps(run.steps, client.settings, mu=self.mu)
        return Message({"update": run.weights - start}, {"rows": client.rows, "effective_steps": steps})

    def accept(self, reply: Message) -> None:
        """Refuse also a reply that does not say how much work it holds. Raises DataError."""
        super().accept(reply)
        if not reply.numbers.get("effective_steps", 0.0) > 0:
            raise DataError("an update must state its effective steps, a number above 0")

    def aggregate(self, replies: Mapping[int, Message]) -> None:
        """Step along tau_eff times the average of the normalised updates."""
        shares = row_shares(replies)
        steps = np.array([m.numbers["effective_steps"] for m in replies.values()])
        tau_eff = shares @ steps
        self.step(weighted_update(replies, shares * (tau_eff / steps)))


def effective_steps(steps: int, settings: LocalSettings, *, mu: float) -> float:
    """||a||_1: how far `steps` steps on a constant gradient move the weights, in units of learning rate * gradient.

    Momentum and the proximal term act linearly on the gradients, so following a gradient of one through the steps gives
    the sum of a for any mix of the two; without either it is `steps`.
    """
    moved = velocity = 0.0
    for _ in range(steps):
        velocity = settings.momentum * velocity + 1.0 - settings.learning_rate * mu * moved
        moved += velocity
    return moved
