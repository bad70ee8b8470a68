import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from server_train.evaluation.reliability import calibration_of, reliability_curve, wilson


def scored(rows=20_000, sharpen=1.0, shift=0.0, seed=0):
    """Labels drawn from true chances, and scores whose log-odds are those times `sharpen` plus `shift`."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 1.5, rows)
    truth = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(int)
    return truth, 1 / (1 + np.exp(-(odds * sharpen + shift)))


def test_calibrated_scores_have_slope_one_and_no_intercept():
    found = calibration_of(*scored())
    assert found.slope == pytest.approx(1, abs=0.08)
    assert found.intercept == pytest.approx(0, abs=0.1)
    assert found.expected_calibration_error < 0.02


def test_scores_that_are_too_extreme_or_too_high_show_it():
    assert calibration_of(*scored(sharpen=2.0)).slope == pytest.approx(0.5, abs=0.05)
    shifted = calibration_of(*scored(shift=1.0))
    assert shifted.intercept == pytest.approx(-1, abs=0.1)
    assert shifted.expected_calibration_error > 0.1


def test_the_slope_is_that_of_a_logistic_regression():
    truth, scores = scored(rows=3000, sharpen=1.7, shift=0.4)
    odds = np.log(scores / (1 - scores))[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(odds, truth)
    assert calibration_of(truth, scores).slope == pytest.approx(fitted.coef_[0, 0], rel=1e-5)


def test_the_error_is_the_weighted_gap_of_bins_of_equal_size():
    truth = np.array([0, 0, 1, 0, 1, 1, 1, 0])
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    found = calibration_of(truth, scores, bins=2)
    assert [b.rows for b in found.bins] == [4, 4]
    assert found.expected_calibration_error == pytest.approx((abs(0.25 - 0.25) + abs(0.75 - 0.75)) / 2)
    assert calibration_of(1 - truth, scores, bins=2).expected_calibration_error == pytest.approx(0.5)


def test_rows_of_one_score_stay_together_and_every_row_is_in_a_bin():
    truth, scores = scored(rows=1000)
    ties = np.round(scores, 1)
    bins = reliability_curve(truth, ties)
    assert sum(b.rows for b in bins) == 1000
    assert all(a.high < b.low for a, b in itertools.pairwise(bins))


@pytest.mark.parametrize(
    ("truth", "scores"),
    [
        (np.zeros(5, int), np.linspace(0.1, 0.9, 5)),  # one class
        (np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])),  # separated
        (np.array([0, 1, 0, 1]), np.full(4, 0.5)),  # all alike
    ],
)
def test_a_slope_that_is_not_determined_is_none(truth, scores):
    assert calibration_of(truth, scores).slope is None


def test_scores_of_zero_and_one_are_survived():
    found = calibration_of(np.array([0, 1, 1, 0, 1]), np.array([0.0, 1.0, 0.0, 1.0, 0.5]))
    assert np.isfinite(found.expected_calibration_error)


def test_the_wilson_interval_is_the_published_one():
    """Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857), table I: 81 of 263."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
