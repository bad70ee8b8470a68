"""Where scores are told apart when a model is judged under a budget: bins from the synthetic pool, kept on the model card.

A model's card carries *knots*: quantiles of its scores on held-out synthetic rows, where the rows of a class and the rest count
half each, so that bins are fine where either is. They follow from bundles alone, so bins cost no budget; a card without
them gets bins of equal width in the log-odds.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from distill.errors import ModelError
from distill.exchange.noisy_scores import Block
from server_train.evaluation.row_scores import row_probabilities
from server_train.models.features import class_codes
from server_train.models.model import Model

KNOTS = 129
FIXED_REACH = 5.0  # log-odds between which fixed bins lie
MOST_RIGHT = "the most probable class"  # the last block of three classes and more: whether that class is the right one


def score_knots(probabilities: np.ndarray) -> list[list[float]]:
    """Knots of each block's scores, ascending, for the card.

    Args:
        probabilities: Of the synthetic rows, shape (rows, classes).
    """
    return [_knots(scores) for scores in block_scores(probabilities)]


def block_scores(probabilities: np.ndarray) -> list[np.ndarray]:
    """The scores of each block: two classes, the last one's; more, each one's and that of the most probable."""
    if probabilities.shape[1] == 2:
        return [probabilities[:, 1]]
    return [*probabilities.T, probabilities.max(axis=1)]


class ModelScorer:
    """A model of classes as `distill.releases.evaluation` asks it."""

    def __init__(self, model: Model, *, thresholds: Sequence[float] = ()) -> None:
        """`thresholds` become edges of the bins of two classes. Raises ModelError if the card's knots make no sense."""
        self.model = model
        classes = [str(c) for c in model.schema.classes]
        self._names = classes[1:] if len(classes) == 2 else [*classes, MOST_RIGHT]
        self._thresholds = sorted({0.5, *thresholds}) if len(classes) == 2 else []
        self._knots = _stored_knots(model, len(self._names))

    def blocks(self, bins: int) -> tuple[Block, ...]:
        """One histogram a name, of about `bins` bins."""
        if self._knots is None:
            inner = 1 / (1 + np.exp(-np.linspace(-FIXED_REACH, FIXED_REACH, bins - 1)))
            return tuple(_block(name, inner, None, self._thresholds) for name in self._names)
        return blocks_of_knots(self._names, self._knots, bins, self._thresholds)

    def scored(self, frame: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each block whether it holds of each row, and the row's score; each from its row alone, to the last bit."""
        probabilities = row_probabilities(self.model, frame)
        labels, scores = class_codes(self.model.schema, frame), block_scores(probabilities)
        if len(scores) == 1:
            return [((labels == 1).astype(np.uint8), scores[0])]
        holds = [labels == c for c in range(len(scores) - 1)]
        right = probabilities.argmax(axis=1) == labels
        return [(h.astype(np.uint8), s) for h, s in zip([*holds, right], scores, strict=True)]


def blocks_of_knots(
    names: Sequence[str], knots: Sequence[np.ndarray], bins: int, thresholds: Sequence[float]
) -> tuple[Block, ...]:
    """A block a name whose bins hold equally many knots; `thresholds` are edges too."""
    ranks = np.arange(1, bins) / bins
    return tuple(_block(name, np.quantile(k, ranks), k, thresholds) for name, k in zip(names, knots, strict=True))


def _knots(scores: np.ndarray) -> list[float]:
    """Quantiles of the scores where those who are of the class and those who are not, as the scores say, count half each."""
    ordered = np.sort(np.clip(scores, 1e-9, 1 - 1e-9))
    weights = ordered / ordered.sum() + (1 - ordered) / (1 - ordered).sum()
    ranks = (np.cumsum(weights) - weights / 2) / weights.sum()
    return [float(f"{knot:.9g}") for knot in np.interp(np.linspace(0, 1, KNOTS), ranks, ordered)]


def _block(name: str, inner: np.ndarray, knots: np.ndarray | None, thresholds: Sequence[float]) -> Block:
    """A block with these inner edges and the thresholds."""
    inner = inner if knots is None else _between_knots(inner, knots)
    near = [e for e in inner if all(abs(e - t) > 1e-9 for t in thresholds)]
    edges = tuple(sorted({float(e) for e in near if 0 < e < 1} | {t for t in thresholds if 0 < t < 1}))
    ends = np.array([0.0, *edges, 1.0])
    bins = np.searchsorted(edges, knots, side="right") if knots is not None else np.empty(0, int)
    inside = [np.array([(a + b) / 2]) for a, b in itertools.pairwise(ends)]
    mean = None
    if knots is not None:
        mean = _mean_score(knots)
        inside = [knots[bins == i] if (bins == i).any() else middle for i, middle in enumerate(inside)]
    negative, positive = zip(*(_inside(scores, mean) for scores in inside), strict=True)
    return Block(
        name,
        edges,
        middles=tuple(float((n @ s + p @ s) / 2) for n, p, s in zip(negative, positive, inside, strict=True)),
        wins=tuple(float(p @ (n.cumsum() - n / 2)) for n, p in zip(negative, positive, strict=True)),
        losses=(
            tuple(float(n @ s**2) for n, s in zip(negative, inside, strict=True)),
            tuple(float(p @ (1 - s) ** 2) for p, s in zip(positive, inside, strict=True)),
        ),
    )


def _between_knots(edges: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Each edge half-way between the knots around it: a score that many rows share then lies clear of any edge, and not on it,
    where its last digit would decide of its bin."""
    distinct = np.unique(knots)
    above = np.searchsorted(distinct, edges, side="left").clip(1, max(len(distinct) - 1, 1))
    return edges if len(distinct) < 2 else np.asarray((distinct[above - 1] + distinct[above]) / 2)


def _inside(scores: np.ndarray, mean: float | None) -> tuple[np.ndarray, np.ndarray]:
    """How the rows that are not of the class, and those that are, are spread over a bin's scores, if scores are chances.

    Knots stand for equal parts of a mixture of both kinds; `mean` is the mean score of all rows (see `_mean_score`).
    """
    rows = np.ones(len(scores)) if mean is None else _rows_a_knot(scores, mean)
    negative, positive = rows * (1 - scores), rows * scores
    return negative / negative.sum(), positive / positive.sum()


def _rows_a_knot(knots: np.ndarray, mean: float) -> np.ndarray:
    """What a knot stands for in rows: its part of the mixture over the mixture's density a row."""
    return np.asarray(1 / (knots / mean + (1 - knots) / (1 - mean)))


def _mean_score(knots: np.ndarray) -> float:
    """The one mean score with which both kinds of rows make up half of the mixture: what a row of the class counts falls with it."""
    from scipy.optimize import brentq

    return float(brentq(lambda mean: np.mean(knots / mean * _rows_a_knot(knots, mean)) - 0.5, 1e-9, 1 - 1e-9))


def _stored_knots(model: Model, blocks: int) -> list[np.ndarray] | None:
    """The card's knots, checked: a model file may come from anybody."""
    stored: Any = model.card.training.score_knots
    if stored is None:
        return None
    try:
        knots = [np.array(k, dtype=np.float64) for k in stored]
        fine = len(knots) == blocks and all(
            k.ndim == 1 and 2 <= len(k) <= 10_000 and (np.diff(k) >= 0).all() and k[0] > 0 and k[-1] < 1 for k in knots
        )
    except (TypeError, ValueError, OverflowError):
        fine = False
    if not fine:
        raise ModelError("the model's card is damaged: `score_knots` are no ascending chances. Train or copy it again.")
    return knots
