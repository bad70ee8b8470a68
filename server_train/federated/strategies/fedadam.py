"""FedAdam: clients train as in FedAvg, the server takes an Adam step along their average update.

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2 (FedAdam). As there, neither moment is corrected for its bias;
the second one starts at tau^2, the least that the paper allows.
"""

from dataclasses import dataclass, field

import numpy as np

from distill.common import checks
from distill.errors import ConfigError
from server_train.federated.local.mlp import Vector
from server_train.federated.strategies.fedavg import FedAvg


@dataclass(kw_only=True)
class FedAdam(FedAvg):
    """FedAvg whose server scales each coordinate's step by the size of its recent updates.

    The average is by rows, as in FedAvg; the paper's algorithm states the case of equal clients.

    Attributes:
        server_rate: eta of the paper: about how far a coordinate moves in a round.
        server_momentum: beta_1: share of the past in the mean of updates.
        second_momentum: beta_2: share of the past in the mean of squared updates.
        tau: Degree of adaptivity, named as in the paper: updates well below it are not scaled up.
    """

    server_rate: float = 0.03
    server_momentum: float = 0.9
    second_momentum: float = 0.99
    tau: float = 1e-3
    squares: Vector = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        super().__post_init__()
        checks.positive(tau=self.tau)
        if not 0 <= self.second_momentum < 1:
            raise ConfigError(f"second_momentum must be in [0, 1), not {self.second_momentum:g}.")

    def start(self, weights: Vector, clients: int) -> None:
        """Server: begin with m = 0 and v = tau^2."""
        super().start(weights, clients)
        self.squares = np.full(len(weights), self.tau**2)

    def step(self, update: np.ndarray) -> None:
        """One Adam step along `update`, shape (size,)."""
        self.velocity = self.server_momentum * self.velocity + (1 - self.server_momentum) * update
        self.squares = self.second_momentum * self.squares + (1 - self.second_momentum) * update**2
        step = self.server_rate * self.velocity / (np.sqrt(self.squares) + self.tau)
        self.weights = (self.weights + step).astype(self.weights.dtype)
        self.round += 1
