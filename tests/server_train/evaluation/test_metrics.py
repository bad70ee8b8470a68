import numpy as np
import pytest
from sklearn import metrics

from distill.errors import DataError
from server_train.evaluation.metrics import evaluate_scores


def random_scores(classes, rows=500, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(classes), rows)
    labels = np.array([rng.choice(classes, p=p) for p in scores])
    return labels, scores


def test_two_classes_agree_with_scikit_learn():
    labels, scores = random_scores(2)
    got = evaluate_scores(labels, scores, ["no", "yes"])
    assert got.roc_auc == pytest.approx(metrics.roc_auc_score(labels, scores[:, 1]))
    assert got.average_precision == pytest.approx(metrics.average_precision_score(labels, scores[:, 1]))
    assert got.brier == pytest.approx(metrics.brier_score_loss(labels, scores[:, 1]))
    assert got.log_loss == pytest.approx(metrics.log_loss(labels, scores))
    assert got.accuracy == pytest.approx(metrics.accuracy_score(labels, scores.argmax(axis=1)))


def test_three_classes_agree_with_scikit_learn_one_versus_rest():
    labels, scores = random_scores(3)
    got = evaluate_scores(labels, scores, ["a", "b", "c"])
    assert got.roc_auc == pytest.approx(metrics.roc_auc_score(labels, scores, multi_class="ovr", average="macro"))
    assert got.log_loss == pytest.approx(metrics.log_loss(labels, scores))
    assert len(got.per_class_auc) == 3


def test_ks_is_the_largest_gap_between_the_two_distributions():
    labels = np.array([0, 0, 0, 1, 1, 1])
    score = np.array([0.1, 0.2, 0.6, 0.5, 0.8, 0.9])
    got = evaluate_scores(labels, np.column_stack([1 - score, score]), [0, 1])
    assert got.ks == pytest.approx(2 / 3)
    assert got.roc_auc == pytest.approx(8 / 9)


def test_figures_that_the_rows_cannot_give_are_none():
    labels, scores = random_scores(2)
    got = evaluate_scores(np.zeros_like(labels), scores, [0, 1])
    assert (got.roc_auc, got.average_precision, got.ks) == (None, None, None)
    assert got.log_loss > 0


def test_a_class_without_rows_is_left_out_of_the_mean():
    labels, scores = random_scores(3)
    kept = labels < 2
    got = evaluate_scores(labels[kept], scores[kept], ["a", "b", "c"])
    assert got.per_class_auc[2] is None
    assert got.roc_auc == pytest.approx(np.mean(got.per_class_auc[:2]))


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        evaluate_scores(np.array([], dtype=int), np.zeros((0, 2)), [0, 1])
