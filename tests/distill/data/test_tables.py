"""Reading and writing tables: what is accepted and how it is read, what is refused and in which words."""

import json
import math
import os
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import sources
from distill.data.schema import Schema, parse_schema
from distill.data.tables import MISSING, OTHER, canonical_table, check_table, read_table, to_public, write_table
from distill.errors import DataError

COLUMNS = [
    {"name": "age", "kind": "integer", "min": 18, "max": 100},
    {"name": "income", "kind": "continuous", "min": -10.0, "max": 1e6, "nullable": True},
    {"name": "home", "kind": "categorical", "categories": ["own", "rent", "none"], "nullable": True},
    {"name": "job", "kind": "categorical", "categories": ["clerk", "smith"], "other": True},
    {"name": "default", "kind": "categorical", "categories": [0, 1]},
]
HEADER = "age,income,home,job,default\n"
ROW = "41,1234.5,own,clerk,0\n"
SECRET = "Xanthippe"  # a value that no message may quote

CsvWriter = Callable[..., Path]


def make_schema(**settings: Any) -> Schema:
    raw = {"name": "loans", "target": "default", "columns": COLUMNS, **settings}
    return parse_schema(json.dumps(raw), where="schema")


SCHEMA = make_schema()
UNIT_SCHEMA = make_schema(unit="customer")


@pytest.fixture
def csv(tmp_path: Path) -> CsvWriter:
    """Writes a CSV file and returns its path."""

    def write(text: str | bytes, *, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> CsvWriter:
    """Writes a Parquet file of one good row in which some columns are replaced, and returns its path."""

    def write(**columns: Any) -> Path:
        path = tmp_path / "table.parquet"
        row: dict[str, Any] = {"age": [41], "income": [1234.5], "home": ["own"], "job": ["clerk"], "default": [0]}
        pq.write_table(pa.table(row | columns), path)
        return path

    return write


def refusal(path: Path, *words: str, schema: Schema = SCHEMA, role: Any = "fit") -> str:
    """The words of the DataError, which must hold `words` and no private value."""
    with pytest.raises(DataError) as caught:
        read_table(path, schema, role=role)
    message = str(caught.value)
    assert str(path) in message
    assert SECRET not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    for word in words:
        assert word in message, message
    return message


def values(frame: pd.DataFrame, column: str) -> list[Any]:
    return [None if isinstance(v, float) and math.isnan(v) else v for v in frame[column].tolist()]


# ---- what is read, and as what --------------------------------------------------------------------------------------


def test_the_canonical_frame_has_the_schemas_columns_in_the_schemas_order(csv: CsvWriter) -> None:
    frame = read_table(csv("default,job,home,income,age\n1,smith,,2.5,30\n"), SCHEMA)
    assert list(frame.columns) == ["age", "income", "home", "job", "default"]
    assert [str(t) for t in frame.dtypes] == ["float64", "float64", "category", "category", "category"]
    assert list(frame["job"].cat.categories) == ["clerk", "smith", OTHER]
    assert list(frame["default"].cat.categories) == ["0", "1"]
    assert frame.iloc[0].tolist()[:2] == [30.0, 2.5]
    assert values(frame, "home") == [None]


def test_values_outside_their_bounds_are_clipped(csv: CsvWriter) -> None:
    frame = read_table(csv(HEADER + "17,-11,own,clerk,0\n999,2e6,own,clerk,1\n"), SCHEMA)
    assert values(frame, "age") == [18.0, 100.0]
    assert values(frame, "income") == [-10.0, 1e6]


def test_unlisted_categories_become_other_or_missing(csv: CsvWriter) -> None:
    frame = read_table(csv(HEADER + f"41,1,{SECRET},{SECRET},0\n"), SCHEMA)
    assert values(frame, "home") == [None]
    assert values(frame, "job") == [OTHER]


def test_empty_cells_and_the_usual_words_are_missing_but_a_listed_category_is_itself(csv: CsvWriter) -> None:
    rows = "".join(f"41,{word},{word},clerk,0\n" for word in ("", '""', "  ", "NA", "NaN", "null", "None"))
    frame = read_table(csv(HEADER + rows + "41,5,none,clerk,0\n"), SCHEMA)
    assert values(frame, "income") == [None] * 7 + [5.0]
    assert values(frame, "home") == [None] * 7 + ["none"]


def test_quotes_spaces_plus_signs_crlf_and_a_byte_order_mark_are_read_through(csv: CsvWriter) -> None:
    header = '\ufeff"age" , income,home,job,"default"\r\n'
    rows = '" 41 ", +1.5e3 ,"own",  smith ,1.0\r\n\r\n42,.5,rent,"a, ""b""\n c",0\r\n'
    frame = read_table(csv(header + rows), SCHEMA)
    assert values(frame, "age") == [41.0, 42.0]
    assert values(frame, "income") == [1500.0, 0.5]
    assert values(frame, "job") == ["smith", OTHER]
    assert values(frame, "default") == ["1", "0"]


def test_a_category_written_as_1_or_1_point_0_is_the_integer_1(csv: CsvWriter, parquet: CsvWriter) -> None:
    assert values(read_table(csv(HEADER + "41,1,own,clerk,1\n41,1,own,clerk,0.0\n"), SCHEMA), "default") == ["1", "0"]
    for column in (
        [1.0],
        [True],
        ["1"],
        pa.array([1], pa.int8()),
        pa.array([Decimal("1.00")]),
        pa.array(["1.0"]).dictionary_encode(),
    ):
        assert values(read_table(parquet(default=column), SCHEMA), "default") == ["1"]


def test_a_category_with_leading_zeros_is_not_a_number(csv: CsvWriter) -> None:
    columns = [{"name": "zip", "kind": "categorical", "categories": ["01", "1"]}, COLUMNS[-1]]
    schema = make_schema(columns=columns)
    assert values(read_table(csv("zip,default\n01,0\n1,1\n"), schema), "zip") == ["01", "1"]


def test_a_header_without_rows_is_an_empty_table(csv: CsvWriter, parquet: CsvWriter, tmp_path: Path) -> None:
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(parquet()).slice(0, 0), empty)
    for path in (csv(HEADER), csv(HEADER.strip(), name="b.csv"), csv(HEADER + "\n\n", name="c.csv"), empty):
        frame = read_table(path, SCHEMA)
        assert len(frame) == 0
        assert [str(t) for t in frame.dtypes] == ["float64", "float64", "category", "category", "category"]
        assert len(to_public(frame, SCHEMA)) == 0


def test_parquet_numbers_of_any_width_are_read(parquet: CsvWriter) -> None:
    for column in (
        pa.array([41], pa.uint8()),
        pa.array([41.0], pa.float32()),
        pa.array([Decimal("41.00")]),
        pa.array(["41"]),
        pa.array(["41"], pa.large_string()),
        pa.array([41]).dictionary_encode(),
    ):
        assert values(read_table(parquet(age=column), SCHEMA), "age") == [41.0]
    assert values(read_table(parquet(income=pa.nulls(1)), SCHEMA), "income") == [None]
    assert values(read_table(parquet(home=pa.nulls(1)), SCHEMA), "home") == [None]


def test_the_index_that_pandas_writes_to_parquet_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "indexed.pq"
    frame = pd.DataFrame({"age": [41], "income": [1.0], "home": ["own"], "job": ["clerk"], "default": [0]}, index=[7])
    frame.to_parquet(path)
    assert len(read_table(path, SCHEMA)) == 1


def test_many_batches_make_one_table(csv: CsvWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(sources, "BATCH_ROWS", 100)
    path = csv(HEADER + "".join(f"{18 + i % 80},{i},own,{'clerk' if i % 2 else SECRET},{i % 2}\n" for i in range(1000)))
    frame = read_table(path, SCHEMA)
    assert values(frame, "income") == [float(i) for i in range(1000)]
    assert values(frame, "job") == [OTHER, "clerk"] * 500
    again = path.with_suffix(".parquet")
    write_table(to_public(frame, SCHEMA), again)
    pd.testing.assert_frame_equal(read_table(again, SCHEMA), frame)


def test_reading_needs_little_more_memory_than_the_canonical_frame(csv: CsvWriter) -> None:
    path = csv(HEADER + ROW * 200_000)
    read_table(path, SCHEMA)  # imports are not counted
    tracemalloc.start()
    frame = read_table(path, SCHEMA)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * frame.memory_usage(deep=True).sum()


# ---- the unit column and the roles ----------------------------------------------------------------------------------


def test_the_unit_column_comes_last_as_text(csv: CsvWriter, parquet: CsvWriter) -> None:
    frame = read_table(csv("customer," + HEADER + " 007 ," + ROW), UNIT_SCHEMA)
    assert list(frame.columns)[-1] == "customer"
    assert values(frame, "customer") == ["007"]
    assert values(read_table(parquet(customer=[7]), UNIT_SCHEMA), "customer") == ["7"]


def test_every_row_of_a_fit_names_its_unit(csv: CsvWriter, parquet: CsvWriter) -> None:
    refusal(csv("customer," + HEADER + "," + ROW), "unit column 'customer' has missing values", schema=UNIT_SCHEMA)
    refusal(csv(HEADER + ROW), "column(s) missing: 'customer'", schema=UNIT_SCHEMA)
    refusal(parquet(customer=[[7]]), "unit column 'customer' has the type nested", schema=UNIT_SCHEMA)


def test_evaluating_needs_no_unit_and_predicting_no_target_either(csv: CsvWriter) -> None:
    assert "customer" not in read_table(csv(HEADER + ROW), UNIT_SCHEMA, role="evaluate")
    assert "customer" not in read_table(csv("customer," + HEADER + "7," + ROW), UNIT_SCHEMA, role="evaluate")
    unlabelled = csv("id,age,income,home,job\n1,41,1,own,clerk\n")
    assert list(read_table(unlabelled, SCHEMA, role="predict").columns) == ["age", "income", "home", "job"]
    assert "default" not in read_table(csv(HEADER + "41,1,own,clerk,\n"), SCHEMA, role="predict")
    refusal(csv("age,income,home,job\n41,1,own,clerk\n"), "column(s) missing: 'default'", role="evaluate")
    refusal(csv("income,home,job\n1,own,clerk\n"), "column(s) missing: 'age'", role="predict")


# ---- files that cannot be read --------------------------------------------------------------------------------------


def test_a_missing_file_a_directory_and_an_unknown_suffix_are_told_apart(tmp_path: Path) -> None:
    refusal(tmp_path / "nothing.csv", "no table at", "Check the path")
    (tmp_path / "folder.csv").mkdir()
    refusal(tmp_path / "folder.csv", "is a directory", "name one CSV or Parquet file")
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    refusal(tmp_path / "table.xlsx", "the suffix '.xlsx' is not known", ".csv or .parquet")
    (tmp_path / "table").write_bytes(b"PK")
    refusal(tmp_path / "table", "the suffix '' is not known")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_forbidden_file_says_so(csv: CsvWriter) -> None:
    path = csv(HEADER + ROW)
    path.chmod(0)
    refusal(path, "cannot read", "Permission denied", "permissions")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_empty_file_is_refused(csv: CsvWriter, suffix: str) -> None:
    refusal(csv("", name="table" + suffix), "is empty (0 bytes)", "with a header line")


def test_a_file_of_blank_lines_has_no_header(csv: CsvWriter) -> None:
    refusal(csv("\n \n,,\n"), "has no header line")
    refusal(csv("x" * (2 << 20)), "has no header line")


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_a_wrong_delimiter_is_recognised(csv: CsvWriter, delimiter: str, word: str) -> None:
    text = (HEADER + f"41,1,{SECRET},clerk,0\n").replace(",", delimiter)
    refusal(csv(text), "one column when split at commas", word, "Save it with commas")


@pytest.mark.parametrize("row", ["41,1,own,clerk\n", f"41,1,own,clerk,0,{SECRET}\n", "41,1,5,own,clerk,0\n"])
def test_a_ragged_row_is_named_by_its_number(csv: CsvWriter, row: str) -> None:
    message = refusal(csv(HEADER + ROW + row + ROW), "row 3", "cells where the header has 5", "double quotes")
    assert "own" not in message


def test_a_quote_that_is_never_closed_is_refused_without_quoting_the_rest(csv: CsvWriter) -> None:
    rest = f"41,1,own,{SECRET},0\n" * 400_000
    refusal(csv(HEADER + ROW + '41,1,"own,clerk,0\n' + rest))


@pytest.mark.parametrize(
    ("encoding", "word"), [("latin-1", "another encoding"), ("utf-16", "UTF-16"), ("utf-16-be", "utf")]
)
def test_other_encodings_than_utf8_are_refused(csv: CsvWriter, encoding: str, word: str) -> None:
    text = HEADER + f"41,1,Zürich {SECRET},clerk,0\n"
    message = refusal(csv(text.encode(encoding)))
    assert encoding == "utf-16-be" or ("is not UTF-8" in message and word in message and "iconv" in message)


def test_a_latin1_letter_in_the_header_or_far_down_is_refused(csv: CsvWriter) -> None:
    refusal(csv((HEADER.strip() + ",straße\n").encode("latin-1")), "is not UTF-8")
    refusal(csv((HEADER + ROW * 100_000 + "41,1,é,clerk,0\n").encode("latin-1")), "is not UTF-8")


@pytest.mark.parametrize("content", [b"PAR1 and then nothing", b"PAR1" + bytes(400) + b"PAR1", b"age,income\n1,2\n"])
def test_a_file_that_is_no_parquet_is_refused(csv: CsvWriter, content: bytes) -> None:
    refusal(csv(content, name="table.parquet"), "is not a readable Parquet file", "Export it again")


def test_a_parquet_file_cut_short_or_damaged_inside_is_refused(parquet: CsvWriter) -> None:
    path = parquet(income=[1.0])
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    refusal(path, "is not a readable Parquet file")
    path.write_bytes(content[:4] + bytes(60) + content[64:])
    refusal(path, "is not a readable Parquet file")


def test_a_parquet_file_without_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({}), path)
    refusal(path, "has no columns")


# ---- columns that do not fit ----------------------------------------------------------------------------------------


def test_missing_extra_and_repeated_columns_are_named(csv: CsvWriter, tmp_path: Path) -> None:
    refusal(csv("age,income,home,default\n41,1,own,0\n"), "column(s) missing: 'job'")
    refusal(csv("age,age,income,home,job,default\n41,41,1,own,clerk,0\n"), "more than once: 'age'", "keep one")
    refusal(csv("id," + HEADER + "7," + ROW), "the schema does not name: 'id'", "drop them from the table")
    refusal(csv("," + HEADER + "7," + ROW), "(without a name)")
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table([[1], [2]], names=["age", "age"]), path)
    refusal(path, "missing")


def test_a_first_line_of_data_is_not_quoted_as_if_it_were_a_header(csv: CsvWriter) -> None:
    refusal(csv(f"41,1,own,{SECRET},0\n"), "none of the schema's columns is in its header", "'age'")
    one_value_matches = f"age,1,own,{SECRET},0,{SECRET}2\n"
    found = check_table(csv(one_value_matches), SCHEMA)
    assert not any(SECRET in finding.message for finding in found)
    assert any("(not shown)" in finding.message for finding in found)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"{SECRET},1,own,clerk,0", ("column 'age' is integer", "text that is not a number")),
        ("41,1 234,own,clerk,0", ("column 'income' is continuous", "thousands separators")),
        ('41,"1,5",own,clerk,0', ("'income'", "decimals with a point")),
        ("41,inf,own,clerk,0", ("'income'", "infinite values")),
        ("41,-Infinity,own,clerk,0", ("'income'", "infinite values")),
        ("41,1e999,own,clerk,0", ("'income'", "infinite values")),
        ("41.5,1,own,clerk,0", ("'age' is integer", "fractions", "`continuous`")),
        (",1,own,clerk,0", ("'age'", "missing values", "`nullable: true`")),
        ("nan,1,own,clerk,0", ("'age'", "missing values")),
        ("41,1,own,,0", ("column 'job' has missing values", "`nullable: true`")),
        ("41,1,own,clerk,", ("target 'default' has missing values", "drop those rows")),
        (f"41,1,own,clerk,{SECRET}", ("target 'default' holds values outside its classes '0', '1'",)),
        ("41,1,own,clerk,2", ("outside its classes",)),
    ],
)
def test_a_cell_that_does_not_fit_is_told_by_column_and_mend(csv: CsvWriter, row: str, words: tuple[str, ...]) -> None:
    refusal(csv(HEADER + ROW + row + "\n"), *words)


def test_unlisted_categories_are_refused_where_nothing_can_take_them(csv: CsvWriter) -> None:
    schema = make_schema(columns=[{"name": "home", "kind": "categorical", "categories": ["own"]}, COLUMNS[-1]])
    refusal(csv(f"home,default\n{SECRET},0\n"), "'home'", "does not list", "`other: true`", schema=schema)


@pytest.mark.parametrize(
    ("column", "array", "words"),
    [
        ("age", pa.array([[1]]), "has the type nested (list, struct or map)"),
        ("age", pa.array([{SECRET: 1}]), "has the type nested"),
        ("age", pa.array([True]), "has the type bool"),
        ("age", pa.array([0], pa.timestamp("s")), "has the type timestamp"),
        ("age", pa.array([SECRET]), "text that is not a number"),
        ("age", pa.array([b"41"]), "has the type binary"),
        ("income", pa.array([math.inf]), "infinite values"),
        ("home", pa.array([["own"]]), "column 'home' is categorical, but has the type nested"),
        ("home", pa.array([0], pa.date32()), "but has the type date32"),
        ("home", pa.array([b"own"]), "but has the type binary"),
        ("default", pa.array([None], pa.int64()), "target 'default' has missing values"),
        ("default", pa.array([0.5]), "outside its classes"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused(
    parquet: CsvWriter, column: str, array: pa.Array, words: str
) -> None:
    refusal(parquet(**{column: array}), f"'{column}'", words)


# ---- checking -------------------------------------------------------------------------------------------------------


def test_a_check_lists_every_finding_once_and_errors_first(csv: CsvWriter) -> None:
    path = csv("id," + HEADER + f"1,{SECRET},2e6,{SECRET},{SECRET},\n2,4.5,2e6,own,clerk,7\n3,,inf,,,0\n")
    findings = check_table(path, SCHEMA)
    messages = [finding.message for finding in findings]
    assert len(set(messages)) == len(messages)
    assert not any(SECRET in message for message in messages)
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities)
    assert {finding.column for finding in findings if finding.severity == "error"} >= {"", "age", "job", "default"}
    notes = " ".join(finding.message for finding in findings if finding.severity == "note")
    assert "'home': categories outside the schema's list become missing" in notes
    assert f"'job': categories outside the schema's list become {OTHER}" in notes
    assert "'income': values outside [-10, 1e+06] are clipped" in notes


def test_a_table_that_fits_has_no_findings(csv: CsvWriter) -> None:
    assert check_table(csv(HEADER + ROW), SCHEMA) == []


@pytest.mark.parametrize("array", [pa.array([["own"]]), pa.array([0], pa.date32())])
def test_a_check_goes_on_behind_a_column_of_a_hopeless_type(parquet: CsvWriter, array: pa.Array) -> None:
    findings = check_table(parquet(home=array, income=[2e6], customer=array), UNIT_SCHEMA)
    assert [finding.severity for finding in findings][-1] == "note"


# ---- writing and the public frame -----------------------------------------------------------------------------------


def test_the_public_frame_holds_the_schemas_own_values(csv: CsvWriter) -> None:
    frame = to_public(read_table(csv(HEADER + ROW + f"42,,,{SECRET},1\n"), SCHEMA), SCHEMA)
    assert frame["age"].dtype == np.int64
    assert frame["default"].dtype == np.int64
    assert frame["default"].tolist() == [0, 1]
    assert frame["home"].tolist() == ["own", None]
    assert frame["job"].tolist() == ["clerk", OTHER]
    assert math.isnan(frame["income"].iloc[1])


def test_missing_integers_become_nullable_ones_and_integers_beside_other_become_texts(csv: CsvWriter) -> None:
    columns = [
        {"name": "n", "kind": "integer", "min": 0, "max": 9, "nullable": True},
        {"name": "c", "kind": "categorical", "categories": [1, 2], "nullable": True},
        {"name": "o", "kind": "categorical", "categories": [1, 2], "other": True},
        COLUMNS[-1],
    ]
    schema = make_schema(columns=columns)
    path = csv("n,c,o,default\n1,,1,0\n,2,7,1\n")
    public = to_public(read_table(path, schema), schema)
    assert [str(t) for t in public.dtypes] == ["Int64", "Int64", "object", "int64"]
    assert public["o"].tolist() == ["1", OTHER]
    for suffix in (".csv", ".parquet"):
        written = path.with_name(f"again{suffix}")
        write_table(public, written)
        pd.testing.assert_frame_equal(read_table(written, schema), read_table(path, schema))


def test_the_unit_is_never_public(csv: CsvWriter) -> None:
    frame = read_table(csv("customer," + HEADER + "7," + ROW), UNIT_SCHEMA)
    assert "customer" not in to_public(frame, UNIT_SCHEMA)


def test_rows_in_memory_follow_the_same_rules() -> None:
    frame = pd.DataFrame(
        {"age": [41, 17], "income": [None, 3], "home": ["own", None], "job": ["x", "smith"], "default": [0, 1.0]}
    )
    canonical = canonical_table(frame, SCHEMA)
    assert values(canonical, "age") == [41.0, 18.0]
    assert values(canonical, "job") == [OTHER, "smith"]
    pd.testing.assert_frame_equal(canonical_table(canonical, SCHEMA), canonical)
    with pytest.raises(DataError, match=r"samples: column\(s\) missing: 'age'"):
        canonical_table(frame.drop(columns="age"), SCHEMA, where="samples")
    with pytest.raises(DataError, match="more than once"):
        canonical_table(pd.concat([frame, frame[["age"]]], axis=1), SCHEMA)


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    path = tmp_path / "out.csv"
    write_table(frame, path)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match=r"cannot write .*No space left on device.*Free some space"):
        write_table(frame, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


def test_a_lone_carriage_return_survives_csv(tmp_path: Path) -> None:
    schema = make_schema(columns=[{"name": "t", "kind": "categorical", "categories": ["a\rb", "c"]}, COLUMNS[-1]])
    path = tmp_path / "t.csv"
    write_table(pd.DataFrame({"t": ["a\rb", "c"], "default": [0, 1]}), path)
    assert values(read_table(path, schema), "t") == ["a\rb", "c"]


def test_writing_needs_a_known_suffix_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="suffix"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "out.xlsx")
    with pytest.raises(DataError, match=r"cannot write .*Create the folder first"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "nowhere" / "out.csv")


# ---- properties -----------------------------------------------------------------------------------------------------

NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda text: text.strip() not in MISSING
)
ROWS = st.lists(
    st.tuples(
        st.integers(-(10**6), 10**6),
        NUMBERS,
        st.sampled_from(["own", "rent", "none", "barn", None]),
        TEXTS,
        st.sampled_from([0, 1]),
    ),
    max_size=20,
)


def frame_of(rows: list[Any]) -> pd.DataFrame:
    names = [str(c["name"]) for c in COLUMNS]
    frame = pd.DataFrame(rows, columns=pd.Index(names))
    return frame.astype({"age": "int64", "income": "float64", "default": "int64"})


@settings(deadline=None)
@given(rows=ROWS, suffix=st.sampled_from([".csv", ".parquet"]))
def test_a_table_survives_writing_and_reading(
    rows: list[Any], suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("round") / f"table{suffix}"
    canonical = canonical_table(frame_of(rows), SCHEMA)
    write_table(frame_of(rows), path)
    pd.testing.assert_frame_equal(read_table(path, SCHEMA), canonical)
    public = to_public(canonical, SCHEMA)
    write_table(public, path)
    pd.testing.assert_frame_equal(read_table(path, SCHEMA), canonical)
    pd.testing.assert_frame_equal(to_public(read_table(path, SCHEMA), SCHEMA), public)


@settings(deadline=None)
@given(rows=ROWS)
def test_clipping_twice_is_clipping_once_and_lands_inside_the_bounds(rows: list[Any]) -> None:
    once = canonical_table(frame_of(rows), SCHEMA)
    pd.testing.assert_frame_equal(canonical_table(to_public(once, SCHEMA), SCHEMA), once)
    assert once["age"].between(18, 100).all()
    assert once["income"].dropna().between(-10, 1e6).all()


@settings(deadline=None)
@given(
    content=st.binary(min_size=1, max_size=400), suffix=st.sampled_from([".csv", ".parquet"]), with_header=st.booleans()
)
def test_any_bytes_are_a_table_or_a_data_error(
    content: bytes, suffix: str, with_header: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"table{suffix}"
    path.write_bytes(HEADER.encode() * with_header + content)
    try:
        frame = read_table(path, SCHEMA)
    except DataError:
        return
    assert list(frame.columns) == [c["name"] for c in COLUMNS]
