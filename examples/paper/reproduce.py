"""The paper's comparisons: distillation against federated baselines on three tasks, several clients, even and uneven deals.

    python examples/paper/reproduce.py --data FOLDER --out OUT
    python examples/paper/reproduce.py --data FOLDER --out OUT --tables vehicle_fraud --clients 5 --splits iid
    python examples/paper/reproduce.py --quick --out OUT        tiny, on a made-up table, to see that it runs

FOLDER holds NAME.parquet with NAME.schema.json beside it, the schema as `distill schema draft` writes it, confirmed. Each
setting is one comparison in a folder of its own under OUT; the same command goes on where an interrupted one stopped.
Figures, results.csv and results.md are drawn over all settings that OUT holds. For public data only: test rows, references
and baselines read rows without noise.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import figures
import grid
import numpy as np
import tables

from distill.common.compute import single_thread
from distill.data.demo import demo_schema, mixed_table
from distill.data.tables import write_table
from distill.errors import BudgetError, ConfigError, DataError, DistillError
from server_train.comparison.compare import Request, compare
from server_train.comparison.deal.institutions import Budget
from server_train.comparison.deal.tables import Source, deal, read_tables
from server_train.comparison.runs.baselines import Conditions, chosen

TABLES = ("lending_club", "vehicle_fraud", "taiwan_bankruptcy")
CLIENTS = (5, 10, 20)
SPLITS = ("iid", "dirichlet:1", "dirichlet:0.5", "dirichlet:0.1")
METHODS = ("fedavg", "fedprox", "fednova", "qfedavg", "fedasync", "scaffold", "moon")
DELTA = 1e-5
# SCAFFOLD's controls stand still while a client trains; on skewed deals it leaves the rails at the others' rate, 0.1.
OPTIONS = ("scaffold.learning_rate=0.02",)
QUICK_ROWS, QUICK_ROUNDS = 1200, 3
QUICK_COLUMNS = ("employment", "late_payments", "default")
# The second one cannot be dealt, and must be told as such.
QUICK = (grid.Setting("made_up", 2, "iid"), grid.Setting("made_up", 200, "dirichlet:0.1"))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every setting of the grid shares.

    Attributes:
        options: Of baselines, as `distill compare --option` takes them.
        rounds: Of each baseline.
        epsilon: Of each client's release.
        seeds: One repetition each.
    """

    options: tuple[str, ...]
    rounds: int
    epsilon: float
    seeds: tuple[int, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    settings = [grid.Setting(*one) for one in itertools.product(options.tables, options.clients, options.splits)]
    rounds, data = options.rounds, options.data
    if options.quick:
        settings, rounds, data = list(QUICK), QUICK_ROUNDS, options.out / "made-up"
        demo_files(data)
    if data is None:
        sys.exit("name the folder of the tables with --data, or try --quick, which makes a table up")
    require_tables(data, list(dict.fromkeys(setting.table for setting in settings)))
    plan = Plan(
        options=tuple(options.option), rounds=rounds, epsilon=options.epsilon, seeds=tuple(range(options.seeds))
    )
    try:
        run_all(settings, plan, data, options.out)
    except DistillError as error:
        sys.exit(f"error: {error}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="folder of NAME.parquet with NAME.schema.json")
    p.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    p.add_argument("--tables", nargs="+", default=TABLES, help=f"names in that folder (default: {' '.join(TABLES)})")
    p.add_argument("--clients", nargs="+", type=int, default=CLIENTS, help="numbers of clients (default: 5 10 20)")
    p.add_argument("--splits", nargs="+", default=SPLITS, help=f"deals (default: {' '.join(SPLITS)})")
    p.add_argument("--seeds", type=int, default=1, help="number of repetitions of every setting (default: 1)")
    p.add_argument("--rounds", type=int, default=50, help="of every baseline (default: 50)")
    p.add_argument("--epsilon", type=float, default=2.0, help="budget of each client's release (default: 2)")
    p.add_argument(
        "--option", nargs="+", default=OPTIONS, help=f"of baselines, as fedprox.mu=0.1 (default: {' '.join(OPTIONS)})"
    )
    p.add_argument("--quick", action="store_true", help="a made-up table, 2 clients, 3 rounds, and one deal too many")
    return p


def demo_files(folder: Path) -> None:
    """A few columns of the demo's made-up table and their schema as files."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = demo_schema()
    kept = tuple(c for c in schema.columns if c.name in QUICK_COLUMNS)
    schema = schema.model_copy(update={"columns": kept, "name": "made_up"})
    frame = mixed_table(rows=QUICK_ROWS, rng=np.random.default_rng(0))
    write_table(frame[[c.name for c in kept]], folder / "made_up.parquet")
    (folder / "made_up.schema.json").write_text(schema.model_dump_json(exclude_none=True), encoding="utf-8")


def require_tables(folder: Path, names: Sequence[str]) -> None:
    """Stop with plain words where a table or its schema is not there."""
    files = [folder / f"{name}{suffix}" for name in names for suffix in (".parquet", ".schema.json")]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        sys.exit(
            f"no {', '.join(missing)} in {folder}. The tables are public but not shipped: put NAME.parquet and "
            "NAME.schema.json there (the schema as `distill schema draft` writes it, confirmed); README.md beside this "
            "file says where they come from."
        )


def run_all(settings: Sequence[grid.Setting], plan: Plan, data: Path, out: Path) -> None:
    """Every setting in turn; tables and figures are drawn anew after each, so that a long run can be watched."""
    for number, setting in enumerate(settings, start=1):
        print(f"[{number}/{len(settings)}] {setting.words}", flush=True)
        with single_thread():
            outcome = run_setting(setting, plan, data, out)
        grid.keep(outcome, out)
        if outcome.refused:
            print(f"  not possible: {outcome.refused}", flush=True)
        tables.write_all(grid.read(out), out)
    for path in figures.write_all(grid.read(out), out):
        print(path, flush=True)
    print(out / tables.MARKDOWN, flush=True)


def run_setting(setting: grid.Setting, plan: Plan, data: Path, out: Path) -> grid.Outcome:
    """One comparison, or the reason why this deal cannot be made or distilled.

    Raises:
        DistillError: the table cannot be used, or a release failed for another reason than too few rows.
    """
    table, schema = data / f"{setting.table}.parquet", data / f"{setting.table}.schema.json"
    source = Source(place=table, schema=schema, clients=setting.clients, partition=setting.split)
    read = read_tables(source)
    try:
        for seed in plan.seeds:
            deal(read, seed)
    except (ConfigError, DataError) as error:
        return grid.Outcome(setting, None, str(error))
    request = Request(
        source=source,
        out=out / setting.folder,
        budget=Budget(epsilon=plan.epsilon, delta=DELTA),
        baselines=chosen(METHODS, plan.options),
        conditions=Conditions(rounds=plan.rounds),
        levels=("default", "compact"),
        seeds=plan.seeds,
    )
    try:
        return grid.Outcome(setting, compare(request, Announced()))
    except BudgetError as error:
        return grid.Outcome(setting, None, str(error))


class Announced:
    """Progress as lines: each part once, when it is done."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._done: set[str] = set()

    def __call__(self, part: str, done: int, total: int) -> None:
        """Say so at the end of a part."""
        if done >= total and part not in self._done:
            self._done.add(part)
            print(f"  {part}  ({time.perf_counter() - self._began:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
