"""How good is the hub's global set, however the rows are spread over institutions?

    python -m benchmarks.quality.splits --data FOLDER --keep BUNDLES                      every table and split, seeds 0, 1 and 2
    python -m benchmarks.quality.splits --data FOLDER --keep BUNDLES --tables adult --splits 5:iid 10:0.3 5:education_num
    python -m benchmarks.quality.splits --quick                                           a small size, to see that it runs

A split is INSTITUTIONS:HOW; HOW is `iid`, the concentration of a Dirichlet deal of the labels, or a column by whose values rows
are dealt. Each institution fits by itself through the command line; `--keep` keeps the bundles of a split, so that another
run scores what a changed hub makes of them. Scored, on real test rows: the plain union of samples; the hub's pool with as many
rows as there are real ones, and with as many as the hub draws by itself; the hub's model; independent noisy histograms of each
institution, pooled (under a skewed deal of labels the institution nearly is the label: what that alone gives).
Scoring reads real rows without noise: only for public data.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.processes import distill, distill_json
from benchmarks.quality.peer_runs import Peers, run_peer
from benchmarks.quality.utility import (
    QUICK_ROWS,
    Settings,
    deal,
    export,
    fit,
    load_yardstick,
    markdown,
    say,
    tables,
    write_csv,
)

SPLITS = ("5:iid", "5:0.5", "10:0.3", "20:iid")
BY = {  # a column whose neighbouring values tell customers apart, for each shared table
    "adult": "education_num",
    "taiwan_credit": "LIMIT_BAL",
    "lending_club": "annual_inc",
    "vehicle_fraud": "Age",
    "taiwan_bankruptcy": "ROA(C) before interest and depreciation before interest",
}
SOURCES = ("union", "pool", "own", "model", "independent")


@dataclass(frozen=True)
class Split:
    """How rows are spread: over how many institutions, and by what (`iid`, a Dirichlet concentration, or a column)."""

    institutions: int
    how: str

    def settings(self, base: Settings) -> Settings:
        """The benchmark's settings for this split."""
        try:
            alpha = None if self.how == "iid" else float(self.how)
        except ValueError:
            return replace(base, clients=self.institutions, alpha=None, by=self.how)
        return replace(base, clients=self.institutions, alpha=alpha)

    @property
    def label(self) -> str:
        """Fit for a file's name."""
        return f"{self.institutions}-" + "".join(c if c.isalnum() or c == "." else "_" for c in self.how)[:40]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as scratch:
        for result in run(options, options.keep or Path(scratch)):
            say(result)
            results.append(result)
            if options.out:
                write_csv(results, options.out)
    print(markdown(results))
    return 0


def run(options: argparse.Namespace, keep: Path) -> Iterator[dict[str, Any]]:
    """Every table, split and seed: what each source gives."""
    yardstick = load_yardstick(options.yardstick)
    rows = QUICK_ROWS if options.quick else options.max_rows
    for name, frame, schema in tables(options.data, options.tables, rows, quick=options.quick):
        for split in splits_of(name, options):
            settings = split.settings(Settings(epsilon=options.epsilon, delta=options.delta))
            for seed in [0] if options.quick else options.seeds:
                train, test = yardstick.split(frame, schema["target"], seed)
                try:
                    parts = deal(train, schema, seed, settings, yardstick)
                except ValueError as impossible:  # too few rows for so many institutions
                    print(f"{name} {split.label} seed {seed} left out: {impossible}", file=sys.stderr, flush=True)
                    continue
                bundles = bundles_of(keep / f"{name}-{split.label}-{seed}", parts, schema, settings)
                for result in scores(bundles, parts, test, schema, options, yardstick, seed):
                    yield {"table": f"{name} {split.label}", "seed": seed, **result}


def splits_of(table: str, options: argparse.Namespace) -> list[Split]:
    """The splits asked for; by default those of labels, and the one of the table's own column."""
    if options.splits:
        named = options.splits
    elif options.quick:
        named = ["2:iid"]
    else:
        named = [*SPLITS, *([f"5:{BY[table]}"] if table in BY else [])]
    return parsed_splits(named)


def parsed_splits(named: Sequence[str]) -> list[Split]:
    """Splits from their words; stops the benchmark where one is not of that form."""
    wrong = [text for text in named if not text.partition(":")[0].isdigit() or not text.partition(":")[2]]
    if wrong:
        sys.exit(f"--splits {wrong[0]}: write INSTITUTIONS:HOW, as in 5:iid, 5:0.5 or 5:age")
    return [Split(int(text.partition(":")[0]), text.partition(":")[2]) for text in named]


def bundles_of(place: Path, parts: list[pd.DataFrame], schema: dict[str, Any], settings: Settings) -> list[Path]:
    """One bundle an institution, made unless it is there; an institution too small to fit is left out, and told."""
    bundles = []
    for number, part in enumerate(parts):
        made, refused = (place / f"site_{number:02}{end}" for end in (".distill", ".refused"))
        if not made.is_file() and not refused.is_file():
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="fit-", dir=place) as scratch:
                try:
                    fit(Path(scratch) / made.stem, part, schema, settings)[0].replace(made)
                except SystemExit as refusal:
                    refused.write_text(str(refusal), encoding="utf-8")
        if made.is_file():
            bundles.append(made)
        else:
            print(f"{made.stem} left out: {refused.read_text(encoding='utf-8')[-300:]}", file=sys.stderr, flush=True)
    return bundles


def scores(
    bundles: list[Path],
    parts: list[pd.DataFrame],
    test: pd.DataFrame,
    schema: dict[str, Any],
    options: argparse.Namespace,
    yardstick: Any,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """What each source gives on the test rows."""
    train = pd.concat(parts, ignore_index=True)

    def scored(source: str, rows: pd.DataFrame) -> dict[str, Any]:
        return {"source": source, "rows": len(rows), **yardstick.evaluate(schema, train, rows, test)}

    with tempfile.TemporaryDirectory(prefix="distill-bench-") as scratch:
        folder = Path(scratch)
        if "union" in options.sources:
            yield scored("union of samples", union(folder, bundles, parts))
        for source, rows in (("pool", len(train)), ("own", None)):
            if source in options.sources or (source == "own" and "model" in options.sources):
                pool, model = hub(folder / source, bundles, rows, seed)
                if source in options.sources:
                    yield scored("hub's pool" if rows else "hub's pool, its own size", pd.read_parquet(pool))
                if source == "own" and "model" in options.sources:
                    test.to_parquet(folder / "test.parquet", index=False)
                    auc = distill_json("evaluate", model, folder / "test.parquet")["roc_auc"]
                    yield {"source": "hub's model", "auc": float(auc)}
        if "independent" in options.sources:
            drawn = [independent(part, schema, options, seed) for part in parts]
            yield scored("independent histograms", pd.concat(drawn, ignore_index=True))


def union(folder: Path, bundles: list[Path], parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Samples of every bundle, as many as its institution has rows: plain pooling."""
    drawn = []
    for bundle in bundles:
        copy = folder / bundle.name
        copy.write_bytes(bundle.read_bytes())
        drawn.append(export(copy, len(parts[int(bundle.stem.removeprefix("site_"))])))
    return pd.concat(drawn, ignore_index=True)


def hub(folder: Path, bundles: list[Path], rows: int | None, seed: int) -> tuple[Path, Path]:
    """The pool and the model that a hub makes of the bundles."""
    folder.mkdir()
    pool, model = folder / "pool.parquet", folder / "hub"
    size = () if rows is None else ("--rows", rows)
    distill(
        "train-global",
        "--allow-unknown-signers",
        *bundles,
        "--out",
        model,
        "--export-pool",
        pool,
        "--seed",
        seed,
        *size,
    )
    return pool, model


def independent(part: pd.DataFrame, schema: dict[str, Any], options: argparse.Namespace, seed: int) -> pd.DataFrame:
    """As many rows of one institution's independent noisy histograms as it has."""
    budget = {"epsilon": options.epsilon, "delta": options.delta}
    return run_peer(Peers(), "independent", part, schema, **budget, seed=seed, rows=len(part))[0]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="folder of NAME.parquet with NAME.schema.json")
    p.add_argument("--tables", nargs="+", metavar="NAME", help="only these tables (default: all in the folder)")
    p.add_argument("--splits", nargs="+", metavar="N:HOW", help=f"default: {' '.join(SPLITS)} and 5:COLUMN")
    p.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES), help="what to score (default: all)")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--epsilon", type=float, default=2.0, help="of each institution (default: 2)")
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the bundles here, and use those that are here")
    p.add_argument("--max-rows", type=int, default=50_000, help="real rows used of a table (default: 50000)")
    p.add_argument("--yardstick", type=Path, metavar="PATH", help="an evaluate.py to score with instead of our own")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="every single result")
    p.add_argument("--quick", action="store_true", help=f"one table, one seed, {QUICK_ROWS} rows, two institutions")
    return p


if __name__ == "__main__":
    sys.exit(main())
