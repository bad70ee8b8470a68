"""What a chain of ledger entries adds up to, and the rules by which the next entry may follow.

Writing and verifying share this one set of rules: the ledger applies them to an entry before it is written, the auditor
to every entry that was. A broken rule raises ValueError with the problem in a few words; the caller adds the place.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distill.accounting import COARSE, Event, epsilon_of
from distill.errors import ConfigError
from distill.ledger_entries import (
    NO_HASH,
    REHEARSAL,
    AbandonBody,
    CommitBody,
    Entry,
    GrantBody,
    OpenBody,
    PlanBody,
    ReserveBody,
    check_rounds,
)

SLACK = 1e-9  # relative: four releases of 0.5 fit a grant of 2.0 whatever the last bit of a sum says
RECOMPUTED = 1e-6  # relative: a recomputed epsilon may differ so much between machines


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release, as far as it has come.

    Attributes:
        release: Random id.
        status: `reserved` and `planned` stand (they count as spent in full), `committed` and `abandoned` are over.
        epsilon, delta: Reserved for the whole release.
        epsilon_release: What its events so far cost at `delta`.
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
    events: tuple[Event, ...]
    epsilon_release: float
    status: Literal["reserved", "planned", "committed", "abandoned"] = "reserved"
    bundle: str | None = None

    @property
    def stands(self) -> bool:
        """Whether it was begun and neither committed nor abandoned."""
        return self.status in ("reserved", "planned")

    @property
    def charged(self) -> tuple[float, float]:
        """The (epsilon, delta) that count against the grant: all that was reserved, unless abandoned or rehearsed.

        An abandoned release read round 0 only; a rehearsal's noise is known, so there is no privacy to account for.
        """
        if self.rehearsal:
            return 0.0, 0.0
        if self.status == "abandoned":
            pure = all(e.mechanism == "laplace" for e in self.events)
            return self.epsilon_release, 0.0 if pure else self.delta
        return self.epsilon, self.delta


class State:
    """The ledger's books after some entries; `apply` admits the next one or raises ValueError."""

    def __init__(self) -> None:
        """The books before the first entry."""
        self.entries: list[Entry] = []
        self.releases: dict[str, Release] = {}
        self.granted_epsilon = 0.0
        self.granted_delta = 0.0

    @property
    def first(self) -> Entry:
        """The opening entry: it names the data set, the unit and the key."""
        return self.entries[0]

    @property
    def last(self) -> Entry:
        """The newest entry, the head of the chain."""
        return self.entries[-1]

    def spent(self) -> tuple[float, float]:
        """(epsilon, delta) charged by all releases: basic composition, valid however releases depend on earlier ones.

        Source: Dwork & Roth 2014, theorem 3.16; for budgets chosen on the way, arXiv:1605.08294, section 3.
        """
        return _summed(self.releases.values())

    def spent_with(self, release: Release) -> tuple[float, float]:
        """What `spent` will be once `release` (new, or in a new status) is on the books."""
        return _summed((self.releases | {release.release: release}).values())

    def fits(self, epsilon: float, delta: float) -> tuple[bool, bool]:
        """Whether a further (epsilon, delta) stays within the grant, each by itself."""
        spent_epsilon, spent_delta = self.spent()
        return within(spent_epsilon + epsilon, self.granted_epsilon), within(spent_delta + delta, self.granted_delta)

    def apply(self, entry: Entry) -> None:
        """Admit `entry` as the next one. Raises ValueError and stays as it was if a rule is broken."""
        self._check_link(entry)
        body = entry.details
        match body:
            case OpenBody():
                _require(not self.entries, "only the first entry opens a ledger")
            case GrantBody():
                self.granted_epsilon, self.granted_delta = body.epsilon, body.delta
            case ReserveBody():
                self._book(self.reserved(entry, body), body)
            case _:
                self._book(self.advanced(body), body)
        self.entries.append(entry)

    def reserved(self, entry: Entry, body: ReserveBody) -> Release:
        """The release that a `reserve` entry begins."""
        _require(body.release not in self.releases, "the release was reserved before")
        check_rounds(body.events, first=True)
        _require(body.warning == (REHEARSAL if body.rehearsal else ""), "the rehearsal warning is missing or misplaced")
        for fits, what in zip(self.fits(body.epsilon, body.delta), ("epsilon", "delta"), strict=True):
            _require(fits, f"the granted {what} was exceeded")
        return Release(
            release=body.release,
            purpose=body.purpose,
            actor=entry.actor,
            time=entry.time,
            rehearsal=body.rehearsal,
            epsilon=body.epsilon,
            delta=body.delta,
            events=body.events,
            epsilon_release=body.epsilon_release,
        )

    def advanced(self, body: PlanBody | CommitBody | AbandonBody) -> Release:
        """The release after a `plan`, `commit` or `abandon` entry."""
        release = self.releases.get(body.release)
        if release is None:
            raise ValueError("the release was never reserved")
        match body:
            case PlanBody():
                return planned(release, body.events, body.epsilon_release)
            case CommitBody():
                return committed(release, body.bundle)
            case AbandonBody():
                return abandoned(release)

    def _book(self, release: Release, body: ReserveBody | PlanBody | CommitBody | AbandonBody) -> None:
        """Record `release` if the entry's own arithmetic agrees."""
        _require(body.epsilon_release == release.epsilon_release, "its epsilon is not that of the release's events")
        _require(within(release.epsilon_release, release.epsilon), "its events cost more than the release reserved")
        _require(self.spent_with(release) == (body.epsilon_total, body.delta_total), "its running totals do not add up")
        self.releases[release.release] = release

    def _check_link(self, entry: Entry) -> None:
        """The entry continues this chain: number, previous hash, data set, unit, key."""
        _require(entry.sequence == len(self.entries) + 1, f"sequence {len(self.entries) + 1} was expected")
        if not self.entries:
            _require(entry.kind == "open", "the first entry must open the ledger")
            _require(entry.previous == NO_HASH, "the first entry must not follow another")
            return
        _require(entry.previous == self.last.hash, "it does not follow the entry before it (previous hash differs)")
        for field in ("dataset", "unit", "public_key"):
            same = getattr(entry, field) == getattr(self.first, field)
            _require(same, f"its {field} is not the one that opened the ledger")


def planned(release: Release, events: tuple[Event, ...], epsilon_release: float) -> Release:
    """`release` with its later rounds planned."""
    _require(release.status == "reserved", f"the release is already {release.status}")
    check_rounds(events, first=False)
    both = release.events + events
    _require(len({e.name for e in both}) == len(both), "two events share a name")
    return replace(release, status="planned", events=both, epsilon_release=epsilon_release)


def committed(release: Release, bundle: str) -> Release:
    """`release`, made; what was reserved stays charged."""
    _require(release.status == "planned", f"the release is {release.status}, not planned")
    return replace(release, status="committed", bundle=bundle)


def abandoned(release: Release) -> Release:
    """`release`, ended after round 0."""
    _require(release.status == "reserved", f"the release is already {release.status}")
    return replace(release, status="abandoned")


def within(total: float, limit: float) -> bool:
    """Whether `total` is at most `limit`, up to the last bits of a sum."""
    return total <= limit * (1 + SLACK)


def left_of(granted: float, spent: float) -> float:
    """What of a grant is left; nothing when only rounding is."""
    return 0.0 if within(granted, spent) else granted - spent


def audited_epsilon(events: Sequence[Event], delta: float, *, stated: float) -> tuple[float, float]:
    """Recompute what `events` cost by both accountants: (PLD, RDP).

    RDP comes first: it is quick whatever the numbers are, and it refuses events that cost far more than `stated`,
    so that a hostile ledger or bundle cannot keep the exact accountant busy for hours.

    Raises:
        ValueError: the events cost more than `stated`, or the accountants contradict each other.
    """
    try:
        rdp = epsilon_of(events, delta, accountant="rdp")
        if not rdp <= 2 * stated + 5:
            raise ValueError(f"its events cost epsilon {rdp:.6g} or so at delta {delta:g}, not {stated:.6g}")
        pld = epsilon_of(events, delta)
    except (ConfigError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"its events cannot be composed ({error})") from None
    if not pld <= stated * (1 + RECOMPUTED):
        raise ValueError(f"its events cost epsilon {pld:.9g} at delta {delta:g}, more than the stated {stated:.9g}")
    # Rounding a privacy loss to the grid adds at most interval**2 / 4 of variance a step; six deviations of that.
    steps = sum(e.count for e in events if e.mechanism != "laplace")
    if rdp < pld * 0.999 - 3 * COARSE * math.sqrt(steps) - 1e-6:
        raise ValueError(f"the accountants contradict each other: RDP {rdp:.6g} is below PLD {pld:.6g}")
    return pld, rdp


def _summed(releases: Iterable[Release]) -> tuple[float, float]:
    """Charges added up; rounded once, so the order does not matter."""
    charged = [r.charged for r in releases]
    return math.fsum(c[0] for c in charged), math.fsum(c[1] for c in charged)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
