"""The hub's one job, start to end: verify the bundles, pool them, train, and leave one finished folder.

The only module that knows the order: intake, pool, training, model, report. What it writes appears at the end or not at
all; whatever goes wrong before leaves an earlier model as it was.
"""

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from distill import check
from distill.errors import ConfigError
from distill.table_files import check_suffix
from distill.tables import write_table
from server_train.evaluation import Evaluation, NumberEvaluation, evaluate_numbers, evaluate_scores
from server_train.features import class_codes, target_numbers
from server_train.hub_store import HubStore
from server_train.intake import Intake, Received, find_bundles, receive
from server_train.model import CARD, WEIGHTS, Model, ModelCard, probabilities, save_model
from server_train.number_bins import bin_means, stored_bins
from server_train.pool import Pool, default_rows, draw_pool
from server_train.report import render_report
from server_train.score_bins import score_knots
from server_train.training import Trained, TrainingSettings, settings_as_dict, train

REPORT = "report.html"
FILES = (WEIGHTS, REPORT, CARD)  # the card last: without it there is no model, so no reader meets half of one
LARGEST_POOL = 5_000_000
Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


@dataclass(frozen=True)
class GlobalResult:
    """What `train_global` made.

    Attributes:
        folder: Holds model.safetensors, model.json and report.html.
        card: What model.json says.
        pool_path: The exported pool, if one was asked for.
    """

    folder: Path
    card: ModelCard
    pool_path: Path | None

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        training = self.card.training
        held_out = training["held_out"]
        figure = {f"synthetic_{name}": held_out[name] for name in ("roc_auc", "r2") if name in held_out}
        return {
            "model": str(self.folder),
            "report": str(self.folder / REPORT),
            "pool": str(self.pool_path) if self.pool_path else None,
            "schema": self.card.schema_.name,
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
    settings: TrainingSettings | None = None,
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
        settings: Of the training; its seed also draws the pool.
        progress: Called with stage, steps done, steps in all.

    Raises:
        ConfigError: `out`, `rows` or `export_pool` cannot be used, or there is nothing to predict and no pool is asked for.
        BundleError, HubFileError: see `intake.receive`. Bundles that passed it are remembered, whatever happens afterwards.
    """
    settings = settings or TrainingSettings()
    out, export_pool = out.absolute(), export_pool and export_pool.absolute()
    _check_targets(out, rows, export_pool)
    intake = receive(
        find_bundles(places),
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
        return _publish_pool(intake, pool, export_pool)
    epochs = settings.epochs(rows)
    trained = train(
        pool.schema, pool.frame, pool.soft_labels, settings, on_epoch=lambda e: progress("train", e.number, epochs)
    )
    progress("train", epochs, epochs)
    model = Model(_card(intake, pool, trained, settings), trained.encoder, trained.network)
    return _publish(model, pool, out, export_pool)


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


def _publish(model: Model, pool: Pool, out: Path, export_pool: Path | None) -> GlobalResult:
    """Write everything beside `out`, then move it there: as a whole, or file by file into an existing folder."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        work = Path(temporary) / "model"
        work.mkdir()
        card = save_model(model, work)
        (work / REPORT).write_text(render_report(card), "utf-8")
        if export_pool is not None:
            inside = export_pool.parent == out and not out.exists()  # then it moves there with the folder
            write_table(pool.frame, work / export_pool.name if inside else export_pool)
        if not out.exists():
            work.rename(out)
        else:
            (out / CARD).unlink(missing_ok=True)
            for name in FILES:
                (work / name).replace(out / name)
    return GlobalResult(out, card, export_pool)


def _publish_pool(intake: Intake, pool: Pool, export_pool: Path | None) -> PoolResult:
    """Write the pooled rows and nothing else."""
    assert export_pool is not None
    export_pool.parent.mkdir(exist_ok=True)  # --out itself may be named as its folder
    write_table(pool.frame, export_pool)
    return PoolResult(
        pool_path=export_pool,
        schema=pool.schema.name,
        rows=len(pool),
        institutions=[_institution(r, pool, i) for i, r in enumerate(intake.received)],
        privacy=_readings(intake.received),
        rehearsal=any(r.manifest.rehearsal for r in intake.received),
        notes=("The schema names no target: the rows were pooled, and no model was trained.", *intake.notes),
    )


def _card(intake: Intake, pool: Pool, trained: Trained, settings: TrainingSettings) -> ModelCard:
    """Everything that `model.json` tells, but the digest of the weights."""
    return ModelCard(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        schema=pool.schema,
        schema_digest=pool.schema.digest(),
        preprocessing=trained.encoder.curves,
        target_bins=stored_bins(pool.bins) if pool.bins is not None else None,
        hidden=settings.hidden,
        training={
            "rows": len(pool),
            "held_out_rows": len(trained.held_out),
            "epochs": len(trained.curve),
            "best_epoch": trained.best_epoch,
            "seconds": round(trained.seconds, 2),
            "inputs": trained.encoder.n_dense + trained.encoder.n_codes,
            "parameters": sum(p.numel() for p in trained.network.parameters()),
            "settings": settings_as_dict(settings),
            "class_prior": pool.prior.tolist(),
            "loss_floor": trained.floor,
            "curve": [[e.number, e.training_loss, e.validation_loss] for e in trained.curve],
            "held_out": _held_out(pool, trained).as_dict(),
            **({} if pool.bins is not None else {"score_knots": score_knots(_held_out_scores(pool, trained))}),
            "notes": [*intake.notes, *pool.notes],
        },
        institutions=[_institution(r, pool, i) for i, r in enumerate(intake.received)],
        privacy=_readings(intake.received),
        rehearsal=any(r.manifest.rehearsal for r in intake.received),
    )


def _held_out(pool: Pool, trained: Trained) -> Evaluation | NumberEvaluation:
    """How well the network ranks the held-out synthetic rows by their drawn labels, or predicts their drawn numbers."""
    frame, scores = pool.frame.iloc[trained.held_out], _held_out_scores(pool, trained)
    if pool.bins is not None:
        return evaluate_numbers(target_numbers(pool.schema, frame), scores @ bin_means(pool.bins))
    return evaluate_scores(class_codes(pool.schema, frame), scores, pool.schema.classes)


def _held_out_scores(pool: Pool, trained: Trained) -> np.ndarray:
    """What the network says of the held-out synthetic rows, (rows, outputs)."""
    return probabilities(trained.network, trained.encoder.encode(pool.frame.iloc[trained.held_out]))


def _institution(received: Received, pool: Pool, position: int) -> dict[str, Any]:
    """One institution's row in card and report: who, what it cost, what it weighs, what it sent."""
    manifest, member = received.manifest, pool.members[position]
    return {
        "institution": received.name,
        "file": received.bundle.path.name,
        "bytes": received.bundle.size,
        "sha256": received.bundle.digest,
        "public_key": manifest.public_key,
        "dataset": manifest.dataset,
        "ledger_head": manifest.ledger.head,
        "created": str(manifest.created),
        "software": str(manifest.software),
        "rehearsal": manifest.rehearsal,
        "epsilon": manifest.privacy.epsilon,
        "delta": manifest.privacy.delta,
        "unit": manifest.privacy.unit,
        "relation": manifest.privacy.relation,
        "noisy_rows": member.noisy_rows,
        "class_prior": list(member.class_prior),
        "label_balance": member.label_balance,
        "head_information": member.head_information,
        "row_share": member.row_share,
        "head_share": member.head_share,
        "pooled_rows": int((pool.origin == position).sum()),
    }


def _readings(received: Sequence[Received]) -> dict[str, Any]:
    """Both readings of the budgets across institutions.

    Disjoint: no person's rows are at two institutions, so each is protected by its own institution's budget and the
    worst one bounds them all (parallel composition). Overlapping: a person may be everywhere, so budgets add up.
    """
    budgets = [(r.manifest.privacy.epsilon, r.manifest.privacy.delta) for r in received]
    return {
        "disjoint": {"epsilon": max(e for e, _ in budgets), "delta": max(d for _, d in budgets)},
        "overlapping": {"epsilon": sum(e for e, _ in budgets), "delta": sum(d for _, d in budgets)},
        "units": sorted({r.manifest.privacy.unit for r in received}),
        "relations": sorted({r.manifest.privacy.relation for r in received}),
    }


def versions() -> dict[str, str]:
    """Of this software and the libraries that matter for the scores."""
    out = {"python": platform.python_version()}
    for name in ("distill", "torch", "numpy", "pandas", "safetensors"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            out[name] = "unknown"
    return out
