"""What a number as the target survives: R2 on real rows of regressors that learnt from bundles, against real rows.

The table is generated, so the best R2 that anybody could reach is known (the *oracle* below). Each seed draws fresh rows,
deals the training rows to as many institutions as asked, runs `distill init`, `ledger grant` and `fit` at each, then
`train-global` at the hub, and tests on fresh rows: gradient boosting trained on the real rows, the same trained on the
pooled synthetic rows (as many as the real ones), and the hub's model (`distill evaluate`).

    python -m benchmarks.quality.regression --seeds 0 1 2
    python -m benchmarks.quality.regression --seeds 0 1 2 --clients 3
    python -m benchmarks.quality.regression --quick
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
NOISE = 0.35  # stddev of the log of the target around its law
REGIONS, VEHICLES = ("north", "south", "east", "west"), ("small", "van", "truck")
SCHEMA: dict[str, Any] = {
    "name": "claims",
    "target": "amount",
    "columns": [
        {"name": "age", "kind": "integer", "min": 18, "max": 100},
        {"name": "income", "kind": "continuous", "min": 0, "max": 500_000},
        {"name": "score", "kind": "continuous", "min": -6, "max": 6, "nullable": True},
        {"name": "region", "kind": "categorical", "categories": list(REGIONS)},
        {"name": "vehicle", "kind": "categorical", "categories": list(VEHICLES)},
        {"name": "years", "kind": "integer", "min": 0, "max": 40},
        {"name": "power", "kind": "continuous", "min": 0, "max": 1},
        {"name": "fleet", "kind": "integer", "min": 0, "max": 5},
        {"name": "amount", "kind": "continuous", "min": 0, "max": 100_000},
    ],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; prints one Markdown table."""
    p = argparse.ArgumentParser(description="R2 on real rows of what is learnt from bundles with a number as target.")
    p.add_argument("--rows", type=int, default=20_000, help="real training rows, all institutions together")
    p.add_argument("--clients", type=int, default=1, help="institutions, dealt at random")
    p.add_argument("--epsilon", type=float, default=2.0)
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument("--seeds", type=int, nargs="+", default=[0])
    p.add_argument("--quick", action="store_true", help="one seed, 3,000 rows")
    asked = p.parse_args(arguments)
    if asked.quick:
        asked.rows, asked.seeds = 3_000, asked.seeds[:1]
    budget = ("--epsilon", asked.epsilon, "--delta", asked.delta)
    results = pd.DataFrame([run(asked.rows, asked.clients, budget, seed) for seed in asked.seeds])
    print(f"{asked.rows:,} rows, {asked.clients} institution(s), epsilon {asked.epsilon:g}, R2 on real rows")
    print("| learnt from | mean | spread | seeds |\n|---|---|---|---|")
    for name in results:
        spread = f"{results[name].std():.3f}" if len(results) > 1 else ""
        print(f"| {name} | {results[name].mean():.3f} | {spread} | {len(results)} |")
    return 0


def run(rows: int, clients: int, budget: tuple[Any, ...], seed: int) -> dict[str, float]:
    """R2 of each way to learn, on fresh real rows."""
    rng = np.random.default_rng(seed)
    train, test = claims(rows, rng), claims(10_000, rng)
    with tempfile.TemporaryDirectory(prefix="distill-regression-") as name:
        scratch = Path(name)
        parts = np.array_split(np.arange(rows), clients)
        bundles = [fit(scratch / f"site_{i}", train.iloc[part], budget, clients) for i, part in enumerate(parts)]
        pool, model, real = scratch / "pool.parquet", scratch / "model", scratch / "test.parquet"
        distill("train-global", "--allow-unknown-signers", *bundles, "--out", model, "--project", scratch)
        distill(
            "train-global",
            "--allow-unknown-signers",
            *bundles,
            "--out",
            scratch / "other",
            "--project",
            scratch,
            "--export-pool",
            pool,
            "--rows",
            rows,
        )
        test.to_parquet(real, index=False)
        return {
            "oracle: the law itself": r2(test, np.exp(law(test) + NOISE**2 / 2)),
            "real rows, gradient boosting": boosted(train, test),
            "pooled synthetic rows, gradient boosting": boosted(pd.read_parquet(pool), test),
            "bundles, the hub's model": float(distill("evaluate", model, real)["r2"]),
        }


def fit(folder: Path, frame: pd.DataFrame, budget: tuple[Any, ...], clients: int) -> Path:
    """One institution from nothing to its bundle."""
    folder.mkdir()
    data, schema, bundle = folder / "train.parquet", folder / "schema.json", folder / "claims.distill"
    frame.to_parquet(data, index=False)
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    distill("init", folder, "--data", data, "--schema", schema)
    distill("ledger", "grant", *budget, "--reason", "benchmark on generated data", "--project", folder)
    distill("fit", *budget, "--institutions", clients, "--compress", "full", "--out", bundle, "--project", folder)
    return bundle


def distill(*arguments: object) -> dict[str, Any]:
    """What one command prints, run in a process of its own; stops the benchmark with its words if it fails."""
    words = [*map(str, arguments), "--json"]
    command = [sys.executable, "-c", "from cli.app import main; main()", *words]
    with tempfile.TemporaryDirectory() as state:  # what is known of tables is the user's
        env = {**os.environ, "DISTILL_STATE": state}
        done = subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"`distill {' '.join(words)}` failed:\n{done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def claims(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Made-up claims of nine columns; the amount follows `law` times log-normal noise."""
    hidden = rng.normal(size=rows)
    age = np.clip(np.rint(45 + 14 * rng.normal(size=rows)), 18, 95)
    score = np.where(rng.random(rows) < 0.08, np.nan, (hidden + 0.5 * rng.normal(size=rows)).round(3))
    income = 40_000 * np.exp(0.4 * rng.normal(size=rows) + 0.3 * hidden)
    frame = pd.DataFrame(
        {
            "age": age.astype(np.int64),
            "income": income.clip(2_000, 480_000).round(2),
            "score": score,
            "region": rng.choice(np.array(REGIONS, dtype=object), rows, p=[0.4, 0.3, 0.2, 0.1]),
            "vehicle": rng.choice(np.array(VEHICLES, dtype=object), rows, p=[0.6, 0.25, 0.15]),
            "years": np.minimum(rng.poisson(8, rows), age - 18).astype(np.int64),
            "power": rng.beta(2, 3, rows).round(3),
            "fleet": rng.poisson(0.5, rows).clip(0, 5),
        }
    )
    amount = np.exp(law(frame) + NOISE * rng.normal(size=rows))
    return frame.assign(amount=amount.clip(0, 100_000).round(2))


def law(frame: pd.DataFrame) -> np.ndarray:
    """Log of the median amount of each row: additive effects, two interactions, and a missing score that tells something."""
    truck = frame["vehicle"] == "truck"
    return np.asarray(
        8
        + 0.25 * (frame["age"] - 45) / 15
        + 0.35 * frame["score"].fillna(-1.0)
        + 0.5 * (frame["region"] == "south")
        + np.where(truck, 0.8, 0.2) * frame["power"]
        - 0.03 * frame["years"]
        + 0.1 * frame["fleet"]
        + 0.25 * np.log(frame["income"] / 40_000)
        + 0.5 * ((frame["age"] < 25) & ~truck),
        dtype=np.float64,
    )


def boosted(train: pd.DataFrame, test: pd.DataFrame) -> float:
    """R2 of histogram gradient boosting on the test rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(random_state=0).fit(_numbers(train), train["amount"].astype(float))
    return r2(test, model.predict(_numbers(test)))


def r2(test: pd.DataFrame, predicted: np.ndarray) -> float:
    """Share of the variance of the amounts that is predicted."""
    truth = test["amount"].to_numpy(dtype=np.float64)
    return float(1 - np.square(truth - predicted).sum() / np.square(truth - truth.mean()).sum())


def _numbers(frame: pd.DataFrame) -> np.ndarray:
    """Features as floats, categories by their place in the schema."""
    columns = []
    for column in SCHEMA["columns"][:-1]:
        values = frame[column["name"]]
        if column["kind"] == "categorical":
            values = pd.Series(pd.Categorical(values, categories=column["categories"]).codes)
        columns.append(values.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.column_stack(columns)


if __name__ == "__main__":
    sys.exit(main())
