"""The public schema: what it accepts, what it refuses and in which words, and what its digest is made of."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.schema import OTHER, Schema, load_schema, parse_schema
from distill.errors import SchemaError

TARGET = {"name": "default", "kind": "categorical", "categories": [0, 1]}
AGE = {"name": "age", "kind": "integer", "min": 18, "max": 100}
HOME = {"name": "home", "kind": "categorical", "categories": ["own", "rent"], "nullable": True, "other": True}


def parse(*columns: Any, **settings: Any) -> Schema:
    raw = {"name": "loans", "target": "default", "columns": list(columns), **settings}
    return parse_schema(json.dumps(raw), where="schema loans.json")


def refusal(*columns: Any, **settings: Any) -> str:
    with pytest.raises(SchemaError) as caught:
        parse(*columns, **settings)
    assert str(caught.value).startswith("schema loans.json: ")
    return str(caught.value)


def test_a_sound_schema_is_read_in_the_order_of_its_columns() -> None:
    schema = parse(AGE, HOME, TARGET)
    assert [c.name for c in schema.columns] == ["age", "home", "default"]
    assert schema.classes == (0, 1)
    assert [c.name for c in schema.features] == ["age", "home"]
    assert schema.column("home").other
    schema.require_confirmed()


def test_fields_about_the_table_that_are_unknown_are_ignored() -> None:
    assert parse(AGE, TARGET, rows=48842, source="a registry", license="CC0").name == "loans"


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (AGE | {"min": 100, "max": 100}, "column 'age': min 100 must be below max 100"),
        (AGE | {"min": 3, "max": 1}, "min 3 must be below max 1"),
        (AGE | {"max": float("inf")}, "`min` and `max` must be finite numbers"),
        (AGE | {"max": float("nan")}, "`min` and `max` must be finite numbers"),
        (AGE | {"max": 99.5}, "`min` and `max` must be whole numbers"),
        (AGE | {"max": 2**60}, r"within 2\*\*53"),
        ({"name": "x", "kind": "continuous", "min": -1.7e308, "max": 1.7e308}, "too far apart"),
        (AGE | {"max": None}, "needs public `min` and `max`"),
        (AGE | {"max": "many"}, "column 'age': `max` must be a number"),
        (AGE | {"other": True}, "`categories` and `other` belong to categorical columns"),
        (AGE | {"maximum": 4}, "column 'age': `maximum` is not a known setting of a column"),
        (AGE | {"kind": "number"}, "column 'age': `kind` must be continuous, integer or categorical"),
        (AGE | {"name": " age"}, "must not begin or end with a space"),
        ({"kind": "integer"}, "column number 1: `name` is missing"),
        ("age", "column number 1 must be a JSON object"),
        (HOME | {"min": 0}, "`min` and `max` belong to numbers"),
        (HOME | {"categories": []}, "needs a public list of `categories`"),
        (HOME | {"categories": "own"}, "column 'home': `categories` must be a list of texts or whole numbers"),
        (HOME | {"categories": [0.5, True]}, "column 'home': `categories` must be a list of texts or whole numbers"),
        (HOME | {"categories": ["own", "own"]}, "categories listed twice: own"),
        (HOME | {"categories": [1, "1"]}, "categories listed twice: 1"),
        (HOME | {"categories": ["own", ""]}, "a category is empty"),
        (HOME | {"categories": ["own", " rent"]}, "begins or ends with a space"),
        (HOME | {"categories": ["own", OTHER]}, "reserved for unlisted categories"),
        (HOME | {"categories": list(range(1001))}, "1001 categories, more than 1000"),
        (TARGET, "columns listed twice: default"),
    ],
)
def test_a_column_that_cannot_be_is_refused_by_name(column: Any, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        parse(column, TARGET)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"nullable": True}, "must be neither `nullable` nor `other`"),
        ({"other": True}, "must be neither `nullable` nor `other`"),
        ({"categories": [0]}, "has 1 class"),
        ({"categories": list(range(51))}, "has 51 class"),
        ({"kind": "integer", "categories": None, "min": 0, "max": 9, "nullable": True}, "must be neither `nullable`"),
    ],
)
def test_a_target_needs_between_2_and_50_classes_and_a_label_in_every_row(target: Any, words: str) -> None:
    assert words in refusal(AGE, TARGET | target)


def test_a_target_may_be_a_number_or_absent_and_the_task_follows() -> None:
    amount = {"name": "amount", "kind": "continuous", "min": 0, "max": 100}
    number = parse(AGE, amount, HOME, target="amount")
    assert (number.task, number.classes, number.target_place) == ("number", (), 1)
    assert [c.name for c in number.features] == ["age", "home"]
    nothing = parse(AGE, HOME, target=None)
    assert (nothing.task, nothing.classes, nothing.target_place) == (None, (), None)
    assert [c.name for c in nothing.features] == ["age", "home"]
    absent = parse_schema(json.dumps({"name": "loans", "columns": [AGE, HOME]}), where="schema")
    assert absent.digest() == nothing.digest()
    classes = parse(AGE, TARGET)
    assert (classes.task, classes.target_place, classes.require_classes("`compare`")) == ("classes", 1, "default")
    assert len({number.digest(), nothing.digest(), parse(AGE, amount, HOME, target="age").digest()}) == 3
    for schema, words in ((number, r"predicts a number \('amount'\)"), (nothing, "names no target")):
        with pytest.raises(SchemaError, match=rf"{words}, and `compare` works on classes only"):
            schema.require_classes("`compare`")


def test_the_digest_of_a_schema_with_classes_is_what_it_has_always_been() -> None:
    """Bundles in the world carry it."""
    assert parse(AGE, HOME, TARGET).digest() == "7f9cafab9f60a2a28ed1ca406b3ef8545165ce343b3271b9fe839ea85c73fd25"


def test_a_table_needs_its_target_and_between_2_and_100_columns() -> None:
    assert "is not one of the columns" in refusal(AGE, HOME)
    assert "between 2 and 100" in refusal(TARGET)
    assert "between 2 and 100" in refusal(TARGET, *(AGE | {"name": f"x{i}"} for i in range(100)))


def test_the_unit_is_an_identifier_and_no_column() -> None:
    assert parse(AGE, TARGET, unit="customer").unit == "customer"
    assert "is never released" in refusal(AGE, TARGET, unit="age")


def test_a_draft_is_refused_until_every_mark_is_gone() -> None:
    schema = parse(AGE | {"from_data": True}, HOME, TARGET | {"from_data": True})
    with pytest.raises(SchemaError, match=r"2 column\(s\).*not confirmed: age, default.*public knowledge"):
        schema.require_confirmed()


def test_many_problems_are_told_together_but_not_endlessly() -> None:
    message = refusal(TARGET, *({"name": f"x{i}", "kind": "number"} for i in range(9)))
    assert message.count("must be continuous, integer or categorical") == 5
    assert message.endswith("and 4 more.")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe{}", "not json"])
def test_text_that_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(SchemaError, match=r"schema s is not valid JSON"):
        parse_schema(text, where="schema s")


def test_json_that_is_no_object_is_refused() -> None:
    with pytest.raises(SchemaError, match="must be a JSON object"):
        parse_schema("[]", where="schema s")


def test_a_missing_schema_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"no schema at .*distill schema draft"):
        load_schema(tmp_path / "schema.json")
    with pytest.raises(SchemaError, match="is a directory"):
        load_schema(tmp_path)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"name": "t", "target": "default", "columns": [AGE, TARGET]}).encode()
    )
    assert load_schema(path).name == "t"


def test_the_digest_ignores_words_and_sees_everything_that_two_tables_must_share() -> None:
    plain = parse(AGE, HOME, TARGET)
    words = parse(AGE | {"description": "in years", "from_data": True, "min": 18.0}, HOME, TARGET, name="other bank")
    assert plain.digest() == words.digest()
    changed = [
        parse(AGE | {"max": 99}, HOME, TARGET),
        parse(AGE | {"nullable": True}, HOME, TARGET),
        parse(AGE | {"kind": "continuous"}, HOME, TARGET),
        parse(HOME, AGE, TARGET),
        parse(AGE, HOME | {"other": False}, TARGET),
        parse(AGE, HOME | {"categories": ["rent", "own"]}, TARGET),
        parse(AGE, HOME, TARGET, unit="customer"),
    ]
    assert len({plain.digest(), *(schema.digest() for schema in changed)}) == 1 + len(changed)


@settings(deadline=None)
@given(
    low=st.integers(-(2**53), 2**53 - 1),
    span=st.integers(1, 1000),
    categories=st.lists(st.integers(-5, 5) | st.text("abc1", min_size=1), min_size=1, unique_by=str),
)
def test_a_schema_survives_writing_and_reading(low: int, span: int, categories: list[int | str]) -> None:
    high = min(low + span, 2**53)
    schema = parse(AGE | {"min": low, "max": high}, HOME | {"categories": categories}, TARGET)
    again = parse_schema(schema.model_dump_json(), where="schema again")
    assert again == schema
    assert again.digest() == schema.digest()
    assert again.column("home").categories == tuple(categories)
