"""The one door to private rows.

A `PrivateTable` never hands out a row. It answers in noise: counts of records per cell, and sums of clipped gradients.
Every answer names the planned event that pays for it; the door checks that the event is reserved in the ledger, has runs
left, and that the noise is at least what was planned, and only then looks. `reads` lists what was answered.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from distill.accounting import Event
from distill.errors import ConfigError, UnpaidReadError
from distill.grid import ColumnGrid, base_grids, encode_table
from distill.mechanisms import NoiseSource
from distill.schema import Schema


class Reserved(Protocol):
    """Something that knows which events are paid for; in practice a ledger reservation."""

    @property
    def events(self) -> Sequence[Event]:
        """Events reserved so far."""
        ...


Rows = list[np.ndarray]  # one code array a column, in schema order: base-grid leaves, or coarse bins
LabelOf = Callable[[Rows, Rows], np.ndarray]  # (leaves, coarse) -> one cell a record, -1 where it is not counted
GradientOf = Callable[[np.ndarray], np.ndarray]  # a batch (n, d) -> sum of clipped gradients, flat


class PrivateTable:
    """Private rows behind noisy answers.

    Unit: one row; where the schema names a `unit` column, one row a unit is drawn at random on entering, with the
    noise source's generator, so that a row stands for a unit. Neighbours: add or remove one unit.
    """

    def __init__(self, frame: pd.DataFrame, schema: Schema, paid_by: Reserved, noise: NoiseSource) -> None:
        if schema.unit is not None:
            frame = frame.iloc[noise.choose_one_per_group(pd.factorize(frame[schema.unit])[0])]
        self.schema = schema
        self.grids: tuple[ColumnGrid, ...] = base_grids(schema)
        self.reads: dict[str, int] = {}
        self._paid_by, self._noise = paid_by, noise
        self._leaves: Rows = encode_table(frame, self.grids)
        self._coarse: Rows = []
        self._matrix: np.ndarray | None = None

    def recode(self, coarse: Sequence[Callable[[np.ndarray], np.ndarray]], *, target: int) -> None:
        """Map every column's leaves to coarse bins (row-local; nothing is released); gradients see the target last.

        `target` one past the last column stands for no target: a column of zeros, one class, goes there.
        """
        self._coarse = [to_bin(leaves) for to_bin, leaves in zip(coarse, self._leaves, strict=True)]
        if target == len(self._coarse):
            self._coarse.append(np.zeros_like(self._coarse[0]))
        order = [i for i in range(len(self._coarse)) if i != target] + [target]
        self._matrix = np.stack([self._coarse[i] for i in order], axis=1)

    def featurise(self, features: Mapping[int, np.ndarray], *, target: int) -> None:
        """Let gradients see features, and the class code last, instead of coarse bins; nothing is released.

        A row's features are looked up cell by cell in tables that know no row, so no row can leak into another's.

        Args:
            features: Column position -> its table, (cells, width) floats; a row's features come in this order.
            target: Position of the target, whose leaf is the class.

        Raises:
            ConfigError: a table does not have a line for each cell of its column.
        """
        for i, table in features.items():
            if len(table) != self.grids[i].cells:
                raise ConfigError(
                    f"column {self.grids[i].column.name!r} has {self.grids[i].cells} cells, and features were given "
                    f"for {len(table)}."
                )
        parts = [np.asarray(table, dtype=np.float32)[self._leaves[i]] for i, table in features.items()]
        self._matrix = np.hstack([*parts, self._leaves[target][:, None].astype(np.float32)])

    def noisy_size(self, event: str) -> int:
        """The number of units plus Laplace noise; sensitivity 1."""
        paid = self._pay(event, "laplace")
        return self._noise.laplace_count(len(self._leaves[0]), scale=paid.noise_multiplier)

    def noisy_counts(
        self, event: str, label_of: Sequence[LabelOf], sizes: Sequence[int], stddevs: Sequence[float]
    ) -> list[np.ndarray]:
        """One noisy histogram a block; integers, block b of shape (sizes[b],).

        Sensitivity: by construction a unit adds one to at most one cell of each block, so the release as a whole is a
        Gaussian mechanism with noise multiplier (sum over blocks of stddevs[b]**-2)**-0.5 (L2, add or remove one unit).

        Raises:
            UnpaidReadError: the event is not reserved, is used up, or was planned with more noise than asked here.
        """
        self._pay(event, "gaussian", precision=sum(s**-2.0 for s in stddevs))
        out = []
        for label, size, stddev in zip(label_of, sizes, stddevs, strict=True):
            cells = label(self._leaves, self._coarse)
            counts = np.bincount(cells[cells >= 0], minlength=size)[:size]
            out.append(self._noise.gaussian_counts(counts, stddev=stddev))
        return out

    def noisy_gradient(self, event: str, gradient_of: GradientOf, *, clip_norm: float) -> np.ndarray:
        """Sum of clipped per-record gradients over a Poisson sample, plus Gaussian noise; flat float32.

        `gradient_of` must bound each record's part of the sum by `clip_norm` in L2 (see `distill.dpsgd`). One call is one
        step of the event, at the event's sampling rate and noise multiplier. Source: arXiv:1607.00133, algorithm 1.
        """
        paid = self._pay(event, "poisson_gaussian")
        assert self._matrix is not None, "recode or featurise comes before any gradient"
        batch = self._matrix[self._noise.poisson_sample(len(self._matrix), rate=paid.sampling_rate)]
        total = gradient_of(batch)
        return np.asarray(total + self._noise.gaussian(total.size, stddev=paid.noise_multiplier * clip_norm))

    def _pay(self, name: str, mechanism: str, precision: float = 0.0) -> Event:
        """Find the reserved event and count one run against it; raises before any row is looked at."""
        event = next((e for e in self._paid_by.events if e.name == name), None)
        if event is None:
            raise UnpaidReadError(f"no reserved event {name!r} pays for this read; reserve it in the ledger first.")
        if event.mechanism != mechanism:
            raise UnpaidReadError(f"event {name!r} pays for a {event.mechanism} release, not {mechanism}.")
        if self.reads.get(name, 0) >= event.count:
            raise UnpaidReadError(f"event {name!r} pays for {event.count} read(s), and all are used.")
        if precision * event.noise_multiplier**2 > 1 + 1e-9:
            raise UnpaidReadError(f"event {name!r} was planned with more noise than this read would add.")
        self.reads[name] = self.reads.get(name, 0) + 1
        return event
