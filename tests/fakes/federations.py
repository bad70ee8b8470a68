"""A linear model whose training can be followed on paper, two clients that hold rows for it, and rounds without an engine.

The hand-worked case, used by the tests of every strategy. Client A has 2 rows, client B has 6, so the shares are 1/4 and
3/4. Their mean losses and gradients are

    A: (w1 - 1)^2 + (w2 + 2)^2            gradient 2 * (w - (1, -2))
    B: ((w1 - 3)^2 + (w2 - 1)^2) / 4      gradient (w - (3, 1)) / 2

and a step of 1/4 on all rows brings A's weights half of the way to (1, -2), B's one eighth of the way to (3, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from distill.data.demo import BANKS, bank_table, demo_schema
from distill.data.schema import Column, Schema
from distill.data.tables import canonical_table
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Pull, Vector
from server_train.federated.messages.codec import Message, decode, encode
from server_train.federated.strategies.base import Strategy

A_ROWS = ([[2.0, 0.0], [0.0, 2.0]], [2.0, -4.0])
B_ROWS = ([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3, [3.0] * 3 + [1.0] * 3)
A_BEST, B_BEST = np.array([1.0, -2.0]), np.array([3.0, 1.0])


@dataclass
class LeastSquares:
    """Half the squared error of a linear prediction without intercept; `seen` keeps every batch it was asked about."""

    size: int = 2
    seen: list[np.ndarray] = field(default_factory=list)

    def losses(self, weights: Vector, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.5 * (x @ weights - y) ** 2

    def gradient(self, weights: Vector, x: np.ndarray, y: np.ndarray, pull: Pull | None = None) -> Vector:
        self.seen.append(x)
        return x.T @ (x @ weights - y) / len(y)  # a pull in the representation, x itself, moves no weight

    def representation(self, weights: Vector, x: np.ndarray) -> np.ndarray:
        return x

    def probabilities(self, weights: Vector, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError("a regression has no classes")


def client(rows: tuple[list, list], number: int = 0, **settings: float) -> Client:
    """One client of the hand-worked case; a learning rate of 1/4 and all rows at once unless told otherwise."""
    x, y = (np.array(part) for part in rows)
    chosen = LocalSettings(**{"learning_rate": 0.25, "batch_size": 0, **settings})
    return Client(number, x, y, LeastSquares(), chosen, np.random.default_rng(number))


def two_clients(*, a_steps: int = 1, b_steps: int = 1, **settings: float) -> list[Client]:
    """A and B of the hand-worked case."""
    return [client(A_ROWS, 0, steps=a_steps, **settings), client(B_ROWS, 1, steps=b_steps, **settings)]


def play(strategy: Strategy, clients: Sequence[Client], start: Vector, rounds: int) -> list[Vector]:
    """The server's weights after each round; everything travels as bytes, and every reply must be acceptable."""
    strategy.start(start, len(clients))
    path = []
    for _ in range(rounds):
        replies: dict[int, Message] = {}
        for number, one in enumerate(clients):
            replies[number] = answer(strategy, one, number)
            strategy.accept(replies[number])
        strategy.aggregate(replies)
        path.append(strategy.weights.copy())
    return path


def answer(strategy: Strategy, one: Client, number: int) -> Message:
    """What a client makes of the server's message, both as they come off the wire."""
    return decode(encode(strategy.train(one, decode(encode(strategy.broadcast(number))))))


def blobs(rows: int, seed: int, *, positives: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping classes on ten numbers, float32, with a bend that a line cannot follow."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < positives).astype(np.int64)
    x = rng.normal(0.0, 1.0, (rows, 10)).astype(np.float32)
    x[:, 0] += 1.5 * y
    x[:, 1] = np.where(y == 1, 2.0, 1.0) * x[:, 1]
    return x, y


SCHEMA = demo_schema()
NARROW = Schema(
    name="narrow",
    columns=[
        Column(name="amount", kind="continuous", min=0.0, max=250.0),
        Column(name="good", kind="categorical", categories=["no", "yes"]),
    ],
    target="good",
)


def bank(rows: int, number: int) -> pd.DataFrame:
    """Rows of one of the demo's banks, in canonical form."""
    return canonical_table(bank_table(BANKS[number % 3], rows=rows, rng=np.random.default_rng(number)), SCHEMA)
