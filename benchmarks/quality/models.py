"""Which kind of model should the hub train, and what are class weights and calibration worth?

    python -m benchmarks.quality.models --data FOLDER --tables adult taiwan_credit --seeds 0 1 2 --keep bundles
    python -m benchmarks.quality.models --data FOLDER --alpha 0.5                 five institutions, dealt by label
    python -m benchmarks.quality.models --quick

Each seed splits a table (80/20), deals the training rows to institutions, and runs `distill init`, `ledger grant` and `fit` at
each. The hub draws one pool of their bundles and trains every kind on it, with and without balanced class weights; each is scored on the
real test rows with its calibration and without. `--keep FOLDER` keeps the bundles, and takes those of an earlier run of this or of
`splits.py` that are there.
Scoring reads real rows without noise: only for public data.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import yardstick
from benchmarks.attacks.poisoning import pooled
from benchmarks.quality import utility
from benchmarks.quality.splits import Split, bundles_of
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.exchange.bundle import read_bundle
from server_train.evaluation.metrics import evaluate_scores
from server_train.models.features import class_codes
from server_train.pooling.pool import default_rows
from server_train.training.fit import Fitted, ModelChoice, fit_model
from server_train.training.network import TrainingSettings

KINDS = ("mlp", "logistic", "boosting")
FIGURES = ("roc_auc", "average_precision", "brier", "log_loss", "accuracy")
COLUMNS = {
    "roc_auc": "AUC",
    "average_precision": "AP",
    "brier": "Brier",
    "log_loss": "log loss",
    "accuracy": "accuracy",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    split = Split(options.clients, options.alpha)
    settings = split.settings(utility.Settings(epsilon=options.epsilon, delta=options.delta, quick=options.quick))
    limit = utility.QUICK_ROWS if options.quick else options.max_rows
    results: list[dict[str, Any]] = []
    for name, frame, schema in utility.tables(options.data, options.tables, limit, quick=options.quick):
        for seed in [0] if options.quick else options.seeds:
            with tempfile.TemporaryDirectory(prefix="distill-models-") as scratch:
                folder = (options.keep or Path(scratch)).resolve() / f"{name}-{split.label}-{seed}"
                for result in run(name, frame, schema, seed, settings, folder):
                    print(result, file=sys.stderr, flush=True)
                    results.append(result)
                    if options.out:
                        pd.DataFrame(results).to_csv(options.out, index=False)
    print(markdown(results))
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="folder of NAME.parquet with NAME.schema.json")
    p.add_argument("--tables", nargs="+", help="names in that folder (default: all)")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--epsilon", type=float, default=2.0)
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument("--clients", type=int, default=5, help="institutions that share the table (default: 5)")
    p.add_argument("--alpha", default="iid", help="Dirichlet concentration of the labels, or `iid` (the default)")
    p.add_argument("--max-rows", type=int, default=50_000, help="real rows used of a table (default: 50000)")
    p.add_argument("--keep", type=Path, metavar="FOLDER", help="where bundles are kept for another run")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="every single result")
    p.add_argument("--quick", action="store_true", help=f"one table, one seed, {utility.QUICK_ROWS} rows")
    return p


def run(
    name: str, frame: pd.DataFrame, schema: dict[str, Any], seed: int, settings: utility.Settings, folder: Path
) -> Iterator[dict[str, Any]]:
    """Figures on real test rows, one dictionary a kind, class weights and calibration."""
    train, test = yardstick.split(frame, schema["target"], seed)
    parsed = Schema.model_validate(schema)
    test = canonical_table(test, parsed, role="evaluate")
    parts = utility.deal(train, schema, seed, settings, yardstick)
    bundles = [read_bundle(path) for path in bundles_of(folder, parts, schema, settings)]
    rows = default_rows(b.manifest.noisy_rows for b in bundles)
    pool = pooled(parsed, bundles, rows=rows, seed=seed, robust=True)
    for kind in KINDS:
        for weights in (None, "balanced"):
            choice = ModelChoice(kind=kind, class_weights=weights)  # type: ignore[arg-type]
            fitted = fit_model(parsed, pool.frame, pool.soft_labels, TrainingSettings(seed=seed), choice)
            for calibrated in (False, True):
                yield {
                    "table": name,
                    "seed": seed,
                    "kind": kind,
                    "class weights": weights or "none",
                    "calibrated": "yes" if calibrated else "no",
                    **figures(fitted, parsed, test, calibrated=calibrated),
                    "seconds": fitted.seconds,
                }


def figures(fitted: Fitted, schema: Schema, test: pd.DataFrame, *, calibrated: bool) -> dict[str, float]:
    """On real test rows, and the microseconds that one row takes."""
    scorer = fitted.scorer if calibrated else replace(fitted.scorer, calibration=None)
    began = time.perf_counter()
    scores = scorer.probabilities(test)
    spent = time.perf_counter() - began
    judged = evaluate_scores(class_codes(schema, test), scores, schema.classes).as_dict()
    return {**{figure: judged[figure] for figure in FIGURES}, "microseconds a row": 1e6 * spent / len(test)}


def markdown(results: list[dict[str, Any]]) -> str:
    """Means over seeds, one line a table, kind, class weights and calibration."""
    keys = ["table", "kind", "class weights", "calibrated"]
    lines = [f"| {' | '.join([*keys, 'seeds', *COLUMNS.values(), 'spread of AUC', 'train s', 'µs a row'])} |"]
    lines.append("|---" * (len(keys) + len(COLUMNS) + 4) + "|")
    for names, group in pd.DataFrame(results).groupby(keys, sort=False):
        spread = f"{group['roc_auc'].std():.4f}" if len(group) > 1 else ""
        cells = [*names, len(group), *(f"{group[figure].mean():.4f}" for figure in COLUMNS), spread]
        cells += [f"{group['seconds'].mean():.1f}", f"{group['microseconds a row'].mean():.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
