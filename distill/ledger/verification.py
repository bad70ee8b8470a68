"""Reading a whole ledger: replaying its entries, adding up the books, and recomputing every epsilon."""

import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import ConfigError, LedgerTamperedError
from distill.ledger.entries import store
from distill.ledger.entries.bodies import Filter, LinkBody, Member, PlanBody, ReserveBody
from distill.ledger.entries.entry import Entry, head_is_sealed, read_entry
from distill.ledger.rules.release import Release
from distill.ledger.rules.state import State
from distill.privacy.accountant import AGREES, contradict
from distill.privacy.events import Event, epsilon_of, renyi_of

Progress = Callable[[int, int], None]  # releases recomputed, releases


@dataclass(frozen=True, kw_only=True)
class LedgerSummary:
    """The books at one moment; `standing` releases are counted in `spent_*` in full.

    Attributes:
        entries: How many.
        head: Hash of the newest.
        public_key: That opened the ledger.
        members: Who may sign what.
        filter, order: How releases are added up.
        spent_epsilon, spent_delta: By all releases, as the grant counts them.
        remaining_epsilon, remaining_delta: What is left of the grant; never negative.
        standing: Releases that were begun and are not over.
        links: Data sets declared to hold some of the same units.
    """

    dataset: str
    unit: str
    relation: str
    entries: int
    head: str
    public_key: str
    members: tuple[Member, ...]
    filter: Filter
    order: float | None
    granted_epsilon: float
    granted_delta: float
    spent_epsilon: float
    spent_delta: float
    remaining_epsilon: float
    remaining_delta: float
    standing: tuple[Release, ...]
    releases: tuple[Release, ...]
    links: tuple[LinkBody, ...]


@dataclass(frozen=True, kw_only=True)
class AuditedRelease:
    """A release with its epsilon as the ledger states it and as two accountants recompute it."""

    release: str
    status: str
    rehearsal: bool
    epsilon: float
    delta: float
    epsilon_release: float
    epsilon_pld: float
    epsilon_rdp: float


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `Ledger.verify` checked and found in order.

    Attributes:
        vouched: Entries, counted from the first, that a given key vouches for: it signed the last of them, whose hash
            covers the others. 0: no key was given, so the ledger vouches for its own signers.
        strangers: Members who signed and whose key was not given.
        entries: All that was verified, in order.
        checks: One sentence a check.
    """

    path: Path
    public_key: str
    vouched: int
    strangers: tuple[Member, ...]
    summary: LedgerSummary
    releases: tuple[AuditedRelease, ...]
    entries: tuple[Entry, ...]
    checks: tuple[str, ...]

    @property
    def key_given(self) -> bool:
        """Whether signers were compared with a key from outside."""
        return self.vouched > 0


def replay(path: Path, connection: sqlite3.Connection, *, pages: bool = False) -> State:
    """The books after all entries in the file, each checked. Raises LedgerTamperedError naming the entry.

    Args:
        path: For error messages.
        connection: Open on the ledger, its tables and triggers checked.
        pages: Also run SQLite's check of the file's structure.
    """
    place = "the file"
    try:
        if pages:
            store.check_pages(connection)
        place = ""
        state = admit(store.rows(connection))
        place = "the end of the chain"
        if not state.entries:
            raise ValueError("all entries are missing")
        sealed, seal = store.head(connection)
        if sealed != state.last.sequence or not head_is_sealed(state.last, seal):
            raise ValueError(f"the seal is not that of entry {state.last.sequence}: entries were cut off or put on")
    except ValueError as error:
        raise tampered(path, f"{place}: {error}" if place else str(error)) from None
    return state


def admit(rows: Iterable[tuple[int, bytes]]) -> State:
    """The books after stored entries (number, bytes), each checked. Raises ValueError that begins with the place."""
    state, place = State(), "the file"
    try:
        for number, (sequence, data) in enumerate(rows, start=1):
            place = f"entry {number}"
            if sequence != number:
                raise ValueError(f"it is missing; the next one there is number {sequence}")
            entry = read_entry(data)
            place = f"entry {number} ({entry.kind})"
            state.apply(entry)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return state


def recompute(path: Path, state: State, progress: Progress | None = None) -> tuple[AuditedRelease, ...]:
    """Recompute the cost of every release in the ledger from its events. Raises LedgerTamperedError naming the entry."""
    audited: dict[str, AuditedRelease] = {}
    events: dict[str, tuple[Event, ...]] = {}
    for entry in state.entries:
        body = entry.details
        if not isinstance(body, ReserveBody | PlanBody):
            continue  # later steps restate the cost before them; the books hold them to it
        events[body.release] = events.get(body.release, ()) + body.events
        release = state.releases[body.release]
        try:
            pld, rdp = audited_epsilon(events[body.release], release.delta, stated=body.epsilon_release)
            if body.epsilon_release > pld * (1 + AGREES):
                raise ValueError(f"it states epsilon {body.epsilon_release:.9g}, and its events cost {pld:.9g}")
            _check_renyi(events[body.release], state.grant.order, body.renyi_release)
        except ValueError as error:
            raise tampered(path, f"entry {entry.sequence} ({entry.kind}): {error}") from None
        audited[body.release] = AuditedRelease(
            release=body.release,
            status=release.status,
            rehearsal=release.rehearsal,
            epsilon=release.epsilon,
            delta=release.delta,
            epsilon_release=body.epsilon_release,
            epsilon_pld=pld,
            epsilon_rdp=rdp,
        )
        if progress is not None:
            progress(len(audited), len(state.releases))
    return tuple(audited.values())


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
    if not pld <= stated * (1 + AGREES):
        raise ValueError(f"its events cost epsilon {pld:.9g} at delta {delta:g}, more than the stated {stated:.9g}")
    if contradict([e.model_dump(mode="json") for e in events], pld, rdp):
        raise ValueError(f"the accountants contradict each other: RDP {rdp:.6g} is below PLD {pld:.6g}")
    return pld, rdp


def checks_made(state: State, *, vouched: int) -> tuple[str, ...]:
    """What a verification that found nothing wrong has looked at, in sentences."""
    count, releases = len(state.entries), f"{len(state.releases)} release(s)"
    standing = sum(r.stands for r in state.releases.values())
    signers = f"; a given key vouches for entries 1 to {vouched}" if vouched else ""
    return (
        "the file's pages, tables and append-only triggers are those of a ledger",
        f"{count} entries are numbered without gaps and each holds the hash of the one before",
        f"{count} hashes and signatures match, each by an officer or operator who was entitled at the time{signers}",
        f"the signed seal names entry {count} as the last",
        f"{releases} went from reserved to planned to committed in this order, or were ended; {standing} standing",
        "the running totals add up, and no reservation went over the grant of its time",
        f"the epsilon of {releases} follows from the recorded noise by PLD, and RDP does not contradict it",
    )


def summarise(state: State) -> LedgerSummary:
    """The books as they stand."""
    spent_epsilon, spent_delta = state.spent()
    remaining_epsilon, remaining_delta = state.grant.left(state.total)
    releases = tuple(state.releases.values())
    return LedgerSummary(
        dataset=state.first.dataset,
        unit=state.first.unit,
        relation=state.first.relation,
        entries=len(state.entries),
        head=state.last.hash,
        public_key=state.first.public_key,
        members=state.members.all,
        filter="basic" if state.grant.order is None else "renyi",
        order=state.grant.order,
        granted_epsilon=state.grant.epsilon,
        granted_delta=state.grant.delta,
        spent_epsilon=spent_epsilon,
        spent_delta=spent_delta,
        remaining_epsilon=remaining_epsilon,
        remaining_delta=remaining_delta,
        standing=tuple(r for r in releases if r.stands),
        releases=releases,
        links=tuple(state.links.values()),
    )


def tampered(path: Path, problem: str) -> LedgerTamperedError:
    """The error for a ledger that does not verify, with the mend."""
    return LedgerTamperedError(
        f"{path}: {problem}. The ledger was altered or damaged: restore it from a backup, and compare its head with "
        "those in released bundles."
    )


def _check_renyi(events: Sequence[Event], order: float | None, stated: float | None) -> None:
    """The cost as Renyi DP, where that is how releases are added up, follows from the events. Raises ValueError."""
    if order is None:
        return
    found = renyi_of(events, order)
    if stated is None or not math.isclose(found, stated, rel_tol=AGREES):
        raise ValueError(f"it states Renyi DP {stated}, and its events cost {found:.9g} at order {order:g}")
