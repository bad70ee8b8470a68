"""How fast, and is it worth having? Seconds to fit, AUC and TVD of ours against MST and AIM on one table, side by side.

    python -m benchmarks.cost.speed --data FOLDER --table adult --out speed.csv --plot speed.png
    python -m benchmarks.cost.speed --quick

All sources take turns within each seed, so that what else runs on the machine slows all of them alike. Ours is timed from
outside, the whole of `distill fit` with its start and its ledger; a peer by its own clock, fitting alone. CPU seconds stand
beside wall seconds: on shared cores they are the fairer figure. Needs the peers' tools, see benchmarks/README.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.quality import utility
from benchmarks.quality.peer_runs import OURS, TOOLS

SOURCES = ("ours", "mst", "aim")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    yardstick = utility.load_yardstick(options.yardstick)
    settings = utility.settings_of(options)
    wanted = [options.table] if options.table else None
    ((name, frame, schema), *_) = utility.tables(options.data, wanted, settings.max_rows, quick=True)
    results: list[dict[str, Any]] = []
    for seed in [0] if options.quick else options.seeds:
        for result in utility.run_table(name, frame, schema, seed, settings, yardstick):
            utility.say(result)
            results.append(result)
            if options.out:
                utility.write_csv(results, options.out)
    print(markdown(results))
    if options.plot:
        from benchmarks.plots import plot_speed

        plot_speed(results, options.plot)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line: that of utility.py, with one table and the sources that are compared."""
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[utility.parser(add_help=False)],
        conflict_handler="resolve",
    )
    p.add_argument("--table", help="name in that folder (default: the first)")
    p.add_argument(
        "--sources",
        nargs="+",
        default=list(SOURCES),
        help=f"of ours, {', '.join([*OURS, *TOOLS])} (default: all three)",
    )
    p.add_argument("--plot", type=Path, metavar="FILE.png", help="AUC against seconds")
    p.set_defaults(peer_timeout=14_400.0)
    return p


def markdown(results: list[dict[str, Any]]) -> str:
    """Means over seeds, one line a source; `times` is its seconds over those of ours, wall and CPU."""
    head = [
        "table",
        "source",
        "seeds",
        "AUC",
        "2-way TVD",
        "fit s",
        "times ours",
        "CPU s",
        "times ours",
        "peak MB",
        "note",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    frame = pd.DataFrame(results)
    costs = ("fit_seconds", "fit_cpu_seconds")
    ours = frame[frame["source"] == "samples"].reindex(columns=costs).mean()
    for (table, source), group in frame.groupby(["table", "source"], sort=False):
        cells = [table, source, len(group), utility.mean_of(group, "auc", 4), utility.mean_of(group, "tvd2", 4)]
        for cost in costs:
            mean = group.reindex(columns=[cost])[cost].mean()
            cells += [utility.mean_of(group, cost, 1), f"{mean / ours[cost]:.1f}" if mean / ours[cost] > 0 else ""]
        notes = "; ".join(dict.fromkeys(group["note"].dropna())) if "note" in group else ""
        lines.append("| " + " | ".join(map(str, [*cells, utility.mean_of(group, "fit_peak_mb", 1), notes])) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
