import re

import numpy as np
import pytest

from distill.data.schema import Schema
from server_train.evaluation.held_out_curves import class_curves, number_curves
from server_train.models.cards import HeldOut, TrainingCard
from server_train.models.number_target import TargetBins
from server_train.reports.contribution_terms import KNOWN, reasons_of, terms_in, terms_of
from server_train.reports.formatting import (
    readable_bytes,
    readable_column,
    readable_number,
    readable_percent,
    readable_term,
    readable_tiny,
    short,
)
from server_train.reports.model_figures import learning_curve, terms, weights
from server_train.reports.model_report import render_report
from tests.fakes.hubs import BINARY, TERNARY
from tests.fakes.registries import card, institution


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (52_345, "52.3 kB"), (1_400_000, "1.4 MB")])
def test_bytes_read_well(count, text):
    assert readable_bytes(count) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0004, "< 0.1 %"), (0.034, "3.4 %"), (0.0996, "10 %"), (0.5, "50 %"), (1, "100 %")],
)
def test_shares_read_well(share, text):
    assert readable_percent(share) == text


def test_numbers_read_well():
    assert readable_number(1234567) == "1,234,567"
    assert readable_number(0.12345, 3) == "0.123"
    assert readable_number(None) == "–"
    assert [readable_tiny(d) for d in (0.0, 1e-5, 3.21e-10)] == ["0", "1e-5", "3.2e-10"]
    assert short("a" * 64) == "aaaaaaaaaaaa…"


def test_figures_are_repeatable_images():
    training = TrainingCard(curve=[(1, 0.6, 0.5), (2, 0.4, 0.41)], best_epoch=2, loss_floor=0.3)
    assert learning_curve(training) == learning_curve(training)
    short_one = TrainingCard(curve=[(1, 0.6, 0.5)], best_epoch=1, loss_floor=0.3)
    assert learning_curve(short_one).startswith("data:image/svg+xml;base64,")


def test_a_name_is_never_read_as_a_formula():
    member = institution("Bank $\\frac{1}{0}$ of a very long name indeed", head_share=0.0)
    assert weights([member], readable_percent).startswith("data:image/svg+xml;base64,")


def with_curves(made, chances, labels):
    return with_held_out(made, made.training.held_out.model_copy(update={"curves": class_curves(labels, chances)}))


def with_held_out(made, held_out):
    training = made.training.model_copy(update={"held_out": held_out})
    return made.model_copy(update={"training": training})


def text_of(html):
    """What a reader sees: no style, no tags."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_card_has_all_that_a_committee_asks_for():
    rng = np.random.default_rng(0)
    chances = rng.dirichlet([1, 1], 200)
    html = render_report(with_curves(card(), chances, rng.integers(0, 2, 200)))
    text = text_of(html)
    for asked in (
        "Purpose, and limits of use", "Where the data came from", "Privacy across institutions", "Bytes on the wire",
        "What each institution contributes", "These figures are about synthetic rows", "What is not known", "Fairness",
        "Provenance", "Decision", "signature", "ROC-AUC 0.7500", "calibration error", "a" * 64, "b" * 64, "c" * 64, "e" * 64,
    ):  # fmt: skip
        assert asked in text, asked
    assert html.count("data:image/svg+xml;base64,") == 6  # shares, terms, learning, ranking, calibration, scores
    for outside in ("http://", "https://", "<script", 'src="/', "@import", "url("):
        assert outside not in html
    anchors = set(re.findall(r'href="#(\w+)"', html))
    assert anchors == set(re.findall(r'<section id="(\w+)"', html))


def test_a_card_without_curves_is_reported_without_their_figures():
    html = render_report(card())
    assert html.count("data:image/svg+xml;base64,") == 3
    assert "calibration error" not in html


def test_three_classes_and_names_that_play_tricks_are_shown_as_text():
    rng = np.random.default_rng(0)
    tricky = TERNARY.model_copy(
        update={
            "columns": (
                *TERNARY.columns[:-1],
                TERNARY.columns[-1].model_copy(update={"categories": ("_a", "$b$", "<i>")}),
            )
        }
    )
    members = [institution("<script>x</script>", class_prior=[0.2, 0.3, 0.5], reasons=["<b>no</b> head", "$x$"])]
    made = card(schema=tricky, members=members)
    html = render_report(with_curves(made, rng.dirichlet([1, 1, 1], 90), rng.integers(0, 3, 90)))
    assert "<script" not in html
    assert "&lt;b&gt;no&lt;/b&gt; head · $x$" in html


def test_a_target_that_is_a_number_has_figures_of_its_own():
    number = {"name": "loss", "kind": "continuous", "min": 0, "max": 10}
    schema = Schema.model_validate(
        {"name": "claims", "target": "loss", "columns": [BINARY.columns[1].model_dump(), number]}
    )
    truth = np.linspace(0, 10, 100)
    held_out = HeldOut(rows=100, rmse=1.0, mae=0.5, r2=0.7, curves=number_curves(truth, truth + 0.1))
    bins = TargetBins(starts=(0, 1), masses=(0.5, 0.5), bin_of_piece=(0, 1))
    made = card(schema=schema, target_bins=bins)
    text = text_of(render_report(with_held_out(made, held_out)))
    assert "R² 0.7000" in text
    assert "expected value of loss" in text


def test_every_number_of_an_institution_is_a_term_known_or_not():
    members = [
        institution(agreement=0.5, novelty=3.25, nested={"depth": 2}),
        institution("birch", agreement=None, odd=None),
    ]
    found = terms_of(members)
    assert [t.name for t in found] == [
        "noisy_rows", "label_balance", "head_information", "agreement", "row_share", "head_share", "novelty", "depth"
    ]  # fmt: skip
    assert [readable_term(terms_in(members[0])[t.name], t) for t in found][3:] == ["0.5", "100 %", "100 %", "3.25", "2"]
    assert readable_term(terms_in(members[1]).get("agreement"), KNOWN["agreement"]) == "–"
    assert terms(members, found, readable_term).startswith("data:image/svg+xml;base64,")
    text = text_of(render_report(card(members=members)))
    assert "novelty" in text
    assert "depth" in text


def test_reasons_are_shown_beside_their_institution():
    member = institution(reasons=["its class head says the opposite"])
    assert reasons_of(member) == ["its class head says the opposite"]
    assert reasons_of(institution()) == []
    assert "its class head says the opposite" in text_of(render_report(card(members=[member])))


def test_columns_read_well():
    assert [readable_column(c) for c in BINARY.columns[:3]] == [
        "continuous, 0 to 1000", "integer, 18 to 100", "one of north, south, east"
    ]  # fmt: skip
    many = BINARY.columns[2].model_copy(update={"categories": tuple("abcdefgh"), "other": True})
    assert readable_column(many) == "one of a, b, c, d, e, f … 8 in all, or another"
