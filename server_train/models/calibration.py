"""Calibration: turning a model's raw scores into probabilities that mean what they say.

One slope for all scores and one offset a class (Platt's scaling for two classes, bias-corrected temperature scaling for more:
arXiv:1901.06852), fitted to the soft labels of held-out synthetic rows. Those labels know nothing of class weights, so the offsets
also undo the shift of class frequencies that weights make. Post-processing of the bundles: no real row takes part.
"""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from distill.synthesis.statistics.class_odds import log_normalise

RIDGE = 1e-6  # on offsets: a class that never occurs would push its own without end


class Calibration(BaseModel):
    """Probabilities are softmax(slope * scores + offsets).

    Attributes:
        slope: Above 1 sharpens, below 1 softens.
        offsets: One a class, natural-log units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slope: float = Field(gt=0, le=1e3)
    offsets: tuple[float, ...]


def class_probabilities(scores: np.ndarray, calibration: Calibration | None) -> np.ndarray:
    """Softmax of `scores`, calibrated if there is a calibration; float64, shape (rows, classes)."""
    scores = np.asarray(scores, dtype=float)
    if calibration is not None:
        scores = calibration.slope * scores + np.asarray(calibration.offsets)
    return np.asarray(np.exp(log_normalise(scores)))


def fit_calibration(scores: np.ndarray, soft_labels: np.ndarray) -> Calibration:
    """The calibration of least cross-entropy.

    Args:
        scores: Raw scores of held-out rows, shape (rows, classes).
        soft_labels: Their class probabilities, shape (rows, classes).
    """
    from scipy.optimize import minimize

    rows, classes = scores.shape
    scores, aims = np.asarray(scores, dtype=float), np.asarray(soft_labels, dtype=float)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, offsets = np.exp(parameters[0]), parameters[1:]
        logs = log_normalise(slope * scores + offsets)
        gap = (np.exp(logs) * aims.sum(axis=1, keepdims=True) - aims) / rows
        value = -(aims * logs).sum() / rows + RIDGE * np.square(offsets).sum()
        return float(value), np.append(slope * (gap * scores).sum(), gap.sum(axis=0) + 2 * RIDGE * offsets)

    found: Any = minimize(
        loss, np.zeros(classes + 1), jac=True, method="L-BFGS-B", bounds=[(-3, 3)] + [(-50, 50)] * classes
    )
    return Calibration(slope=float(np.exp(found.x[0])), offsets=tuple(found.x[1:].tolist()))
