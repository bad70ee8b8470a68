"""Drafting a schema: what it guesses, what it marks, what it leaves out, and that its own table always fits it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.schema import Schema, load_schema, parse_schema
from distill.data.schema_draft import LARGEST, UNCONFIRMED, Draft, draft_schema, outward, write_draft
from distill.data.tables import check_table, write_table
from distill.errors import DataError, SchemaError

ROWS = 60


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"customer {i}" for i in range(ROWS)],
            "year": rng.integers(1943, 2009, ROWS),
            "income": rng.normal(3e4, 1e4, ROWS).round(2),
            "flag": rng.integers(0, 2, ROWS),
            "home": rng.choice(["own", "rent"], ROWS),
            "gap": np.where(rng.random(ROWS) < 0.5, np.nan, rng.random(ROWS)),
            "default": rng.integers(0, 2, ROWS),
        }
    )


def drafted(path: Path, **settings: Any) -> tuple[Draft, Schema]:
    draft = draft_schema(path, **settings)
    return draft, parse_schema(draft.text(), where="draft")


@pytest.fixture(params=[".csv", ".parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"loans{request.param}"
    write_table(table(), path)
    return path


def test_a_draft_describes_every_column_and_marks_each(path: Path) -> None:
    draft, schema = drafted(path)
    assert schema.name == "loans"
    assert schema.target == "default"
    kinds = {c.name: c.kind for c in schema.columns}
    assert kinds == {
        "id": "categorical",
        "year": "integer",
        "income": "continuous",
        "flag": "categorical",
        "home": "categorical",
        "gap": "continuous",
        "default": "categorical",
    }
    assert all(c.from_data for c in schema.columns)
    assert schema.column("flag").categories == (0, 1)
    assert [c.name for c in schema.columns if c.nullable] == ["gap"]
    assert draft.schema["comment"] == UNCONFIRMED
    assert any("--target" in note for note in draft.notes)
    with pytest.raises(SchemaError, match="not confirmed"):
        schema.require_confirmed()


def test_the_table_fits_its_own_draft(path: Path) -> None:
    _, schema = drafted(path)
    assert check_table(path, schema) == []


def test_bounds_are_round_and_name_no_extreme_record(path: Path) -> None:
    _, schema = drafted(path)
    year = schema.column("year")
    assert (year.min, year.max) == (1940, 2010)
    assert set(table()["year"]).isdisjoint({1940, 2010})


def test_the_target_can_be_named_and_must_be_able_to_be_one(path: Path) -> None:
    assert drafted(path, target="home")[1].classes == ("own", "rent")
    with pytest.raises(SchemaError, match="no column 'nope' to be the target"):
        draft_schema(path, target="nope")
    with pytest.raises(SchemaError, match=r"column 'id' cannot be the target: .* or must be a number"):
        draft_schema(path, target="id")


def test_a_number_can_be_the_target_and_a_few_whole_values_are_classes_with_a_word(path: Path) -> None:
    draft, schema = drafted(path, target="income")
    assert (schema.task, schema.column("income").kind) == ("number", "continuous")
    assert check_table(path, schema) == []
    assert not any("by its classes" in note for note in draft.notes)
    assert drafted(path, target="home")[1].task == "classes"


def test_few_whole_values_are_drafted_as_classes_with_a_word_on_the_other_way(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{i / 7},{i % 5}\n" for i in range(100)))
    draft, schema = drafted(path, target="y")
    assert schema.classes == (0, 1, 2, 3, 4)
    assert any("to predict it as a number" in note for note in draft.notes)


def test_nothing_may_be_the_target(path: Path) -> None:
    draft, schema = drafted(path, no_target=True)
    assert schema.target is None
    assert draft.schema["target"] is None
    assert len(schema.columns) == 7
    assert check_table(path, schema) == []


def test_a_target_with_gaps_is_drafted_with_a_word(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n1,0\n2,1\n3,\n")
    draft, schema = drafted(path, target="y")
    assert not schema.column("y").nullable
    assert any("drop those rows" in note for note in draft.notes)


def test_a_table_without_anything_to_predict_asks_for_the_target(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1.5,2.5\n3.5,4.25\n")
    with pytest.raises(SchemaError, match=r"Name the target: --target COLUMN"):
        draft_schema(path)


def test_free_text_is_left_out_and_a_column_without_values_is_a_question(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("note,void,y\n" + "".join(f"text {i},,{i % 2}\n" for i in range(500)))
    draft, schema = drafted(path)
    assert [c.name for c in schema.columns] == ["void", "y"]
    assert "left out 'note'" in draft.notes[1]
    assert "'void' has no values" in draft.notes[2]
    assert not any("text 1" in note for note in draft.notes)


def test_gaps_are_seen_even_behind_many_different_values(tmp_path: Path) -> None:
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"t{suffix}"
        write_table(pd.DataFrame({"x": [*np.arange(70_000) / 7, np.nan], "y": [0, 1] * 35_000 + [1]}), path)
        _, schema = drafted(path)
        assert schema.column("x").nullable
        assert check_table(path, schema) == []


def test_booleans_and_codes_stored_as_text_stay_categories(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    codes = pa.array(["01", "02", "03"]).dictionary_encode()
    pq.write_table(pa.table({"code": codes, "one": [7, 7, 7], "y": [True, False, None]}), path)
    _, schema = drafted(path)
    assert schema.classes == ("false", "true")
    assert schema.column("code").categories == ("01", "02", "03")
    assert schema.column("one").categories == (7,)


@pytest.mark.parametrize("array", [pa.array([[1]]), pa.array([0], pa.date32()), pa.array([b"x"])])
def test_types_that_no_schema_can_describe_are_named(tmp_path: Path, array: pa.Array) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"odd": array, "y": [0]}), path)
    with pytest.raises(DataError, match="column 'odd' has a type that no schema can describe"):
        draft_schema(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,a,y\n1,2,0\n", "more than once: 'a'"), ("a,,y\n1,2,0\n", "has no name"), ("a,y\n", "no values to draft from")],
)
def test_a_table_that_cannot_be_drafted_says_why(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        draft_schema(path)


def test_a_draft_never_replaces_a_schema_unasked(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "schema.json"
    out.write_text("confirmed by hand")
    draft = draft_schema(path)
    with pytest.raises(SchemaError, match=r"is there already and is kept; .*--force"):
        write_draft(draft, out)
    assert out.read_text() == "confirmed by hand"
    write_draft(draft, out, overwrite=True)
    assert load_schema(out).name == "loans"
    assert json.loads(out.read_text()) == draft.schema


@settings(deadline=None)
@given(low=st.floats(allow_nan=False, allow_infinity=False), high=st.floats(allow_nan=False, allow_infinity=False))
def test_rounded_bounds_hold_their_values_and_differ(low: float, high: float) -> None:
    low, high = sorted((low, high))
    bottom, top = outward(low, high)
    assert bottom <= np.clip(low, -LARGEST, LARGEST)
    assert np.clip(high, -LARGEST, LARGEST) <= top
    assert bottom < top
    assert math.isfinite(top - bottom)


@settings(deadline=None)
@given(low=st.integers(-(2**52), 2**52), span=st.integers(0, 2**20))
def test_whole_bounds_stay_whole(low: int, span: int) -> None:
    bottom, top = outward(low, low + span)
    assert bottom.is_integer()
    assert top.is_integer()
    assert bottom <= low
    assert low + span <= top
