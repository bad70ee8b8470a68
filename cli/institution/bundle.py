"""`distill bundle`: look into a bundle, check it, take its rows out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.shared.output import CompressOption, JsonOption, ProjectOption, project_at, reporting

if TYPE_CHECKING:
    from distill.exchange.bundle import Bundle
    from distill.exchange.manifest import Privacy

FileArgument = Annotated[Path, typer.Argument(help="The bundle.", metavar="FILE")]
KeyOption = Annotated[
    Path | None, typer.Option("--key", help="The institution's public key (.pub) that must have signed.", metavar="PUB")
]
UNCOMPARED = "No key was given (--key), so anybody could have signed: compare this one with what the institution says."

LEAST_ROWS = 50_000  # of an export: rows are free to draw, and classifiers trained on few rows are the worse for it
app = typer.Typer(
    help="Look into a bundle, check it, export its rows, make it smaller, recover it after a crash.",
    no_args_is_help=True,
)


@app.command()
def inspect(
    file: FileArgument, key: KeyOption = None, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Show what a bundle holds and what it cost; it is verified first."""
    with reporting(as_json) as report:
        bundle = _checked(file, key, project)
        payload = {"file": file, "sha256": bundle.digest, "bytes": bundle.size, "rows": len(bundle.samples)}
        payload["tensors"] = {
            group: {name: f"{a.dtype}{list(a.shape)}" for name, a in tensors.items()}
            for group, tensors in bundle.tensors.items()
        }
        report({**payload, "manifest": bundle.manifest}, None if as_json else _page(bundle))


@app.command()
def verify(
    file: FileArgument, key: KeyOption = None, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Check every byte, signature, digest, the ledger's entries, the stated epsilon, and every sample."""
    with reporting(as_json) as report:
        from distill.exchange.bundle import CHECKS

        bundle = _checked(file, key, project)
        manifest, compared = bundle.manifest, key is not None
        payload = {
            "verified": True,
            "file": file,
            "sha256": bundle.digest,
            "public_key": manifest.public_key,
            "key_given": compared,
            "rehearsal": manifest.rehearsal,
            "epsilon": manifest.privacy.epsilon,
            "delta": manifest.privacy.delta,
            "checks": CHECKS,
        }
        lines = [f"{file} verifies:", *(f"  ok  {check}" for check in CHECKS), f"Signed by {manifest.public_key}."]
        lines += [] if compared else [UNCOMPARED]
        lines += [_warning()] if manifest.rehearsal else []
        report(payload, "\n".join(lines))


@app.command()
def export(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV or Parquet, by suffix.", metavar="OUT")],
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"How many to draw; else as many as the institution has (noisy), at least {LEAST_ROWS:,}."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    stored: Annotated[
        bool, typer.Option("--stored", help="Draw nothing: write the rows that lie in the bundle.")
    ] = False,
    key: KeyOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write rows as CSV or Parquet. Any number of them may be drawn: that is post-processing and costs no budget."""
    with reporting(as_json) as report:
        from distill.data.tables import write_table
        from distill.errors import BundleError

        bundle = _checked(file, key, project)
        if stored and bundle.samples.empty:
            raise BundleError(f"{file} stores no rows; leave out --stored, and any number is drawn from it.")
        wanted = rows or max(bundle.manifest.noisy_rows, LEAST_ROWS)
        frame = bundle.samples.head(rows or len(bundle.samples)) if stored else bundle.generator().draw(wanted, seed)
        write_table(frame, out)
        if bundle.manifest.rehearsal:
            report.note(_warning())
        report(
            {"file": file, "out": out, "rows": len(frame), "drawn": not stored},
            f"wrote {len(frame):,} rows to {out}"
            + ("" if stored else " (drawn from the bundle; more or fewer with --rows, at no privacy cost)"),
        )


@app.command()
def shrink(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The smaller bundle.", metavar="FILE.distill")],
    compress: CompressOption = "default",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there already.")] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a smaller bundle of the same release. Reads no row and costs no budget; needs the project that made it."""
    with reporting(as_json) as report:
        from distill.common.keys import load_signing_key, passphrase_from_environment
        from distill.releases.shrink import shrink_bundle

        settings, bundle = project_at(project), _checked(file, None, project)
        books = settings.ledger()
        key = load_signing_key(settings.key, passphrase=passphrase_from_environment())
        digest = shrink_bundle(bundle, compress, out, ledger=books, key=key, overwrite=overwrite)
        size = out.stat().st_size
        report(
            {
                "file": file,
                "out": out,
                "level": compress,
                "digest": digest,
                "bytes": size,
                "derived_from": bundle.digest,
            },
            f"wrote {out}: {size / 1000:,.1f} kB instead of {bundle.size / 1000:,.1f} kB, of the same release",
        )


@app.command()
def recover(
    out: Annotated[
        Path | None,
        typer.Option(help="Where the fit was to put its bundle; else the project's.", metavar="FILE.distill"),
    ] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Put a bundle in place whose fit was cut short after its release was committed. `fit` does so by itself when it starts."""
    with reporting(as_json) as report:
        from distill.releases.placement import recover as put_right

        settings = project_at(project)
        found = put_right(out or settings.out, settings.ledger())
        placed = [{"bundle": place, "release": release.release} for place, release in found.placed]
        lines = [
            f"{place} is the bundle of release {release.release[:8]}: put in place" for place, release in found.placed
        ]
        lines += [f"{path} was never committed: removed" for path in found.removed]
        report({"placed": placed, "removed": found.removed}, "\n".join(lines) or "nothing was left behind")


def _checked(file: Path, key: Path | None, folder: Path) -> "Bundle":
    """The bundle, verified; a FILE that is not there is looked for in the project's folder too."""
    from distill.exchange.bundle import read_bundle

    if not file.is_absolute() and not file.exists() and folder != Path():
        file = project_at(folder).folder / file
    return read_bundle(file, key=key)


def _warning() -> str:
    from distill.ledger import REHEARSAL

    return f"{REHEARSAL}: its noise is repeatable, so it must not leave the institution."


def _counted(privacy: "Privacy") -> str:
    """What the noisy count counts."""
    return "units" if privacy.rows_per_unit == 1 else f"rows, at most {privacy.rows_per_unit} a unit"


def _protected(privacy: "Privacy") -> str:
    """The unit, and how many rows it may have where there is a choice."""
    many = privacy.rows_per_unit
    return privacy.unit if many == 1 else f"{privacy.unit} (all its rows together, at most {many})"


def _page(bundle: "Bundle") -> Any:
    """What the bundle says, for people."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    manifest, privacy = bundle.manifest, bundle.manifest.privacy
    facts = {
        "institution": manifest.institution,
        "data set": manifest.dataset,
        "written": f"{manifest.created} by {manifest.software}",
        "schema": f"{manifest.schema_.name}, {len(manifest.schema_.columns)} columns, digest {manifest.schema_digest}",
        "target": _target(bundle),
        "level": manifest.level + (f", shrunk from {manifest.derived_from}" if manifest.derived_from else ""),
        "rows": f"{len(bundle.samples)} stored; about {manifest.noisy_rows} real {_counted(privacy)} (noisy count)",
        "privacy": f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g} for each {_protected(privacy)}, {privacy.relation}",
        "ledger head": manifest.ledger.head,
        "signed by": manifest.public_key,
        "file": f"{bundle.size} bytes, SHA-256 {bundle.digest}",
    }
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(name, Text(_shown(value), overflow="fold"))
    events = Table(title="Reads of the private table")
    for name in ("event", "mechanism", "noise / sensitivity", "rate", "runs", "round"):
        events.add_column(name)
    for e in privacy.events:
        numbers = (f"{e.noise_multiplier:.4g}", f"{e.sampling_rate:.4g}", str(e.count), str(e.round))
        events.add_row(Text(_shown(e.name)), e.mechanism, *numbers)
    warning = [Text(_warning(), style="bold red")] if manifest.rehearsal else []
    return Group(*warning, grid, events)


def _target(bundle: "Bundle") -> str:
    """What is predicted, with the noisy shares of its classes or ranges."""
    schema = bundle.manifest.schema_
    if schema.task is None:
        return "none: the bundle is for its rows"
    what = "class shares" if schema.task == "classes" else "a number, shares of its bins"
    return f"{schema.target}, {what} {', '.join(f'{s:.3f}' for s in bundle.manifest.class_prior)}"


def _shown(text: str) -> str:
    """Text from a stranger without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
