"""Stage 5's other half, discriminate: an auxiliary-classifier discriminator trained by DP-SGD on real rows.

Two heads share every Poisson sample: a linear class head p(class | features), started near the naive-Bayes log-odds, and a
critic that tells real rows from the candidates' hard samples. One release a step: both heads' clipped per-record
gradients, scaled to one vector of norm at most 1 (L2, add or remove one row). Without a target the critic is alone and
has the whole norm. The fake half of the critic's gradient reads no row.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Network
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.planning.plan import Plan
from distill.synthesis.statistics.class_odds import log_normalise, match_prior
from distill.synthesis.statistics.counts import ClassCounts
from distill.synthesis.weights import arrays_of, set_gradients, uniform_start

HIDDEN = 64
HEAD_STEP, HEAD_MOMENTUM = 0.5, 0.9  # the step is an upper bound, see `head_step`
START = 0.7  # of the naive-Bayes log-odds: columns that say the same thing twice must not count twice
MAX_LOGIT_NOISE = 0.3  # stddev that all gradient noise together may put on a class logit of the pooled heads
CRITIC_STEP = 2e-3
FLOOR = 1e-3  # of what independence gives: bounds the log-odds of a bin that a class never showed
EVENT = "discriminate"


class Discriminator:
    """Class head and critic.

    Attributes:
        head: Linear layer, (feature_width -> classes), on one-hot features scaled by 1 / sqrt(features).
        critic: (width -> 64 -> 1) on one-hot rows, class included, scaled by 1 / sqrt(columns).
    """

    def __init__(
        self,
        layout: Layout,
        counts: ClassCounts,
        plan: Plan,
        rng: np.random.Generator,
        start: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.layout = layout
        self.head = nn.Linear(layout.feature_width, layout.classes)
        self.hidden, self.out = nn.Linear(layout.width, HIDDEN), nn.Linear(HIDDEN, 1)
        with torch.no_grad():
            weight, bias = head_start(counts) if start is None else map(torch.from_numpy, start)
            self.head.weight.copy_(weight * len(layout.features) ** 0.5)
            self.head.bias.copy_(bias)
            uniform_start([self.hidden, self.out], rng)
            self.hidden.weight.mul_((len(layout.widths)) ** 0.5)
        self._head_optimizer = torch.optim.SGD(
            self.head.parameters(), lr=head_step(plan, counts.total), momentum=HEAD_MOMENTUM
        )
        self._critic_optimizer = torch.optim.Adam(
            [*self.hidden.parameters(), *self.out.parameters()], lr=CRITIC_STEP, betas=(0.5, 0.99)
        )
        self._averaged = [torch.zeros_like(p) for p in self.head.parameters()]
        self._averaged_steps = 0

    def step(self, table: PrivateTable, plan: Plan, fake: Tensor, *, rows: float) -> None:
        """One DP-SGD step on both heads.

        Args:
            table, plan: The rows and the event `discriminate` that pays for one read of a Poisson sample.
            fake: Hard codes of the candidates, (n, features + 1).
            rows: Noisy number of rows; with the sampling rate it is the public normaliser.
        """
        expected = rows * plan.event(EVENT).sampling_rate
        *to_head, to_critic = table.noisy_gradient(EVENT, self.record_gradients(plan.head_portion))
        if to_head:  # without a target there are no classes
            set_gradients([self.head], to_head[0] / expected)
            self._head_optimizer.step()
        set_gradients([self.hidden, self.out], to_critic / expected)
        with torch.enable_grad():
            softplus(self.score(self.layout.one_hot(fake))).mean().backward()
        self._critic_optimizer.step()
        self._average(table.reads[EVENT] > plan.event(EVENT).count // 2)

    def record_gradients(self, head_portion: float) -> list[Network]:
        """What the door is asked to sum: the class head's gradient, if it has a portion, and the critic's on real rows."""
        critic = self.critic_gradient(1 - head_portion)
        return [self.head_gradient(head_portion), critic] if head_portion else [critic]

    def head_gradient(self, share: float) -> Network:
        """The class head, with this share of the squared clip norm."""
        return Network((arrays_of(self.head),), loss="classes", share=share, starts=self.layout.starts[:-1])

    def critic_gradient(self, share: float) -> Network:
        """The critic on real rows, with this share of the squared clip norm."""
        layers = (arrays_of(self.hidden), arrays_of(self.out))
        return Network(layers, loss="real", share=share, starts=self.layout.starts)

    def score(self, rows: Tensor) -> Tensor:
        """Critic's logit that a one-hot row (n, width) is real, (n,)."""
        scaled = rows / len(self.layout.widths) ** 0.5
        return torch.as_tensor(self.out(self.hidden(scaled).relu()).squeeze(1))

    def averaged_head(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (classes, feature_width) and biases (classes,) for unscaled one-hot rows, averaged over the second half."""
        weight, bias = (a / max(self._averaged_steps, 1) for a in self._averaged)
        return (weight / len(self.layout.features) ** 0.5).numpy(force=True), bias.numpy(force=True)

    def _average(self, started: bool) -> None:
        if started:
            for total, parameter in zip(self._averaged, self.head.parameters(), strict=True):
                total.add_(parameter.detach())
            self._averaged_steps += 1


def head_step(plan: Plan, rows: float) -> float:
    """Step size of the class head: what the noise of all steps together allows, at most HEAD_STEP.

    With momentum m each step's noise enters a logit with weight step / (1 - m), and the steps' noise adds up like a random
    walk. On small tables the head then stays near its naive-Bayes start, which the noise would only spoil. Where the hub
    averages the heads of several institutions, noise shrinks by the square root of their number and bias does not.
    """
    event = plan.event(EVENT)
    if not plan.head_portion:
        return HEAD_STEP  # no step is taken
    noise = event.cell_stddev / (plan.head_portion**0.5 * rows * event.sampling_rate)  # of one averaged gradient
    walk = noise * event.count**0.5 / (1 - HEAD_MOMENTUM)
    return float(min(HEAD_STEP, MAX_LOGIT_NOISE * plan.institutions**0.5 / walk))


def head_start(counts: ClassCounts) -> tuple[Tensor, Tensor]:
    """Where the class head starts on its own: at `START` of naive Bayes, for unscaled one-hot features."""
    weight, bias = naive_bayes(counts)
    return START * weight, bias


def missed_counts(head: tuple[np.ndarray, np.ndarray], codes: np.ndarray, counts: ClassCounts) -> float:
    """How far class counts are from what a head says of rows: mean squared difference a cell, in units of the noise.

    Args:
        head: Weight (classes, feature_width) and bias (classes,) for unscaled one-hot features; it may expect other class sizes.
        codes: Feature codes of rows that stand for the table, (n, features) or wider.
        counts: The class counts.
    """
    starts = np.cumsum([0, *(c.shape[1] for c in counts.by_column)])[:-1]
    scores = head[1] + head[0].T[codes[:, : len(starts)] + starts].sum(axis=1)
    chances = np.exp(match_prior(log_normalise(scores), counts.prior)) * (counts.total / len(codes))
    missed = [
        np.square(np.stack([np.bincount(codes[:, j], c, block.shape[1]) for c in chances.T]) - block).sum()
        for j, block in enumerate(counts.by_column)
    ]
    return float(np.sum(missed) / (counts.stddev**2 * sum(block.size for block in counts.by_column)))


def naive_bayes(counts: ClassCounts) -> tuple[Tensor, Tensor]:
    """Class scores of DP naive Bayes: weight (classes, feature_width) of log p(bin | class) / p(bin), bias log prior.

    Of a single class it says nothing: all are zero.
    """
    if len(counts.classes) == 1:
        return torch.zeros(1, sum(c.shape[1] for c in counts.by_column)), torch.zeros(1)
    parts = []
    for column in counts.by_column:
        pooled = (column.sum(axis=0) + 1.0) / (counts.total + column.shape[1])
        floored = np.maximum(column, FLOOR * np.outer(counts.classes, pooled))
        share = (floored + pooled) / (floored.sum(axis=1, keepdims=True) + 1.0)
        parts.append(np.log(share / pooled))
    prior = np.log(np.maximum(counts.prior, 1e-6))
    return torch.tensor(np.concatenate(parts, axis=1), dtype=torch.float32), torch.tensor(prior, dtype=torch.float32)
