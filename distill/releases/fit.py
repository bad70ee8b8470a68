"""fit(): from a private table to a signed bundle, with the ledger charged before every read.

The order is the guarantee: reserve the release, count rows, record the plan, read, write the bundle under a temporary name,
commit its digest, rename. Killed anywhere, the reservation stands and counts as spent, no bundle without a committed
entry is left under its final name, and a bundle that was committed is put in place by the next fit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distill.common import checks
from distill.common.compute import Device, choose_device, used
from distill.common.keys import SigningKey
from distill.data.encoded_table import read_encoded
from distill.data.schema import Schema
from distill.exchange.bundle import write_bundle
from distill.exchange.generator_codec import parts_of
from distill.exchange.levels import LEVELS, Level
from distill.exchange.prior import USE, GlobalPrior
from distill.ledger import Ledger, Reservation
from distill.privacy.budget import require_budget
from distill.privacy.calibration import check_rows_per_unit
from distill.privacy.events import RenyiLimit
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.releases.known_tables import remembered
from distill.releases.lifecycle import plan_or_abandon, require_place, require_unit, reserve_release
from distill.releases.placement import commit_and_place, require_nothing_left
from distill.synthesis.pipeline import Distilled, Progress, distil, silent
from distill.synthesis.planning.plan import Plan, make_plan
from distill.synthesis.planning.shares import Shares


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a fit is asked for. Every field is public or a path.

    Attributes:
        data, schema: The private table's file and its public schema.
        name: Of the institution, as the bundle shows it.
        dataset: Random id that ties the release to its ledger.
        out: Where the bundle goes.
        epsilon, delta: Budget of this release.
        purpose: One line for the reader of the ledger.
        level: How much of the release travels; `levels` says what each keeps.
        institutions: How many the hub will pool, as publicly agreed (see `Plan.institutions`).
        samples: Refined rows to store in the bundle; None: what the level says, at most the noisy row count.
        shares: How the budget is divided: all shares, or some of them by name (see `plan.make_plan`).
        rows_per_unit: Most rows of one unit that count; more than 1 where the schema names a unit. Noise grows with it.
        rehearsal: Seed of a repeatable run that is NOT PRIVATE; None for a real release.
        overwrite: Whether a bundle at `out` may be replaced.
        device: Where networks and candidates are optimised; `auto` takes a GPU where there is one.
        known_tables: Folder of what is known of tables on this machine (see `known_tables`): a copy of one that has another
            ledger is refused. None: neither checked nor remembered; so it is with every rehearsal.
        prior: The hub's joint model of an earlier cycle, verified (see `global_prior.read_prior`); None: the fit goes by its
            own rows alone. What is read, and with how much noise, is the same with and without it.
    """

    data: Path
    schema: Schema
    name: str
    dataset: str
    out: Path
    epsilon: float
    delta: float
    purpose: str = "distill fit"
    level: Level = "default"
    institutions: int = 1
    samples: int | None = None
    shares: Shares | Mapping[str, float] | None = None
    rows_per_unit: int = 1
    rehearsal: int | None = None
    overwrite: bool = False
    device: Device = "auto"
    known_tables: Path | None = None
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
    request: Request,
    ledger: Ledger,
    key: SigningKey,
    *,
    progress: Progress = silent,
    announce: Callable[[Plan], None] | None = None,
) -> Receipt:
    """Distil a private table into one signed bundle.

    Args:
        request: What is asked.
        ledger: The data set's ledger; holds the grant.
        key: Of an operator of the ledger; signs the bundle.
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
    require_budget(request.epsilon, request.delta)
    checks.positive(institutions=request.institutions)
    check_rows_per_unit(request.schema, request.rows_per_unit)
    device = choose_device(request.device)
    request.schema.require_confirmed()
    if request.prior is not None:
        request.prior.require_for(request.schema, rehearsal=request.rehearsal is not None)
    require_unit(request.schema, ledger)
    require_nothing_left(request.out, ledger)
    require_place(request.out, protected=(request.data, ledger.path), overwrite=request.overwrite)
    rows = read_encoded(request.data, request.schema)
    noise = NoiseSource(request.rehearsal)
    rng = np.random.default_rng(request.rehearsal)  # modelling only; from the system where no seed is given, 128 bits
    most = request.rows_per_unit
    known = None if noise.rehearsal else request.known_tables
    with remembered(known, rows, request.schema, ledger, request.name):
        asked = replace(request, purpose=request.stated_purpose)
        reservation = reserve_release(asked, ledger, key, rehearsal=noise.rehearsal, rows_per_unit=most)
    table = PrivateTable(rows, request.schema, reservation, noise, rows_per_unit=most)
    del rows
    progress("size", 0, 1)
    noisy_size = table.noisy_size("size")
    plan = plan_or_abandon(reservation, lambda: _plan(request, noisy_size, reservation.limit))
    progress("size", 1, 1)
    if announce is not None:
        announce(plan)
    reservation.plan(plan.events[1:])
    with used(device):
        distilled = distil(table, plan, rng, progress, request.prior.generator if request.prior else None)
    return _write(request, ledger, reservation, key, plan, distilled, table.reads, rng)


def _plan(request: Request, noisy_size: int, limit: RenyiLimit | None) -> Plan:
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
    )


def _write(
    request: Request,
    ledger: Ledger,
    reservation: Reservation,
    key: SigningKey,
    plan: Plan,
    distilled: Distilled,
    reads: dict[str, int],
    rng: np.random.Generator,
) -> Receipt:
    """Write the bundle beside its place, commit its digest, then move it into place."""
    generator = distilled.generator
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
                "unit": ledger.unit,
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

    placed = commit_and_place(request.out, write, reservation, overwrite=request.overwrite)
    return Receipt(
        bundle=request.out,
        digest=placed.digest,
        size=placed.size,
        plan=plan,
        epsilon=plan.joint_epsilon,
        reads=dict(reads),
        noisy_rows=generator.noisy_rows,
        release=reservation.release,
        head=placed.head,  # not asked for anew: whatever happens to the disk now, this release is done
        rehearsal=reservation.rehearsal,
        linked=reservation.linked,
        prior=request.prior.digest if request.prior else None,
    )
