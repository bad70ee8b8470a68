"""One way to train each kind of model: a network, a logistic regression or boosted trees.

All learn the same soft labels (times class weights) from the same rows; the same held-out synthetic rows halt each of them, and
calibrate it. What differs is in `training`, `logistic` and `boosting`.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distill.data.bins import ColumnBins
from distill.data.schema import Schema
from distill.errors import ModelError
from server_train.models.calibration import Calibration, fit_calibration
from server_train.models.features import Encoder, fit_encoder
from server_train.models.model import Kind, NetworkScorer
from server_train.models.number_target import bin_means
from server_train.models.trees import TreeScorer
from server_train.pooling.pool_file import StoredPool
from server_train.training.boosting import BoostingSettings, boost
from server_train.training.class_weights import ClassWeights, class_factors, weigh_classes
from server_train.training.distributed import ALONE, Group
from server_train.training.logistic import LogisticSettings, fit_logistic
from server_train.training.network import Epoch, TrainingSettings, loss_floor, settings_as_dict, split_rows, train
from server_train.training.out_of_core import train_stored

IN_MEMORY = 500_000  # rows of a pool; larger ones lie on disk
OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What is trained. All of it is public and none of it moves epsilon.

    Attributes:
        kind: Of model.
        class_weights: How much more one class counts than another.
        calibrate: Fit slope and offsets of the scores to held-out synthetic rows; never for a target that is a number.
        logistic, boosting: Settings of these kinds; those of a network are `TrainingSettings`.
    """

    kind: Kind = "mlp"
    class_weights: ClassWeights = None
    calibrate: bool = True
    logistic: LogisticSettings = field(default_factory=LogisticSettings)
    boosting: BoostingSettings = field(default_factory=BoostingSettings)

    def steps(self, settings: TrainingSettings, rows: int) -> int:
        """Points of the learning curve, at most."""
        if self.kind == "mlp":
            return settings.epochs(rows)
        return len(self.logistic.strengths) if self.kind == "logistic" else self.boosting.iterations

    def as_dict(self, settings: TrainingSettings) -> dict[str, Any]:
        """The settings that this kind follows, as `model.json` holds them."""
        if self.kind == "mlp":
            return settings_as_dict(settings)
        own = asdict(self.logistic if self.kind == "logistic" else self.boosting)
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return {**plain, "validation_share": settings.validation_share, "seed": settings.seed}


@dataclass(frozen=True)
class Fitted:
    """What training gives, whatever the kind.

    Attributes:
        scorer: Of a model; calibrated, if that was asked for.
        curve: One `Epoch` a pass over the rows, a penalty, or an iteration.
        best_epoch: The one that was kept; 0: none was better than a constant.
        floor: No model can have a lower loss on the held-out rows.
        held_out_rows: The held-out rows, in public values.
        rows: That took part, the held-out ones among them.
        weights: Of the classes, as trained with; 1 where all count alike.
        seconds: Wall time.
    """

    scorer: NetworkScorer | TreeScorer
    curve: tuple[Epoch, ...]
    best_epoch: int
    floor: float
    held_out_rows: pd.DataFrame
    rows: int
    weights: np.ndarray
    seconds: float

    @property
    def encoder(self) -> Encoder | None:
        """What makes the inputs of a network; trees need none."""
        return self.scorer.encoder if isinstance(self.scorer, NetworkScorer) else None


def fit_model(
    schema: Schema,
    frame: pd.DataFrame,
    soft_labels: np.ndarray,
    settings: TrainingSettings,
    choice: ModelChoice,
    *,
    bins: ColumnBins | None = None,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train a model of the chosen kind to give `soft_labels` from the feature columns of `frame`.

    Args:
        schema: Of `frame`.
        frame: Synthetic rows in public values.
        soft_labels: Class probabilities, shape (rows, classes), rows summing to one.
        settings: Of a network; seed and held-out share are for every kind.
        choice: Kind, class weights, calibration.
        bins: Of a target that is a number: what its classes are.
        on_epoch: Called for each point of the learning curve.

    Raises:
        ConfigError: Fewer than 20 rows, or class weights that do not fit the schema.
        ModelError: The loss is not a number.
    """
    began = time.perf_counter()
    labels, weights = weigh_classes(schema, soft_labels, choice.class_weights)
    points: list[Epoch] = []

    def on_point(point: Epoch) -> None:
        points.append(point)
        if on_epoch:
            on_epoch(point)

    used, held_out = split_rows(len(frame), settings)
    scorer: NetworkScorer | TreeScorer
    if choice.kind == "mlp":
        trained = train(schema, frame, labels, settings, on_epoch=on_point)
        scorer, best = NetworkScorer(trained.encoder, trained.network), trained.best_epoch
    else:
        frames, parts = (frame.iloc[used], frame.iloc[held_out]), (labels[used], labels[held_out])
        fit = _logistic if choice.kind == "logistic" else _boosting
        scorer, best = fit(schema, frames, parts, choice, settings.seed, bins, on_point)
    held_out_rows = frame.iloc[held_out]
    if choice.calibrate and bins is None:
        scorer = replace(scorer, calibration=_calibrated(scorer, held_out_rows, soft_labels[held_out]))
    floor, seconds = loss_floor(labels[held_out]), time.perf_counter() - began
    return Fitted(scorer, tuple(points), best, floor, held_out_rows, len(frame), weights, seconds)


def fit_stored(
    pool: StoredPool,
    settings: TrainingSettings,
    choice: ModelChoice,
    *,
    scratch: Path,
    group: Group = ALONE,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train a model of the chosen kind on a pool on disk: a network on all rows, the other kinds on `IN_MEMORY` of them.

    Args:
        pool: What to train on.
        settings, choice, on_epoch: As for `fit_model`; the settings should suit the pool (`stored_training.fitting`).
        scratch: An existing folder on this machine, for encoded rows.
        group: Processes that train a network together.

    Raises:
        ConfigError, DataError, ModelError: See `fit_model` and `train_stored`.
    """
    if choice.kind != "mlp":
        frame, labels = pool.rows(0, min(len(pool), IN_MEMORY))
        return fit_model(pool.schema, frame, labels, settings, choice, bins=pool.card.bins, on_epoch=on_epoch)
    began = time.perf_counter()
    weights = class_factors(pool.schema, np.array(pool.card.class_prior), choice.class_weights)
    done = train_stored(pool, settings, scratch=scratch, weights=weights, group=group, on_epoch=on_epoch)
    trained = done.trained
    scorer = NetworkScorer(trained.encoder, trained.network)
    if choice.calibrate and pool.card.bins is None:
        scorer = replace(scorer, calibration=_calibrated(scorer, done.held_out_rows, done.held_out_labels))
    seconds = time.perf_counter() - began
    return Fitted(
        scorer, trained.curve, trained.best_epoch, trained.floor, done.held_out_rows, len(pool), weights, seconds
    )


Frames = tuple[pd.DataFrame, pd.DataFrame]  # rows to learn from, held-out rows
Labels = tuple[np.ndarray, np.ndarray]


def _logistic(
    schema: Schema,
    frames: Frames,
    labels: Labels,
    choice: ModelChoice,
    seed: int,
    bins: ColumnBins | None,
    on_epoch: OnEpoch,
) -> tuple[NetworkScorer, int]:
    """A number is a softmax over its bins, as with a network."""
    encoder = fit_encoder(schema, frames[0])
    inputs = (encoder.encode(frames[0]), encoder.encode(frames[1]))
    network, best = fit_logistic(
        encoder, inputs, labels, choice.logistic, seed=seed, on_fit=lambda *point: on_epoch(Epoch(*point))
    )
    return NetworkScorer(encoder, network.eval()), best


def _boosting(
    schema: Schema,
    frames: Frames,
    labels: Labels,
    choice: ModelChoice,
    seed: int,
    bins: ColumnBins | None,
    on_epoch: OnEpoch,
) -> tuple[TreeScorer, int]:
    means = None if bins is None else bin_means(bins)
    boosted = boost(schema, frames, labels, choice.boosting, seed=seed, means=means)
    for number, losses in enumerate(boosted.losses, 1):
        on_epoch(Epoch(number, *losses))
    return boosted.scorer, boosted.kept


def _calibrated(scorer: NetworkScorer | TreeScorer, frame: pd.DataFrame, soft_labels: np.ndarray) -> Calibration:
    """Fitted to the labels without class weights. Raises ModelError where scores are not finite."""
    scores = scorer.scores(frame)
    if not np.isfinite(scores).all():
        raise ModelError("training diverged (a score is not a number). Lower the learning rate.")
    return fit_calibration(scores, soft_labels)
