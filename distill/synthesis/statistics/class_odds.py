"""Class chances in logs: normalising them, and shifting them to given class frequencies."""

import numpy as np


def log_normalise(scores: np.ndarray) -> np.ndarray:
    """Scores minus their log-sum-exp along the last axis: proper log-probabilities."""
    scores = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))


def match_prior(log_probabilities: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Shift every class by a constant so that the mean probability of each class equals `prior`; (rows, classes)."""
    return log_normalise(log_probabilities + prior_shift(log_probabilities, prior))


def prior_shift(log_probabilities: np.ndarray, prior: np.ndarray, *, rounds: int = 200) -> np.ndarray:
    """The constant of each class by which `match_prior` shifts, (classes,)."""
    wanted = np.log(np.maximum(prior, 1e-9))
    shift = np.zeros(len(prior))
    for _ in range(rounds):
        mean = np.exp(log_normalise(log_probabilities + shift)).mean(axis=0)
        step = wanted - np.log(np.maximum(mean, 1e-300))
        shift += step - step.max()
        if np.abs(np.exp(wanted) - mean).max() < 1e-6:
            break
    return shift
