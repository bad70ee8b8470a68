"""What a chain of ledger entries adds up to, and the rules by which the next entry may follow.

Writing and verifying share this one set of rules: the ledger applies them to an entry before it is written, the auditor
to every entry that was. A broken rule raises ValueError with the problem in a few words; the caller adds the place.
"""

from distill.common.checks import require, within
from distill.ledger.entries.bodies import (
    AbandonBody,
    CommitBody,
    GrantBody,
    LinkBody,
    PlanBody,
    ReleaseStep,
    ReserveBody,
    ResolveBody,
)
from distill.ledger.entries.entry import NO_HASH, Entry
from distill.ledger.rules.filters import Charge, Grant, Sum
from distill.ledger.rules.members import Members
from distill.ledger.rules.release import Release, begun


class State:
    """The ledger's books after some entries; `apply` admits the next one or raises ValueError.

    Attributes:
        entries: In order.
        members: Who may sign what.
        grant: The budget in force.
        releases: By their id, in the order of their reservations.
        links: Declared data sets that share units with this one, by id.
    """

    def __init__(self) -> None:
        """The books before the first entry."""
        self.entries: list[Entry] = []
        self.members = Members()
        self.grant = Grant()
        self.releases: dict[str, Release] = {}
        self.links: dict[str, LinkBody] = {}
        self._sum = Sum()

    @property
    def first(self) -> Entry:
        """The opening entry: it names the data set, the unit and the first members."""
        return self.entries[0]

    @property
    def last(self) -> Entry:
        """The newest entry, the head of the chain."""
        return self.entries[-1]

    @property
    def total(self) -> Charge:
        """What all releases add up to."""
        return self._sum.total

    def spent(self) -> tuple[float, float]:
        """(epsilon, delta) charged by all releases, as the grant counts them."""
        return self.grant.spent(self.total)

    def total_with(self, release: Release) -> Charge:
        """What `total` will be once `release` (new, or in a new status) is on the books."""
        return self._sum.with_(release.charged, instead_of=self._charged_before(release)).total

    def exceeded_by(self, asked: Charge) -> str | None:
        """What of the grant a further release would exceed: `epsilon`, `delta`, or None."""
        return self.grant.exceeded(self._sum.with_(asked).total)

    def apply(self, entry: Entry) -> None:
        """Admit `entry` as the next one. Raises ValueError if a rule is broken; the books are of no use after that."""
        self._check_link(entry)
        self.members.check(entry)
        self.members.apply(entry)
        match entry.details:
            case GrantBody() as body:
                self._regrant(body)
            case LinkBody() as body:
                require(body.dataset != entry.dataset, "a data set cannot share units with itself")
                self.links[body.dataset] = body
            case ReserveBody() as body:
                require(body.release not in self.releases, "the release was reserved before")
                require((body.renyi is None) == (self.grant.order is None), "it is not counted as the grant says")
                what = self.exceeded_by(Charge(body.epsilon, body.delta, body.renyi or 0.0))
                require(what is None, f"the granted {what} was exceeded")
                self._book(begun(entry, body), body)
            case PlanBody() | CommitBody() | AbandonBody() | ResolveBody() as body:
                self._book(self._advanced(body), body)
        self.entries.append(entry)

    def _regrant(self, body: GrantBody) -> None:
        """Replace the grant; how releases are added up is fixed before the first of them."""
        require((body.order is None) == (body.filter == "basic"), "a Renyi filter, and only that, has an order")
        kept = not self.releases or body.order == self.grant.order
        require(kept, "how releases are added up cannot change after the first of them")
        self.grant = Grant(epsilon=body.epsilon, delta=body.delta, order=body.order)
        _ = self.grant.renyi  # raises if nothing at this order converts to so small a budget

    def _advanced(self, body: ReleaseStep) -> Release:
        """The release after a step of it."""
        release = self.releases.get(body.release)
        if release is None:
            raise ValueError("the release was never reserved")
        match body:
            case PlanBody():
                return release.planned(body.events, body.epsilon_release, body.renyi_release)
            case CommitBody():
                return release.committed(body.bundle)
            case AbandonBody():
                return release.abandoned()
            case ResolveBody():
                return release.resolved()

    def _book(self, release: Release, body: ReserveBody | ReleaseStep) -> None:
        """Record `release` if the entry's own arithmetic agrees."""
        stated = (body.epsilon_release, body.renyi_release)
        require(stated == (release.epsilon_release, release.renyi_release), "its cost is not that of its events")
        fits = within(release.epsilon_release, release.epsilon)
        if release.renyi is not None:
            require(release.renyi_release is not None, "its cost as Renyi DP is missing")
            fits = fits and within(release.renyi_release or 0.0, release.renyi)
        require(fits, "its events cost more than the release reserved")
        totals = self.grant.spent(self.total_with(release))
        require(_alike(totals, (body.epsilon_total, body.delta_total)), "its running totals do not add up")
        self._sum.add(release.charged, instead_of=self._charged_before(release))
        self.releases[release.release] = release

    def _charged_before(self, release: Release) -> Charge | None:
        before = self.releases.get(release.release)
        return before.charged if before is not None else None

    def _check_link(self, entry: Entry) -> None:
        """The entry continues this chain: number, previous hash, data set, unit."""
        require(entry.sequence == len(self.entries) + 1, f"sequence {len(self.entries) + 1} was expected")
        if not self.entries:
            require(entry.kind == "open", "the first entry must open the ledger")
            require(entry.previous == NO_HASH, "the first entry must not follow another")
            return
        require(entry.kind != "open", "only the first entry opens a ledger")
        require(entry.previous == self.last.hash, "it does not follow the entry before it (previous hash differs)")
        for field in ("dataset", "unit"):
            same = getattr(entry, field) == getattr(self.first, field)
            require(same, f"its {field} is not the one that opened the ledger")


def _alike(one: tuple[float, float], two: tuple[float, float]) -> bool:
    """Equal up to the last bits, in which a logarithm may differ between machines."""
    return all(within(a, b) and within(b, a) for a, b in zip(one, two, strict=True))
