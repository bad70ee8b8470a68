"""The model card with the contribution report: one HTML file that needs nothing beside it, for those who decide on a model's use.

It is drawn from the model card alone, so a saved model can be reported again. Names in bundles are other people's text:
the template escapes all of it, and figures are embedded as images, which run nothing.
"""

from collections.abc import Sequence

from distill.common.report_style import PALETTE
from server_train.models.cards import NumberCurves
from server_train.models.model import ModelCard
from server_train.reports import model_figures as figures
from server_train.reports.contribution_terms import SHARES, Term, terms_of
from server_train.reports.formatting import readable_percent, readable_term, templates

TEMPLATE = "report.html"
KINDS = {
    "mlp": "neural network (multi-layer perceptron)",
    "logistic": "logistic regression",
    "boosting": "model of boosted trees",
}
BYTES_A_NUMBER = 4  # as federated averaging sends a network's parameters


def render_report(card: ModelCard) -> str:
    """The report as HTML text."""
    shown = terms_of(card.institutions)
    return (
        templates()
        .get_template(TEMPLATE)
        .render(
            card=card,
            kind=KINDS[card.kind],
            schema=card.schema_,
            classes=list(card.outputs),
            training=card.training,
            members=card.institutions,
            privacy=card.privacy,
            palette=PALETTE,
            total_bytes=sum(m.bytes for m in card.institutions),
            round_bytes=2 * BYTES_A_NUMBER * card.training.parameters,
            terms=shown,
            figures=all_figures(card, shown),
        )
    )


def all_figures(card: ModelCard, shown: Sequence[Term]) -> dict[str, str]:
    """By name, those for which the card holds anything to draw."""
    training, names = card.training, [f"{card.schema_.target} = {c}" for c in card.outputs]
    found = {"weights": figures.weights(card.institutions, readable_percent)}
    others = [t for t in shown if t.name not in SHARES]
    if others:
        found["terms"] = figures.terms(card.institutions, others, readable_term)
    if training.curve:
        found["curve"] = figures.learning_curve(training)
    curves = training.held_out.curves
    if isinstance(curves, NumberCurves):
        found |= {"calibration": figures.numbers(curves), "errors": figures.errors(curves)}
    elif curves:
        drawn = {"roc": figures.roc, "calibration": figures.calibration, "scores": figures.scores}
        found |= {name: draw(curves, names) for name, draw in drawn.items()}
    return found
