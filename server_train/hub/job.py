"""The hub's one job, start to end: verify the bundles, pool them, train, and leave one finished folder.

The only module that knows the order: intake, pool, training, model, report. What it writes appears at the end or not at
all; whatever goes wrong before leaves an earlier model as it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.common import checks
from distill.common import files as durable
from distill.data.sources import PARQUET_SUFFIXES, check_suffix
from distill.data.tables import write_table
from distill.errors import ConfigError
from server_train.hub.card import model_of, pool_card
from server_train.hub.prior import HEAD_ROWS, PriorPlace
from server_train.hub.recipe import recipe_of
from server_train.hub.results import GlobalResult, PoolResult
from server_train.intake.intake import Intake, find_bundles, receive
from server_train.intake.store import HubStore
from server_train.models.folder import REPORT, put, read_folder, settle, staged
from server_train.models.model import ONNX, Model, save_model
from server_train.models.onnx_export import write_onnx
from server_train.models.onnx_scorer import onnx_packages
from server_train.pooling.personal import FOLDER, folder_names, personal_notes, personal_pools
from server_train.pooling.pool import Pool, default_rows, draw_pool
from server_train.pooling.pool_file import PoolCard, StoredPool, export_rows
from server_train.pooling.streaming import draw_pool_file
from server_train.registry.registry import Registry
from server_train.reports.model_report import render_report
from server_train.training.fit import IN_MEMORY, Fitted, ModelChoice, fit_model, fit_stored
from server_train.training.network import Epoch, TrainingSettings
from server_train.training.out_of_core import fitting

LARGEST_POOL = 100_000_000
Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


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
    personalise: bool = False,
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
        personalise: Also train a model for each institution (see `personal`), into `out`/personal/NAME.
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
    targets = Targets(out.absolute(), export_pool and export_pool.absolute(), prepare, onnx, personalise, registry)
    targets.check(rows)
    found = find_bundles(places)
    if prior is not None:
        prior.require(found)
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
    if intake.schema.task is None and personalise:
        raise ConfigError(
            "this schema names no target, so there are no models to personalise. Leave --personalise out."
        )
    draw = _Draw(intake, np.random.default_rng(settings.seed), partial(progress, "pool"))
    rows = rows or default_rows(r.generator.noisy_rows for r in intake.received)
    result, pool = _made(draw, rows, targets, settings, choice, progress)
    if prior is None:
        return result
    enough = pool if isinstance(pool, Pool) and len(pool) >= HEAD_ROWS else draw.in_memory(HEAD_ROWS)
    return replace(result, prior_path=prior.write(intake, enough))


@dataclass(frozen=True)
class Targets:
    """What is to be written, and where; see `train_global`."""

    out: Path
    export_pool: Path | None = None
    prepare: Path | None = None
    onnx: bool = False
    personalise: bool = False
    registry: Registry | None = None

    def check(self, rows: int | None) -> None:
        """Refuse, before any work, what cannot be written or drawn; clear away what killed runs left."""
        if rows is not None:
            checks.positive(rows=rows)
            checks.at_most(LARGEST_POOL, rows=rows)
        if self.onnx:
            onnx_packages()
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"--out {self.out} is a file; name a folder.")
        self._check_pool()
        settle(self.out)
        for written in filter(None, (self.export_pool, self.prepare)):
            durable.sweep(written)

        if self.personalise and (self.prepare is not None or (rows or 0) > IN_MEMORY):
            raise ConfigError(
                f"--personalise needs a pool in memory: at most {IN_MEMORY:,} rows (--rows), and no --prepare."
            )

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

    def in_memory(self, rows: int) -> Pool:
        """A pool of `rows` rows."""
        institutions = self.intake.institutions
        return draw_pool(self.intake.schema, institutions, rows=rows, rng=self.rng, progress=self.progress)

    def on_disk(self, rows: int, path: Path) -> StoredPool:
        """The same in a file."""
        return draw_pool_file(
            path,
            self.intake.schema,
            self.intake.institutions,
            rows=rows,
            rng=self.rng,
            card=partial(pool_card, self.intake),
            progress=self.progress,
        )


def _made(
    draw: _Draw, rows: int, targets: Targets, settings: TrainingSettings, choice: ModelChoice, progress: Progress
) -> tuple[GlobalResult | PoolResult, Pool | StoredPool]:
    """What is made of a pool, and the pool; one on disk is gone by then, unless it was asked for."""
    draw.progress(0, rows)
    with staged(targets.out) as folder:
        in_memory = rows <= IN_MEMORY and targets.prepare is None
        pool = draw.in_memory(rows) if in_memory else draw.on_disk(rows, targets.prepare or folder / "pool.parquet")
        card = pool.card if isinstance(pool, StoredPool) else pool_card(draw.intake, pool)
        if targets.prepare is not None:
            return _pool_result(card, targets.prepare, _PREPARED), pool
        if card.schema_.task is None:
            assert targets.export_pool is not None
            targets.export_pool.parent.mkdir(exist_ok=True)  # --out itself may be named as its folder
            _export(pool, targets.export_pool)
            return _pool_result(card, targets.export_pool, _ROWS_ALONE), pool
        recipe = recipe_of(rows, settings, choice, personalise=targets.personalise)
        settings = fitting(settings, rows)
        fitted = _fit(pool, settings, choice, folder, progress)
        personal = {}
        if targets.personalise and isinstance(pool, Pool):
            personal = _personal(draw.intake, pool, settings, choice, progress)
            names = [m.institution for m in pool.members]
            card = card.model_copy(update={"notes": (*card.notes, *personal_notes(names, _places(personal)))})
        return publish(model_of(card, fitted, settings, choice), targets, pool, personal, recipe), pool


def _personal(
    intake: Intake, pool: Pool, settings: TrainingSettings, choice: ModelChoice, progress: Progress
) -> dict[str, Model]:
    """Each institution's personalised model, by its name; none for one whose part of the pool is too small."""
    parts, out = personal_pools(pool, settings.seed), {}
    for number, (name, part) in enumerate(parts.items()):
        progress("personalise", number, len(parts))
        fitted = fit_model(part.schema, part.frame, part.soft_labels, settings, choice, bins=part.bins)
        out[name] = model_of(pool_card(intake, part), fitted, settings, choice)
    progress("personalise", len(parts), len(parts))
    return out


def _places(personal: Mapping[str, Model]) -> dict[str, str]:
    """Folder name of each personalised model."""
    return dict(zip(personal, folder_names(list(personal)), strict=True))


def _fit(
    pool: Pool | StoredPool, settings: TrainingSettings, choice: ModelChoice, scratch: Path, progress: Progress
) -> Fitted:
    """Train on a pool, wherever it is."""
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
    targets: Targets,
    pool: Pool | StoredPool | None = None,
    personal: Mapping[str, Model] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> GlobalResult:
    """Write everything beside `out`, register it, then move it there: as a whole, or file by file into an existing folder."""
    out, export_pool = targets.out, targets.export_pool
    with staged(out) as work:
        card = save_model(model, work)
        if targets.onnx:
            write_onnx(Model(card, model.scorer), work / ONNX)
        (work / REPORT).write_text(render_report(card), "utf-8")
        places = _places(personal or {})
        for name, own in (personal or {}).items():
            (work / FOLDER / places[name]).mkdir(parents=True)
            save_model(own, work / FOLDER / places[name])
        files = read_folder(work)  # before the pool comes, which is no part of the model
        if pool is not None and export_pool is not None:
            inside = export_pool.parent == out and not out.exists()  # then it moves there with the folder
            _export(pool, work / export_pool.name if inside else export_pool)
        version = targets.registry.add(card, files, recipe or {}) if targets.registry else None
        put(work, out)
    return GlobalResult(out, card, export_pool, {name: out / FOLDER / place for name, place in places.items()}, version)


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
