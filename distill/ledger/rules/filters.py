"""How releases are added up against a grant: two privacy filters, valid for an analyst who adapts to every earlier answer.

`basic` adds the releases' epsilons and deltas (Dwork & Roth 2014, theorem 3.16; for budgets chosen on the way, arXiv:1605.08294,
section 3). `renyi` adds their Renyi DP at one order that was fixed before the first release, and allows as much as converts to
the granted (epsilon, delta) (arXiv:2008.11193, theorem 3.1 with the conversion of arXiv:2004.00010, proposition 12). Tighter
sums exist (the joint privacy loss distribution), but not for releases whose parameters follow earlier answers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from distill.common.checks import within
from distill.privacy.accountant import epsilon_from_renyi, renyi_within


@dataclass(frozen=True)
class Charge:
    """What one release, or all of them, counts for."""

    epsilon: float = 0.0
    delta: float = 0.0
    renyi: float = 0.0


class Sum:
    """Charges added up without rounding, so that the order does not matter and one can be taken back."""

    def __init__(self, charges: Iterable[Charge] = ()) -> None:
        """Start from some charges."""
        self._parts = [Fraction(0)] * 3
        for charge in charges:
            self.add(charge)

    def add(self, charge: Charge, *, instead_of: Charge | None = None) -> "Sum":
        """Count `charge` (in the place of another); returns itself."""
        if charge == instead_of:
            return self
        self._parts = [
            part + Fraction(new) - Fraction(old)
            for part, new, old in zip(self._parts, _numbers(charge), _numbers(instead_of or Charge()), strict=True)
        ]
        return self

    def with_(self, charge: Charge, *, instead_of: Charge | None = None) -> "Sum":
        """A new sum that also counts `charge`."""
        other = Sum()
        other._parts = list(self._parts)
        return other.add(charge, instead_of=instead_of)

    @property
    def total(self) -> Charge:
        """The sum, rounded once."""
        return Charge(*(float(part) for part in self._parts))


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The budget in force, and how releases are added up against it.

    Attributes:
        epsilon, delta: What all releases together may spend; 0 before the first grant.
        order: Of the Renyi filter; None: basic composition.
    """

    epsilon: float = 0.0
    delta: float = 0.0
    order: float | None = None

    @property
    def renyi(self) -> float | None:
        """Renyi DP at `order` that converts to the grant. Raises ValueError if there is none."""
        return None if self.order is None else renyi_within(self.order, self.epsilon, self.delta)

    def spent(self, total: Charge) -> tuple[float, float]:
        """(epsilon, delta) that releases with this sum count for."""
        if self.order is None:
            return total.epsilon, total.delta
        if not total.renyi:
            return 0.0, 0.0
        return epsilon_from_renyi(self.order, total.renyi, self.delta), self.delta

    def exceeded(self, total: Charge) -> str | None:
        """What of the grant releases with this sum would exceed: `epsilon`, `delta`, or None."""
        if self.renyi is not None:
            return None if within(total.renyi, self.renyi) else "epsilon"
        if not within(total.epsilon, self.epsilon):
            return "epsilon"
        return None if within(total.delta, self.delta) else "delta"

    def left(self, total: Charge) -> tuple[float, float]:
        """(epsilon, delta) that are left beside releases with this sum; with a Renyi filter delta is shared, not divided."""
        epsilon, delta = self.spent(total)
        return left_of(self.epsilon, epsilon), left_of(self.delta, delta) if self.order is None else self.delta


def left_of(granted: float, spent: float) -> float:
    """What of a grant is left; nothing when only rounding is."""
    return 0.0 if within(granted, spent) else granted - spent


def _numbers(charge: Charge) -> tuple[float, float, float]:
    return charge.epsilon, charge.delta, charge.renyi
