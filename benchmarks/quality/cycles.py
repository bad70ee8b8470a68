"""Are two cycles better than one at the same total epsilon, and whom does a global prior help?

    python -m benchmarks.quality.cycles --data FOLDER --tables adult taiwan_credit --splits iid education_num --out cycles.csv
    python -m benchmarks.quality.cycles --quick                                             a small size of the same

Rows are dealt to institutions: at random (`iid`), by class (a number: Dirichlet), or by neighbouring values of a column (its name).
One cycle: each fits at epsilon, and the hub pools. Two cycles: each fits at half of epsilon and delta, the hub sends its joint model
back, each fits again at the other half with it as its prior, and the hub pools the second bundles, or those of both cycles.
With --control each also fits twice at half without a prior.

The small institution holds 800 rows of the last one's; its prior comes from the other institutions, at full epsilon each. Its own
rows of its own generator are scored, with and without. The odd one is the first institution with all its rows, likewise: under a
split by a column it is unlike the others. Where it is, it is scored on test rows like its own as well (`near`).

Fits run in this process, with seeded noise and without ledger and bundle. Scoring reads real rows: only for public data.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.quality import utility
from benchmarks.quality.ablation import Paid, SharedLuck, head_auc
from distill.data.schema import Schema
from distill.privacy.calibration import size_event
from distill.synthesis.generator.generator import Generator
from distill.synthesis.pipeline import distil
from distill.synthesis.planning.plan import make_plan
from server_train.hub.prior import joint_model
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.pool import Pool, draw_pool

INSTITUTIONS, QUICK_INSTITUTIONS = 5, 2
SMALL_ROWS = 800
QUICK_ROWS = 3000
RUN = ["table", "split", "seed", "what"]
SCORES = ["auc", "head_auc", "near_auc", "tvd1", "tvd2"]
WHAT = {
    "one cycle": "one fit each at the whole budget, pooled",
    "two cycles": "two fits each at half the budget, the second with the first one's global prior; the second bundles pooled",
    "two cycles, both pooled": "the same, the bundles of both cycles pooled",
    "two fits, no prior": "two fits each at half the budget, neither with a prior; all pooled",
    "small alone": "an institution of few rows by itself",
    "small with prior": "the same with the global prior of the others",
    "odd alone": "the first institution by itself",
    "odd with prior": "the same with the global prior of the others",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    yardstick = utility.load_yardstick(None)
    results = []
    rows = QUICK_ROWS if options.quick else options.max_rows
    for name, frame, schema in utility.tables(options.data, options.tables, rows, quick=options.quick):
        for split in ["iid"] if options.quick else options.splits:
            for seed in [0] if options.quick else options.seeds:
                for result in run(frame, schema, split, seed, options, yardstick):
                    results.append({"table": name, "split": split, "seed": seed, **result})
                    print(say(results[-1]), flush=True)
                    if options.out:
                        pd.DataFrame(results).reindex(columns=[*RUN, *SCORES, "seconds"]).to_csv(
                            options.out, index=False
                        )
    print(markdown(results))
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="folder of NAME.parquet with NAME.schema.json")
    p.add_argument("--tables", nargs="+", help="names in that folder (default: all)")
    p.add_argument(
        "--splits", nargs="+", default=["iid"], help="iid, a Dirichlet parameter, or a column (default: iid)"
    )
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--epsilon", type=float, default=2.0, help="of all cycles together (default: 2)")
    p.add_argument("--delta", type=float, default=1e-5, help="likewise (default: 1e-5)")
    p.add_argument("--only", choices=["cycles", "small", "odd"], help="one of the three questions")
    p.add_argument("--control", action="store_true", help="also two fits at half the budget without a prior")
    p.add_argument("--max-rows", type=int, default=50_000, help="real rows used of a table (default: 50000)")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="every single result")
    p.add_argument(
        "--quick", action="store_true", help=f"one table, one seed, {QUICK_ROWS} rows, the small institution only"
    )
    return p


def run(
    frame: pd.DataFrame, schema: dict[str, Any], split: str, seed: int, options: argparse.Namespace, yardstick: Any
) -> Iterator[dict[str, Any]]:
    """Scores of one table, split and seed, one dictionary for each of `WHAT`."""
    train, test = yardstick.split(frame, schema["target"], seed)
    number = QUICK_INSTITUTIONS if options.quick else INSTITUTIONS
    parts = deal(train, schema["target"], split, seed, number, yardstick)
    public = Schema.model_validate(schema)
    only = "small" if options.quick else options.only

    def fits(
        portion: float, cycle: int, prior: Generator | None = None, *, of: Sequence[int] | None = None
    ) -> list[Generator]:
        budget = {"epsilon": portion * options.epsilon, "delta": portion * options.delta}
        numbers = range(len(parts)) if of is None else of
        return [fit(parts[i], public, [seed, cycle, i], prior, institutions=len(parts), **budget) for i in numbers]

    def pooled(generators: Sequence[Generator], rows: int = len(train)) -> Pool:
        named = [Institution(name=str(i), generator=g) for i, g in enumerate(generators)]
        return draw_pool(public, named, rows=rows, rng=np.random.default_rng(seed))

    def scored(what: str, rows: pd.DataFrame, started: float, **more: Any) -> dict[str, Any]:
        seconds = time.process_time() - started
        return {"what": what, **yardstick.evaluate(schema, train, rows, test), "seconds": seconds, **more}

    def with_and_without(who: str, rows: pd.DataFrame, prior: Generator) -> Iterator[dict[str, Any]]:
        near = like(test, rows, split)
        for what, given in ((f"{who} alone", None), (f"{who} with prior", prior)):
            started = time.process_time()
            made = fit(rows, public, [seed, 9, 0], given, epsilon=options.epsilon, delta=options.delta)
            drawn = made.draw(len(train) // len(parts), np.random.default_rng(seed))
            more = {"head_auc": head_auc(made, test), "near_auc": yardstick.downstream(schema, drawn, near)["auc"]}
            yield scored(what, drawn, started, **more)

    if only in (None, "cycles"):
        started = time.process_time()
        yield scored("one cycle", pooled(fits(1, 0)).frame, started)
        started = time.process_time()
        first = fits(0.5, 1)
        second = fits(0.5, 2, joint_model(pooled(first)))
        yield scored("two cycles", pooled(second).frame, started)
        yield scored("two cycles, both pooled", pooled([*first, *second]).frame, started)
        if options.control:
            yield scored("two fits, no prior", pooled([*first, *fits(0.5, 2)]).frame, started)
    if only in (None, "small"):
        others = fits(1, 0, of=range(len(parts) - 1))
        rows = parts[-1].sample(min(SMALL_ROWS, len(parts[-1])), random_state=seed).reset_index(drop=True)
        yield from with_and_without("small", rows, joint_model(pooled(others)))
    if only in (None, "odd"):
        others = fits(1, 0, of=range(1, len(parts)))
        yield from with_and_without("odd", parts[0], joint_model(pooled(others)))


def deal(train: pd.DataFrame, target: str, split: str, seed: int, number: int, yardstick: Any) -> list[pd.DataFrame]:
    """The institutions' rows."""
    if split in train.columns:
        return list(yardstick.clients_by(train, split, number))
    return list(yardstick.clients(train, target, number, None if split == "iid" else float(split), seed))


def like(test: pd.DataFrame, rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """Test rows like an institution's own: within its values of the column by which rows were dealt."""
    if split not in test.columns:
        return test
    return test[test[split].isin(rows[split].unique())]


def fit(
    rows: pd.DataFrame,
    schema: Schema,
    luck: Sequence[int],
    prior: Generator | None,
    *,
    epsilon: float,
    delta: float,
    institutions: int = 1,
) -> Generator:
    """One institution's fit; `luck` seeds noise and modelling."""
    paid = Paid((size_event(epsilon),))
    seed = int(np.random.SeedSequence(luck).generate_state(1)[0])
    table = SharedLuck(rows, schema, paid, seed)
    plan = make_plan(schema, table.noisy_size("size"), epsilon=epsilon, delta=delta, institutions=institutions)
    paid.events = plan.events
    return distil(table, plan, np.random.default_rng(seed), prior=prior).generator


def say(result: dict[str, Any]) -> str:
    """One result as one line."""
    known = [f"{score} {result[score]:.4f}" for score in SCORES if score in result]
    return f"{result['table']} {result['split']} seed {result['seed']} {result['what']}: {', '.join(known)}, {result['seconds']:.0f} CPU s"


def markdown(results: list[dict[str, Any]]) -> str:
    """Means over seeds, ± their standard deviation."""
    frame = pd.DataFrame(results)
    head = ["table", "split", "what", "seeds", *(s for s in SCORES if s in frame)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (table, split, what), group in frame.groupby(RUN[:2] + RUN[3:], sort=False):
        spreads = [_mean_and_spread(group[s]) for s in head[4:]]
        lines.append(f"| {' | '.join([table, split, what, str(len(group)), *spreads])} |")
    return "\n".join([*lines, "", *(f"- {what}: {WHAT[what]}" for what in frame["what"].unique())])


def _mean_and_spread(values: "pd.Series[float]") -> str:
    if values.isna().all():
        return ""
    return f"{values.mean():.4f}" + (f" ± {values.std():.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
