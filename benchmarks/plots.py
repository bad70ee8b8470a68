"""(not a benchmark) Pictures of results, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

Results = Sequence[dict[str, Any]]


def plot_utility(results: Results, path: Path) -> None:
    """A line of panels a table: AUC and two-way TVD of every source, mean over seeds; whiskers span the seeds."""
    frame = _scored(results)
    tables = list(frame["table"].unique())
    height = 0.7 + 0.28 * frame["source"].nunique()
    figure, axes = _panels(len(tables), 2, width=4.4, height=height)
    for line, table in enumerate(tables):
        part = frame[frame["table"] == table]
        for axis, column, title in zip(axes[line], ("auc", "tvd2"), ("AUC", "2-way TVD"), strict=True):
            _bars(axis, part, column)
            axis.set_title(f"{table}: {title}", fontsize=9)
        axes[line][0].axvline(0.5, color="0.6", linewidth=0.8)
    _save(figure, path)


def plot_speed(results: Results, path: Path) -> None:
    """AUC against seconds of fitting, one mark a source and seed, one panel a table; seconds on a log scale."""
    frame = _scored(results).dropna(subset=["fit_seconds"])
    tables = list(frame["table"].unique())
    figure, axes = _panels(1, max(1, len(tables)), width=4.6, height=3.6)
    for axis, table in zip(axes[0], tables, strict=False):
        for source, group in frame[frame["table"] == table].groupby("source", sort=False):
            axis.scatter(group["fit_seconds"], group["auc"], label=str(source), s=28)
        axis.set_xscale("log")
        axis.set_xlabel("seconds to fit")
        axis.set_ylabel("AUC on real test rows")
        axis.set_title(table, fontsize=9)
        axis.legend(fontsize=7)
    _save(figure, path)


def plot_ablation(results: Results, path: Path) -> None:
    """A line of panels a table: AUC and two-way TVD minus those of the whole, a bar an epsilon; whiskers span the seeds."""
    frame = pd.DataFrame(list(results))
    frame = frame[frame["variant"] != "whole"]
    tables = list(frame["table"].unique())
    bars = frame[["variant", "epsilon"]].drop_duplicates()
    figure, axes = _panels(len(tables), 2, width=4.4, height=1.0 + 0.16 * len(bars))
    for line, table in enumerate(tables):
        part = frame[frame["table"] == table]
        for axis, column, title in zip(axes[line], ("d_auc", "d_tvd2"), ("AUC", "2-way TVD"), strict=True):
            _bars_by_epsilon(axis, part, column)
            axis.set_title(f"{table}: {title}, minus the whole", fontsize=9)
    if tables:
        axes[0][0].legend(fontsize=7, title="epsilon", title_fontsize=7)
    _save(figure, path)


def _scored(results: Results) -> pd.DataFrame:
    """The results that have scores."""
    frame = pd.DataFrame(list(results))
    wanted = ["table", "source", "auc", "tvd2", "fit_seconds"]
    return frame.reindex(columns=wanted).dropna(subset=["auc"])


def _bars(axis: Any, part: pd.DataFrame, column: str) -> None:
    """One horizontal bar a source, the first on top."""
    groups = part.groupby("source", sort=False)[column]
    means = groups.mean()
    spans = [means - groups.min(), groups.max() - means]
    axis.barh(range(len(means)), means, xerr=spans, color="0.75", ecolor="0.3", height=0.7)
    axis.set_yticks(range(len(means)), [str(name) for name in means.index], fontsize=7)
    axis.invert_yaxis()
    axis.tick_params(axis="x", labelsize=7)


def _bars_by_epsilon(axis: Any, part: pd.DataFrame, column: str) -> None:
    """One group of horizontal bars a variant, the first on top; darker for a larger epsilon."""
    variants, epsilons = list(part["variant"].unique()), sorted(part["epsilon"].unique())
    thick = 0.8 / max(1, len(epsilons))
    for k, epsilon in enumerate(epsilons):
        groups = part[part["epsilon"] == epsilon].groupby("variant")[column]
        means, low, high = (g.reindex(variants).to_numpy() for g in (groups.mean(), groups.min(), groups.max()))
        places = [i - 0.4 + (k + 0.5) * thick for i in range(len(variants))]
        grey = str(0.85 - 0.4 * k / max(1, len(epsilons) - 1))
        spans = [means - low, high - means]
        axis.barh(places, means, xerr=spans, color=grey, ecolor="0.1", height=thick, label=f"{epsilon:g}")
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_yticks(range(len(variants)), variants, fontsize=7)
    axis.invert_yaxis()
    axis.tick_params(axis="x", labelsize=7)


def _panels(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, Any]:
    """A figure that needs no screen, and its axes as a grid."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * max(1, rows)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(max(1, rows), columns, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
