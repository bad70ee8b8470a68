"""Small models of every kind on a schema with every kind of column, for two classes, three classes and a number."""

from pathlib import Path

import numpy as np
import pandas as pd

from distill.data.bins import ColumnBins
from distill.data.grids import column_grid
from distill.data.schema import Schema
from server_train.models.model import Model, ModelCard, save_model
from server_train.models.number_target import stored_bins, target_codes
from server_train.training.boosting import BoostingSettings
from server_train.training.fit import Fitted, ModelChoice, fit_model
from server_train.training.network import TrainingSettings

COLUMNS = [
    {"name": "income", "kind": "continuous", "min": 0, "max": 1e6, "nullable": True},
    {"name": "age", "kind": "integer", "min": 18, "max": 100},
    {"name": "balance", "kind": "continuous", "min": -1e9, "max": 1e9},
    {"name": "region", "kind": "categorical", "categories": ["north", "south", "east"], "nullable": True},
    {"name": "job", "kind": "categorical", "categories": ["clerk", "nurse", "farmer", "smith"], "other": True},
    {"name": "grade", "kind": "categorical", "categories": [1, 2, 3]},
    {"name": "years", "kind": "integer", "min": 0, "max": 60, "nullable": True},
]
TARGETS = {
    "two classes": {"name": "y", "kind": "categorical", "categories": ["no", "yes"]},
    "three classes": {"name": "y", "kind": "categorical", "categories": [0, 1, 2]},
    "number": {"name": "y", "kind": "continuous", "min": -500, "max": 5000},
}
SCHEMAS = {
    name: Schema.model_validate({"name": "mixed", "target": "y", "columns": [*COLUMNS, target]})
    for name, target in TARGETS.items()
}
QUICK_BOOSTING = BoostingSettings(iterations=12, leaves=8, least_rows=20)


def rows_of(rows: int, seed: int) -> pd.DataFrame:
    """Feature rows in public values, with everything that the schema lets be missing missing now and then."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "income": np.where(rng.random(rows) < 0.1, np.nan, rng.gamma(2, 30_000, rows).clip(0, 1e6)),
            "age": rng.integers(18, 101, rows),
            "balance": np.where(rng.random(rows) < 0.3, 0.0, rng.normal(0, 1e5, rows)),
            "region": rng.choice(np.array(["north", "south", "east", None], dtype=object), rows),
            "job": rng.choice(np.array(["clerk", "nurse", "farmer", "(other)"], dtype=object), rows),
            "grade": rng.integers(1, 4, rows),
            "years": pd.array(np.where(rng.random(rows) < 0.2, np.nan, rng.integers(0, 60, rows)), dtype="Int64"),
        }
    )


def law(frame: pd.DataFrame) -> np.ndarray:
    """What the target follows: not linear, with interactions; shape (rows,)."""
    income = frame["income"].fillna(20_000).to_numpy(float)
    south, nurse = (frame["region"] == "south").to_numpy(), (frame["job"] == "nurse").to_numpy()
    return np.asarray(1.5 * (np.log1p(income) > 10.8) + south * (frame["grade"].to_numpy(int) - 2) + 0.8 * nurse - 0.8)


def chances(frame: pd.DataFrame, classes: int) -> np.ndarray:
    """Class probabilities of the rows."""
    scores = np.stack([1.2 * law(frame) * c - 0.6 * c * c for c in range(classes)], axis=1)
    out = np.exp(scores)
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def taught(task: str, rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, ColumnBins | None]:
    """(rows with labels, soft labels, bins of a number)."""
    frame, rng = rows_of(rows, seed), np.random.default_rng(seed + 1)
    if task != "number":
        classes = SCHEMAS[task].classes
        soft = chances(frame, len(classes))
        codes = (soft.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
        values = np.array(classes, dtype=object)[codes]
        return frame.assign(y=values), soft.astype(np.float32), None
    grid = column_grid(SCHEMAS[task].column("y"))
    edges = np.concatenate([[0], np.unique(grid.encode(pd.Series([0.0, 100.0, 300.0, 700.0, 1500.0])))])
    bins = ColumnBins(grid, edges, np.full(len(edges), 1 / len(edges)), np.arange(len(edges)))
    frame = frame.assign(y=(300 * np.exp(law(frame) + rng.normal(0, 0.3, rows))).clip(-500, 5000))
    return frame, np.eye(bins.n_bins, dtype=np.float32)[target_codes(bins, frame["y"])], bins


def fitted(
    task: str, kind: str, *, rows: int = 2000, steps: int = 60, **changes: object
) -> tuple[Fitted, ColumnBins | None]:
    """A model of `kind`, quickly trained."""
    frame, soft, bins = taught(task, rows, 0)
    choice = ModelChoice(**{"kind": kind, "boosting": QUICK_BOOSTING, **changes})  # type: ignore[arg-type]
    settings = TrainingSettings(steps=steps, hidden=(16, 8))
    return fit_model(SCHEMAS[task], frame, soft, settings, choice, bins=bins), bins


def model_of(task: str, kind: str, **changes: object) -> Model:
    """The same with its card."""
    got, bins = fitted(task, kind, **changes)
    schema = SCHEMAS[task]
    card = ModelCard(
        kind=kind,  # type: ignore[arg-type]
        created="2026-01-01T00:00:00+00:00",
        versions={},
        schema=schema,
        schema_digest=schema.digest(),
        preprocessing=got.encoder.curves if got.encoder else {},
        target_bins=stored_bins(bins) if bins else None,
        hidden=(16, 8) if kind == "mlp" else (),
        calibration=got.scorer.calibration,
        training={},
    )
    return Model(card, got.scorer)


def saved(model: Model, folder: Path) -> Model:
    """The model with the card that `save_model` writes."""
    return Model(save_model(model, folder), model.scorer)
