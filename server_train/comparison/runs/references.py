"""Two lines to read the others by: one model trained on all real rows together, and each client's model on its own.

Both use the hub's architecture and training on real rows with hard labels. Nothing travels, nothing is private.
"""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from server_train.comparison.deal.tables import Dealt
from server_train.comparison.record.results import Kind, Point, Run
from server_train.evaluation.metrics import evaluate_scores
from server_train.models.features import class_codes
from server_train.models.model import probabilities
from server_train.training.network import TrainingSettings, train

LEAST_ROWS = 20  # below, training refuses


def central(dealt: Dealt, *, seed: int, progress: Callable[[int, int], None]) -> Run:
    """A model of all clients' rows, which no client could share."""
    return _reference("central", "central, pooled rows", dealt, pd.concat(dealt.clients.values()), seed, progress)


def alone(dealt: Dealt, client: str, *, seed: int, progress: Callable[[int, int], None]) -> Run | None:
    """A model of one client's rows; None where they are too few to train on."""
    frame = dealt.clients[client]
    return _reference("alone", f"{client} alone", dealt, frame, seed, progress) if len(frame) >= LEAST_ROWS else None


def _reference(
    kind: Kind, name: str, dealt: Dealt, frame: pd.DataFrame, seed: int, progress: Callable[[int, int], None]
) -> Run:
    """Train on `frame` and judge on the test rows."""
    began = time.perf_counter()
    settings = TrainingSettings(seed=seed)
    frame = frame.reset_index(drop=True)
    labels = np.eye(len(dealt.schema.classes))[class_codes(dealt.schema, frame)]
    epochs = settings.epochs(len(frame))
    trained = train(dealt.schema, frame, labels, settings, on_epoch=lambda e: progress(e.number, epochs))
    scores = probabilities(trained.network, trained.encoder.encode(dealt.test))
    judged = evaluate_scores(class_codes(dealt.schema, dealt.test), scores, dealt.schema.classes)
    point = Point(
        round=0,
        seconds=0.0,
        up=0,
        down=0,
        roc_auc=judged.roc_auc or 0.0,
        accuracy=judged.accuracy,
        log_loss=judged.log_loss,
    )
    return Run(kind=kind, name=name, seed=seed, points=(point,), seconds=time.perf_counter() - began)
