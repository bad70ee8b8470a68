"""Decisions at a threshold: the confusion matrix, its rates, and what a row costs; the threshold that costs least.

For two classes: a row is taken for one of the last class where its score is at least the threshold. With costs of a false
positive and of a false negative, calibrated scores call for the threshold c_fp / (c_fp + c_fn), whatever the classes'
frequencies (Elkan 2001, "The foundations of cost-sensitive learning", theorem 1). The threshold that was cheapest on these
very rows is shown beside it: where the two are far apart, the scores are not calibrated, or the rows are few.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distill.common import checks


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a wrong decision costs, in any one unit; a right one costs nothing."""

    false_positive: float
    false_negative: float

    def __post_init__(self) -> None:
        checks.positive(false_positive=self.false_positive, false_negative=self.false_negative)

    @property
    def threshold(self) -> float:
        """From which chance on it is cheaper to take a row for one of the last class."""
        return self.false_positive / (self.false_positive + self.false_negative)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The confusion matrix at a threshold; a rate without any row to take it of is None.

    Attributes:
        threshold: Scores at or above it are taken for the last class.
        selection_rate: Rows so taken, of all.
        true_positive_rate, false_positive_rate: Of the rows of the last class, and of the others.
        precision: Rows of the last class among those taken for it.
        cost_a_row: Mean cost; None without costs.
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    selection_rate: float
    true_positive_rate: float | None
    false_positive_rate: float | None
    precision: float | None
    accuracy: float
    cost_a_row: float | None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def decide(truth: np.ndarray, scores: np.ndarray, threshold: float, costs: Costs | None = None) -> Decision:
    """The confusion matrix of at least one row.

    Args:
        truth: Whether each row is of the last class, 0 and 1, shape (rows,).
        scores: Chances of the last class, same shape.
        threshold: From which score on a row is taken for one of it.
        costs: Of wrong decisions.
    """
    chosen, positive = scores >= threshold, truth.astype(bool)
    tp, fp = int((chosen & positive).sum()), int((chosen & ~positive).sum())
    fn, tn = int((~chosen & positive).sum()), int((~chosen & ~positive).sum())
    rows = len(truth)
    return Decision(
        threshold=float(threshold),
        true_positives=tp,
        false_positives=fp,
        false_negatives=fn,
        true_negatives=tn,
        selection_rate=(tp + fp) / rows,
        true_positive_rate=ratio(tp, tp + fn),
        false_positive_rate=ratio(fp, fp + tn),
        precision=ratio(tp, tp + fp),
        accuracy=(tp + tn) / rows,
        cost_a_row=None if costs is None else (costs.false_positive * fp + costs.false_negative * fn) / rows,
    )


def cheapest_threshold(truth: np.ndarray, scores: np.ndarray, costs: Costs) -> float:
    """The threshold at which these rows cost least: halfway between two scores, or beyond all; the lowest of equals."""
    thresholds, cost = cost_curve(truth, scores, costs)
    return float(thresholds[int(cost.argmin())])


def cost_curve(truth: np.ndarray, scores: np.ndarray, costs: Costs) -> tuple[np.ndarray, np.ndarray]:
    """Every threshold that decides otherwise than its neighbours, ascending, and the mean cost of a row at each."""
    values, where = np.unique(scores, return_inverse=True)
    positives = np.bincount(where, truth.astype(float), minlength=len(values))
    negatives = np.bincount(where, minlength=len(values)) - positives
    missed = np.append(0.0, positives.cumsum())  # below the threshold
    alarms = negatives.sum() - np.append(0.0, negatives.cumsum())  # at or above it
    thresholds = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2, [np.nextafter(1.0, 2.0)]])
    return thresholds, (costs.false_positive * alarms + costs.false_negative * missed) / len(truth)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]]:
    """Rows by their class (first) and by the class that they were taken for."""
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    return [[int(n) for n in line] for line in counts.reshape(classes, classes)]


def ratio(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole else None
