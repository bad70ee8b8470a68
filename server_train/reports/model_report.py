"""The model card with the contribution report: one HTML file that needs nothing beside it, for those who decide on a model's use.

It is drawn from the model card alone, so a saved model can be reported again. Names in bundles are other people's text:
the template escapes all of it, and figures are embedded as images, which run nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment

from distill.common.report_style import PALETTE, templates_of
from distill.data.schema import Column
from server_train.models.model import ModelCard
from server_train.reports import model_figures as figures
from server_train.reports.contribution_terms import SHARES, Term, reasons_of, terms_in, terms_of

TEMPLATE = "report.html"
KINDS = {
    "mlp": "neural network (multi-layer perceptron)",
    "logistic": "logistic regression",
    "boosting": "model of boosted trees",
}
BYTES_A_NUMBER = 4  # as federated averaging sends a network's parameters
MOST_CATEGORIES = 6  # of a column, listed by name


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
            total_bytes=sum(int(m["bytes"]) for m in card.institutions),
            round_bytes=2 * BYTES_A_NUMBER * int(card.training["parameters"]),
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
    if training.get("curve"):
        found["curve"] = figures.learning_curve(training)
    curves = training["held_out"].get("curves")
    if curves and card.schema_.task == "number":
        found |= {"calibration": figures.numbers(curves), "errors": figures.errors(curves)}
    elif curves:
        drawn = {"roc": figures.roc, "calibration": figures.calibration, "scores": figures.scores}
        found |= {name: draw(curves, names) for name, draw in drawn.items()}
    return found


def calibration_error(curves: Sequence[Mapping[str, Any]]) -> float:
    """Mean distance of frequency from predicted chance, over tenths of the rows and the classes that have a curve."""
    tenths = [c["calibration"] for c in curves]
    gaps = [abs(p - o) * n for t in tenths for p, o, n in zip(t["predicted"], t["observed"], t["rows"], strict=True)]
    return float(sum(gaps) / sum(n for t in tenths for n in t["rows"]))


def templates() -> Environment:
    """The templates of all reports of the hub."""
    return templates_of(
        __package__,
        size=readable_bytes,
        number=readable_number,
        percent=readable_percent,
        tiny=readable_tiny,
        short=short,
        term=readable_term,
        terms_in=terms_in,
        reasons=reasons_of,
        calibration_error=calibration_error,
        column=readable_column,
        zip=zip,
    )


def readable_bytes(count: float) -> str:
    """Bytes as 812 B, 52.3 kB or 1.4 MB."""
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def readable_number(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def readable_percent(share: float) -> str:
    """A share in per cent: one digit below 10 %, and small ones that are not zero stay visible."""
    if share == 0:
        return "0 %"
    if share < 0.001:
        return "< 0.1 %"
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"


def readable_tiny(value: float) -> str:
    """A delta as 1e-5 or 3.2e-6."""
    if value <= 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def short(digest: str) -> str:
    """The first twelve digits of a digest or key."""
    return digest[:12] + "…" if len(digest) > 12 else digest


def readable_term(value: float | None, term: Term) -> str:
    """A term's value in its own form; a dash for none."""
    if value is None or term.form == "count":
        return readable_number(value)
    return readable_percent(value) if term.form == "share" and 0 <= value <= 1 else f"{value:.3g}"


def readable_column(column: Column) -> str:
    """What values a column takes, in a few words."""
    if column.kind != "categorical":
        return f"{column.kind}, {column.min:g} to {column.max:g}"
    names = [str(c) for c in column.categories or ()]
    more = f" … {len(names)} in all" if len(names) > MOST_CATEGORIES else ""
    return f"one of {', '.join(names[:MOST_CATEGORIES])}{more}{', or another' if column.other else ''}"
