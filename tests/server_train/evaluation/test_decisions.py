import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference

from distill.errors import ConfigError
from server_train.evaluation.decisions import Costs, cheapest_threshold, confusion_matrix, cost_curve, decide

TRUTH = np.array([0, 0, 1, 0, 1, 1])
SCORES = np.array([0.1, 0.4, 0.35, 0.5, 0.8, 0.9])


def test_a_score_at_the_threshold_is_taken():
    found = decide(TRUTH, SCORES, 0.5)
    assert (found.true_positives, found.false_positives, found.false_negatives, found.true_negatives) == (2, 1, 1, 2)
    assert (found.selection_rate, found.accuracy) == (0.5, pytest.approx(4 / 6))
    assert (found.true_positive_rate, found.false_positive_rate) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert found.precision == pytest.approx(2 / 3)
    assert found.cost_a_row is None


def test_rates_of_nothing_are_none():
    found = decide(np.zeros(3, int), np.full(3, 0.2), 0.9)
    assert (found.true_positive_rate, found.precision) == (None, None)


def test_costs_call_for_the_threshold_of_their_ratio():
    assert Costs(false_positive=1, false_negative=4).threshold == 0.2
    assert decide(TRUTH, SCORES, 0.5, Costs(false_positive=3, false_negative=9)).cost_a_row == pytest.approx(12 / 6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ratio", [0.1, 1.0, 7.0])
def test_the_cheapest_threshold_is_the_cheapest_of_all(seed, ratio):
    """Against brute force over every threshold that matters."""
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, 2, 60), rng.random(60).round(1)
    costs = Costs(false_positive=1.0, false_negative=ratio)
    least = min(decide(truth, scores, t, costs).cost_a_row for t in [0, *(np.arange(0, 11) / 10 + 0.05)])
    found = cheapest_threshold(truth, scores, costs)
    assert decide(truth, scores, found, costs).cost_a_row == pytest.approx(least)
    for threshold, cost in zip(*cost_curve(truth, scores, costs), strict=True):
        assert decide(truth, scores, threshold, costs).cost_a_row == pytest.approx(cost)


def test_calibrated_scores_are_cheapest_near_the_threshold_of_the_costs():
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    truth = (rng.random(200_000) < scores).astype(int)
    assert cheapest_threshold(truth, scores, Costs(false_positive=1, false_negative=3)) == pytest.approx(0.25, abs=0.03)


def test_the_confusion_matrix_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, taken = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    assert confusion_matrix(labels, taken, 4) == reference(labels, taken).tolist()


@pytest.mark.parametrize("cost", [0, -1, float("inf"), float("nan")])
def test_senseless_costs_are_refused(cost):
    with pytest.raises(ConfigError, match="false_negative"):
        Costs(false_positive=1, false_negative=cost)
