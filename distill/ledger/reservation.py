"""A release under way: reserved, planned, committed. It also tells the private table which reads are paid for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from distill.common.checks import within
from distill.common.keys import SigningKey
from distill.errors import BudgetError, ConfigError, LedgerError
from distill.ledger.entries.bodies import AbandonBody, B, Body, CommitBody, Kind, PlanBody, check_rounds, make_body
from distill.ledger.entries.entry import Entry
from distill.ledger.proof import LedgerProof, prove
from distill.ledger.rules.release import Release
from distill.ledger.rules.state import State
from distill.privacy.events import Event, RenyiLimit, epsilon_of, renyi_of


class Books(Protocol):
    """The ledger that a reservation is in."""

    path: Path

    def state(self) -> State:
        """The books, from the file, checked."""

    def append(
        self, kind: Kind, body: Callable[[State], Body], *, actor: str, key: SigningKey, day: str | None = None
    ) -> Entry:
        """Add one entry."""


class Reservation:
    """A release under way.

    Attributes:
        release: Random id.
        epsilon, delta: The most that the whole release may cost.
        limit: The same as Renyi DP, where that is how releases are added up; a plan must keep to both.
        rehearsal: Whether the noise is repeatable.
        linked: Names of data sets that are declared to hold some of the same units.
        events: What is planned and so paid for, so far.
        day: Of the reservation; all that leaves of this release is dated by it.
    """

    def __init__(self, ledger: Books, release: str, *, actor: str, key: SigningKey) -> None:
        """Made by `Ledger.reserve`."""
        self.ledger, self.release = ledger, release
        self._actor, self._key = actor, key
        state = ledger.state()
        booked = self._booked(state)
        self.epsilon, self.delta, self.rehearsal = booked.epsilon, booked.delta, booked.rehearsal
        order, most = state.grant.order, booked.renyi
        self.limit = None if order is None or most is None else RenyiLimit(order, most)
        self.linked = tuple(link.name for link in state.links.values())
        self.events: tuple[Event, ...] = booked.events
        self.day = booked.time

    def plan(self, events: Sequence[Event]) -> Entry:
        """Record the later rounds' events, once, before they are read.

        Raises:
            BudgetError: All events together cost more than was reserved; nothing was recorded.
            ConfigError: An event is of round 0, or two share a name.
            LedgerError: The release was planned or ended already, or the ledger cannot be written.
        """
        checked_rounds(events, first=False)
        later, both = tuple(events), (*self.events, *events)
        cost = affordable(both, self.epsilon, self.delta, self.limit)
        renyi = None if self.limit is None else renyi_of(both, self.limit.order)

        def body(state: State) -> Body:
            planned = self._moved(lambda: self._booked(state).planned(later, cost, renyi))
            return charge_body(PlanBody, state, planned, events=later)

        entry = self._append("plan", body)
        self.events += later
        return entry

    def commit(self, bundle_digest: str) -> Entry:
        """Record that the release was made; `bundle_digest` is the SHA-256 (hex) of the bundle. Raises LedgerError."""

        def body(state: State) -> Body:
            committed = self._moved(lambda: self._booked(state).committed(bundle_digest))
            return charge_body(CommitBody, state, committed, bundle=bundle_digest)

        return self._append("commit", body)

    def abandon(self, reason: str) -> Entry:
        """End the release before it is planned, so that only round 0 is charged. Raises LedgerError after `plan`."""

        def body(state: State) -> Body:
            return charge_body(AbandonBody, state, self._moved(self._booked(state).abandoned), reason=reason)

        return self._append("abandon", body)

    def proof(self) -> LedgerProof:
        """What a bundle of this release carries of the ledger as it is now."""
        return prove(self.ledger.state(), self.release)

    def _append(self, kind: Kind, body: Callable[[State], Body]) -> Entry:
        return self.ledger.append(kind, body, actor=self._actor, key=self._key, day=self.day)

    def _booked(self, state: State) -> Release:
        """This release as the ledger has it."""
        release = state.releases.get(self.release)
        if release is None:
            raise LedgerError(f"{self.ledger.path} does not hold this release; it was replaced by another ledger.")
        return release

    def _moved(self, step: Callable[[], Release]) -> Release:
        """The release after `step`; a step that is not its turn raises LedgerError."""
        try:
            return step()
        except ValueError as error:
            raise LedgerError(f"{self.ledger.path}: {error}. Nothing was recorded.") from None


def charge_body(kind: type[B], state: State, release: Release, **fields: Any) -> B:
    """The body of an entry that brings `release` onto the books."""
    epsilon_total, delta_total = state.grant.spent(state.total_with(release))
    costs = {"epsilon_release": release.epsilon_release, "renyi_release": release.renyi_release}
    totals = {"epsilon_total": epsilon_total, "delta_total": delta_total}
    return make_body(kind, release=release.release, **costs, **totals, **fields)


def checked_rounds(events: Sequence[Event], *, first: bool) -> None:
    """Raise ConfigError unless there are events and they are of the right rounds."""
    if not events:
        raise ConfigError("a release needs at least one event" + (" of round 0." if first else " after round 0."))
    try:
        check_rounds(tuple(events), first=first)
    except ValueError as error:
        raise ConfigError(f"the events do not fit: {error}.") from None


def affordable(events: Sequence[Event], epsilon: float, delta: float, limit: RenyiLimit | None) -> float:
    """What `events` cost at `delta`; raises BudgetError if that, or their cost as Renyi DP, is more than was reserved."""
    cost = epsilon_of(events, delta)
    if not within(cost, epsilon) or (limit is not None and not within(renyi_of(events, limit.order), limit.most)):
        also = "" if limit is None else f", and Renyi DP {renyi_of(events, limit.order):.6g} of {limit.most:.6g}"
        raise BudgetError(
            f"the planned events cost epsilon {cost:.6g} at delta {delta:g}{also}, more than the reserved {epsilon:.6g}. "
            "Plan more noise, fewer steps or a lower sampling rate; nothing was recorded."
        )
    return cost
