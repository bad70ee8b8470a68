"""The life of a release, once for all kinds: refuse, reserve, count, plan, publish.

A fit, a private evaluation and a federated training differ in what they read, not in how it is paid for. Each begins with
`open_release`, and every check there holds for all of them. Killed anywhere, a reservation stands and counts as spent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

from distill.common.keys import SigningKey
from distill.common.metadata import acting_user
from distill.data.encoded_table import EncodedTable
from distill.data.schema import Schema
from distill.data.sources import Source, files_of
from distill.errors import BudgetError, ConfigError
from distill.ledger import Ledger, Reservation
from distill.privacy.budget import require_budget
from distill.privacy.calibration import ReleasePlan, check_rows_per_unit, size_event
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.releases.known_tables import remembered
from distill.releases.placement import Placed, commit_and_place, require_nothing_left, require_place

P = TypeVar("P", bound=ReleasePlan)


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """What every kind of release is asked for. Every field is public or a path.

    Attributes:
        schema: Public schema of the rows; it says what a unit is.
        name: Public name of the institution or table.
        epsilon, delta: Budget of this release.
        purpose: One line for the reader of the ledger.
        rows_per_unit: Most rows of one unit that count; more than 1 where the schema names a unit. Noise grows with it.
        rehearsal: Seed of a repeatable run that is NOT PRIVATE; None for a real release.
        known_tables: Folder of what is known of tables on this machine (see `known_tables`): a copy of one that has another
            ledger is refused. None: neither checked nor remembered; so it is with every rehearsal.
    """

    laplace_alone: ClassVar[bool] = False  # whether all noise may be Laplace noise, which needs no delta

    schema: Schema
    name: str
    epsilon: float
    delta: float
    purpose: str
    rows_per_unit: int = 1
    rehearsal: int | None = None
    known_tables: Path | None = None

    @property
    def stated_purpose(self) -> str:
        """The purpose as the ledger has it."""
        return self.purpose


@dataclass(frozen=True, kw_only=True)
class FileRequest(ReleaseRequest):
    """What a release is asked for that ends in one file.

    Attributes:
        data: The private table: a CSV or Parquet file, or a pandas frame, which is read and stays as it is.
        dataset: Random id that ties the release to its ledger.
        out: Where the result goes.
        overwrite: Whether a file at `out` may be replaced.
        protected: Tables that are never replaced, beside the one that is read: a project's own, where a frame is.
    """

    data: Source = field(repr=False)  # a frame would print private rows
    dataset: str
    out: Path
    overwrite: bool = False
    protected: tuple[Path, ...] = ()


def open_release(request: ReleaseRequest, ledger: Ledger, key: SigningKey) -> "OpenRelease":
    """Begin a release: refuse all that can be refused without a look at a row.

    Raises:
        ConfigError: The budget, the rows of a unit or the unit do not fit schema and ledger.
        SchemaError: The schema is not confirmed.
        BundleError: An earlier run was cut short and its committed result was put in place; or the result cannot be written.
        LedgerError, LedgerTamperedError: The ledger cannot be read.
    """
    require_budget(request.epsilon, request.delta, laplace=request.laplace_alone)
    check_rows_per_unit(request.schema, request.rows_per_unit)
    request.schema.require_confirmed()
    require_unit(request.schema, ledger)
    if isinstance(request, FileRequest):
        require_nothing_left(request.out, ledger)
        protected = (*files_of(request.data), *request.protected, ledger.path)
        require_place(request.out, protected=protected, overwrite=request.overwrite)
    return OpenRelease(request, ledger, key)


def require_unit(schema: Schema, ledger: Ledger) -> None:
    """Refuse a release whose noise hides another unit than its ledger promises to hide. Raises ConfigError."""
    if schema.counted_unit != ledger.unit:
        raise ConfigError(
            f"schema {schema.name!r} counts privacy by {schema.counted_unit!r} and the ledger {ledger.path} by "
            f"{ledger.unit!r}: what one of them charges says nothing in the other. {_unit_mend(ledger.unit)}"
        )


def _unit_mend(unit: str) -> str:
    named = "Leave out the schema's `unit`" if unit == "row" else f"Name the column {unit!r} as the schema's `unit`"
    return f"{named}, or open a project of its own for this schema with `distill init`."


class OpenRelease:
    """A release on its way, step by step: `reserve`, `count`, `plan`, and `publish` or a commit of its own.

    Attributes:
        request: What was asked.
        ledger: That pays.
        reservation: What was set aside; there once `reserve` was called.
        table: The one door to the rows; there once `reserve` was called.
    """

    reservation: Reservation
    table: PrivateTable

    def __init__(self, request: ReleaseRequest, ledger: Ledger, key: SigningKey) -> None:
        """`open_release` makes it, after its checks."""
        self.request, self.ledger, self._key = request, ledger, key

    def reserve(self, rows: EncodedTable, seen_as: Callable[[], EncodedTable] | None = None) -> None:
        """Set the whole budget aside, then put the rows behind their door.

        Args:
            rows: The private table, which is compared with tables that have another ledger.
            seen_as: Makes the table that is read, row for row, once the budget is set aside; None: `rows` itself.

        Raises:
            CopiedTableError: A copy of the table has another ledger; nothing was charged.
            BudgetError: The grant does not cover the release; nothing was charged.
            LedgerError, LedgerTamperedError, KeyFileError, StateError: As their names say; if the reservation was made, it
                stands.
        """
        request, noise = self.request, NoiseSource(self.request.rehearsal)
        known = None if noise.rehearsal else request.known_tables
        with remembered(known, rows, request.schema, self.ledger, request.name):
            self.reservation = self.ledger.reserve(
                epsilon=request.epsilon,
                delta=request.delta,
                purpose=request.stated_purpose,
                actor=acting_user(),
                events=[size_event(request.epsilon, request.rows_per_unit)],
                key=self._key,
                rehearsal=noise.rehearsal,
            )
        read = rows if seen_as is None else seen_as()
        self.table = PrivateTable(read, request.schema, self.reservation, noise, rows_per_unit=request.rows_per_unit)

    def count(self) -> int:
        """Count the rows with noise, the first read of every release."""
        return self.table.noisy_size("size")

    def plan(self, make: Callable[[], P]) -> P:
        """Record the plan of all later reads; too small a table or budget ends the release here, only the count charged.

        Raises:
            BudgetError, ConfigError: What `make` raised, with that word added.
            LedgerError: The plan cannot be recorded.
        """
        try:
            plan = make()
        except (BudgetError, ConfigError) as error:
            self.reservation.abandon("the noisy row count or the budget is too small for a plan")
            raise type(error)(f"{error} Only the row count was read and charged.") from None
        self.reservation.plan(plan.events[1:])
        return plan

    def publish(self, write: Callable[[Path], str]) -> Placed:
        """Have the result written beside its place, commit its digest, move it into place. See `commit_and_place`."""
        assert isinstance(self.request, FileRequest), "only a release that ends in a file is published"
        return commit_and_place(self.request.out, write, self.reservation, overwrite=self.request.overwrite)
