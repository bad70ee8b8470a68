"""Curves on held-out rows for the model card: ROC, calibration, how scores are spread; small enough to be stored in it.

Stored, so that a saved card can be reported again. Held-out rows are synthetic: the curves say how well the network learnt what
the bundles say.
"""

import numpy as np

from server_train.models.cards import ClassCurves, ErrorCounts, Number, NumberCurves, Roc, ScoreCounts, Tenths

ROC_POINTS = 101
BINS = 10  # of calibration: equally many rows each
SCORE_BINS = 40
MOST_CLASSES = 8  # with curves of their own


def class_curves(labels: np.ndarray, probabilities: np.ndarray) -> list[ClassCurves]:
    """For each class against the rest (of two classes the last one only; of many the first ones): its curves.

    Args:
        labels: Index of the right class of each row, shape (rows,).
        probabilities: Of each class, shape (rows, classes).

    Returns:
        The curves of each class that is shown.
    """
    classes = probabilities.shape[1]
    shown = [1] if classes == 2 else range(min(classes, MOST_CLASSES))
    return [_class_curves(c, labels == c, probabilities[:, c]) for c in shown]


def number_curves(truth: np.ndarray, predicted: np.ndarray) -> NumberCurves:
    """Mean prediction and mean truth of each tenth of the rows by prediction, and how errors are spread.

    Args:
        truth: The right value of each row, shape (rows,).
        predicted: The predicted ones, same shape.
    """
    error = predicted - truth
    low, high = np.quantile(error, [0.005, 0.995])
    least = 1e-6 * max(1.0, abs(low), abs(high))  # all errors alike: one bar, not bins too narrow for floats
    counts, edges = np.histogram(error, bins=SCORE_BINS, range=(low, max(high, low + least)))
    errors = ErrorCounts(edges=edges.tolist(), rows=counts.tolist())
    return NumberCurves(calibration=_calibration(truth, predicted), errors=errors)


def _class_curves(number: int, truth: np.ndarray, chance: np.ndarray) -> ClassCurves:
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    this, rest = (np.histogram(chance[side], bins=edges)[0].tolist() for side in (truth, ~truth))
    return ClassCurves(
        number=number,
        roc=_roc(truth, chance),
        calibration=_calibration(truth.astype(float), chance),
        scores=ScoreCounts(this=this, rest=rest),
    )


def _roc(truth: np.ndarray, score: np.ndarray) -> Roc:
    """True positive rate on a grid of false positive rates."""
    if truth.all() or not truth.any():
        return Roc(false=[], true=[])
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(truth, score)
    grid = np.linspace(0, 1, ROC_POINTS)
    return Roc(false=_short(grid), true=_short(np.interp(grid, false, true)))


def _calibration(truth: np.ndarray, predicted: np.ndarray) -> Tenths:
    parts = [part for part in np.array_split(np.argsort(predicted, kind="stable"), BINS) if len(part)]
    return Tenths(
        predicted=_short([predicted[part].mean() for part in parts]),
        observed=_short([truth[part].mean() for part in parts]),
        spread=_short([truth[part].std() for part in parts]),
        rows=[len(part) for part in parts],
    )


def _short(values: np.ndarray | list[float]) -> list[Number]:
    """Six digits are more than a figure shows."""
    return [float(f"{value:.6g}") for value in values]
