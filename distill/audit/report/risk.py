"""What (epsilon, delta) lets an attacker learn about one unit, in chances that a person can weigh.

The attacker may know everything but whether the unit is in the table, and sees all releases. Two readings of the same
promise: how far any output may move a belief, and how well the two worlds can be told apart by any test.
"""

import math
from dataclasses import dataclass

from distill.common import checks

PRIORS = (0.01, 0.10, 0.50)
ALARMS = (0.01, 0.05)  # false positive rates


@dataclass(frozen=True, kw_only=True)
class Belief:
    """How far a belief can move, whatever is seen.

    Attributes:
        prior: Held before.
        lowest, highest: Between which it stays, but for a leak whose chance is at most delta.
    """

    prior: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The most that a test which tells the worlds apart can find at some rate of false alarms."""

    alarms: float
    detected: float


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """(epsilon, delta) read as beliefs and as tests; `ratio` is how many times as likely anything may become."""

    epsilon: float
    delta: float
    ratio: float
    beliefs: tuple[Belief, ...]
    detections: tuple[Detection, ...]


def meaning_of(epsilon: float, delta: float) -> Meaning:
    """Both readings at the usual priors and rates of false alarms."""
    return Meaning(
        epsilon=epsilon,
        delta=delta,
        ratio=_exp(epsilon),
        beliefs=tuple(
            Belief(prior=p, lowest=bounded_posterior(p, -epsilon), highest=bounded_posterior(p, epsilon))
            for p in PRIORS
        ),
        detections=tuple(Detection(alarms=a, detected=most_detected(a, epsilon, delta)) for a in ALARMS),
    )


def bounded_posterior(prior: float, epsilon: float) -> float:
    """The most that a belief of `prior` can become; with -epsilon the least.

    Bayes' rule with a likelihood ratio of exp(epsilon). With a delta it holds outside a leak whose chance is at most delta:
    an (epsilon, delta) output differs from one with that ratio by delta / (1 + exp(epsilon)) in total variation at most
    (Dwork & Roth 2014, lemma 3.17). Raises ConfigError unless `prior` is within (0, 1].
    """
    checks.positive(prior=prior)
    checks.at_most(1.0, prior=prior)
    return 1 / (1 + (1 - prior) / prior * _exp(-epsilon))


def most_detected(alarms: float, epsilon: float, delta: float) -> float:
    """The highest true positive rate of any test at a false positive rate of `alarms`.

    Source: arXiv:1311.0776, theorem 2.1: both kinds of error are bounded in both directions.
    """
    straight = _exp(epsilon) * alarms + delta
    mirrored = 1 - _exp(-epsilon) * (1 - delta - alarms)
    return min(1.0, straight, mirrored)


def _exp(exponent: float) -> float:
    """Like `math.exp`, but beyond what a float holds it stays at e**700: such an epsilon promises nothing anyway."""
    return math.exp(min(exponent, 700.0))
