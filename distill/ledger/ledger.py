"""The ledger on disk: granting, reserving, and every change of who may sign.

Each call opens the file, replays all entries and closes it again, so any number of processes may use one ledger. What is
written is first admitted by the same rules that an auditor applies.
"""

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from distill.common.keys import SigningKey, signing_key_of
from distill.common.metadata import acting_user
from distill.errors import ConfigError, LedgerError
from distill.ledger.entries import store
from distill.ledger.entries.bodies import (
    REHEARSAL,
    Body,
    EnrolBody,
    Filter,
    GrantBody,
    Kind,
    LinkBody,
    Member,
    ReserveBody,
    ResolveBody,
    RetireBody,
    Role,
    RotateBody,
    make_body,
    opening,
)
from distill.ledger.entries.entry import Entry, require_public_hex, sign_entry, sign_head
from distill.ledger.preconditions import (
    filter_order,
    require_dataset,
    require_file,
    require_fits,
    require_role,
    standing_release,
)
from distill.ledger.reservation import Reservation, affordable, charge_body, checked_rounds
from distill.ledger.rules.members import cross_sign
from distill.ledger.rules.release import Release
from distill.ledger.rules.state import State
from distill.ledger.verification import (
    LedgerSummary,
    Progress,
    Verification,
    checks_made,
    recompute,
    replay,
    summarise,
    tampered,
)
from distill.privacy.budget import require_budget
from distill.privacy.events import Event, RenyiLimit, gaussian_renyi, renyi_of


class Ledger:
    """A ledger on disk. Holds no connection and no cache: each call reads what is there now.

    Every method that adds an entry raises KeyFileError if `key` may not sign it or is a file that cannot be read,
    ConfigError if a text is not one printable line, LedgerError or LedgerTamperedError if the ledger cannot be read or
    written; it is then as it was.

    Attributes:
        path: The file.
        dataset: Random id of the data set.
        unit: Whose privacy is counted.
    """

    def __init__(self, path: Path, *, dataset: str, unit: str) -> None:
        """Use `create_ledger` or `open_ledger`, which check the file."""
        self.path, self.dataset, self.unit = path, dataset, unit

    def grant(
        self,
        *,
        epsilon: float,
        delta: float,
        reason: str,
        key: SigningKey | Path | str,
        actor: str | None = None,
        filter: Filter | None = None,
        order: float | None = None,
    ) -> Entry:
        """Set what all releases together may spend, replacing the grant before; below what is spent it stops releases.

        Args:
            epsilon, delta: The budget.
            reason: Who allowed it and why, in one line.
            key: An officer's signing key, or its file.
            actor: Name of who grants; None: the user who runs this.
            filter: How releases are added up (see `budget`); None: as before, at first `basic`. Fixed by the first release.
            order: Of a Renyi filter; None: as before, at first the order at which most releases fit.

        Raises:
            ConfigError: epsilon, delta or the order is out of range, or the filter cannot change any more.
        """
        require_budget(epsilon, delta, laplace=True)

        def body(state: State) -> Body:
            wanted = filter or ("basic" if state.grant.order is None else "renyi")
            at = filter_order(state, wanted, order, epsilon, delta)
            return make_body(GrantBody, epsilon=epsilon, delta=delta, reason=reason, filter=wanted, order=at)

        return self.append("grant", body, actor=actor, key=key)

    def enrol(self, member: Member, *, reason: str, key: SigningKey | Path | str, actor: str | None = None) -> Entry:
        """Add an officer or operator, by an officer's word."""
        return self.append("enrol", lambda _: make_body(EnrolBody, member=member, reason=reason), actor=actor, key=key)

    def retire(
        self, role: Role, public_key: str, *, reason: str, key: SigningKey | Path | str, actor: str | None = None
    ) -> Entry:
        """Take a role from a key, by an officer's word; what it signed stays. The last officer cannot be retired."""
        body = make_body(RetireBody, role=role, public_key=public_key, reason=reason)
        return self.append("retire", lambda _: body, actor=actor, key=key)

    def rotate(self, new: SigningKey, *, reason: str, key: SigningKey | Path | str, actor: str | None = None) -> Entry:
        """Replace `key` by `new` in all its roles; both sign the handover."""
        key = signing_key_of(key)
        signature = cross_sign(new, dataset=self.dataset, old_key=key.public_hex)
        body = make_body(RotateBody, new_key=new.public_hex, cross_signature=signature, reason=reason)
        return self.append("rotate", lambda _: body, actor=actor, key=key)

    def link(
        self, dataset: str, *, name: str, reason: str, key: SigningKey | Path | str, actor: str | None = None
    ) -> Entry:
        """Declare, by an officer's word, that another data set holds some of the same units: budgets add up for them."""
        body = make_body(LinkBody, dataset=dataset, name=name, reason=reason)
        return self.append("link", lambda _: body, actor=actor, key=key)

    def resolve(self, release: str, *, reason: str, key: SigningKey | Path | str, actor: str | None = None) -> Entry:
        """Close a release that will not finish, by an officer's word.

        If its plan was recorded, rows may have been read, and it stays spent in full. If not, nothing but the row count
        can have been read, since the plan is recorded before anything else is; then only that is spent. A process
        that is still at work on it is refused its next step.

        Args:
            release: Its id, or as much of the beginning as no other standing release shares.

        Raises:
            LedgerError: No such release stands, or several do.
        """

        def body(state: State) -> Body:
            standing = standing_release(self.path, state, release)
            return charge_body(ResolveBody, state, standing.resolved(), reason=reason)

        return self.append("resolve", body, actor=actor, key=key)

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
    ) -> Reservation:
        """Set aside a whole release's budget before its first read.

        Args:
            epsilon, delta: The most that all of the release may cost.
            purpose: One line for the reader of the ledger.
            actor: Who releases.
            events: Round 0 only: what is read before the rest is planned.
            key: Of an operator.
            rehearsal: Noise is repeatable, so nothing private comes of it: must fit the grant, is charged nothing.

        Raises:
            BudgetError: It would exceed the grant; nothing was recorded.
        """
        require_budget(epsilon, delta, laplace=True)
        checked_rounds(events, first=True)
        release = uuid.uuid4().hex

        def body(state: State) -> Body:
            order = state.grant.order
            limit = None if order is None else RenyiLimit(order, gaussian_renyi(epsilon, delta, order))
            cost = affordable(events, epsilon, delta, limit)
            renyi = None if limit is None else limit.most
            require_fits(state, epsilon, delta, renyi or 0.0)
            new = Release(
                release=release,
                purpose=purpose,
                actor=actor,
                time="",
                rehearsal=rehearsal,
                epsilon=float(epsilon),
                delta=float(delta),
                renyi=renyi,
                events=tuple(events),
                epsilon_release=cost,
                renyi_release=None if order is None else renyi_of(events, order),
            )
            return charge_body(
                ReserveBody,
                state,
                new,
                purpose=purpose,
                rehearsal=rehearsal,
                warning=REHEARSAL if rehearsal else "",
                epsilon=new.epsilon,
                delta=new.delta,
                renyi=renyi,
                events=new.events,
            )

        self.append("reserve", body, actor=actor, key=key)
        return Reservation(self, release, actor=actor, key=key)

    def entries(self) -> list[Entry]:
        """All entries in order, their chain and signatures checked. Raises LedgerError, LedgerTamperedError."""
        return list(self.state().entries)

    def head(self) -> str:
        """Hash of the newest entry. Raises LedgerError, LedgerTamperedError."""
        return self.state().last.hash

    def knows(self, head: str) -> bool:
        """Whether some entry has this hash; if not, a bundle that carries it comes from a lost or forked future."""
        return any(entry.hash == head for entry in self.state().entries)

    def summary(self) -> LedgerSummary:
        """The books as they stand. Raises LedgerError, LedgerTamperedError."""
        return summarise(self.state())

    def verify(self, *trusted: str, progress: Progress | None = None) -> Verification:
        """Check the file, the chain, every signature, every rule of the books, and recompute every epsilon.

        Args:
            trusted: Public keys (hex) from outside. Each must be, or have been, a member's, and one must have signed: its
                newest entry vouches for all before it. Without any, the ledger's own first entry says who may sign.
            progress: Called with (releases recomputed, releases).

        Raises:
            LedgerTamperedError: Naming the entry and the problem.
            LedgerError: The ledger cannot be read.
        """
        for public_hex in trusted:
            require_public_hex(public_hex)
        state = self.state(pages=True)
        vouched = max((e.sequence for e in state.entries if e.public_key in trusted), default=0)
        if trusted and not vouched:
            raise tampered(
                self.path,
                f"entry 1 (open): it is signed by key {state.first.public_key}, and {' or '.join(trusted)} was expected",
            )
        for missing in (key for key in trusted if not state.members.knew(key)):
            raise tampered(self.path, f"key {missing} was expected among its officers and operators, and never was one")
        signers = {e.public_key for e in state.entries}
        return Verification(
            path=self.path,
            public_key=state.first.public_key,
            vouched=vouched,
            strangers=tuple(m for m in state.members.all if m.public_key in signers - set(trusted)),
            summary=summarise(state),
            releases=recompute(self.path, state, progress),
            entries=tuple(state.entries),
            checks=checks_made(state, vouched=vouched),
        )

    def state(self, *, pages: bool = False) -> State:
        """The books, from the file, checked. Raises LedgerError, LedgerTamperedError.

        Args:
            pages: Also run SQLite's check of the file's structure.
        """
        require_file(self.path)
        with store.reading(self.path) as connection:
            state = replay(self.path, connection, pages=pages)
        require_dataset(self.path, state, self.dataset)
        return state

    def append(
        self,
        kind: Kind,
        body: Callable[[State], Body],
        *,
        key: SigningKey | Path | str,
        actor: str | None = None,
        day: str | None = None,
    ) -> Entry:
        """Add one entry whose body follows from the books as they are under the write lock; a refusal adds nothing.

        Args:
            kind, body: What is written.
            key: Signs it; a signing key, or its file.
            actor: Name of who acts; None: the user who runs this.
            day: When; None: today.
        """
        key = signing_key_of(key)
        actor = acting_user() if actor is None else actor
        require_file(self.path)
        with store.writing(self.path) as connection:
            state = replay(self.path, connection)
            require_dataset(self.path, state, self.dataset)
            require_role(self.path, state, kind, key)
            after = state.last
            entry = sign_entry(
                kind, body(state), after=after, actor=actor, dataset=self.dataset, unit=after.unit, key=key, day=day
            )
            seal = sign_head(entry, key)
            try:
                state.apply(entry)  # what we write is what our own verification admits
            except ValueError as error:
                raise LedgerError(f"{self.path}: {error}. Nothing was recorded.") from None
            store.append(connection, entry, seal)
        return entry


def create_ledger(path: Path, *, dataset: str, unit: str, key: SigningKey, members: Sequence[Member] = ()) -> Ledger:
    """Make a new ledger whose first entry names the data set, the unit and the members. It grants nothing yet.

    Args:
        path: Where; must not exist.
        dataset: Random id of the data set; says nothing about it.
        unit: Whose privacy is counted, for instance `row`.
        key: Signs this entry.
        members: The first officers and operators; the owner of `key` is one. None: that owner is both.

    Raises:
        LedgerError: The file exists or cannot be written; nothing is left behind.
        ConfigError: `dataset` or `unit` is not one line of text, or the members lack an officer or the owner of `key`.
    """
    if path.exists():
        raise LedgerError(f"{path} already exists and is kept: a ledger is never overwritten. Name another file.")
    both = [Member(role=role, name=role, public_key=key.public_hex) for role in ("officer", "operator")]
    body = opening(*(members or both))
    first = sign_entry("open", body, after=None, actor="distill", dataset=dataset, unit=unit, key=key)
    try:
        State().apply(first)
    except ValueError as error:
        raise ConfigError(f"the ledger cannot be opened like this: {error}.") from None
    store.create(path, first, sign_head(first, key))
    return Ledger(path, dataset=dataset, unit=unit)


def open_ledger(path: Path, *, dataset: str | None = None) -> Ledger:
    """Open an existing ledger and check its chain (not yet its epsilons: `Ledger.verify` does).

    Raises:
        LedgerError: The file is missing, not a ledger, from a newer version or of another data set than `dataset`.
        LedgerTamperedError: The chain does not verify.
    """
    require_file(path)
    with store.reading(path) as connection:
        state = replay(path, connection)
    if dataset is not None:
        require_dataset(path, state, dataset)
    return Ledger(path, dataset=state.first.dataset, unit=state.first.unit)
