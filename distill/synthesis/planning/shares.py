"""Shares of the budget: how much of it each read of a fit gets."""

from dataclasses import dataclass, fields, replace

from distill.common import checks

SCARCE_SIGNAL = 1600.0  # rows * epsilon / columns below which budget moves to the class counts
HEAD_PORTION = 0.75  # of the discriminator's squared clip norm, where there are classes to tell apart


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How the budget after stage 0 is divided; any positive numbers, used in proportion."""

    bins: float = 0.08
    classes: float = 0.30
    pairs: float = 0.35
    represent: float = 0.06
    cluster: float = 0.02
    discriminate: float = 0.34

    def __post_init__(self) -> None:
        checks.positive(**vars(self))

    def portion(self, name: str) -> float:
        """The share called `name` as a portion of all shares."""
        return float(getattr(self, name) / sum(getattr(self, f.name) for f in fields(self)))


def choose_shares(noisy_size: int, epsilon: float, features: int) -> Shares:
    """Default shares: with little signal a column, budget moves from pairs and training to the class counts.

    Where rows * epsilon / columns is small, gradients and pairs drown in noise and naive Bayes on the class counts is
    the best there is; the counts also stay useful at noise levels where nothing else is. Where it is tiny, as on small wide
    tables, bins are misplaced by the noise on the tree that they are read from, so that the tree gets more too. Measured in
    docs/research/plan.md.
    """
    scarce = max(0.0, 1 - noisy_size * epsilon / (features * SCARCE_SIGNAL))
    return Shares(
        bins=0.08 + 0.20 * scarce**4,
        classes=0.30 + 0.30 * scarce,
        pairs=max(0.12, 0.35 - 0.38 * scarce),
        represent=0.06 - 0.02 * scarce,
        discriminate=0.34 - 0.20 * scarce,
    )


def without_target(shares: Shares) -> Shares:
    """Shares for a table without a target: what taught the class head goes to the pairs.

    The critic keeps its own part of the discriminator's budget. One-way counts are not split by class, so half the share
    resolves them as well. On the demo's table without its target (10,000 rows, epsilon 2, seeds 0 and 1) the 2-way TVD was
    .048 and .047 with this and .058 and .059 without, at a 1-way TVD of .014 against .011.
    """
    critic, counts = (1 - HEAD_PORTION) * shares.discriminate, 0.5 * shares.classes
    freed = shares.discriminate - critic + shares.classes - counts
    return replace(shares, classes=counts, discriminate=critic, pairs=shares.pairs + freed)
