"""The paper's figures over a grid of comparisons, in the colours of the comparison's own report.

    python examples/paper/figures.py OUT        draws them anew from what reproduce.py left in OUT

For each table: NAME-scores.png (AUC and accuracy of every method as bars that start where a model that knows nothing
stands), NAME-bytes.png (bytes a client as bars) and NAME-curves.png (AUC per round and per byte). No method is told by its
colour alone: bars carry names, curves carry markers.
"""

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import grid
import tables

from distill.common.report_style import GRID, INK, MUTED, dress
from server_train.comparison.record.results import Point, Run
from server_train.comparison.record.summary import Line
from server_train.comparison.report.figures import BASELINES, SHADES
from server_train.reports.formatting import readable_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVELS = {"central": MUTED, "alone": "#b8c2cc"}
MARKERS = "osD^vPX"
GAP = 1.2  # between two groups of bars, in bars
DOTS = 150  # an inch
LEAST_BYTES = 1e3  # where bars of bytes start

X = Callable[[Run, Point], float]


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1:
        sys.exit(__doc__)
    out = Path(words[0])
    outcomes = grid.read(out)
    if not outcomes:
        sys.exit(f"{out} holds no finished setting; run reproduce.py first")
    tables.write_all(outcomes, out)
    for path in write_all(outcomes, out):
        print(path)
    return 0


def write_all(outcomes: Sequence[grid.Outcome], out: Path) -> Iterator[Path]:
    """Draw every figure; yields each file as it is written."""
    colours = palette(outcomes)
    for name, members in grid.tables_of(outcomes).items():
        if not any(o.comparison for o in members):
            continue
        drawn = {
            "scores": scores(members, colours),
            "bytes": bytes_spent(members, colours),
            "curves": curves(members, colours),
        }
        for kind, figure in drawn.items():
            path = out / f"{name}-{kind}.png"
            figure.savefig(path, dpi=DOTS, facecolor="white", metadata={"Software": None})
            yield path


def palette(outcomes: Sequence[grid.Outcome]) -> dict[str, str]:
    """A colour a method, the same in every figure."""
    seen = {line.name: line.kind for outcome in outcomes for line in outcome.lines}
    out = dict(zip((n for n, kind in seen.items() if kind == "distilled"), SHADES, strict=False))
    federated = [name for name, kind in seen.items() if kind == "federated"]
    out |= {name: BASELINES[place % len(BASELINES)] for place, name in enumerate(federated)}
    return out | {name: LEVELS[kind] for name, kind in seen.items() if kind in LEVELS}


def scores(members: Sequence[grid.Outcome], colours: dict[str, str]) -> "Figure":
    """AUC and accuracy of every method's last model: a panel a number of clients, a group of bars a split."""
    rows = [(n, group, key) for n, group in by_clients(members) for key in ("roc_auc", "accuracy")]
    figure, panels = stacked([group for _, group, _ in rows], 2.35)
    for axes, (clients, group, key) in zip(panels, rows, strict=True):
        known = [o.commonest for o in group if o.comparison]
        nothing = 0.5 if key == "roc_auc" or not known else known[0]
        said = "chance" if key == "roc_auc" else f"always the commonest class, {nothing:.3f}"
        bars = _Bars(axes, group)
        ends = [nothing]
        for _, line, x in bars:
            value = getattr(line, key)
            room = (value.spread or 0.0) if line.kind != "alone" else 0.0  # theirs is over clients
            axes.bar(x, value.mean - nothing, 0.84, bottom=nothing, color=colours[line.name], zorder=2)
            if room:
                axes.errorbar(x, value.mean, room, color=INK, lw=0.9, capsize=2, zorder=3)
            up = value.mean >= nothing
            label(axes, f"{value.mean:.3f}", x, value.mean + room if up else value.mean - room, above=up)
            ends += [value.mean - room, value.mean + room]
        margin = 0.3 * max(0.01, max(ends) - min(ends))
        low = min(ends) - margin if min(ends) < nothing - 1e-9 else nothing - 0.02 * margin
        high = max(ends) + 1.25 * margin
        axes.set_ylim(low, high)
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(1.0, high)])
        axes.axhline(nothing, color=INK, lw=0.9, zorder=4)
        title = "ROC-AUC" if key == "roc_auc" else "accuracy"
        axes.set_title(f"{title}, {clients} clients   (bars start at: {said})", fontsize=9.5, color=INK, loc="left")
        bars.name_groups()
    return figure


def bytes_spent(members: Sequence[grid.Outcome], colours: dict[str, str]) -> "Figure":
    """Bytes a client, both ways: pale over the whole run, full until the AUC of distillation is first reached."""
    from matplotlib.ticker import FuncFormatter

    rows = list(by_clients(members))
    figure, panels = stacked([group for _, group in rows], 2.7)
    for axes, (clients, group) in zip(panels, rows, strict=True):
        bars, most = _Bars(axes, group, kinds=("federated", "distilled")), LEAST_BYTES
        axes.set_yscale("log")
        for outcome, line, x in bars:
            reach = outcome.reaches.get((line.name, grid.DISTILLED[0]))
            full = line.client_bytes if line.kind == "distilled" else reach.client_bytes if reach else None
            colour, total = colours[line.name], line.client_bytes
            axes.bar(x, total - LEAST_BYTES, 0.84, bottom=LEAST_BYTES, color=colour, alpha=0.28, zorder=2)
            if full is not None:
                axes.bar(x, full - LEAST_BYTES, 0.84, bottom=LEAST_BYTES, color=colour, zorder=3)
            words = readable_bytes(total if full is None else full)
            label(axes, words if full is not None else f"never, {words}", x, total, above=True)
            most = max(most, total)
        for start, stop, outcome in bars.spans:
            own = next((line.client_bytes for line in outcome.lines if line.name == grid.DISTILLED[0]), None)
            if own is not None:
                axes.plot([start, stop], [own, own], color=SHADES[0], lw=1.0, ls=(0, (4, 3)), zorder=4)
        axes.set_ylim(LEAST_BYTES, most * (most / LEAST_BYTES) ** 0.45)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: readable_bytes(v).replace(".0 ", " ")))
        axes.yaxis.minorticks_off()
        words = (
            "full bars, numbers: until the AUC of distillation is first reached; pale: whole run; dashes: distillation"
        )
        axes.set_title(f"bytes a client, {clients} clients   ({words})", fontsize=9.5, color=INK, loc="left")
        bars.name_groups()
    return figure


def curves(members: Sequence[grid.Outcome], colours: dict[str, str]) -> "Figure":
    """AUC per round above, AUC per byte below, a column a split, for the smallest number of clients."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    clients, group = next(iter(by_clients(members)))
    figure = Figure(figsize=(max(8.2, 4.1 * len(group)), 7.2), layout="constrained")
    panels = figure.subplots(2, len(group), sharey=True, squeeze=False)
    for column, outcome in enumerate(group):
        for axes, x in zip(panels[:, column], (by_round, by_bytes), strict=True):
            dress(axes)
            if outcome.comparison is None:
                refuse(axes, 0.5, outcome, transform=axes.transAxes)
                continue
            draw_curves(axes, outcome, x, colours)
        panels[0, column].set_title(
            f"{grid.split_words(outcome.setting.split)}, {clients} clients", fontsize=10, color=INK, loc="left"
        )
        panels[0, column].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0, column].set_xlabel("round")
        panels[1, column].set_xscale("log")
        panels[1, column].xaxis.set_major_formatter(FuncFormatter(lambda v, _: readable_bytes(v).replace(".0 ", " ")))
        panels[1, column].set_xlabel("bytes a client, both ways")
    for axes in panels[:, 0]:
        axes.set_ylabel("ROC-AUC on test rows")
        axes.set_ylim(*window([o for o in group if o.comparison]))
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    style: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "labelcolor": INK}
    columns = 4 if len(group) < 3 else 5
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns, **style)
    return figure


def draw_curves(axes: "Axes", outcome: grid.Outcome, x: X, colours: dict[str, str]) -> None:
    """One line a baseline (mean over repetitions, the spread shaded), distillation as a level with a star."""
    federated = [line for line in outcome.lines if line.kind == "federated"]
    for place, line in enumerate(federated):
        colour = colours[line.name]
        where, mean, spread = averaged(line.runs, x)
        every = max(1, len(where) // 6)
        axes.plot(
            where,
            mean,
            color=colour,
            lw=1.4,
            marker=MARKERS[place % len(MARKERS)],
            ms=5,
            mec="white",
            mew=0.6,
            markevery=(1 + place * every // len(federated), every) if len(where) > 2 * every else 1,
            label=line.name,
        )
        if any(spread):
            low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
            axes.fill_between(where, low, high, color=colour, alpha=0.15, lw=0)
    sizes = {name: 15 - 6 * place for place, name in enumerate(grid.DISTILLED)}  # both are seen where they coincide
    for line in outcome.lines:
        if line.kind == "central":
            axes.axhline(line.roc_auc.mean, color=MUTED, lw=1.1, ls=(0, (1, 2)), label="centralised, all rows")
        if line.kind == "distilled":
            colour, budget = colours[line.name], f", ε = {line.epsilon:.2g}" if line.epsilon is not None else ""
            axes.axhline(line.roc_auc.mean, color=colour, lw=1.0, ls=(0, (4, 3)), zorder=4)
            spent = fmean(x(run, run.final) for run in line.runs)
            star: dict[str, Any] = {
                "ms": sizes.get(line.name, 12),
                "color": colour,
                "mec": "white",
                "mew": 0.7,
                "zorder": 6,
            }
            axes.plot([spent], [line.roc_auc.mean], "*", label=line.name + budget, **star)


def averaged(runs: Sequence[Run], x: X) -> tuple[list[float], list[float], list[float]]:
    """Place, mean and spread of the AUC after each round that any repetition had, the start without a round left out."""
    rounds: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        for point in run.points:
            if point.round:
                rounds.setdefault(point.round, []).append((x(run, point), point.roc_auc))
    pairs = [list(zip(*rounds[number], strict=True)) for number in sorted(rounds)]
    return (
        [fmean(where) for where, _ in pairs],
        [fmean(aucs) for _, aucs in pairs],
        [stdev(aucs) if len(aucs) > 1 else 0.0 for _, aucs in pairs],
    )


def by_round(run: Run, point: Point) -> float:
    """The round; distillation is one."""
    return float(point.round)


def by_bytes(run: Run, point: Point) -> float:
    """Bytes a client, both ways."""
    return run.client_bytes(point)


def window(outcomes: Sequence[grid.Outcome]) -> tuple[float, float]:
    """The part of the AUC axis where models end up; poor starts may leave it at the bottom."""
    shown = [line for outcome in outcomes for line in outcome.lines if line.kind != "alone"]
    low, high = min(line.roc_auc.mean for line in shown), max(line.best_roc_auc.mean for line in shown)
    room = max(0.01, high - low)
    return max(0.0, low - 0.25 * room), min(1.0, high + 0.1 * room)


def by_clients(members: Sequence[grid.Outcome]) -> Iterator[tuple[int, list[grid.Outcome]]]:
    """Outcomes of each number of clients, those left out where none could be run."""
    for clients in dict.fromkeys(o.setting.clients for o in members):
        group = [o for o in members if o.setting.clients == clients]
        if any(o.comparison for o in group):
            yield clients, group


def stacked(groups: Sequence[Sequence[grid.Outcome]], height: float) -> "tuple[Figure, list[Axes]]":
    """Panels one above the other, wide enough for the names of their bars."""
    from matplotlib.figure import Figure

    most = max(sum(max(4, len(o.lines)) + GAP for o in group) for group in groups)
    figure = Figure(figsize=(max(9.0, 1.0 + 0.26 * most), 0.9 + (height + 0.95) * len(groups)), layout="constrained")
    panels = list(figure.subplots(len(groups), 1, squeeze=False)[:, 0])
    for axes in panels:
        dress(axes)
        axes.grid(axis="x", visible=False)
    return figure, panels


class _Bars:
    """Places of the bars of one panel: iterate for (outcome, line, x); then `name_groups`."""

    def __init__(self, axes: "Axes", group: Sequence[grid.Outcome], kinds: Sequence[str] | None = None) -> None:
        self.axes, self.spans, self._bars = axes, [], []
        start = 0.0
        for outcome in group:
            shown = ordered([line for line in outcome.lines if kinds is None or line.kind in kinds])
            self._bars += [(outcome, line, start + i) for i, line in enumerate(shown)]
            stop = start + max(4, len(shown)) - 1
            self.spans.append((start - 0.5, stop + 0.5, outcome))
            start = stop + 1 + GAP

    def __iter__(self) -> Iterator[tuple[grid.Outcome, Line, float]]:
        return iter(self._bars)

    def name_groups(self) -> None:
        """Names under the bars, and the split above each group; a refused split says so in its place."""
        names = [short(line) for _, line, _ in self._bars]
        self.axes.set_xticks([x for *_, x in self._bars], names, rotation=55, ha="right", rotation_mode="anchor")
        self.axes.tick_params(axis="x", length=0, labelsize=7.5)
        self.axes.set_xlim(-0.5 - GAP / 2, self.spans[-1][1] + GAP / 2)
        placed = self.axes.get_xaxis_transform()
        for start, stop, outcome in self.spans:
            middle = (start + stop) / 2
            words = grid.split_words(outcome.setting.split)
            style: dict[str, Any] = {"ha": "center", "fontsize": 9, "color": INK, "transform": placed}
            self.axes.text(middle, 0.97, words, va="top", fontweight="bold", **style)
            if outcome.refused:
                refuse(self.axes, middle, outcome, transform=placed)
        for (_, stop, _), (start, _, _) in zip(self.spans, self.spans[1:], strict=False):
            self.axes.axvline((start + stop) / 2, color=GRID, lw=1.0)


def refuse(axes: "Axes", x: float, outcome: grid.Outcome, *, transform: Any) -> None:
    """The place of a setting that could not be run."""
    reason = textwrap.shorten(outcome.refused, 90, placeholder=" …")
    words = "\n".join(["not possible:", *textwrap.wrap(reason, 24)])
    axes.text(x, 0.45, words, ha="center", va="center", fontsize=7.5, color=MUTED, transform=transform)


def label(axes: "Axes", words: str, x: float, y: float, *, above: bool) -> None:
    """A bar's number, upright, at its end."""
    axes.annotate(
        words,
        (x, y),
        xytext=(0, 2.5 if above else -2.5),
        textcoords="offset points",
        rotation=90,
        ha="center",
        va="bottom" if above else "top",
        fontsize=7,
        color=INK,
        zorder=6,
        bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"},
    )


def ordered(shown: Sequence[Line]) -> list[Line]:
    """References first, then baselines, then distillation."""
    place = ("central", "alone", "federated", "distilled")
    return sorted(shown, key=lambda line: place.index(line.kind))


def short(line: Line) -> str:
    """A name that fits under a bar; a baseline's options are in the tables."""
    name = line.name.partition(" (")[0].replace("lation,", "l.,")
    return {"central": "centralised", "alone": "clients alone"}.get(line.kind, name)


if __name__ == "__main__":
    sys.exit(main())
