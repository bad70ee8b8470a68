"""Gradient boosting of trees (scikit-learn's histogram gradient boosting, after LightGBM) on soft labels.

scikit-learn takes one label a row, so rows are repeated with weights (see `hard_labels`). A target that is a number is
regressed on its expected value. Held-out synthetic rows halt the training and choose how many trees are kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from distill.common import checks
from distill.data.schema import Schema
from server_train.models.trees import LEAF, TreeInputs, Trees, TreeScorer, category_places
from server_train.training.class_weights import hard_labels

MOST_LABELS = 2_000_000  # labelled rows that trees are grown on, divided by the trees of an iteration


@dataclass(frozen=True, kw_only=True)
class BoostingSettings:
    """How trees are grown; public, and nothing that moves epsilon.

    Attributes:
        learning_rate: Share of each tree's step that is taken.
        iterations: At most; each grows one tree (three classes and more: one a class).
        leaves: Of a tree, at most.
        least_rows: Labelled rows in a leaf, at least.
        l2: Penalty on leaf values.
        patience: Iterations without progress on the held-out rows before training halts.
    """

    learning_rate: float = 0.15
    iterations: int = 200
    leaves: int = 15
    least_rows: int = 40
    l2: float = 1.0
    patience: int = 10

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        checks.positive(**{name: value for name, value in vars(self).items() if name != "l2"})


@dataclass(frozen=True)
class Boosted:
    """What boosting gives: the scorer, training and held-out loss after each iteration, and the last one that was kept."""

    scorer: TreeScorer
    losses: list[tuple[float, float]]
    kept: int


def boost(
    schema: Schema,
    frames: tuple[pd.DataFrame, pd.DataFrame],
    labels: tuple[np.ndarray, np.ndarray],
    settings: BoostingSettings,
    *,
    seed: int,
    means: np.ndarray | None = None,
) -> Boosted:
    """Grow trees on the first of `frames` and `labels`; the second halts it.

    Args:
        schema: Of the rows.
        frames: Rows to learn from, and held-out ones.
        labels: Their soft labels, shape (rows, classes) each; weights of classes are in them.
        settings: How.
        seed: Of what is drawn.
        means: Of a target that is a number: mean of each of its bins.
    """
    aims = labels[0] if means is None else (labels[0] @ means)[:, None]
    inputs = TreeInputs(schema, category_places(schema, frames[0], aims))
    x, held_x = (inputs.encode(frame) for frame in frames)
    with threadpool_limits(1, user_api="openmp"):  # sums, and so trees, are then the same on every machine
        if means is not None:
            trees, losses, kept = _regress(schema, x, held_x, [part @ means for part in labels], settings, seed)
        else:
            trees, losses, kept = _classify(schema, x, held_x, labels, settings, seed)
    return Boosted(TreeScorer(inputs, trees, labels[0].shape[1], means=means), losses, kept)


Grown = tuple[Trees, list[tuple[float, float]], int]


def _classify(
    schema: Schema,
    x: np.ndarray,
    held_x: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray],
    settings: BoostingSettings,
    seed: int,
) -> Grown:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(seed)
    limit = MOST_LABELS // max(1, labels[0].shape[1] - 1)
    (rows, y, weight), (held_rows, held_y, held_weight) = (hard_labels(part, rng, limit) for part in labels)
    model = HistGradientBoostingClassifier(**_options(settings, seed))
    model.fit(x[rows], y, sample_weight=weight, X_val=held_x[held_rows], y_val=held_y, sample_weight_val=held_weight)
    return _grown(schema, model)


def _regress(
    schema: Schema,
    x: np.ndarray,
    held_x: np.ndarray,
    aims: list[np.ndarray],
    settings: BoostingSettings,
    seed: int,
) -> Grown:
    """Numbers are centred and scaled first, so that penalties and losses have the same meaning in every unit."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    centre, spread = float(aims[0].mean()), float(aims[0].std()) or 1.0
    y, held_y = ((part - centre) / spread for part in aims)
    rows = np.random.default_rng(seed).permutation(len(x))[:MOST_LABELS]
    model = HistGradientBoostingRegressor(**_options(settings, seed))
    model.fit(x[rows], y[rows], X_val=held_x, y_val=held_y)
    trees, losses, kept = _grown(schema, model)
    in_units = {**vars(trees), "value": trees.value * spread, "baseline": trees.baseline * spread + centre}
    return Trees(**in_units), losses, kept


def _options(settings: BoostingSettings, seed: int) -> dict[str, Any]:
    return {
        "learning_rate": settings.learning_rate,
        "max_iter": settings.iterations,
        "max_leaf_nodes": settings.leaves,
        "min_samples_leaf": settings.least_rows,
        "l2_regularization": settings.l2,
        "early_stopping": True,
        "n_iter_no_change": settings.patience,
        "tol": 1e-6,
        "scoring": "loss",
        "random_state": seed,
    }


def _grown(schema: Schema, model: Any) -> Grown:
    """Trees up to the best iteration, and the loss after each."""
    held = -model.validation_score_
    kept = int(held.argmin())
    losses = list(zip((-model.train_score_[1:]).tolist(), held[1:].tolist(), strict=True))
    return arrays_of(schema, model, kept), losses, kept


def arrays_of(schema: Schema, model: Any, iterations: int) -> Trees:
    """The first iterations of a fitted histogram gradient boosting model as arrays. It has no public way to ask for them."""
    # Beyond its bounds no value lies, so "all that is not missing" (an infinite threshold) is up to the upper bound.
    highest = np.array([np.inf if c.max is None else c.max for c in schema.features])
    nodes, roots, output, count = [], [], [], 0
    for iteration in model._predictors[:iterations]:
        for place, predictor in enumerate(iteration):
            nodes.append(predictor.nodes)
            roots.append(count)
            output.append(place)
            count += len(predictor.nodes)
    sizes = [len(part) for part in nodes]
    every = np.concatenate(nodes) if nodes else np.zeros(0, dtype=_NO_NODES)
    shift = np.repeat(np.array(roots, dtype=np.int64), sizes)
    leaf = every["is_leaf"] != 0
    here = np.arange(count)
    limit = np.minimum(highest[every["feature_idx"]], np.finfo(float).max)
    return Trees(
        feature=np.where(leaf, LEAF, every["feature_idx"]).astype(np.int32),
        threshold=np.where(leaf, 0.0, np.minimum(every["num_threshold"], limit)),
        missing_left=np.where(leaf, 0, every["missing_go_to_left"]).astype(np.uint8),
        left=np.where(leaf, here, every["left"] + shift).astype(np.int32),
        right=np.where(leaf, here, every["right"] + shift).astype(np.int32),
        value=np.where(leaf, every["value"], 0.0),
        roots=np.array(roots, dtype=np.int32),
        output=np.array(output, dtype=np.int32),
        baseline=np.asarray(model._baseline_prediction, dtype=np.float64).ravel(),
    )


_NO_NODES = [
    ("is_leaf", "u1"),
    ("feature_idx", "i8"),
    ("num_threshold", "f8"),
    ("missing_go_to_left", "u1"),
    ("left", "u4"),
    ("right", "u4"),
    ("value", "f8"),
]
