"""Logistic regression (scikit-learn) on soft labels: a network without hidden layers, so it is saved and read as one.

The inputs are the network's: ranks and standardised values of numbers, one-hot categories. What halts a network's training chooses the
penalty here: from strong to weak, until the held-out synthetic rows are predicted no better.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from distill.errors import ConfigError, ModelError
from distill.synthesis.statistics.class_odds import log_normalise
from server_train.models.features import Encoder, Inputs
from server_train.models.model import Network, network_for
from server_train.training.class_weights import hard_labels

MOST_LABELS = 2_000_000  # labelled rows times classes that are fitted to


@dataclass(frozen=True, kw_only=True)
class LogisticSettings:
    """How the regression is fitted; public, and nothing that moves epsilon.

    Attributes:
        strengths: Inverse penalties in the order they are tried, from strong to weak, each for the sum of all rows' losses.
        iterations: Of the optimiser, at most, for each.
    """

    strengths: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    iterations: int = 200

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not self.strengths or min(self.strengths) <= 0 or self.iterations < 1:
            raise ConfigError("strengths must be above 0, and iterations at least 1.")


def fit_logistic(
    encoder: Encoder,
    inputs: tuple[Inputs, Inputs],
    labels: tuple[np.ndarray, np.ndarray],
    settings: LogisticSettings,
    *,
    seed: int,
    on_fit: Callable[[int, float, float], None],
) -> tuple[Network, int]:
    """Fit to the first of `inputs` and `labels`; the second chooses the penalty.

    Args:
        encoder: What made the inputs.
        inputs: Rows to learn from, and held-out ones.
        labels: Their soft labels, shape (rows, classes) each; weights of classes are in them.
        settings: How.
        seed: Of what is drawn.
        on_fit: Called after each penalty with its number from 1, the training and the held-out loss.

    Returns:
        The network and the number of the penalty that was kept.

    Raises:
        ModelError: The loss is not a number.
    """
    from sklearn.linear_model import LogisticRegression

    used, held_out = (_design(encoder, part) for part in inputs)
    rows, y, weight = hard_labels(labels[0], np.random.default_rng(seed), MOST_LABELS // labels[0].shape[1])
    design = used[rows]
    model = LogisticRegression(max_iter=settings.iterations, tol=1e-5, warm_start=True)
    best, lowest, kept = 0, np.inf, np.zeros(0)
    for number, strength in enumerate(settings.strengths, 1):
        model.C = strength
        with threadpool_limits(1):  # sums, and so weights, are then the same on every machine
            _fit_quietly(model, design, y, weight)
        weights = np.vstack([model.coef_.T, model.intercept_])
        if labels[0].shape[1] == 2:
            weights = np.hstack([np.zeros_like(weights), weights])
        losses = [_loss(x, part, weights) for x, part in zip((used, held_out), labels, strict=True)]
        if not np.isfinite(losses).all():
            raise ModelError("the logistic regression diverged (the loss is not a number).")
        on_fit(number, losses[0], losses[1])
        if losses[1] >= lowest:
            break
        best, lowest, kept = number, losses[1], weights
    return _network(encoder, kept), best


def _design(encoder: Encoder, inputs: Inputs) -> Any:
    """Dense features and one-hot categories side by side, sparse, shape (rows, inputs)."""
    from scipy import sparse

    rows, columns = inputs.codes.shape
    where = (np.repeat(np.arange(rows), columns), inputs.codes.ravel())
    one_hot = sparse.csr_array((np.ones(rows * columns), where), shape=(rows, encoder.n_codes))
    return sparse.hstack([sparse.csr_array(inputs.dense.astype(float)), one_hot], format="csr")


def _fit_quietly(model: Any, design: Any, y: np.ndarray, weight: np.ndarray) -> None:
    """Stopping at `iterations` is as good an end as any other: the held-out rows judge."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(design, y, sample_weight=weight)


def _loss(design: Any, labels: np.ndarray, weights: np.ndarray) -> float:
    return float(-(labels * log_normalise(design @ weights[:-1] + weights[-1])).sum(axis=1).mean())


def _network(encoder: Encoder, weights: np.ndarray) -> Network:
    network = network_for(encoder, (), classes=weights.shape[1])
    dense, table, bias = np.split(weights.astype(np.float32), [encoder.n_dense, encoder.n_dense + encoder.n_codes])
    state = {"dense": dense, "table": table, "bias": bias[0]}
    network.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in state.items()})
    return network
