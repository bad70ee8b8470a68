"""The hub's one job, start to end: verify the bundles, pool them, train, and leave one finished folder.

The only module that knows the order: intake, pool, training, model, report. What it writes appears at the end or not at
all; whatever goes wrong before leaves an earlier model as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill import check, durable
from distill.errors import ConfigError
from distill.table_files import PARQUET_SUFFIXES, check_suffix
from distill.tables import write_table
from server_train.card import make_card, make_pool_card
from server_train.hub_store import HubStore
from server_train.intake import find_bundles, receive
from server_train.kinds import IN_MEMORY, Fitted, ModelChoice, fit_model, fit_stored
from server_train.model import ONNX, Model, ModelCard, save_model
from server_train.model_version import Version
from server_train.onnx_graph import write_onnx
from server_train.onnx_model import onnx_packages
from server_train.pool import Pool, default_rows, draw_pool
from server_train.pool_file import PoolCard, StoredPool, export_rows
from server_train.pool_stream import draw_pool_file
from server_train.publishing import REPORT, put, read_folder, settle, staged
from server_train.recipe import recipe_of
from server_train.registry import Registry
from server_train.report import render_report
from server_train.stored_training import fitting
from server_train.training import Epoch, TrainingSettings

LARGEST_POOL = 100_000_000
Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


@dataclass(frozen=True)
class GlobalResult:
    """What `train_global` made.

    Attributes:
        folder: Holds model.safetensors, model.json and report.html.
        card: What model.json says.
        pool_path: The exported pool, if one was asked for.
        version: What the registry keeps of it; None: there is no registry.
    """

    folder: Path
    card: ModelCard
    pool_path: Path | None
    version: Version | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        training = self.card.training
        held_out = training["held_out"]
        figure = {f"synthetic_{name}": held_out[name] for name in ("roc_auc", "r2") if name in held_out}
        return {
            "model": str(self.folder),
            "report": str(self.folder / REPORT),
            "onnx": str(self.folder / ONNX) if (self.folder / ONNX).exists() else None,
            "pool": str(self.pool_path) if self.pool_path else None,
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
    """

    pool_path: Path
    schema: str
    rows: int
    institutions: list[dict[str, Any]]
    privacy: dict[str, Any]
    rehearsal: bool
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "model": None,
            "pool": str(self.pool_path),
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
    prepare: Path | None = None,
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
        prepare: Write the pool with its soft labels there, for `python -m server_train`, and train nothing.
        settings: Of the training; its seed also draws the pool.
        choice: Kind of model, class weights, calibration; None: the default ones.
        onnx: Also write model.onnx.
        registry: Keeps the model as a version; it is there before `out` is touched. None: nothing is kept.
        progress: Called with stage, steps done, steps in all.

    Raises:
        ConfigError: `out`, `rows` or `export_pool` cannot be used, or there is nothing to predict and no pool is asked for.
        BundleError, HubFileError: see `intake.receive`. Bundles that passed it are remembered, whatever happens afterwards.
        RegistryError: the model cannot be registered; `out` is as it was then.
    """
    settings, choice = settings or TrainingSettings(), choice or ModelChoice()
    if onnx:
        onnx_packages()
    out, export_pool = out.absolute(), export_pool and export_pool.absolute()
    _check_targets(out, rows, export_pool, prepare)
    settle(out)
    for written in filter(None, (export_pool, prepare)):
        durable.sweep(written)
    intake = receive(
        find_bundles(places),
        trusted=trusted,
        hub=hub,
        allow_unknown_signers=allow_unknown_signers,
        allow_rehearsal=allow_rehearsal,
        progress=lambda done, total: progress("verify", done, total),
    )
    if intake.schema.task is None and (export_pool is None or prepare is not None):
        raise ConfigError(
            "this schema names no target, so there is nothing to train a model for. Ask for the pooled rows alone "
            "(--export-pool FILE), or agree on a schema with a target."
        )
    generators = [(r.name, r.generator) for r in intake.received]
    rows = rows or default_rows(g.noisy_rows for _, g in generators)
    progress("pool", 0, rows)
    rng, drawn = np.random.default_rng(settings.seed), partial(progress, "pool")
    recipe, settings = recipe_of(rows, settings, choice), fitting(settings, rows)
    if rows <= IN_MEMORY and prepare is None:
        pool = draw_pool(intake.schema, generators, rows=rows, rng=rng, progress=drawn)
        card = make_pool_card(intake, pool)
        if intake.schema.task is None:
            return _publish_pool(card, pool, export_pool)
        fitted = _fit(pool, settings, choice, out, progress)
        return publish(card, fitted, settings, choice, out, pool, export_pool, registry, recipe, onnx=onnx)
    write = partial(draw_pool_file, schema=intake.schema, generators=generators, rows=rows, rng=rng, progress=drawn)
    describe = partial(make_pool_card, intake)
    if prepare is not None:
        return _pool_result(write(prepare, card=describe).card, prepare, _PREPARED)
    with staged(out) as scratch:
        stored = write(scratch / "pool.parquet", card=describe)
        if intake.schema.task is None:
            return _publish_pool(stored.card, stored, export_pool)
        fitted = _fit(stored, settings, choice, scratch, progress)
        return publish(stored.card, fitted, settings, choice, out, stored, export_pool, registry, recipe, onnx=onnx)


_ROWS_ALONE = "The schema names no target: the rows were pooled, and no model was trained."
_PREPARED = "The pool is ready for `python -m server_train --pool FILE --out DIR`; no model was trained."


def _fit(
    pool: Pool | StoredPool, settings: TrainingSettings, choice: ModelChoice, scratch: Path, progress: Progress
) -> Fitted:
    """Train on a pool, wherever it is; `scratch` is for one on disk."""
    steps = choice.steps(settings, len(pool))

    def on_epoch(epoch: Epoch) -> None:
        progress("train", epoch.number, steps)

    if isinstance(pool, StoredPool):
        fitted = fit_stored(pool, settings, choice, scratch=scratch, on_epoch=on_epoch)
    else:
        fitted = fit_model(
            pool.schema, pool.frame, pool.soft_labels, settings, choice, bins=pool.bins, on_epoch=on_epoch
        )
    progress("train", steps, steps)
    return fitted


def _check_targets(out: Path, rows: int | None, export_pool: Path | None, prepare: Path | None) -> None:
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
    if prepare is not None:
        if export_pool is not None:
            raise ConfigError("--prepare trains nothing and --export-pool belongs to a training: ask for one of them.")
        if prepare.suffix.lower() not in PARQUET_SUFFIXES or prepare.is_dir() or not prepare.parent.is_dir():
            raise ConfigError(f"--prepare {prepare}: name a .parquet file in a folder that exists.")


def publish(
    pool_card: PoolCard,
    fitted: Fitted,
    settings: TrainingSettings,
    choice: ModelChoice,
    out: Path,
    pool: Pool | StoredPool | None = None,
    export_pool: Path | None = None,
    registry: Registry | None = None,
    recipe: dict[str, Any] | None = None,
    *,
    onnx: bool = False,
) -> GlobalResult:
    """Write everything beside `out`, register it, then move it there: as a whole, or file by file into an existing folder."""
    model = Model(make_card(pool_card, fitted, settings, choice), fitted.scorer)
    with staged(out) as work:
        card = save_model(model, work)
        if onnx:
            write_onnx(Model(card, model.scorer), work / ONNX)
        (work / REPORT).write_text(render_report(card), "utf-8")
        files = read_folder(work)  # before the pool comes, which is no part of the model
        if pool is not None and export_pool is not None:
            inside = export_pool.parent == out and not out.exists()  # then it moves there with the folder
            _export(pool, work / export_pool.name if inside else export_pool)
        version = registry.add(card, files, recipe or {}) if registry else None
        put(work, out)
    return GlobalResult(out, card, export_pool, version)


def _publish_pool(card: PoolCard, pool: Pool | StoredPool, export_pool: Path | None) -> PoolResult:
    """Write the pooled rows and nothing else."""
    assert export_pool is not None
    export_pool.parent.mkdir(exist_ok=True)  # --out itself may be named as its folder
    _export(pool, export_pool)
    return _pool_result(card, export_pool, _ROWS_ALONE)


def _export(pool: Pool | StoredPool, path: Path) -> None:
    """Write the pooled rows as a table."""
    if isinstance(pool, Pool):
        write_table(pool.frame, path)
    else:
        export_rows(pool, path)


def _pool_result(card: PoolCard, path: Path, note: str) -> PoolResult:
    """Of rows that were written at `path` and no model."""
    return PoolResult(
        pool_path=path,
        schema=card.schema_.name,
        rows=card.rows,
        institutions=card.institutions,
        privacy=card.privacy,
        rehearsal=card.rehearsal,
        notes=(note, *card.notes),
    )
