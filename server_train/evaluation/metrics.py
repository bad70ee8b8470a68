"""How good scores are: ROC-AUC, average precision, Brier, Kolmogorov-Smirnov, accuracy and log loss; of numbers RMSE, MAE, R2.

For two classes the score is the probability of the last one. For more, the ranking figures (AUC, average precision,
KS) are the plain mean over classes of one class against the rest. A figure that the rows cannot give (ranking needs
rows of both sides) is None. Computed from real rows, these figures are about real people: publishing one is a release.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distill.errors import DataError

RELEASE_WORD = (
    "These figures were computed from real rows without noise and stay on this machine. "
    "Publishing one is a release that no ledger entry covers."
)


@dataclass(frozen=True)
class Evaluation:
    """The figures on one table.

    Attributes:
        rows: Rows scored.
        classes: The class names, in order.
        roc_auc, average_precision, ks: Ranking; macro one-versus-rest for three classes and more.
        brier: Mean squared error of the probabilities (two classes: of the last; more: summed over classes).
        accuracy: Share of rows whose most probable class is right.
        log_loss: Mean negative log-probability of the right class.
        per_class_auc: One against the rest, for each class.
    """

    rows: int
    classes: tuple[str, ...]
    roc_auc: float | None
    average_precision: float | None
    ks: float | None
    brier: float
    accuracy: float
    log_loss: float
    per_class_auc: tuple[float | None, ...]

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return {**asdict(self), "classes": list(self.classes), "per_class_auc": list(self.per_class_auc)}


def evaluate_scores(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[int | str]) -> Evaluation:
    """All figures.

    Args:
        labels: Index of the right class of each row, shape (rows,).
        probabilities: Of each class, shape (rows, classes).
        classes: Names of the classes.

    Raises:
        DataError: there are no rows.
    """
    if not len(labels):
        raise DataError("no rows to evaluate on.")
    truth = np.eye(len(classes))[labels]
    ranked = range(1, 2) if len(classes) == 2 else range(len(classes))
    aucs, precisions, gaps = zip(*(_ranking(truth[:, c], probabilities[:, c]) for c in ranked), strict=True)
    squared = np.square(probabilities - truth)
    right = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1.0)
    return Evaluation(
        rows=len(labels),
        classes=tuple(str(c) for c in classes),
        roc_auc=_mean(aucs),
        average_precision=_mean(precisions),
        ks=_mean(gaps),
        brier=float((squared[:, -1] if len(classes) == 2 else squared.sum(axis=1)).mean()),
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        log_loss=float(-np.log(right).mean()),
        per_class_auc=tuple(aucs) if len(classes) > 2 else (aucs[0], aucs[0]),
    )


@dataclass(frozen=True)
class NumberEvaluation:
    """The figures of a target that is a number, on one table.

    Attributes:
        rows: Rows scored.
        rmse, mae: Root mean squared and mean absolute error, in the target's own unit.
        r2: Share of the target's variance that is predicted; None where all targets are alike.
    """

    rows: int
    rmse: float
    mae: float
    r2: float | None

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return asdict(self)


def evaluate_numbers(truth: np.ndarray, predicted: np.ndarray) -> NumberEvaluation:
    """All figures of predicted numbers.

    Args:
        truth: The right value of each row, finite, shape (rows,).
        predicted: The predicted ones, same shape.

    Raises:
        DataError: there are no rows.
    """
    if not len(truth):
        raise DataError("no rows to evaluate on.")
    error = predicted - truth
    squared, spread = float(np.square(error).mean()), float(np.square(truth - truth.mean()).mean())
    return NumberEvaluation(
        rows=len(truth),
        rmse=squared**0.5,
        mae=float(np.abs(error).mean()),
        r2=1 - squared / spread if truth.min() < truth.max() else None,
    )


def _ranking(truth: np.ndarray, score: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """AUC, average precision and KS of one class against the rest; None where one side has no rows."""
    if truth.min() == truth.max():
        return None, None, None
    from sklearn.metrics import auc, average_precision_score, roc_curve

    false_rate, true_rate, _ = roc_curve(truth, score)
    return (
        float(auc(false_rate, true_rate)),
        float(average_precision_score(truth, score)),
        float(np.abs(true_rate - false_rate).max()),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
