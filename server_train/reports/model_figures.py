"""The figures of the model card, each as an image to put into the page."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distill.common.report_style import INK, MUTED, PALETTE, data_uri, dress, empty_figure
from server_train.models.cards import ClassCurves, InstitutionCard, NumberCurves, Tenths, TrainingCard
from server_train.reports.contribution_terms import SHARES, Term, terms_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "labelcolor": INK}
DASHED: dict[str, Any] = {"color": MUTED, "lw": 1.1, "ls": (0, (4, 3))}
SIZE = (5.2, 3.7)  # inches; two figures stand beside each other
PANELS = 4  # terms in a row
LONGEST_NAME = 24


def learning_curve(training: TrainingCard) -> str:
    """Training and held-out loss by epoch, and the floor under both."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = empty_figure(*SIZE)
    epochs, used, held_out = zip(*training.curve, strict=True)
    axes.plot(epochs, used, color=PALETTE[1], lw=1.8, label="rows trained on")
    axes.plot(epochs, held_out, color=PALETTE[0], lw=2.2, label="held-out synthetic rows")
    best = training.best_epoch
    if best:  # else a constant was best
        axes.plot([best], [held_out[epochs.index(best)]], "o", ms=7, color=PALETTE[0], mec="white", mew=1.5, zorder=5)
    if training.loss_floor is not None:
        axes.axhline(training.loss_floor, label="floor: entropy of the soft labels", **DASHED)
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy")
    axes.legend(**LEGEND)
    if len(epochs) == 1:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return data_uri(figure, "curve")


def roc(curves: Sequence[ClassCurves], classes: Sequence[str]) -> str:
    """True against false positives, for each class that has a curve."""
    figure, axes = empty_figure(*SIZE)
    axes.plot([0, 1], [0, 1], label="chance", **DASHED)
    for place, curve in enumerate(curves):
        if curve.roc.false:
            _line(axes, curve.roc.false, curve.roc.true, place, classes[curve.number])
    _unit_square(axes)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.legend(loc="lower right", **LEGEND)
    return data_uri(figure, "roc")


def calibration(curves: Sequence[ClassCurves], classes: Sequence[str]) -> str:
    """Observed frequency against predicted chance by tenths of the rows, with the spread that chance alone gives."""
    figure, axes = empty_figure(*SIZE)
    axes.plot([0, 1], [0, 1], label="perfect", **DASHED)
    for place, curve in enumerate(curves):
        _tenths(axes, curve.calibration, place, classes[curve.number])
    highest = max(v for c in curves for v in (*c.calibration.predicted, *c.calibration.observed))
    _unit_square(axes, min(1.0, max(0.1, highest * 1.15)))
    axes.set_xlabel("predicted chance")
    axes.set_ylabel("frequency among the rows")
    axes.legend(loc="upper left", **LEGEND)
    return data_uri(figure, "calibration")


def scores(curves: Sequence[ClassCurves], classes: Sequence[str]) -> str:
    """How predicted chances are spread: for two classes in each of them, for more each class's own rows."""
    figure, axes = empty_figure(*SIZE)
    sides = [(c.scores.this, classes[c.number]) for c in curves]
    if len(classes) == 2:
        sides = [(curves[0].scores.rest, classes[0]), (curves[0].scores.this, classes[1])]
    for place, (rows, name) in enumerate(sides):
        edges = [k / len(rows) for k in range(len(rows) + 1)]
        share = [100 * r / max(1, sum(rows)) for r in rows]
        colour = PALETTE[place % len(PALETTE)]
        axes.stairs(share, edges, color=colour, lw=1.8, label=_plain(_cut(name)))
        axes.stairs(share, edges, color=colour, alpha=0.16, fill=True)
    axes.set_xlim(0, 1)
    axes.set_xlabel(
        _plain(f"predicted chance of {_cut(classes[1])}") if len(classes) == 2 else "predicted chance of its own class"
    )
    axes.set_ylabel("rows of the class (%)")
    axes.legend(**LEGEND)
    return data_uri(figure, "scores")


def numbers(curves: NumberCurves) -> str:
    """Mean truth against mean prediction by tenths of the rows, for a target that is a number."""
    figure, axes = empty_figure(*SIZE)
    tenths = curves.calibration
    ends = [min(tenths.predicted + tenths.observed), max(tenths.predicted + tenths.observed)]
    axes.plot(ends, ends, label="perfect", **DASHED)
    _tenths(axes, tenths, 0, "tenths of the rows")
    axes.set_xlabel("mean prediction")
    axes.set_ylabel("mean of the target")
    axes.legend(loc="upper left", **LEGEND)
    return data_uri(figure, "numbers")


def errors(curves: NumberCurves) -> str:
    """How errors are spread, for a target that is a number."""
    figure, axes = empty_figure(*SIZE)
    rows, edges = curves.errors.rows, curves.errors.edges
    axes.stairs([100 * r / max(1, sum(rows)) for r in rows], edges, color=PALETTE[0], alpha=0.7, fill=True)
    axes.axvline(0, **DASHED)
    axes.set_xlabel("prediction less target (the outermost 1 % left out)")
    axes.set_ylabel("rows (%)")
    return data_uri(figure, "errors")


def weights(members: Sequence[InstitutionCard], percent: Callable[[float], str]) -> str:
    """Each institution's share of the pooled rows and of the class head."""
    figure, axes = empty_figure(10.2, 0.7 + 0.58 * len(members))
    places = range(len(members))
    for offset, key, colour, label in zip((-0.19, 0.19), SHARES, PALETTE, ("rows", "class head"), strict=False):
        shares = [getattr(m, key) for m in members]
        bars = axes.barh([p + offset for p in places], shares, height=0.34, color=colour, label=label)
        axes.bar_label(bars, [percent(s) for s in shares], padding=4, fontsize=8.5, color=INK)
    _institutions(axes, members)
    axes.set_xlim(0, max(0.05, *(max(getattr(m, key) for key in SHARES) for m in members)) * 1.16)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, **LEGEND)
    return data_uri(figure, "weights")


def terms(members: Sequence[InstitutionCard], shown: Sequence[Term], write: Callable[[float, Term], str]) -> str:
    """Every term of every institution: one panel a term, one bar an institution."""
    from matplotlib.figure import Figure

    across = min(PANELS, len(shown))
    lines = -(-len(shown) // across)
    figure = Figure(figsize=(10.2, lines * (0.75 + 0.3 * len(members))), layout="constrained")
    figure.patch.set_alpha(0.0)
    grid = figure.subplots(lines, across, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        term = shown[place]
        dress(axes)
        values = [terms_in(m).get(term.name) for m in members]
        bars = axes.barh(range(len(members)), [v or 0.0 for v in values], height=0.62, color=PALETTE[0])
        axes.bar_label(bars, ["–" if v is None else write(v, term) for v in values], padding=3, fontsize=8, color=INK)
        _institutions(axes, members, named=place % across == 0)
        low, high = min(0.0, *(v or 0.0 for v in values)), max(0.0, *(v or 0.0 for v in values))
        room = 0.4 * (high - low) or 1.0  # for the numbers beside the bars
        axes.set_xlim(low - room if low else 0.0, high + room)
        axes.set_title(term.label, fontsize=9.5, color=INK, loc="left", parse_math=False)
    return data_uri(figure, "terms")


def _institutions(axes: "Axes", members: Sequence[InstitutionCard], *, named: bool = True) -> None:
    """One line an institution, the first on top; a name is plain text, never a formula between dollar signs."""
    axes.set_yticks(range(len(members)), [_cut(m.institution) if named else "" for m in members], parse_math=False)
    axes.set_ylim(len(members) - 0.45, -0.55)
    axes.xaxis.set_visible(False)
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)


def _tenths(axes: "Axes", tenths: Tenths, place: int, name: str) -> None:
    """Tenths of the rows with two standard errors either way."""
    bars = [2 * s / max(1, n) ** 0.5 for s, n in zip(tenths.spread, tenths.rows, strict=True)]
    axes.errorbar(
        tenths.predicted,
        tenths.observed,
        yerr=bars,
        fmt="o-",
        ms=4.5,
        lw=1.5,
        elinewidth=1,
        color=PALETTE[place % len(PALETTE)],
        label=_plain(_cut(name)),
    )


def _line(axes: "Axes", x: Sequence[float], y: Sequence[float], place: int, name: str) -> None:
    axes.plot(x, y, color=PALETTE[place % len(PALETTE)], lw=2, label=_plain(_cut(name)))


def _unit_square(axes: "Axes", end: float = 1.0) -> None:
    axes.set_xlim(0, end)
    axes.set_ylim(0, end)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _plain(text: str) -> str:
    """A label that is no formula, and is not hidden from the legend by a leading underscore."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
