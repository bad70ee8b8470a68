"""Reading private tables so that they fit their public schema, and turning rows back to the schema's own values.

The *canonical* frame has the schema's columns in the schema's order: numbers as float64 (NaN is missing) inside their
bounds; categories as `pandas.Categorical` over the schema's categories as text, then OTHER where the column allows it;
the unit column, if the schema names one, last and as text. Tables are read in batches and encoded at once, so memory
stays at about the canonical frame. A fit needs no such frame: it takes the batches (`open_encoded`) and keeps small codes
of them (`distill.data.encoded_table`).

Promise: no text of an error or a finding quotes a value of the table or a count of its rows.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from distill.data.columns import (
    MISSING,
    CategoryEncoder,
    Encoder,
    Finding,
    NumberEncoder,
    Report,
    UnitEncoder,
    listed,
    texts_of,
)
from distill.data.schema import OTHER, Column, Schema
from distill.data.sources import Source, name_of, open_frame, open_table, write_table
from distill.errors import DataError

__all__ = [
    "MISSING",
    "OTHER",
    "EncodedBatches",
    "Finding",
    "Role",
    "canonical_table",
    "check_table",
    "open_encoded",
    "read_beside",
    "read_table",
    "to_public",
    "write_table",
]

Role = Literal["fit", "evaluate", "predict"]


@dataclass(frozen=True)
class EncodedBatches:
    """A table on its way: checked against its schema and encoded, batch by batch.

    Attributes:
        encoders: One a column, in the order of the canonical frame.
        batches: Yields one array a column (see `table_columns.Encoder.encode`), in the same order.
    """

    encoders: dict[str, Encoder]
    batches: Iterator[list[np.ndarray]]


def read_table(source: Source, schema: Schema, *, role: Role = "fit", beside: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV or Parquet file, or a frame as it came, into the canonical frame (see the module's text).

    Numbers outside their bounds are clipped. A category that the schema does not list becomes OTHER where the column
    allows it, else missing where it may be missing, else it is refused. Outer spaces are dropped, empty cells and the
    texts in MISSING are missing, and 1.0 is the category 1.

    Args:
        source: A file, whose suffix tells the format, or a frame.
        schema: The public schema.
        role: `fit` wants every column; `evaluate` lets the unit column be absent and drops it; `predict` does the
            same with the target, and ignores columns that the schema does not name.
        beside: Further columns that the table may have; they are left out here (see `read_beside`).

    Raises:
        DataError: The table cannot be read (see `sources.open_table`) or does not fit the schema.
    """
    with open_encoded(source, schema, role=role, beside=beside) as table:
        return _frame(table)


def read_beside(source: Source, names: Sequence[str]) -> pd.DataFrame:
    """Read columns of a table that its schema does not name, as texts without outer spaces, "" where missing.

    Raises:
        DataError: The table cannot be read, or has no such column.
    """
    with open_table(source) as table:
        absent = [name for name in names if name not in table.names]
        if absent:
            raise DataError(
                f"{name_of(source)}: column(s) missing: {listed(absent)}; neither the schema nor the table has them."
            )
        places = {name: table.names.index(name) for name in names}
        parts = [{name: texts_of(batch[place]) for name, place in places.items()} for batch in table.columns]
    return pd.DataFrame({name: np.concatenate([p[name] for p in parts] or [np.empty(0, object)]) for name in names})


@contextmanager
def open_encoded(
    source: Source, schema: Schema, *, role: Role = "fit", beside: Sequence[str] = ()
) -> Iterator[EncodedBatches]:
    """Open a table to take it batch by batch, by the rules of `read_table`; it is closed when the block ends.

    Raises:
        DataError: At once or while batches are drawn, as `read_table` does.
    """
    with open_table(source) as table:
        yield _encoded(table.names, table.columns, schema, role, _refuse(name_of(source)), beside)


def canonical_table(frame: pd.DataFrame, schema: Schema, *, role: Role = "fit", where: str = "table") -> pd.DataFrame:
    """The canonical frame of rows already in memory, by the rules of `read_table`; `where` names them in errors."""
    table = open_frame(frame, where)
    return _frame(_encoded(table.names, table.columns, schema, role, _refuse(where)))


def check_table(source: Source, schema: Schema, *, role: Role = "fit") -> list[Finding]:
    """Find every way in which a table differs from its schema: for the operator's eyes, each once, errors first.

    Raises:
        DataError: The table cannot be read at all.
    """
    found: dict[Finding, None] = {}
    with open_table(source) as table:
        encoded = _encoded(table.names, table.columns, schema, role, lambda finding: found.setdefault(finding))
        for _ in encoded.batches:
            pass
    return sorted(found, key=lambda finding: finding.severity)


def to_public(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Rows of the canonical frame in the schema's own values; the unit column is left out, an absent target stays so.

    Integers are int64 (Int64 where some are missing), continuous columns float64, categories the schema's own integers
    or texts; a column whose integers may be joined by OTHER is all text. Missing is NA, NaN or None.
    """
    columns = {c.name: public_column(frame[c.name], c) for c in schema.columns if c.name in frame.columns}
    return pd.DataFrame(columns, index=frame.index)


def public_column(values: "pd.Series[Any]", column: Column) -> "pd.Series[Any]":
    """One canonical column in its public type, as in `to_public`."""
    if column.kind == "continuous":
        return values.astype("float64")
    if column.kind == "integer":
        return values.astype("Int64" if values.isna().any() else "int64")
    codes = values.cat.codes.to_numpy()
    categories = column.categories or ()
    whole = not column.other and all(isinstance(c, int) for c in categories)
    kept = [*(str(c) for c in categories), OTHER] if column.other else categories
    lookup = np.array([*kept, None], dtype=object)  # code -1 is the last: None
    public = pd.Series(lookup[codes], index=values.index, dtype=object)
    return public.astype("Int64" if (codes < 0).any() else "int64") if whole else public


def _refuse(where: str) -> Report:
    """A report that raises at the first error."""

    def report(finding: Finding) -> None:
        if finding.severity == "error":
            raise DataError(f"{where}: {finding.message}")

    return report


def _encoded(
    names: tuple[str, ...],
    batches: Iterator[list[Any]],
    schema: Schema,
    role: Role,
    report: Report,
    beside: Sequence[str] = (),
) -> EncodedBatches:
    """Match the names with the schema at once, encode when batches are drawn."""
    _check_names(tuple(n for n in names if n not in beside or schema.has(n)), schema, role, report)
    wanted = [c for c in schema.columns if c.name in names and not (role == "predict" and c.name == schema.target)]
    encoders: dict[str, Encoder] = {
        c.name: CategoryEncoder(c, c.name == schema.target, report)
        if c.kind == "categorical"
        else NumberEncoder(c, report)
        for c in wanted
    }
    if role == "fit" and schema.unit in names:
        encoders[schema.unit] = UnitEncoder(schema.unit, report)
    places = [(names.index(name), encoder) for name, encoder in encoders.items()]
    return EncodedBatches(encoders, ([e.encode(batch[place]) for place, e in places] for batch in batches))


def _frame(table: EncodedBatches) -> pd.DataFrame:
    """The canonical frame of a table; a column's batches are let go once it is whole."""
    parts: list[list[np.ndarray]] = [[] for _ in table.encoders]
    for batch in table.batches:
        for part, values in zip(parts, batch, strict=True):
            part.append(values)
    out = {}
    for (name, encoder), part in zip(table.encoders.items(), parts, strict=True):
        out[name] = encoder.join(part)
        part.clear()
    return pd.DataFrame(out, columns=pd.Index(list(table.encoders), dtype=object), copy=False)


def _check_names(names: tuple[str, ...], schema: Schema, role: Role, report: Report) -> None:
    """Report columns that are missing, repeated or unknown.

    Names outside the schema are quoted only where most of the header is as expected: the first line of a file
    without a header is a private record.
    """
    known = [c.name for c in schema.columns] + ([schema.unit] if schema.unit else [])
    optional = {"fit": set(), "evaluate": {schema.unit}, "predict": {schema.unit, schema.target}}[role]
    missing = [name for name in known if name not in names and name not in optional]
    extra = [name for name in dict.fromkeys(names) if name not in known]
    twice = [name for name, times in Counter(names).items() if times > 1 and name in known]
    found = len(set(known) & set(names))
    if not found:
        expected = (
            f"expected {listed(known)}; the first line must name the columns, and the schema must be this table's"
        )
        report(_columns(f"none of the schema's columns is in its header ({expected})"))
        return
    if missing:
        report(_columns(f"column(s) missing: {listed(missing)}; add them, or take the schema of this table"))
    if twice:
        report(_columns(f"column(s) there more than once: {listed(twice)}; keep one of each"))
    if extra and role != "predict":
        shown = listed(name or "(without a name)" for name in extra) if 2 * found >= len(known) else "(not shown)"
        mend = "drop them from the table, or describe them in the schema"
        report(_columns(f"column(s) that the schema does not name: {shown}; {mend}"))


def _columns(message: str) -> Finding:
    """An error about the table's columns as a whole."""
    return Finding("", "error", message + ".")
