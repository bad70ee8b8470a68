"""The hub's front desk: finds bundles, verifies each one, and lets in what may be pooled together.

Nothing is taken on trust: `distill.exchange.bundle.read_bundle` checks signature, digests, ledger proof and contents; here unknown
signers (`hub_trust`) and rehearsals are turned away, and the bundles are compared with each other and with all that the
hub has seen (`hub_heads`). What passed everything is remembered. What was left out or could not be checked is said in the
notes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from distill.common.metadata import now
from distill.data.schema import Column, Schema
from distill.errors import BundleError, BundleMismatchError, RehearsalBundleError
from distill.exchange import generator_codec as generators
from distill.exchange.bundle import Bundle, Manifest, read_bundle
from distill.exchange.levels import LEVELS
from distill.exchange.prior import PriorUse, prior_use
from server_train.intake.admission import Admission
from server_train.intake.ledger_heads import after_all
from server_train.intake.store import HubStore
from server_train.intake.trust import Signers
from server_train.pooling.institutions.generators import Generator, guarded
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.institutions.site import Site, site_of
from server_train.pooling.weighing.self_consistency import fault_of

SUFFIX = ".distill"


@dataclass(frozen=True)
class Received:
    """One verified bundle.

    Attributes:
        name: The institution's name, made unique among the bundles.
        bundle: The contents.
        generator: Draws rows and holds the class head.
        voucher: The trusted key (hex) that speaks for its signer; None: nobody does.
        prior: The global prior that it was fitted with, as it says; None: with none.
        site: The statistics that joint components are fitted to; None: no pairs travelled.
    """

    name: str
    bundle: Bundle
    generator: Generator
    voucher: str | None
    prior: PriorUse | None = None
    site: Site | None = None

    @property
    def manifest(self) -> Manifest:
        """What was released, by whom, at what cost."""
        return self.bundle.manifest

    @cached_property
    def institution(self) -> Institution:
        """The institution as a pool takes it, judged by whether its statistics bear each other out. Raises BundleError."""
        fault = guarded(self.name, "its statistics", lambda: fault_of(self.bundle, self.generator))
        return Institution(name=self.name, generator=self.generator, site=self.site, fault=fault)


@dataclass(frozen=True)
class Intake:
    """All bundles that are pooled, in an order that does not depend on how they were named, and words on the rest."""

    received: tuple[Received, ...]
    notes: tuple[str, ...]

    @property
    def schema(self) -> Schema:
        """The schema that all of them share."""
        return self.received[0].bundle.schema

    @property
    def institutions(self) -> tuple[Institution, ...]:
        """All institutions as a pool takes them. Raises BundleError."""
        return tuple(r.institution for r in self.received)


def find_bundles(places: Sequence[Path]) -> list[Path]:
    """The bundles that `places` name: files as they are, folders for the `*.distill` files in them.

    Raises:
        BundleError: a place does not exist, a folder holds no bundle, or no place is given.
    """
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            inside = sorted(p for p in place.glob(f"*{SUFFIX}") if p.is_file() and not p.name.startswith("."))
            if not inside:
                raise BundleError(
                    f"no bundle (*{SUFFIX}) in the folder {place}. Name the bundles, or the folder they are in."
                )
            found.update(dict.fromkeys(p.resolve() for p in inside))
        elif place.exists():
            found[place.resolve()] = None
        else:
            raise BundleError(f"no bundle at {place}. Check the path.")
    if not found:
        raise BundleError("no bundle given. Name bundle files, or folders that hold them.")
    return list(found)


def receive(
    paths: Sequence[Path], admission: Admission, *, progress: Callable[[int, int], None] | None = None
) -> Intake:
    """Read and verify bundles, compare them with each other and with what the hub has seen, and remember them.

    Args:
        paths: Bundle files.
        admission: Whose bundles are taken, and whether they are remembered.
        progress: Called with (bundles verified, bundles).

    Raises:
        BundleError: a bundle cannot be read or its generator does not work.
        BundleTamperedError: a bundle does not verify.
        BundleVersionError: a bundle is from a newer version.
        BundleMismatchError: two bundles describe different schemas.
        RehearsalBundleError: a bundle is a rehearsal, and those were not allowed.
        UntrustedSignerError: nobody vouched for a signer, and that was not allowed.
        LedgerConflictError, LedgerForkError: a bundle contradicts another one, or what the hub has seen.
        HubFileError: the hub's memory cannot be read or written.
    """
    hub = admission.hub
    signers = Signers(hub.all_keys() if hub else (), admission.trusted, hub.path if hub else None)
    bundles = []
    for done, path in enumerate(paths):
        bundles.append(_verified(path, signers, admission))
        if progress:
            progress(done + 1, len(paths))
    _require_no_conflict(hub, bundles)
    kept, notes = _one_a_data_set(bundles)
    _require_one_schema(kept)
    names = _unique([b.manifest.institution for b in kept])
    received = [_received(name, b, signers) for name, b in zip(names, kept, strict=True)]
    notes += _unknown(bundles, signers)
    if hub is not None and admission.remember:
        notes += _remembered(hub, bundles, signers)
    return Intake(tuple(received), tuple(notes))


def _received(name: str, bundle: Bundle, signers: Signers) -> Received:
    generator = guarded(name, "reading its generator", lambda: generators.generator_of(bundle))
    prior = guarded(name, "reading which global prior it used", lambda: prior_use(bundle.manifest.generator))
    site = guarded(name, "reading its statistics", lambda: site_of(bundle, generator))
    return Received(name, bundle, generator, signers.voucher(bundle), prior, site)


def _verified(path: Path, signers: Signers, admission: Admission) -> Bundle:
    """One bundle after all checks that need no other bundle."""
    bundle = read_bundle(path)
    if signers.voucher(bundle) is None and not admission.allow_unknown_signers:
        raise signers.refusal(bundle)
    if bundle.manifest.rehearsal and not admission.allow_rehearsal:
        raise RehearsalBundleError(
            f"{path}: this bundle of {bundle.manifest.institution!r} is a REHEARSAL and NOT PRIVATE. "
            "Ask for a real release; --allow-rehearsal trains on it nevertheless, for a model that stays in the house."
        )
    return bundle


def _require_no_conflict(hub: HubStore | None, bundles: Sequence[Bundle]) -> None:
    """The bundles' ledgers agree with each other and with what the hub has seen. Raises LedgerConflictError."""
    after_all(hub.ledgers() if hub is not None else (), bundles, now())


def _unknown(bundles: Sequence[Bundle], signers: Signers) -> list[str]:
    """A word on bundles that nobody vouched for."""
    names = [b.path.name for b in bundles if signers.voucher(b) is None]
    if not names:
        return []
    return [
        f"Nobody vouched for who signed {', '.join(names)}: the signature was checked against the key in the bundle itself, and "
        "its ledger is not remembered. `distill hub trust add KEY.pub` adds an institution's key."
    ]


def _remembered(hub: HubStore, bundles: Sequence[Bundle], signers: Signers) -> list[str]:
    """Remember what trusted signers sent; a word on each new key that an old one handed over to."""
    vouched = [(b, v) for b, v in ((b, signers.voucher(b)) for b in bundles) if v is not None]
    if not vouched:
        return []
    new = hub.remember([b for b, _ in vouched], [v for _, v in vouched])
    return [f"Key {k.public_key[:16]}... is trusted from now on as {k.name!r}: {k.note}." for k in new]


def _one_a_data_set(bundles: Sequence[Bundle]) -> tuple[list[Bundle], list[str]]:
    """The newest release of each data set, in a fixed order; a word on each one left out.

    Two releases of one table would count its rows twice.
    """
    notes: list[str] = []
    newest: dict[str, Bundle] = {}
    for bundle in sorted(bundles, key=lambda b: (b.manifest.created, _fullness(b), b.digest)):
        older = newest.get(bundle.manifest.dataset)
        if older is not None and older.digest == bundle.digest:
            notes.append(f"{bundle.path.name} is the same bundle as {older.path.name}; it counts once.")
        elif older is not None and _release(older) == _release(bundle):
            notes.append(
                f"{older.path.name} and {bundle.path.name} are two sizes of one release of {bundle.manifest.institution!r}; "
                f"only the larger one, {bundle.path.name}, is used."
            )
        elif older is not None:
            notes.append(
                f"{older.path.name} and {bundle.path.name} are two releases of one data set of "
                f"{bundle.manifest.institution!r}; only the newer one, {bundle.path.name}, is used."
            )
        newest[bundle.manifest.dataset] = bundle
    return sorted(newest.values(), key=lambda b: (b.manifest.institution, b.digest)), notes


def _fullness(bundle: Bundle) -> int:
    """0 for the smallest level."""
    return list(reversed(LEVELS)).index(bundle.manifest.level)


def _release(bundle: Bundle) -> str:
    """Digest of the bundle that the institution's ledger committed."""
    return bundle.manifest.derived_from or bundle.digest


def _require_one_schema(bundles: Sequence[Bundle]) -> None:
    """All schemas have one digest. Raises BundleMismatchError naming both sides and where they differ."""
    first = bundles[0]
    for other in bundles[1:]:
        if other.manifest.schema_digest != first.manifest.schema_digest:
            where = _difference(first.schema, other.schema)
            raise BundleMismatchError(
                f"{first.path.name} ({first.manifest.institution!r}) and {other.path.name} "
                f"({other.manifest.institution!r}) describe different schemas: {where}. Only bundles of one schema "
                "can be pooled: agree on one schema file, and have the institution fit again."
            )


def _difference(one: Schema, two: Schema) -> str:
    """Where two schemas differ, in a few words."""
    if one.target != two.target:
        return f"target {one.target!r} against {two.target!r}"
    names, others = [c.name for c in one.columns], [c.name for c in two.columns]
    if set(names) != set(others):
        only = sorted(set(names) ^ set(others))
        return f"column(s) on one side only: {', '.join(only[:5])}"
    if names != others:
        return "the same columns in another order"
    if one.unit != two.unit:
        return f"unit {one.unit!r} against {two.unit!r}"
    changed = [a.name for a, b in zip(one.columns, two.columns, strict=True) if _core(a) != _core(b)]
    return f"kind, bounds, categories or nullability of column(s) {', '.join(changed[:5])}"


def _core(column: Column) -> dict[str, object]:
    return column.model_dump(exclude={"description", "from_data"})


def _unique(names: Sequence[str]) -> list[str]:
    """Names with (2), (3) ... behind repeated ones."""
    out: list[str] = []
    for position, name in enumerate(names):
        times = names[: position + 1].count(name)
        out.append(name if times == 1 else f"{name} ({times})")
    return out
