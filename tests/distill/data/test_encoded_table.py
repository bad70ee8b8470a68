"""Reading a table as codes: the same codes as by way of the canonical frame, in the memory of the codes."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data import sources
from distill.data.encoded_table import EncodedTable, Growing, UnitMarks, encode_frame, read_encoded
from distill.data.grids import base_grids
from distill.data.schema import Schema
from distill.data.tables import read_table, write_table
from distill.errors import DataError
from tests.fakes.private_tables import EVERY_KIND, every_kind, integer, schema_of

UNITS = Schema.model_validate(EVERY_KIND.model_dump() | {"unit": "customer"})
ROWS = 1000


def same(one: EncodedTable, other: EncodedTable) -> None:
    assert len(one.codes) == len(other.codes)
    for a, b in zip(one.codes, other.codes, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert (one.units is None) == (other.units is None)
    if one.units is not None:
        np.testing.assert_array_equal(one.units, other.units)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("schema", [EVERY_KIND, UNITS])
def test_codes_are_those_of_the_canonical_frame(suffix, schema, tmp_path, monkeypatch):
    """The fast way (batch by batch, units hashed) against the plain one (the whole frame, units by name)."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 8192)
    monkeypatch.setattr(sources, "BATCH_ROWS", 130)
    frame, path = every_kind(ROWS, 5), tmp_path / f"table{suffix}"
    if schema.unit:
        customers = np.random.default_rng(5).integers(0, 300, ROWS)
        frame = frame.assign(customer=[f" nr {k} " if k % 2 else f"nr {k}" for k in customers])
    write_table(frame, path)
    read = read_encoded(path, schema)
    same(read, encode_frame(read_table(path, schema), schema))
    assert {c.dtype for c in read.codes} == {np.dtype(np.uint8), np.dtype(np.uint16)}
    for grid, codes in zip(base_grids(schema), read.codes, strict=True):
        assert codes.dtype == grid.code_type
        assert codes.shape == (ROWS,)


def test_a_table_without_rows_has_empty_columns(tmp_path):
    write_table(every_kind(5, 0).head(0).assign(customer=""), tmp_path / "empty.csv")
    empty = read_encoded(tmp_path / "empty.csv", UNITS)
    assert [c.shape for c in empty.codes] == [(0,)] * len(UNITS.columns)
    assert empty.units is not None
    assert empty.units.shape == (0,)


def test_a_fault_in_the_last_batch_is_refused_like_one_in_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BATCH_ROWS", 100)
    frame = every_kind(ROWS, 0)
    frame.loc[ROWS - 1, "age"] = None
    write_table(frame, tmp_path / "table.parquet")
    with pytest.raises(DataError, match=r"table\.parquet: column 'age' is integer, but has missing values") as streamed:
        read_encoded(tmp_path / "table.parquet", EVERY_KIND)
    with pytest.raises(DataError) as whole:
        read_table(tmp_path / "table.parquet", EVERY_KIND)
    assert str(streamed.value) == str(whole.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_memory_is_that_of_the_codes_and_a_few_batches(suffix, tmp_path, monkeypatch):
    """The canonical frame of these rows would take seven times as much."""
    monkeypatch.setattr(sources, "HEADER_BYTES", 1 << 14)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(sources, "BATCH_ROWS", 2000)
    path = tmp_path / f"table{suffix}"
    write_table(pd.concat([every_kind(4000, 0)] * 50, ignore_index=True), path)
    read_encoded(path, EVERY_KIND)  # imports are not counted
    tracemalloc.start()
    read = read_encoded(path, EVERY_KIND)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.25 * sum(c.nbytes for c in read.codes) + 2e6


def test_reading_codes_needs_no_torch():
    """A fit imports it later, when it trains; refusals of bad input come before."""
    code = "import sys; import distill.data.encoded_table; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@given(st.lists(st.lists(st.integers(0, 255), max_size=40), max_size=12))
def test_a_growing_array_is_its_parts_in_a_row(parts):
    grown = Growing(np.uint8)
    for part in parts:
        grown.extend(np.array(part, dtype=np.uint8))
    whole = grown.finish()
    assert whole.tolist() == [v for part in parts for v in part]
    assert whole.base is None  # it holds no more than its rows
    assert grown.finish().size == 0


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "ä", "aa", ""]), max_size=8), max_size=6))
def test_units_are_numbered_as_by_name_in_order_of_appearance(batches):
    marks = UnitMarks()
    for batch in batches:
        marks.extend(np.array(batch, dtype=object))
    names = [name for batch in batches for name in batch]
    assert marks.numbers().tolist() == pd.factorize(np.array(names, dtype=object))[0].tolist()


def test_marks_of_units_follow_a_secret_of_their_own():
    """Nobody who sees memory can look a name up by hashing it."""
    assert UnitMarks()._mark("smith") != UnitMarks()._mark("smith")


def test_a_unit_column_of_whole_numbers_is_read_as_text_is(tmp_path):
    schema = schema_of(integer("level", 0, 3), unit="customer")
    frame = pd.DataFrame({"level": [0, 1, 2], "label": [0, 1, 0], "customer": [7, 8, 7]})
    write_table(frame, tmp_path / "table.parquet")
    units = read_encoded(Path(tmp_path / "table.parquet"), schema).units
    assert units is not None
    assert units.tolist() == [0, 1, 0]
