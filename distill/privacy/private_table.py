"""The one door to private rows.

A `PrivateTable` never hands out a row, to no code of any stage. It answers in noise: counts of records per cell, and sums of
clipped gradients. What is counted or learnt is said in public terms (`cells`, `record_gradients`) and computed here. Every
answer names the planned event that pays for it; the door checks that the event is reserved in the ledger, has runs left,
and that the noise is at least what was planned, and only then looks. `reads` lists what was answered.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from distill.data.encoded_table import EncodedTable
from distill.data.grids import ColumnGrid, base_grids
from distill.data.schema import Schema
from distill.errors import ConfigError, UnpaidReadError
from distill.privacy.cells import Cells
from distill.privacy.dpsgd import ROWS_AT_ONCE, clipped_sum, lattice_bits
from distill.privacy.events import Event
from distill.privacy.noise import NoiseSource
from distill.privacy.record_gradients import Gradients, Records

CHUNK_ROWS = (
    1 << 17
)  # counted at a time: few enough that a label and what it is made from stay in the processor's cache


class Reserved(Protocol):
    """Something that knows which events are paid for; in practice a ledger reservation."""

    @property
    def events(self) -> Sequence[Event]:
        """Events reserved so far."""
        ...


class PrivateTable:
    """Private rows behind noisy answers.

    Unit: one row; where the schema names a `unit` column, its rows, of which at most `rows_per_unit` are drawn at random on
    entering, with the noise source's generator. Neighbours: add or remove one unit, that is at most so many rows at once.
    """

    def __init__(
        self, rows: EncodedTable, schema: Schema, paid_by: Reserved, noise: NoiseSource, *, rows_per_unit: int = 1
    ) -> None:
        """Take over `rows`: where units have more than `rows_per_unit` rows, the rest is dropped from its arrays too."""
        self.schema = schema
        self.grids: tuple[ColumnGrid, ...] = base_grids(schema)
        self.reads: dict[str, int] = {}
        self._paid_by, self._noise = paid_by, noise
        self._rows_per_unit = rows_per_unit
        self._firsts: np.ndarray | None = None  # where each unit's rows begin, and the end; None: each row is a unit
        if rows.units is not None:
            chosen = noise.choose_per_group(rows.units, rows_per_unit)
            _keep(rows.codes, chosen)
            if rows_per_unit > 1:
                self._firsts = _starts(rows.units[chosen])
        self._codes: list[np.ndarray] = rows.codes
        self._features: np.ndarray | None = None
        self._order: list[int] = []

    def recode(self, coarse: Sequence[Callable[[np.ndarray], np.ndarray]], *, target: int) -> None:
        """Map every column's leaves to coarse bins; nothing is released, and the leaves are gone. Gradients see the target last.

        Each map is asked once for all cells of its column's grid, never for a row, so no row can leak into another's bin.
        `target` one past the last column stands for no target: a column of zeros, one class, goes there.
        """
        for i, (grid, to_bin) in enumerate(zip(self.grids, coarse, strict=True)):
            bins = to_bin(np.arange(grid.cells))
            self._codes[i] = _looked_up(bins.astype(np.min_scalar_type(int(bins.max()))), self._codes[i])
        if target == len(self._codes):
            self._codes.append(np.zeros(self._n, dtype=np.uint8))
        self._order = [i for i in range(len(self._codes)) if i != target] + [target]

    def featurise(self, features: Mapping[int, np.ndarray], *, target: int) -> None:
        """Let gradients see features, and the class beside them, instead of coarse bins; nothing is released.

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
        parts = [np.asarray(table, dtype=np.float32)[self._codes[i]] for i, table in features.items()]
        self._features, self._order = np.hstack(parts), [target]

    def noisy_size(self, event: str) -> int:
        """The number of rows plus Laplace noise; sensitivity: the most rows of a unit."""
        paid = self._pay(event, "laplace")
        return self._noise.laplace_count(self._n, scale=paid.cell_stddev)

    def noisy_counts(self, event: str, cells: Sequence[Cells], stddevs: Sequence[float]) -> list[np.ndarray]:
        """One noisy histogram a block; integers, block b of shape (cells[b].size,).

        Sensitivity: by construction a row adds one to at most one cell of each block, so the m rows that a unit may have,
        all alike at worst, add m to one cell of each. The release as a whole is a Gaussian mechanism with noise multiplier
        (sum over blocks of (m / stddevs[b])**2)**-0.5 (L2, add or remove one unit).

        Raises:
            UnpaidReadError: the event is not reserved, is used up, or was planned with more noise than asked here.
        """
        self._pay(event, "gaussian", precision=sum((self._rows_per_unit / s) ** 2 for s in stddevs))
        counts = self._counted(cells)
        return [self._noise.gaussian_counts(c, stddev=stddev) for c, stddev in zip(counts, stddevs, strict=True)]

    def laplace_counts(self, event: str, cells: Sequence[Cells]) -> list[np.ndarray]:
        """One noisy histogram a block, as `noisy_counts` gives, with the event's Laplace noise on every cell.

        Sensitivity: a row adds one to at most one cell of each block, so the m rows that a unit may have add at most m times
        the number of blocks to all cells together (L1, add or remove one unit). The noise's scale is that many times the
        event's noise multiplier.

        Raises:
            UnpaidReadError: the event is not reserved, is used up, or was planned for fewer blocks.
        """
        paid = self._pay(event, "laplace", blocks=len(cells))
        return [self._noise.laplace_counts(c, scale=paid.cell_stddev) for c in self._counted(cells)]

    def noisy_gradient(self, event: str, gradients: Sequence[Gradients]) -> list[np.ndarray]:
        """For each network the sum of its clipped per-record gradients over one Poisson sample, plus Gaussian noise.

        Flat float64: weight (out, in) then bias of each layer. One call is one step of the event, at the event's sampling
        rate and noise multiplier. Source: arXiv:1607.00133, algorithm 1.

        Sensitivity: a record's part for a network is clipped to the network's `clip` and then has the length root of its
        `share`; shares add up to at most 1, so all parts together have length at most 1 (L2, add or remove one row). Sum and
        noise are whole steps of one lattice, whose step follows from public numbers, and so is the answer, whoever is in
        the table.

        Where a unit may have m rows, units are sampled, each with all its rows: the event's sampling rate is a unit's
        chance, and rows that joined one by one would join more often as a unit. A sampled unit then moves the sum by at
        most m (triangle inequality; reached by m equal rows), and the noise is for that. Clipping the unit's summed
        gradient would need the same noise, and a norm that linear layers do not give for free.

        Raises:
            ConfigError: the shares add up to more than 1; nothing was counted as read.
            UnpaidReadError: the event is not reserved, or is used up.
        """
        if sum(g.share for g in gradients) > 1 + 1e-12:
            raise ConfigError("the networks' shares of one clip norm add up to more than 1.")
        paid = self._pay(event, "poisson_gaussian")
        lengths, bits = [g.share**0.5 for g in gradients], lattice_bits(paid.cell_stddev)
        total = self._noise.lattice_gaussian(sum(g.size for g in gradients), stddev=paid.cell_stddev * 2.0**bits)
        chosen = self._sampled(paid.sampling_rate)
        for start in range(0, len(chosen), ROWS_AT_ONCE):
            records = self._records(chosen[start : start + ROWS_AT_ONCE])
            sums = [
                clipped_sum(g.factors(records), clip=g.clip, length=length, bits=bits)
                for g, length in zip(gradients, lengths, strict=True)
            ]
            total += np.concatenate(sums)
        parts = np.split(total * 2.0**-bits, np.cumsum([g.size for g in gradients])[:-1])
        return [part * (g.clip / length) for part, g, length in zip(parts, gradients, lengths, strict=True)]

    def _counted(self, cells: Sequence[Cells]) -> list[np.ndarray]:
        """The exact histograms, which stay inside."""
        counts = [np.zeros(block.size, dtype=np.int64) for block in cells]
        for start in range(0, self._n, CHUNK_ROWS):
            chunk = [codes[start : start + CHUNK_ROWS] for codes in self._codes]
            for count, block in zip(counts, cells, strict=True):
                _count_cells(count, block.of(chunk))
        return counts

    @property
    def _n(self) -> int:
        """The number of rows, which is private."""
        return len(self._codes[0])

    def _sampled(self, rate: float) -> np.ndarray:
        """Rows of a Poisson sample of units, each with all its rows."""
        if self._firsts is None:
            return self._noise.poisson_sample(self._n, rate=rate)
        units = self._noise.poisson_sample(len(self._firsts) - 1, rate=rate)
        firsts, sizes = self._firsts[units], self._firsts[units + 1] - self._firsts[units]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.asarray(np.repeat(firsts, sizes) + within)

    def _records(self, chosen: np.ndarray) -> Records:
        """Some rows as gradients see them."""
        classes = self._codes[self._order[-1]][chosen].astype(np.int64)
        if self._features is not None:
            return Records(None, self._features[chosen], classes)
        return Records(np.stack([self._codes[i][chosen] for i in self._order], axis=1), None, classes)

    def _pay(self, name: str, mechanism: str, precision: float = 0.0, blocks: int = 1) -> Event:
        """Find the reserved event and count one run against it; raises before any row is looked at."""
        event = next((e for e in self._paid_by.events if e.name == name), None)
        if event is None:
            raise UnpaidReadError(f"no reserved event {name!r} pays for this read; reserve it in the ledger first.")
        if event.mechanism != mechanism:
            raise UnpaidReadError(f"event {name!r} pays for a {event.mechanism} release, not {mechanism}.")
        if self.reads.get(name, 0) >= event.count:
            raise UnpaidReadError(f"event {name!r} pays for {event.count} read(s), and all are used.")
        if event.rows_per_unit < self._rows_per_unit:
            raise UnpaidReadError(f"event {name!r} was planned for fewer rows a unit than this table keeps.")
        if event.blocks < blocks:
            raise UnpaidReadError(f"event {name!r} was planned for fewer blocks than this read would count.")
        if precision * event.noise_multiplier**2 > 1 + 1e-9:
            raise UnpaidReadError(f"event {name!r} was planned with more noise than this read would add.")
        self.reads[name] = self.reads.get(name, 0) + 1
        return event


def _keep(codes: list[np.ndarray], chosen: np.ndarray) -> None:
    """Reduce each column to the chosen rows, one column at a time, so that there are never two tables."""
    for i, column in enumerate(codes):
        codes[i] = column[chosen]


def _starts(units: np.ndarray) -> np.ndarray:
    """Where each run of equal labels begins, and the end."""
    return np.append(np.flatnonzero(np.append(True, units[1:] != units[:-1])[: units.size]), units.size)


def _looked_up(bins: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """`bins[leaves]`, a piece at a time: numpy would turn all of `leaves` into eight-byte indices first."""
    out = np.empty(len(leaves), dtype=bins.dtype)
    for start in range(0, len(leaves), CHUNK_ROWS):
        out[start : start + CHUNK_ROWS] = bins[leaves[start : start + CHUNK_ROWS]]
    return out


def _count_cells(counts: np.ndarray, cells: np.ndarray) -> None:
    """Add to `counts` how often each of its cells occurs; cells outside, negative ones among them, are not counted."""
    if cells.size and cells.min() < 0:
        cells = cells[cells >= 0]
    counts += np.bincount(cells, minlength=len(counts))[: len(counts)]
