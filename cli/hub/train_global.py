"""`distill train-global`: the hub's command, from signed bundles to one model with its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.hub.trust import (
    HubOption,
    RegistryOption,
    RehearsalOption,
    TrustOption,
    UnknownOption,
    hub_store,
    public_keys,
    registry_at,
)
from cli.shared.output import JsonOption, ProjectOption, progress_console, project_at, reporting
from cli.shared.progress import progress_bars

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from server_train.hub.prior import PriorPlace
    from server_train.hub.results import GlobalResult, PoolResult
    from server_train.models.cards import InstitutionCard, Readings

DEFAULT_OUT = "global-model"
TERMS = {
    "label_balance": 2,
    "diversity": 1,
    "agreement": 2,
    "direction": 2,
    "effect": 2,
}  # of a contribution, with digits
STAGES = {
    "verify": "verifying bundles",
    "pool": "pooling and labelling",
    "train": "training",
    "personalise": "personalising",
}


def train_global(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(help="Bundle files, or folders of them; else those in the project's folder.", metavar="BUNDLE"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help=f"Folder for the model; else {DEFAULT_OUT} in the project's folder.", metavar="DIR"),
    ] = None,
    export_pool: Annotated[
        Path | None, typer.Option(help="Also write the pooled rows, CSV or Parquet.", metavar="FILE")
    ] = None,
    prepare: Annotated[
        Path | None,
        typer.Option(
            help="Only write the pool, with its soft labels, for `python -m server_train` (Parquet).", metavar="FILE"
        ),
    ] = None,
    global_prior: Annotated[
        Path | None,
        typer.Option(
            help="Also write the institutions' joint model, signed, for their next `fit --global-prior`.",
            metavar="FILE",
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The hub's own key, which signs the global prior.", metavar="FILE")
    ] = None,
    personalise: Annotated[
        bool, typer.Option("--personalise", help="Also train a model for each institution: DIR/personal/NAME.")
    ] = False,
    rows: Annotated[int | None, typer.Option(help="Rows to pool; else by the institutions' sizes.", min=20)] = None,
    model: Annotated[
        Literal["mlp", "logistic", "boosting"],
        typer.Option(help="Kind of model: a network, a logistic regression, gradient-boosted trees."),
    ] = "mlp",
    class_weights: Annotated[
        list[str] | None,
        typer.Option(
            help="How much more a class counts in training: none, balanced, NAME=WEIGHT (again for each class), or a JSON file.",
            metavar="WEIGHTS",
        ),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Fit the scores to held-out synthetic rows; takes class weights back, too.")
    ] = True,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx, for other systems.")] = False,
    seed: Annotated[int, typer.Option(help="Repeats pool and training (post-processing: it may be known).", min=0)] = 0,
    allow_rehearsal: RehearsalOption = False,
    trust: TrustOption = None,
    allow_unknown_signers: UnknownOption = False,
    hub: HubOption = None,
    registry: RegistryOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Verify bundles, pool them, and train one model centrally: model.safetensors, model.json, report.html; model.onnx.

    Every signer must be trusted, and every bundle must agree with all that the hub has seen of its ledger, which it remembers.
    Each model is kept as a version in the registry of models (`distill models`), models.db.
    Pools of any size are trained on from disk; several processes share the work by --prepare FILE, then
    `torchrun --nproc-per-node N -m server_train --pool FILE --out DIR`.
    Where the schema names no target there is no model to train: --export-pool FILE then gives the pooled rows alone.
    """
    with reporting(as_json, interrupted="No model was written.") as report:
        from server_train.hub.job import train_global as run
        from server_train.hub.outputs import Outputs
        from server_train.hub.request import TrainingRequest
        from server_train.hub.results import GlobalResult
        from server_train.intake.admission import Admission
        from server_train.training.class_weights import read_class_weights
        from server_train.training.fit import ModelChoice
        from server_train.training.network import TrainingSettings

        choice = ModelChoice(kind=model, class_weights=read_class_weights(class_weights), calibrate=calibrate)
        place = _prior_place(global_prior, key)
        request = TrainingRequest(
            bundles=tuple(bundles or _bundles_in(project)),
            rows=rows,
            personalise=personalise,
            settings=TrainingSettings(seed=seed),
            choice=choice,
            admission=Admission(
                trusted=public_keys(trust),
                hub=hub_store(hub, project),
                allow_unknown_signers=allow_unknown_signers,
                allow_rehearsal=allow_rehearsal,
            ),
        )
        outputs = Outputs(
            folder=out or project / DEFAULT_OUT,
            export_pool=export_pool,
            prepare=prepare,
            onnx=onnx,
            prior=place,
            registry=registry_at(registry, project),
        )
        with progress_bars(progress_console(quiet=as_json), STAGES, counted=True) as progress:
            result = run(request, outputs, progress=progress)
        report(result.as_dict(), _summary(result) if isinstance(result, GlobalResult) else _pooled(result))


def _prior_place(path: Path | None, key: Path | None) -> "PriorPlace | None":
    """Where the global prior goes, with the hub's key, which must be closed to others."""
    from distill.common.keys import load_signing_key, passphrase_from_environment
    from distill.errors import ConfigError
    from server_train.hub.prior import PriorPlace

    if path is None:
        return None
    if key is None:
        raise ConfigError(
            "a global prior is signed: name the hub's key with --key FILE. `distill keys new --key hub.pem` makes one."
        )
    return PriorPlace(path, load_signing_key(key, passphrase=passphrase_from_environment()))


def _bundles_in(folder: Path) -> list[Path]:
    """All bundles in a folder, with the one that its distill.toml names elsewhere; the folder itself if none."""
    found = sorted(folder.glob("*.distill"))
    if (folder / "distill.toml").exists():
        found += [path for path in [project_at(folder).out] if path.is_file()]
    return found or [folder]


def _summary(result: "GlobalResult") -> "Group":
    """What a person wants to see: who counted how much, both readings of the budgets, where things are."""
    from rich.console import Group
    from rich.text import Text

    card, training = result.card, result.card.training
    lines = [
        *([_privacy(card.privacy)] if card.privacy else []),
        "weight: what an institution's worst term leaves of it; rows, head: its share of the pooled rows and of the class head",
        f"training: {training.rows:,} pooled rows, {training.epochs} epochs, {training.seconds:.1f} s",
        *(["REHEARSAL: NOT PRIVATE. This model must not leave the house."] if card.rehearsal else []),
        *(f"note: {note}" for note in training.notes),
        f"model: {result.folder}  (report: {result.folder / 'report.html'})",
        *(
            [f"version {result.version.number} in the registry, digest {result.version.digest}"]
            if result.version
            else []
        ),
        *([f"pool: {result.pool_path}"] if result.pool_path else []),
        *([_prior_line(result.prior_path)] if result.prior_path else []),
    ]
    title = Text(f"global model for {card.schema_.target} ({card.schema_.name})")
    return Group(title, _members(card.institutions), _terms(card.institutions), *(Text(line) for line in lines))


def _pooled(result: "PoolResult") -> "Group":
    """The same where there are pooled rows and no model."""
    from rich.console import Group
    from rich.text import Text

    lines = [
        _privacy(result.privacy),
        *(["REHEARSAL: NOT PRIVATE. These rows must not leave the house."] if result.rehearsal else []),
        *(f"note: {note}" for note in result.notes),
        f"pool: {result.pool_path}  ({result.rows:,} rows)",
        *([_prior_line(result.prior_path)] if result.prior_path else []),
    ]
    title = Text(f"pooled rows ({result.schema})")
    return Group(title, _members(result.institutions), _terms(result.institutions), *(Text(line) for line in lines))


def _prior_line(path: Path) -> str:
    """Where the global prior is, and what it is for."""
    return f"global prior: {path}  (for the institutions' next `distill fit --global-prior`; they need the hub's public key)"


def _privacy(readings: "Readings") -> str:
    """Both readings of the budgets."""
    worst, total = readings.disjoint.epsilon, readings.overlapping.epsilon
    return (
        f"privacy: epsilon {worst:.3f} if no customer is at two institutions, {total:.3f} if one may be at all of them"
    )


def _members(institutions: "Sequence[InstitutionCard]") -> "Table":
    """One line an institution."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from server_train.reports.formatting import readable_bytes, readable_number, readable_percent

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("institution")
    for name in ("noisy rows", "epsilon", "delta", "weight", "rows", "head", "received"):
        table.add_column(name, justify="right")
    for m in institutions:
        table.add_row(
            m.institution + (" (REHEARSAL)" if m.rehearsal else ""),
            f"{m.noisy_rows:,.0f}",
            f"{m.epsilon:.3f}",
            f"{m.delta:g}",
            readable_number(m.weight, 2),
            readable_percent(m.row_share),
            readable_percent(m.head_share),
            readable_bytes(m.bytes),
        )
    return table


def _terms(institutions: "Sequence[InstitutionCard]") -> "Table":
    """The terms that an institution's weight comes from, one line each; a dash where too little is there to judge by."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from server_train.reports.formatting import readable_number

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("what it sent")
    for name in ("rows that count", *(term.replace("_", " ") for term in TERMS)):
        table.add_column(name, justify="right")
    for m in institutions:
        numbers = (readable_number(getattr(m, term), digits) for term, digits in TERMS.items())
        table.add_row(m.institution, readable_number(m.counted_rows), *numbers)
    return table
