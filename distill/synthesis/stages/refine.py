"""Stage 5, refine: candidates are optimised until they say what the noisy statistics say and fool the critic.

A candidate is a soft record: a class, a weight and one probability vector a feature. All are optimised together on
noise-weighted squared distance to the statistics + an adversarial term. Post-processing: no private row is read here.
"""

import numpy as np
import torch
from torch import Tensor

from distill.synthesis.generator.draws import draw_by_weight, draw_normal
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.statistics.counts import ClassCounts, PairCounts

PAIR_WEIGHT = 2.0  # of the pairs' mean squared distance against that of the one-way counts
FAINT = 0.2  # weight of a pair without any signal, where one that is all signal weighs 1 + FAINT


class Candidates:
    """K soft records and the loss that moves them.

    Attributes:
        logits: Unnormalised log-probabilities, (K, feature_width).
        classes: Class of each record, (K,).
        weights: Share of rows each record stands for, (K,), sum 1.
    """

    def __init__(self, layout: Layout, logits: Tensor, classes: Tensor, weights: Tensor, learning_rate: float) -> None:
        self.layout, self.classes, self.weights = layout, classes, weights
        self.logits = logits.clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self.logits], lr=learning_rate, betas=(0.9, 0.99))
        self._class_weights = torch.nn.functional.one_hot(classes, layout.classes).T * weights  # (classes, K)

    def aim_at(self, counts: ClassCounts, pairs: PairCounts) -> None:
        """Set the statistics to fit."""
        self._one_way = torch.tensor(np.concatenate(counts.by_column, axis=1) / counts.total, dtype=torch.float32)
        self._one_way_precision = (counts.total / counts.stddev) ** 2 / self._one_way.numel()
        width, starts = self.layout.feature_width, self.layout.starts
        target, mask = np.zeros((width, width), np.float32), np.zeros((width, width), np.float32)
        signal = np.ones(len(pairs.pairs)) if pairs.signal is None else np.asarray(pairs.signal)
        for (i, j), block, weight in zip(pairs.pairs, pairs.aims or pairs.shares, signal + FAINT, strict=True):
            place = np.ix_(range(starts[i], starts[i] + block.shape[0]), range(starts[j], starts[j] + block.shape[1]))
            target[place], mask[place] = block, weight
        self._two_way, self._mask = torch.as_tensor(target), torch.as_tensor(mask)
        self._two_way_precision = 1 / (pairs.stddev**2 * mask.sum()) if pairs.pairs else 0.0

    def statistics_loss(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean squared distance to the one-way and the pair statistics, in units of their noise variance."""
        one_way = (self._class_weights @ probabilities - self._one_way).square().sum() * self._one_way_precision
        if not self._two_way_precision:
            return one_way, torch.zeros(())
        together = probabilities.T @ (probabilities * self.weights.unsqueeze(1))
        two_way = ((together - self._two_way).square() * self._mask).sum() * self._two_way_precision
        return one_way, two_way

    def step(self, adversarial: Tensor | None = None, strength: float = 0.0) -> tuple[float, float]:
        """One optimiser step; `adversarial` is the critic's loss on rows made by `straight_through`."""
        one_way, two_way = self.statistics_loss(self.layout.softmax(self.logits))
        loss = one_way + PAIR_WEIGHT * two_way
        if adversarial is not None:
            loss = loss + strength * adversarial
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(one_way.detach()), float(two_way.detach())

    def slow_down(self) -> None:
        """Halve the learning rate, to settle."""
        for group in self._optimizer.param_groups:
            group["lr"] /= 2

    def draw(self, n: int, rng: np.random.Generator) -> Tensor:
        """Hard rows: (n, features + 1) codes, the class last."""
        chosen = draw_by_weight(self.weights, n, rng)
        codes = self.layout.draw(self.logits.detach()[chosen], rng)
        return torch.cat([codes, self.classes[chosen].unsqueeze(1)], dim=1)

    def straight_through(self, n: int, rng: np.random.Generator) -> Tensor:
        """One-hot rows (n, width) that are hard in value and soft in gradient."""
        chosen = draw_by_weight(self.weights, n, rng)
        logits = self.logits[chosen]
        hard = self.layout.one_hot(self.layout.draw(logits.detach(), rng))
        soft = self.layout.softmax(logits)
        label = torch.nn.functional.one_hot(self.classes[chosen], self.layout.classes).float()
        return torch.cat([hard + soft - soft.detach(), label], dim=1)


def start_from_classes(
    layout: Layout, counts: ClassCounts, n: int, rng: np.random.Generator, *, spread: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-pure soft records around the class histograms (naive Bayes), shaken by `spread`.

    Returns:
        Logits (n, feature_width), classes (n,), weights (n,).
    """
    classes = allot_classes(counts.prior, n)
    naive = torch.tensor(
        np.concatenate([np.log(share_per_class(c)) for c in counts.by_column], axis=1), dtype=torch.float32
    )
    logits = naive[classes] + spread * draw_normal((n, layout.feature_width), rng)
    return logits, classes, class_weights(classes, counts.prior)


def allot_classes(prior: np.ndarray, n: int) -> Tensor:
    """Class of each of n records: in proportion to the prior, but at least a tenth of an even split for each class."""
    floor = 0.1 / len(prior)
    portions = floor + (1 - floor * len(prior)) * prior
    edges = np.rint(np.cumsum(portions) * n).astype(np.int64)
    return torch.as_tensor(np.searchsorted(edges, np.arange(n), side="right").clip(max=len(prior) - 1))


def class_weights(classes: Tensor, prior: np.ndarray) -> Tensor:
    """Weights that make each class weigh its prior, evenly over its records; sum 1."""
    sizes = torch.bincount(classes, minlength=len(prior)).clamp_min(1)
    weights = torch.tensor(prior, dtype=torch.float32)[classes] / sizes[classes]
    return weights / weights.sum()


def share_per_class(counts: np.ndarray) -> np.ndarray:
    """Smoothed p(bin | class) from counts of shape (classes, bins)."""
    smoothed = counts + 0.5
    return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True))


def start_from_clusters(
    layout: Layout,
    counts: ClassCounts,
    decoded: Tensor,
    members: Tensor,
    dense: Tensor,
    shares: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft records decoded from representatives of each latent cluster, as many a cluster as its noisy share asks.

    Args:
        layout, counts: One-hot layout; noisy class counts, for the prior.
        decoded: Logits decoded from each private sample's latent point, (m, width).
        members: Cluster of each private sample, (m,).
        dense: Whether the sample lies in a dense core, (m,); cores are preferred three to one.
        shares: Noisy share of rows in each cluster.
        n: Records wanted.
        rng: Modelling randomness.

    Returns:
        Logits (n, feature_width), classes (n,), weights (n,).
    """
    log_shares = layout.log_softmax(decoded)
    sizes = torch.bincount(members, minlength=len(shares)).clamp_min(1)
    prefer = torch.tensor(np.maximum(shares, 1e-3), dtype=torch.float32)[members] / sizes[members] * (1.0 + 2.0 * dense)
    classes = allot_classes(counts.prior, n)
    logits = torch.empty(n, layout.feature_width)
    for c in range(layout.classes):
        wanted = classes == c
        chance = prefer * log_shares[:, layout.feature_width + c].exp() + 1e-12
        chosen = draw_by_weight(chance, int(wanted.sum()), rng)
        logits[wanted] = log_shares[chosen, : layout.feature_width]
    logits += 0.3 * draw_normal(logits.shape, rng)
    return logits, classes, class_weights(classes, counts.prior)
