"""What the hub remembers of each data set's ledger, and the checks that a further bundle must pass.

A bundle carries one hash an entry of its institution's ledger. The ledger only grows, so of two bundles of one data set the
shorter list is the beginning of the longer one. If it is not, the ledger was rolled back, copied and used twice, or made
anew, and what was spent on one side is missing on the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from distill.common.checks import within
from distill.errors import LedgerConflictError, LedgerForkError
from distill.exchange.bundle import Bundle

HASH_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class SeenRelease:
    """One release, as the first bundle of it showed it.

    Attributes:
        sequence: Of its reservation in the ledger.
        epsilon, delta: Reserved for it.
        epsilon_total: Spent by all releases up to this one, as the ledger states it.
        adds_up: Whether `epsilon_total` is a sum of epsilons (the ledger's filter is basic).
        rehearsal: Not private, and charged nothing.
        origin: SHA-256 of the bundle that the institution's ledger committed.
        digest: SHA-256 of the bundle that was seen; another one where that was shrunk.
        file: Its name at the hub.
        institution, public_key: Whose name and key it carries.
        seen: UTC, ISO.
    """

    dataset: str
    release: str
    sequence: int
    epsilon: float
    delta: float
    epsilon_total: float
    adds_up: bool
    rehearsal: bool
    origin: str
    digest: str
    file: str
    institution: str
    public_key: str
    seen: str


@dataclass(frozen=True, kw_only=True)
class SeenLedger:
    """One data set's ledger, as far as its bundles showed it.

    Attributes:
        hashes: Of the longest chain, `HASH_BYTES` an entry, from the first on.
        shown_by: The release whose bundle showed that chain.
        releases: In the order of their reservations.
    """

    dataset: str
    hashes: bytes
    shown_by: str
    releases: tuple[SeenRelease, ...]

    @property
    def entries(self) -> int:
        """Entries that were seen."""
        return len(self.hashes) // HASH_BYTES

    @property
    def head(self) -> str:
        """Hash of the newest entry that was seen."""
        return self.hashes[-HASH_BYTES:].hex()

    def release(self, name: str) -> SeenRelease | None:
        """The release of this id, if it was seen."""
        return next((r for r in self.releases if r.release == name), None)


def after(known: SeenLedger | None, bundle: Bundle, now: str) -> SeenLedger:
    """What is known once `bundle` was seen.

    Args:
        known: Of its data set.
        bundle: Verified.
        now: UTC, ISO.

    Raises:
        LedgerForkError: Its ledger and the known one part ways.
        LedgerConflictError: A release has two bundles, or totals leave releases out.
    """
    mine, hashes = _seen(bundle, now), b"".join(bytes.fromhex(h) for h in bundle.proven.hashes)
    if known is None:
        return SeenLedger(dataset=mine.dataset, hashes=hashes, shown_by=mine.release, releases=(mine,))
    _require_one_chain(known, mine, hashes)
    before = known.release(mine.release)
    if before is None:
        releases = tuple(sorted((*known.releases, mine), key=lambda r: r.sequence))
        known = replace(known, releases=releases)
    elif (before.origin, before.sequence) != (mine.origin, mine.sequence):
        raise LedgerConflictError(
            f"{_named(mine)} and {_named(before)} are two different bundles of one release ({mine.release[:8]}), and neither "
            "was shrunk from the other. A release is paid for once and gives one answer. Use neither, and ask the "
            "institution how the second one came about."
        )
    _require_full_totals(known, mine)
    return replace(known, hashes=hashes, shown_by=mine.release) if len(hashes) > len(known.hashes) else known


def after_all(known: Iterable[SeenLedger], bundles: Sequence[Bundle], now: str) -> tuple[SeenLedger, ...]:
    """What is known once all of `bundles` were seen; only their data sets. Raises as `after`."""
    books = {ledger.dataset: ledger for ledger in known}
    for bundle in bundles:
        dataset = bundle.manifest.dataset
        books[dataset] = after(books.get(dataset), bundle, now)
    return tuple(books[dataset] for dataset in sorted({b.manifest.dataset for b in bundles}))


def _seen(bundle: Bundle, now: str) -> SeenRelease:
    proven, manifest = bundle.proven, bundle.manifest
    return SeenRelease(
        dataset=manifest.dataset,
        release=proven.release,
        sequence=proven.sequence,
        epsilon=proven.epsilon,
        delta=proven.delta,
        epsilon_total=proven.epsilon_total,
        adds_up=proven.grant.order is None,
        rehearsal=proven.rehearsal,
        origin=manifest.derived_from or bundle.digest,
        digest=bundle.digest,
        file=bundle.path.name,
        institution=manifest.institution,
        public_key=manifest.public_key,
        seen=now,
    )


def _require_one_chain(known: SeenLedger, mine: SeenRelease, hashes: bytes) -> None:
    """Of the chains, one is the beginning of the other."""
    shared = min(len(hashes), len(known.hashes))
    if hashes[:shared] == known.hashes[:shared]:
        return
    entry = next(
        i for i in range(0, shared, HASH_BYTES) if hashes[i : i + HASH_BYTES] != known.hashes[i : i + HASH_BYTES]
    )
    other = next(r for r in known.releases if r.release == known.shown_by)
    if entry:
        raise LedgerForkError(
            f"{_named(mine)} and {_named(other)} are of one data set ({mine.dataset}), and their ledgers agree up to entry "
            f"{entry // HASH_BYTES} and part after it. A ledger only grows: this one was rolled back to an older copy, or copied "
            "and used on two machines, so budget may have been spent twice. Do not pool them. The institution's officer has "
            "to say what was spent in all, and goes on with a new data set (`distill init`) and a grant of what is left."
        )
    raise LedgerForkError(
        f"{_named(mine)} and {_named(other)} name one data set ({mine.dataset}), and their ledgers differ from the first entry on "
        f"(signed with keys {mine.public_key[:16]}... and {other.public_key[:16]}...). Either the ledger was made anew, and what the "
        "first one spent is forgotten, or somebody uses the data set's id who is not its institution. Do not pool them; "
        "ask both which ledger is the right one."
    )


def _require_full_totals(known: SeenLedger, mine: SeenRelease) -> None:
    """Each release's total covers all releases reserved up to it; with basic composition only, where totals are sums."""
    spent = 0.0
    for release in (r for r in known.releases if r.adds_up and not r.rehearsal):
        spent += release.epsilon
        if not within(spent, release.epsilon_total):
            raise LedgerConflictError(
                f"{_named(mine)}: by {_named(release)} the ledger of data set {known.dataset} had spent epsilon "
                f"{release.epsilon_total:.6g} in all, and the bundles seen so far spent {spent:.6g} up to there. Its totals leave "
                "releases out. Do not pool its bundles; have the institution's officer verify the ledger (`distill ledger verify`)."
            )


def _named(release: SeenRelease) -> str:
    return f"{release.file} of {release.institution!r} (seen {release.seen[:10]}, SHA-256 {release.digest[:8]}...)"
