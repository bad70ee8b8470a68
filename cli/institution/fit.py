"""`distill fit`: from the private table to the one signed bundle that leaves the institution."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.institution.plan_view import ShareOption
from cli.shared.output import (
    CompressOption,
    JsonOption,
    ProjectOption,
    RowsPerUnitOption,
    progress_console,
    project_at,
    reporting,
)
from cli.shared.progress import progress_bars

if TYPE_CHECKING:
    from rich.console import Group

    from distill.releases.fit import Receipt

STAGES = {
    "size": "0 size: noisy row count",
    "encode": "1 encode: bins and class counts",
    "relate": "2 relate: pairs",
    "represent": "3 represent: autoencoder",
    "cluster": "4 cluster: dense regions",
    "refine": "5 refine: candidates, critic",
    "select": "6 select: quality control",
}
INTERRUPTED = (
    "If the release was reserved already, its reservation stands and counts as spent in full: see `distill ledger show`. If it was "
    "committed already, its bundle is in place."
)


def fit(
    epsilon: Annotated[float | None, typer.Option(help="Budget of this release; else the project's.")] = None,
    delta: Annotated[float | None, typer.Option(help="Else the project's.")] = None,
    data: Annotated[Path | None, typer.Option(help="Private table, CSV or Parquet; else the project's.")] = None,
    schema: Annotated[Path | None, typer.Option(help="Public schema; else the project's.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger; else the project's.")] = None,
    key: Annotated[Path | None, typer.Option(help="Signing key; else the project's.")] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle; else the project's.", metavar="FILE.distill")] = None,
    compress: CompressOption = "default",
    samples: Annotated[
        int | None,
        typer.Option(help="Refined rows stored in the bundle; else what --compress says.", min=0, max=1_000_000),
    ] = None,
    institutions: Annotated[
        int,
        typer.Option(help="How many institutions the hub will pool: tunes the class head for their average.", min=1),
    ] = 1,
    global_prior: Annotated[
        Path | None,
        typer.Option(
            help="The hub's joint model of an earlier cycle: noisy statistics are moved towards it as far as their noise goes. "
            "Costs no budget.",
            metavar="FILE",
        ),
    ] = None,
    hub_key: Annotated[
        Path | None,
        typer.Option(help="Public key of the hub that signed the global prior; else the project's.", metavar="KEY.pub"),
    ] = None,
    share: ShareOption = None,
    max_rows_per_unit: RowsPerUnitOption = 1,
    purpose: Annotated[str, typer.Option(help="Why, in one line, for the ledger.")] = "distill fit",
    rehearsal: Annotated[
        int | None,
        typer.Option(help="Seed of a repeatable run that is NOT PRIVATE and must stay here.", min=0, metavar="SEED"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there already.")] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where networks are trained; auto takes a GPU where there is one."),
    ] = "auto",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Distil the private table into one signed bundle under a differential-privacy budget."""
    with reporting(as_json, interrupted=INTERRUPTED) as report:
        from cli.institution.plan_view import plan_table, read_shares

        named = {"schema": schema, "ledger_file": ledger, "key": key, "hub_key": hub_key}
        given: dict[str, Any] = {name: path for name, path in named.items() if path is not None}
        settings = replace(project_at(project), **given)
        console = progress_console(quiet=as_json)
        with progress_bars(console, STAGES) as progress:
            receipt = settings.fit(
                data,
                epsilon=epsilon,
                delta=delta,
                out=out,
                purpose=purpose,
                level=compress,
                institutions=institutions,
                samples=samples,
                shares=read_shares(share),
                rows_per_unit=max_rows_per_unit,
                prior=global_prior,
                rehearsal=rehearsal,
                overwrite=overwrite,
                device=device,
                progress=progress,
                announce=lambda plan: console.print(plan_table(plan)),
            )
        report(receipt_payload(receipt), _receipt(receipt))


def receipt_payload(receipt: "Receipt") -> dict[str, Any]:
    """A receipt as plain values."""
    return {
        "bundle": str(receipt.bundle),
        "digest": receipt.digest,
        "bytes": receipt.size,
        "epsilon": receipt.epsilon,
        "delta": receipt.plan.delta,
        "epsilon_reserved": receipt.plan.epsilon,
        "noisy_rows": receipt.noisy_rows,
        "reads": receipt.reads,
        "release": receipt.release,
        "ledger_head": receipt.head,
        "rehearsal": receipt.rehearsal,
        "linked": list(receipt.linked),
        "global_prior": receipt.prior,
    }


def _receipt(receipt: "Receipt") -> "Group":
    """The privacy receipt."""
    from rich.console import Group
    from rich.text import Text

    linked = [f"  linked     to {', '.join(receipt.linked)}: for customers in both, budgets add up"]
    lines = [
        "privacy receipt"
        + ("  REHEARSAL, NOT PRIVATE: this bundle must not leave the house" if receipt.rehearsal else ""),
        f"  spent      epsilon {receipt.epsilon:.4f} of {receipt.plan.epsilon:g} reserved, delta {receipt.plan.delta:g}, in one release",
        f"  reads      {sum(receipt.reads.values())} reads of the table under {len(receipt.reads)} planned mechanisms, all in the ledger",
        f"  rows       about {receipt.noisy_rows:,} (noisy; the exact count was not released)",
        f"  bundle     {receipt.bundle}  ({receipt.size / 1000:,.0f} kB, SHA-256 {receipt.digest[:16]}...)",
        f"  ledger     release {receipt.release[:8]}, head {receipt.head[:16]}...",
        *(
            [f"  prior      global prior {receipt.prior[:16]}... of the hub; it cost no budget"]
            if receipt.prior
            else []
        ),
        *(linked if receipt.linked else []),
        "next: send the bundle to the hub; `distill ledger verify` recomputes every epsilon",
    ]
    return Group(*(Text(line) for line in lines))
