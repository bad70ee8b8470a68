"""The report of a comparison: one HTML file that needs nothing beside it, drawn from the `Comparison` alone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distill.common.report_style import PALETTE, data_uri
from server_train.comparison.record.results import Comparison
from server_train.comparison.record.summary import Line, ReachLine, lines, reach_lines
from server_train.comparison.report.figures import readable_ratio
from server_train.reports.formatting import templates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "comparison.html"


def render(comparison: Comparison, figures: "Mapping[str, Figure]") -> str:
    """The report as HTML text, with the figures inside."""
    shown = lines(comparison)
    environment = templates()
    environment.filters["figure"] = readable_figure
    environment.filters["significant"] = readable_ratio
    return environment.get_template(TEMPLATE).render(
        comparison=comparison,
        settings=comparison.settings,
        distilled=[line for line in shown if line.kind == "distilled"],
        federated=[line for line in shown if line.kind == "federated"],
        references=[line for line in shown if line.kind in ("central", "alone")],
        reaches={(r.baseline, r.distilled): r for r in reach_lines(comparison)},
        headline=headline(shown, reach_lines(comparison)),
        rehearsal=any(run.rehearsal for run in comparison.runs),
        palette=PALETTE,
        figures={name: data_uri(figure, name) for name, figure in figures.items()},
    )


def headline(shown: list[Line], reaches: list[ReachLine]) -> dict[str, Any]:
    """What a reader wants first: the distilled model, the best baseline, and the one that reaches its AUC cheapest.

    Returns:
        `distilled`, `central`, `best` (by final AUC) and `private` (the best under a budget, or None) as lines, `cheapest`
        as a reach line or None where no baseline reaches the AUC.
    """
    distilled = next(line for line in shown if line.kind == "distilled")
    baselines = sorted((line for line in shown if line.kind == "federated"), key=lambda line: -line.roc_auc.mean)
    reached = [r for r in reaches if r.distilled == distilled.name and r.client_bytes is not None]
    return {
        "distilled": distilled,
        "best": baselines[0],
        "private": next((line for line in baselines if line.epsilon is not None), None),
        "cheapest": min(reached, key=lambda r: r.client_bytes or 0.0, default=None),
        "central": next(line for line in shown if line.kind == "central"),
    }


def readable_figure(figure: Any, digits: int = 4) -> str:
    """A mean, with its spread where there is one."""
    return f"{figure.mean:.{digits}f}" + ("" if figure.spread is None else f" ± {figure.spread:.{digits}f}")
