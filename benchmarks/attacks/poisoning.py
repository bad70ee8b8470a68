"""What does one poisoned institution cost? Five share a public table, one of them lies, and the hub pools all of them.

    python -m benchmarks.attacks.poisoning --data FOLDER --keep BUNDLES           adult, taiwan_credit, evenly and by label
    python -m benchmarks.attacks.poisoning --data FOLDER --keep BUNDLES --tables adult --splits 5:0.5 --seeds 0
    python -m benchmarks.attacks.poisoning --data FOLDER --keep BUNDLES --honest  only honest ones: weights, what those cost
    python -m benchmarks.attacks.poisoning --quick                                a small size, to see that it runs

FOLDER holds tables as NAME.parquet with NAME.schema.json beside them. Splits and bundles are those of `splits.py`, which keeps the
bundles for the next run. The liar is institution SEED mod 5; its bundle is changed in each of these ways:

    flipped   every label turned round, in all that it sent
    scaled    all counts three times as high, the row count as it was
    noise     rows and class head made up
    huge      a thousand times the rows claimed, in all that it sent
    copied    the same, and its ledger planned for so many: what a table gives in which every row is there a thousand times
    mix       flipped and copied

and pooled with and without weights, beside all honest ones and all but the liar. The score is the ROC-AUC of the hub's model on
real rows, with --yardstick also the mean of three classifiers that learn from the pool. It reads real rows without noise.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.quality import utility
from benchmarks.quality.splits import BY, Split, bundles_of, parsed_splits
from distill.data.schema import Schema
from distill.exchange.bundle import Bundle, read_bundle
from distill.exchange.generator_codec import CLASS_STEP, generator_of
from distill.privacy.events import sampling_rate
from server_train.evaluation.metrics import evaluate_scores
from server_train.models.features import class_codes
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.institutions.site import site_of
from server_train.pooling.pool import Pool, draw_pool
from server_train.pooling.weighing.self_consistency import fault_of
from server_train.training.fit import ModelChoice, fit_model
from server_train.training.network import TrainingSettings

SPLITS = ("5:iid", "5:0.5")
HONEST = (*SPLITS, "10:0.3")
QUICK_ROWS, TIMES_HUGE, TIMES_SCALED = 6000, 1000, 3
Poison = Callable[[Bundle, np.random.Generator], Bundle]


def changed(bundle: Bundle, *, manifest: dict[str, Any] | None = None, **groups: dict[str, np.ndarray]) -> Bundle:
    """The bundle with other tensors in some groups, and other fields of the manifest."""
    tensors = {g: {**content, **groups.get(g, {})} for g, content in bundle.tensors.items()}
    return replace(bundle, manifest=bundle.manifest.model_copy(update=manifest or {}), tensors=tensors)


def flipped(bundle: Bundle, rng: np.random.Generator) -> Bundle:
    """What an honest fit of the table with its labels turned round would have sent."""
    del rng
    heads, counts = bundle.tensors["heads"], bundle.tensors["statistics"]["class_counts"]
    turned = {name: np.ascontiguousarray(heads[name][::-1]) for name in ("class_weight", "class_bias")}
    classes = len(counts)
    if "critic_hidden" in heads:
        hidden = heads["critic_hidden"]
        turned["critic_hidden"] = np.concatenate([hidden[:, :-classes], hidden[:, -classes:][:, ::-1]], axis=1)
    return changed(
        bundle,
        manifest={"class_prior": list(bundle.manifest.class_prior)[::-1]},
        statistics={"class_counts": np.ascontiguousarray(counts[::-1])},
        heads=turned,
    )


def scaled(bundle: Bundle, rng: np.random.Generator) -> Bundle:
    """All counts a few times as high."""
    del rng
    statistics = bundle.tensors["statistics"]
    raised = {
        name: statistics[name].astype(np.int32) * TIMES_SCALED
        for name in ("class_counts", "pair_additions")
        if name in statistics
    }
    return changed(bundle, statistics=raised)


def noise(bundle: Bundle, rng: np.random.Generator) -> Bundle:
    """Made-up rows and a made-up class head, at the size and the class frequencies that the institution has."""
    statistics, heads = bundle.tensors["statistics"], bundle.tensors["heads"]
    counts = statistics["class_counts"]
    widths = np.array(generator_of(bundle).layout.features)
    totals = counts[:, : widths[0]].sum(axis=1)
    even = np.concatenate([np.repeat(totals[:, None] / w, w, axis=1) for w in widths], axis=1)
    made_up = {"class_counts": np.rint(even).astype(counts.dtype)}
    if "pair_additions" in statistics:
        made_up["pair_additions"] = np.zeros_like(statistics["pair_additions"])
    spread = heads["class_weight"].std()
    head = np.clip(rng.normal(0, spread, heads["class_weight"].shape), -127, 127).astype(np.int8)
    out = {"statistics": made_up, "heads": {"class_weight": head}}
    if bundle.tensors["components"]:
        stored = bundle.tensors["components"]["probabilities"]
        out["components"] = {"probabilities": rng.integers(0, int(stored.max()) + 1, stored.shape).astype(np.uint8)}
    return changed(bundle, **out)


def huge(bundle: Bundle, rng: np.random.Generator) -> Bundle:
    """A thousand times the rows, with counts that add up to them and pairs that say nothing, so that nothing contradicts it."""
    del rng
    statistics, settings = bundle.tensors["statistics"], bundle.manifest.generator
    widths = np.array(generator_of(bundle).layout.features)
    counts = statistics["class_counts"].astype(np.float64)
    sums = np.repeat(np.add.reduceat(counts, np.cumsum(widths) - widths, axis=1), widths, axis=1)
    rows = bundle.manifest.noisy_rows * TIMES_HUGE
    wanted = rows * np.array(bundle.manifest.class_prior)[:, None] / (CLASS_STEP * settings["class_stddev"])
    raised = {"class_counts": np.rint(counts / np.maximum(sums, 1) * wanted).astype(np.int32)}
    if "pair_additions" in statistics:
        raised["pair_additions"] = np.zeros_like(statistics["pair_additions"])
    generator = {**settings, "pair_stddev": settings["pair_stddev"] / TIMES_HUGE}
    return changed(bundle, manifest={"noisy_rows": rows, "generator": generator}, statistics=raised)


def copied(bundle: Bundle, rng: np.random.Generator) -> Bundle:
    """Huge, with a ledger that planned for as many rows."""
    claimed = huge(bundle, rng)
    rate = sampling_rate(claimed.manifest.noisy_rows)
    privacy = claimed.manifest.privacy
    events = [
        e.model_copy(update={"sampling_rate": rate}) if e.mechanism == "poisson_gaussian" else e for e in privacy.events
    ]
    return changed(claimed, manifest={"privacy": privacy.model_copy(update={"events": tuple(events)})})


def mix(bundle: Bundle, rng: np.random.Generator) -> Bundle:
    """Flipped and copied."""
    return copied(flipped(bundle, rng), rng)


POISONS: dict[str, Poison] = {
    "flipped": flipped,
    "scaled": scaled,
    "noise": noise,
    "huge": huge,
    "copied": copied,
    "mix": mix,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    yardstick = utility.load_yardstick(None)
    max_rows = QUICK_ROWS if options.quick else options.max_rows
    tables = None if options.quick and not options.tables else options.tables or ["adult", "taiwan_credit"]
    results = []
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as scratch:
        options.keep = options.keep or Path(scratch)
        for name, frame, schema in utility.tables(options.data, tables, max_rows, quick=options.quick):
            for split in splits_of(name, options):
                for seed in [0] if options.quick else options.seeds:
                    for result in run(name, frame, schema, split, seed, options, yardstick):
                        print(say(result), file=sys.stderr, flush=True)
                        results.append(result)
                        if options.out:
                            options.out.parent.mkdir(parents=True, exist_ok=True)
                            pd.DataFrame(results).to_csv(options.out, index=False)
    print(markdown(results))
    return 0


def splits_of(table: str, options: argparse.Namespace) -> list[Split]:
    """The splits asked for, or those that the question is about."""
    by = [f"5:{BY[table]}"] if table in BY else []
    usual = ["5:iid"] if options.quick else [*HONEST, *by] if options.honest else list(SPLITS)
    return parsed_splits(options.splits or usual)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="folder of NAME.parquet with NAME.schema.json")
    p.add_argument("--tables", nargs="+", help="names in that folder (default: adult taiwan_credit)")
    p.add_argument("--splits", nargs="+", metavar="N:HOW", help=f"default: {' '.join(SPLITS)}; with --honest more")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--epsilon", type=float, default=2.0)
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the bundles here, and use those that are here")
    p.add_argument("--honest", action="store_true", help="nobody lies")
    p.add_argument("--poisons", nargs="+", choices=list(POISONS), default=list(POISONS))
    p.add_argument("--yardstick", action="store_true", help="score the pool with three classifiers, too")
    p.add_argument("--rows", type=int, help="rows to pool (default: as many as real training rows)")
    p.add_argument("--max-rows", type=int, default=50_000, help="real rows used of a table (default: 50000)")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="every single result")
    p.add_argument("--quick", action="store_true", help=f"one table, one seed, {QUICK_ROWS} rows, an even deal")
    return p


def run(
    name: str,
    frame: pd.DataFrame,
    schema: dict[str, Any],
    split: Split,
    seed: int,
    options: argparse.Namespace,
    yardstick: Any,
) -> Iterator[dict[str, Any]]:
    """Results of one table, split and seed, one dictionary a pool."""
    train_rows, test = yardstick.split(frame, schema["target"], seed)
    settings = split.settings(utility.Settings(epsilon=options.epsilon, delta=options.delta))
    parts = utility.deal(train_rows, schema, seed, settings, yardstick)
    place = options.keep / f"{name}-{split.label}-{seed}"
    bundles = [read_bundle(path) for path in bundles_of(place, parts, schema, settings)]
    liar = seed % len(bundles)
    parsed = bundles[0].schema

    def result(case: str, used: Sequence[Bundle], *, robust: bool) -> dict[str, Any]:
        pool = pooled(parsed, used, rows=options.rows or len(train_rows), seed=seed, robust=robust)
        scores = {"model_auc": model_auc(pool, test, seed, quick=options.quick)}
        if options.yardstick:
            scores["auc"] = yardstick.downstream(schema, pool.frame, test, seed)["auc"]
        weights = [round(m.weight, 2) for m in pool.members]
        where = {"table": name, "split": split.label, "seed": seed, "case": case, "weighted": robust}
        return {**where, **scores, "weights": " ".join(f"{w:g}" for w in weights), "liar": liar}

    for robust in (True, False):
        yield result("all honest", bundles, robust=robust)
    if options.honest:
        return
    yield result("left out", [b for i, b in enumerate(bundles) if i != liar], robust=True)
    for poison in options.poisons:
        bad = [POISONS[poison](b, np.random.default_rng(seed)) if i == liar else b for i, b in enumerate(bundles)]
        for robust in (True, False):
            yield result(poison, bad, robust=robust)


def pooled(schema: Schema, bundles: Sequence[Bundle], *, rows: int, seed: int, robust: bool) -> Pool:
    """What the hub pools of these bundles; without weights it does not look for contradictions either."""
    institutions = []
    for number, bundle in enumerate(bundles):
        generator = generator_of(bundle)
        fault, site = fault_of(bundle, generator) if robust else None, site_of(bundle, generator)
        institutions.append(Institution(name=f"site {number}", generator=generator, site=site, fault=fault))
    return draw_pool(schema, institutions, rows=rows, rng=np.random.default_rng(seed), robust=robust)


def model_auc(pool: Pool, test: pd.DataFrame, seed: int, *, quick: bool) -> float:
    """ROC-AUC on real rows of the model that the hub trains on the pool."""
    settings = TrainingSettings(seed=seed, steps=200 if quick else TrainingSettings().steps)
    fitted = fit_model(pool.schema, pool.frame, pool.soft_labels, settings, ModelChoice())
    scores = fitted.scorer.probabilities(test)
    return evaluate_scores(class_codes(pool.schema, test), scores, pool.schema.classes).roc_auc or 0.0


def say(result: dict[str, Any]) -> str:
    """One line a result, as it comes."""
    how = "weighted" if result["weighted"] else "unweighted"
    scores = ", ".join(f"{c} {result[c]:.4f}" for c in ("model_auc", "auc") if c in result)
    return f"{result['table']} {result['split']} seed {result['seed']} {result['case']} {how}: {scores} [{result['weights']}]"


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, one line a table, split and case: with weights and without."""
    table = pd.DataFrame(results)
    scores = [c for c in ("model_auc", "auc") if c in table]
    head = ["table", "split", "seeds", "case", *(f"{c}, {how}" for c in scores for how in ("weighted", "unweighted"))]
    lines = [f"| {' | '.join(head)} | the liar's weight |", "|---" * (len(head) + 1) + "|"]
    for (name, split, case), group in table.groupby(["table", "split", "case"], sort=False):
        means = [group.loc[group["weighted"] == how, c].mean() for c in scores for how in (True, False)]
        cells = ["" if np.isnan(m) else f"{m:.4f}" for m in means]
        used = group[group["weighted"]]
        weights = [w.split()[liar] for w, liar in zip(used["weights"], used["liar"], strict=True) if case != "left out"]
        own = f"{np.mean([float(w) for w in weights]):.2f}" if weights else ""
        lines.append(f"| {name} | {split} | {group['seed'].nunique()} | {case} | {' | '.join(cells)} | {own} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
