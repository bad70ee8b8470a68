"""`distill ledger`: grant a budget, read the books, verify them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.shared.output import JsonOption, ProjectOption, project_at, reporting

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from distill.common.keys import SigningKey
    from distill.ledger import Entry, Ledger, LedgerSummary, Release, Verification

STANDING = (
    "Standing reservations count as spent in full: the run that made one is still going or did not finish, and its rows may "
    "have been read. They cannot be given back; once it is certain that the run is dead, an officer closes it with "
    "`distill ledger resolve`."
)
LedgerOption = Annotated[Path | None, typer.Option("--ledger", help="Else the project's.", metavar="FILE")]
OfficerKeyOption = Annotated[
    Path | None, typer.Option("--key", help="An officer's signing key; else the project's.", metavar="FILE")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in one line; it stays in the ledger.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Who acts; else the user's name.")]

app = typer.Typer(help="The privacy ledger: grants, releases, what is left.", no_args_is_help=True)


@app.command()
def grant(
    epsilon: Annotated[float, typer.Option(help="What all releases together may spend.")],
    delta: Annotated[float, typer.Option(help="Likewise; well below one over the number of rows.")],
    reason: Annotated[str, typer.Option(help="Who allowed this and why, one line.")],
    filter: Annotated[
        Literal["basic", "renyi"] | None,
        typer.Option(
            help="How releases add up: basic adds epsilons, renyi Renyi DP at one order. Fixed by the first release."
        ),
    ] = None,
    order: Annotated[
        float | None, typer.Option(help="Of the Renyi filter; else the one at which most releases fit.")
    ] = None,
    actor: ActorOption = None,
    ledger: LedgerOption = None,
    key: OfficerKeyOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Set the total budget of the data set, by an officer's signature. A new grant replaces the one before; it may raise or lower it."""
    with reporting(as_json) as report:
        opened, who, signer = officer_of(ledger, project, key, actor)
        before = opened.summary()
        entry = opened.grant(
            epsilon=epsilon, delta=delta, reason=reason, actor=who, key=signer, filter=filter, order=order
        )
        summary = opened.summary()
        changed = f" (before: {before.granted_epsilon:g} at {before.granted_delta:g})" if before.granted_epsilon else ""
        counted = "" if summary.order is None else f" Releases add up by a Renyi filter of order {summary.order:g}."
        report(
            {"entry": entry.sequence, "hash": entry.hash, **books(summary)},
            f"Granted: all releases together may now spend epsilon {summary.granted_epsilon:g} at delta "
            f"{summary.granted_delta:g}{changed}.{counted}\n{left(summary)}",
        )


@app.command()
def show(ledger: LedgerOption = None, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Show every entry: who, when, why, what was read, what it cost, and what is left."""
    with reporting(as_json) as report:
        from distill.ledger.verification import summarise

        state = opened_ledger(ledger, project).state()
        entries, summary = state.entries, summarise(state)
        rows = _rows(entries)
        standing = [_release(r) for r in summary.standing]
        payload = {**books(summary), "standing": standing, "rows": rows, "entries": entries}
        report(payload, None if as_json else _page(rows, summary))


@app.command()
def verify(
    public_key: Annotated[
        list[Path] | None,
        typer.Option(
            help="Public key (.pub) of an officer or operator, from outside; else the project's.", metavar="FILE"
        ),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Bundles that this ledger must account for.", metavar="BUNDLE")
    ] = None,
    ledger: LedgerOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Check chain, signatures and rules, and recompute every epsilon from the recorded noise by two accountants."""
    with reporting(as_json) as report:
        opened = opened_ledger(ledger, project)
        found = opened.verify(*keys_from_outside(public_key, ledger, project))
        accounted = [_accounted(opened, path) for path in against or ()]
        report(_verified(found, accounted), None if as_json else _verdict(found, accounted))


@app.command()
def resolve(
    release: Annotated[str, typer.Argument(help="Id of the standing release, or its beginning, as `show` prints it.")],
    reason: ReasonOption,
    actor: ActorOption = None,
    ledger: LedgerOption = None,
    key: OfficerKeyOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Close a release that will not finish: spent in full, or its row count alone where the ledger proves that nothing else was read."""
    with reporting(as_json) as report:
        opened, who, signer = officer_of(ledger, project, key, actor)
        entry = opened.resolve(release, reason=reason, actor=who, key=signer)
        summary = opened.summary()
        closed = next(r for r in summary.releases if r.release == entry.body["release"])
        why = "its plan was on the books, so rows may have been read" if closed.was_planned else "it was never planned"
        report(
            {"entry": entry.sequence, "release": closed.release, "epsilon": closed.charged.epsilon, **books(summary)},
            f"Closed release {closed.release[:8]}: epsilon {closed.charged.epsilon:.4g} is spent on it ({why}).\n{left(summary)}",
        )


@app.command()
def link(
    other: Annotated[Path, typer.Argument(help="Ledger of the other data set.", metavar="LEDGER")],
    reason: ReasonOption,
    name: Annotated[str | None, typer.Option(help="What the other data set is called; else its folder's name.")] = None,
    actor: ActorOption = None,
    ledger: LedgerOption = None,
    key: OfficerKeyOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Declare that another data set holds some of the same customers: for them, what both spend adds up."""
    with reporting(as_json) as report:
        from distill.ledger import open_ledger

        opened, who, signer = officer_of(ledger, project, key, actor)
        known = open_ledger(other)
        called = name or other.resolve().parent.name
        entry = opened.link(known.dataset, name=called, reason=reason, actor=who, key=signer)
        mine, theirs = opened.summary(), known.summary()
        epsilon, delta = mine.spent_epsilon + theirs.spent_epsilon, mine.spent_delta + theirs.spent_delta
        report(
            {
                "entry": entry.sequence,
                "dataset": known.dataset,
                "name": called,
                "epsilon_sum": epsilon,
                "delta_sum": delta,
            },
            f"Linked to {called} ({known.dataset}): for a customer in both, epsilon {epsilon:.4g} at delta {delta:.3g} is spent so "
            "far. `distill ledger report --with LEDGER` shows the sum. Declare it in the other ledger too.",
        )


def opened_ledger(ledger: Path | None, folder: Path) -> "Ledger":
    """The ledger that was named, or the project's."""
    from distill.ledger import open_ledger

    if ledger is not None:
        return open_ledger(ledger)
    return project_at(folder).ledger()


def keys_from_outside(given: list[Path] | None, ledger: Path | None, folder: Path) -> list[str]:
    """The public keys (hex) that a ledger is checked against: as given, else the project's officer's and operator's."""
    from distill.common.keys import load_public_key, public_path_of

    paths = list(given or ())
    if not paths and ledger is None:
        settings = project_at(folder)
        paths = [p for p in map(public_path_of, (settings.officer, settings.key)) if p.exists()]
    return [load_public_key(path) for path in paths]


def officer_of(
    ledger: Path | None, folder: Path, key: Path | None, actor: str | None
) -> "tuple[Ledger, str | None, SigningKey]":
    """The ledger, who acts (None: the user), and the officer's key: the one that was named, or the project's."""
    from distill.common.keys import load_signing_key, passphrase_from_environment
    from distill.errors import KeyFileError

    opened = opened_ledger(ledger, folder)
    path = key if key is not None else project_at(folder).officer
    if key is None and not path.exists():
        raise KeyFileError(
            f"the officer's signing key is not here ({path}); the officer, who holds it, names it with --key."
        )
    return opened, actor or None, load_signing_key(path, passphrase=passphrase_from_environment())


def books(summary: "LedgerSummary") -> dict[str, Any]:
    """The summary's figures, as JSON shows them."""
    names = ("granted", "spent", "remaining")
    figures = {f"{n}_{what}": getattr(summary, f"{n}_{what}") for n in names for what in ("epsilon", "delta")}
    where = {"dataset": summary.dataset, "unit": summary.unit, "relation": summary.relation}
    counted = {"filter": summary.filter, "order": summary.order}
    members = [m.model_dump() for m in summary.members]
    return {**where, "head": summary.head, "public_key": summary.public_key, "members": members, **counted, **figures}


def left(summary: "LedgerSummary") -> str:
    """What was spent and what is left, in a line."""
    return (
        f"Spent: epsilon {summary.spent_epsilon:.4g} of {summary.granted_epsilon:g}, delta {summary.spent_delta:.3g} of "
        f"{summary.granted_delta:g}. Left: epsilon {summary.remaining_epsilon:.4g}, delta {summary.remaining_delta:.3g}."
    )


def _release(release: Any) -> dict[str, Any]:
    names = ("release", "time", "actor", "purpose", "status", "rehearsal", "epsilon", "delta")
    return {name: getattr(release, name) for name in names}


def _rows(entries: "list[Entry]") -> list[dict[str, Any]]:
    """One line an entry: what it did to the books."""
    from distill.ledger.rules.state import State

    state, ended, rows = State(), _ended(entries), []
    for entry in entries:
        state.apply(entry)
        body, (spent_epsilon, spent_delta) = entry.body, state.spent()
        release = state.releases.get(body.get("release", ""))
        rows.append(
            {
                "sequence": entry.sequence,
                "time": entry.time,
                "actor": entry.actor,
                "kind": entry.kind,
                "purpose": _why(entry, release),
                "release": release.release if release else None,
                "read": _read(body.get("events", ())),
                "epsilon": body.get("epsilon") if entry.kind == "grant" or release is None else release.charged.epsilon,
                "epsilon_release": body.get("epsilon_release"),
                "epsilon_total": spent_epsilon,
                "delta_total": spent_delta,
                "epsilon_remaining": state.grant.left(state.total)[0],
                "standing": entry.kind == "reserve" and body["release"] not in ended,
            }
        )
    return rows


def _why(entry: "Entry", release: "Release | None") -> str:
    """Why an entry was written, and whom or what else it concerns."""
    body = entry.body
    match entry.kind:
        case "open":
            return ", ".join(f"{m['role']} {m['name']} {m['public_key'][:8]}" for m in body["members"])
        case "enrol":
            member = body["member"]
            return f"{member['role']} {member['name']} {member['public_key'][:8]}: {body['reason']}"
        case "retire":
            return f"{body['role']} {body['public_key'][:8]}: {body['reason']}"
        case "rotate":
            return f"{entry.public_key[:8]} to {body['new_key'][:8]}: {body['reason']}"
        case "link":
            return f"shares customers with {body['name']} ({body['dataset'][:8]}): {body['reason']}"
        case "grant" | "abandon" | "resolve":
            return str(body["reason"])
    purpose = release.purpose if release else ""
    return f"{body['warning']}: {purpose}" if body.get("warning") else purpose


def _read(events: Any) -> str:
    """Which stages a reservation or a plan lets read, and in how many training steps."""
    steps: dict[str, int] = {}
    for event in events:
        stage = event["name"].split(".")[0]
        steps[stage] = steps.get(stage, 0) + (event["count"] if event["mechanism"] == "poisson_gaussian" else 0)
    return ", ".join(f"{stage} ({count} steps)" if count else stage for stage, count in steps.items())


def _ended(entries: "list[Entry]") -> set[str]:
    """Releases that are over."""
    return {e.body["release"] for e in entries if e.kind in ("commit", "abandon", "resolve")}


def _page(rows: list[dict[str, Any]], summary: "LedgerSummary") -> "Group":
    """The books for people."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Table | Text] = [_table(rows), Text(left(summary))]
    if summary.standing:
        ids = ", ".join(f"{r.release[:8]} ({r.status})" for r in summary.standing)
        parts += [Text(f"{len(summary.standing)} standing: {ids}. {STANDING}", style="bold yellow")]
    parts.append(Text(f"Unit: {summary.unit}, {summary.relation}. Head: {summary.head}"))
    return Group(*parts)


def _table(rows: list[dict[str, Any]]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Privacy ledger", box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name in ("#", "when (UTC), who", "kind", "why, and what it reads"):
        table.add_column(name, overflow="fold")
    for name in ("epsilon", "so far", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        when = row["time"][:10]
        kind = f"{row['kind']}\n(STANDING)" if row["standing"] else row["kind"]
        why = f"{row['purpose']}\nreads {row['read']}" if row["read"] else row["purpose"]
        epsilon = "" if row["epsilon"] is None else f"{row['epsilon']:.4g}"
        numbers = (epsilon, f"{row['epsilon_total']:.4g}", f"{row['epsilon_remaining']:.4g}")
        texts = (str(row["sequence"]), f"{when}\n{row['actor']}", kind, why, *numbers)
        table.add_row(*(Text(t) for t in texts), style="bold yellow" if row["standing"] else None)
    return table


def _accounted(ledger: "Ledger", path: Path) -> dict[str, Any]:
    """A bundle or published evaluation of this ledger: its head is in the chain, and its release committed with its digest."""
    from distill.errors import LedgerTamperedError
    from distill.exchange.bundle import read_bundle
    from distill.exchange.evaluation_document import is_evaluation, read_document

    if is_evaluation(path):
        document, digest = read_document(path)
        head = str(document["head"])
    else:
        found = read_bundle(path)
        head, digest = found.manifest.ledger.head, found.digest
    if not ledger.knows(head):
        raise LedgerTamperedError(
            f"{ledger.path} does not hold entry {head}, which {path} carries as its head: "
            "the ledger was rolled back or replaced. Restore the newest backup."
        )
    release = next((r for r in ledger.summary().releases if r.bundle == digest), None)
    return {"bundle": path, "digest": digest, "release": release.release if release else None}


def _verified(found: "Verification", accounted: list[dict[str, Any]]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "verified": True,
        "key_given": found.key_given,
        "vouched": found.vouched,
        "strangers": [m.model_dump() for m in found.strangers],
        **books(found.summary),
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
    lines += [
        f"Signed also by {m.role} {m.name}, key {m.public_key}: nobody told to expect it, so compare it (--public-key)."
        for m in found.strangers
    ]
    return "\n".join([*lines, left(found.summary)])
