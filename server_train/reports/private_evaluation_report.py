"""The page of a released evaluation: everything on it follows from the noisy table, so it may be published with it."""

from typing import Any

import numpy as np

from distill.common.report_style import INK, MUTED, PALETTE, data_uri, empty_figure
from distill.exchange.noisy_scores import Block, Law, NoisyBlock, roc_points
from server_train.reports.formatting import templates

TEMPLATE = "private_evaluation.html"
TEAL, AMBER = PALETTE[:2]
LEGEND = {"frameon": False, "fontsize": 8.5, "labelcolor": INK}
FIGURES = {"roc_auc": "ROC-AUC", "accuracy": "accuracy", "brier": "Brier (binned)", "base_rate": "base rate"}
RATES = {
    "selection_rate": "selection rate",
    "true_positive_rate": "true positive rate",
    "false_positive_rate": "false positive rate",
    "cost_a_row": "cost a row",
}


def render_private_evaluation(document: dict[str, Any]) -> str:
    """The page as HTML text, from the released document alone."""
    figures = document["figures"]
    at = figures.get("at_threshold", {})
    lines = [(text, figures[name]) for name, text in FIGURES.items() if name in figures]
    lines += [(f"ROC-AUC of {name}", found) for name, found in figures.get("per_class_auc", {}).items()]
    lines += [(f"{text} at {at['threshold']:.4g}", at[name]) for name, text in RATES.items() if name in at]
    blocks = [_block(raw, document["noise"]) for raw in document["table"]]
    return (
        templates()
        .get_template(TEMPLATE)
        .render(
            document=document,
            figures=figures,
            lines=lines,
            at=at,
            roc=roc(blocks[:1] if len(blocks) == 1 else blocks[:-1]),
            calibration=calibration(figures["calibration"]),
        )
    )


def roc(blocks: list[NoisyBlock]) -> str:
    """The noisy ROC curve of each class, as a data URI."""
    figure, axes = empty_figure(5.2, 3.9)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.1, ls=(0, (4, 3)), label="by chance")
    for noisy, colour in zip([b for b in blocks if b.clear(np.s_[:1, :], np.s_[1:, :])][:6], PALETTE, strict=False):
        false, true = zip(*roc_points(noisy), strict=True)
        name = noisy.block.name.replace("$", r"\$")
        axes.plot(false, true, "o-", color=colour, lw=1.8, ms=3.5, label=name)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.legend(loc="lower right", **LEGEND)
    return data_uri(figure, "private roc")


def calibration(lines: list[dict[str, Any]]) -> str:
    """Observed shares against scores, with the interval of noise and customers, as a data URI."""
    figure, axes = empty_figure(5.2, 3.9)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.1, ls=(0, (4, 3)), label="scores are chances")
    names = list(dict.fromkeys(line["of"] for line in lines))
    for name, colour in zip(names[:6], PALETTE, strict=False):
        own = [line for line in lines if line["of"] == name]
        x, y = [line["predicted"] for line in own], [line["observed"]["value"] for line in own]
        low, high = zip(*(line["observed"]["interval_customers"] for line in own), strict=True)
        axes.vlines(x, low, high, color=colour, lw=1.4, alpha=0.55)
        axes.plot(x, y, "o", color=colour, ms=5.5, mec="white", mew=0.8, label=name.replace("$", r"\$"))
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_xlabel("score of the bin")
    axes.set_ylabel("observed share (noisy)")
    axes.legend(loc="upper left", **LEGEND)
    return data_uri(figure, "private calibration")


def _block(raw: dict[str, Any], noise: dict[str, Any]) -> NoisyBlock:
    """A block of the document."""
    block = Block(**{name: raw[name] for name in ("edges", "middles", "wins", "losses")}, name=raw["of"])
    law: Law = "laplace" if "laplace" in noise["law"] else "gaussian"
    return NoisyBlock(block, np.array([raw["others"], raw["rows"]]), law, noise["scale"])
