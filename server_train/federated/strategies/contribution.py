"""Contribution-weighted averaging: a client counts by what its update brings, in five dimensions shown one by one.

The aggregation of the paper that `examples/paper` follows: it names the ingredients, the formulas are chosen here. Each
reply gets a score in [0, 1] in every dimension: how much of its loss went, how diverse its classes are, how well its
update agrees in direction with all updates, and how ordinary its update's size is; the row count is the fifth. A
dimension's weights are rows times score, normalised to sum to one, so that a dimension in which all are equal (or all
zero) falls back on FedAvg's weights; the options say how much of each is mixed in. At the client, two aids against
forgetting and imbalance: a pull towards an average of past global models, kept by the client itself so that it costs no
bytes, and generated rows for sparse classes (see `oversampling`).

Privacy: the loss reduction and the diversity of the classes leave the client as they are, so this strategy cannot run
under record-level privacy. Scores are bounded, so no statement takes all the weight; the row count is believed as in
FedAvg.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from distill.errors import ConfigError, DataError
from server_train.federated.local.client import Client
from server_train.federated.local.mlp import Vector
from server_train.federated.local.oversampling import with_generated
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.base import row_shares, weighted_update
from server_train.federated.strategies.fedavg import FedAvg

REPORTED = ("loss_reduction", "diversity")  # what clients say of themselves; the rest is seen in the update
DIMENSIONS = ("rows", *REPORTED, "consistency", "magnitude")


@dataclass(kw_only=True)
class ContributionWeighted(FedAvg):
    """Averaging by rows and by what each update brings. With `rows` alone above zero it is FedAvg.

    Attributes:
        rows: Weight of the row count alone.
        loss_reduction: Weight of the share of the client's own loss that its training removed.
        diversity: Weight of the chance that two of its rows differ in class.
        consistency: Weight of the cosine between its update and the mean update.
        magnitude: Weight of how near its update's norm is to the median norm.
        history_pull: Strength of the pull towards past global models: adds half of it times the squared distance.
        history_memory: Share of the past in the running average of global models, in [0, 1).
        least_share: A class below this share of a client's rows gets generated rows; 0: none. They speed up the first
            rounds; where a client has a class in a handful of rows only, later rounds may end lower for them.
        scores: Of the last aggregation: client -> dimension -> score in [0, 1]; for reports.
    """

    needs_loss: ClassVar[bool] = True
    rows: float = 1.0
    loss_reduction: float = 1.0
    diversity: float = 1.0
    consistency: float = 1.0
    magnitude: float = 1.0
    history_pull: float = 0.001
    history_memory: float = 0.9
    least_share: float = 0.1
    scores: dict[int, dict[str, float]] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        super().__post_init__()
        for name in (*DIMENSIONS, "history_pull"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} must be a finite number of at least 0, not {getattr(self, name):g}.")
        if not any(getattr(self, name) for name in DIMENSIONS):
            raise ConfigError(f"one of {', '.join(DIMENSIONS)} must be above 0: else no reply has any weight.")
        if not 0 <= self.history_memory < 1:
            raise ConfigError(f"history_memory must be in [0, 1), not {self.history_memory:g}.")
        if not 0 <= self.least_share <= 1:
            raise ConfigError(f"least_share must be in [0, 1], not {self.least_share:g}.")

    def train(self, client: Client, message: Message) -> Message:
        """Local epochs on real and generated rows with the pull; the difference and two figures of the real rows go back."""
        start = message.tensors["weights"]
        before = client.loss(start)
        trainee = self._with_generated(client)
        history = self._history(client, start)
        pull = (lambda weights: self.history_pull * (weights - history)) if self.history_pull else None
        run = trainee.train(start, correction=pull)
        client.work = trainee.work
        after = client.loss(run.weights)
        reduction = (before - after) / before if before > 0 else 0.0
        return Message(
            {"update": run.weights - start},
            {"rows": client.rows, "loss_reduction": reduction, "diversity": class_diversity(client.y)},
        )

    def accept(self, reply: Message) -> None:
        """Refuse a reply that does not say what it is weighed by. Raises DataError."""
        super().accept(reply)
        absent = [name for name in REPORTED if name not in reply.numbers]
        if absent:
            raise DataError(f"a reply must state its {' and '.join(absent)}")

    def aggregate(self, replies: Mapping[int, Message]) -> None:
        """Step along the average of updates, weighted in all dimensions."""
        scores = contribution_scores(replies)
        mixed = {name: getattr(self, name) for name in DIMENSIONS}
        shares = contribution_shares(row_shares(replies), scores, mixed)
        self.scores = {c: {name: float(s[i]) for name, s in scores.items()} for i, c in enumerate(replies)}
        self.step(weighted_update(replies, shares))

    def _with_generated(self, client: Client) -> Client:
        """The client with generated rows after its own; they are drawn once and then remembered."""
        if not self.least_share:
            return client
        if "generated" not in client.memory:
            drawn = with_generated(client.x, client.y, least_share=self.least_share, rng=client.rng)
            client.memory["generated"] = drawn
        x, y = client.memory["generated"]
        return dataclasses.replace(client, x=x, y=y)

    def _history(self, client: Client, start: Vector) -> Vector:
        """Running average of the global models that this client got, with the one in `start`, shape (size,)."""
        past = client.memory.get("history", start)
        client.memory["history"] = self.history_memory * past + (1.0 - self.history_memory) * start
        return np.asarray(client.memory["history"])


def class_diversity(y: np.ndarray) -> float:
    """Chance that two rows drawn from `y` differ in class, in [0, 1): 1 - 1 / effective number of classes."""
    shares = np.unique(y, return_counts=True)[1] / len(y)
    return float(1.0 - np.square(shares).sum())


def contribution_scores(replies: Mapping[int, Message]) -> dict[str, np.ndarray]:
    """Each dimension's scores in [0, 1], in the order of `replies`, shape (replies,); the row count has none of its own.

    - loss_reduction, diversity: as stated, clipped; a loss that rose scores 0.
    - consistency: cosine between the update and the mean update by rows; a reversed or zero update scores 0.
    - magnitude: the smaller of norm / median and median / norm, so neither an idle client nor one that blows its
      update up gains by it.
    """
    updates = np.stack([m.tensors["update"].astype(np.float64) for m in replies.values()])
    norms = np.linalg.norm(updates, axis=1)
    mean = weighted_update(replies, row_shares(replies))
    median = np.median(norms)
    scores = {name: np.array([m.numbers[name] for m in replies.values()]) for name in REPORTED}
    scores["consistency"] = _ratio(updates @ mean, norms * np.linalg.norm(mean))
    scores["magnitude"] = _ratio(np.minimum(norms, median), np.maximum(norms, median))
    return {name: np.clip(score, 0.0, 1.0) for name, score in scores.items()}


def contribution_shares(
    row_share: np.ndarray, scores: Mapping[str, np.ndarray], mixed: Mapping[str, float]
) -> np.ndarray:
    """Weight of each reply, shape (replies,), at least 0 and summing to one.

    A dimension's own weights are row share times score, normalised; `mixed` says how much of each dimension goes in.
    """
    total = mixed["rows"] * row_share
    for name, score in scores.items():
        weights = row_share * score
        total = total + mixed[name] * (weights / weights.sum() if weights.sum() > 0 else row_share)
    return np.asarray(total / sum(mixed.values()))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, and 0 where the denominator is 0."""
    return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0))
