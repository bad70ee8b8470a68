"""What every kind of release does alike: where its file may go, its reservation, and its plan or its end.

A fit and a federated training both begin here, so that the order (reserve, count, plan) is written once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from distill.common import files
from distill.common.keys import SigningKey
from distill.data.schema import Schema
from distill.errors import BudgetError, BundleError, ConfigError
from distill.ledger import Ledger, Reservation, acting_user
from distill.privacy.calibration import ReleasePlan, size_event

TRIAL_BYTES = 1 << 20  # room for a bundle, looked for before anything is charged
P = TypeVar("P", bound=ReleasePlan)


class Asked(Protocol):
    """What a reservation needs of a request. Every field is public."""

    @property
    def schema(self) -> Schema:
        """Of the rows; it says what a unit is."""

    @property
    def epsilon(self) -> float:
        """Budget of the release."""

    @property
    def delta(self) -> float:
        """Budget of the release."""

    @property
    def purpose(self) -> str:
        """One line for the reader of the ledger."""


def require_place(out: Path, *, protected: Sequence[Path], overwrite: bool) -> None:
    """Refuse, before anything is charged, a place for a bundle that cannot be written or must not be replaced.

    Args:
        out: Where the bundle is to go.
        protected: Files that are never replaced: the table or bundle that it comes from, and the ledger.
        overwrite: Whether another file at `out` may be replaced.

    Raises:
        BundleError: `out` is such a place.
    """
    if out.is_dir():
        raise BundleError(f"{out} is a directory; name a file for the bundle.")
    if out.resolve() in [path.resolve() for path in protected]:
        raise BundleError(f"{out} is the table or the ledger itself; name another file for the bundle.")
    if out.exists() and not overwrite:
        raise BundleError(f"{out} exists already; name another file with --out or allow replacing it with --overwrite.")
    with files.wrapped("write the bundle", out, BundleError):
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.staged(out) as trial:
            files.write_exactly(trial, bytes(TRIAL_BYTES))
            trial.unlink()


def require_unit(schema: Schema, ledger: Ledger) -> None:
    """Refuse a release whose noise hides another unit than its ledger promises to hide. Raises ConfigError."""
    if schema.counted_unit != ledger.unit:
        raise ConfigError(
            f"schema {schema.name!r} counts privacy by {schema.counted_unit!r} and the ledger {ledger.path} by {ledger.unit!r}: what "
            f"one of them charges says nothing in the other. {_unit_mend(ledger.unit)}"
        )


def _unit_mend(unit: str) -> str:
    named = "Leave out the schema's `unit`" if unit == "row" else f"Name the column {unit!r} as the schema's `unit`"
    return f"{named}, or open a project of its own for this schema with `distill init`."


def reserve_release(
    request: Asked, ledger: Ledger, key: SigningKey, *, rehearsal: bool, rows_per_unit: int = 1
) -> Reservation:
    """Set the whole budget aside, with the noisy row count as the first read.

    Raises:
        ConfigError: the ledger counts by another unit than the schema; nothing was recorded.
        BudgetError, LedgerError, LedgerTamperedError, KeyFileError: as `Ledger.reserve`.
    """
    require_unit(request.schema, ledger)
    return ledger.reserve(
        epsilon=request.epsilon,
        delta=request.delta,
        purpose=request.purpose,
        actor=acting_user(),
        events=[size_event(request.epsilon, rows_per_unit)],
        key=key,
        rehearsal=rehearsal,
    )


def plan_or_abandon(reservation: Reservation, make: Callable[[], P]) -> P:
    """The plan of the rest of a release; too small a table or budget ends it here, with only the count charged.

    Raises:
        BudgetError, ConfigError: what `make` raised, with that word added.
    """
    try:
        return make()
    except (BudgetError, ConfigError) as error:
        reservation.abandon("the noisy row count or the budget is too small for a plan")
        raise type(error)(f"{error} Only the row count was read and charged.") from None
