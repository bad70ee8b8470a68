"""What are the samples worth? Fit public tables through the command line and score what comes out.

    python -m benchmarks.quality.utility --data FOLDER                        one institution holds the whole table; ours and peers
    python -m benchmarks.quality.utility --data FOLDER --sources ours mst aim     only these
    python -m benchmarks.quality.utility --data FOLDER --clients 5 --alpha 0.5    five institutions, dealt by label
    python -m benchmarks.quality.utility --data FOLDER --clients 5 --alpha iid    five institutions, dealt at random
    python -m benchmarks.quality.utility --data FOLDER --clients 5 --by age       five institutions, dealt by a column's values
    python -m benchmarks.quality.utility --quick                              a small size of the same, to see that it runs

FOLDER holds tables as NAME.parquet with NAME.schema.json beside them. Each seed splits a table anew (80/20,
stratified). Every `distill` command and every peer runs as a process of its own, whose seconds and peak memory are
measured. A peer that is not installed is skipped with one line, one that fails or takes too long gets a line that says so.
Results go to stdout as a markdown table, each run as one line, with `--out` to a CSV file after every result, with `--plot` to
a picture. Without a folder, `--quick` uses the demo's made-up table. Scoring reads real rows without noise: only for public data.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.processes import Cost, distill, distill_json
from benchmarks.quality.peer_runs import (
    NOT_PRIVATE,
    OURS,
    TOOLS,
    PeerFailed,
    PeerNotInstalled,
    Peers,
    label_of,
    pairs_of,
    run_peer,
)

ROOT = Path(__file__).resolve().parents[2]
DATA_FOLDERS = (ROOT / "data", ROOT.parent / "shared" / "data")
COLUMNS = ("table", "seed", "source", "auc", "hgb_auc", "lr_auc", "mlp_auc", "tvd1", "tvd2", "rows")
COSTS = ("epsilon", "delta", "fit_seconds", "fit_cpu_seconds", "fit_peak_mb", "bundle_kb", "note")
QUICK_ROWS = 3000
OWN_SOURCES = ("real", "ours", "more", "model", "control")
FROM_THE_SAME_BUNDLE = ("ours", "more", "model")
MORE_ROWS = 50_000  # what `distill bundle export` draws at least


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one run of the benchmark does; see `--help`."""

    epsilon: float
    delta: float
    clients: int = 1
    alpha: float | None = None
    by: str | None = None
    max_rows: int = 50_000
    rows: int | None = None
    sources: tuple[str, ...] = OWN_SOURCES
    private_controls: bool = False
    compress: str = "full"
    quick: bool = False
    peers: Peers = field(default_factory=Peers)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    yardstick = load_yardstick(options.yardstick)
    settings = settings_of(options)
    results = []
    for name, frame, schema in tables(options.data, options.tables, settings.max_rows, quick=options.quick):
        for seed in [0] if options.quick else options.seeds:
            for result in run_table(name, frame, schema, seed, settings, yardstick):
                say(result)
                results.append(result)
                if options.out:
                    write_csv(results, options.out)
    print(markdown(results))
    if options.plot:
        from benchmarks.plots import plot_utility

        plot_utility(results, options.plot)
    return 0


def say(result: dict[str, Any]) -> None:
    """One line a result, as it comes."""
    known = [f"{word} {result[c]:.4f}" for c, word in (("auc", "AUC"), ("tvd2", "2-way TVD")) if c in result]
    scored = ", ".join(known) or result["note"]
    print(f"{result['table']} seed {result['seed']} {result['source']}: {scored}", file=sys.stderr, flush=True)


def settings_of(options: argparse.Namespace) -> Settings:
    """The command line as settings; stops the benchmark where options contradict each other."""
    own = {name: Path(path).resolve() for name, path in pairs_of(options.peer, "--peer").items()}
    peers = Peers(
        scripts={**OURS, **TOOLS, **own},
        pythons=pairs_of(options.peer_python, "--peer-python"),
        python=options.peers_python,
        timeout=options.peer_timeout,
    )
    sources = chosen_sources(options.sources, peers, alone=options.clients == 1)
    return Settings(
        epsilon=options.epsilon,
        delta=options.delta,
        clients=options.clients,
        alpha=None if options.alpha == "iid" else float(options.alpha),
        by=options.by,
        max_rows=QUICK_ROWS if options.quick else options.max_rows,
        rows=options.rows,
        sources=tuple(s for s in sources if not (options.no_real and s == "real")),
        private_controls=options.private_controls,
        compress=options.compress,
        quick=options.quick,
        peers=peers,
    )


def chosen_sources(asked: Sequence[str] | None, peers: Peers, *, alone: bool) -> list[str]:
    """The sources to run, in the order asked for; `peers` stands for all peers. Default: everything that makes sense."""
    known = [*OWN_SOURCES, *peers.scripts]
    asked = asked or (known if alone else ["real", "ours"])
    named = [name for one in asked for name in (peers.scripts if one == "peers" else [one])]
    wrong = [name for name in named if name not in known]
    if wrong:
        sys.exit(f"--sources {wrong[0]}: choose from {', '.join([*known, 'peers'])}")
    if not alone and set(named) - {"real", "ours"}:
        sys.exit("--sources: with several institutions there is `real` and `ours` only; leave out the others")
    return list(dict.fromkeys(named))


def parser(*, add_help: bool = True) -> argparse.ArgumentParser:
    """The command line; without help it is a parent for that of another benchmark."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=add_help
    )
    p.add_argument("--data", type=Path, help="folder of NAME.parquet with NAME.schema.json")
    p.add_argument("--tables", nargs="+", help="names in that folder (default: all)")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--epsilon", type=float, default=2.0)
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument(
        "--sources",
        nargs="+",
        metavar="NAME",
        help=f"what to train on: {', '.join([*OWN_SOURCES, *OURS, *TOOLS])}, or peers for all of the latter (default: all; "
        "with several institutions real and ours)",
    )
    p.add_argument(
        "--private-controls", action="store_true", help="a permuted-label control of every private peer, too"
    )
    p.add_argument("--peers-python", metavar="PATH", default=sys.executable, help="Python that runs the peers' tools")
    p.add_argument(
        "--peer-python", action="append", default=[], metavar="NAME=PATH", help="Python that runs this peer's tool"
    )
    p.add_argument("--peer-timeout", type=float, default=900.0, metavar="SECONDS", help="for each peer (default: 900)")
    p.add_argument(
        "--peer", action="append", default=[], metavar="NAME=SCRIPT", help="one more peer; see peers/peer.py"
    )
    p.add_argument("--clients", type=int, default=1, help="institutions that share the table (default: 1)")
    p.add_argument("--alpha", default="0.5", help="Dirichlet concentration of the labels, or `iid` (default: 0.5)")
    p.add_argument("--by", metavar="COLUMN", help="deal by this column's values instead")
    p.add_argument("--rows", type=int, help="synthetic rows to score (default: as many as real training rows)")
    p.add_argument("--compress", default="full", help="size of the bundles: full, default or compact (default: full)")
    p.add_argument("--max-rows", type=int, default=50_000, help="real rows used of a table (default: 50000)")
    p.add_argument("--no-real", action="store_true", help="leave out the reference trained on real rows")
    p.add_argument("--yardstick", type=Path, metavar="PATH", help="an evaluate.py to score with instead of our own")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="every single result")
    p.add_argument("--plot", type=Path, metavar="FILE.png", help="AUC and 2-way TVD of every source as a picture")
    p.add_argument("--quick", action="store_true", help=f"one table, one seed, {QUICK_ROWS} rows, peers at few steps")
    return p


def load_yardstick(path: Path | None) -> Any:
    """A module with `split`, `clients`, `clients_by` and `evaluate`: ours, or the file at `path`."""
    path = path or ROOT / "benchmarks" / "yardstick.py"
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
    folder = folder or fetched_folder()
    schemas = sorted(folder.glob("*.schema.json"))
    found = {p.name.removesuffix(".schema.json"): p for p in schemas if table_of(p).is_file()}
    missing = [name for name in names or () if name not in found]
    if missing or not found:
        sys.exit(
            f"no table {', '.join(missing) or 'at all'} in {folder}: put NAME.parquet and NAME.schema.json there (the "
            "schema as `distill schema draft` writes it, confirmed), or name another folder with --data"
        )
    for name in list(names or found)[: 1 if quick else None]:
        frame = pd.read_parquet(table_of(found[name]))
        if len(frame) > max_rows:
            frame = frame.sample(max_rows, random_state=0)
        schema = json.loads(found[name].read_text(encoding="utf-8"))
        target = next((c for c in schema["columns"] if c["name"] == schema.get("target")), {"kind": "no target"})
        if target["kind"] != "categorical":
            sys.exit(
                f"table {name}: its target has no classes to tell apart; see benchmarks/quality/regression.py for numbers"
            )
        yield name, frame.reset_index(drop=True), schema


def fetched_folder() -> Path:
    """`data/` in this repository, filled from the public sources; stops the benchmark if they do not answer."""
    from benchmarks.data.fetch import FetchError, fetch

    try:
        fetch(DATA_FOLDERS[0])
    except FetchError as failure:
        sys.exit(f"error: {failure}, or name a folder with --data")
    return DATA_FOLDERS[0]


def table_of(schema: Path) -> Path:
    """`NAME.schema.json` -> `NAME.parquet`."""
    return schema.with_name(schema.name.removesuffix(".schema.json") + ".parquet")


def demo_table(rows: int) -> tuple[str, pd.DataFrame, dict[str, Any]]:
    """The made-up credit table of the demo, for a run without any data at hand."""
    from distill.data.demo import demo_schema, mixed_table

    schema = demo_schema().model_dump(mode="json", exclude_none=True)
    return demo_schema().name, mixed_table(rows=rows, rng=np.random.default_rng(0)), schema


def run_table(
    name: str, frame: pd.DataFrame, schema: dict[str, Any], seed: int, settings: Settings, yardstick: Any
) -> Iterator[dict[str, Any]]:
    """Results of one table and seed, one dictionary a source of training rows; one without scores has a `note`."""
    train, test = yardstick.split(frame, schema["target"], seed)
    shuffled = yardstick.permuted(train, schema["target"], seed)
    rows = settings.rows or len(train)

    def scored(source: str, synthetic: pd.DataFrame, fed: pd.DataFrame = train, **costs: Any) -> dict[str, Any]:
        scores = yardstick.evaluate(schema, fed, synthetic, test)
        return {"table": name, "seed": seed, "source": source, "rows": len(synthetic), **scores, **costs}

    def peer(source: str, fed: pd.DataFrame, label: str) -> dict[str, Any] | None:
        try:
            budget = {"epsilon": settings.epsilon, "delta": settings.delta}
            drawn, said = run_peer(
                settings.peers, source, fed, schema, **budget, seed=seed, rows=rows, quick=settings.quick
            )
        except PeerNotInstalled as missing:
            print(f"{source} skipped: {missing}", file=sys.stderr, flush=True)
            return None
        except PeerFailed as failure:
            return {"table": name, "seed": seed, "source": label, "note": str(failure)}
        costs = {"fit_seconds": said["seconds"], "fit_cpu_seconds": said["cpu_seconds"], "fit_peak_mb": said["peak_mb"]}
        return scored(label, drawn, fed, **(budget if said["private"] else {}), **costs)

    def from_bundle(source: str, bundle: Path, cost: Cost, test: pd.DataFrame) -> dict[str, Any]:
        if source == "model":
            return {"table": name, "seed": seed, "source": "the hub's model", "auc": hub_auc(bundle, test)}
        label, drawn = ("samples", rows) if source == "ours" else ("more samples", max(rows, MORE_ROWS))
        return scored(label, export(bundle, drawn), **costs_of([cost], [bundle], settings))

    site: tuple[Path, Cost] | None = None
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as scratch:
        folder = Path(scratch)
        for source in settings.sources:
            if source == "real":
                yield scored("real rows", train)
            elif source == "ours" and settings.clients > 1:
                parts = deal(train, schema, seed, settings, yardstick)
                yield from many_institutions(folder, parts, schema, settings, rows, scored)
            elif source in FROM_THE_SAME_BUNDLE:
                if site is None:
                    site = fit(folder / "site", train, schema, settings)
                yield from_bundle(source, *site, test)
            elif source == "control":
                bundle, cost = fit(folder / "control", shuffled, schema, settings)
                costs = costs_of([cost], [bundle], settings)
                yield scored("samples, permuted labels", export(bundle, rows), shuffled, **costs)
            else:
                feeds = [(train, label_of(source))]
                if settings.private_controls and source not in NOT_PRIVATE:
                    feeds.append((shuffled, f"{label_of(source)}, permuted labels"))
                yield from filter(None, (peer(source, *feed) for feed in feeds))


def deal(
    train: pd.DataFrame, schema: dict[str, Any], seed: int, settings: Settings, yardstick: Any
) -> list[pd.DataFrame]:
    """The training rows of each institution."""
    if settings.by:
        return list(yardstick.clients_by(train, settings.by, settings.clients))
    return list(yardstick.clients(train, schema["target"], settings.clients, settings.alpha, seed))


Scored = Callable[..., dict[str, Any]]


def hub_auc(bundle: Path, test: pd.DataFrame) -> float:
    """ROC-AUC on real test rows of the model that a hub trains from one bundle."""
    rows, model = bundle.with_name("test.parquet"), bundle.with_name("hub")
    test.to_parquet(rows, index=False)
    distill("train-global", "--allow-unknown-signers", bundle, "--out", model, "--project", bundle.parent)
    return float(distill_json("evaluate", model, rows)["roc_auc"])


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
    distill(
        "train-global",
        "--allow-unknown-signers",
        *bundles,
        "--out",
        scratch / "hub",
        "--project",
        scratch,
        "--export-pool",
        pool,
        "--rows",
        rows,
    )
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


def costs_of(fits: list[Cost], bundles: list[Path], settings: Settings) -> dict[str, float]:
    """Budget of each institution, the slowest and the largest fit, and the mean size of a bundle."""
    return {
        "epsilon": settings.epsilon,
        "delta": settings.delta,
        "fit_seconds": max(f.seconds for f in fits),
        "fit_cpu_seconds": max(f.cpu for f in fits),
        "fit_peak_mb": max(f.peak for f in fits) / 1e6,
        "bundle_kb": float(np.mean([b.stat().st_size for b in bundles])) / 1e3,
    }


def write_csv(results: list[dict[str, Any]], path: Path) -> None:
    """Every result as one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = pd.DataFrame(results)
    ordered[[c for c in (*COLUMNS, *COSTS) if c in ordered]].to_csv(path, index=False)


def markdown(results: list[dict[str, Any]]) -> str:
    """Means over seeds, one line a table and source, with the spread (standard deviation) of the AUC, and notes."""
    head = ["table", "trained on", "seeds", "AUC", "spread", "HGB", "LR", "MLP", "1-way TVD", "2-way TVD"]
    head += ["fit s", "CPU s", "peak MB", "bundle kB", "note"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    if not results:
        return "\n".join(lines)
    for (table, source), group in pd.DataFrame(results).groupby(["table", "source"], sort=False):
        good = group["auc"].dropna() if "auc" in group else pd.Series(dtype=float)
        spread = f"{good.std():.4f}" if len(good) > 1 else ""
        scores = [mean_of(group, c, 4) for c in ("hgb_auc", "lr_auc", "mlp_auc", "tvd1", "tvd2")]
        costs = [mean_of(group, c, 1) for c in ("fit_seconds", "fit_cpu_seconds", "fit_peak_mb", "bundle_kb")]
        notes = "; ".join(dict.fromkeys(group["note"].dropna())) if "note" in group else ""
        cells = [table, source, len(good), mean_of(group, "auc", 4), spread, *scores, *costs, notes]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def mean_of(group: pd.DataFrame, column: str, digits: int) -> str:
    """Mean of what there is; empty where there is nothing, as for the costs of real rows."""
    return f"{group[column].mean():.{digits}f}" if column in group and group[column].notna().any() else ""


if __name__ == "__main__":
    sys.exit(main())
