"""Private rows as small codes: what a fit keeps of a table, and how it is read without ever holding the table.

Each batch of the file becomes codes on the base grids at once, one or two bytes a value, and the batch is let go. The
base grids follow from the public schema alone, so encoding looks at one value at a time and releases nothing.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from distill.data.grids import base_grids, encode_table
from distill.data.schema import Schema
from distill.data.sources import Source
from distill.data.tables import EncodedBatches, open_encoded

GROWTH = 8  # a growing array is at most an eighth larger than it needs to be
_SECRET_BYTES, _MARK_BYTES = 32, 16


@dataclass(frozen=True, eq=False)
class EncodedTable:
    """The rows of a private table.

    Attributes:
        codes: One array a column in the order of the schema, base-grid cells, uint8 or uint16, shape (rows,).
        units: Which unit each row belongs to, numbered in the order of first appearance, (rows,); None where a row
            is a unit.
    """

    codes: list[np.ndarray]
    units: np.ndarray | None


def read_encoded(source: Source, schema: Schema) -> EncodedTable:
    """Read a file or a frame for a fit, by the rules of `tables.read_table`; memory stays at about the codes.

    Raises:
        DataError: The table cannot be read or does not fit the schema.
    """
    with open_encoded(source, schema) as table:
        return _gather(table, schema)


def encode_frame(frame: pd.DataFrame, schema: Schema) -> EncodedTable:
    """The same of a canonical frame that is in memory already (see `tables.canonical_table`)."""
    units = None if schema.unit is None else pd.factorize(frame[schema.unit])[0]
    return EncodedTable(encode_table(frame, base_grids(schema)), units)


def _gather(table: EncodedBatches, schema: Schema) -> EncodedTable:
    """Draw all batches, keeping codes only."""
    grids = base_grids(schema)
    codes = [Growing(grid.code_type) for grid in grids]
    marks = None if schema.unit is None else UnitMarks()
    for batch in table.batches:
        values = dict(zip(table.encoders, batch, strict=True))
        for grid, grown in zip(grids, codes, strict=True):
            grown.extend(grid.leaves_of(values[grid.column.name]))
        if marks is not None and schema.unit is not None:
            marks.extend(values[schema.unit])
    return EncodedTable([grown.finish() for grown in codes], None if marks is None else marks.numbers())


class Growing:
    """An array that grows at its end, without a second copy of itself where the system can move memory."""

    def __init__(self, dtype: npt.DTypeLike, width: int = 1) -> None:
        """Empty; `width` values a row, laid out flat."""
        self._width, self._filled = width, 0
        self._values: npt.NDArray[Any] = np.empty(0, dtype=dtype)

    def extend(self, values: npt.NDArray[Any]) -> None:
        """Put `values`, (n,) or (n, width), behind what is there."""
        flat = values.reshape(-1)
        wanted = self._filled + flat.size
        if wanted > self._values.size:
            self._values.resize(wanted + wanted // GROWTH, refcheck=False)  # nobody else holds it: see `finish`
        self._values[self._filled : wanted] = flat
        self._filled = wanted

    def finish(self) -> npt.NDArray[Any]:
        """All values, (n,) or (n, width) if width is above 1; this object is empty afterwards."""
        values, self._values = self._values, np.empty(0, dtype=self._values.dtype)
        values.resize(self._filled, refcheck=False)
        self._filled = 0
        return values.reshape(-1, self._width) if self._width > 1 else values


class UnitMarks:
    """Tells units apart without keeping their names: each becomes 128 bits, hashed with a secret of this object.

    Two of u units share a mark, and would count as one, with chance below u**2 / 2**129: 2e-25 for ten million.
    """

    def __init__(self) -> None:
        """No unit yet; the secret is fresh and never stored, so marks say nothing about names."""
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self._marks = Growing(np.uint64, width=2)

    def extend(self, texts: npt.NDArray[np.object_]) -> None:
        """Note the units of further rows, (n,) texts."""
        positions, distinct = pd.factorize(texts)
        marks = b"".join(self._mark(text) for text in distinct)
        self._marks.extend(np.frombuffer(marks, dtype=np.uint64).reshape(-1, 2)[positions])

    def numbers(self) -> npt.NDArray[np.uint32]:
        """A number for each row's unit, 0, 1, 2 ... in the order of first appearance, (rows,); the marks are let go."""
        marks = self._marks.finish()
        order = np.lexsort(marks.T)  # stable, so a unit's first row comes first
        starts = np.ones(len(order), dtype=bool)
        starts[1:] = (marks[order[1:]] != marks[order[:-1]]).any(axis=1)
        del marks
        appeared = np.argsort(order[starts])
        rank = np.empty(len(appeared), dtype=np.uint32)
        rank[appeared] = np.arange(len(appeared), dtype=np.uint32)
        numbers = np.empty(len(order), dtype=np.uint32)
        numbers[order] = rank[np.cumsum(starts) - 1]
        return numbers

    def _mark(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8"), digest_size=_MARK_BYTES, key=self._secret).digest()
