"""What are the samples worth? Fit public tables through the command line and score what comes out.

    python benchmarks/utility.py --data FOLDER                        one institution holds the whole table
    python benchmarks/utility.py --data FOLDER --clients 5 --alpha 0.5    five institutions, dealt by label
    python benchmarks/utility.py --data FOLDER --clients 5 --alpha iid    five institutions, dealt at random
    python benchmarks/utility.py --data FOLDER --clients 5 --by age       five institutions, dealt by a column's values
    python benchmarks/utility.py --quick                              a small size of the same, to see that it runs

FOLDER holds tables as NAME.parquet with NAME.schema.json beside them. Each seed splits a table anew (80/20,
stratified). Every `distill` command runs as a process of its own, whose wall seconds and peak memory are measured from
outside. Results go to stdout as a markdown table, each run as one line, and with `--out` to a CSV file. Without a
folder, `--quick` uses the demo's made-up table. Scoring reads real rows without noise: only for public data.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
DATA_FOLDERS = (ROOT / "data", ROOT.parent / "shared" / "data")
COLUMNS = ("table", "seed", "source", "auc", "hgb_auc", "lr_auc", "mlp_auc", "tvd1", "tvd2", "rows")
COSTS = ("epsilon", "delta", "fit_seconds", "fit_peak_mb", "bundle_kb")
QUICK_ROWS = 3000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one run of the benchmark does; see `--help`."""

    epsilon: float
    delta: float
    clients: int
    alpha: float | None
    by: str | None
    max_rows: int
    rows: int | None
    real: bool
    compress: str


@dataclass(frozen=True)
class Cost:
    """What one process took: wall seconds and peak resident memory in bytes."""

    seconds: float
    peak: int


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    yardstick = load_yardstick(options.yardstick)
    settings = Settings(
        epsilon=options.epsilon,
        delta=options.delta,
        clients=options.clients,
        alpha=None if options.alpha == "iid" else float(options.alpha),
        by=options.by,
        max_rows=QUICK_ROWS if options.quick else options.max_rows,
        rows=options.rows,
        real=not options.no_real,
        compress=options.compress,
    )
    results = []
    for name, frame, schema in tables(options.data, options.tables, settings.max_rows, quick=options.quick):
        for seed in [0] if options.quick else options.seeds:
            for result in run_table(name, frame, schema, seed, settings, yardstick):
                print(f"{name} seed {seed} {result['source']}: AUC {result['auc']:.4f}", file=sys.stderr, flush=True)
                results.append(result)
                if options.out:
                    write_csv(results, options.out)
    print(markdown(results))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="folder of NAME.parquet with NAME.schema.json")
    p.add_argument("--tables", nargs="+", help="names in that folder (default: all)")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--epsilon", type=float, default=2.0)
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument("--clients", type=int, default=1, help="institutions that share the table (default: 1)")
    p.add_argument("--alpha", default="0.5", help="Dirichlet concentration of the labels, or `iid` (default: 0.5)")
    p.add_argument("--by", metavar="COLUMN", help="deal by this column's values instead")
    p.add_argument("--rows", type=int, help="synthetic rows to score (default: as many as real training rows)")
    p.add_argument("--compress", default="full", help="size of the bundles: full, default or compact (default: full)")
    p.add_argument("--max-rows", type=int, default=50_000, help="real rows used of a table (default: 50000)")
    p.add_argument("--no-real", action="store_true", help="leave out the reference trained on real rows")
    p.add_argument("--yardstick", type=Path, metavar="PATH", help="an evaluate.py to score with instead of our own")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="every single result")
    p.add_argument("--quick", action="store_true", help=f"one table, one seed, {QUICK_ROWS} rows")
    return p


def load_yardstick(path: Path | None) -> Any:
    """A module with `split`, `clients`, `clients_by` and `evaluate`: ours, or the file at `path`."""
    path = path or Path(__file__).with_name("yardstick.py")
    if not path.is_file():
        sys.exit(f"no yardstick at {path}: name a Python file with split, clients, clients_by and evaluate")
    spec = importlib.util.spec_from_file_location("distill_yardstick", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tables(
    folder: Path | None, names: Sequence[str] | None, max_rows: int, *, quick: bool
) -> Iterator[tuple[str, pd.DataFrame, dict[str, Any]]]:
    """(name, rows, schema as in its file) of each table asked for; at most `max_rows` rows drawn with seed 0."""
    folder = folder or next((f for f in DATA_FOLDERS if f.is_dir()), None)
    if folder is None and quick:
        yield demo_table(max_rows)
        return
    schemas = sorted(folder.glob("*.schema.json")) if folder else []
    found = {p.name.removesuffix(".schema.json"): p for p in schemas if table_of(p).is_file()}
    missing = [name for name in names or () if name not in found]
    if missing or not found:
        where = folder or " or ".join(map(str, DATA_FOLDERS))
        sys.exit(
            f"no table {', '.join(missing) or 'at all'} in {where}: put NAME.parquet and NAME.schema.json there (the "
            "schema as `distill schema draft` writes it, confirmed), or name another folder with --data"
        )
    for name in list(names or found)[: 1 if quick else None]:
        frame = pd.read_parquet(table_of(found[name]))
        if len(frame) > max_rows:
            frame = frame.sample(max_rows, random_state=0)
        schema = json.loads(found[name].read_text(encoding="utf-8"))
        target = next((c for c in schema["columns"] if c["name"] == schema.get("target")), {"kind": "no target"})
        if target["kind"] != "categorical":
            sys.exit(f"table {name}: its target has no classes to tell apart; see benchmarks/regression.py for numbers")
        yield name, frame.reset_index(drop=True), schema


def table_of(schema: Path) -> Path:
    """`NAME.schema.json` -> `NAME.parquet`."""
    return schema.with_name(schema.name.removesuffix(".schema.json") + ".parquet")


def demo_table(rows: int) -> tuple[str, pd.DataFrame, dict[str, Any]]:
    """The made-up credit table of the demo, for a run without any data at hand."""
    from distill.demo_tables import demo_schema, mixed_table

    schema = demo_schema().model_dump(mode="json", exclude_none=True)
    return demo_schema().name, mixed_table(rows=rows, rng=np.random.default_rng(0)), schema


def run_table(
    name: str, frame: pd.DataFrame, schema: dict[str, Any], seed: int, settings: Settings, yardstick: Any
) -> Iterator[dict[str, Any]]:
    """Results of one table and seed, one dictionary a source of training rows."""
    train, test = yardstick.split(frame, schema["target"], seed)

    def scored(source: str, rows: pd.DataFrame, **costs: float) -> dict[str, Any]:
        return {
            "table": name,
            "seed": seed,
            "source": source,
            "rows": len(rows),
            **yardstick.evaluate(schema, train, rows, test),
            **costs,
        }

    if settings.real:
        yield scored("real rows", train)
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as scratch:
        runner = one_institution if settings.clients == 1 else many_institutions
        parts = [train] if settings.clients == 1 else deal(train, schema, seed, settings, yardstick)
        yield from runner(Path(scratch), parts, schema, settings, settings.rows or len(train), scored)


def deal(
    train: pd.DataFrame, schema: dict[str, Any], seed: int, settings: Settings, yardstick: Any
) -> list[pd.DataFrame]:
    """The training rows of each institution."""
    if settings.by:
        return list(yardstick.clients_by(train, settings.by, settings.clients))
    return list(yardstick.clients(train, schema["target"], settings.clients, settings.alpha, seed))


Scored = Callable[..., dict[str, Any]]


def one_institution(
    scratch: Path, parts: list[pd.DataFrame], schema: dict[str, Any], settings: Settings, rows: int, scored: Scored
) -> Iterator[dict[str, Any]]:
    """The table's owner fits, exports samples, and the samples are scored."""
    bundle, cost = fit(scratch / "site", parts[0], schema, settings)
    yield scored("samples", export(bundle, rows), **costs_of([cost], [bundle], settings))


def many_institutions(
    scratch: Path, parts: list[pd.DataFrame], schema: dict[str, Any], settings: Settings, rows: int, scored: Scored
) -> Iterator[dict[str, Any]]:
    """Each institution fits by itself; scored are the plain union of their samples and what the hub makes of them."""
    fits = [fit(scratch / f"site_{i}", part, schema, settings) for i, part in enumerate(parts)]
    bundles = [bundle for bundle, _ in fits]
    costs = costs_of([cost for _, cost in fits], bundles, settings)
    union = [
        export(b, max(1, round(rows * len(p) / sum(map(len, parts))))) for b, p in zip(bundles, parts, strict=True)
    ]
    yield scored("union of samples", pd.concat(union, ignore_index=True), **costs)
    pool = scratch / "pool.parquet"
    distill("train-global", *bundles, "--out", scratch / "hub", "--export-pool", pool, "--rows", rows)
    yield scored("hub's pool", pd.read_parquet(pool), **costs)


def fit(folder: Path, frame: pd.DataFrame, schema: dict[str, Any], settings: Settings) -> tuple[Path, Cost]:
    """One institution from nothing to its bundle; the cost is that of `distill fit` alone."""
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "train.parquet", index=False)
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    budget = ("--epsilon", settings.epsilon, "--delta", settings.delta)
    distill(
        "init", folder, "--data", folder / "train.parquet", "--schema", folder / "schema.json", "--name", folder.name
    )
    distill("ledger", "grant", *budget, "--reason", "benchmark on public data", "--project", folder)
    bundle = folder / "samples.distill"
    size = ("--compress", settings.compress, "--institutions", settings.clients)
    return bundle, distill("fit", *budget, *size, "--out", bundle, "--project", folder)


def export(bundle: Path, rows: int) -> pd.DataFrame:
    """`rows` samples of a bundle."""
    out = bundle.with_suffix(".parquet")
    distill("bundle", "export", bundle, "-o", out, "--rows", rows)
    return pd.read_parquet(out)


# A process starts its life with the peak memory of whoever forked it, so a small go-between starts what is measured.
MEASURE = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as out:
    json.dump([time.perf_counter() - started, usage.ru_maxrss], out)
sys.exit(os.waitstatus_to_exitcode(status) and 1)
"""


def distill(*arguments: object) -> Cost:
    """Run one `distill` command in a process of its own; stops the benchmark with its words if it fails."""
    command = [sys.executable, "-c", "from cli.app import main; main()", *map(str, arguments)]
    with tempfile.NamedTemporaryFile(suffix=".json") as measured:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, measured.name, *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            sys.exit(
                f"`distill {' '.join(map(str, arguments))}` failed:\n{done.stdout.decode('utf-8', 'replace').strip()}"
            )
        seconds, peak = json.loads(Path(measured.name).read_text(encoding="utf-8"))
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kibibytes elsewhere
    return Cost(seconds, peak * unit)


def costs_of(fits: list[Cost], bundles: list[Path], settings: Settings) -> dict[str, float]:
    """Budget of each institution, the slowest and the largest fit, and the mean size of a bundle."""
    return {
        "epsilon": settings.epsilon,
        "delta": settings.delta,
        "fit_seconds": max(f.seconds for f in fits),
        "fit_peak_mb": max(f.peak for f in fits) / 1e6,
        "bundle_kb": float(np.mean([b.stat().st_size for b in bundles])) / 1e3,
    }


def write_csv(results: list[dict[str, Any]], path: Path) -> None:
    """Every result as one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = pd.DataFrame(results)
    ordered[[c for c in (*COLUMNS, *COSTS) if c in ordered]].to_csv(path, index=False)


def markdown(results: list[dict[str, Any]]) -> str:
    """Means over seeds, one line a table and source, with the spread (standard deviation) of the AUC."""
    head = ["table", "trained on", "seeds", "AUC", "spread", "HGB", "LR", "MLP", "1-way TVD", "2-way TVD"]
    head += ["fit s", "peak MB", "bundle kB"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    if not results:
        return "\n".join(lines)
    for (table, source), group in pd.DataFrame(results).groupby(["table", "source"], sort=False):
        spread = f"{group['auc'].std():.4f}" if len(group) > 1 else ""
        scores = [f"{group[c].mean():.4f}" for c in ("hgb_auc", "lr_auc", "mlp_auc", "tvd1", "tvd2")]
        costs = [_mean(group, c) for c in ("fit_seconds", "fit_peak_mb", "bundle_kb")]
        cells = [table, source, len(group), f"{group['auc'].mean():.4f}", spread, *scores, *costs]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _mean(group: pd.DataFrame, column: str) -> str:
    """Mean of a cost; empty where there is none, as for real rows."""
    return f"{group[column].mean():.1f}" if column in group and group[column].notna().any() else ""


if __name__ == "__main__":
    sys.exit(main())
