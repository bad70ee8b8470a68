"""One release on the books: what it may cost, how far it has come, what it counts for, and which step may come next."""

from dataclasses import dataclass, replace
from typing import Literal

from distill.common.checks import require
from distill.ledger.entries.bodies import REHEARSAL, ReserveBody, check_rounds
from distill.ledger.entries.entry import Entry
from distill.ledger.rules.filters import Charge
from distill.privacy.events import Event

Status = Literal["reserved", "planned", "committed", "abandoned", "resolved"]


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release, as far as it has come.

    Attributes:
        release: Random id.
        status: `reserved` and `planned` stand (they count as spent in full); the others are over.
        epsilon, delta: Reserved for the whole release.
        renyi: Reserved as Renyi DP at the grant's order; None where releases are added up by their epsilons.
        epsilon_release: What its events so far cost at `delta`.
        renyi_release: What they cost as Renyi DP, or None.
        events: Everything planned so far, in order.
        bundle: SHA-256 of the bundle once committed.
    """

    release: str
    purpose: str
    actor: str
    time: str
    rehearsal: bool
    epsilon: float
    delta: float
    renyi: float | None
    events: tuple[Event, ...]
    epsilon_release: float
    renyi_release: float | None
    status: Status = "reserved"
    bundle: str | None = None

    @property
    def stands(self) -> bool:
        """Whether it was begun and is not over."""
        return self.status in ("reserved", "planned")

    @property
    def was_planned(self) -> bool:
        """Whether the later rounds were on the books, without which nothing but round 0 is read."""
        return any(e.round > 0 for e in self.events)

    @property
    def charged(self) -> Charge:
        """What counts against the grant: all that was reserved, unless the release is over and was never planned.

        Such a release read round 0 at most. A rehearsal's noise is known, so there is no privacy to account for.
        """
        if self.rehearsal:
            return Charge()
        if self.stands or self.was_planned:
            return Charge(self.epsilon, self.delta, self.renyi or 0.0)
        pure = all(e.mechanism == "laplace" for e in self.events)
        return Charge(self.epsilon_release, 0.0 if pure else self.delta, self.renyi_release or 0.0)

    def planned(self, events: tuple[Event, ...], epsilon_release: float, renyi_release: float | None) -> "Release":
        """Its later rounds are on the books."""
        require(self.status == "reserved", f"the release is already {self.status}")
        check_rounds(events, first=False)
        both = self.events + events
        require(len({e.name for e in both}) == len(both), "two events share a name")
        return replace(
            self, status="planned", events=both, epsilon_release=epsilon_release, renyi_release=renyi_release
        )

    def committed(self, bundle: str) -> "Release":
        """It was made; what was reserved stays charged."""
        require(self.status == "planned", f"the release is {self.status}, not planned")
        return replace(self, status="committed", bundle=bundle)

    def abandoned(self) -> "Release":
        """It ended after round 0."""
        require(self.status == "reserved", f"the release is already {self.status}")
        return replace(self, status="abandoned")

    def resolved(self) -> "Release":
        """An officer closed it, because it will not finish."""
        require(self.stands, f"the release is already {self.status}")
        return replace(self, status="resolved")


def begun(entry: Entry, body: ReserveBody) -> Release:
    """The release that a `reserve` entry begins. Raises ValueError."""
    check_rounds(body.events, first=True)
    require(body.warning == (REHEARSAL if body.rehearsal else ""), "the rehearsal warning is missing or misplaced")
    return Release(
        release=body.release,
        purpose=body.purpose,
        actor=entry.actor,
        time=entry.time,
        rehearsal=body.rehearsal,
        epsilon=body.epsilon,
        delta=body.delta,
        renyi=body.renyi,
        events=body.events,
        epsilon_release=body.epsilon_release,
        renyi_release=body.renyi_release,
    )
