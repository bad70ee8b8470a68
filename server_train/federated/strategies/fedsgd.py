"""FedSGD, federated gradient descent: one gradient over all rows of every client a round, one step of the server.

Source: McMahan et al. 2017, arXiv:1602.05629, section 2 (FederatedSGD with C = 1). It is gradient descent on the pooled
rows, step by step, so the slowest of the baselines in rounds and the one without any drift between clients.
"""

from dataclasses import dataclass

from server_train.federated.local.client import Client
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.fedavg import FedAvg


@dataclass(kw_only=True)
class FedSgd(FedAvg):
    """Gradient descent on all clients' rows; a client's learning rate, epochs and batch size play no part.

    Attributes:
        server_rate: Step against the gradient of the mean loss over all rows.
        server_momentum: Heavy-ball momentum of that step.
    """

    server_rate: float = 1.0

    def train(self, client: Client, message: Message) -> Message:
        """No training: one gradient at the server's weights; what goes back is the direction against it."""
        start = message.tensors["weights"]
        gradient = client.gradient(start) + client.settings.weight_decay * start
        return Message({"update": -gradient}, {"rows": client.rows})
