"""The figures of a comparison, in the colours of the hub's report; drawn without pyplot, so no window and no global state."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.common.report_style import INK, MUTED, PALETTE, dress, empty_figure
from server_train.comparison.record.results import PRIVATE, Comparison, Point, Run
from server_train.comparison.record.summary import Line, lines, reach_lines
from server_train.reports.formatting import readable_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISTILLED = PALETTE[0]
SHADES = (DISTILLED, "#3a9fb5", "#7cc4d2")  # one a level
BASELINES = PALETTE[1:]
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)))  # a palette's second time round
DOTS: Any = (0, (1, 1.3))

X = Callable[[Run, Point], float]


def figures(comparison: Comparison) -> "dict[str, Figure]":
    """Every figure by the name of its file."""
    return {
        "auc_by_bytes": by_bytes(comparison),
        "auc_by_round": by_round(comparison),
        "auc_by_time": by_time(comparison),
        "bytes_to_reach": bytes_to_reach(comparison),
        "bytes_per_client": bytes_per_client(comparison),
    }


def by_bytes(comparison: Comparison) -> "Figure":
    """AUC and accuracy over bytes a client, both ways, on a logarithmic axis."""
    figure = _two_panels(comparison, lambda run, point: run.client_bytes(point), "bytes a client, both ways")
    first = [run.client_bytes(run.points[min(1, len(run.points) - 1)]) for run in comparison.runs if run.traffic]
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.set_xlim(left=max(1.0, min(first)) / 1.6)  # rounds before the first have no model to speak of
        axes.xaxis.set_major_formatter(_bytes_tick)
    return figure


def by_round(comparison: Comparison) -> "Figure":
    """AUC and accuracy over rounds; distillation is one round."""
    from matplotlib.ticker import MaxNLocator

    figure = _two_panels(comparison, lambda run, point: float(point.round), "round")
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def by_time(comparison: Comparison) -> "Figure":
    """AUC and accuracy over simulated time, on a logarithmic axis."""
    figure = _two_panels(comparison, lambda run, point: point.seconds, "simulated time")
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: readable_time(value))
    return figure


def bytes_to_reach(comparison: Comparison) -> "Figure":
    """Bytes a client until each baseline first has the distilled model's AUC; an open dot where it never has."""
    distilled, colours = _of(comparison, "distilled"), _colours(comparison)
    first = distilled[0]
    totals = {line.name: line.client_bytes for line in lines(comparison)}
    dots = [
        (d.name, d.client_bytes, s, True, readable_bytes(d.client_bytes))
        for d, s in zip(distilled, SHADES, strict=False)
    ]
    for reach in (r for r in reach_lines(comparison) if r.distilled == first.name):
        count = totals[reach.baseline] if reach.client_bytes is None else reach.client_bytes
        text = readable_bytes(count)
        if reach.client_bytes is None:
            text = f"{reach.words}, {text}"
        else:
            text += f"  ·  round {reach.words}  ·  {readable_ratio(count / first.client_bytes)} × {first.name}"
        dots.append((reach.baseline, count, colours[reach.baseline][0], reach.client_bytes is not None, text))
    figure, axes = empty_figure(10.2, 0.9 + 0.33 * len(dots))
    axes.axvline(first.client_bytes, color=DISTILLED, lw=1.0, ls=(0, (4, 3)))
    for place, (_, count, colour, reached, text) in enumerate(dots):
        axes.plot([count], [place], "o", ms=9, color=colour if reached else "white", mec=colour, mew=1.8, zorder=5)
        _beside(axes, text, max(1.0, count), place)
    _rows(axes, [d[0] for d in dots], [d[1] for d in dots], room=60)
    axes.set_xlabel(f"bytes a client, both ways, until AUC {first.roc_auc.mean:.4f}")
    return figure


def bytes_per_client(comparison: Comparison) -> "Figure":
    """Bytes up and down a client over a whole run: means as dots, lines from the client with the least to the most."""
    shown = [*_of(comparison, "distilled"), *_of(comparison, "federated")]
    figure, axes = empty_figure(10.2, 1.0 + 0.44 * len(shown))
    most = 1.0
    for offset, key, colour in [(-0.17, "up", PALETTE[0]), (0.17, "down", PALETTE[1])]:
        axes.plot([], [], "o", ms=7, color=colour, label=key)
        for place, line in enumerate(shown):
            counts = [getattr(t, key) for run in line.runs for t in run.traffic]
            if not any(counts):  # nothing comes down in distillation
                continue
            mean, most = float(np.mean(counts)), max(most, *counts)
            axes.plot([min(counts), max(counts)], [place + offset] * 2, color=colour, lw=2.0, alpha=0.5)
            axes.plot([mean], [place + offset], "o", ms=7, color=colour, zorder=5)
            _beside(axes, readable_bytes(mean), max(counts), place + offset)
    _rows(axes, [line.name for line in shown], [n for line in shown for n in (line.up, line.down) if n], room=4)
    axes.set_xlabel("bytes a client over the whole run")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    return figure


def _beside(axes: "Axes", text: str, x: float, y: float) -> None:
    """A few words to the right of a dot."""
    axes.annotate(
        text,
        (x, y),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=INK,
        parse_math=False,
        bbox={"boxstyle": "square,pad=0.15", "fc": "white", "ec": "none"},
    )


def _rows(axes: "Axes", names: Sequence[str], counts: Sequence[float], *, room: float) -> None:
    """A row a name, over bytes on a logarithmic axis with `room` times as much to the right."""
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(max(1.0, min(counts)) / 1.8, max(1.0, *counts) * room)
    axes.xaxis.set_major_formatter(_bytes_tick)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def readable_ratio(value: float) -> str:
    """A ratio with two significant digits: 0.083, 2.0, 31, 480."""
    if value >= 10:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def readable_time(seconds: float) -> str:
    """A tick of the time axis: 100 ms, 10 s, 7,200 s."""
    return f"{seconds:,.6g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _two_panels(comparison: Comparison, x: X, label: str) -> "Figure":
    """AUC on the left, accuracy on the right, over the same axis; one legend below."""
    from matplotlib.figure import Figure

    names = [line.name for line in lines(comparison) if line.kind != "central"]
    rows = -(-len(names) // 4)
    figure = Figure(figsize=(10.2, 3.5 + 0.24 * rows), layout="constrained")
    figure.patch.set_alpha(0.0)
    for axes, key, title in zip(
        figure.subplots(1, 2), ("roc_auc", "accuracy"), ("ROC-AUC on test rows", "accuracy on test rows"), strict=True
    ):
        dress(axes)
        _curves(axes, comparison, x, key)
        axes.set_xlabel(label)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def _curves(axes: "Axes", comparison: Comparison, x: X, key: str) -> None:
    """One line a baseline, a star a distilled model with its level, and the references as levels."""
    colours = _colours(comparison)
    for line in _of(comparison, "federated"):
        colour, dashes = colours[line.name]
        for i, run in enumerate(line.runs):
            places, values = [x(run, p) for p in run.points], [getattr(p, key) for p in run.points]
            width = 1.5 if len(line.runs) == 1 else 1.0
            axes.plot(places, values, color=colour, ls=dashes, lw=width, label=_plain(line.name) if i == 0 else None)
    for shade, line in zip(SHADES, _of(comparison, "distilled"), strict=False):
        values = [getattr(run.final, key) for run in line.runs]
        axes.axhline(float(np.mean(values)), color=shade, lw=1.0, ls=(0, (4, 3)), zorder=4)
        places = [x(run, run.final) for run in line.runs]
        axes.plot(places, values, "*", ms=15, color=shade, mec="white", mew=1.0, zorder=6, label=_plain(line.name))
    for kind, dashes in (("central", (0, (1, 2))), ("alone", (0, (6, 2, 1, 2)))):
        for line in _of(comparison, kind):
            level = float(np.mean([getattr(run.final, key) for run in line.runs]))
            axes.axhline(level, color=MUTED, lw=1.1, ls=dashes, label=_plain(line.name))
    axes.set_ylim(*_window(comparison, key))


def _window(comparison: Comparison, key: str) -> tuple[float, float]:
    """The part of the axis where the models end up; a poor start may leave it at the bottom."""
    ends = [getattr(run.final, key) for run in comparison.runs if run.kind != "alone"]
    ends += [float(np.mean([getattr(r.final, key) for r in line.runs])) for line in _of(comparison, "alone")]
    tops = [max(getattr(p, key) for p in run.points) for run in comparison.runs]
    low, high = min(ends), max([*tops, *ends])
    room = max(0.01, high - low)
    return max(0.0, low - 0.6 * room), min(1.0, high + 0.12 * room)


def _colours(comparison: Comparison) -> dict[str, tuple[str, Any]]:
    """Colour and dashes of each baseline; under a budget its colour is the same and it is dotted."""
    names = [line.name for line in _of(comparison, "federated")]
    plain = list(dict.fromkeys(name.removesuffix(PRIVATE) for name in names))
    out = {}
    for name in names:
        place = plain.index(name.removesuffix(PRIVATE))
        dashes = DOTS if name.endswith(PRIVATE) else DASHES[place // len(BASELINES) % len(DASHES)]
        out[name] = (BASELINES[place % len(BASELINES)], dashes)
    return out


def _of(comparison: Comparison, kind: str) -> list[Line]:
    return [line for line in lines(comparison) if line.kind == kind]


def _plain(name: str) -> str:
    """A name for a legend, where dollar signs would make a formula of it."""
    return name.replace("$", r"\$")


def _bytes_tick(value: float, _: object) -> str:
    """Bytes at a tick, whole ones without a decimal."""
    return readable_bytes(value).replace(".0 ", " ")
