"""The figures of an evaluation, each as an image to put into the page. No figure draws a single row: rows are counted in bins."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.common.report_style import INK, MUTED, PALETTE, data_uri, empty_figure
from server_train.evaluation.assessment import Assessment
from server_train.evaluation.decisions import cost_curve
from server_train.evaluation.fairness import Slice
from server_train.evaluation.reliability import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEAL, AMBER, VIOLET, RED = PALETTE[:4]
LEGEND = {"frameon": False, "fontsize": 8.5, "labelcolor": INK}
HALF, WIDE = (5.2, 3.9), (10.4, 3.5)
NAMED = 6  # classes that a figure tells apart by colour
CURVE_POINTS = 400


def class_figures(found: Assessment) -> dict[str, str]:
    """All figures of a target with classes, by name."""
    sides = _sides(found)
    figures = {"reliability": reliability(found.calibration)}
    if sides:
        figures |= {"roc": roc(sides), "precision": precision_recall(sides)}
    if len(found.classes) == 2:
        figures |= {"scores": score_distributions(found), "thresholds": thresholds(found)}
    else:
        figures["confusion"] = confusion(found.confusion, found.classes)
    return figures


def number_figures(found: Assessment) -> dict[str, str]:
    """All figures of a target that is a number, by name."""
    truth, predicted = found.truth, found.predicted
    return {
        "fit": predicted_against_true(truth, predicted),
        "residuals": residuals_along(truth, predicted),
        "errors": error_histogram(truth, predicted),
    }


def roc(sides: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """True against false positive rate; one curve a class."""
    from sklearn.metrics import auc, roc_curve

    def draw(axes: "Axes", truth: np.ndarray, scores: np.ndarray, name: str, colour: str) -> None:
        false, true, _ = roc_curve(truth, scores)
        axes.plot(*_thinned(false, true), color=colour, lw=2, label=f"{name}: AUC {auc(false, true):.3f}")

    figure, axes = empty_figure(*HALF)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.1, ls=(0, (4, 3)), label="by chance")
    _curves(axes, sides, draw)
    _unit_axes(axes, "false positive rate", "true positive rate")
    axes.legend(loc="lower right", **LEGEND)
    return data_uri(figure, "roc")


def precision_recall(sides: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Precision against recall; one curve a class, with the base rate where there is one class only."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    def draw(axes: "Axes", truth: np.ndarray, scores: np.ndarray, name: str, colour: str) -> None:
        precision, recall, _ = precision_recall_curve(truth, scores)
        label = f"{name}: AP {average_precision_score(truth, scores):.3f}"
        axes.plot(*_thinned(recall[::-1], precision[::-1]), color=colour, lw=2, label=label)

    figure, axes = empty_figure(*HALF)
    if len(sides) == 1:
        (truth, _), *_ = sides.values()
        axes.axhline(truth.mean(), color=MUTED, lw=1.1, ls=(0, (4, 3)), label=f"base rate {truth.mean():.3f}")
    _curves(axes, sides, draw)
    _unit_axes(axes, "recall (true positive rate)", "precision")
    axes.legend(loc="upper right", **LEGEND)
    return data_uri(figure, "precision")


def reliability(calibrations: dict[str, Calibration]) -> str:
    """Observed shares against mean scores, with their intervals where there is one class."""
    figure, axes = empty_figure(*HALF)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.1, ls=(0, (4, 3)), label="scores are chances")
    for (name, found), colour in zip(list(calibrations.items())[:NAMED], PALETTE, strict=False):
        x, y = [b.predicted for b in found.bins], [b.observed for b in found.bins]
        if len(calibrations) == 1:
            low, high = [b.observed_low for b in found.bins], [b.observed_high for b in found.bins]
            axes.vlines(x, low, high, color=colour, lw=1.4, alpha=0.55)
        label = f"{name}: ECE {found.expected_calibration_error:.3f}"
        axes.plot(x, y, "o-", color=colour, lw=1.8, ms=5.5, mec="white", mew=0.8, label=label)
    _unit_axes(axes, "mean score of the bin", "observed share")
    axes.legend(loc="upper left", **LEGEND)
    return data_uri(figure, "reliability")


def score_distributions(found: Assessment) -> str:
    """How scores of either class are spread; two classes."""
    figure, axes = empty_figure(*HALF)
    edges = np.linspace(0, 1, 41)
    for k, colour in ((0, MUTED), (1, TEAL)):
        scores = found.predicted[found.truth == k, 1]
        if len(scores):
            heights = np.histogram(scores, edges)[0] / len(scores)
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.28)
            axes.stairs(heights, edges, color=colour, lw=1.6, label=f"rows of {found.classes[k]}")
    axes.axvline(found.question.decided_at, color=RED, lw=1.3, ls=(0, (4, 3)), label="threshold in force")
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"score of {found.classes[1]}", parse_math=False)
    axes.set_ylabel("share of the class's rows")
    _plain_legend(axes, loc="upper right")
    return data_uri(figure, "scores")


def thresholds(found: Assessment) -> str:
    """What deciding at every threshold would give: the cost of a row, or without costs the rates; two classes."""
    figure, axes = empty_figure(*HALF)
    (_rates if found.question.costs is None else _costs)(axes, found)
    axes.set_xlim(0, 1)
    axes.set_xlabel("threshold")
    axes.legend(loc="upper right", **LEGEND)
    return data_uri(figure, "thresholds")


def _costs(axes: "Axes", found: Assessment) -> None:
    """The cost of a row along the thresholds, with those that are named."""
    assert found.question.costs is not None
    at, cost = cost_curve(found.truth, found.predicted[:, 1], found.question.costs)
    axes.plot(*_thinned(at, cost), color=INK, lw=1.8)
    marks = {
        "in_force": ("in force", RED, "o", 11),
        "by_costs": ("by the costs", TEAL, "D", 6.5),
        "cheapest_here": ("cheapest here", AMBER, "s", 7.5),
    }
    for name, (text, colour, mark, size) in marks.items():
        place = (found.decisions[name].threshold, found.decisions[name].cost_a_row or 0.0)
        label = f"{text}: {place[0]:.3f}, cost {place[1]:.4g}"
        axes.plot(*([v] for v in place), mark, ms=size, color=colour, mec="white", label=label)
    axes.set_ylim(0, float(cost.max()) * 1.28)
    axes.set_ylabel("mean cost of a row")


def _rates(axes: "Axes", found: Assessment) -> None:
    """True and false positive rate along the thresholds."""
    at = np.linspace(0, 1, 201)
    for k, colour, name in ((1, TEAL, "true positive rate"), (0, AMBER, "false positive rate")):
        scores = np.sort(found.predicted[found.truth == k, 1])
        if len(scores):
            above = 1 - np.searchsorted(scores, at, side="left") / len(scores)
            axes.plot(at, above, color=colour, lw=2, label=name)
    axes.axvline(found.question.decided_at, color=RED, lw=1.3, ls=(0, (4, 3)), label="threshold in force")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("rate")


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Shares of each class's rows by the class that they were taken for."""
    table = np.array(counts, dtype=float)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(3.9, 0.42 * len(classes) + 1.6)
    figure, axes = empty_figure(side * 1.25, side)
    axes.grid(visible=False)
    axes.imshow(shares, cmap="GnBu", vmin=0, vmax=1, aspect="auto")
    if len(classes) <= 12:
        for (i, j), share in np.ndenumerate(shares):
            axes.text(
                j, i, f"{share:.0%}", ha="center", va="center", fontsize=8.5, color="white" if share > 0.6 else INK
            )
    names = [_short(c) for c in classes]
    axes.set_xticks(range(len(classes)), names, rotation=35 if len(classes) > 4 else 0, parse_math=False)
    axes.set_yticks(range(len(classes)), names, parse_math=False)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    return data_uri(figure, "confusion")


def groups(found: Slice) -> str:
    """The rates of each group as dots on one line, for a target of two classes."""
    lines = found.groups
    figure, axes = empty_figure(10.4, 1.25 + 0.36 * len(lines))
    names = {"base_rate": ("base rate", MUTED, "|"), "mean_score": ("mean score", INK, "|")}
    names |= {"selection_rate": ("selected", TEAL, "o"), "true_positive_rate": ("true positive rate", AMBER, "D")}
    names["false_positive_rate"] = ("false positive rate", VIOLET, "s")
    for key, (text, colour, mark) in names.items():
        points = [(g[key], i) for i, g in enumerate(lines) if g[key] is not None]
        x, y = zip(*points, strict=True) if points else ((), ())
        size = 13 if mark == "|" else 7
        axes.plot(
            x,
            y,
            mark,
            color=colour,
            ms=size,
            mew=2.2 if mark == "|" else 0.8,
            mec=colour if mark == "|" else "white",
            label=text,
        )
    axes.set_yticks(
        range(len(lines)), [f"{_short(g['group'])}{'' if g['compared'] else ' *'}" for g in lines], parse_math=False
    )
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(-0.01, 1.01)
    axes.grid(visible=True, axis="both")
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=5, **LEGEND)
    return data_uri(figure, f"groups {found.column}")


def predicted_against_true(truth: np.ndarray, predicted: np.ndarray) -> str:
    """True values against predicted ones, rows counted in hexagons."""
    figure, axes = empty_figure(*HALF)
    axes.grid(visible=False)
    axes.hexbin(predicted, truth, gridsize=36, cmap="GnBu", mincnt=1, bins="log", linewidths=0.1)
    ends = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
    axes.plot(ends, ends, color=RED, lw=1.3, ls=(0, (4, 3)), label="prediction = truth")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.legend(loc="upper left", **LEGEND)
    return data_uri(figure, "fit")


def residuals_along(truth: np.ndarray, predicted: np.ndarray) -> str:
    """Quantiles of the residuals along the predictions, in bins of equally many rows."""
    figure, axes = empty_figure(*HALF)
    residuals = truth - predicted
    parts = [
        p for p in np.array_split(np.argsort(predicted, kind="stable"), min(20, max(1, len(truth) // 20))) if len(p)
    ]
    x = [float(predicted[p].mean()) for p in parts]
    low, quarter, middle, three, high = np.array(
        [np.quantile(residuals[p], [0.05, 0.25, 0.5, 0.75, 0.95]) for p in parts]
    ).T
    axes.fill_between(x, low, high, color=TEAL, alpha=0.14, lw=0, label="90 % of rows")
    axes.fill_between(x, quarter, three, color=TEAL, alpha=0.28, lw=0, label="half of them")
    axes.plot(x, middle, "o-", color=TEAL, lw=1.8, ms=4, label="median")
    axes.axhline(0, color=RED, lw=1.2, ls=(0, (4, 3)))
    axes.set_xlabel("predicted")
    axes.set_ylabel("residual: true - predicted")
    axes.legend(loc="upper left", **LEGEND)
    return data_uri(figure, "residuals")


def error_histogram(truth: np.ndarray, predicted: np.ndarray) -> str:
    """How residuals are spread, the outermost hundredth gathered at the ends."""
    figure, axes = empty_figure(*WIDE)
    residuals = truth - predicted
    low, high = np.quantile(residuals, [0.005, 0.995])
    reach = (low, high) if high > low else (low - 0.5, high + 0.5)
    bins = int(np.clip(len(residuals) ** 0.5, 10, 60))
    heights, edges = np.histogram(np.clip(residuals, *reach), bins, reach)
    axes.stairs(heights / len(residuals), edges, fill=True, color=TEAL, alpha=0.5)
    axes.axvline(float(residuals.mean()), color=RED, lw=1.3, ls=(0, (4, 3)), label=f"mean {residuals.mean():.4g}")
    axes.set_xlabel("residual: true - predicted")
    axes.set_ylabel("share of rows")
    axes.legend(loc="upper right", **LEGEND)
    return data_uri(figure, "errors")


def _sides(found: Assessment) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each class with rows on both sides whether rows are of it, and their scores."""
    shown = [1] if len(found.classes) == 2 else range(len(found.classes))
    sides = {found.classes[k]: (found.truth == k, found.predicted[:, k]) for k in shown}
    return {name: side for name, side in sides.items() if 0 < side[0].sum() < len(side[0])}


def _curves(
    axes: "Axes",
    sides: dict[str, tuple[np.ndarray, np.ndarray]],
    draw: Callable[["Axes", np.ndarray, np.ndarray, str, str], None],
) -> None:
    """One curve a class, as many as colours tell apart."""
    for (name, (truth, scores)), colour in zip(list(sides.items())[:NAMED], PALETTE, strict=False):
        draw(axes, truth, scores, _short(name).replace("$", r"\$"), colour)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most some hundred points of a curve, both ends among them: no figure needs one a row."""
    kept = np.unique(np.linspace(0, len(x) - 1, CURVE_POINTS).round().astype(int))
    return x[kept], y[kept]


def _unit_axes(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _plain_legend(axes: "Axes", **where: Any) -> None:
    """A legend whose names are plain text, never formulas."""
    for text in axes.legend(**where, **LEGEND).get_texts():
        text.set_parse_math(False)


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
