"""Central training of the network on the pooled synthetic rows.

Soft labels (the class heads' probabilities) teach more per row than drawn ones. A tenth of the pool is held
out: its loss halts training and picks the best epoch. The pool is synthetic, so this costs no budget, and one
seed repeats the run. The held-out loss says how well the network learnt what the bundles say, not how well it does on
real rows.

Rows come from memory, or from encoded blocks on disk (see `stored_training`); they may be shared by several processes, which then
do together what one would do.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from distill.common import checks
from distill.common.compute import single_thread
from distill.data.schema import Schema
from distill.errors import ConfigError, ModelError
from server_train.models.features import Encoder, fit_encoder
from server_train.models.model import Network, network_for
from server_train.training.distributed import ALONE, Group
from server_train.training.rows import MemoryRows, Rows, RowSource, batches, steps

LEAST_VISITS = 10_000_000  # ten passes over a million rows; more rows need fewer passes
LOSS_ROWS = 65_536  # of the held-out rows, looked at at once


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the network is trained. All of it is public and none of it moves epsilon.

    Attributes:
        hidden: Widths of the hidden layers.
        dropout: Share of hidden units left out at each step, in [0, 1).
        learning_rate: Of AdamW at the start; falls to zero along half a cosine.
        weight_decay: Of AdamW.
        batch_size: Rows a step.
        steps: Optimiser steps aimed at, rounded up to whole epochs (`max_epochs` at most, ten at least; of pools with more than a
            million rows fewer, three at least).
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
        checks.positive(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            steps=self.steps,
            max_epochs=self.max_epochs,
            patience=self.patience,
            validation_share=self.validation_share,
        )
        checks.at_most(0.5, validation_share=self.validation_share)
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden must hold widths of at least 1, not {self.hidden!r}.")
        if not 0 <= self.dropout < 1 or self.weight_decay < 0:
            raise ConfigError("dropout must be in [0, 1) and weight_decay at least 0.")

    def epochs(self, rows: int) -> int:
        """Passes over `rows` training rows that make about `steps` steps."""
        least = min(10, max(3, math.ceil(LEAST_VISITS / max(1, rows))))
        wanted = max(least, math.ceil(self.steps / max(1, math.ceil(rows / self.batch_size))))
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
        soft_labels: Class probabilities, shape (rows, classes), rows summing to one; or these times class weights.
        settings: How.
        on_epoch: Called after each epoch.

    Raises:
        ConfigError: fewer than 20 rows.
        ModelError: the loss is not a number.
    """
    started = time.perf_counter()
    encoder = fit_encoder(schema, frame)
    inputs = encoder.encode(frame)
    used, held_out = split_rows(len(frame), settings)
    labels = np.ascontiguousarray(soft_labels, dtype=np.float32)
    kept = [values[held_out] for values in (inputs.dense, inputs.codes, labels)]
    fitted = fit_network(
        encoder,
        MemoryRows(inputs.dense[used], inputs.codes[used], labels[used]),
        (torch.from_numpy(kept[0]), torch.from_numpy(kept[1]), torch.from_numpy(kept[2])),
        prior=soft_labels.mean(axis=0),
        settings=settings,
        on_epoch=on_epoch,
    )
    return Trained(
        encoder,
        fitted.network,
        fitted.curve,
        fitted.best_epoch,
        loss_floor(soft_labels[held_out]),
        held_out,
        time.perf_counter() - started,
    )


def split_rows(rows: int, settings: TrainingSettings) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows to train on and of those to hold out. Raises ConfigError for fewer than 20 rows."""
    check_rows(rows)
    order = np.random.default_rng(settings.seed).permutation(rows)
    split = max(1, round(settings.validation_share * rows))
    return np.sort(order[split:]), np.sort(order[:split])


def check_rows(rows: int) -> None:
    """Raise ConfigError for fewer than 20 rows."""
    if rows < 20:
        raise ConfigError(f"{rows} pooled rows are too few to train on; ask for at least 20 (--rows).")


def loss_floor(soft_labels: np.ndarray) -> float:
    """The least cross-entropy that any scores can have to soft labels (times class weights): that of their own shares."""
    labels = soft_labels.astype(float)
    shares = labels / labels.sum(axis=1, keepdims=True)
    return float(-(labels * np.log(np.maximum(shares, 1e-12))).sum(axis=1).mean())


@dataclass(frozen=True)
class FittedNetwork:
    """A network with its learning curve and the pass whose weights it has."""

    network: Network
    curve: tuple[Epoch, ...]
    best_epoch: int


def fit_network(
    encoder: Encoder,
    used: RowSource,
    held_out: Rows,
    *,
    prior: np.ndarray,
    settings: TrainingSettings,
    group: Group = ALONE,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> FittedNetwork:
    """Train a network on encoded rows until the held-out loss stops falling.

    Args:
        encoder: Made the rows.
        used: Rows to train on, the same in every process.
        held_out: Rows that halt the training, the same in every process.
        prior: Class frequencies that the network starts from, (classes,).
        settings: How.
        group: The processes that share the training; all of them call this, and get the same network.
        on_epoch: Called after each epoch.

    Raises:
        ModelError: the loss is not a number; or (PeerError) another process is gone.
    """
    network = network_for(encoder, settings.hidden, classes=len(prior), dropout=settings.dropout)
    generator = torch.Generator().manual_seed(settings.seed)
    network.initialise(
        generator,
        inputs=encoder.n_dense + len(encoder.categoricals),
        prior=torch.from_numpy(np.ascontiguousarray(prior, dtype=np.float32)),
    )
    network.to(group.device)
    with single_thread(), group.noticing_loss():
        curve, best = _fit(network, used, held_out, settings, generator, group, on_epoch)
    return FittedNetwork(network.cpu().eval(), tuple(curve), best)


def _fit(
    network: Network,
    used: RowSource,
    held_out: Rows,
    settings: TrainingSettings,
    generator: torch.Generator,
    group: Group,
    on_epoch: Callable[[Epoch], None] | None,
) -> tuple[list[Epoch], int]:
    """Epochs until the held-out loss stops falling; leaves the best weights in `network`."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    epochs = settings.epochs(len(used))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps(used, settings.batch_size))
    shared = group.shared(network)
    curve: list[Epoch] = []
    best, lowest, waited, kept = 0, float("inf"), 0, _copy(network)
    for number in range(1, epochs + 1):
        loss = _epoch(shared, used, settings.batch_size, optimizer, schedule, generator, group)
        losses = group.total(loss, _loss(network, held_out, group)) / torch.tensor([len(used), len(held_out[2])])
        epoch = Epoch(number, *losses.tolist())
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
    network: nn.Module,
    source: RowSource,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
    group: Group,
) -> float:
    """One pass over the rows in random order; the sum over this process's rows of their losses on the way.

    A batch's gradient is the mean over all its rows: each process has the sum over its own, and the mean over processes is taken.
    """
    total = 0.0
    for rows, batch in batches(source, batch_size, generator):
        own = group.share(len(batch))
        dense, codes, labels = (values[batch[own]].to(group.device) for values in rows)
        optimizer.zero_grad(set_to_none=True)
        logits = network(dense, codes, generator, part=(own, len(batch)))
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        (loss * (group.size / len(batch))).backward()
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
    return total


@torch.no_grad()
def _loss(network: Network, rows: Rows, group: Group) -> float:
    """The sum of the losses of this process's share of the rows."""
    own = group.share(len(rows[2]))
    total = 0.0
    for dense, codes, labels in zip(*(values[own].split(LOSS_ROWS) for values in rows), strict=True):
        logits = network(dense.to(group.device), codes.to(group.device))
        total += float(functional.cross_entropy(logits, labels.to(group.device), reduction="sum"))
    return total


def _copy(network: Network) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def settings_as_dict(settings: TrainingSettings) -> dict[str, Any]:
    """The settings as `model.json` holds them."""
    return {**asdict(settings), "hidden": list(settings.hidden)}
