"""The hub's one job, start to end: verify the bundles, pool them, train, and leave one finished folder.

The only module that knows the order: intake, pool, training, model, report. What it writes appears at the end or not at
all; whatever goes wrong before leaves an earlier model as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from distill import check, durable
from distill.errors import ConfigError
from distill.table_files import PARQUET_SUFFIXES, check_suffix
from distill.tables import write_table
from server_train.card import model_of, pool_card
from server_train.coherence import fault_of
from server_train.generators import Generator, guarded
from server_train.hub_store import HubStore
from server_train.intake import Intake, find_bundles, receive
from server_train.kinds import IN_MEMORY, Fitted, ModelChoice, fit_model, fit_stored
from server_train.model import ONNX, Model, ModelCard, save_model
from server_train.model_version import Version
from server_train.onnx_graph import write_onnx
from server_train.onnx_model import onnx_packages
from server_train.pool import Pool, default_rows, draw_pool
from server_train.pool_file import PoolCard, StoredPool, export_rows
from server_train.pool_stream import draw_pool_file
from server_train.prior import HEAD_ROWS, PriorPlace
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
            "onnx": str(self.folder / ONNX) if (self.folder / ONNX).exists() else None,
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
    prepare: Path | None = None,
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
        prepare: Write the pool with its soft labels there, for `python -m server_train`, and train nothing.
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
    targets = _Targets(out.absolute(), export_pool and export_pool.absolute(), prepare, prior, onnx, registry)
    found = find_bundles(places)
    targets.check(rows, found)
    intake = receive(
        found,
        trusted=trusted,
        hub=hub,
        allow_unknown_signers=allow_unknown_signers,
        allow_rehearsal=allow_rehearsal,
        progress=partial(progress, "verify"),
    )
    if intake.schema.task is None and (export_pool is None or prepare is not None):
        raise ConfigError(
            "this schema names no target, so there is nothing to train a model for. Ask for the pooled rows alone "
            "(--export-pool FILE), or agree on a schema with a target."
        )
    draw = _Draw(intake, np.random.default_rng(settings.seed), partial(progress, "pool"))
    result = _made(
        draw, rows or default_rows(g.noisy_rows for _, g in draw.generators), targets, settings, choice, progress
    )
    return replace(result, prior_path=prior.write(intake, draw.in_memory(HEAD_ROWS)) if prior else None)


@dataclass(frozen=True)
class _Targets:
    """What is to be written, and where; see `train_global`."""

    out: Path
    export_pool: Path | None
    prepare: Path | None
    prior: PriorPlace | None
    onnx: bool
    registry: Registry | None

    def check(self, rows: int | None, bundles: Sequence[Path]) -> None:
        """Refuse, before any work, what cannot be written or drawn; clear away what killed runs left."""
        if rows is not None:
            check.positive(rows=rows)
            check.at_most(LARGEST_POOL, rows=rows)
        if self.onnx:
            onnx_packages()
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"--out {self.out} is a file; name a folder.")
        self._check_pool()
        if self.prior is not None:
            self.prior.require(bundles)
        settle(self.out)
        if self.export_pool is not None:
            durable.sweep(self.export_pool)

    def _check_pool(self) -> None:
        export_pool, prepare = self.export_pool, self.prepare
        if export_pool is not None:
            check_suffix(export_pool)
            if export_pool.is_dir() or not (export_pool.parent.is_dir() or export_pool.parent == self.out):
                raise ConfigError(f"--export-pool {export_pool}: its folder does not exist, or it is a folder itself.")
        if prepare is not None:
            if export_pool is not None:
                raise ConfigError(
                    "--prepare trains nothing and --export-pool belongs to a training: ask for one of them."
                )
            if prepare.suffix.lower() not in PARQUET_SUFFIXES or prepare.is_dir() or not prepare.parent.is_dir():
                raise ConfigError(f"--prepare {prepare}: name a .parquet file in a folder that exists.")


@dataclass(frozen=True)
class _Draw:
    """Draws pools of the bundles that were taken in."""

    intake: Intake
    rng: np.random.Generator
    progress: Callable[[int, int], None]

    @property
    def generators(self) -> list[tuple[str, Generator]]:
        """Each institution's name and generator."""
        return [(r.name, r.generator) for r in self.intake.received]

    @cached_property
    def faults(self) -> list[str | None]:
        """Why a bundle contradicts itself, for each."""
        return [
            guarded(r.name, "its statistics", partial(fault_of, r.bundle, r.generator)) for r in self.intake.received
        ]

    def in_memory(self, rows: int) -> Pool:
        """A pool of `rows` rows."""
        return draw_pool(
            self.intake.schema,
            self.generators,
            rows=rows,
            rng=self.rng,
            faults=self.faults,
            progress=self.progress,
        )

    def on_disk(self, rows: int, path: Path) -> StoredPool:
        """The same in a file."""
        return draw_pool_file(
            path,
            self.intake.schema,
            self.generators,
            rows=rows,
            rng=self.rng,
            card=partial(pool_card, self.intake),
            faults=self.faults,
            progress=self.progress,
        )


def _made(
    draw: _Draw, rows: int, targets: _Targets, settings: TrainingSettings, choice: ModelChoice, progress: Progress
) -> GlobalResult | PoolResult:
    """The pool, and what is made of it."""
    draw.progress(0, rows)
    with staged(targets.out) as folder:
        in_memory = rows <= IN_MEMORY and targets.prepare is None
        pool = draw.in_memory(rows) if in_memory else draw.on_disk(rows, targets.prepare or folder / "pool.parquet")
        card = pool.card if isinstance(pool, StoredPool) else pool_card(draw.intake, pool)
        if targets.prepare is not None:
            return _pool_result(card, targets.prepare, _PREPARED)
        if card.schema_.task is None:
            assert targets.export_pool is not None
            targets.export_pool.parent.mkdir(exist_ok=True)  # --out itself may be named as its folder
            _export(pool, targets.export_pool)
            return _pool_result(card, targets.export_pool, _ROWS_ALONE)
        fitted = _fit(pool, settings, choice, folder, progress)
        model, recipe = model_of(card, fitted, settings, choice), recipe_of(rows, settings, choice)
        return publish(
            model, targets.out, pool, targets.export_pool, onnx=targets.onnx, registry=targets.registry, recipe=recipe
        )


def _fit(
    pool: Pool | StoredPool, settings: TrainingSettings, choice: ModelChoice, scratch: Path, progress: Progress
) -> Fitted:
    """Train on a pool, wherever it is."""
    settings = fitting(settings, len(pool))
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


_ROWS_ALONE = "The schema names no target: the rows were pooled, and no model was trained."
_PREPARED = "The pool is ready for `python -m server_train --pool FILE --out DIR`; no model was trained."


def publish(
    model: Model,
    out: Path,
    pool: Pool | StoredPool | None = None,
    export_pool: Path | None = None,
    *,
    onnx: bool = False,
    registry: Registry | None = None,
    recipe: dict[str, Any] | None = None,
) -> GlobalResult:
    """Write everything beside `out`, register it, then move it there: as a whole, or file by file into an existing folder."""
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
