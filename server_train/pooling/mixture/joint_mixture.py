"""The global representation: soft components that all institutions share, mixed by each with weights of its own.

A component is one probability vector a feature, on the common bins of all institutions, and one over the classes. Institution i
is a mixture of all components with weights pi_i. Everything is fitted at once: each institution's class histograms and pairs, as
released, are predicted in its own bins (sums of common ones), and squared distances count in units of their noise. So what
institutions have in common is learnt from all of them, and the noise of each averages out; what sets one apart is in its weights,
which are drawn towards the shared ones and leave them as far as its statistics pay for it.

The components start as the institutions' own soft records. Pairs that do not depend on each other, to judge by all institutions (see
`dependence`), are held to independence instead of their noise. The others of an institution pull no more once they are as near as noise
alone explains (1 in expectation at the truth): beyond that the fit would learn the noise. Post-processing of the bundles: no budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from distill.common.compute import single_thread
from distill.synthesis.generator.generator import Generator
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.statistics.class_odds import log_normalise, match_prior
from server_train.pooling.institutions.site import Site
from server_train.pooling.mixture.common_bins import LOWEST, CommonBins, Marginals, common_bins, records_on
from server_train.pooling.mixture.dependence import Pair, dependent_pairs, excess

COMPONENTS = 1000  # at most
CELLS = 1_500_000  # components times common bins, about, so that many institutions with many columns take less than a minute
LEAST_COMPONENTS = 20  # that one institution starts
STEPS = 300  # of the optimiser, at most
WEIGHTS_FIRST = 50  # steps in which weights move alone
LEARNING_RATE = 0.05
LATE_RATE = LEARNING_RATE / 3  # in the last third of the steps
PAIR_WEIGHT = 2.0  # of the pairs' mean squared distance against that of the class histograms, as in a fit
FAINT = 0.2  # weight of a pair without any signal, where one that is all signal weighs 1 + FAINT
CERTAIN = 20.0  # times the weight of a dependent pair: of one that is known to be independent, so free of noise
HEAD_START = 2.0  # log-weight of an institution's own records beside the others', at the start
SHRINK = 1.0  # of squared log-weights that leave the shared ones
NOISE_FLOOR = 1.0  # mean squared distance in units of the noise, at the truth
CHANCE = 3.0  # standard deviations of a mean squared distance that is all noise
MOST_BINS = 100_000  # of all institutions together; beyond it time and memory run away
CLASS_LIMIT = 6.0  # natural-log units


@dataclass(frozen=True, kw_only=True, eq=False)
class Stake:
    """One institution's part in the joint components.

    Attributes:
        site: Its released statistics.
        rows: Share of all rows that it stands for.
        trust: How much its statistics count beside what their noise says, in [0, 1].
    """

    site: Site
    rows: float
    trust: float


@dataclass(frozen=True, eq=False)
class Joint:
    """The fitted components.

    Attributes:
        sites: The institutions.
        common: The common bins.
        logits: Of each component, on the common bins, float32, (components, common bins).
        mixing: Weights of the components at each institution, rows sum to one, (institutions, components).
        dependent: The pairs of features that were fitted as released; the others were held to independence.
    """

    sites: tuple[Site, ...]
    common: CommonBins
    logits: np.ndarray
    mixing: np.ndarray
    dependent: frozenset[Pair]

    def own(self, number: int) -> Generator:
        """Institution `number`: its generator, with the components in its own bins in place of its soft records.

        Head, critic, released shares and the values inside a bin stay its own.
        """
        generator, place = self.sites[number].generator, self.common.own[number]
        inside = _inside(self._shares, torch.from_numpy(place), generator.layout.feature_width)
        return replace(generator, logits=inside.clamp_min(LOWEST).log().numpy(), weights=self.mixing[number])

    @property
    def _shares(self) -> Tensor:
        """Probabilities of each component within each feature, (components, common bins)."""
        return Layout(self.common.widths, 1).softmax(torch.from_numpy(self.logits))


def fit_joint(stakes: Sequence[Stake], rng: np.random.Generator) -> Joint:
    """Fit components and each institution's weights to all released statistics.

    Args:
        stakes: At least one, in a fixed order, each with rows above 0.
        rng: Chooses the records that components start from.
    """
    rows = np.array([s.rows for s in stakes])
    stakes = [replace(s, rows=share) for s, share in zip(stakes, (rows / rows.sum()).tolist(), strict=True)]
    generators = [s.site.generator for s in stakes]
    common = common_bins([Marginals(g.feature_bins, g.shares, s.rows) for g, s in zip(generators, stakes, strict=True)])
    dependent = dependent_pairs([(excess(s.site.pairs, s.site.generator.shares), s.trust) for s in stakes])
    with single_thread():
        fit = _Fit(stakes, common, dependent, rng)
        fit.run()
    mixing = fit.mixing().detach().double().numpy()
    mixing /= mixing.sum(axis=1, keepdims=True)
    return Joint(tuple(s.site for s in stakes), common, fit.logits.detach().numpy(), mixing, dependent)


def joint_or_plain(
    stakes: Sequence[Stake | None], rng: np.random.Generator
) -> tuple[list[Generator | None], Joint | None]:
    """Choose whom to draw each institution's rows from: its generator with the joint components, or None, the one that came.

    None where no pairs travelled, where fewer than two institutions could be fitted together, and where the joint components lie
    farther from the institution's pairs as released than its own records do, by more than chance. What is nearer than noise
    alone explains has learnt the noise, and earns nothing.

    Args:
        stakes: One an institution; None where no pairs travelled. One without rows or trust is left out.
        rng: Chooses the records that components start from.
    """
    drawn: list[Generator | None] = [None] * len(stakes)
    usable = {place: s for place, s in enumerate(stakes) if s is not None and s.rows > 0 and s.trust > 0}
    if len(usable) < 2 or sum(s.site.generator.layout.feature_width for s in usable.values()) > MOST_BINS:
        return drawn, None
    joint = fit_joint(list(usable.values()), rng)
    for number, (place, stake) in enumerate(usable.items()):
        site, own = stake.site, joint.own(number)
        before, after = (pair_distance(site, g.pair_shares, joint.dependent) for g in (site.generator, own))
        chance = CHANCE * float(np.sqrt(2 / sum(b.size for b in site.pairs.shares)))
        if after <= max(before, NOISE_FLOOR) + chance:  # false for what is not finite, too
            drawn[place] = own
    return drawn, joint


def pair_distance(site: Site, together: Tensor, dependent: frozenset[Pair] | None = None) -> float:
    """Mean squared distance of pair shares, in the institution's own bins, to its pairs as released, in units of their noise.

    At most 1 in expectation at the truth; pairs with signal weigh more.

    Args:
        site: The institution.
        together: Shares of all pairs of bins, as `Generator.pair_shares` gives them.
        dependent: The pairs that are measured as released, the others against independence; None: all of them.
    """
    blocks, _ = _blocks(site, frozenset(site.pairs.pairs) if dependent is None else dependent)
    return float(sum(((together[b.rows, b.columns] - b.target).square() * b.precision).sum() for b in blocks))


class _Fit:
    """The parameters, and the loss that moves them."""

    def __init__(
        self, stakes: Sequence[Stake], common: CommonBins, dependent: frozenset[Pair], rng: np.random.Generator
    ) -> None:
        sites, rows = [s.site for s in stakes], np.array([s.rows for s in stakes])
        sizes = [len(s.generator.class_prior) for s in sites]
        self.classes = sizes[0] if sites[0].generator.schema.task == "classes" else 1
        self.layout = Layout(common.widths, self.classes)
        self.aims = [
            _Aim(s.site, own, self.classes, s.trust, dependent) for s, own in zip(stakes, common.own, strict=True)
        ]
        self.rows = torch.from_numpy(rows.astype(np.float32))
        components = min(COMPONENTS, CELLS // self.layout.feature_width)
        numbers = np.maximum(np.rint(components * rows), LEAST_COMPONENTS).astype(int)
        starts = [
            _started(common, i, s.generator, int(n), self.classes, rng)
            for i, (s, n) in enumerate(zip(sites, numbers, strict=True))
        ]
        self.logits, self.class_logits = (
            torch.from_numpy(np.concatenate(part).astype(np.float32)).requires_grad_()
            for part in zip(*starts, strict=True)
        )
        shared = np.repeat(np.log(rows / numbers), numbers)
        self.shared = torch.from_numpy(shared.astype(np.float32)).requires_grad_()
        origin = np.repeat(np.arange(len(sites)), numbers)
        own = HEAD_START * (origin == np.arange(len(sites))[:, None])
        self.apart = torch.from_numpy(own.astype(np.float32)).requires_grad_()

    def mixing(self) -> Tensor:
        """Weights of the components at each institution, (institutions, components)."""
        return (self.shared + self.apart).softmax(1)

    def run(self) -> None:
        """Optimise until the pairs are as near as their noise lets them be."""
        records = [self.logits, self.class_logits]
        optimizer = torch.optim.Adam([*records, self.shared, self.apart], lr=LEARNING_RATE, betas=(0.9, 0.99))
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE if step < STEPS * 2 // 3 else LATE_RATE
            for record in records:
                record.requires_grad_(step >= WEIGHTS_FIRST)
            optimizer.zero_grad()
            loss, beyond = self._loss()
            if step >= WEIGHTS_FIRST and beyond <= 0:
                break
            loss.backward()
            optimizer.step()

    def _loss(self) -> tuple[Tensor, float]:
        """What is minimised, and how far beyond its noise the pairs of an institution that is believed are at most.

        Pairs that are as near as their noise lets them be pull no more, while others may.
        """
        shares, classes, mixing = self.layout.softmax(self.logits), self.class_logits.softmax(1), self.mixing()
        parts = [a.distances(shares, classes, pi) for a, pi in zip(self.aims, mixing, strict=True)]
        trust = torch.tensor([a.trust for a in self.aims])
        one_way, two_way = (torch.stack(p) for p in zip(*parts, strict=True))
        strays = (self.apart.square() * (self.rows @ mixing).detach()).sum()
        beyond = two_way - NOISE_FLOOR * torch.tensor([a.noisy for a in self.aims])
        pull = trust * (one_way + PAIR_WEIGHT * beyond.relu())
        return pull.sum() + SHRINK * strays, float(beyond.detach()[trust > 0].max())


@dataclass(frozen=True, eq=False)
class _Block:
    """All pairs of one feature with later ones.

    Attributes:
        rows, columns: Where they stand among own bins: the feature's bins, the others'.
        target: As released, or independent, (rows, columns).
        precision: Of each cell, so that the sum over all blocks is at most 1 in expectation at the truth.
    """

    rows: slice
    columns: slice | Tensor
    target: Tensor
    precision: Tensor


def _blocks(site: Site, dependent: frozenset[Pair]) -> tuple[list[_Block], float]:
    """An institution's pairs, by their first feature, and what the sum over them is in expectation at the truth."""
    layout, pairs, shares = site.generator.layout, site.pairs, site.generator.shares
    starts, widths = layout.starts, layout.features
    signal = [1.0] * len(pairs.pairs) if pairs.signal is None else pairs.signal
    released = dict(zip(pairs.pairs, pairs.released or pairs.shares, strict=True))
    weight = {p: f + FAINT for p, f in zip(pairs.pairs, signal, strict=True) if p in dependent}
    cells, noisy = sum(b.size for b in released.values()), sum(released[p].size for p in weight)
    usual = sum(weight[p] * released[p].size for p in weight) / noisy if noisy else 1.0
    aims = {p: b if p in weight else np.outer(shares[p[0]], shares[p[1]]) for p, b in released.items()}
    blocks = []
    for first, group in groupby(sorted(released), key=lambda pair: pair[0]):
        seconds = [second for _, second in group]
        places = np.concatenate([np.arange(starts[s], starts[s] + widths[s]) for s in seconds])
        run = slice(int(places[0]), int(places[-1]) + 1)
        weights = [weight.get((first, s), CERTAIN * usual) for s in seconds]
        precision = np.repeat(weights, [widths[s] for s in seconds]) / (pairs.spread**2 * usual * cells)
        blocks.append(
            _Block(
                rows=slice(int(starts[first]), int(starts[first]) + widths[first]),
                columns=run if len(places) == run.stop - run.start else torch.from_numpy(places),
                target=torch.from_numpy(np.concatenate([aims[first, s] for s in seconds], axis=1).astype(np.float32)),
                precision=torch.from_numpy(precision.astype(np.float32)),
            )
        )
    return blocks, noisy / cells


class _Aim:
    """One institution's statistics, in its own bins."""

    def __init__(self, site: Site, own: np.ndarray, classes: int, trust: float, dependent: frozenset[Pair]) -> None:
        self.own, self.trust, self.width = torch.from_numpy(own), trust, site.generator.layout.feature_width
        counts = np.concatenate(site.counts.by_column, axis=1) / site.counts.total
        counts = counts if classes > 1 else counts.sum(axis=0, keepdims=True)
        self.one_way = torch.from_numpy(counts.astype(np.float32))
        self.one_way_precision = (site.counts.total / site.counts.stddev) ** 2 / counts.size
        self.blocks, self.noisy = _blocks(site, dependent)

    def distances(self, shares: Tensor, classes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared distance to the class histograms and to the pairs, in units of their noise."""
        inside = _inside(shares, self.own, self.width)
        weighed = inside * weights.unsqueeze(1)
        one_way = (classes.T @ weighed - self.one_way).square().sum() * self.one_way_precision
        pairs = [
            ((inside[:, b.rows].T @ weighed[:, b.columns] - b.target).square() * b.precision).sum() for b in self.blocks
        ]
        return one_way, torch.stack(pairs).sum()


def _inside(shares: Tensor, own: Tensor, width: int) -> Tensor:
    """Components on the common bins summed up in an institution's own ones, (components, width)."""
    return torch.zeros(len(shares), width).index_add(1, own, shares)


def _started(
    common: CommonBins, number: int, generator: Generator, n: int, classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of `n` of institution `number`'s soft records, chosen by weight: on the common bins, and over the classes."""
    shares, logits = records_on(common, number, generator, n, offset=rng.random())
    if classes == 1:
        return logits, np.zeros((n, 1))
    head = log_normalise(shares @ generator.head[0].T + generator.head[1])
    return logits, np.clip(log_normalise(match_prior(head, generator.class_prior)), -CLASS_LIMIT, CLASS_LIMIT)
