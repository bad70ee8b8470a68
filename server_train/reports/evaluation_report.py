"""The report of one evaluation on real rows: one HTML file that needs nothing beside it, and stays in the house."""

from server_train.evaluation.assessment import Assessment
from server_train.evaluation.decisions import Decision
from server_train.evaluation.groups import LEAST_OF_CLASS, LEAST_ROWS
from server_train.evaluation.metrics import RELEASE_WORD
from server_train.models.model import ModelCard
from server_train.reports.evaluation_figures import class_figures, groups, number_figures
from server_train.reports.formatting import templates

TEMPLATE = "evaluation.html"
DECISIONS = {
    "in_force": "in force",
    "by_costs": "by the costs: c_fp / (c_fp + c_fn)",
    "cheapest_here": "cheapest on these rows",
}


def render_evaluation(found: Assessment, card: ModelCard) -> str:
    """The report as HTML text. Names of columns, classes and groups are other people's text and are escaped."""
    many, number = len(found.classes) > 2, not found.classes
    return (
        templates()
        .get_template(TEMPLATE)
        .render(
            found=found,
            figures=found.figures,
            card=card,
            many=many,
            number_target=number,
            decisions=_decisions(found),
            names=DECISIONS,
            plots=number_figures(found) if number else class_figures(found),
            slices=[(s, "" if many or number else groups(s)) for s in found.slices],
            word=RELEASE_WORD,
            least_rows=LEAST_ROWS,
            least_of_class=LEAST_OF_CLASS,
        )
    )


def _decisions(found: Assessment) -> dict[str, Decision]:
    """Those that differ: where the costs decide, the threshold in force is theirs."""
    shown = dict(found.decisions)
    if "by_costs" in shown and shown["by_costs"].threshold == shown["in_force"].threshold:
        del shown["by_costs"]
    return shown
