"""MOON: a contrastive loss draws a client's representations to the global model's and away from its own last model's.

Source: Li, He and Song 2021, arXiv:2103.16257, equation 3 and algorithm 1. The representation here is what the last
layer reads; the paper adds a projection head in front of it, which the compared architecture does not have. A network
without hidden layers has no representation to move, and MOON is then FedAvg.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distill.common import checks
from distill.errors import ConfigError
from server_train.federated.local.client import Client
from server_train.federated.local.mlp import Pull, Vector
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.fedavg import FedAvg


@dataclass(kw_only=True)
class Moon(FedAvg):
    """FedAvg with the model-contrastive loss at the client; bytes are FedAvg's.

    Attributes:
        mu: Weight of the contrastive loss, named as in the paper, which tries 0.1 to 10; 0 is FedAvg. On tables with few
            classes and without the projection head more than 0.1 did harm, the more so the more the clients differ.
        temperature: Cosines are divided by it (the paper's tau).
    """

    needs_representations: ClassVar[bool] = True
    mu: float = 0.1
    temperature: float = 0.5

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        super().__post_init__()
        checks.positive(temperature=self.temperature)
        if not 0 <= self.mu < np.inf:
            raise ConfigError(f"mu must be at least 0, not {self.mu:g}.")

    def train(self, client: Client, message: Message) -> Message:
        """Local epochs with the contrastive loss; the client remembers the model it ends with.

        In a client's first round its last model counts as equal to the global one: the loss is then constant.
        """
        start = message.tensors["weights"]
        last = client.memory.get("last", start)

        def pull(x: np.ndarray) -> Pull:
            client.work += 2 * (len(x) // 3)  # two forward passes
            near, far = client.model.representation(start, x), client.model.representation(last, x)
            return lambda z: self._weighted(*contrastive(z, near, far, temperature=self.temperature))

        run = client.train(start, pull=pull if self.mu and "last" in client.memory else None)
        client.memory["last"] = run.weights
        return Message({"update": run.weights - start}, {"rows": client.rows})

    def _weighted(self, gradient: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.mu * gradient, self.mu * losses


def contrastive(
    z: np.ndarray, near: np.ndarray, far: np.ndarray, *, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """-log(exp(cos(z, near) / T) / (exp(cos(z, near) / T) + exp(cos(z, far) / T))), row by row.

    Args:
        z: Representations that are trained, shape (n, h).
        near: Of the global model, shape (n, h).
        far: Of the client's last model, shape (n, h).
        temperature: T.

    Returns:
        Gradient of the mean loss in `z`, shape (n, h), and the losses, shape (n,). The cosine with a zero vector counts
        as 0, and so does its gradient: such a row is not pulled.

    Source: arXiv:2103.16257, equation 3; the gradient in closed form.
    """
    z_unit, z_norm = _units(z)
    near_unit, far_unit = _units(near)[0], _units(far)[0]
    near_cosine = (z_unit * near_unit).sum(axis=1, keepdims=True)
    far_cosine = (z_unit * far_unit).sum(axis=1, keepdims=True)
    lead = (far_cosine - near_cosine) / temperature  # (n, 1); the loss is log(1 + exp(lead))
    losses = np.logaddexp(0.0, lead)
    slope = np.exp(lead - losses) / temperature  # sigmoid(lead) / T
    direction = (far_unit - far_cosine * z_unit) - (near_unit - near_cosine * z_unit)
    inverse = np.divide(1.0, z_norm, out=np.zeros_like(z_norm), where=z_norm > 0)
    return slope * inverse * direction / len(z), losses[:, 0]


def _units(rows: np.ndarray) -> tuple[Vector, Vector]:
    """Rows at norm 1 (zero rows stay zero), shape (n, h), and their norms, (n, 1); float64."""
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0), norms
