"""Whether scores can be taken as chances: the reliability curve, the expected calibration error, the slope and intercept.

All of it is for one class against the rest. The curve's bins hold equally many rows each (ties stay together), which is the
adaptive variant; bins of equal width would be empty or crowded where scores are skewed.
"""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10
MOST_STEPS = 50
FLOOR = 1e-6  # scores are kept this far from 0 and 1 before their log-odds are taken
Z95 = 1.959963984540054


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows with scores from `low` to `high`: their mean score, the share that is of the class, and its 95 % Wilson interval."""

    low: float
    high: float
    rows: int
    predicted: float
    observed: float
    observed_low: float
    observed_high: float


@dataclass(frozen=True)
class Calibration:
    """How far scores are chances.

    Attributes:
        bins: The reliability curve.
        expected_calibration_error: Mean over rows of |mean score - observed share| of the row's bin (arXiv:1706.04599,
            equation 3, with bins of equally many rows). It is above 0 also for perfect scores, by chance.
        slope: Of the log-odds of the scores in a logistic regression of the class on them: 1 is right, below 1 the scores are too
            extreme. None where it is not determined (one class only, or scores that separate the classes).
        intercept: Shift of the log-odds that makes the mean score right, at slope 1: below 0 the scores are too high on
            the whole. None as above. Both after doi:10.1186/s12916-019-1466-7.
    """

    bins: tuple[ReliabilityBin, ...]
    expected_calibration_error: float
    slope: float | None
    intercept: float | None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "bins": [asdict(b) for b in self.bins]}


def calibration_of(truth: np.ndarray, scores: np.ndarray, *, bins: int = BINS) -> Calibration:
    """The calibration of one class's scores.

    Args:
        truth: Whether each row is of the class, 0 and 1, shape (rows,); at least one row.
        scores: Its chances as the model has them, same shape.
        bins: How many the curve has; fewer where scores tie.
    """
    curve = reliability_curve(truth, scores, bins=bins)
    error = sum(b.rows * abs(b.predicted - b.observed) for b in curve) / len(truth)
    both = 0 < truth.sum() < len(truth)
    slope, intercept = (_slope(truth, scores), _intercept(truth, scores)) if both else (None, None)
    return Calibration(bins=curve, expected_calibration_error=error, slope=slope, intercept=intercept)


def reliability_curve(truth: np.ndarray, scores: np.ndarray, *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Bins of equally many rows, ascending; rows of one score are never parted."""
    order = np.argsort(scores, kind="stable")
    ordered, right = scores[order], truth[order].astype(float)
    ends = np.searchsorted(ordered, np.quantile(ordered, np.arange(1, bins) / bins), side="right")
    edges = np.unique(np.concatenate([[0], ends, [len(ordered)]]))
    return tuple(_bin(ordered[a:b], right[a:b]) for a, b in itertools.pairwise(edges))


def wilson(share: float, rows: float) -> tuple[float, float]:
    """95 % interval of a share that was seen in some rows (doi:10.1080/01621459.1927.10502953)."""
    centre = (share + Z95**2 / (2 * rows)) / (1 + Z95**2 / rows)
    half = Z95 / (1 + Z95**2 / rows) * np.sqrt(share * (1 - share) / rows + Z95**2 / (4 * rows**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def _bin(scores: np.ndarray, truth: np.ndarray) -> ReliabilityBin:
    observed = float(truth.mean())
    return ReliabilityBin(
        float(scores[0]), float(scores[-1]), len(scores), float(scores.mean()), observed, *wilson(observed, len(scores))
    )


def _log_odds(scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(scores, FLOOR, 1 - FLOOR)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _slope(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """By Newton's method; None if it does not converge, as where scores separate the classes or are all alike."""
    x = _log_odds(scores)
    if np.ptp(x) < 1e-9:
        return None
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    found = _newton(design, truth.astype(float), np.zeros_like(x))
    return None if found is None else float(found[1])


def _intercept(truth: np.ndarray, scores: np.ndarray) -> float | None:
    found = _newton(np.ones((len(scores), 1)), truth.astype(float), _log_odds(scores))
    return None if found is None else float(found[0])


def _newton(design: np.ndarray, truth: np.ndarray, offset: np.ndarray) -> npt.NDArray[np.float64] | None:
    """Coefficients of a logistic regression without penalty; None if the steps do not settle."""
    found: npt.NDArray[np.float64] = np.zeros(design.shape[1])
    for _ in range(MOST_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(design @ found + offset, -30, 30)))
        curvature = design.T @ (design * (chances * (1 - chances))[:, None])
        try:
            step = np.linalg.solve(curvature, design.T @ (truth - chances))
        except np.linalg.LinAlgError:
            return None
        found = found + np.clip(step, -2, 2)  # a full step may overshoot far from the optimum
        if np.abs(step).max() < 1e-9:
            return found
    return None
