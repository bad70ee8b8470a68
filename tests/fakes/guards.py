"""Every kind of release on small tables, run as a user runs it, behind a door that a test may watch.

The cases are those in which a guarantee could go wrong in a way of its own: several rows a unit, each kind of target, a
table so wide that its pairs are chosen, a private evaluation, private federated training.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distill.common.keys import generate_key, load_signing_key
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.exchange import bundle
from distill.exchange.noisy_scores import Block
from distill.ledger import create_ledger
from distill.ledger.entries import entry
from distill.privacy.private_table import PrivateTable
from distill.releases import evaluation, fit, lifecycle
from distill.releases import training as private_training
from distill.releases.training import PrivateSteps, TrainingRequest, begin_training
from tests.fakes.private_tables import EVERY_KIND, category, every_kind, integer, number, schema_of, shorten_fits

DATASET, BUDGET = "ab" * 16, {"epsilon": 4.0, "delta": 1e-5}
STEPS = 3  # of each DP-SGD event
MODELLING_SEED = 20261201
WIDE = schema_of(*(integer(f"n{i}", 0, 6) for i in range(10)))
UNITS = EVERY_KIND.model_copy(update={"unit": "customer"})
NUMBER = Schema.model_validate({"name": "n", "target": "salary", "columns": EVERY_KIND.model_dump()["columns"][:-1]})
NOTHING = Schema.model_validate({"name": "u", "target": None, "columns": EVERY_KIND.model_dump()["columns"][:-1]})
NARROW = schema_of(
    number("ratio", 0, 1, nullable=True), category("job", "clerk", "smith", "baker", other=True, nullable=True)
)


def of_every_kind(schema: Schema) -> Callable[[int, int], pd.DataFrame]:
    def rows(n: int, seed: int) -> pd.DataFrame:
        frame = every_kind(n, seed)
        if schema.unit is not None:
            frame = frame.assign(customer=[f"c{i // 3}" for i in range(n)])
        return frame[[name for name in frame if schema.has(name)]]

    return rows


def wide(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.binomial(6, 0.4, (n, 10)), columns=[f"n{i}" for i in range(10)])
    return frame.assign(label=(frame["n0"] + frame["n1"] > 5).astype(int))


@dataclass(frozen=True)
class Case:
    """One kind of release on one kind of table."""

    kind: str
    schema: Schema
    rows: Callable[[int, int], pd.DataFrame]
    rows_per_unit: int = 1

    def table(self, *, larger: bool = False) -> pd.DataFrame:
        """One of two tables, so large that the noisy row count has no chance to be too small for a plan."""
        rows = 2400 if self.schema.unit else 900
        return self.rows(rows + 211, 2) if larger else self.rows(rows, 1)


CASES = {
    "classes": Case("fit", EVERY_KIND, of_every_kind(EVERY_KIND)),
    "units": Case("fit", UNITS, of_every_kind(UNITS)),
    "rows of a unit": Case("fit", UNITS, of_every_kind(UNITS), 3),
    "number": Case("fit", NUMBER, of_every_kind(NUMBER)),
    "no target": Case("fit", NOTHING, of_every_kind(NOTHING)),
    "wide": Case("fit", WIDE, wide),
    "evaluation": Case("evaluation", EVERY_KIND, of_every_kind(EVERY_KIND)),
    "evaluation of units": Case("evaluation", UNITS, of_every_kind(UNITS), 3),
    "training": Case("training", NARROW, of_every_kind(NARROW)),
}


@dataclass(frozen=True)
class Ratio:
    """A public model of one column, and how it is asked."""

    schema: Schema
    rehearsal: bool = False
    identity: dict[str, str] = field(default_factory=lambda: {"name": "ratio"})

    def private_scorer(self, threshold: float) -> "Ratio":
        return self

    def blocks(self, bins: int) -> tuple[Block, ...]:
        bins += bins % 2  # about as many: 0.5 is an edge, as in the blocks of a real model
        edges = tuple(np.linspace(0, 1, bins + 1)[1:-1].tolist())
        middles = tuple((np.arange(bins) + 0.5) / bins)
        return (Block("1", edges, middles, (0.5,) * bins, ((0.2,) * bins, (0.2,) * bins)),)

    def scored(self, frame: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
        return [((frame["label"].astype(str) == "1").to_numpy(np.uint8), frame["ratio"].fillna(0.5).to_numpy(float))]


def freeze(patch: pytest.MonkeyPatch) -> None:
    """Nothing that tells two runs apart but their rows and their noise: ids, modelling randomness, the day."""
    from_seed = np.random.default_rng
    patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))
    patch.setattr(np.random, "default_rng", lambda seed=None: from_seed(MODELLING_SEED if seed is None else seed))
    patch.setattr(entry, "new_salt", lambda: "5a" * 16)
    for module in (entry, bundle):
        patch.setattr(module, "today", lambda: "2026-12-01T00:00+00:00")


def quicken_all(patch: pytest.MonkeyPatch) -> None:
    """Few steps everywhere, planned and charged as few; of the wide table's 45 pairs 40 are chosen."""
    shorten_fits(patch, steps=STEPS, all_pairs_up_to=36)


def release(
    case: Case, frame: pd.DataFrame, folder: Path, door: type[PrivateTable], patch: pytest.MonkeyPatch
) -> bytes:
    """Make one release of `frame` behind `door`; all that leaves, as bytes."""
    patch.setattr(lifecycle, "PrivateTable", door)
    folder.mkdir()
    key_file = folder.parent / "key.pem"
    key = load_signing_key(key_file) if key_file.exists() else generate_key(key_file)
    ledger = create_ledger(folder / "ledger.db", dataset=DATASET, unit=case.schema.counted_unit, key=key)
    ledger.grant(**BUDGET, reason="test", actor="officer", key=key)
    if case.kind == "training":
        settings = PrivateSteps(rounds=2, steps=2, batch_size=100)
        request = TrainingRequest(
            schema=case.schema, name="bank", rows_per_unit=case.rows_per_unit, settings=settings, **BUDGET
        )
        training = begin_training(canonical_table(frame, case.schema), request, ledger, key)
        return trained(training) + training.finish().encode()
    frame.to_parquet(folder / "rows.parquet")
    asked = {
        "data": folder / "rows.parquet",
        "schema": case.schema,
        "name": "bank",
        "dataset": DATASET,
        "out": folder / "released",
        "rows_per_unit": case.rows_per_unit,
        **BUDGET,
    }
    if case.kind == "fit":
        fit.fit(fit.FitRequest(**asked), ledger, key)
    else:
        request = evaluation.EvaluationRequest(model=Ratio(asked.pop("schema")), **asked)
        evaluation.evaluate(request, ledger, key)
    return (folder / "released").read_bytes()


def trained(training: private_training.PrivateTraining) -> bytes:
    """All answers of a private federated run, whose next weights follow from the ones before."""
    told = training.sketch(np.linspace(0, 1, 5))
    cells = [grid.cells for grid in training._table.grids]
    training.featurise({0: np.linspace(-1, 1, cells[0])[:, None], 1: np.eye(cells[1])})
    width = 1 + cells[1]
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(width, 6)), np.zeros(6), rng.normal(size=(6, 2)), np.zeros(2)]
    answers = []
    while training.steps_left:
        answers.append(training.gradient(layers))
        steps = np.split(answers[-1], np.cumsum([part.size for part in layers])[:-1])
        layers = [part - 0.5 * step.reshape(part.shape) for part, step in zip(layers, steps, strict=True)]
    return told.quantiles.tobytes() + told.classes.tobytes() + np.concatenate(answers).tobytes()
