"""`distill ledger report`, `export` and `diff`: what a privacy officer signs, hands on and compares."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.ledger.books import LedgerOption, books, keys_from_outside, left, opened_ledger
from cli.shared.output import JsonOption, ProjectOption, project_at, reporting

if TYPE_CHECKING:
    from distill.audit import Audit, Comparison
    from distill.audit.diff import Chain
    from distill.audit.report.linked import Linked

KeysOption = Annotated[
    list[Path] | None,
    typer.Option("--public-key", help="Of an officer or operator, from outside; else the project's.", metavar="PUB"),
]
MOST_LISTED = 20


def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="The report, one HTML file.", metavar="FILE.html")],
    other: Annotated[
        list[Path] | None,
        typer.Option("--with", help="Ledger of a linked data set, to add up. May be repeated.", metavar="LEDGER"),
    ] = None,
    utility: Annotated[
        Path | None,
        typer.Option(
            help="About usefulness, to attach: what `evaluate --json` printed, or text. The report is then for the house only.",
            metavar="FILE",
        ),
    ] = None,
    public_key: KeysOption = None,
    ledger: LedgerOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Verify the ledger and write the audit report to sign: one HTML file, to read in a browser or print."""
    with reporting(as_json) as say:
        from distill.audit import audit
        from distill.audit.report.page import render
        from distill.common import files
        from distill.errors import ConfigError

        opened = opened_ledger(ledger, project)
        keys = keys_from_outside(public_key, ledger, project)
        found = audit(opened, *keys, name=_name(ledger, project), others=other or (), utility=utility)
        with files.wrapped("write the report", out, ConfigError):
            files.write_whole(out, render(found).encode("utf-8"))
        say(_figures(found, out), _told(found, out))


def export(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; else standard output.", metavar="FILE.json")
    ] = None,
    format: Annotated[
        Literal["ledger", "registry"],
        typer.Option(help="ledger: all entries, for an auditor. registry: an entry for the public registry."),
    ] = "ledger",
    public_key: KeysOption = None,
    ledger: LedgerOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write the ledger as JSON: whole, to recompute (`python -m distill.recompute FILE`), or as a registry entry."""
    with reporting(as_json) as say:
        from distill.audit import export_ledger, registry_entry
        from distill.audit.export import export_bytes
        from distill.common import files
        from distill.errors import ConfigError

        opened = opened_ledger(ledger, project)
        if format == "registry":
            keys = keys_from_outside(public_key, ledger, project)
            written: dict[str, Any] = registry_entry(opened, *keys, institution=_name(ledger, project))
            data = (json.dumps(written, indent=2, ensure_ascii=False) + "\n").encode()
            told = f"{len(written['to_fill'])} fields are for a person to fill in (see `to_fill`)"
        else:
            written = export_ledger(opened)
            data = export_bytes(written)
            told = f"{len(written['entries'])} entries; recompute them with `python -m distill.recompute {out}`"
        if out is None:
            say(written, data.decode().rstrip("\n"))
            return
        with files.wrapped("write the export", out, ConfigError):
            files.write_whole(out, data)
        say({"out": out, "format": format, "bytes": len(data)}, f"wrote {out}: {told}")


def diff(
    first: Annotated[Path, typer.Argument(help="A ledger, an exported one, or a bundle.", metavar="A")],
    second: Annotated[Path, typer.Argument(help="Another copy of the same ledger.", metavar="B")],
    as_json: JsonOption = False,
) -> None:
    """Compare two copies of a ledger: equal, one older than the other (exit code 0), or parted ways (exit code 2)."""
    with reporting(as_json) as say:
        from distill.audit import compare, read_chain
        from distill.errors import LedgerTamperedError

        found = compare(read_chain(first), read_chain(second))
        say(_differences(found), _compared(found))
        if found.relation == "forked":
            raise LedgerTamperedError(
                f"{first} and {second} part ways after entry {found.common}: one ledger was copied and both copies were used, "
                "or one was rolled back and continued. Stop all releases, keep both files, and find out how; then go on with "
                "one copy and a grant that leaves room for what both have spent."
            )


def _name(ledger: Path | None, project: Path) -> str | None:
    """The institution's name, where the ledger is its project's."""
    return project_at(project).name if ledger is None else None


def _figures(found: "Audit", out: Path) -> dict[str, Any]:
    """The report's figures."""
    verification = found.verification
    return {
        "out": out,
        "verified": True,
        "key_given": verification.key_given,
        "vouched": verification.vouched,
        "made": found.made,
        "software": found.software,
        **books(found.summary),
        "rows_per_unit": found.rows_per_unit,
        "worlds": asdict(found.worlds),
        "spent": asdict(found.spent) if found.spent else None,
        "granted": asdict(found.granted) if found.granted else None,
        "curves": asdict(found.curves),
        "releases": [asdict(line.audited) | {"counted": line.release.charged.epsilon} for line in found.releases],
        "standing": [r.release for r in found.summary.standing],
        "grants": [asdict(g) for g in found.grants],
        "people": [asdict(p) for p in found.people],
        "linked": _sum(found.linked),
        "checks": verification.checks,
    }


def _sum(linked: "Linked") -> dict[str, Any]:
    """The sum over linked data sets."""
    figures = ("spent_epsilon", "spent_delta", "granted_epsilon", "granted_delta")
    return {
        "included": [{"name": n.name, **books(n.verification.summary)} for n in linked.neighbours],
        "not_included": [asdict(m) for m in linked.missing],
        "complete": not linked.missing,
        **{name: getattr(linked, name) for name in figures},
    }


def _told(found: "Audit", out: Path) -> str:
    """What the officer is told beside the file."""
    lines = [
        f"The ledger verifies. Wrote {out}: read it in a browser, print it, sign the last page.",
        left(found.summary),
    ]
    if not found.verification.key_given:
        lines.append("No key was given from outside (--public-key), so the ledger vouches for its own signers.")
    for neighbour in found.linked.neighbours:
        lines.append(f"Added up with {neighbour.name}, which verifies.")
    for missing in found.linked.missing:
        lines.append(
            f"Not included: {missing.name} ({missing.dataset}); the sum is unknown. Give it with --with LEDGER."
        )
    if found.linked.neighbours:
        sums = f"epsilon {found.linked.spent_epsilon:.4g} at delta {found.linked.spent_delta:.3g}"
        lines.append(f"For a customer in all that are included: {sums} is spent.")
    return "\n".join(lines)


def _differences(found: "Comparison") -> dict[str, Any]:
    """The comparison as plain values."""

    def side(chain: "Chain") -> dict[str, Any]:
        after = [chain.described(number) for number in found.after(chain)]
        head = chain.hashes[-1]
        return {"file": chain.path, "kind": chain.kind, "entries": len(chain.hashes), "head": head, "after": after}

    return {
        "relation": found.relation,
        "dataset": found.first.dataset,
        "common": found.common,
        "a": side(found.first),
        "b": side(found.second),
        "together": None if found.together is None else dict(zip(("epsilon", "delta"), found.together, strict=True)),
    }


def _compared(found: "Comparison") -> str:
    """The comparison in words."""
    if found.relation == "equal":
        return f"Equal: {found.common} entries, head {found.first.hashes[-1]}."
    if found.relation == "forked":
        lines = [f"Forked: the first {found.common} entries are the same, then they part."]
        lines += [line for chain in (found.first, found.second) for line in _listed(found, chain)]
        if found.together is not None:
            epsilon, delta = found.together
            lines.append(f"What both copies spent, added up: epsilon {epsilon:.4g}, delta {delta:.3g}.")
        return "\n".join(lines)
    older, newer = (found.first, found.second) if found.relation == "first is older" else (found.second, found.first)
    count = len(found.after(newer))
    head = (
        f"{older.path} is the beginning of {newer.path}, which is newer by {count} entr{'y' if count == 1 else 'ies'}:"
    )
    return "\n".join([head, *_listed(found, newer)[1:]])


def _listed(found: "Comparison", chain: "Chain") -> list[str]:
    """The entries that a chain has after the common ones; of many, the first."""
    after = found.after(chain)
    more = [f"  ... and {len(after) - MOST_LISTED} more"] if len(after) > MOST_LISTED else []
    return [f"{chain.path} goes on with:", *(f"  {chain.described(n)}" for n in after[:MOST_LISTED]), *more]
