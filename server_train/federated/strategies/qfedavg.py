"""q-FedAvg: clients on which the model does badly weigh more, for a fairer spread of losses.

Source: Li et al. 2020, arXiv:1905.10497, algorithm 2. The objective is sum of p_k / (q + 1) * F_k^(q+1) (equation 2),
with p_k the share of rows. The paper draws clients by p_k and then drops it; here all that are asked take part, so p_k
stays in both sums, and q = 0 is FedAvg.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distill.errors import ConfigError, DataError
from server_train.federated.local.client import Client
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.base import row_shares, weighted_update
from server_train.federated.strategies.fedavg import FedAvg

LEAST_LOSS = 1e-10  # as in the authors' code: a client without any loss must not divide by zero


@dataclass(kw_only=True)
class QFedAvg(FedAvg):
    """Updates weighted by powers of the losses they started from, with a step that adapts to q.

    Attributes:
        q: Strength of fairness, named as in the paper: 0 is FedAvg, larger values look more at the worst client. The
            larger q and the further clients move in a round, the shorter the step: more rounds.
    """

    needs_loss: ClassVar[bool] = True
    q: float = 0.1

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        super().__post_init__()
        if not 0 <= self.q < np.inf:
            raise ConfigError(f"q must be at least 0, not {self.q:g}.")

    def train(self, client: Client, message: Message) -> Message:
        """Local epochs; the difference goes back with the loss before them and the learning rate, 1 / L."""
        loss = client.loss(message.tensors["weights"])
        reply = super().train(client, message)
        return Message(reply.tensors, {**reply.numbers, "loss": loss, "learning_rate": client.settings.learning_rate})

    def accept(self, reply: Message) -> None:
        """Refuse also a reply without its loss or learning rate. Raises DataError."""
        super().accept(reply)
        if not reply.numbers.get("loss", -1.0) >= 0 or not reply.numbers.get("learning_rate", 0.0) > 0:
            raise DataError("an update must state its loss, at least 0, and its learning rate, above 0")

    def aggregate(self, replies: Mapping[int, Message]) -> None:
        """Step along sum(p_k Delta_k) / sum(p_k h_k).

        With u_k the update, Delta_k = L F_k^q u_k and h_k = L F_k^q * (1 + q L ||u_k||^2 / F_k), both sides of the
        fraction divided by L and by the largest F_k^q, which keeps a large q from overflowing.
        """
        losses = np.array([max(m.numbers["loss"], LEAST_LOSS) for m in replies.values()])
        rates = np.array([m.numbers["learning_rate"] for m in replies.values()])
        moved = np.array([np.square(m.tensors["update"], dtype=np.float64).sum() for m in replies.values()])
        gains = row_shares(replies) * (losses / losses.max()) ** self.q
        bounds = gains * (1.0 + self.q * moved / (rates * losses))
        self.step(weighted_update(replies, gains / bounds.sum()))
