"""The files of a comparison: the report, the figures, the tables, and everything at once as JSON.

Each file is there in full or not at all; comparison.json comes last, and all the others are drawn from what it holds.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.common import files as durable
from distill.errors import ConfigError
from server_train.comparison.record.results import Comparison
from server_train.comparison.record.summary import Line, lines, reach_lines
from server_train.comparison.report.figures import figures
from server_train.comparison.report.page import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JSON, HTML = "comparison.json", "comparison.html"
PNG_DOTS = 160  # an inch

Rows = Iterable[Sequence[object]]


def outputs(comparison: Comparison, folder: Path) -> None:
    """Write every file into the existing `folder`. Raises ConfigError where one cannot be written."""
    drawn = figures(comparison)
    files = {f"{name}.png": _png(figure) for name, figure in drawn.items()}
    files |= {f"{name}.csv": _csv(head, rows) for name, (head, rows) in tables(comparison).items()}
    files[HTML] = render(comparison, drawn).encode("utf-8")
    files[JSON] = (comparison.model_dump_json(indent=1) + "\n").encode("utf-8")
    for name, data in files.items():
        with durable.wrapped("write", folder / name, ConfigError):
            durable.write_whole(folder / name, data)


def tables(comparison: Comparison) -> dict[str, tuple[Sequence[str], Rows]]:
    """Each CSV file's header and rows, by its name."""
    return {
        "runs": (RUNS, [_run_row(line) for line in lines(comparison)]),
        "rounds": (ROUNDS, _round_rows(comparison)),
        "clients": (CLIENTS, _client_rows(comparison)),
        "reach": (REACH, _reach_rows(comparison)),
    }


RUNS = (
    "run",
    "kind",
    "repetitions",
    "epsilon",
    "delta",
    "roc_auc",
    "roc_auc_spread",
    "accuracy",
    "log_loss",
    "best_roc_auc",
    "best_round",
    "rounds",
    "bytes_up_per_client",
    "bytes_down_per_client",
    "bytes_per_client",
    "simulated_seconds",
)
ROUNDS = (
    "run",
    "seed",
    "round",
    "simulated_seconds",
    "bytes_up",
    "bytes_down",
    "bytes_per_client",
    "participants",
    "lost",
    "roc_auc",
    "accuracy",
    "log_loss",
)
CLIENTS = ("run", "seed", "client", "rows", "bytes_up", "bytes_down")
REACH = (
    "baseline",
    "distilled",
    "roc_auc_to_reach",
    "reached_in",
    "repetitions",
    "rounds",
    "round",
    "bytes_per_client",
    "times_the_distilled_bytes",
    "times_the_distilled_bytes_up",
    "simulated_seconds",
)


def _run_row(line: Line) -> Sequence[object]:
    return (
        line.name,
        line.kind,
        len(line.runs),
        "none" if line.epsilon is None else line.epsilon,
        line.delta,
        line.roc_auc.mean,
        line.roc_auc.spread,
        line.accuracy.mean,
        line.log_loss.mean,
        line.best_roc_auc.mean,
        line.best_round,
        line.rounds,
        line.up,
        line.down,
        line.client_bytes,
        line.seconds,
    )


def _round_rows(comparison: Comparison) -> Rows:
    for run in comparison.runs:
        for p in run.points:
            yield (
                run.name,
                run.seed,
                p.round,
                p.seconds,
                p.up,
                p.down,
                run.client_bytes(p),
                p.participants,
                p.lost,
                p.roc_auc,
                p.accuracy,
                p.log_loss,
            )


def _client_rows(comparison: Comparison) -> Rows:
    for run in comparison.runs:
        for t in run.traffic:
            yield run.name, run.seed, t.client, t.rows, t.up, t.down


def _reach_rows(comparison: Comparison) -> Rows:
    for r in reach_lines(comparison):
        never = "never"
        yield (
            r.baseline,
            r.distilled,
            r.goal,
            r.reached,
            r.repetitions,
            r.rounds,
            never if r.round is None else r.round,
            never if r.client_bytes is None else r.client_bytes,
            never if r.ratio is None else r.ratio,
            never if r.up_ratio is None else r.up_ratio,
            never if r.seconds is None else r.seconds,
        )


def _csv(head: Sequence[str], rows: Rows) -> bytes:
    """A CSV file; what there is not is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if v is None else v for v in row] for row in rows)
    return text.getvalue().encode("utf-8")


def _png(figure: "Figure") -> bytes:
    """A figure as a PNG on white."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "png", "dpi": PNG_DOTS, "facecolor": "white", "metadata": {"Software": None}}
    figure.savefig(buffer, **options)
    return buffer.getvalue()
