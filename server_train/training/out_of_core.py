"""Central training on a pool that lies on disk, in memory that does not grow with its rows, by one process or several.

The pool's rows are in random order, so its last rows are held out and its first ones shape the encoder. All others are encoded
once into flat files (see `row_source.FileRows`) that every epoch reads; the processes of one machine divide that work, and share
the files.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from distill.common.compute import single_thread
from server_train.models.features import Encoder, fit_encoder
from server_train.pooling.pool_file import GROUP_ROWS, StoredPool
from server_train.training.distributed import ALONE, Group
from server_train.training.network import Epoch, Trained, TrainingSettings, check_rows, fit_network, loss_floor
from server_train.training.rows import FileRows, Rows, make_files, open_files

CURVE_ROWS = 4 * GROUP_ROWS  # that the encoder's curves follow; their ranks are off by .001 then
MOST_HELD_OUT = 100_000
LARGE_POOL = 1_000_000
LARGE_BATCH = 32_768  # of 8,192, steps of a process's half take a fifth longer a row than whole ones, and sums over processes add to it


def fitting(settings: TrainingSettings, rows: int) -> TrainingSettings:
    """Settings that suit a pool of `rows` rows: those given, with larger batches for a large pool."""
    if rows < LARGE_POOL:
        return settings
    return replace(settings, batch_size=max(settings.batch_size, LARGE_BATCH))


@dataclass(frozen=True)
class StoredTraining:
    """What training on a stored pool gives.

    Attributes:
        trained: As training in memory gives it.
        held_out_rows: The held-out rows in public values.
        held_out_labels: Their soft labels, without class weights.
    """

    trained: Trained
    held_out_rows: pd.DataFrame
    held_out_labels: np.ndarray


def train_stored(
    pool: StoredPool,
    settings: TrainingSettings,
    *,
    scratch: Path,
    weights: np.ndarray | float = 1.0,
    group: Group = ALONE,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> StoredTraining:
    """Train a network to give the pool's soft labels from its feature columns.

    Args:
        pool: What to train on.
        settings: How.
        scratch: An existing folder on this machine for encoded rows; they are removed at the end.
        weights: Of the classes: soft labels are multiplied by them.
        group: The processes that share the training; all of them call this with the same pool and settings.
        on_epoch: Called after each epoch.

    Raises:
        ConfigError: fewer than 20 rows, or too little room in `scratch`.
        DataError: the pool is damaged.
        ModelError: the loss is not a number; or (PeerError) another process failed.
    """
    check_rows(len(pool))
    started = time.perf_counter()
    used = len(pool) - max(1, min(round(settings.validation_share * len(pool)), MOST_HELD_OUT))
    with single_thread():
        with group.together():
            encoder = fit_encoder(pool.schema, _first_rows(pool, min(used, CURVE_ROWS)))
            frame, labels = pool.rows(used, len(pool))
            inputs = encoder.encode(frame)
        held_out: Rows = (
            torch.from_numpy(inputs.dense),
            torch.from_numpy(inputs.codes.astype(np.int32)),
            torch.from_numpy((labels * weights).astype(np.float32)),
        )
        widths = encoder.n_dense, len(encoder.categoricals), pool.card.classes
        with _files(scratch, used, widths, group) as source:
            prior = _encode(pool, encoder, source, weights, group)
            fitted = fit_network(
                encoder, source, held_out, prior=prior, settings=settings, group=group, on_epoch=on_epoch
            )
    trained = Trained(
        encoder,
        fitted.network,
        fitted.curve,
        fitted.best_epoch,
        loss_floor(labels * weights),
        np.arange(used, len(pool)),
        time.perf_counter() - started,
    )
    return StoredTraining(trained, frame, labels)


def _first_rows(pool: StoredPool, rows: int) -> pd.DataFrame:
    """The first rows of the numeric features."""
    numbers = [c.name for c in pool.schema.features if c.kind != "categorical"]
    return pd.DataFrame({name: pool.column(name, rows) for name in numbers})


def _encode(
    pool: StoredPool, encoder: Encoder, source: FileRows, weights: np.ndarray | float, group: Group
) -> np.ndarray:
    """Fill the source with the pool's first rows, this process its part; mean label of all of them, (classes,)."""
    total, counted = np.zeros(pool.card.classes), 0
    with group.together():
        for number in range(group.local_rank, len(pool.starts) - 1, group.local_size):
            start = pool.starts[number]
            if start < len(source):
                frame, labels = pool.group(number)
                own = slice(0, len(source) - start)
                labels = labels[own] * weights
                source.write(start, encoder.encode(frame.iloc[own]), labels)
                total, counted = total + labels.sum(axis=0, dtype=float), counted + len(labels)
    sums = group.total(torch.from_numpy(total), counted).numpy()  # every machine counts every row once
    return np.asarray(sums[:-1] / sums[-1])


@contextmanager
def _files(scratch: Path, rows: int, widths: tuple[int, int, int], group: Group) -> Iterator[FileRows]:
    """Room for encoded rows that all processes of this machine share. Its files have no name any more once all have opened
    them, so that they end with the processes, however those end."""
    own = ""
    with ExitStack() as stack:
        try:
            with group.together():
                if group.local_rank == 0:
                    own = tempfile.mkdtemp(prefix=".encoded-", dir=scratch)
                    make_files(Path(own), rows, widths)
            shared = Path(group.from_local_first(own))
            with group.together():
                files = [stack.enter_context(file) for file in open_files(shared)]
        finally:
            if own:
                shutil.rmtree(own, ignore_errors=True)
        yield FileRows(tuple(files), rows, widths)
