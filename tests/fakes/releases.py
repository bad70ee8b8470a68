"""Each kind of release, asked for in the same words, for tests of what all of them promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from distill.common.keys import SigningKey
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.ledger import Ledger, create_ledger
from distill.releases import evaluation
from distill.releases import fit as pipeline
from distill.releases.training import TrainingRequest, begin_training
from tests.fakes.guards import BUDGET, DATASET, Ratio


def books(path: Path, unit: str, key: SigningKey) -> Ledger:
    """A ledger with a grant for one release."""
    ledger = create_ledger(path / "ledger.db", dataset=DATASET, unit=unit, key=key)
    ledger.grant(**BUDGET, reason="test", actor="officer", key=key)
    return ledger


def fit(frame: pd.DataFrame, schema: Schema, ledger: Ledger, key: SigningKey, **more: Any) -> None:
    frame.to_parquet(ledger.path.with_name("rows.parquet"))
    asked = {"data": ledger.path.with_name("rows.parquet"), "out": ledger.path.with_name("out"), "name": "bank"}
    pipeline.fit(pipeline.FitRequest(schema=schema, dataset=DATASET, **(asked | BUDGET | more)), ledger, key)


def evaluate(frame: pd.DataFrame, schema: Schema, ledger: Ledger, key: SigningKey, **more: Any) -> None:
    frame.to_parquet(ledger.path.with_name("rows.parquet"))
    asked = {"data": ledger.path.with_name("rows.parquet"), "out": ledger.path.with_name("out"), "name": "bank"}
    request = evaluation.EvaluationRequest(model=Ratio(schema), dataset=DATASET, **(asked | BUDGET | more))
    evaluation.evaluate(request, ledger, key)


def train(frame: pd.DataFrame, schema: Schema, ledger: Ledger, key: SigningKey, **more: Any) -> None:
    begin_training(
        canonical_table(frame, schema), TrainingRequest(schema=schema, name="bank", **(BUDGET | more)), ledger, key
    )


RELEASES: dict[str, Callable[..., None]] = {"fit": fit, "evaluation": evaluate, "training": train}
