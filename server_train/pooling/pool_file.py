"""A pooled training set as one Parquet file, for pools larger than memory and for training in several processes.

Its columns are those of the public schema, then one float32 column a class with the soft labels. Its rows lie in random order, in
row groups of `GROUP_ROWS`, so that any run of them is a sample. The footer holds the pool's card as JSON: schema, bins of a
target that is a number, class frequencies, notes, and what the model card will say of the institutions. The hub writes such a
file for itself; whoever reads one checks sizes, columns and values all the same. Problems are DataErrors.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.common import files
from distill.data.bins import ColumnBins
from distill.data.schema import Column, Schema
from distill.data.sources import write_parts
from distill.errors import DataError
from server_train.models.cards import InstitutionCard, Readings
from server_train.models.number_target import TargetBins

POOL_FORMAT = 1
GROUP_ROWS = 65_536
LARGEST_GROUP = 1 << 20  # rows; more in one row group were not written here and may not fit into memory
_KEY = b"distill-pool"
_AGAIN = "Write it again with `distill train-global --prepare`."


class PoolCard(BaseModel):
    """What the footer of a pool says.

    Attributes:
        schema_: The public schema that all institutions share (`schema` in the file).
        target_bins: Of a target that is a number: what the soft labels stand for.
        rows: How many.
        class_prior: Global class frequencies.
        notes: What a reader should know, in plain words.
        institutions: As in the model card.
        privacy: Both readings of the budgets across institutions.
        rehearsal: At least one bundle was a rehearsal: NOT PRIVATE.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    format: Literal["distill-pool"] = "distill-pool"
    format_version: int = POOL_FORMAT
    schema_: Schema = Field(alias="schema")
    target_bins: TargetBins | None = None
    rows: int = Field(gt=0)
    class_prior: tuple[float, ...] = Field(min_length=1, max_length=65_536)
    notes: tuple[str, ...] = ()
    institutions: list[InstitutionCard] = Field(min_length=1)
    privacy: Readings
    rehearsal: bool = False

    @property
    def classes(self) -> int:
        """Number of soft labels a row."""
        return len(self.class_prior)

    @property
    def bins(self) -> ColumnBins | None:
        """Common bins of a target that is a number."""
        if self.target_bins is None or self.schema_.target is None:
            return None
        return self.target_bins.on(self.schema_.column(self.schema_.target))


class PoolWriter:
    """Writes a pool part by part; see `writing_pool`."""

    def __init__(self, file: Any, card: PoolCard) -> None:
        """`file` is open for writing bytes."""
        self._columns = _fields(card.schema_)
        self._labels = [pa.field(name, pa.float32()) for name in _label_names(card.schema_, card.classes)]
        text = json.dumps(card.model_dump(mode="json", by_alias=True), ensure_ascii=False)
        self._schema = pa.schema([*self._columns, *self._labels], metadata={_KEY: text.encode()})
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd", compression_level=1)

    def write(self, frame: pd.DataFrame, soft_labels: np.ndarray) -> None:
        """Add rows in public values with their soft labels (rows, classes), as row groups of their own."""
        columns = [pa.array(frame[f.name], type=f.type, from_pandas=True) for f in self._columns]
        labels = [pa.array(np.ascontiguousarray(part, np.float32)) for part in soft_labels.T]
        self._writer.write_table(pa.Table.from_arrays([*columns, *labels], schema=self._schema), GROUP_ROWS)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


@contextmanager
def writing_pool(path: Path, card: PoolCard) -> Iterator[PoolWriter]:
    """A writer of a pool that is there in full when the block ends, or not at all. Raises DataError."""
    with files.wrapped("write", path, DataError), files.staged(path) as temporary:
        try:
            with temporary.open("wb") as file:
                writer = PoolWriter(file, card)
                try:
                    yield writer
                finally:
                    writer.close()
                file.flush()
                os.fsync(file.fileno())
            files.put_in_place(temporary, path, overwrite=True)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class StoredPool:
    """A pool on disk.

    Attributes:
        path: The file.
        card: What its footer says.
        starts: First row of each row group, then the number of rows.
    """

    path: Path
    card: PoolCard
    starts: tuple[int, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return self.starts[-1]

    @property
    def schema(self) -> Schema:
        """The public schema of its rows."""
        return self.card.schema_

    def group(self, number: int) -> tuple[pd.DataFrame, np.ndarray]:
        """Rows of one row group in public values and their soft labels, float32, (rows, classes)."""
        names = [c.name for c in self.schema.columns]
        labels = _label_names(self.schema, self.card.classes)
        table = self._read(number, [*names, *labels])
        soft = np.column_stack([table[name].to_numpy() for name in labels])
        if not (np.isfinite(soft).all() and (soft >= 0).all() and (np.abs(soft.sum(axis=1) - 1) < 1e-3).all()):
            raise DataError(
                f"{self.path} is damaged: row group {number} holds soft labels that are no chances. {_AGAIN}"
            )
        return _frame(table, names), soft

    def rows(self, start: int, stop: int) -> tuple[pd.DataFrame, np.ndarray]:
        """Neighbouring rows, at most a few row groups of them, as `group` gives them."""
        parts = []
        for number, (first, end) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            if first < stop and end > start:
                frame, soft = self.group(number)
                own = slice(max(start - first, 0), stop - first)
                parts.append((frame.iloc[own], soft[own]))
        return pd.concat([f for f, _ in parts], ignore_index=True), np.concatenate([s for _, s in parts])

    def column(self, name: str, rows: int) -> "pd.Series[Any]":
        """The first values of one column, whole row groups of them until there are `rows`."""
        groups = [n for n, first in enumerate(self.starts[:-1]) if first < rows]
        return pd.concat([_frame(self._read(n, [name]), [name])[name] for n in groups], ignore_index=True).iloc[:rows]

    @cached_property
    def _file(self) -> pq.ParquetFile:
        """Open for as long as this object lives: the footer of a large pool takes a while to read."""
        texts = [c.name for c in self.schema.columns if _arrow_type(c) == pa.string()]
        return pq.ParquetFile(self.path, read_dictionary=texts)

    def _read(self, number: int, names: Sequence[str]) -> pa.Table:
        with _damage(self.path):
            return self._file.read_row_group(number, columns=list(names), use_threads=False)


def export_rows(pool: StoredPool, path: Path) -> None:
    """Write the rows without their soft labels as a table, CSV or Parquet. Raises DataError."""
    parts = (pool.group(number)[0] for number in range(len(pool.starts) - 1))
    write_parts(parts, path, pa.schema(_fields(pool.schema)))


def open_pool(path: Path) -> StoredPool:
    """Look at a pool's footer.

    Raises:
        DataError: the file is missing or damaged, holds no pool, or one of a newer version.
    """
    if not path.is_file():
        raise DataError(f"no pool at {path}. Check the path.")
    with _damage(path), pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
        groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    card = _card(path, (schema.metadata or {}).get(_KEY))
    wanted = {c.name: _arrow_type(c) for c in card.schema_.columns}
    wanted |= dict.fromkeys(_label_names(card.schema_, card.classes), pa.float32())
    if {f.name: f.type for f in schema} != wanted or len(schema) != len(wanted):
        raise DataError(f"{path} is damaged: its columns are not those that its footer describes. {_AGAIN}")
    if sum(groups) != card.rows or not all(0 < rows <= LARGEST_GROUP for rows in groups):
        raise DataError(f"{path} is damaged: its row groups do not hold the {card.rows:,} rows it describes. {_AGAIN}")
    return StoredPool(path, card, (0, *np.cumsum(groups).tolist()))


def _card(path: Path, text: bytes | None) -> PoolCard:
    """The card in the footer, checked against itself."""
    if text is None:
        raise DataError(f"{path} holds no pool: its footer has no card. {_AGAIN}")
    try:
        content = json.loads(text)
        version = content.get("format_version")
        if isinstance(version, int) and version > POOL_FORMAT:
            raise DataError(
                f"{path} has pool format {version}; this software reads up to {POOL_FORMAT}. Install a newer version."
            )
        card = PoolCard.model_validate(content)
        task, bins = card.schema_.task, card.bins
    except (ValueError, AttributeError, ValidationError):
        raise DataError(f"{path} is damaged: its card cannot be read. {_AGAIN}") from None
    expected = {"classes": len(card.schema_.classes), "number": bins.n_bins if bins is not None else 0, None: 1}
    if card.classes != expected[task] or (task == "number") != (bins is not None):
        raise DataError(f"{path} is damaged: its card and its target disagree. {_AGAIN}")
    return card


def _fields(schema: Schema) -> list[pa.Field]:
    return [pa.field(c.name, _arrow_type(c)) for c in schema.columns]


def _arrow_type(column: Column) -> pa.DataType:
    """How a column in public values is stored (see `tables.to_public`)."""
    if column.kind == "continuous":
        return pa.float64()
    whole = not column.other and all(isinstance(c, int) for c in column.categories or ())
    return pa.int64() if column.kind == "integer" or whole else pa.string()


def _label_names(schema: Schema, classes: int) -> list[str]:
    """Names of the soft labels' columns, none of them a column of the schema."""
    prefix = "chance"
    while any(c.name.startswith(prefix) for c in schema.columns):
        prefix = "_" + prefix
    return [f"{prefix}_{k}" for k in range(classes)]


def _frame(table: pa.Table, names: Sequence[str]) -> pd.DataFrame:
    """Columns in their public types; whole numbers stay whole beside missing ones."""
    columns = {}
    for name in names:
        values = table[name]
        if pa.types.is_dictionary(values.type):
            values = values.cast(pa.string())
        gaps = values.type == pa.int64() and values.null_count
        columns[name] = values.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get if gaps else None)
    return pd.DataFrame(columns)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError):  # their texts may quote bytes of the file
        raise DataError(f"{path} is not a readable Parquet file: it is damaged or cut short. {_AGAIN}") from None
