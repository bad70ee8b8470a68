"""fit(): from a private table to a signed bundle, with the ledger charged before every read.

The order is that of every release (see `lifecycle`): reserve, count rows, record the plan, read, write the bundle under a
temporary name, commit its digest, rename. Killed anywhere, no bundle without a committed entry is left under its final
name, and a bundle that was committed is put in place by the next fit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distill.common import checks
from distill.common.compute import Device, choose_device, used
from distill.common.keys import SigningKey, signing_key_of
from distill.data.encoded_table import read_encoded
from distill.exchange.bundle import write_bundle
from distill.exchange.generator_codec import parts_of
from distill.exchange.levels import LEVELS, Level
from distill.exchange.prior import USE, GlobalPrior
from distill.ledger import Ledger
from distill.privacy.events import RenyiLimit
from distill.releases.lifecycle import FileRequest, OpenRelease, open_release
from distill.synthesis.effort import Effort
from distill.synthesis.pipeline import Distilled, Progress, distil, silent
from distill.synthesis.planning.plan import Plan, PlanSettings, make_plan
from distill.synthesis.planning.shares import Shares


@dataclass(frozen=True, kw_only=True)
class FitRequest(FileRequest):
    """What a fit is asked for beside what every release is. Every field is public or a path.

    Attributes:
        level: How much of the release travels; `levels` says what each keeps.
        institutions: How many the hub will pool, as publicly agreed (see `Plan.institutions`).
        samples: Refined rows to store in the bundle; None: what the level says, at most the noisy row count.
        shares: How the budget is divided: all shares, or some of them by name (see `make_plan`).
        device: Where networks and candidates are optimised; `auto` takes a GPU where there is one.
        settings: Numbers that the plan goes by.
        effort: How hard the optimisers work; moves no epsilon.
        prior: The hub's joint model of an earlier cycle, verified (see `read_prior`); None: the fit goes by its own rows
            alone. What is read, and with how much noise, is the same with and without it.
    """

    purpose: str = "distill fit"
    level: Level = "default"
    institutions: int = 1
    samples: int | None = None
    shares: Shares | Mapping[str, float] | None = None
    device: Device = "auto"
    settings: PlanSettings = field(default_factory=PlanSettings)
    effort: Effort = field(default_factory=Effort)
    prior: GlobalPrior | None = None

    @property
    def stated_purpose(self) -> str:
        """The purpose as the ledger has it: it names the prior, on which the bundle depends."""
        return self.purpose if self.prior is None else f"{self.purpose}; with global prior {self.prior.digest}"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a fit cost and left; everything in it may be published.

    Attributes:
        bundle, digest, size: The file, its SHA-256, its bytes.
        plan: All events, with their joint epsilon.
        epsilon: Joint epsilon of the events (at most what was reserved).
        reads: Reads of the private table by event.
        noisy_rows: Released row count.
        release, head: The release's id and the ledger's head after the commit.
        rehearsal: Whether the run was NOT PRIVATE.
        linked: Names of the data sets that the ledger declares to hold some of the same units.
        prior: SHA-256 of the global prior that it was fitted with, if it was.
    """

    bundle: Path
    digest: str
    size: int
    plan: Plan
    epsilon: float
    reads: dict[str, int]
    noisy_rows: int
    release: str
    head: str
    rehearsal: bool
    linked: tuple[str, ...] = ()
    prior: str | None = None


def fit(
    request: FitRequest,
    ledger: Ledger,
    key: SigningKey | Path | str,
    *,
    progress: Progress = silent,
    announce: Callable[[Plan], None] | None = None,
) -> Receipt:
    """Distil a private table into one signed bundle.

    Args:
        request: What is asked.
        ledger: The data set's ledger; holds the grant.
        key: An operator's signing key, or its file; signs the bundle.
        progress: Called with stage, steps done, steps in all.
        announce: Called with the finished plan before it is carried out.

    Raises:
        SchemaError, DataError: The table does not fit; nothing was charged.
        BudgetError: The grant does not cover the release (nothing was charged), or the noisy row count is too small
            for a plan (only the count was charged).
        CopiedTableError: A copy of the table has another ledger; nothing was charged.
        ConfigError: The request's numbers do not fit the schema or its device is not there (nothing was charged), or the
            budget is too small to calibrate any noise for (only the count was charged).
        LedgerError, KeyFileError, BundleError, StateError: As their names say; if the reservation was made, it stands.
        PriorError: The global prior is of another schema, or a rehearsal's in a private release; nothing was charged.
        BundleError: Also where an earlier run was cut short and its committed bundle was put in place; nothing was charged.
    """
    key = signing_key_of(key)
    checks.positive(institutions=request.institutions)
    device = choose_device(request.device)
    if request.prior is not None:
        request.prior.require_for(request.schema, rehearsal=request.rehearsal is not None)
    release = open_release(request, ledger, key)
    rows = read_encoded(request.data, request.schema)
    rng = np.random.default_rng(request.rehearsal)  # modelling only; from the system where no seed is given, 128 bits
    release.reserve(rows)
    del rows  # the door has them now, and frees what it recodes
    progress("size", 0, 1)
    noisy_size = release.count()
    progress("size", 1, 1)
    plan = release.plan(lambda: _plan(request, noisy_size, release.reservation.limit))
    if announce is not None:
        announce(plan)
    with used(device):
        prior = request.prior.generator if request.prior else None
        distilled = distil(release.table, plan, rng, progress, prior, request.effort)
    return _publish(request, release, key, plan, distilled, rng)


def _plan(request: FitRequest, noisy_size: int, limit: RenyiLimit | None) -> Plan:
    """Decide the rest of the release."""
    return make_plan(
        request.schema,
        noisy_size,
        epsilon=request.epsilon,
        delta=request.delta,
        shares=request.shares,
        institutions=request.institutions,
        rows_per_unit=request.rows_per_unit,
        limit=limit,
        settings=request.settings,
    )


def _publish(
    request: FitRequest,
    release: OpenRelease,
    key: SigningKey,
    plan: Plan,
    distilled: Distilled,
    rng: np.random.Generator,
) -> Receipt:
    """Write the bundle beside its place, commit its digest, then move it into place."""
    generator, reservation = distilled.generator, release.reservation
    tensors, settings = parts_of(
        generator, distilled.counts, distilled.pairs, distilled.cluster_shares, request.level, rng
    )
    if request.prior is not None:
        settings[USE] = request.prior.use.model_dump(mode="json")
    rows = request.samples if request.samples is not None else min(generator.noisy_rows, LEVELS[request.level].rows)
    samples = generator.draw(rows, rng)

    def write(place: Path) -> str:
        return write_bundle(
            place,
            created=reservation.day,
            institution=request.name,
            dataset=request.dataset,
            schema=request.schema,
            privacy={
                "epsilon": reservation.epsilon,
                "delta": reservation.delta,
                "unit": release.ledger.unit,
                "events": list(reservation.events),
            },
            noisy_rows=generator.noisy_rows,
            class_prior=generator.class_prior.tolist(),
            generator=settings,
            ledger=reservation.proof(),
            samples=samples,
            tensors=tensors,
            key=key,
            rehearsal=reservation.rehearsal,
            level=request.level,
        )

    placed = release.publish(write)
    return Receipt(
        bundle=request.out,
        digest=placed.digest,
        size=placed.size,
        plan=plan,
        epsilon=plan.joint_epsilon,
        reads=dict(release.table.reads),
        noisy_rows=generator.noisy_rows,
        release=reservation.release,
        head=placed.head,  # not asked for anew: whatever happens to the disk now, this release is done
        rehearsal=reservation.rehearsal,
        linked=reservation.linked,
        prior=request.prior.digest if request.prior else None,
    )
