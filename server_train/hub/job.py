"""The hub's one job, start to end: verify the bundles, pool them, train, and leave one finished folder.

The only module that knows the order: intake, pool, training, model, report. What it writes appears at the end or not at
all; whatever goes wrong before leaves an earlier model as it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from distill.data.tables import write_table
from distill.errors import ConfigError
from server_train.hub.card import model_of, pool_card
from server_train.hub.outputs import Outputs
from server_train.hub.prior import HEAD_ROWS
from server_train.hub.recipe import Recipe
from server_train.hub.request import TrainingRequest
from server_train.hub.results import GlobalResult, PoolResult
from server_train.intake.intake import Intake, find_bundles, receive
from server_train.models.folder import REPORT, put, read_folder, staged
from server_train.models.model import ONNX, Model, save_model
from server_train.models.onnx_export import write_onnx
from server_train.pooling.personal import FOLDER, folder_names, personal_notes, personal_pools
from server_train.pooling.pool import Pool, default_rows, draw_pool
from server_train.pooling.pool_file import PoolCard, StoredPool, export_rows
from server_train.pooling.streaming import draw_pool_file
from server_train.reports.model_report import render_report
from server_train.training.fit import IN_MEMORY, Fitted, ModelChoice, fit_model, fit_stored
from server_train.training.network import Epoch, TrainingSettings
from server_train.training.out_of_core import fitting

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def train_global(
    request: TrainingRequest, outputs: Outputs, *, progress: Progress = silent
) -> GlobalResult | PoolResult:
    """Train one model from bundles; where their schema names no target, only pool them.

    Args:
        request: What to train, from which bundles.
        outputs: What to write, and where; without a target `export_pool` must say where the rows go.
        progress: Called with stage, steps done, steps in all.

    Raises:
        ConfigError: an output cannot be written, or there is nothing to predict and no pool is asked for.
        BundleError, HubFileError: see `intake.receive`. Bundles that passed it are remembered, whatever happens afterwards.
        PriorError: the global prior cannot be written; the model is in place then.
        RegistryError: the model cannot be registered; the model's folder is as it was then.
    """
    outputs = outputs.absolute()
    outputs.check(request)
    found = find_bundles(request.bundles)
    if outputs.prior is not None:
        outputs.prior.require(found)
    intake = receive(found, request.admission, progress=partial(progress, "verify"))
    if intake.schema.task is None and (outputs.export_pool is None or outputs.prepare is not None):
        raise ConfigError(
            "this schema names no target, so there is nothing to train a model for. Ask for the pooled rows alone "
            "(--export-pool FILE), or agree on a schema with a target."
        )
    if intake.schema.task is None and request.personalise:
        raise ConfigError(
            "this schema names no target, so there are no models to personalise. Leave --personalise out."
        )
    draw = _Draw(intake, np.random.default_rng(request.settings.seed), partial(progress, "pool"))
    rows = request.rows or default_rows(r.generator.noisy_rows for r in intake.received)
    result, pool = _made(draw, replace(request, rows=rows), rows, outputs, progress)
    if outputs.prior is None:
        return result
    enough = pool if isinstance(pool, Pool) and len(pool) >= HEAD_ROWS else draw.in_memory(HEAD_ROWS)
    return replace(result, prior_path=outputs.prior.write(intake, enough))


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
    draw: _Draw, request: TrainingRequest, rows: int, outputs: Outputs, progress: Progress
) -> tuple[GlobalResult | PoolResult, Pool | StoredPool]:
    """What is made of a pool of `rows` rows, and the pool; one on disk is gone by then, unless it was asked for."""
    draw.progress(0, rows)
    with staged(outputs.folder) as folder:
        in_memory = rows <= IN_MEMORY and outputs.prepare is None
        pool = draw.in_memory(rows) if in_memory else draw.on_disk(rows, outputs.prepare or folder / "pool.parquet")
        card = pool.card if isinstance(pool, StoredPool) else pool_card(draw.intake, pool)
        if outputs.prepare is not None:
            return _pool_result(card, outputs.prepare, _PREPARED), pool
        if card.schema_.task is None:
            assert outputs.export_pool is not None
            outputs.export_pool.parent.mkdir(exist_ok=True)  # --out itself may be named as its folder
            _export(pool, outputs.export_pool)
            return _pool_result(card, outputs.export_pool, _ROWS_ALONE), pool
        recipe = Recipe(rows=rows, settings=request.settings, choice=request.choice, personalise=request.personalise)
        settings, choice = fitting(request.settings, rows), request.choice
        fitted = _fit(pool, settings, choice, folder, progress)
        personal = {}
        if request.personalise and isinstance(pool, Pool):
            personal = _personal(draw.intake, pool, settings, choice, progress)
            names = [m.institution for m in pool.members]
            card = card.model_copy(update={"notes": (*card.notes, *personal_notes(names, _places(personal)))})
        return publish(model_of(card, fitted, settings, choice), outputs, pool, personal, recipe), pool


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
    outputs: Outputs,
    pool: Pool | StoredPool | None = None,
    personal: Mapping[str, Model] | None = None,
    recipe: Recipe | None = None,
) -> GlobalResult:
    """Write all beside the model's folder, register it, then move it there: as a whole, or file by file into an existing folder."""
    out, export_pool = outputs.folder, outputs.export_pool
    with staged(out) as work:
        card = save_model(model, work)
        if outputs.onnx:
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
        plain = recipe.as_dict() if recipe else {}
        version = outputs.registry.add(card, files, plain) if outputs.registry else None
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
