"""The part of a ledger that travels inside a bundle, and how a reader without the ledger checks it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.accounting import Event
from distill.canonical import canonical
from distill.ledger_entries import NO_HASH, Entry, GrantBody, PlanBody, ReserveBody, read_entry
from distill.ledger_state import State, planned, within

MAX_PROOF_ENTRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a bundle's ledger entries say about the release.

    Attributes:
        epsilon, delta: Reserved for the release.
        epsilon_release: What its events cost, as the ledger states it.
        granted_epsilon, granted_delta: The grant when it was reserved.
    """

    release: str
    dataset: str
    unit: str
    relation: str
    rehearsal: bool
    epsilon: float
    delta: float
    epsilon_release: float
    events: tuple[Event, ...]
    granted_epsilon: float
    granted_delta: float


def check_proof(entries: Sequence[dict[str, Any]], public_hex: str) -> Proof:
    """Check the entries that a bundle carries: opening, grants, one reservation and its plan, in the ledger's order.

    Checked are hashes, signatures, the links between neighbouring entries, and that the reservation was within the
    grant of its time. The entries between them stay at the institution, so the chain is not seen whole.

    Raises:
        ValueError: In a few words, what is wrong.
    """
    if not 4 <= len(entries) <= MAX_PROOF_ENTRIES:
        raise ValueError("opening, grant, reservation and plan are needed")
    books = State()
    before: Entry | None = None
    plan: PlanBody | None = None
    for number, raw in enumerate(entries, start=1):
        try:
            before = _linked(read_entry(canonical(raw)), before, public_hex)
            match before.details:
                case GrantBody() as grant:
                    books.granted_epsilon, books.granted_delta = grant.epsilon, grant.delta
                case ReserveBody() as body:
                    _require(not books.releases, "a second reservation")
                    _require_within(body, books)
                    books.releases[body.release] = books.reserved(before, body)
                case PlanBody() as body:
                    _require(plan is None and body.release in books.releases, "it plans no release of this proof")
                    plan = body
                case _:
                    _require(before.kind == "open" and number == 1, "it does not belong in a proof")
        except (ValueError, TypeError) as error:
            raise ValueError(f"entry {number} of the ledger proof: {error}") from None
    if plan is None or before is None:
        raise ValueError("the ledger proof holds no plan")
    begun = books.releases[plan.release]
    release = planned(begun, plan.events, plan.epsilon_release)
    return Proof(
        release=release.release,
        dataset=before.dataset,
        unit=before.unit,
        relation=before.relation,
        rehearsal=release.rehearsal,
        epsilon=release.epsilon,
        delta=release.delta,
        epsilon_release=release.epsilon_release,
        events=release.events,
        granted_epsilon=books.granted_epsilon,
        granted_delta=books.granted_delta,
    )


def _linked(entry: Entry, before: Entry | None, public_hex: str) -> Entry:
    """`entry` if it can stand after `before` in one ledger of this key."""
    _require(entry.public_key == public_hex, "it is signed by another key than the bundle")
    if before is None:
        _require(entry.kind == "open" and entry.sequence == 1 and entry.previous == NO_HASH, "it opens no ledger")
        return entry
    _require(entry.sequence > before.sequence, "it is out of order")
    if entry.sequence == before.sequence + 1:
        _require(entry.previous == before.hash, "it does not follow the entry before it")
    _require((entry.dataset, entry.unit) == (before.dataset, before.unit), "it is from another ledger")
    return entry


def _require_within(body: ReserveBody, books: State) -> None:
    """The running totals, this release included, fit the grant of the time."""
    mine = (body.epsilon, body.delta) if body.rehearsal else (0.0, 0.0)  # a rehearsal must fit, but is not charged
    _require(
        within(body.epsilon_total + mine[0], books.granted_epsilon)
        and within(body.delta_total + mine[1], books.granted_delta)
        and (body.rehearsal or within(body.epsilon, body.epsilon_total)),
        "the reservation went over the grant",
    )


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
