"""Cards as classes: what a file says comes back byte for byte, whatever version wrote it."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from server_train.models.cards import HeldOut, InstitutionCard, TrainingCard
from server_train.models.model import ModelCard
from server_train.registry.version import record_of
from tests.fakes.registries import card, institution

CARDS = Path(__file__).parents[2] / "assets" / "cards"


def written(read: ModelCard) -> str:
    """As `model.json` holds it."""
    return json.dumps(read.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", ["classes.json", "number.json", "older.json", "federated.json"])
def test_a_card_comes_back_byte_for_byte(name):
    """Written before cards had fields: two kinds of target, one without terms, one of a federated training."""
    text = (CARDS / name).read_text("utf-8")
    assert written(ModelCard.model_validate(json.loads(text))) == text


def test_an_older_card_without_terms_is_read_and_its_record_is_as_it_was():
    text = json.loads((CARDS / "older.json").read_text("utf-8"))
    read = ModelCard.model_validate(text)
    assert [(m.weight, m.direction, m.reasons) for m in read.institutions] == [(None, None, [])] * 2
    kept = [i.model_dump() for i in record_of(read, {}).inputs]
    assert kept == text["institutions"]


def test_a_card_without_readings_of_the_budgets_has_none():
    read = ModelCard.model_validate(json.loads((CARDS / "federated.json").read_text("utf-8")))
    assert read.privacy is None
    assert read.training.model_extra["rounds"] == 3


def test_whole_numbers_and_unknown_entries_stay_as_they_are():
    plain = {"rows": 5, "seconds": 1, "class_prior": [1, 0.5], "novelty": {"depth": 2}}
    read = TrainingCard.model_validate(plain)
    assert json.dumps(read.model_dump(mode="json")) == json.dumps(plain)
    assert dict(read.entries()) == plain


def test_numbers_that_json_lacks_are_written_as_null_and_read_again():
    made = card(members=[institution(head_information=float("inf"))])
    again = ModelCard.model_validate(json.loads(written(made)))
    assert again.institutions[0].head_information is None


def test_an_institution_without_a_budget_is_no_institution():
    plain = institution().model_dump(mode="json")
    del plain["epsilon"]
    with pytest.raises(ValidationError, match="epsilon"):
        InstitutionCard.model_validate(plain)


@pytest.mark.parametrize(
    ("found", "headline"),
    [
        ({"roc_auc": 0.7}, ("roc_auc", 0.7)),
        ({"r2": 0.4}, ("r2", 0.4)),
        ({"roc_auc": None}, ("roc_auc", None)),
        ({}, ("", None)),
    ],
)
def test_the_headline_is_the_one_figure_there_is(found, headline):
    assert HeldOut(**found).headline == headline
