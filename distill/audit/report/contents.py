"""Everything that the audit report says, computed from one ledger that verifies; `page` makes the HTML of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.audit.report.curves import Curves, curves_of
from distill.audit.report.history import Change, Granted, Moment, Person, changes, grants, moments, people
from distill.audit.report.linked import Linked, add_up
from distill.audit.report.risk import Meaning, meaning_of
from distill.audit.report.wording import Worlds, smallest_group, worlds
from distill.common import files
from distill.common.metadata import software, today
from distill.errors import ConfigError
from distill.ledger import AuditedRelease, Ledger, LedgerSummary, Release, Verification
from distill.ledger.entries.entry import Entry

MOST_UTILITY_BYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class ReleaseLine:
    """One release: what the books say and what two accountants make of its noise."""

    release: Release
    audited: AuditedRelease
    closing: str | None  # why an officer or the software ended it early


@dataclass(frozen=True, kw_only=True)
class Utility:
    """What the officer attached about usefulness: figures where the file is a JSON object, else its text."""

    source: str
    figures: tuple[tuple[str, str], ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A ledger, verified and read for people.

    Attributes:
        name: Of the institution or table, if known.
        made, software: When and with what; UTC.
        rows_per_unit: Most rows of one unit that any release read.
        spent, granted: What has been spent, and what may be, read as chances. None before there is any.
        utility: Attached by the officer.
    """

    name: str | None
    made: str
    software: str
    verification: Verification
    rows_per_unit: int
    worlds: Worlds
    spent: Meaning | None
    granted: Meaning | None
    grants: tuple[Granted, ...]
    moments: tuple[Moment, ...]
    releases: tuple[ReleaseLine, ...]
    curves: Curves
    smallest_group: float | None
    people: tuple[Person, ...]
    changes: tuple[Change, ...]
    linked: Linked
    utility: Utility | None

    @property
    def summary(self) -> LedgerSummary:
        """The books."""
        return self.verification.summary


def audit(
    ledger: Ledger, *trusted: str, name: str | None = None, others: Sequence[Path] = (), utility: Path | None = None
) -> Audit:
    """Verify a ledger, and those linked with it, and compute the report.

    Args:
        ledger: Read in full; nothing is written.
        trusted: Public keys (hex) from outside that must vouch for it, as for `Ledger.verify`.
        name: Shown as the title.
        others: Ledgers of linked data sets.
        utility: A file about usefulness to attach: what `distill evaluate --json` printed, or text.

    Raises:
        LedgerTamperedError, LedgerError: A ledger does not verify or cannot be read.
        ConfigError: Another ledger is not linked, or the utility file cannot be used.
    """
    attached = read_utility(utility) if utility is not None else None
    found = ledger.verify(*trusted)
    entries, summary = found.entries, found.summary
    rows = max((e.rows_per_unit for r in summary.releases for e in r.events), default=1)
    return Audit(
        name=name,
        made=today(),
        software=software(),
        verification=found,
        rows_per_unit=rows,
        worlds=worlds(summary.unit, rows),
        spent=meaning_of(summary.spent_epsilon, summary.spent_delta) if summary.spent_epsilon else None,
        granted=meaning_of(summary.granted_epsilon, summary.granted_delta) if summary.granted_epsilon else None,
        grants=grants(entries),
        moments=moments(entries),
        releases=_lines(found, entries),
        curves=curves_of(summary.releases, order=summary.order, delta=summary.spent_delta),
        smallest_group=smallest_group(summary.releases),
        people=people(entries),
        changes=changes(entries),
        linked=add_up(found, others, *trusted),
        utility=attached,
    )


def read_utility(path: Path) -> Utility:
    """The officer's file about usefulness. Raises ConfigError."""
    with files.wrapped("read", path, ConfigError), path.open("rb") as file:
        data = file.read(MOST_UTILITY_BYTES + 1)
    if len(data) > MOST_UTILITY_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_UTILITY_BYTES:,} bytes: attach a short text or evaluation.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(
            f"{path} is not text; attach JSON, as `distill evaluate --json` prints, or plain text."
        ) from None
    try:
        figures = json.loads(text)
    except (ValueError, RecursionError):
        figures = None
    if not isinstance(figures, dict):
        return Utility(source=path.name, figures=(), text=text.strip())
    plain = {key: value for key, value in figures.items() if not _nested(value)}  # tables of figures are not for a line
    shown = tuple((str(key), value if isinstance(value, str) else json.dumps(value)) for key, value in plain.items())
    return Utility(source=path.name, figures=shown, text="")


def _nested(value: object) -> bool:
    """Whether a JSON value is more than a figure or a list of them."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict | list) for v in value))


def _lines(found: Verification, entries: Sequence[Entry]) -> tuple[ReleaseLine, ...]:
    """The releases with their recomputed costs and the reasons of those that ended early."""
    audited = {a.release: a for a in found.releases}
    reasons = {e.body["release"]: e.body["reason"] for e in entries if e.kind in ("abandon", "resolve")}
    return tuple(
        ReleaseLine(release=r, audited=audited[r.release], closing=reasons.get(r.release))
        for r in found.summary.releases
    )
