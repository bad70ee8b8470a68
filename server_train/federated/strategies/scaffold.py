"""SCAFFOLD: every local step is corrected by the difference between the server's and the client's mean gradient.

Source: Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1 with option II. Both directions carry the model and a
control variate of the same size, so a round costs twice the bytes of FedAvg.

The controls stand still while a client trains. Where its rows differ much from the others' (a single class, say) and it
takes many steps, they carry it far: SCAFFOLD wants a smaller learning rate than FedAvg, as the paper's theory says too.

A client's control must move only when the server's does, or a reply lost on the way would leave the two apart for good.
So the server tells each client how many of its replies were aggregated, and the client then keeps its last proposal or
drops it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from server_train.federated.local.client import Client
from server_train.federated.local.mlp import Vector
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.base import row_shares, weighted_update
from server_train.federated.strategies.fedavg import FedAvg
from server_train.federated.strategies.fednova import effective_steps


@dataclass(kw_only=True)
class Scaffold(FedAvg):
    """Stochastic controlled averaging.

    Attributes:
        by_rows: Average replies by their rows, and so aim at the loss over all rows as FedAvg does; else the paper's
            equal weights, which aim at the mean of the clients' losses.
        control: Estimate of the global gradient, shape (size,); with equal weights the mean of all clients' controls.
        accepted: How many replies of each client were aggregated.
    """

    compressible: ClassVar[tuple[str, ...]] = ("update", "control")
    by_rows: bool = True
    control: Vector = field(init=False, repr=False)
    accepted: dict[int, int] = field(init=False, default_factory=dict, repr=False)

    def start(self, weights: Vector, clients: int) -> None:
        """Begin with a control of zero."""
        super().start(weights, clients)
        self.control, self.accepted = np.zeros_like(self.weights), {}

    def broadcast(self, client: int) -> Message:
        """The model, the server's control, and how many of the client's replies were aggregated."""
        return Message({"weights": self.weights, "control": self.control}, {"accepted": self.accepted.get(client, 0)})

    def train(self, client: Client, message: Message) -> Message:
        """Local steps along gradient - own control + server's control; both changes go back.

        The new control is the mean gradient along the way (option II). With momentum a displacement holds each
        gradient more than once; dividing by what all factors sum to, instead of the steps, keeps it a mean.
        """
        start, server = message.tensors["weights"], message.tensors["control"]
        own = _settled_control(client, message)
        shift = server - own
        run = client.train(start, correction=lambda _: shift)
        scale = client.settings.learning_rate * effective_steps(run.steps, client.settings, mu=0.0)
        change = ((start - run.weights) / scale - server).astype(start.dtype)
        client.memory["proposed"] = own + change
        return Message({"update": run.weights - start, "control": change}, {"rows": client.rows})

    def accept(self, reply: Message) -> None:
        """Refuse a reply without a change of control. Raises DataError."""
        super().accept(reply)
        self.require_vector(reply, "control", "a change of control")

    def aggregate(self, replies: Mapping[int, Message]) -> None:
        """Move the model along the mean update, and the control along the mean change times the share of clients."""
        shares = row_shares(replies) if self.by_rows else np.full(len(replies), 1.0 / len(replies))
        changes = {client: Message({"update": reply.tensors["control"]}) for client, reply in replies.items()}
        taking_part = len(replies) / self.clients
        self.control = (self.control + taking_part * weighted_update(changes, shares)).astype(self.weights.dtype)
        for client in replies:
            self.accepted[client] = self.accepted.get(client, 0) + 1
        self.step(weighted_update(replies, shares))


def _settled_control(client: Client, message: Message) -> Vector:
    """The client's control, shape (size,), after its last proposal was aggregated or lost.

    It is zero before any was, and for a client that came back without its memory.
    """
    accepted, memory = int(message.numbers["accepted"]), client.memory
    if not accepted or "control" not in memory:
        memory["control"] = np.zeros_like(message.tensors["weights"])
    elif accepted != memory["accepted"]:
        memory["control"] = memory["proposed"]
    memory["accepted"] = accepted
    return np.asarray(memory["control"])
