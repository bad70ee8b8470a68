"""What does each stage bring? The pipeline with one stage switched off at a time, at the same epsilon.

    python -m benchmarks.quality.ablation --data FOLDER --tables adult taiwan_credit vehicle_fraud --out ablation.csv --plot ablation.png
    python -m benchmarks.quality.ablation --data FOLDER --variants no_pairs no_critic --epsilons 2 --seeds 0
    python -m benchmarks.quality.ablation --read ablation.csv --data FOLDER --out ablation.csv       go on where a run was cut off
    python -m benchmarks.quality.ablation --quick                                                    a small size of the same

A switched-off stage's budget goes to the others in proportion, so every variant costs what the whole does (`variants.py` says
how). Each seed splits a table anew; all variants of a seed see the same split and, read by read, the same draws of noise, so
that differences to the whole, taken seed by seed, owe less to luck. Fits run in this process, with seeded noise and without
ledger and bundle, so nothing is rounded for travel. Scoring reads real rows without noise: only for public data.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.quality import utility
from benchmarks.quality.variants import VARIANTS, WHOLE, Variant
from distill.common.compute import single_thread
from distill.data.encoded_table import encode_frame
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.privacy.calibration import size_event
from distill.privacy.events import Event
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.synthesis.effort import Effort
from distill.synthesis.generator.generator import Generator
from distill.synthesis.pipeline import distil
from distill.synthesis.planning.plan import Plan

RUN = ["table", "epsilon", "seed", "variant"]  # what tells results apart
SCORES = ("auc", "head_auc", "tvd2")
COLUMNS = (*RUN, "auc", "hgb_auc", "lr_auc", "mlp_auc", "head_auc", "tvd1", "tvd2", "rows", "delta")
COSTS = ("joint_epsilon", "critic_power", "fit_cpu_seconds", "what")
QUICK_ROWS, QUICK_VARIANTS = 1500, ("whole", "no_pairs")


@dataclass
class Paid:
    """What a ledger would have reserved."""

    events: tuple[Event, ...]


class SharedLuck(PrivateTable):
    """A door whose noise follows the seed, the event and the run of the event alone, whatever else is read before or after.

    Variants then differ by what they do and not by which noise they meet; the law of each one's noise is what was planned.
    """

    def __init__(self, frame: pd.DataFrame, schema: Schema, paid_by: Paid, seed: int) -> None:
        """`frame`: rows in public terms."""
        super().__init__(encode_frame(canonical_table(frame, schema), schema), schema, paid_by, NoiseSource(seed))
        self._seed = seed

    def _pay(self, name: str, mechanism: str, *asked: Any, **more: Any) -> Event:
        event = super()._pay(name, mechanism, *asked, **more)
        digest = hashlib.sha256(f"{self._seed} {name} {self.reads[name]}".encode()).digest()
        self._noise = NoiseSource(int.from_bytes(digest[:16]))
        return event


@dataclass(frozen=True)
class Fitted:
    """One variant's fit: what it may draw from, its plan, what it read, its processor seconds."""

    generator: Generator
    plan: Plan
    reads: dict[str, int]
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    variants = chosen_variants(options.variants or (QUICK_VARIANTS if options.quick else None))
    yardstick = utility.load_yardstick(options.yardstick)
    results = read_results(options.read)
    known = {tuple(line[c] for c in RUN) for line in results}
    if options.out and results:
        write_csv(results, options.out)
    rows = QUICK_ROWS if options.quick else options.max_rows
    for name, frame, schema in utility.tables(options.data, options.tables, rows, quick=options.quick):
        for epsilon in [2.0] if options.quick else options.epsilons:
            for seed in [0] if options.quick else options.seeds:
                todo = [v for v in variants if (name, epsilon, seed, v.name) not in known]
                budget = {"epsilon": epsilon, "delta": options.delta}
                for result in run_table(name, frame, schema, seed, todo, yardstick, **budget):
                    print(say(result), flush=True)
                    results.append(result)
                    if options.out:
                        write_csv(results, options.out)
    print(markdown(results))
    if options.plot:
        from benchmarks.plots import plot_ablation

        plot_ablation(differences(results).to_dict("records"), options.plot)
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="folder of NAME.parquet with NAME.schema.json")
    p.add_argument("--tables", nargs="+", help="names in that folder (default: all)")
    p.add_argument("--epsilons", nargs="+", type=float, default=[1.0, 2.0, 8.0])
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument(
        "--variants",
        nargs="+",
        metavar="NAME",
        help=f"of {', '.join(VARIANTS)} (default: all; whole always runs, for the others are compared with it)",
    )
    p.add_argument("--max-rows", type=int, default=50_000, help="real rows used of a table (default: 50000)")
    p.add_argument("--yardstick", type=Path, metavar="PATH", help="an evaluate.py to score with instead of our own")
    p.add_argument(
        "--read", type=Path, nargs="+", default=[], metavar="FILE.csv", help="earlier results: not run again"
    )
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="every single result")
    p.add_argument("--plot", type=Path, metavar="FILE.png", help="differences to the whole as a picture")
    p.add_argument("--quick", action="store_true", help=f"one table, one seed, {QUICK_ROWS} rows, two variants")
    return p


def chosen_variants(asked: Sequence[str] | None) -> list[Variant]:
    """The whole first, then those asked for; default all."""
    names = list(dict.fromkeys([WHOLE.name, *(asked or VARIANTS)]))
    wrong = [name for name in names if name not in VARIANTS]
    if wrong:
        sys.exit(f"--variants {wrong[0]}: choose from {', '.join(VARIANTS)}")
    return [VARIANTS[name] for name in names]


def run_table(
    name: str,
    frame: pd.DataFrame,
    schema: dict[str, Any],
    seed: int,
    variants: Sequence[Variant],
    yardstick: Any,
    *,
    epsilon: float,
    delta: float,
) -> Iterator[dict[str, Any]]:
    """Results of one table, seed and epsilon, one dictionary a variant."""
    train, test = yardstick.split(frame, schema["target"], seed)
    for variant in variants:
        with variant.running(), single_thread():
            fitted = fit(variant, train, Schema.model_validate(schema), seed, epsilon=epsilon, delta=delta)
            synthetic = fitted.generator.draw(len(train), np.random.default_rng(seed))
        yield {
            "table": name,
            "epsilon": epsilon,
            "seed": seed,
            "variant": variant.name,
            **yardstick.evaluate(schema, train, synthetic, test),
            "head_auc": head_auc(fitted.generator, test),
            "rows": len(synthetic),
            "delta": delta,
            "joint_epsilon": fitted.plan.joint_epsilon,
            "critic_power": fitted.generator.critic_power if fitted.generator.critic is not None else 0.0,
            "fit_cpu_seconds": fitted.seconds,
            "what": variant.what,
        }


def fit(
    variant: Variant,
    train: pd.DataFrame,
    schema: Schema,
    seed: int,
    *,
    epsilon: float,
    delta: float,
    effort: Effort = Effort(),
) -> Fitted:
    """One variant on rows in public terms, from the row count to the generator; call it while the variant is running."""
    started = time.process_time()
    paid = Paid((size_event(epsilon),))
    table = SharedLuck(train, schema, paid, seed)
    plan = variant.plan(schema, table.noisy_size("size"), epsilon=epsilon, delta=delta)
    paid.events = plan.events
    made = distil(table, plan, np.random.default_rng(seed), effort=effort).generator
    return Fitted(made, plan, dict(table.reads), time.process_time() - started)


def head_auc(generator: Generator, test: pd.DataFrame) -> float:
    """ROC-AUC of the class head itself on real rows; of more than two classes the mean, each against the rest."""
    from sklearn.metrics import roc_auc_score

    known = [str(c) for c in generator.schema.classes]
    truth = test[generator.schema.require_classes("the head's AUC")].map(lambda value: known.index(str(value)))
    scores = generator.class_log_probabilities(test)
    if len(known) == 2:
        return float(roc_auc_score(truth == 1, scores[:, 1] - scores[:, 0]))
    chances = np.exp(scores)
    asked = [c for c in np.unique(truth) if (truth != c).any()]
    return float(np.mean([roc_auc_score(truth == c, chances[:, c]) for c in asked]))


def say(result: dict[str, Any]) -> str:
    """One result as one line."""
    run = f"{result['table']} epsilon {result['epsilon']:g} seed {result['seed']} {result['variant']}"
    scores = f"AUC {result['auc']:.4f}, head AUC {result['head_auc']:.4f}, 2-way TVD {result['tvd2']:.4f}"
    return f"{run}: {scores}, {result['fit_cpu_seconds']:.0f} CPU s ({result['what']})"


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Results of earlier runs; of the same run twice, the later file's."""
    lines = [line for path in paths for line in pd.read_csv(path).to_dict("records")]
    return list({tuple(line[c] for c in RUN): line for line in lines}.values())


def write_csv(results: list[dict[str, Any]], path: Path) -> None:
    """Every result as one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(results)[[*COLUMNS, *COSTS]].to_csv(path, index=False)


def differences(results: list[dict[str, Any]]) -> pd.DataFrame:
    """All results that have a whole beside them, with `d_SCORE`: this variant minus the whole of the same seed."""
    frame = pd.DataFrame(results)
    whole = frame.loc[frame["variant"] == WHOLE.name, [*RUN[:-1], *SCORES]]
    both = frame.merge(whole, on=RUN[:-1], suffixes=("", "_whole"), validate="many_to_one")
    return both.assign(**{f"d_{score}": both[score] - both[f"{score}_whole"] for score in SCORES})


def markdown(results: list[dict[str, Any]]) -> str:
    """Means over seeds with their differences to the whole, ± their standard deviation; then what each variant is."""
    head = ["table", "epsilon", "variant", "seeds", "AUC", "head AUC", "2-way TVD"]
    head += ["AUC - whole", "head AUC - whole", "2-way TVD - whole", "CPU s"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    frame = differences(results)
    for (table, epsilon, variant), group in frame.groupby(["table", "epsilon", "variant"], sort=False):
        means = [f"{group[score].mean():.4f}" for score in SCORES]
        gaps = ["" if variant == WHOLE.name else mean_and_spread(group[f"d_{score}"]) for score in SCORES]
        cells = [table, f"{epsilon:g}", variant, len(group), *means, *gaps, f"{group['fit_cpu_seconds'].mean():.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    said = frame.drop_duplicates("variant")[["variant", "what"]].itertuples(index=False)
    return "\n".join([*lines, "", *(f"- `{variant}`: {what}" for variant, what in said)])


def mean_and_spread(gaps: "pd.Series[float]") -> str:
    """`-0.0123 ± 0.0020`; of a single seed there is no spread."""
    return f"{gaps.mean():+.4f}" + (f" ± {gaps.std():.4f}" if len(gaps) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
