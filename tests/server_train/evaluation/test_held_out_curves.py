import numpy as np
import pytest

from server_train.evaluation.held_out_curves import MOST_CLASSES, class_curves, number_curves
from server_train.models.cards import Roc
from server_train.reports.formatting import calibration_error


def drawn(rows=20_000):
    rng = np.random.default_rng(0)
    chance = rng.beta(1, 3, rows)
    return (rng.random(rows) < chance).astype(int), np.stack([1 - chance, chance], axis=1)


def test_chances_that_mean_what_they_say_lie_on_the_line():
    labels, chances = drawn()
    (curve,) = class_curves(labels, chances)
    tenths = curve.calibration
    assert curve.number == 1
    assert tenths.rows == [2000] * 10
    assert tenths.predicted == sorted(tenths.predicted)
    assert tenths.observed == pytest.approx(tenths.predicted, abs=0.06)  # five standard errors of 2000 rows
    assert calibration_error([curve]) < 0.02
    (wrong,) = class_curves(labels, chances[:, ::-1])
    assert calibration_error([wrong]) > 0.3


def test_the_roc_is_that_of_the_library_on_a_grid():
    from sklearn.metrics import roc_auc_score

    labels, chances = drawn()
    (curve,) = class_curves(labels, chances)
    area = np.trapezoid(curve.roc.true, curve.roc.false)
    assert area == pytest.approx(roc_auc_score(labels, chances[:, 1]), abs=1e-3)


def test_every_row_is_in_one_bar_of_its_class():
    labels, chances = drawn()
    (curve,) = class_curves(labels, chances)
    assert (sum(curve.scores.this), sum(curve.scores.rest)) == (labels.sum(), (1 - labels).sum())
    assert curve.scores.rest[0] > curve.scores.this[0]


def test_a_side_without_rows_has_no_roc():
    (curve,) = class_curves(np.zeros(5, dtype=int), np.full((5, 2), 0.5))
    assert curve.roc == Roc(false=[], true=[])
    assert sum(curve.calibration.rows) == 5


def test_of_many_classes_the_first_ones_have_curves():
    chances = np.full((40, 12), 1 / 12)
    assert [c.number for c in class_curves(np.arange(40) % 12, chances)] == list(range(MOST_CLASSES))


def test_numbers_have_tenths_and_errors():
    rng = np.random.default_rng(0)
    truth = rng.normal(10, 3, 5000)
    curves = number_curves(truth, truth + rng.normal(0, 0.1, 5000))
    assert curves.calibration.observed == pytest.approx(curves.calibration.predicted, abs=0.05)
    assert 0.98 * 5000 <= sum(curves.errors.rows) <= 5000
    exact = number_curves(np.ones(20), np.ones(20))
    assert sum(exact.errors.rows) == 20
