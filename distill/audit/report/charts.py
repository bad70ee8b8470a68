"""The three figures of the audit report, each as an image to put into the page."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill.audit.report.contents import Audit
from distill.audit.report.curves import Curves
from distill.audit.report.history import Moment
from distill.audit.report.risk import Meaning, bounded_posterior
from distill.common.report_style import INK, MUTED, PALETTE, data_uri, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEAL, AMBER = PALETTE[0], PALETTE[1]
WIDTH = 7.2  # inches; the page's text is as wide
MOST_DATES = 7  # under the spending
NAMED = 6  # curves that are told apart by colour; more are one grey bundle
LEGEND = {"frameon": False, "fontsize": 8.5, "labelcolor": INK}


def beliefs(spent: Meaning | None, granted: Meaning | None) -> str:
    """How far a belief may move, for every belief held before."""
    figure, axes = empty_figure(WIDTH, 3.3)
    priors = [k / 200 for k in range(1, 200)]
    for meaning, colour, label in ((granted, AMBER, "all that is granted"), (spent, TEAL, "spent so far")):
        if meaning is None:
            continue
        lowest, highest = ([bounded_posterior(p, sign * meaning.epsilon) for p in priors] for sign in (-1, 1))
        axes.fill_between(_percents(priors), _percents(lowest), _percents(highest), color=colour, alpha=0.16, lw=0)
        axes.plot(
            _percents(priors), _percents(highest), color=colour, lw=2, label=f"{label}: ε = {meaning.epsilon:.4g}"
        )
        axes.plot(_percents(priors), _percents(lowest), color=colour, lw=2)
        marks = meaning.beliefs
        axes.plot(_percents([b.prior for b in marks]), _percents([b.highest for b in marks]), "o", ms=4.5, color=colour)
    axes.plot([0, 100], [0, 100], color=MUTED, lw=1.1, ls=(0, (4, 3)), label="nothing is learnt")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("what the attacker believed before (%)")
    axes.set_ylabel("what can be believed after (%)")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), **LEGEND)
    return data_uri(figure, "beliefs")


def curves(found: Curves, *, spent: Meaning | None, granted: Meaning | None) -> str:
    """Epsilon against delta: each release, all of them as counted, all of them jointly, and what is booked and granted."""
    figure, axes = empty_figure(WIDTH, 3.4)
    several = len(found.releases) > 1
    for number, curve in enumerate(found.releases):
        named = len(found.releases) <= NAMED
        label = f"release {curve.name}" if named else f"{len(found.releases)} releases, each" if not number else None
        colour = PALETTE[(number + 2) % len(PALETTE)] if named else "#b8c2cc"
        axes.plot(found.deltas, curve.epsilons, color=colour, lw=1.3, label=label)
    if several and found.counted is not None:
        axes.plot(found.deltas, found.counted.epsilons, color=TEAL, lw=2.4, label="all, added up as granted")
    if several and found.joint is not None:
        axes.plot(
            found.deltas, found.joint.epsilons, color=INK, lw=1.3, ls=(0, (5, 3)), label="all jointly (information)"
        )
    for meaning, mark, colour, label in ((spent, "o", TEAL, "spent, on the books"), (granted, "D", AMBER, "granted")):
        if meaning is not None and meaning.delta:
            axes.plot([meaning.delta], [meaning.epsilon], mark, ms=7, color=colour, mec="white", label=label, zorder=5)
    axes.set_xscale("log")
    axes.set_xlabel("δ (chance of a leak outside the promise)")
    axes.set_ylabel("ε")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), **LEGEND)
    return data_uri(figure, "curves")


def spending(books: Sequence[Moment]) -> str:
    """Epsilon spent against the grant, entry by entry; entries are dated by the day."""
    figure, axes = empty_figure(WIDTH, 2.7)
    entries = [m.sequence for m in books]
    _steps(axes, entries, [m.granted_epsilon for m in books], AMBER, "granted")
    _steps(axes, entries, [m.spent_epsilon for m in books], TEAL, "spent")
    axes.fill_between(entries, [m.spent_epsilon for m in books], step="post", color=TEAL, alpha=0.16, lw=0)
    margin = max(0.03 * (entries[-1] - entries[0]), 0.1)
    axes.set_xlim(entries[0] - margin, entries[-1] + margin)
    shown = books[:: math.ceil(len(books) / MOST_DATES)]
    axes.set_xticks([m.sequence for m in shown], [f"{m.sequence}\n{m.moment:%Y-%m-%d}" for m in shown])
    axes.set_xlabel("entry of the ledger, and its day (UTC)")
    axes.set_ylabel("ε, all releases together")
    axes.set_ylim(0, max(*(max(m.granted_epsilon, m.spent_epsilon) for m in books), 0.1) * 1.12)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), **LEGEND)
    return data_uri(figure, "spending")


def all_figures(audit: Audit) -> dict[str, str]:
    """By name, those for which there is anything to draw."""
    found = {"spending": spending(audit.moments)}
    if audit.spent is not None or audit.granted is not None:
        found["beliefs"] = beliefs(audit.spent, audit.granted)
    if audit.curves.counted is not None:
        found["curves"] = curves(audit.curves, spent=audit.spent, granted=audit.granted)
    return found


def _steps(axes: "Axes", entries: Sequence[int], values: Sequence[float], colour: str, label: str) -> None:
    """A line that stays where it is until the next entry, with a dot at the newest."""
    axes.step(entries, values, where="post", color=colour, lw=2.2, label=f"{label}: {values[-1]:.4g} now")
    axes.plot([entries[-1]], [values[-1]], "o", ms=6, color=colour, mec="white")


def _percents(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]
