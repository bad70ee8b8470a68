"""The part of a ledger that travels inside a bundle, and how a reader without the ledger checks it.

A bundle carries the entries that pay for it, and for the whole chain up to its head one digest an entry. The digests show
nothing of the other entries, but they fix them: two bundles of one data set whose chains part ways come from a ledger
that was rolled back, copied or written anew.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from distill.common.canonical_json import canonical
from distill.common.checks import require, within
from distill.ledger.entries.bodies import (
    EnrolBody,
    GrantBody,
    Hash,
    OpenBody,
    PlanBody,
    ReserveBody,
    RetireBody,
    RotateBody,
)
from distill.ledger.entries.entry import Entry, chain_of, read_entry
from distill.ledger.rules.filters import Grant
from distill.ledger.rules.members import Members
from distill.ledger.rules.release import Release, begun
from distill.ledger.rules.state import State
from distill.privacy.events import Event

MAX_PROOF_ENTRIES = 1000
MAX_CHAIN = 100_000
_SHOWN = ("open", "grant", "enrol", "retire", "rotate")  # and the reservation and plan of the release


class LedgerProof(BaseModel):
    """What a bundle carries of its institution's ledger.

    Attributes:
        head: Hash of the newest entry when the bundle was written.
        chain: Digest of each entry's content, from the first to the head (`entry.chain_of`).
        entries: Signed entries: opening, grants, changes of keys, and this release's reservation and plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Hash
    chain: Annotated[tuple[Hash, ...], Field(max_length=MAX_CHAIN)]
    entries: Annotated[tuple[dict[str, Any], ...], Field(max_length=MAX_PROOF_ENTRIES)]


@dataclass(frozen=True, kw_only=True)
class Proven:
    """What a bundle's ledger entries say about the release.

    Attributes:
        sequence: Of the reservation.
        epsilon, delta: Reserved for the release.
        epsilon_release: What its events cost, as the ledger states it.
        epsilon_total: Spent by all releases up to this one, as the grant counts it.
        grant: In force when it was reserved.
        predecessors: Keys that handed over to the one that signed, directly or through others; the newest first.
        hashes: The chain, from the first entry to the head.
    """

    release: str
    sequence: int
    dataset: str
    unit: str
    relation: str
    rehearsal: bool
    epsilon: float
    delta: float
    epsilon_release: float
    epsilon_total: float
    events: tuple[Event, ...]
    grant: Grant
    predecessors: tuple[str, ...]
    hashes: tuple[str, ...]


def prove(state: State, release: str) -> LedgerProof:
    """The proof for a release that was planned, with the head of `state`."""
    shown = [
        e for e in state.entries if e.kind in _SHOWN or (e.kind in ("reserve", "plan") and e.body["release"] == release)
    ]
    return LedgerProof(
        head=state.last.hash,
        chain=tuple(e.content for e in state.entries),
        entries=tuple(e.model_dump(mode="json") for e in shown),
    )


def check_proof(proof: LedgerProof, public_hex: str) -> Proven:
    """Check what a bundle carries of the ledger.

    Checked are the chain up to the head, that each entry has its place in it, hashes, signatures, that each signer was
    entitled, that `public_hex` made the reservation and the plan, and that the reservation was within the grant of its
    time. The contents of the other entries stay at the institution.

    Raises:
        ValueError: In a few words, what is wrong.
    """
    if len(proof.entries) < 4:
        raise ValueError("opening, grant, reservation and plan are needed")
    hashes = tuple(chain_of(proof.chain))
    require(bool(hashes) and hashes[-1] == proof.head, "the chain of the ledger proof does not end in its head")
    reader = _Reader(hashes, public_hex)
    for number, raw in enumerate(proof.entries, start=1):
        try:
            reader.read(read_entry(canonical(raw)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"entry {number} of the ledger proof: {error}") from None
    return reader.proven()


class _Reader:
    """Takes the entries of a proof one by one."""

    def __init__(self, hashes: tuple[str, ...], public_hex: str) -> None:
        self._hashes, self._signer = hashes, public_hex
        self._members, self._grant = Members(), Grant()
        self._predecessors: dict[str, str] = {}
        self._first: Entry | None = None
        self._sequence = 0
        self._reserved: tuple[Entry, ReserveBody, Grant] | None = None
        self._release: Release | None = None

    def read(self, entry: Entry) -> None:
        """The next entry. Raises ValueError."""
        self._place(entry)
        self._members.check(entry)
        self._members.apply(entry)
        match entry.details:
            case OpenBody() | EnrolBody() | RetireBody():
                pass
            case RotateBody() as body:
                self._predecessors[body.new_key] = entry.public_key
            case GrantBody() as body:
                self._grant = Grant(epsilon=body.epsilon, delta=body.delta, order=body.order)
            case ReserveBody() as body:
                require(self._reserved is None, "a second reservation")
                _require_signer(entry, self._signer)
                _require_within(body, self._grant)
                self._reserved, self._release = (entry, body, self._grant), begun(entry, body)
            case PlanBody() as body:
                release = self._release
                if release is None or release.release != body.release:
                    raise ValueError("it plans no release of this proof")
                _require_signer(entry, self._signer)
                self._release = release.planned(body.events, body.epsilon_release, body.renyi_release)
            case _:
                raise ValueError("it does not belong in a proof")
        self._sequence = entry.sequence

    def proven(self) -> Proven:
        """What all of them say. Raises ValueError if the plan is missing."""
        release, first = self._release, self._first
        if release is None or first is None or self._reserved is None or not release.was_planned:
            raise ValueError("the ledger proof holds no plan")
        entry, body, grant = self._reserved
        return Proven(
            release=release.release,
            sequence=entry.sequence,
            dataset=first.dataset,
            unit=first.unit,
            relation=first.relation,
            rehearsal=release.rehearsal,
            epsilon=release.epsilon,
            delta=release.delta,
            epsilon_release=release.epsilon_release,
            epsilon_total=body.epsilon_total,
            events=release.events,
            grant=grant,
            predecessors=self._before(self._signer),
            hashes=self._hashes,
        )

    def _place(self, entry: Entry) -> None:
        """The entry stands where it says in the chain, after the one read before, in the same ledger."""
        if self._first is None:
            require(entry.kind == "open" and entry.sequence == 1, "it opens no ledger")
            self._first = entry
        else:
            require(entry.kind != "open", "it does not belong in a proof")
        require(entry.sequence > self._sequence, "it is out of order")
        require(entry.sequence <= len(self._hashes), "it is later than the head")
        require(self._hashes[entry.sequence - 1] == entry.hash, "it is not in the chain that leads to the head")
        same = (entry.dataset, entry.unit) == (self._first.dataset, self._first.unit)
        require(same, "it is from another ledger")

    def _before(self, key: str) -> tuple[str, ...]:
        """The keys that handed over to `key`, directly or through others, the newest first."""
        found: list[str] = []
        while key in self._predecessors:
            key = self._predecessors[key]
            found.append(key)
        return tuple(found)


def _require_signer(entry: Entry, public_hex: str) -> None:
    require(entry.public_key == public_hex, "it is signed by another key than the bundle")


def _require_within(body: ReserveBody, grant: Grant) -> None:
    """The running totals, this release included, fit the grant of the time."""
    require((body.renyi is None) == (grant.order is None), "it is not counted as the grant says")
    mine = (0.0, 0.0)
    if body.rehearsal and grant.order is None:  # a rehearsal must fit, but is not charged
        mine = (body.epsilon, body.delta)
    counted = body.rehearsal or grant.order is not None or within(body.epsilon, body.epsilon_total)
    require(
        counted
        and within(body.epsilon_total + mine[0], grant.epsilon)
        and within(body.delta_total + mine[1], grant.delta),
        "the reservation went over the grant",
    )
