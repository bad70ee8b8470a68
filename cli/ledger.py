"""`distill ledger`: grant a budget, read the books, verify them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.common import JsonOption, ProjectOption, project_at, reporting

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from distill.ledger import Entry, Ledger, LedgerSummary, Verification
    from distill.project import Project

STANDING = (
    "Standing reservations count as spent in full: the run that made one is still going or did not finish, and its rows may "
    "have been read. They cannot be given back."
)
LedgerOption = Annotated[Path | None, typer.Option("--ledger", help="Else the project's.", metavar="FILE")]

app = typer.Typer(help="The privacy ledger: grants, releases, what is left.", no_args_is_help=True)


@app.command()
def grant(
    epsilon: Annotated[float, typer.Option(help="What all releases together may spend.")],
    delta: Annotated[float, typer.Option(help="Likewise; well below one over the number of rows.")],
    reason: Annotated[str, typer.Option(help="Who allowed this and why, one line.")],
    actor: Annotated[str | None, typer.Option(help="Who grants; else the user's name.")] = None,
    ledger: LedgerOption = None,
    key: Annotated[Path | None, typer.Option("--key", help="Signing key; else the project's.", metavar="FILE")] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Set the total budget of the data set. A new grant replaces the one before; it may raise or lower it."""
    with reporting(as_json) as report:
        from distill.keys import load_signing_key, passphrase_from_environment
        from distill.ledger_entries import acting_user

        opened, settings = _opened(ledger, project, also_needed=key is None)
        path = key if key is not None or settings is None else settings.key
        assert path is not None  # without --key there is a project
        signer = load_signing_key(path, passphrase=passphrase_from_environment())
        entry = opened.grant(epsilon=epsilon, delta=delta, reason=reason, actor=actor or acting_user(), key=signer)
        summary = opened.summary()
        report(
            {"entry": entry.sequence, "hash": entry.hash, **_books(summary)},
            f"Granted: all releases together may now spend epsilon {summary.granted_epsilon:g} at delta "
            f"{summary.granted_delta:g}.\n{_left(summary)}",
        )


@app.command()
def show(ledger: LedgerOption = None, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Show every entry, what was spent and what is left."""
    with reporting(as_json) as report:
        opened, _ = _opened(ledger, project)
        entries, summary = opened.entries(), opened.summary()
        rows = _rows(entries)
        standing = [_release(r) for r in summary.standing]
        payload = {**_books(summary), "standing": standing, "rows": rows, "entries": entries}
        report(payload, None if as_json else _page(rows, summary))


@app.command()
def verify(
    public_key: Annotated[
        Path | None, typer.Option(help="Public key (.pub) that must have signed; else the project's.", metavar="FILE")
    ] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option(help="Bundles that this ledger must account for.", metavar="FILE")
    ] = None,
    ledger: LedgerOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Check chain, signatures and rules, and recompute every epsilon from the recorded noise by two accountants."""
    with reporting(as_json) as report:
        from distill.keys import load_public_key, public_path_of

        opened, settings = _opened(ledger, project)
        if public_key is None and settings is not None and ledger is None:
            public_key = public_path_of(settings.key)
        found = opened.verify(load_public_key(public_key) if public_key is not None else None)
        accounted = [_accounted(opened, path, found.public_key) for path in bundle or ()]
        report(_verified(found, accounted), None if as_json else _verdict(found, accounted))


def _opened(ledger: Path | None, folder: Path, *, also_needed: bool = False) -> "tuple[Ledger, Project | None]":
    """The ledger that was named, or the project's; the project too where there is need of one."""
    from distill.ledger import open_ledger

    if ledger is not None and not also_needed:
        return open_ledger(ledger), None
    settings = project_at(folder)
    if ledger is not None:
        return open_ledger(ledger), settings
    return open_ledger(settings.ledger, dataset=settings.dataset), settings


def _books(summary: "LedgerSummary") -> dict[str, Any]:
    """The summary's figures."""
    names = ("granted", "spent", "remaining")
    figures = {f"{n}_{what}": getattr(summary, f"{n}_{what}") for n in names for what in ("epsilon", "delta")}
    where = {"dataset": summary.dataset, "unit": summary.unit, "relation": summary.relation}
    return {**where, "head": summary.head, "public_key": summary.public_key, **figures}


def _left(summary: "LedgerSummary") -> str:
    return (
        f"Spent: epsilon {summary.spent_epsilon:.4g} of {summary.granted_epsilon:g}, delta {summary.spent_delta:.3g} of "
        f"{summary.granted_delta:g}. Left: epsilon {summary.remaining_epsilon:.4g}, delta {summary.remaining_delta:.3g}."
    )


def _release(release: Any) -> dict[str, Any]:
    names = ("release", "time", "actor", "purpose", "status", "rehearsal", "epsilon", "delta")
    return {name: getattr(release, name) for name in names}


def _rows(entries: "list[Entry]") -> list[dict[str, Any]]:
    """One line an entry: what it did to the books."""
    from distill.ledger_state import State

    books, ended, rows = State(), _ended(entries), []
    for entry in entries:
        books.apply(entry)
        body, (spent_epsilon, spent_delta) = entry.body, books.spent()
        release = books.releases.get(body.get("release", ""))
        purpose = release.purpose if release else body.get("reason", "")
        rows.append(
            {
                "sequence": entry.sequence,
                "time": entry.time,
                "actor": entry.actor,
                "kind": entry.kind,
                "purpose": f"{body['warning']}: {purpose}" if body.get("warning") else purpose,
                "release": release.release if release else None,
                "epsilon": body.get("epsilon") if entry.kind == "grant" or release is None else release.charged[0],
                "epsilon_release": body.get("epsilon_release"),
                "epsilon_total": spent_epsilon,
                "delta_total": spent_delta,
                "epsilon_remaining": max(0.0, books.granted_epsilon - spent_epsilon),
                "standing": entry.kind == "reserve" and body["release"] not in ended,
            }
        )
    return rows


def _ended(entries: "list[Entry]") -> set[str]:
    """Releases that were committed or abandoned."""
    return {e.body["release"] for e in entries if e.kind in ("commit", "abandon")}


def _page(rows: list[dict[str, Any]], summary: "LedgerSummary") -> "Group":
    """The books for people."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Table | Text] = [_table(rows), Text(_left(summary))]
    if summary.standing:
        parts += [Text(f"{len(summary.standing)} standing. {STANDING}", style="bold yellow")]
    parts.append(Text(f"Unit: {summary.unit}, {summary.relation}. Head: {summary.head}"))
    return Group(*parts)


def _table(rows: list[dict[str, Any]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Privacy ledger")
    for name in ("#", "time (UTC)", "who", "kind", "purpose"):
        table.add_column(name, overflow="fold")
    for name in ("epsilon", "so far", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        kind = f"{row['kind']} (STANDING)" if row["standing"] else row["kind"]
        epsilon = "" if row["epsilon"] is None else f"{row['epsilon']:.4g}"
        texts = (str(row["sequence"]), row["time"][:19].replace("T", " "), row["actor"], kind, row["purpose"])
        numbers = (epsilon, f"{row['epsilon_total']:.4g}", f"{row['epsilon_remaining']:.4g}")
        table.add_row(*(Text(t) for t in (*texts, *numbers)), style="bold yellow" if row["standing"] else None)
    return table


def _accounted(ledger: "Ledger", path: Path, public_hex: str) -> dict[str, Any]:
    """A bundle of this ledger: signed by its key, its head known, its release committed with its digest."""
    from distill.bundle import read_bundle
    from distill.errors import LedgerTamperedError

    found = read_bundle(path, public_hex=public_hex)
    if not ledger.knows(found.manifest.ledger.head):
        raise LedgerTamperedError(
            f"{ledger.path} does not hold entry {found.manifest.ledger.head}, which the bundle {path} carries as its head: "
            "the ledger was rolled back or replaced. Restore the newest backup."
        )
    release = next((r for r in ledger.summary().releases if r.bundle == found.digest), None)
    return {"bundle": path, "digest": found.digest, "release": release.release if release else None}


def _verified(found: "Verification", accounted: list[dict[str, Any]]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "verified": True,
        "key_given": found.key_given,
        **_books(found.summary),
        "checks": found.checks,
        "releases": [asdict(r) for r in found.releases],
        "bundles": accounted,
    }


def _verdict(found: "Verification", accounted: list[dict[str, Any]]) -> str:
    """What was checked, each release recomputed, and who signed."""
    lines = [f"{found.path} verifies:", *(f"  ok  {check}" for check in found.checks)]
    for r in found.releases:
        mark = " REHEARSAL, NOT PRIVATE" if r.rehearsal else ""
        lines.append(
            f"  {r.release[:8]} {r.status}{mark}: reserved epsilon {r.epsilon:.4g} at delta {r.delta:g}; its events cost "
            f"{r.epsilon_release:.6g} (PLD {r.epsilon_pld:.6g}, RDP {r.epsilon_rdp:.6g})"
        )
    for b in accounted:
        state = f"is release {b['release'][:8]}" if b["release"] else "is of this ledger, but not committed in it"
        lines.append(f"  {b['bundle']} {state}")
    if not found.key_given:
        lines.append(f"Signed by {found.public_key}: nobody told which key to expect, so compare it (--public-key).")
    return "\n".join([*lines, _left(found.summary)])
