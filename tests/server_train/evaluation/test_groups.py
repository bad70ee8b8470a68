"""Groups by a column, and how a model treats them."""

import numpy as np
import pandas as pd
import pytest

from distill.errors import ConfigError
from server_train.evaluation.fairness import slice_many_classes, slice_numbers, slice_two_classes
from server_train.evaluation.groups import JOINED, LEAST_ROWS, Grouping, group_by_column, group_by_text
from server_train.evaluation.metrics import evaluate_scores
from tests.fakes.hubs import BINARY

REGION, AGE, INCOME, GRADE = (BINARY.column(name) for name in ("region", "age", "income", "grade"))


def members(found: Grouping) -> dict[str, int]:
    return dict(zip(found.names, np.bincount(found.codes).tolist(), strict=True))


def test_categories_are_groups_and_small_ones_are_joined():
    values = pd.Series(["north"] * 50 + ["south"] * 20 + [None] * 15 + ["east"] * 40, dtype=object)
    found = group_by_column(REGION, values)
    assert members(found) == {"north": 50, "east": 40, JOINED: 35}
    assert set(found.joined) == {"south", "(missing)"}


def test_one_small_group_keeps_its_name():
    found = group_by_column(REGION, pd.Series(["north"] * 50 + ["south"] * 20, dtype=object))
    assert members(found) == {"north": 50, "south": 20}


def test_numbers_are_cut_into_quarters_of_the_rows_or_of_the_bounds():
    values = pd.Series(np.arange(400) / 4 + 0.25)  # 0.25 to 100 of bounds 0 to 1000
    quarters = group_by_column(INCOME, values)
    assert list(members(quarters).values()) == [100] * 4
    assert members(group_by_column(INCOME, values, bins="bounds")) == {"below 250": 400}
    ages = pd.Series(np.repeat([20, 40, 60, 90], 50))
    assert members(group_by_column(AGE, ages)) == {"20": 50, "40": 50, "60": 50, "90": 50}
    assert members(group_by_column(AGE, ages, bins="bounds")) == {
        "below 38.5": 50, "38.5 to below 59": 50, "59 to below 79.5": 50, "79.5 and above": 50,
    }  # fmt: skip


def test_missing_numbers_are_a_group():
    values = pd.Series([np.nan] * 40 + list(range(1, 201)), dtype=float)
    assert members(group_by_column(INCOME, values))["(missing)"] == 40


def test_columns_beside_the_schema_are_grouped_by_their_texts():
    found = group_by_text("sex", ["f"] * 60 + ["m"] * 50 + [""] * 40)
    assert members(found) == {"(missing)": 40, "f": 60, "m": 50}
    numbers = group_by_text("score", [str(i) for i in range(200)])
    assert len(numbers.names) == 4
    with pytest.raises(ConfigError, match="more than 100 different texts"):
        group_by_text("name", [f"n{i}" for i in range(200)])


def grouping(*sizes: int) -> Grouping:
    names = tuple(f"g{i}" for i in range(len(sizes)))
    return Grouping("column", names, np.repeat(np.arange(len(sizes)), sizes), ())


def test_rates_and_differences_are_those_of_the_groups():
    truth = np.array([1] * 20 + [0] * 20 + [1] * 10 + [0] * 30)
    scores = np.array([0.9] * 15 + [0.1] * 5 + [0.8] * 5 + [0.2] * 15 + [0.7] * 4 + [0.3] * 6 + [0.6] * 6 + [0.4] * 24)
    found = slice_two_classes(grouping(40, 40), truth, scores, 0.5)
    one, two = found.groups
    assert (one["base_rate"], one["selection_rate"], one["true_positive_rate"]) == (0.5, 0.5, 0.75)
    assert (two["base_rate"], two["selection_rate"], two["true_positive_rate"]) == (0.25, 0.25, 0.4)
    assert (one["false_positive_rate"], two["false_positive_rate"]) == (0.25, 0.2)
    inside = np.stack([1 - scores[:40], scores[:40]], axis=1)
    assert one["roc_auc"] == evaluate_scores(truth[:40], inside, ["0", "1"]).roc_auc
    assert found.differences["demographic_parity_difference"] == 0.25
    assert found.differences["demographic_parity_ratio"] == 0.5
    assert found.differences["equal_opportunity_difference"] == pytest.approx(0.35)
    assert found.differences["false_positive_rate_difference"] == pytest.approx(0.05)


def test_a_group_too_small_is_shown_and_takes_no_part():
    truth, scores = np.array([1, 0] * 45), np.tile([0.9, 0.1], 45)
    scores[-20:] = 0.9  # all of the small group are selected
    found = slice_two_classes(grouping(35, 35, 20), truth, scores, 0.5)
    assert [g["compared"] for g in found.groups] == [True, True, False]
    assert found.groups[2]["selection_rate"] == 1.0
    assert found.differences["demographic_parity_difference"] < 0.1
    assert any(f"fewer than {LEAST_ROWS} rows" in note for note in found.notes)


def test_rates_of_a_class_need_rows_of_it():
    truth = np.array([1] * 20 + [0] * 20 + [1] * 2 + [0] * 38)
    scores = np.where(truth == 1, 0.9, 0.1)
    scores[40:42] = 0.1  # the two positives of the second group are missed
    found = slice_two_classes(grouping(40, 40), truth, scores, 0.5)
    assert found.groups[1]["true_positive_rate"] == 0.0
    assert found.differences["equal_opportunity_difference"] is None
    assert any("at least 10 rows of the class" in note for note in found.notes)


def test_three_classes_are_compared_one_against_the_rest():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    chances = np.full((200, 3), 0.1)
    chances[np.arange(200), labels] = 0.8
    chances[100:] = [0.8, 0.1, 0.1]  # in the second group everybody is taken for the first class
    found = slice_many_classes(grouping(100, 100), labels, chances, ["a", "b", "c"])
    assert found.differences["a"]["demographic_parity_difference"] == pytest.approx(1 - (labels[:100] == 0).mean())
    assert found.differences["b"]["equal_opportunity_difference"] == 1.0
    assert found.differences["accuracy_difference"] == pytest.approx(1 - (labels[100:] == 0).mean())


def test_numbers_are_compared_by_their_errors():
    truth, predicted = np.zeros(80), np.append(np.full(40, 1.0), np.full(40, -2.0))
    found = slice_numbers(grouping(40, 40), truth, predicted)
    assert [g["mean_error"] for g in found.groups] == [1.0, -2.0]
    assert found.differences == {"mean_error_difference": 3.0, "rmse_difference": 1.0, "mae_difference": 1.0}
