"""Reading a whole ledger: replaying its entries, adding up the books, and recomputing every epsilon."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from distill import ledger_store
from distill.accounting import Event
from distill.errors import LedgerTamperedError
from distill.ledger_entries import PlanBody, ReserveBody, head_is_sealed, read_entry
from distill.ledger_state import RECOMPUTED, Release, State, audited_epsilon, left_of


@dataclass(frozen=True, kw_only=True)
class LedgerSummary:
    """The books at one moment; `standing` releases are counted in `spent_*` in full."""

    dataset: str
    unit: str
    relation: str
    entries: int
    head: str
    public_key: str
    granted_epsilon: float
    granted_delta: float
    spent_epsilon: float
    spent_delta: float
    standing: tuple[Release, ...]
    releases: tuple[Release, ...]

    @property
    def remaining_epsilon(self) -> float:
        """Epsilon that a further release may still ask for; never negative."""
        return left_of(self.granted_epsilon, self.spent_epsilon)

    @property
    def remaining_delta(self) -> float:
        """Delta that a further release may still ask for; never negative."""
        return left_of(self.granted_delta, self.spent_delta)


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
        key_given: Whether the signer was compared with a key from outside; if not, the ledger vouches for its own key.
        checks: One sentence a check.
    """

    path: Path
    public_key: str
    key_given: bool
    summary: LedgerSummary
    releases: tuple[AuditedRelease, ...]
    checks: tuple[str, ...]


def replay(path: Path, connection: sqlite3.Connection, *, pages: bool = False) -> State:
    """The books after all entries in the file, each checked. Raises LedgerTamperedError naming the entry.

    Args:
        path: For error messages.
        connection: Open on the ledger, its tables and triggers checked.
        pages: Also run SQLite's check of the file's structure.
    """
    state = State()
    place = "the file"
    try:
        if pages:
            ledger_store.check_pages(connection)
        for number, (sequence, data) in enumerate(ledger_store.rows(connection), start=1):
            place = f"entry {number}"
            if sequence != number:
                raise ValueError(f"it is missing; the next one there is number {sequence}")
            entry = read_entry(data)
            place = f"entry {number} ({entry.kind})"
            state.apply(entry)
        place = "the end of the chain"
        if not state.entries:
            raise ValueError("all entries are missing")
        sealed, seal = ledger_store.head(connection)
        if sealed != state.last.sequence or not head_is_sealed(state.last, seal):
            raise ValueError(f"the seal is not that of entry {state.last.sequence}: entries were cut off or put on")
    except ValueError as error:
        raise tampered(path, f"{place}: {error}") from None
    return state


def recompute(path: Path, state: State) -> tuple[AuditedRelease, ...]:
    """Recompute every epsilon in the ledger from its events. Raises LedgerTamperedError naming the entry."""
    audited: dict[str, AuditedRelease] = {}
    events: dict[str, tuple[Event, ...]] = {}
    for entry in state.entries:
        body = entry.details
        if not isinstance(body, ReserveBody | PlanBody):
            continue  # commit and abandon restate the epsilon before them; the books hold them to it
        events[body.release] = events.get(body.release, ()) + body.events
        release = state.releases[body.release]
        try:
            pld, rdp = audited_epsilon(events[body.release], release.delta, stated=body.epsilon_release)
            if body.epsilon_release > pld * (1 + RECOMPUTED):
                raise ValueError(f"it states epsilon {body.epsilon_release:.9g}, and its events cost {pld:.9g}")
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
    return tuple(audited.values())


def checks_made(state: State, *, key_given: bool) -> tuple[str, ...]:
    """What a verification that found nothing wrong has looked at, in sentences."""
    count, releases = len(state.entries), f"{len(state.releases)} release(s)"
    standing = sum(r.stands for r in state.releases.values())
    signer = "the given key" if key_given else "the key that the first entry names"
    return (
        "the file's pages, tables and append-only triggers are those of a ledger",
        f"{count} entries are numbered without gaps and each holds the hash of the one before",
        f"{count} hashes and signatures match, all by {signer}",
        f"the signed seal names entry {count} as the last",
        f"{releases} went from reserved to planned to committed in this order, or were abandoned; {standing} standing",
        "the running totals add up, and no reservation went over the grant of its time",
        f"the epsilon of {releases} follows from the recorded noise by PLD, and RDP does not contradict it",
    )


def summarise(state: State) -> LedgerSummary:
    """The books as they stand."""
    spent_epsilon, spent_delta = state.spent()
    releases = tuple(state.releases.values())
    return LedgerSummary(
        dataset=state.first.dataset,
        unit=state.first.unit,
        relation=state.first.relation,
        entries=len(state.entries),
        head=state.last.hash,
        public_key=state.first.public_key,
        granted_epsilon=state.granted_epsilon,
        granted_delta=state.granted_delta,
        spent_epsilon=spent_epsilon,
        spent_delta=spent_delta,
        standing=tuple(r for r in releases if r.stands),
        releases=releases,
    )


def tampered(path: Path, problem: str) -> LedgerTamperedError:
    """The error for a ledger that does not verify, with the mend."""
    return LedgerTamperedError(
        f"{path}: {problem}. The ledger was altered or damaged: restore it from a backup, and compare its head with "
        "those in released bundles."
    )
