"""The books over time, entry by entry, and who could sign when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from distill.ledger.entries.bodies import EnrolBody, GrantBody, Member, OpenBody, RetireBody, Role, RotateBody
from distill.ledger.entries.entry import Entry
from distill.ledger.rules.state import State


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The books after one entry; `moment` never runs backwards, whatever the clock that was written down did."""

    sequence: int
    moment: datetime
    granted_epsilon: float
    granted_delta: float
    spent_epsilon: float
    spent_delta: float


@dataclass(frozen=True, kw_only=True)
class Granted:
    """One grant, as its officer reasoned it."""

    sequence: int
    time: str
    actor: str
    epsilon: float
    delta: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of who may sign."""

    sequence: int
    time: str
    actor: str
    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who may or might sign.

    Attributes:
        since, until: Entries that gave and took the role; None: still holds it.
        signed: Entries with this key, in any role.
    """

    role: Role
    name: str
    public_key: str
    since: int
    until: int | None
    signed: int


def moments(entries: Sequence[Entry]) -> tuple[Moment, ...]:
    """The books after each entry."""
    state, latest, found = State(), datetime.fromisoformat(entries[0].time), []
    for entry in entries:
        state.apply(entry)
        latest = max(latest, datetime.fromisoformat(entry.time))
        epsilon, delta = state.spent()
        found.append(
            Moment(
                sequence=entry.sequence,
                moment=latest,
                granted_epsilon=state.grant.epsilon,
                granted_delta=state.grant.delta,
                spent_epsilon=epsilon,
                spent_delta=delta,
            )
        )
    return tuple(found)


def grants(entries: Sequence[Entry]) -> tuple[Granted, ...]:
    """Every grant, in order; each replaces the one before."""
    return tuple(
        Granted(
            sequence=entry.sequence,
            time=entry.time,
            actor=entry.actor,
            epsilon=body.epsilon,
            delta=body.delta,
            reason=body.reason,
        )
        for entry in entries
        if isinstance(body := entry.details, GrantBody)
    )


def changes(entries: Sequence[Entry]) -> tuple[Change, ...]:
    """Every change of who may sign after the opening, in words."""
    return tuple(
        Change(sequence=entry.sequence, time=entry.time, actor=entry.actor, what=_change(entry), reason=body.reason)
        for entry in entries
        if isinstance(body := entry.details, EnrolBody | RetireBody | RotateBody)
    )


def people(entries: Sequence[Entry]) -> tuple[Person, ...]:
    """Everyone who ever held a role, in the order in which they got it."""
    found: dict[tuple[Role, str], Person] = {}

    def join(member: Member, sequence: int) -> None:
        signed = sum(e.public_key == member.public_key for e in entries)
        found[member.role, member.public_key] = Person(**member.model_dump(), since=sequence, until=None, signed=signed)

    def leave(role: Role, key: str, sequence: int) -> str:
        left = found[role, key]
        found[role, key] = Person(**vars(left) | {"until": sequence})
        return left.name

    for entry in entries:
        match entry.details:
            case OpenBody() as body:
                for member in body.members:
                    join(member, entry.sequence)
            case EnrolBody() as body:
                join(body.member, entry.sequence)
            case RetireBody() as body:
                leave(body.role, body.public_key, entry.sequence)
            case RotateBody() as body:
                held = [role for (role, key), p in found.items() if key == entry.public_key and p.until is None]
                for role in held:
                    name = leave(role, entry.public_key, entry.sequence)
                    join(Member(role=role, name=name, public_key=body.new_key), entry.sequence)
    return tuple(found.values())


def _change(entry: Entry) -> str:
    """What a change of keys did, in a few words."""
    match entry.details:
        case EnrolBody(member=member):
            return f"{member.role} {member.name} was enrolled with key {member.public_key[:16]}…"
        case RetireBody(role=role, public_key=key):
            return f"the {role} with key {key[:16]}… was retired"
        case RotateBody(new_key=new):
            return f"key {entry.public_key[:16]}… handed over to {new[:16]}…; both signed"
        case _:
            raise AssertionError(entry.kind)
