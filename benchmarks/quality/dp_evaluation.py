"""How far are figures that `distill evaluate --dp-epsilon` publishes from the exact ones, and do their intervals hold them?

    python -m benchmarks.quality.dp_evaluation
    python -m benchmarks.quality.dp_evaluation --model MODEL --data TABLE
    python -m benchmarks.quality.dp_evaluation --bins 8 12 16 24 32
    python -m benchmarks.quality.dp_evaluation --quick

Rows are drawn anew in each repetition: made-up scores of three models, or with --model the scores of a table's rows, drawn with
replacement. Noise is that of a rehearsal, so that a run can be repeated; nothing is charged. `off` columns are means over
repetitions of |published - exact|; `held` is the share of repetitions in which the 95 % interval for these rows holds the exact AUC.
Ends with 1 if some exact AUC is further off than four half widths of the interval.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from distill.data.encoded_table import EncodedTable
from distill.data.schema import Schema
from distill.exchange.noisy_scores import Block, figures
from distill.privacy.budget import NO_DELTA
from distill.privacy.calibration import size_event
from distill.privacy.events import Event
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.releases.evaluation import choose_bins, count_blocks, table_event
from server_train.evaluation.private_scorer import ModelScorer, blocks_of_knots, score_knots
from server_train.models.model import load_model

ROWS, EPSILONS = (1_000, 5_000, 50_000), (0.1, 0.5, 1.0)
MADE_UP = {
    "AUC .90, base rate .24": (0.24, 2.36),
    "AUC .77, base rate .22": (0.22, 1.35),
    "AUC .82, base rate .06": (0.06, 1.7),
}
SPREAD = 1.3  # of the log-odds within a class
SCHEMA = Schema.model_validate(
    {
        "name": "scores",
        "target": "label",
        "columns": [
            {"name": "score", "kind": "continuous", "min": 0, "max": 1},
            {"name": "label", "kind": "categorical", "categories": [0, 1]},
        ],
    }
)
Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass
class Planned:
    """In the place of a reservation: what is planned counts as paid."""

    events: Sequence[Event]


@dataclass
class Source:
    """Rows to evaluate a model on: whether they are of the class, and their scores; and the model's public bins."""

    name: str
    draw: Draw
    blocks: Callable[[int], tuple[Block, ...]]


def made_up(name: str, base: float, apart: float) -> Source:
    """Log-odds of either class are normal; scores are the chances that follow, so they are calibrated."""

    def draw(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        holds = (rng.random(rows) < base).astype(np.uint8)
        x = rng.normal(0, SPREAD, rows) + apart * holds
        odds = np.log(base / (1 - base)) + (x - apart / 2) * apart / SPREAD**2
        return holds, 1 / (1 + np.exp(-odds))

    scores = draw(20_000, np.random.default_rng(99))[1]  # the synthetic pool
    knots = [np.array(k) for k in score_knots(np.stack([1 - scores, scores], axis=1))]
    return Source(name, draw, lambda bins: blocks_of_knots(["1"], knots, bins, [0.5]))


def of_model(model: Path, data: Path) -> Source:
    """The rows of a table, drawn with replacement, as a model scores them."""
    from distill.data.tables import read_table

    loaded = load_model(model)
    scorer = ModelScorer(loaded)
    ((holds, scores),) = scorer.scored(read_table(data, loaded.schema, role="evaluate"))

    def draw(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.integers(len(holds), size=rows)
        return holds[chosen], scores[chosen]

    return Source(data.stem, draw, scorer.blocks)


@functools.cache
def event_of(epsilon: float) -> Event:
    """What pays for the table; solved once."""
    return table_event(1, epsilon=epsilon, delta=NO_DELTA)


def measure(source: Source, rows: int, epsilon: float, seed: int, bins: int | None) -> dict[str, Any]:
    """One release: its figures beside the exact ones."""
    rng = np.random.default_rng([seed, rows, round(1000 * epsilon)])
    holds, scores = source.draw(rows, rng)
    event = event_of(epsilon)
    paid = Planned([size_event(epsilon), event])
    table = PrivateTable(EncodedTable([holds, scores], None), SCHEMA, paid, NoiseSource(int(rng.integers(2**31))))
    chosen = bins or choose_bins(table.noisy_size("size"), epsilon)
    found = figures(count_blocks(table, source.blocks(chosen), event), threshold=0.5)
    auc = found["roc_auc"]
    exact = roc_auc_score(holds, scores)
    out = {"source": source.name, "rows": rows, "epsilon": epsilon, "bins": chosen, "told": auc is not None}
    if auc is None or found["accuracy"] is None:
        return out
    low, high = auc["interval"]
    return out | {
        "auc_off": abs(auc["value"] - exact),
        "half_width": (high - low) / 2,
        "held": low <= exact <= high,
        "accuracy_off": abs(found["accuracy"]["value"] - ((scores >= 0.5) == holds).mean()),
        "brier_off": abs(found["brier"]["value"] - np.square(scores - holds).mean()),
    }


def summary(results: pd.DataFrame) -> str:
    """One line a source, number of rows and epsilon."""
    lines = [
        "| scores | rows | epsilon | bins | told | AUC off | at worst | half width | held | accuracy off | Brier off |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (source, rows, epsilon), part in results.groupby(["source", "rows", "epsilon"], sort=False):
        values = [part[name].mean() for name in ("auc_off", "half_width", "held", "accuracy_off", "brier_off")]
        off, width, held, accuracy, brier = (f"{v:.4f}" for v in values)
        lines.append(
            f"| {source} | {rows:,} | {epsilon:g} | {part['bins'].median():.0f} | {part['told'].mean():.2f} | {off} | "
            f"{part['auc_off'].max():.4f} | {width} | {float(held):.2f} | {accuracy} | {brier} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path)
    p.add_argument("--data", type=Path)
    p.add_argument("--seeds", type=int, default=20)
    p.add_argument("--bins", type=int, nargs="+", help="numbers of bins to compare; else as a release chooses them")
    p.add_argument("--quick", action="store_true", help="one source, 3 seeds, up to 5,000 rows")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="one line a release")
    options = p.parse_args(arguments)
    sources = [made_up(name, *law) for name, law in MADE_UP.items()]
    if options.model is not None and options.data is not None:
        sources = [of_model(options.model, options.data)]
    seeds, sizes = (3, ROWS[:2]) if options.quick else (options.seeds, ROWS)
    found = []
    for bins in options.bins or [None]:
        results = pd.DataFrame(
            [
                measure(source, rows, epsilon, seed, bins)
                for source in sources[: 1 if options.quick else None]
                for rows in sizes
                for epsilon in EPSILONS
                for seed in range(seeds)
            ]
        )
        print(summary(results), flush=True)
        found.append(results)
    everything = pd.concat(found)
    if options.out:
        everything.to_csv(options.out, index=False)
    return int((everything["auc_off"] > 4 * everything["half_width"]).any())


if __name__ == "__main__":
    sys.exit(main())
