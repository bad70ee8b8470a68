"""The bundle's tables as bytes, and back, with every size and type checked before it is decoded.

Samples are a Parquet file of fixed-width columns only: a category is its place in the schema (16 bits), an integer has
64 bits, a continuous number is a double. There are no texts to blow up, no metadata and no inner compression: a page
may claim to unpack to 2 GB, while the sizes in the zip around it are checked beforehand (and the zip packs as well:
measured on three public tables, within about 2 % of zstd inside).
Problems are ValueErrors in a few words; the caller adds the file.
"""

import io
from typing import Any

import numpy as np
import pandas as pd

from distill.data.schema import Column, Schema
from distill.data.tables import OTHER, public_column
from distill.exchange.parquet_guard import check_footer

MAX_CELLS = 50_000_000
FREE_CELLS = 1_000_000  # the largest level stores no more; beyond it a run-length code must not make rows from nothing
CELLS_A_BYTE = 200
MAX_WHOLE = 2**53  # beyond it a double no longer holds every whole number


def labels_of(column: Column) -> list[str]:
    """The texts a categorical column may hold, in the order of their codes."""
    return [*(str(c) for c in column.categories or ()), *([OTHER] if column.other else [])]


def encode_samples(frame: pd.DataFrame, schema: Schema) -> bytes:
    """Rows (canonical or in public terms, columns in any order) as Parquet. Raises ValueError naming the column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [c.name for c in schema.columns]
    if sorted(map(str, frame.columns)) != sorted(names):
        raise ValueError("the samples' columns are not those of the schema")
    table = pa.table([_encoded(frame[c.name], c) for c in schema.columns], names=names)
    sink = io.BytesIO()
    whole = [c.name for c in schema.columns if c.kind != "continuous"]
    with pq.ParquetWriter(
        sink, table.schema, compression="NONE", use_dictionary=whole, write_statistics=False, store_schema=False
    ) as writer:
        if table.num_rows:  # a row group without rows is nothing that a reader should have to know
            writer.write_table(table)
    return sink.getvalue()


def decode_samples(data: bytes, schema: Schema) -> pd.DataFrame:
    """Rows in public terms; columns, categories, bounds and missing values fit the schema. Raises ValueError if not."""
    arrays = _read_parquet(data, schema)
    columns = {}
    for c in schema.columns:  # one at a time, so that a large table is never held in two forms
        columns[c.name] = public_column(pd.Series(_decoded(arrays.pop(0), c)), c)
    return pd.DataFrame(columns, copy=False)


def no_samples(schema: Schema) -> pd.DataFrame:
    """What `decode_samples` gives for a bundle that stores no rows."""
    return decode_samples(encode_samples(pd.DataFrame({c.name: np.zeros(0) for c in schema.columns}), schema), schema)


def _encoded(values: "pd.Series[Any]", column: Column) -> Any:
    """One column as a fixed-width arrow array, missing values null."""
    import pyarrow as pa

    missing = values.isna().to_numpy()
    if missing.any() and not column.nullable:
        raise ValueError(f"column {column.name!r} must not have missing values")
    if column.kind == "categorical":
        codes = pd.Index(labels_of(column)).get_indexer(pd.Index(values.astype(object).map(str, na_action="ignore")))
        if (codes[~missing] < 0).any():
            raise ValueError(f"column {column.name!r} holds a category that is not in the schema")
        return pa.array(codes.astype(np.int16), mask=missing)
    numbers = values.astype("float64").to_numpy()
    _require_bounds(numbers[~missing], column)
    if column.kind == "integer":
        return pa.array(np.where(missing, 0, numbers).astype(np.int64), mask=missing)
    return pa.array(numbers, mask=missing)


def _decoded(values: Any, column: Column) -> Any:
    """One column in canonical form from its arrow array."""
    missing = np.asarray(values.is_null())
    if missing.any() and not column.nullable:
        raise ValueError(f"column {column.name!r} must not have missing values")
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    if column.kind == "categorical":
        labels = labels_of(column)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < len(labels)):
            raise ValueError(f"column {column.name!r} holds a category that is not in the schema")
        codes: np.ndarray = np.where(missing, np.int16(-1), numbers)
        return pd.Categorical.from_codes(codes, categories=pd.Index(labels))
    _require_bounds(numbers[~missing], column)
    return np.where(missing, np.nan, numbers.astype(np.float64))


def _require_bounds(numbers: np.ndarray, column: Column) -> None:
    assert column.min is not None
    assert column.max is not None
    if column.kind == "integer" and max(-column.min, column.max) > MAX_WHOLE:
        raise ValueError(f"column {column.name!r} is integer and its bounds go beyond 2**53: make it continuous")
    if not np.all((numbers >= column.min) & (numbers <= column.max)):  # NaN fails too
        raise ValueError(f"column {column.name!r} holds a number outside its bounds {column.min:g}..{column.max:g}")
    if column.kind == "integer" and not np.all(numbers == np.floor(numbers)):
        raise ValueError(f"column {column.name!r} is integer and holds a fraction")


def _read_parquet(data: bytes, schema: Schema) -> list[Any]:
    """The columns of the file. The library sees it only after its footer was checked; what it raises is ValueError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"categorical": "int16", "integer": "int64", "continuous": "double"}
    columns = [(c.name, kinds[c.kind]) for c in schema.columns]
    cells = min(MAX_CELLS, max(FREE_CELLS, CELLS_A_BYTE * len(data)))
    rows = check_footer(data, columns, max_rows=cells // len(columns))
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = file.read(use_threads=False)
        arrays = [table.column(i).combine_chunks() for i in range(table.num_columns)]
        for values in arrays:
            values.validate(full=True)
    except Exception:  # a hostile file may raise anything; its words are not repeated
        raise ValueError("the samples are not a readable Parquet file") from None
    found = [(name, str(values.type)) for name, values in zip(table.column_names, arrays, strict=True)]
    if found != columns or any(len(values) != rows for values in arrays):
        raise ValueError("the samples are not the columns and rows that their footer says")
    return arrays
