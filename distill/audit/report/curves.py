"""Epsilon against delta: what the recorded noise costs at every delta, for each release and for all of them together.

A release has no single epsilon: its noise gives one for every delta, and the ledger states the one at the delta that was
reserved. All figures come from `distill.privacy.accountant`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill.ledger.rules.release import Release
from distill.privacy import accountant

DELTAS = (*(float(f"{digit}e{power}") for power in range(-9, -3) for digit in (1, 3)), 1e-3)
MOST_TOGETHER = 200  # releases whose joint loss is composed; beyond that it would take minutes


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Epsilon at each of `DELTAS`."""

    name: str
    epsilons: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What was read of the table, at every delta. Rehearsals, whose noise is known, are left out.

    Attributes:
        releases: One curve each, in the ledger's order.
        counted: All of them, added up as the grant adds them up; None: nothing was read.
        joint: All of them by one privacy loss distribution. For information only: it is proven for releases whose noise was
            fixed before the first of them, which nobody can promise. None: nothing was read, or too many releases.
        joint_epsilon: The same at the delta that is spent.
    """

    deltas: tuple[float, ...]
    releases: tuple[Curve, ...]
    counted: Curve | None
    joint: Curve | None
    joint_epsilon: float | None


def curves_of(releases: Sequence[Release], *, order: float | None, delta: float) -> Curves:
    """The curves of what `releases` read.

    Args:
        releases: In the ledger's order.
        order: Of the Renyi filter, or None for basic composition.
        delta: That is spent by all; the joint epsilon is also given there.
    """
    real = [r for r in releases if not r.rehearsal]
    if not real:
        return Curves(deltas=DELTAS, releases=(), counted=None, joint=None, joint_epsilon=None)
    own = tuple(Curve(name=r.release[:8], epsilons=_along(r)) for r in real)
    curves = Curves(deltas=DELTAS, releases=own, counted=_counted(real, order), joint=None, joint_epsilon=None)
    if len(real) > MOST_TOGETHER:
        return curves
    together = [event | {"round": 0} for r in real for event in _stored(r)]
    joint = Curve(name="joint", epsilons=tuple(accountant.epsilon(together, d) for d in DELTAS))
    # Where no delta is spent, all reads are Laplace: their epsilon is the same at every delta.
    return replace(curves, joint=joint, joint_epsilon=accountant.epsilon(together, delta or DELTAS[0]))


def _counted(releases: Sequence[Release], order: float | None) -> Curve:
    """All releases, by the filter: under basic composition each gets its share of delta, as the books count it."""
    if order is not None:
        total = sum(accountant.renyi(_stored(r), order) for r in releases)
        return Curve(name="counted", epsilons=tuple(accountant.epsilon_from_renyi(order, total, d) for d in DELTAS))
    charged = sum(r.charged.delta for r in releases)
    # A release that is charged no delta has Laplace reads only, which cost the same at every delta.
    costs = [_along(r, r.charged.delta / charged if r.charged.delta else 1.0) for r in releases]
    return Curve(name="counted", epsilons=tuple(map(sum, zip(*costs, strict=True))))


def _along(release: Release, share: float = 1.0) -> tuple[float, ...]:
    """What the release costs at this share of each of `DELTAS`; one composition serves them all.

    Where the share is too small for PLD, Renyi accounting stands in, which is never below it.
    """
    events = _stored(release)
    points = [delta * share for delta in DELTAS]
    return tuple(accountant.epsilon(events, d, "pld" if d >= accountant.LEAST_DELTA else "rdp") for d in points)


def _stored(release: Release) -> list[dict[str, Any]]:
    """Its events as the ledger stores them."""
    return [e.model_dump(mode="json") for e in release.events]
