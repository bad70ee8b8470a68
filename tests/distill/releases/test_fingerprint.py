"""Copies of a table are noticed under other names and in another order; other tables are not taken for copies."""

from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distill.data.encoded_table import encode_frame, read_encoded
from distill.data.schema import Schema
from distill.data.tables import canonical_table, write_table
from distill.releases import fingerprint as module
from distill.releases.fingerprint import LEAST, MOST_CHANCE, Fingerprint, fingerprint

KEY, ROWS = bytes(range(32)), 3000
COLUMNS: list[dict[str, Any]] = [
    {"name": "income", "kind": "continuous", "min": 0, "max": 100_000, "nullable": True},
    {"name": "balance", "kind": "continuous", "min": -1, "max": 1},
    {"name": "debts", "kind": "continuous", "min": 0, "max": 1},
    {"name": "age", "kind": "integer", "min": 18, "max": 100},
    {"name": "months", "kind": "integer", "min": 0, "max": 240},
    {"name": "region", "kind": "categorical", "categories": ["north", "south", "east"], "other": True},
    {"name": "home", "kind": "categorical", "categories": ["own", "rent", "family"]},
    {"name": "default", "kind": "categorical", "categories": [0, 1]},
]


def rows_of(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    income = rng.gamma(2.0, 15_000, rows).clip(0, 100_000)
    return pd.DataFrame(
        {
            "income": np.where(rng.random(rows) < 0.05, np.nan, income),
            "balance": rng.uniform(-1, 1, rows),
            "debts": rng.beta(2, 5, rows),
            "age": rng.integers(18, 90, rows),
            "months": rng.integers(0, 240, rows),
            "region": rng.choice(np.array(["north", "south", "east", "abroad"], dtype=object), rows),
            "home": rng.choice(np.array(["own", "rent", "family"], dtype=object), rows),
            "default": (rng.random(rows) < 0.2).astype(int),
        }
    )


def schema_of(columns: list[dict[str, Any]], target: str = "default") -> Schema:
    return Schema.model_validate({"name": "loans", "target": target, "columns": columns})


def printed(
    frame: pd.DataFrame, columns: list[dict[str, Any]] = COLUMNS, target: str = "default", key: bytes = KEY
) -> Fingerprint:
    schema = schema_of(columns, target)
    return fingerprint(encode_frame(canonical_table(frame, schema), schema), schema, key)


def of_columns(frame: pd.DataFrame, columns: list[dict[str, Any]], names: list[str]) -> Fingerprint:
    """The fingerprint of some columns."""
    return printed(frame[names], [c for name in names for c in columns if c["name"] == name])


def altered(name: str, **changes: Any) -> list[dict[str, Any]]:
    """The columns with one described otherwise."""
    return [c | changes if c["name"] == name else c for c in COLUMNS]


def same(one: Fingerprint, two: Fingerprint) -> bool:
    """To the last bit."""
    return all(
        np.array_equal(a.hashes, b.hashes) and (a.limit, a.chance) == (b.limit, b.chance)
        for a, b in zip(one.sketches, two.sketches, strict=True)
    )


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return rows_of(ROWS, seed=1)


# ---- copies ---------------------------------------------------------------------------------------------------------


def test_rows_in_another_order_have_the_same_fingerprint(frame):
    assert same(printed(frame), printed(frame.sample(frac=1, random_state=0)))


def test_columns_in_another_order_have_the_same_fingerprint(frame):
    assert same(printed(frame), printed(frame, COLUMNS[::-1]))


def test_renamed_columns_have_the_same_fingerprint(frame):
    names = {c["name"]: f"field {i}" for i, c in enumerate(COLUMNS)}
    renamed = [c | {"name": names[c["name"]]} for c in COLUMNS]
    assert same(printed(frame), printed(frame.rename(columns=names), renamed, names["default"]))


def test_another_file_and_format_have_the_same_fingerprint(frame, tmp_path):
    schema = schema_of(COLUMNS)
    prints = []
    for name in ("loans.csv", "customers.parquet"):
        write_table(frame, tmp_path / name)
        prints.append(fingerprint(read_encoded(tmp_path / name, schema), schema, KEY))
    assert same(*prints)


@pytest.mark.parametrize(
    "columns",
    [
        altered("region", categories=["east", "west", "south", "north"]),
        altered("home", nullable=True),
        altered("age", min=0, max=120),
        altered("default", kind="integer", categories=None, min=0, max=1),
    ],
    ids=["categories", "nullable", "bounds of a short integer", "kind"],
)
def test_a_schema_that_words_single_values_otherwise_is_no_disguise(frame, columns):
    target = "default" if columns[-1]["kind"] == "categorical" else "home"
    assert printed(frame).copy_of(printed(frame, columns, target))


@pytest.mark.parametrize(
    "order", [o for o in permutations(["own", "rent", "family"]) if o != ("own", "rent", "family")]
)
def test_categories_in_another_order_have_the_same_fingerprint(frame, order):
    assert same(printed(frame), printed(frame, altered("home", categories=list(order))))


def test_a_small_part_of_a_large_table_is_a_copy():
    """Also where neither sketch holds every row of its table."""
    large = rows_of(200_000, seed=5)
    assert printed(large.head(5000)).copy_of(printed(large))
    assert not printed(rows_of(5000, seed=6)).copy_of(printed(large))


@pytest.mark.parametrize("kept", [0.1, 0.65, 1.0])
@pytest.mark.parametrize("added", [0, 900])
def test_rows_added_and_removed_leave_a_copy(frame, kept, added):
    """A tenth of the rows alone is a pilot; with 900 others it shares a quarter of the smaller table, and is none."""
    new = pd.concat([frame.sample(frac=kept, random_state=0), rows_of(added, seed=2)])
    assert printed(frame).copy_of(printed(new)) == (kept > 0.1 or not added)


@pytest.mark.parametrize("gone", [c["name"] for c in COLUMNS if c["name"] != "default"])
def test_one_column_dropped_or_added_leaves_a_copy(frame, gone):
    names = [c["name"] for c in COLUMNS if c["name"] != gone]
    fewer = of_columns(frame, COLUMNS, names)
    assert fewer.copy_of(printed(frame))
    assert printed(frame).copy_of(fewer)


# ---- other tables ---------------------------------------------------------------------------------------------------


def test_a_third_of_the_rows_in_common_is_no_copy(frame):
    new = pd.concat([frame.sample(frac=1 / 3, random_state=0), rows_of(ROWS * 2 // 3, seed=2)])
    assert not printed(frame).copy_of(printed(new))


def test_samples_of_one_population_are_no_copies_however_often_rows_repeat(seed):
    """From all rows different to all known; at most 5e-9 a pair and sketch by the binomial bound beside MOST_CHANCE."""
    rng = np.random.default_rng(seed)
    columns = [{"name": "code", "kind": "integer", "min": 0, "max": 60_000}, COLUMNS[-1]]
    judged = 0
    for possible in (60_000, 20_000, 6_000, 2_000, 200, 2):
        for skew in (1.0, 3.0):
            frames = [
                pd.DataFrame({"code": (possible * rng.random(n) ** skew).astype(int), "default": rng.integers(0, 2, n)})
                for n in (5000, 5000, 400)
            ]
            one, *others = (printed(f, columns) for f in frames)
            assert not any(one.copy_of(other) for other in others), (possible, skew)
            assert one.copy_of(one) == any(s.chance <= MOST_CHANCE for s in one.sketches)
            judged += one.copy_of(one)
    assert 0 < judged < 12


def test_what_chance_explains_is_not_shared(seed):
    """Two draws of 5000 from 20,000 equally likely rows have 22 % in common; five stddevs of the share are 0.08."""
    rng = np.random.default_rng(seed)
    columns = [{"name": "code", "kind": "integer", "min": 0, "max": 9_999}, COLUMNS[-1]]
    frames = [pd.DataFrame({"code": rng.integers(0, 10_000, 5000), "default": rng.integers(0, 2, 5000)}) for _ in "ab"]
    one, two = (printed(f, columns).sketches[0] for f in frames)
    assert one.chance == pytest.approx(1 - np.exp(-0.25), abs=0.05)
    assert one.shared(two) == pytest.approx(0, abs=0.08)


def test_the_share_is_that_of_the_rows_in_common(seed):
    """Against the exact one; its error is that of a sample of at least 2000 rows, five times 0.0112 less than once in 1e6."""
    rng = np.random.default_rng(seed)
    for portion in (0.0, 0.2, 0.5, 0.9):
        numbers = int(rng.integers(1, 1 << 30))
        pool = rows_of(20_000, numbers)
        first, second = pool[:10_000], pool[round(10_000 * (1 - portion)) :][:10_000]
        share = printed(first).sketches[0].shared(printed(second).sketches[0])
        assert share == pytest.approx(portion, abs=0.056)


@pytest.mark.parametrize(("rows", "judged"), [(LEAST - 1, False), (LEAST, True)])
def test_a_handful_of_rows_is_not_judged(rows, judged):
    one = printed(rows_of(rows, seed=3))
    assert one.copy_of(one) is judged
    assert one.sketches[0].shared(one.sketches[0]) == (1.0 if judged else None)


# ---- how it is made -------------------------------------------------------------------------------------------------


def test_chunks_make_no_difference(frame, monkeypatch):
    """Rows repeat across chunks, more of them than a sketch keeps."""
    many = pd.concat([frame, rows_of(6000, seed=4), frame.head(500)])
    whole = printed(many)
    assert 0 < whole.sketches[0].chance < MOST_CHANCE
    monkeypatch.setattr(module, "CHUNK_ROWS", 700)
    assert same(whole, printed(many))


def test_the_chance_is_the_portion_of_rows_that_repeat(frame):
    """Exact while the sketch holds every row."""
    repeated = printed(pd.concat([frame, frame.head(600)])).sketches[0]
    assert repeated.limit == (1 << 64) - 1
    assert repeated.chance == pytest.approx(1200 / 3600)
    assert len(repeated.hashes) == ROWS


def test_another_key_makes_another_fingerprint(frame):
    one, two = printed(frame), printed(frame, key=bytes(32))
    for a, b in zip(one.sketches, two.sketches, strict=True):
        assert not np.isin(a.hashes, b.hashes).any()
    assert not one.copy_of(two)


def test_hashes_are_mixed_as_splitmix64_does():
    """Its first numbers from the seed 1234567, as published with many implementations of it."""
    counter = (1234567 + module._STRIDE * np.arange(1, 4).astype(object)) % (1 << 64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert module._mixed(counter.astype(np.uint64)).tolist() == expected


def test_hashes_are_spread_evenly(frame):
    """Mean of 3000 uniform numbers, whose stddev is 0.0053: five of them less than once in 1e6."""
    for sketch in printed(frame.head(1000)).sketches:
        assert np.mean(sketch.hashes / 2.0**64) == pytest.approx(0.5, abs=5 * (12 * 1000) ** -0.5)
