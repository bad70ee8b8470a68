"""The hub's one job, start to end: verify the bundles, pool them, train, and leave one finished folder.

The only module that knows the order: intake, pool, training, model, report. What it writes appears at the end or not at
all; whatever goes wrong before leaves an earlier model as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill import check, durable
from distill.errors import ConfigError
from distill.table_files import check_suffix
from distill.tables import write_table
from server_train.card import institution_row, make_card
from server_train.hub_store import HubStore
from server_train.intake import Intake, find_bundles, receive
from server_train.kinds import ModelChoice, fit_model
from server_train.model import ONNX, Model, ModelCard, save_model
from server_train.model_version import Version
from server_train.onnx_graph import write_onnx
from server_train.onnx_model import onnx_packages
from server_train.pool import Pool, default_rows, draw_pool
from server_train.prior import PriorPlace
from server_train.publishing import REPORT, put, read_folder, settle, staged
from server_train.readings import readings
from server_train.recipe import recipe_of
from server_train.registry import Registry
from server_train.report import render_report
from server_train.training import TrainingSettings

LARGEST_POOL = 5_000_000
Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


@dataclass(frozen=True)
class GlobalResult:
    """What `train_global` made.

    Attributes:
        folder: Holds model.safetensors, model.json and report.html.
        card: What model.json says.
        pool_path: The exported pool, if one was asked for.
        version: What the registry keeps of it; None: there is no registry.
        prior_path: The global prior, if one was asked for.
    """

    folder: Path
    card: ModelCard
    pool_path: Path | None
    version: Version | None = None
    prior_path: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        training = self.card.training
        held_out = training["held_out"]
        figure = {f"synthetic_{name}": held_out[name] for name in ("roc_auc", "r2") if name in held_out}
        return {
            "model": str(self.folder),
            "report": str(self.folder / REPORT),
            "pool": str(self.pool_path) if self.pool_path else None,
            "global_prior": str(self.prior_path) if self.prior_path else None,
            "version": self.version.number if self.version else None,
            "version_digest": self.version.digest if self.version else None,
            "schema": self.card.schema_.name,
            "kind": self.card.kind,
            "rows": training["rows"],
            "epochs": training["epochs"],
            **figure,
            "seconds": training["seconds"],
            "bytes_received": sum(i["bytes"] for i in self.card.institutions),
            "privacy": self.card.privacy,
            "rehearsal": self.card.rehearsal,
            "institutions": self.card.institutions,
            "notes": training["notes"],
        }


@dataclass(frozen=True)
class PoolResult:
    """What `train_global` made of bundles whose schema names no target: pooled rows and no model.

    Attributes:
        pool_path: The pooled rows.
        schema: Name of the schema.
        rows: How many.
        institutions: Each one's row in the table of contributions.
        privacy: Both readings of the budgets across institutions.
        rehearsal: At least one bundle was a rehearsal: NOT PRIVATE.
        notes: What a reader should know, in plain words.
        prior_path: The global prior, if one was asked for.
    """

    pool_path: Path
    schema: str
    rows: int
    institutions: list[dict[str, Any]]
    privacy: dict[str, Any]
    rehearsal: bool
    notes: tuple[str, ...]
    prior_path: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "model": None,
            "pool": str(self.pool_path),
            "global_prior": str(self.prior_path) if self.prior_path else None,
            "schema": self.schema,
            "rows": self.rows,
            "bytes_received": sum(i["bytes"] for i in self.institutions),
            "privacy": self.privacy,
            "rehearsal": self.rehearsal,
            "institutions": self.institutions,
            "notes": list(self.notes),
        }


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def train_global(
    places: Sequence[Path],
    *,
    out: Path,
    rows: int | None = None,
    trusted: frozenset[str] = frozenset(),
    hub: HubStore | None = None,
    allow_unknown_signers: bool = False,
    allow_rehearsal: bool = False,
    export_pool: Path | None = None,
    prior: PriorPlace | None = None,
    settings: TrainingSettings | None = None,
    choice: ModelChoice | None = None,
    onnx: bool = False,
    registry: Registry | None = None,
    progress: Progress = silent,
) -> GlobalResult | PoolResult:
    """Train one model from bundles; where their schema names no target, only pool them (`export_pool` must say where to).

    Args:
        places: Bundle files, or folders that hold them.
        out: Folder for the model; made if absent. Files of an earlier model in it are replaced, others are left alone.
        rows: Size of the pool; None: by the institutions' noisy sizes.
        trusted: Public keys (hex) of institutions, beside those that `hub` keeps; each bundle must be of one of them.
        hub: The hub's memory: trusted keys, and what was seen of each ledger. None: nothing is known and nothing remembered.
        allow_unknown_signers: Let bundles of other signers in too.
        allow_rehearsal: Let bundles in that are not private.
        export_pool: Also write the pooled rows there (CSV or Parquet).
        prior: Also write the institutions' joint model there, for their next releases; it comes last.
        settings: Of the training; its seed also draws the pool.
        choice: Kind of model, class weights, calibration; None: the default ones.
        onnx: Also write model.onnx.
        registry: Keeps the model as a version; it is there before `out` is touched. None: nothing is kept.
        progress: Called with stage, steps done, steps in all.

    Raises:
        ConfigError: `out`, `rows` or `export_pool` cannot be used, or there is nothing to predict and no pool is asked for.
        BundleError, HubFileError: see `intake.receive`. Bundles that passed it are remembered, whatever happens afterwards.
        PriorError: the global prior cannot be written; the model is in place then.
        RegistryError: the model cannot be registered; `out` is as it was then.
    """
    settings, choice = settings or TrainingSettings(), choice or ModelChoice()
    if onnx:
        onnx_packages()
    out, export_pool = out.absolute(), export_pool and export_pool.absolute()
    _check_targets(out, rows, export_pool)
    settle(out)
    if export_pool is not None:
        durable.sweep(export_pool)
    found = find_bundles(places)
    if prior is not None:
        prior.require(found)
    intake = receive(
        found,
        trusted=trusted,
        hub=hub,
        allow_unknown_signers=allow_unknown_signers,
        allow_rehearsal=allow_rehearsal,
        progress=lambda done, total: progress("verify", done, total),
    )
    if intake.schema.task is None and export_pool is None:
        raise ConfigError(
            "this schema names no target, so there is nothing to train a model for. Ask for the pooled rows alone "
            "(--export-pool FILE), or agree on a schema with a target."
        )
    generators = [(r.name, r.generator) for r in intake.received]
    rows = rows or default_rows(g.noisy_rows for _, g in generators)
    progress("pool", 0, rows)
    pool = draw_pool(
        intake.schema,
        generators,
        rows=rows,
        rng=np.random.default_rng(settings.seed),
        progress=lambda done, total: progress("pool", done, total),
    )
    if intake.schema.task is None:
        pooled = _publish_pool(intake, pool, export_pool)
        return replace(pooled, prior_path=prior.write(intake, pool) if prior else None)
    steps = choice.steps(settings, rows)
    fitted = fit_model(
        pool.schema,
        pool.frame,
        pool.soft_labels,
        settings,
        choice,
        bins=pool.bins,
        on_epoch=lambda e: progress("train", e.number, steps),
    )
    progress("train", steps, steps)
    model = Model(make_card(intake, pool, fitted, settings, choice), fitted.scorer)
    result = _publish(model, pool, out, export_pool, registry, recipe_of(rows, settings, choice), onnx=onnx)
    return replace(result, prior_path=prior.write(intake, pool) if prior else None)


def _check_targets(out: Path, rows: int | None, export_pool: Path | None) -> None:
    """Refuse, before any work, what cannot be written or drawn."""
    if rows is not None:
        check.positive(rows=rows)
        check.at_most(LARGEST_POOL, rows=rows)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder.")
    if export_pool is not None:
        check_suffix(export_pool)
        if export_pool.is_dir() or not (export_pool.parent.is_dir() or export_pool.parent == out):
            raise ConfigError(f"--export-pool {export_pool}: its folder does not exist, or it is a folder itself.")


def _publish(
    model: Model,
    pool: Pool,
    out: Path,
    export_pool: Path | None,
    registry: Registry | None,
    recipe: dict[str, Any],
    *,
    onnx: bool,
) -> GlobalResult:
    """Write everything beside `out`, register it, then move it there: as a whole, or file by file into an existing folder."""
    with staged(out) as work:
        card = save_model(model, work)
        if onnx:
            write_onnx(Model(card, model.scorer), work / ONNX)
        (work / REPORT).write_text(render_report(card), "utf-8")
        files = read_folder(work)  # before the pool comes, which is no part of the model
        if export_pool is not None:
            inside = export_pool.parent == out and not out.exists()  # then it moves there with the folder
            write_table(pool.frame, work / export_pool.name if inside else export_pool)
        version = registry.add(card, files, recipe) if registry else None
        put(work, out)
    return GlobalResult(out, card, export_pool, version)


def _publish_pool(intake: Intake, pool: Pool, export_pool: Path | None) -> PoolResult:
    """Write the pooled rows and nothing else."""
    assert export_pool is not None
    export_pool.parent.mkdir(exist_ok=True)  # --out itself may be named as its folder
    write_table(pool.frame, export_pool)
    return PoolResult(
        pool_path=export_pool,
        schema=pool.schema.name,
        rows=len(pool),
        institutions=[institution_row(r, pool, i) for i, r in enumerate(intake.received)],
        privacy=readings(intake.received),
        rehearsal=any(r.manifest.rehearsal for r in intake.received),
        notes=("The schema names no target: the rows were pooled, and no model was trained.", *intake.notes),
    )
