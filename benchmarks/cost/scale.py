"""How do time and memory of a fit grow with the number of rows?

    python -m benchmarks.cost.scale --out FOLDER                     1e4, 1e5, 1e6 and 1e7 rows of 30 columns
    python -m benchmarks.cost.scale --sizes 1000000 --out FOLDER     other sizes
    python -m benchmarks.cost.scale --quick                          a small size of the same, to see that it runs

A made-up table (numbers, integers, categories, missing values, a binary target) is written to Parquet in chunks, so
that this program itself needs little memory. Each fit runs in a process of its own, which times its stages; its wall
seconds, processor seconds and peak memory are measured from outside. Stages are given in processor seconds: a fit uses
one thread but for decoding Parquet, and other work on the machine slows it down without changing them. Results go to
stdout as a markdown table and, into the folder of `--out`, as scale.csv and scale.png.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import processes

ROOT = Path(__file__).resolve().parents[2]
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
QUICK_SIZES, QUICK_COLUMNS = (1_000, 3_000), 8
CHUNK = 250_000  # rows made and written at a time
# `start` is what passes before the table is opened: Python, libraries. `size` holds the plan too, `write` the ledger.
STAGES = ("start", "read", "size", "encode", "relate", "represent", "cluster", "refine", "select", "write")
LIMIT_MB = 3000  # what a fit of 10 million rows x 30 columns may take


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.fit:
        print(json.dumps(fit(options.fit, options.epsilon, options.delta, options.device)))
        return 0
    results: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="distill-scale-", dir=options.scratch) as scratch:
        for rows in QUICK_SIZES if options.quick else options.sizes:
            folder = Path(scratch) / str(rows)
            make_table(folder, rows, QUICK_COLUMNS if options.quick else options.columns)
            results.append({"rows": rows} | measured_fit(folder, options.epsilon, options.delta, options.device))
            (folder / "table.parquet").unlink()
            print(
                f"{rows} rows: {results[-1]['seconds']:.1f} processor s, {results[-1]['peak_mb']:.0f} MB",
                file=sys.stderr,
            )
            if options.out:
                write(results, options.out)
    print(markdown(results))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="rows (default: 1e4 1e5 1e6 1e7)")
    p.add_argument("--columns", type=int, default=30, help="columns, the target included (default: 30)")
    p.add_argument("--epsilon", type=float, default=2.0)
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument("--out", type=Path, metavar="FOLDER", help="for scale.csv and scale.png")
    p.add_argument("--scratch", type=Path, metavar="FOLDER", help="for the made-up tables; 1e7 rows take about 1.2 GB")
    p.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="as for `distill fit`")
    p.add_argument("--quick", action="store_true", help=f"{QUICK_COLUMNS} columns, {QUICK_SIZES[-1]} rows at most")
    p.add_argument("--fit", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)  # the process that is measured
    return p


def make_table(folder: Path, rows: int, columns: int) -> None:
    """Write `table.parquet` and `schema.json`: features of six kinds in turn, tied by one hidden factor; a binary target."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    features = [(f"f{i:02}", KINDS[i % len(KINDS)]) for i in range(columns - 1)]
    described = [{"name": name, **public} for name, (public, _) in features]
    label = {"name": "label", "kind": "categorical", "categories": [0, 1]}
    schema = {"name": "scale", "target": "label", "columns": [*described, label]}
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    writer = None
    for number, start in enumerate(range(0, rows, CHUNK)):
        rng = np.random.default_rng((rows, number))
        hidden = rng.standard_normal(min(CHUNK, rows - start))
        values = {name: make(hidden + rng.standard_normal(len(hidden)), rng) for name, (_, make) in features}
        values["label"] = (hidden + rng.logistic(size=len(hidden)) > 0.5).astype(np.int8)
        batch = pa.Table.from_pydict({name: pa.array(v, from_pandas=True) for name, v in values.items()})
        writer = writer or pq.ParquetWriter(folder / "table.parquet", batch.schema, compression="zstd")
        writer.write_table(batch)
    if writer is not None:
        writer.close()


def _ratio(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    ratio = 1 / (1 + np.exp(-score)) ** 2
    ratio[rng.random(len(score)) < 0.1] = np.nan
    return np.asarray(ratio)


def _balance(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(score)) < 0.3, 0.0, np.exp(7 + 1.5 * score).round(2))


def _age(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(45 + 12 * score + rng.normal(0, 3, len(score)), 18, 100).astype(np.int16)


def _late(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    late = rng.poisson(np.exp(0.5 * score - 1)).clip(max=12).astype(np.float32)
    late[rng.random(len(score)) < 0.05] = np.nan
    return np.asarray(late)


def _home(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array(["own", "rent", "family", "other"])[np.clip(score + rng.random(len(score)) + 1.5, 0, 3).astype(int)]


def _region(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray((np.abs(score) * 6 + rng.exponential(3, len(score))).astype(np.int16).clip(max=39))


KINDS: tuple[tuple[dict[str, Any], Any], ...] = (
    ({"kind": "continuous", "min": 0, "max": 1, "nullable": True}, _ratio),
    ({"kind": "continuous", "min": 0, "max": 1_000_000}, _balance),
    ({"kind": "integer", "min": 18, "max": 100}, _age),
    ({"kind": "integer", "min": 0, "max": 12, "nullable": True}, _late),
    ({"kind": "categorical", "categories": ["own", "rent", "family", "other"]}, _home),
    ({"kind": "categorical", "categories": list(range(35)), "other": True}, _region),
)


def measured_fit(folder: Path, epsilon: float, delta: float, device: str = "auto") -> dict[str, float]:
    """Fit the table in `folder` in a process of its own: wall and processor seconds, peak resident megabytes, seconds a stage."""
    settings = ["--epsilon", str(epsilon), "--delta", str(delta), "--device", device]
    command = [sys.executable, "-m", __spec__.name, "--fit", str(folder), *settings]
    done = processes.measured(command)
    if done.code:
        sys.exit(f"the fit in {folder} failed:\n{done.output.strip()}")
    stages: dict[str, float] = json.loads(done.output.strip().splitlines()[-1])
    stages["start"] = done.cost.cpu - sum(stages.values())
    measured = {"wall": done.cost.seconds, "seconds": done.cost.cpu, "peak_mb": done.cost.peak / 1e6}
    return measured | {name: stages[name] for name in STAGES}


def fit(folder: Path, epsilon: float, delta: float, device: Any) -> dict[str, float]:
    """Fit the table in `folder` in this process; processor seconds a stage."""
    from distill.common.keys import generate_key
    from distill.data.schema import load_schema
    from distill.ledger import create_ledger
    from distill.releases import fit as pipeline

    key = generate_key(folder / "key.pem")
    ledger = create_ledger(folder / "ledger.db", dataset="0" * 32, unit="row", key=key)
    ledger.grant(epsilon=epsilon, delta=delta, reason="benchmark on made-up data", actor="benchmark", key=key)
    request = pipeline.FitRequest(
        data=folder / "table.parquet",
        schema=load_schema(folder / "schema.json"),
        name="benchmark",
        dataset=ledger.dataset,
        out=folder / "table.distill",
        epsilon=epsilon,
        delta=delta,
        device=device,
    )
    clock = StageClock()
    pipeline.fit(request, ledger, key, progress=clock)
    return clock.finish()


class StageClock:
    """A fit's `progress` that adds up processor seconds a stage."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(STAGES[1:], 0.0)
        self._stage, self._since = "read", time.process_time()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Time since the last call went into `stage`, or, where `stage` only begins now, into the one before."""
        if done:
            self._stage = stage
        self._note()
        self._stage = stage

    def finish(self) -> dict[str, float]:
        """Seconds a stage; what came after the last call is writing."""
        self._stage = "write"
        self._note()
        return self._seconds

    def _note(self) -> None:
        now = time.process_time()
        self._seconds[self._stage] += now - self._since
        self._since = now


def write(results: list[dict[str, float]], folder: Path) -> None:
    """scale.csv and scale.png."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(results).round(3).to_csv(folder / "scale.csv", index=False)
    from matplotlib.figure import Figure

    results = sorted(results, key=lambda r: r["rows"])
    rows = [r["rows"] for r in results]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    times, memory = figure.subplots(1, 2)
    for stage in STAGES:
        times.plot(rows, [r[stage] for r in results], marker="o", label=stage)
    times.plot(rows, [r["seconds"] for r in results], marker="o", color="black", linewidth=2, label="in all")
    times.set(xscale="log", yscale="log", xlabel="rows", ylabel="processor seconds", title="Time of a fit, by stage")
    times.legend(fontsize=8, ncols=2)
    memory.plot(rows, [r["peak_mb"] for r in results], marker="o", color="black", label="measured")
    memory.axhline(LIMIT_MB, linestyle="--", color="grey", label="limit for 1e7 rows x 30 columns")
    memory.set(xscale="log", ylim=(0, None), xlabel="rows", ylabel="MB", title="Peak resident memory of a fit")
    memory.legend(fontsize=8)
    figure.savefig(folder / "scale.png", dpi=120)


def markdown(results: list[dict[str, float]]) -> str:
    """One line a size."""
    lines = [f"| rows | wall s | processor s | peak MB | {' | '.join(STAGES)} |", "|---" * (4 + len(STAGES)) + "|"]
    for r in results:
        stages = " | ".join(f"{r[stage]:.1f}" for stage in STAGES)
        lines.append(f"| {r['rows']:,.0f} | {r['wall']:.1f} | {r['seconds']:.1f} | {r['peak_mb']:.0f} | {stages} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
