"""Central training of the network on the pooled synthetic rows.

Soft labels (the class heads' probabilities) teach more per row than drawn ones. A tenth of the pool is held
out: its loss halts training and picks the best epoch. The pool is synthetic, so this costs no budget, and one
seed repeats the run. The held-out loss says how well the network learnt what the bundles say, not how well it does on
real rows.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from distill import check
from distill.errors import ConfigError, ModelError
from distill.schema import Schema
from distill.threads import single_thread
from server_train.features import Encoder, Inputs, fit_encoder
from server_train.model import Network, network_for


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the network is trained. All of it is public and none of it moves epsilon.

    Attributes:
        hidden: Widths of the hidden layers.
        dropout: Share of hidden units left out at each step, in [0, 1).
        learning_rate: Of AdamW at the start; falls to zero along half a cosine.
        weight_decay: Of AdamW.
        batch_size: Rows a step.
        steps: Optimiser steps aimed at, rounded up to whole epochs (`max_epochs` at most, ten at least).
        max_epochs: At most this many passes.
        patience: Epochs without progress on the held-out rows before training halts.
        validation_share: Part of the pool that is held out.
        seed: Of the start, the order of rows and the dropout.
    """

    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.0
    learning_rate: float = 6e-3
    weight_decay: float = 1e-3
    batch_size: int = 1024
    steps: int = 1500
    max_epochs: int = 100
    patience: int = 5
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        check.positive(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            steps=self.steps,
            max_epochs=self.max_epochs,
            patience=self.patience,
            validation_share=self.validation_share,
        )
        check.at_most(0.5, validation_share=self.validation_share)
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden must hold widths of at least 1, not {self.hidden!r}.")
        if not 0 <= self.dropout < 1 or self.weight_decay < 0:
            raise ConfigError("dropout must be in [0, 1) and weight_decay at least 0.")

    def epochs(self, rows: int) -> int:
        """Passes over `rows` training rows that make about `steps` steps."""
        wanted = max(10, math.ceil(self.steps / max(1, math.ceil(rows / self.batch_size))))
        return min(self.max_epochs, wanted)


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curve: cross-entropy on the training rows and on the held-out synthetic rows."""

    number: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes:
        encoder, network: The parts of a model.
        curve: One `Epoch` a pass.
        best_epoch: The pass whose weights were kept.
        floor: Entropy of the held-out soft labels: no network can have a lower loss on them.
        held_out: Positions of the held-out rows in the pool.
        seconds: Wall time.
    """

    encoder: Encoder
    network: Network
    curve: tuple[Epoch, ...]
    best_epoch: int
    floor: float
    held_out: np.ndarray
    seconds: float


def train(
    schema: Schema,
    frame: pd.DataFrame,
    soft_labels: np.ndarray,
    settings: TrainingSettings,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train a network to give `soft_labels` from the feature columns of `frame`.

    Args:
        schema: Of `frame`.
        frame: Synthetic rows in public values.
        soft_labels: Class probabilities, shape (rows, classes), rows summing to one.
        settings: How.
        on_epoch: Called after each epoch.

    Raises:
        ConfigError: fewer than 20 rows.
        ModelError: the loss is not a number.
    """
    if len(frame) < 20:
        raise ConfigError(f"{len(frame)} pooled rows are too few to train on; ask for at least 20 (--rows).")
    started = time.perf_counter()
    encoder = fit_encoder(schema, frame)
    inputs = encoder.encode(frame)
    order = np.random.default_rng(settings.seed).permutation(len(frame))
    split = max(1, round(settings.validation_share * len(frame)))
    held_out, used = np.sort(order[:split]), np.sort(order[split:])
    network = network_for(encoder, settings.hidden, classes=soft_labels.shape[1], dropout=settings.dropout)
    generator = torch.Generator().manual_seed(settings.seed)
    network.initialise(
        generator, inputs=encoder.n_dense + inputs.codes.shape[1], prior=_tensor(soft_labels.mean(axis=0))
    )
    with single_thread():
        curve, best = _fit(
            network,
            _rows(inputs, soft_labels, used),
            _rows(inputs, soft_labels, held_out),
            settings,
            generator,
            on_epoch,
        )
    held_labels = soft_labels[held_out].astype(float)
    floor = float(-(held_labels * np.log(np.maximum(held_labels, 1e-12))).sum(axis=1).mean())
    seconds = time.perf_counter() - started
    return Trained(encoder, network.eval(), tuple(curve), best, floor, held_out, seconds)


Rows = tuple[Tensor, Tensor, Tensor]  # dense, codes, soft labels


def _fit(
    network: Network,
    used: Rows,
    held_out: Rows,
    settings: TrainingSettings,
    generator: torch.Generator,
    on_epoch: Callable[[Epoch], None] | None,
) -> tuple[list[Epoch], int]:
    """Epochs until the held-out loss stops falling; leaves the best weights in `network`."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    epochs = settings.epochs(len(used[2]))
    total = epochs * -(-len(used[2]) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    curve: list[Epoch] = []
    best, lowest, waited, kept = 0, float("inf"), 0, _copy(network)
    for number in range(1, epochs + 1):
        training_loss = _epoch(network, used, settings.batch_size, optimizer, schedule, generator)
        epoch = Epoch(number, training_loss, _loss(network, held_out))
        if not np.isfinite(epoch.training_loss + epoch.validation_loss):
            raise ModelError("training diverged (the loss is not a number). Lower the learning rate.")
        curve.append(epoch)
        if on_epoch:
            on_epoch(epoch)
        waited += 1
        if epoch.validation_loss < lowest - 1e-5:
            best, lowest, waited, kept = number, epoch.validation_loss, 0, _copy(network)
        if waited >= settings.patience:
            break
    network.load_state_dict(kept)
    return curve, best


def _epoch(
    network: Network,
    rows: Rows,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> float:
    """One pass over the rows in random order; the mean loss on the way."""
    dense, codes, labels = rows
    total = 0.0
    for batch in torch.split(torch.randperm(len(labels), generator=generator), batch_size):
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(dense[batch], codes[batch], generator), labels[batch])
        loss.backward()
        optimizer.step()
        schedule.step()
        total += float(loss.detach()) * len(batch)
    return total / len(labels)


@torch.no_grad()
def _loss(network: Network, rows: Rows) -> float:
    dense, codes, labels = rows
    return float(functional.cross_entropy(network(dense, codes), labels))


def _rows(inputs: Inputs, soft_labels: np.ndarray, where: np.ndarray) -> Rows:
    return torch.from_numpy(inputs.dense[where]), torch.from_numpy(inputs.codes[where]), _tensor(soft_labels[where])


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _copy(network: Network) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def settings_as_dict(settings: TrainingSettings) -> dict[str, Any]:
    """The settings as `model.json` holds them."""
    return {**asdict(settings), "hidden": list(settings.hidden)}
