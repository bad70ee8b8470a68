"""Plain words for a reader who does not compute: whom the guarantee protects, the two worlds, what one read was."""

import math
from dataclasses import dataclass

from distill.ledger.rules.release import Release
from distill.privacy.events import Event

SIZE = "size"  # the noisy row count; every other Laplace read is of a table
STATUS = {
    "reserved": "begun, not planned; counts in full",
    "planned": "begun, not finished; counts in full",
    "committed": "finished, its file made",
    "abandoned": "ended after the row count; only that counts",
    "resolved": "closed by an officer",
}


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """The two worlds that the guarantee makes hard to tell apart, for one ledger's unit.

    Attributes:
        unit: Whom or what is protected, with its article.
        with_it, without_it: The worlds.
        warning: What a reader easily overlooks about this unit.
    """

    unit: str
    with_it: str
    without_it: str
    warning: str


def worlds(unit: str, rows_per_unit: int) -> Worlds:
    """The worlds of a ledger whose unit is `row` or a column that says whose row it is."""
    if unit == "row":
        return Worlds(
            unit="one row of the table",
            with_it="The table holds one particular row, for instance one loan of one customer, and everything else.",
            without_it="That row was never entered. Everything else is the same.",
            warning="The promise is for each row. If a customer has several rows, it does not cover them together: for a "
            "customer with k rows, epsilon is k times as large (and delta grows too). Where that can happen, the schema should "
            "name the column that says whose row it is.",
        )
    rows = "all rows" if rows_per_unit == 1 else f"all rows (of which at most {rows_per_unit} are used)"
    used = (
        "Of each of them one row, drawn at random, takes part; the others are not used."
        if rows_per_unit == 1
        else f"Of each of them at most {rows_per_unit} rows, drawn at random, take part, and the noise is made for all of them."
    )
    return Worlds(
        unit=f"everyone (or everything) that the column “{unit}” tells apart, with all their rows",
        with_it=f"The table holds {rows} of one particular “{unit}”, for instance of one customer, and everything else.",
        without_it="That one was never in the table: none of those rows is there. Everything else is the same.",
        warning=f"{used} Two values of “{unit}” that stand for the same person count as two: that the column is right is for "
        "the institution to check.",
    )


def read_in_words(event: Event) -> str:
    """One read of the table: the mechanism, its noise, its sampling and how often it ran."""
    spread = event.cell_stddev
    tables = "one table" if event.blocks == 1 else f"{event.blocks:,} tables together"
    rows = "" if event.rows_per_unit == 1 else f", for up to {event.rows_per_unit} rows of a unit together"
    match event.mechanism:
        case "laplace" if event.name == SIZE:
            return f"one count with Laplace noise, standard deviation {math.sqrt(2) * spread:,.3g}{rows}"
        case "laplace":
            return f"counts in {tables} with Laplace noise, standard deviation {math.sqrt(2) * spread:,.3g} on a cell{rows}"
        case "gaussian":
            return f"counts in {tables} with Gaussian noise, standard deviation {spread:,.3g} on a cell{rows}"
        case "poisson_gaussian":
            return (
                f"{event.count:,} training steps; each looks at a fresh random {_percent(event.sampling_rate)} of the units "
                f"and adds Gaussian noise {spread:.3g} times the most that one row may move it{rows}"
            )


def smallest_group(releases: tuple[Release, ...]) -> float | None:
    """Twice the least noise on a cell of any count: smaller groups drown in it even where it is least; None: no counts."""
    events = [e for r in releases if not r.rehearsal for e in r.events]
    spreads = [e.cell_stddev for e in events if e.mechanism == "gaussian"]
    spreads += [math.sqrt(2) * e.cell_stddev for e in events if e.mechanism == "laplace" and e.name != SIZE]
    return 2 * min(spreads) if spreads else None


def charge_in_words(release: Release) -> str:
    """How far a release has come and so what it counts for."""
    if release.rehearsal:
        return "rehearsal: repeatable noise, NOT PRIVATE; counts for nothing and must stay in the house"
    if release.status == "resolved":
        return "closed by an officer; " + ("counts in full" if release.was_planned else "only the row count was read")
    return STATUS[release.status]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
