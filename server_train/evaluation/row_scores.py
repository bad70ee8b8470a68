"""Scores to the last bit from a row alone, whatever rows are scored with it: what a noisy count of private rows rests on.

`Model.predict` adds up floating-point numbers in an order that a library picks by the number of rows, so a row more may move
another row's score by a last bit, and with it that row's bin: then one row changes two cells, and the noise was for one. Here
a row's sums are exact in any order (see `distill.common.exact`), or made in one order. The rest is computed number by number.
Scores differ from those of `Model.predict` by about what float32 rounds away there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from distill.common import exact
from distill.common.checks import require
from server_train.models.calibration import Calibration
from server_train.models.features import Inputs
from server_train.models.model import Model, NetworkScorer, Scorer
from server_train.models.onnx_scorer import OnnxScorer
from server_train.models.trees import Trees, TreeScorer

ROWS_AT_ONCE = 2048  # put through a network: few enough for the processor's cache
WHOLE_BITS = 52  # a sum that stays below 2**52 steps is free of rounding in float64, whatever its order
MOST_EXPONENT = 60  # values of leaves are kept within 2**60; no model in earnest has larger ones


def row_probabilities(model: Model, frame: pd.DataFrame) -> np.ndarray:
    """As `Model.predict`, each row's numbers from the public model and that row alone, to the last bit.

    Networks take two to three times as long as in `Model.predict`, trees as long. A model from an ONNX file takes some fifty times
    as long, ten seconds for 100,000 rows: its runtime does not say in which order it adds up, and a stranger's graph may add up
    rows, so it is given one row at a time. Where that is too slow, give the folder that the file was made from.

    Raises:
        DataError: A feature column is absent or holds what the schema forbids.
        ModelError: As of `Model.predict` where it comes from an ONNX file.
    """
    return replace(model, scorer=_row_local(model.scorer)).predict(frame)


def _row_local(scorer: Scorer) -> Scorer:
    """A scorer of the same model whose rows stand for themselves. Raises TypeError for a kind that nobody has thought through."""
    if isinstance(scorer, OnnxScorer):
        return replace(scorer, session=_OneRowSession(scorer.session))
    if isinstance(scorer, TreeScorer):
        local = replace(scorer, trees=_whole_steps(scorer.trees))
        return local if local.means is not None else _RowScorer(scorer, local.scores, local.calibration)
    if isinstance(scorer, NetworkScorer):
        return _RowScorer(scorer, partial(_network_scores, scorer), scorer.calibration)
    raise TypeError(f"{type(scorer).__name__} has no row-local scores")


@dataclass(frozen=True, eq=False)
class _RowScorer:
    """Row-local raw scores of classes, and what makes probabilities of them.

    Attributes:
        source: The scorer that they agree with.
        scores: Of rows, shape (rows, classes).
        calibration: As of `source`.
    """

    source: Scorer
    scores: Callable[[pd.DataFrame], np.ndarray]
    calibration: Calibration | None

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """As `calibration.class_probabilities`, with each row's sum made from the first class to the last."""
        scores = self.scores(frame)
        if self.calibration is not None:
            scores = self.calibration.slope * scores + np.asarray(self.calibration.offsets)
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(chances / np.cumsum(chances, axis=1)[:, -1:])

    def tensors(self) -> dict[str, np.ndarray]:
        """Those of `source`."""
        return self.source.tensors()


def _network_scores(scorer: NetworkScorer, frame: pd.DataFrame) -> np.ndarray:
    """As `NetworkScorer.scores`, row-local."""
    inputs, weights = scorer.encoder.encode(frame), scorer.tensors()
    pieces = (slice(start, start + ROWS_AT_ONCE) for start in range(0, len(inputs), ROWS_AT_ONCE))
    return np.concatenate([_forward(weights, Inputs(inputs.dense[rows], inputs.codes[rows])) for rows in pieces])


def _forward(weights: dict[str, np.ndarray], inputs: Inputs) -> np.ndarray:
    """As `Network.forward`, in float64 and row-local; `weights` by the names of `Network`."""
    x = _product(inputs.dense, weights["dense"]) + weights["bias"]
    table = weights["table"].astype(np.float64)
    for codes in inputs.codes.T:  # one column after the other
        x += table[codes]
    for layer in range(sum(name.startswith("weights.") for name in weights)):
        x = _product(np.maximum(x, 0.0), weights[f"weights.{layer}"]) + weights[f"biases.{layer}"]
    return np.asarray(x)


def _product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`rows @ matrix` by `exact.fine_product`, each row and the matrix first scaled by a power of two to its limits."""
    left, right = _scale(np.abs(rows).max(axis=1, keepdims=True, initial=0.0)), _scale(np.abs(matrix).max(initial=0.0))
    return np.asarray(exact.fine_product(rows / left, matrix / right) * (left * right))


def _scale(most: Any) -> Any:
    """The power of two by which `most` is divided to come to half the limit of exact products or more, and below it."""
    return np.ldexp(np.float64(1.0), np.frexp(most / exact.LIMIT)[1])


def _whole_steps(trees: Trees) -> Trees:
    """The same trees, their leaves' values in whole steps so coarse that no sum of them is rounded, in whatever order.

    With hundreds of trees and values around 1 that is some 40 bits behind the point.
    """
    exponent = int(np.clip(np.frexp(np.abs(trees.value).max(initial=0.0))[1], 0, MOST_EXPONENT))
    bits = WHOLE_BITS - exponent - len(trees.roots).bit_length()
    return replace(trees, value=exact.on_grid(trees.value, bits=bits, limit=2.0**exponent))


@dataclass(frozen=True, eq=False)
class _OneRowSession:
    """An ONNX session that is given one row at a time, so that rows cannot meet in its graph."""

    session: Any

    def get_inputs(self) -> Any:
        """As of the session."""
        return self.session.get_inputs()

    def get_outputs(self) -> Any:
        """As of the session."""
        return self.session.get_outputs()

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """What the session gives for each row, one below the other. Raises ValueError unless each row gives one row."""
        rows = len(next(iter(feeds.values())))
        found = [self.session.run(names, {n: v[row : row + 1] for n, v in feeds.items()}) for row in range(rows)]
        require(
            all(len(part) == 1 for parts in found for part in parts), "a row has more or less than one row of scores"
        )
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]
