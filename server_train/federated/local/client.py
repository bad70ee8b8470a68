"""One institution in a federated run: rows that stay here, and plain local training on them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from distill.common import checks
from distill.errors import ConfigError, DataError
from server_train.federated.local.mlp import Pull, Vector

Correction = Callable[[Vector], Vector]  # current weights -> what is added to the gradient there


class Model(Protocol):
    """What clients train; `mlp.Mlp` is one. Weights are one flat vector of shape (size,)."""

    @property
    def size(self) -> int:
        """Number of weights."""

    def losses(self, weights: Vector, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Loss of each row, shape (n,)."""

    def gradient(self, weights: Vector, x: np.ndarray, y: np.ndarray, pull: Pull | None = None) -> Vector:
        """Gradient of the mean loss (and of a mean extra loss in the representation), shape (size,)."""

    def representation(self, weights: Vector, x: np.ndarray) -> np.ndarray:
        """What the last layer reads, shape (n, h)."""

    def probabilities(self, weights: Vector, x: np.ndarray) -> np.ndarray:
        """Of each class, float64, shape (n, classes)."""


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """How a client trains between two exchanges.

    Attributes:
        epochs: Passes over its rows.
        steps: Gradient steps instead of `epochs`; 0: by epochs.
        batch_size: Rows a step; 0: all of them.
        learning_rate: Of plain SGD.
        momentum: Of SGD, in [0, 1); starts at zero in every exchange.
        weight_decay: Strength of the squared-norm penalty.
    """

    epochs: int = 1
    steps: int = 0
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        checks.positive(learning_rate=self.learning_rate, epochs=self.epochs)
        if self.steps < 0 or self.batch_size < 0 or self.weight_decay < 0:
            raise ConfigError("steps, batch_size and weight_decay must be at least 0.")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be in [0, 1), not {self.momentum:g}.")

    def steps_for(self, rows: int) -> int:
        """Gradient steps of one exchange on `rows` rows."""
        return self.steps or self.epochs * -(-rows // (self.batch_size or rows))


@dataclass(frozen=True)
class LocalRun:
    """What local training gives.

    Attributes:
        weights: After the last step, shape (size,).
        steps: Gradient steps taken.
    """

    weights: Vector
    steps: int


@dataclass
class Client:
    """Rows of one institution and what it remembers between rounds.

    Attributes:
        number: Its place among the clients, from 0.
        x, y: Encoded rows, shape (n, features), and their classes, shape (n,).
        model: What is trained.
        settings: How.
        rng: Order of its rows.
        memory: Kept from round to round and never sent: a strategy's own state here.
        work: Rows whose gradient or loss was computed so far; what the virtual clock charges for.
    """

    number: int
    x: np.ndarray
    y: np.ndarray
    model: Model
    settings: LocalSettings
    rng: np.random.Generator
    memory: dict[str, Any] = field(default_factory=dict)
    work: int = 0

    def __post_init__(self) -> None:
        """Refuse a client without rows."""
        if not len(self.y):
            raise DataError(f"client {self.number} has no rows. Leave it out, or deal the rows anew with min_rows.")

    @property
    def rows(self) -> int:
        """Rows it states to the server: its weight in averages."""
        return len(self.y)

    @np.errstate(over="ignore", invalid="ignore")  # here and below: what is not finite is refused in words
    def loss(self, weights: Vector) -> float:
        """Mean loss over its rows."""
        self.work += len(self.y) // 3  # a forward pass is about a third of a step
        return float(self.model.losses(weights, self.x, self.y).mean())

    @np.errstate(over="ignore", invalid="ignore")
    def gradient(self, weights: Vector) -> Vector:
        """Gradient of the mean loss over all its rows."""
        self.work += len(self.y)
        return self.model.gradient(weights, self.x, self.y)

    @np.errstate(over="ignore", invalid="ignore")
    def train(
        self,
        start: Vector,
        *,
        correction: Correction | None = None,
        pull: Callable[[np.ndarray], Pull] | None = None,
    ) -> LocalRun:
        """SGD on its own rows from `start`, over reshuffled batches.

        Args:
            start: Weights, shape (size,); left as they are.
            correction: Added to every gradient, as a function of the current weights.
            pull: From a batch's rows (n, features) to an extra loss in their representations.

        Raises:
            DataError: the weights are no longer finite; a smaller learning rate mends it.
        """

        def gradient_on(batch: np.ndarray) -> Correction:
            x, y = self.x[batch], self.y[batch]
            return lambda weights: self.model.gradient(weights, x, y, pull(x) if pull else None)

        steps = self.settings.steps_for(len(self.y))
        batches = self._batches(steps)
        self.work += sum(map(len, batches))
        return self._descend(start, map(gradient_on, batches), correction)

    def _descend(self, start: Vector, gradients: Iterable[Correction], correction: Correction | None) -> LocalRun:
        """A step of SGD along each of `gradients` (functions of the current weights). Raises DataError: see `train`."""
        weights, velocity, steps = start.copy(), np.zeros_like(start), 0
        for gradient_at in gradients:
            gradient = gradient_at(weights)
            if correction is not None:
                gradient = gradient + correction(weights)
            if self.settings.weight_decay:
                gradient = gradient + self.settings.weight_decay * weights
            if self.settings.momentum:
                velocity = gradient = self.settings.momentum * velocity + gradient
            weights -= self.settings.learning_rate * gradient
            steps += 1
        if not np.isfinite(weights).all():
            raise DataError(
                f"client {self.number}: training diverged (weights are no longer finite). Lower the learning rate."
            )
        return LocalRun(weights, steps)

    def _batches(self, steps: int) -> "list[np.ndarray]":
        """Row positions of each step; every pass in a new order (all rows at once: in their own order)."""
        size = self.settings.batch_size or len(self.y)
        if size >= len(self.y):
            return [np.arange(len(self.y))] * steps
        out: list[np.ndarray] = []
        while len(out) < steps:
            order = self.rng.permutation(len(self.y))
            out += [order[i : i + size] for i in range(0, len(order), size)]
        return out[:steps]
