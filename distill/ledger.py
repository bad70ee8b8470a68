"""The privacy ledger: what was granted, what was spent on what, and the proof of both.

Append-only, one ledger a data set. A *grant* says what all releases together may spend. A release is *reserved* in full
before the first read, *planned* once its noisy size is known, and *committed* with its bundle's digest; if the process
dies, the reservation stands and counts as spent. Entries are chained by hashes and signed; the end of the chain carries
a signed seal.

What `verify` proves: nothing was changed, removed, put in or cut off by anyone without the key, and every epsilon
follows from the recorded noise by two accountants. What it cannot see by itself: the whole file replaced by an older
copy of itself. Heads that left the house catch that: each bundle carries one (`Ledger.knows`).
"""

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill import check, ledger_store
from distill.accounting import Event, epsilon_of
from distill.errors import BudgetError, ConfigError, KeyFileError, LedgerError
from distill.keys import SigningKey
from distill.ledger_audit import (
    AuditedRelease,
    LedgerSummary,
    Verification,
    checks_made,
    recompute,
    replay,
    summarise,
    tampered,
)
from distill.ledger_entries import (
    REHEARSAL,
    RELATION,
    AbandonBody,
    Body,
    CommitBody,
    Entry,
    GrantBody,
    Kind,
    PlanBody,
    ReserveBody,
    check_rounds,
    make_body,
    opening,
    require_public_hex,
    sign_entry,
    sign_head,
)
from distill.ledger_state import Release, State, abandoned, committed, left_of, planned, within

__all__ = [
    "REHEARSAL",
    "RELATION",
    "AuditedRelease",
    "Entry",
    "Ledger",
    "LedgerSummary",
    "Release",
    "Reservation",
    "Verification",
    "create_ledger",
    "open_ledger",
]


class Ledger:
    """A ledger on disk. Holds no connection and no cache: each call reads what is there now.

    Attributes:
        path: The file.
        dataset: Random id of the data set.
        unit: Whose privacy is counted.
    """

    def __init__(self, path: Path, *, dataset: str, unit: str) -> None:
        """Use `create_ledger` or `open_ledger`, which check the file."""
        self.path, self.dataset, self.unit = path, dataset, unit

    def grant(self, *, epsilon: float, delta: float, reason: str, actor: str, key: SigningKey) -> Entry:
        """Set what all releases together may spend, replacing the grant before; below what is spent it stops releases.

        Raises:
            ConfigError: epsilon, delta or a text is out of range.
            KeyFileError: `key` did not open this ledger.
            LedgerError, LedgerTamperedError: The ledger cannot be read or written; it is as it was.
        """
        check.budget(epsilon, delta)
        body = make_body(GrantBody, epsilon=epsilon, delta=delta, reason=reason)
        return self._append("grant", lambda _: body, actor=actor, key=key)

    def reserve(
        self,
        *,
        epsilon: float,
        delta: float,
        purpose: str,
        actor: str,
        events: Sequence[Event],
        key: SigningKey,
        rehearsal: bool = False,
    ) -> "Reservation":
        """Set aside a whole release's budget before its first read.

        Args:
            epsilon, delta: The most that all of the release may cost.
            purpose: One line for the reader of the ledger.
            actor: Who releases.
            events: Round 0 only: what is read before the rest is planned.
            key: That opened the ledger.
            rehearsal: Noise is repeatable, so nothing private comes of it: must fit the grant, is charged nothing.

        Raises:
            BudgetError: It would exceed the grant; nothing was recorded.
            ConfigError, KeyFileError, LedgerError, LedgerTamperedError: As in `grant`.
        """
        check.budget(epsilon, delta)
        _checked_rounds(events, first=True)
        cost = _affordable(events, epsilon, delta)
        release = uuid.uuid4().hex

        def body(state: State) -> Body:
            _require_fits(state, epsilon, delta)
            new = Release(
                release=release,
                purpose=purpose,
                actor=actor,
                time="",
                rehearsal=rehearsal,
                epsilon=float(epsilon),
                delta=float(delta),
                events=tuple(events),
                epsilon_release=cost,
            )
            return _body(
                ReserveBody,
                state,
                new,
                purpose=purpose,
                rehearsal=rehearsal,
                warning=REHEARSAL if rehearsal else "",
                epsilon=new.epsilon,
                delta=new.delta,
                events=new.events,
            )

        self._append("reserve", body, actor=actor, key=key)
        return Reservation(self, release, actor=actor, key=key)

    def entries(self) -> list[Entry]:
        """All entries in order, their chain and signatures checked. Raises LedgerError, LedgerTamperedError."""
        return list(self._state().entries)

    def head(self) -> str:
        """Hash of the newest entry. Raises LedgerError, LedgerTamperedError."""
        return self._state().last.hash

    def knows(self, head: str) -> bool:
        """Whether some entry has this hash; if not, a bundle that carries it comes from a lost or forked future."""
        return any(entry.hash == head for entry in self._state().entries)

    def summary(self) -> LedgerSummary:
        """The books as they stand. Raises LedgerError, LedgerTamperedError."""
        return summarise(self._state())

    def verify(self, public_hex: str | None = None) -> Verification:
        """Check the file, the chain, every signature, every rule of the books, and recompute every epsilon.

        Args:
            public_hex: The key that must have signed; without it the ledger's own first entry says who.

        Raises:
            LedgerTamperedError: Naming the entry and the problem.
            LedgerError: The ledger cannot be read.
        """
        if public_hex is not None:
            require_public_hex(public_hex)
        state = self._state(pages=True)
        if public_hex is not None and state.first.public_key != public_hex:
            raise tampered(
                self.path,
                f"entry 1 (open): it is signed by key {state.first.public_key}, and {public_hex} was expected",
            )
        return Verification(
            path=self.path,
            public_key=state.first.public_key,
            key_given=public_hex is not None,
            summary=summarise(state),
            releases=recompute(self.path, state),
            checks=checks_made(state, key_given=public_hex is not None),
        )

    def _state(self, *, pages: bool = False) -> State:
        """The books, from the file."""
        _require_file(self.path)
        with ledger_store.reading(self.path) as connection:
            state = replay(self.path, connection, pages=pages)
        _require_dataset(self.path, state, self.dataset)
        return state

    def _append(self, kind: Kind, body: Callable[[State], Body], *, actor: str, key: SigningKey) -> Entry:
        """Add one entry whose body follows from the books as they are under the write lock; a refusal adds nothing."""
        _require_file(self.path)
        with ledger_store.writing(self.path) as connection:
            state = replay(self.path, connection)
            _require_dataset(self.path, state, self.dataset)
            _require_key(self.path, state, key)
            after = state.last
            entry = sign_entry(
                kind, body(state), after=after, actor=actor, dataset=self.dataset, unit=after.unit, key=key
            )
            try:
                state.apply(entry)  # what we write is what our own verification admits
            except ValueError as error:
                raise LedgerError(f"{self.path}: {error}. Nothing was recorded.") from None
            ledger_store.append(connection, entry, sign_head(entry, key))
        return entry


class Reservation:
    """A release under way: reserved, planned, committed. It also tells the private table which reads are paid for.

    Attributes:
        release: Random id.
        epsilon, delta: The most that the whole release may cost.
        rehearsal: Whether the noise is repeatable.
        events: What is planned and so paid for, so far.
    """

    def __init__(self, ledger: Ledger, release: str, *, actor: str, key: SigningKey) -> None:
        """Made by `Ledger.reserve`."""
        self.ledger, self.release = ledger, release
        self._actor, self._key = actor, key
        booked = self._booked(ledger._state())
        self.epsilon, self.delta, self.rehearsal = booked.epsilon, booked.delta, booked.rehearsal
        self.events: tuple[Event, ...] = booked.events

    def plan(self, events: Sequence[Event]) -> Entry:
        """Record the later rounds' events, once, before they are read.

        Raises:
            BudgetError: All events together cost more than was reserved; nothing was recorded.
            ConfigError: An event is of round 0, or two share a name.
            LedgerError: The release was planned or abandoned already, or the ledger cannot be written.
        """
        _checked_rounds(events, first=False)
        later = tuple(events)
        cost = _affordable(self.events + later, self.epsilon, self.delta)

        def body(state: State) -> Body:
            return _body(PlanBody, state, self._moved(lambda: planned(self._booked(state), later, cost)), events=later)

        entry = self.ledger._append("plan", body, actor=self._actor, key=self._key)
        self.events += later
        return entry

    def commit(self, bundle_digest: str) -> Entry:
        """Record that the release was made; `bundle_digest` is the SHA-256 (hex) of the bundle. Raises LedgerError."""

        def body(state: State) -> Body:
            return _body(
                CommitBody,
                state,
                self._moved(lambda: committed(self._booked(state), bundle_digest)),
                bundle=bundle_digest,
            )

        return self.ledger._append("commit", body, actor=self._actor, key=self._key)

    def abandon(self, reason: str) -> Entry:
        """End the release before it is planned, so that only round 0 is charged. Raises LedgerError after `plan`."""

        def body(state: State) -> Body:
            return _body(AbandonBody, state, self._moved(lambda: abandoned(self._booked(state))), reason=reason)

        return self.ledger._append("abandon", body, actor=self._actor, key=self._key)

    def proof(self) -> list[dict[str, Any]]:
        """The entries that a bundle carries: the opening, the grants, and this release's reservation and plan."""
        mine = {"reserve", "plan"}
        return [
            entry.model_dump(mode="json")
            for entry in self.ledger.entries()
            if entry.kind in ("open", "grant") or (entry.kind in mine and entry.body["release"] == self.release)
        ]

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


def create_ledger(path: Path, *, dataset: str, unit: str, key: SigningKey) -> Ledger:
    """Make a new ledger whose first entry names the data set, the unit and the key. It grants nothing yet.

    Args:
        path: Where; must not exist.
        dataset: Random id of the data set; says nothing about it.
        unit: Whose privacy is counted, for instance `row`.
        key: Signs this and every later entry.

    Raises:
        LedgerError: The file exists or cannot be written; nothing is left behind.
        ConfigError: `dataset` or `unit` is not one line of text.
    """
    if path.exists():
        raise LedgerError(f"{path} already exists and is kept: a ledger is never overwritten. Name another file.")
    first = sign_entry("open", opening(), after=None, actor="distill", dataset=dataset, unit=unit, key=key)
    ledger_store.create(path, first, sign_head(first, key))
    return Ledger(path, dataset=dataset, unit=unit)


def open_ledger(path: Path, *, dataset: str | None = None) -> Ledger:
    """Open an existing ledger and check its chain (not yet its epsilons: `Ledger.verify` does).

    Raises:
        LedgerError: The file is missing, not a ledger, from a newer version or of another data set than `dataset`.
        LedgerTamperedError: The chain does not verify.
    """
    _require_file(path)
    with ledger_store.reading(path) as connection:
        state = replay(path, connection)
    if dataset is not None:
        _require_dataset(path, state, dataset)
    return Ledger(path, dataset=state.first.dataset, unit=state.first.unit)


def _require_file(path: Path) -> None:
    """Raise LedgerError unless there is a file at `path`."""
    if path.is_dir():
        raise LedgerError(f"{path} is a directory; name the ledger's file.")
    if not path.exists():
        raise LedgerError(f"no ledger at {path}. `distill init` makes one.")
    if not path.is_file():
        raise LedgerError(f"{path} is not a file; name the ledger's file.")


def _body(kind: type[Body], state: State, release: Release, **fields: Any) -> Body:
    """The body of an entry that brings `release` onto the books."""
    epsilon_total, delta_total = state.spent_with(release)
    totals = {"epsilon_total": epsilon_total, "delta_total": delta_total}
    made: Body = make_body(kind, release=release.release, epsilon_release=release.epsilon_release, **totals, **fields)
    return made


def _require_fits(state: State, epsilon: float, delta: float) -> None:
    """Raise BudgetError, with the mend, unless a further (epsilon, delta) fits the grant."""
    if not state.granted_epsilon:
        raise BudgetError(
            "nothing has been granted for this data set yet. The privacy officer grants a budget: "
            f"`distill ledger grant --epsilon {epsilon:g} --delta {delta:g} --reason TEXT`."
        )
    spent_epsilon, spent_delta = state.spent()
    asked = {
        "epsilon": (epsilon, spent_epsilon, state.granted_epsilon),
        "delta": (delta, spent_delta, state.granted_delta),
    }
    for (name, (wanted, spent, granted)), fits in zip(asked.items(), state.fits(epsilon, delta), strict=True):
        if not fits:
            standing = sum(r.stands and not r.rehearsal for r in state.releases.values())
            unfinished = f" ({standing} unfinished release(s) included; see `distill ledger show`)" if standing else ""
            left = left_of(granted, spent)
            mend = f"Ask for at most {name} {left:.6g}, or" if left > 0 else "Nothing is left:"
            raise BudgetError(
                f"the release asks for {name} {wanted:.6g}, but of the granted {granted:.6g}, {spent:.6g} is spent"
                f"{unfinished} and {left:.6g} is left. {mend} have the grant raised to {spent + wanted:.6g} in all "
                "with `distill ledger grant`."
            )


def _checked_rounds(events: Sequence[Event], *, first: bool) -> None:
    """Raise ConfigError unless there are events and they are of the right rounds."""
    if not events:
        raise ConfigError("a release needs at least one event" + (" of round 0." if first else " after round 0."))
    try:
        check_rounds(events, first=first)
    except ValueError as error:
        raise ConfigError(f"the events do not fit: {error}.") from None


def _affordable(events: Sequence[Event], epsilon: float, delta: float) -> float:
    """What `events` cost at `delta`; raises BudgetError if that is more than `epsilon`."""
    cost = epsilon_of(events, delta)
    if not within(cost, epsilon):
        raise BudgetError(
            f"the planned events cost epsilon {cost:.6g} at delta {delta:g}, more than the reserved {epsilon:.6g}. "
            "Plan more noise, fewer steps or a lower sampling rate; nothing was recorded."
        )
    return cost


def _require_key(path: Path, state: State, key: SigningKey) -> None:
    """Only the key that opened a ledger may add to it."""
    if state.first.public_key != key.public_hex:
        raise KeyFileError(
            f"the ledger {path} was opened with key {state.first.public_key[:16]}..., and the given key is "
            f"{key.public_hex[:16]}...; use the key that opened it."
        )


def _require_dataset(path: Path, state: State, dataset: str) -> None:
    if state.first.dataset != dataset:
        raise LedgerError(
            f"the ledger {path} belongs to data set {state.first.dataset}, not {dataset}. "
            "Each data set has a ledger of its own; name the right one (`ledger` in distill.toml)."
        )
