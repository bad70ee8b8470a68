"""One way to train each kind of model: a network, a logistic regression or boosted trees.

All learn the same soft labels (times class weights) from the same rows; the same held-out synthetic rows halt each of them, and
calibrate it. What differs is in `training`, `logistic` and `boosting`.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from distill.bins import ColumnBins
from distill.errors import ModelError
from distill.schema import Schema
from server_train.boosting import BoostingSettings, boost
from server_train.calibration import Calibration, fit_calibration
from server_train.class_weights import ClassWeights, weigh_classes
from server_train.features import Encoder, fit_encoder
from server_train.logistic import LogisticSettings, fit_logistic
from server_train.model import Kind, NetworkScorer
from server_train.number_bins import bin_means
from server_train.training import Epoch, TrainingSettings, loss_floor, settings_as_dict, split_rows, train
from server_train.trees import TreeScorer

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
        held_out: Positions of the held-out rows in the pool.
        weights: Of the classes, as trained with; 1 where all count alike.
        seconds: Wall time.
    """

    scorer: NetworkScorer | TreeScorer
    curve: tuple[Epoch, ...]
    best_epoch: int
    floor: float
    held_out: np.ndarray
    weights: np.ndarray
    seconds: float

    @property
    def encoder(self) -> Encoder | None:
        """What makes the inputs of a network; trees need none."""
        return self.scorer.encoder if isinstance(self.scorer, NetworkScorer) else None

    @property
    def inputs(self) -> int:
        """Numbers that the model reads of a row."""
        encoder = self.encoder
        return encoder.n_dense + encoder.n_codes if encoder else len(self.scorer_schema.features)

    @property
    def scorer_schema(self) -> Schema:
        """The schema that the scorer was made for."""
        scorer = self.scorer
        return scorer.encoder.schema if isinstance(scorer, NetworkScorer) else scorer.inputs.schema

    @property
    def parameters(self) -> int:
        """Weights of a network; thresholds and leaf values of trees."""
        scorer = self.scorer
        if isinstance(scorer, NetworkScorer):
            return sum(p.numel() for p in scorer.network.parameters())
        return len(scorer.trees.feature)


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
    if choice.kind == "mlp":
        trained = train(schema, frame, labels, settings, on_epoch=on_epoch)
        scorer: NetworkScorer | TreeScorer = NetworkScorer(trained.encoder, trained.network)
        curve, best, held_out = trained.curve, trained.best_epoch, trained.held_out
    else:
        used, held_out = split_rows(len(frame), settings)
        frames, parts = (frame.iloc[used], frame.iloc[held_out]), (labels[used], labels[held_out])
        points: list[Epoch] = []

        def on_point(number: int, training_loss: float, held_out_loss: float) -> None:
            points.append(Epoch(number, training_loss, held_out_loss))
            if on_epoch:
                on_epoch(points[-1])

        if choice.kind == "logistic":
            encoder = fit_encoder(schema, frame)
            inputs = (encoder.encode(frames[0]), encoder.encode(frames[1]))
            network, best = fit_logistic(encoder, inputs, parts, choice.logistic, seed=settings.seed, on_fit=on_point)
            scorer = NetworkScorer(encoder, network.eval())
        else:
            means = None if bins is None else bin_means(bins)
            boosted = boost(schema, frames, parts, choice.boosting, seed=settings.seed, means=means)
            for number, losses in enumerate(boosted.losses, 1):
                on_point(number, *losses)
            scorer, best = boosted.scorer, boosted.kept
        curve = tuple(points)
    if choice.calibrate and bins is None:
        scorer = replace(scorer, calibration=_calibrated(scorer, frame.iloc[held_out], soft_labels[held_out]))
    seconds = time.perf_counter() - began
    return Fitted(scorer, curve, best, loss_floor(labels[held_out]), held_out, weights, seconds)


def _calibrated(scorer: NetworkScorer | TreeScorer, frame: pd.DataFrame, soft_labels: np.ndarray) -> Calibration:
    """Fitted to the labels without class weights. Raises ModelError where scores are not finite."""
    scores = scorer.scores(frame)
    if not np.isfinite(scores).all():
        raise ModelError("training diverged (a score is not a number). Lower the learning rate.")
    return fit_calibration(scores, soft_labels)
