"""Encoded training rows, in memory or on disk, and the order in which an epoch takes them.

From memory the rows of an epoch come in one random order. From disk they come in *blocks* of neighbouring rows in random order,
`BUFFER_BLOCKS` of them at a time, whose rows are mixed: two random orders that need memory for a few blocks only. The rows of
a pool lie in random order already, so this mixes well enough. The order follows from the generator alone, so all
processes that share a training agree on it.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from distill.errors import ConfigError
from server_train.models.features import Inputs

BLOCK_ROWS = 65_536
BUFFER_BLOCKS = 8
Rows = tuple[Tensor, Tensor, Tensor]  # dense, codes, soft labels


class RowSource(Protocol):
    """Encoded rows that can be read in runs."""

    def __len__(self) -> int:
        """Number of rows."""

    @property
    def at_once(self) -> int:
        """Rows that are mixed with each other; memory holds so many."""

    def read(self, runs: list[slice]) -> Rows:
        """Rows of several runs, one run after the other."""


@dataclass(frozen=True)
class MemoryRows:
    """Rows in memory: dense float32 (rows, dense features), codes (rows, columns), soft labels float32 (rows, classes)."""

    dense: np.ndarray
    codes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def at_once(self) -> int:
        """All."""
        return len(self)

    def read(self, runs: list[slice]) -> Rows:
        """All rows: there is one run."""
        (run,) = runs
        return torch.from_numpy(self.dense[run]), torch.from_numpy(self.codes[run]), torch.from_numpy(self.labels[run])


NAMES = ("dense", "codes", "labels")
KINDS = (np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.float32))


@dataclass(frozen=True)
class FileRows:
    """Rows in three flat files, which several processes may fill together.

    Attributes:
        files: Of dense features, codes and soft labels; open for reading and writing, without a buffer.
        rows: How many.
        widths: Dense features, categorical columns, classes.
    """

    files: tuple[BinaryIO, ...]
    rows: int
    widths: tuple[int, int, int]

    def __len__(self) -> int:
        """Number of rows."""
        return self.rows

    @property
    def at_once(self) -> int:
        """A few blocks."""
        return min(self.rows, BUFFER_BLOCKS * BLOCK_ROWS)

    def write(self, start: int, inputs: Inputs, labels: np.ndarray) -> None:
        """Put rows at their place, from row `start` on."""
        for file, kind, values in zip(self.files, KINDS, (inputs.dense, inputs.codes, labels), strict=True):
            file.seek(start * values.shape[1] * kind.itemsize)
            np.ascontiguousarray(values, kind).tofile(file)

    def read(self, runs: list[slice]) -> Rows:
        """Rows of several runs, one run after the other."""
        total = sum(run.stop - run.start for run in runs)
        out = []
        for file, kind, width in zip(self.files, KINDS, self.widths, strict=True):
            values, filled = np.empty((total, width), kind), 0
            for run in runs:
                part = values[filled : filled + run.stop - run.start]
                file.seek(run.start * width * kind.itemsize)
                if part.size and file.readinto(part.data.cast("B")) != part.nbytes:  # type: ignore[attr-defined]
                    raise ConfigError("the files of encoded rows were cut short while they were in use. Train again.")
                filled += len(part)
            out.append(torch.from_numpy(values))
        return out[0], out[1], out[2]


def make_files(folder: Path, rows: int, widths: tuple[int, int, int]) -> None:
    """Make the files of a `FileRows` in a folder, still empty. Raises ConfigError where the disk has too little room."""
    sizes = [rows * width * kind.itemsize for width, kind in zip(widths, KINDS, strict=True)]
    free = shutil.disk_usage(folder).free
    if sum(sizes) > free:
        raise ConfigError(
            f"training on {rows:,} rows takes {sum(sizes) / 1e9:.1f} GB of disk while it runs, and there is room for "
            f"{free / 1e9:.1f} GB in {folder.parent}. Free some, or choose another folder with --out."
        )
    for name, size in zip(NAMES, sizes, strict=True):
        with (folder / name).open("xb") as file:
            file.truncate(size)


def open_files(folder: Path) -> list[BinaryIO]:
    """The files that `make_files` made, for a `FileRows`."""
    return [(folder / name).open("r+b", buffering=0) for name in NAMES]


def steps(source: RowSource, batch_size: int) -> int:
    """Batches of one epoch."""
    whole, rest = divmod(len(source), source.at_once)
    return whole * -(-source.at_once // batch_size) + -(-rest // batch_size)


def batches(source: RowSource, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Rows, Tensor]]:
    """One epoch: for each batch some rows, and which of them it takes, in order."""
    for runs in _mixed(source, generator):
        rows = source.read(runs)
        for batch in torch.split(torch.randperm(len(rows[2]), generator=generator), batch_size):
            yield rows, batch


def _mixed(source: RowSource, generator: torch.Generator) -> list[list[slice]]:
    """Which runs are read together; the last block, which may be shorter, keeps its place, so every epoch has as many steps."""
    if len(source) <= source.at_once:
        return [[slice(0, len(source))]]
    starts = list(range(0, len(source), BLOCK_ROWS))
    order = [*torch.randperm(len(starts) - 1, generator=generator).tolist(), len(starts) - 1]
    runs = [slice(starts[i], min(starts[i] + BLOCK_ROWS, len(source))) for i in order]
    return [runs[i : i + BUFFER_BLOCKS] for i in range(0, len(runs), BUFFER_BLOCKS)]
