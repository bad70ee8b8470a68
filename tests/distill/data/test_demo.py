"""The demo's tables: repeatable, inside their public schema, skewed by bank and worth pooling."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from distill.data.demo import (
    BANKS,
    HELD_OUT_ROWS,
    TARGET,
    Bank,
    DemoTables,
    bank_table,
    demo_schema,
    demo_tables,
    mixed_table,
)
from distill.data.schema import Column, parse_schema
from distill.errors import ConfigError

SMALL = {bank.name: 300 for bank in BANKS}


@pytest.fixture(scope="module")
def tables() -> DemoTables:
    return demo_tables(np.random.default_rng(0))


def all_of(tables: DemoTables) -> list[pd.DataFrame]:
    return [*tables.banks.values(), tables.held_out]


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as floats, categories as the trees' own kind."""
    schema = demo_schema()
    kinds = {
        c.name: pd.CategoricalDtype(list(c.categories or ())) if c.kind == "categorical" else "float64"
        for c in schema.features
    }
    return frame[list(kinds)].astype(kinds)


def auc_of(train: pd.DataFrame, held_out: pd.DataFrame) -> float:
    model = HistGradientBoostingClassifier(
        max_iter=80, learning_rate=0.12, categorical_features="from_dtype", random_state=0
    )
    with threadpool_limits(1):  # tiny work; more threads wait for each other on a busy machine
        model.fit(features(train), train[TARGET])
    return float(roc_auc_score(held_out[TARGET], model.predict_proba(features(held_out))[:, 1]))


def test_the_same_generator_state_draws_the_same_tables() -> None:
    first, second = (demo_tables(np.random.default_rng(7), rows=SMALL, held_out_rows=200) for _ in range(2))
    for one, other in zip(all_of(first), all_of(second), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_another_generator_state_draws_other_tables() -> None:
    first, second = (mixed_table(rows=200, rng=np.random.default_rng(seed)) for seed in (1, 2))
    assert not first.equals(second)


def test_every_bank_has_its_documented_number_of_rows(tables: DemoTables) -> None:
    assert {name: len(frame) for name, frame in tables.banks.items()} == {bank.name: bank.rows for bank in BANKS}
    assert len(tables.held_out) == HELD_OUT_ROWS


def test_the_schema_survives_its_json_form_and_needs_no_confirmation() -> None:
    schema = demo_schema()
    schema.require_confirmed()
    assert len(schema.features) == 12
    assert parse_schema(schema.model_dump_json(exclude_none=True), where="here").digest() == schema.digest()


def fits(values: "pd.Series[float]", column: Column) -> bool:
    present = values.dropna()
    if column.kind == "categorical":
        return bool(present.isin(column.categories or ()).all())
    assert column.min is not None
    assert column.max is not None
    whole = column.kind != "integer" or bool((present == present.round()).all())
    return whole and bool(present.between(column.min, column.max).all())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bank=st.sampled_from(BANKS), rows=st.integers(1, 400))
def test_every_value_lies_inside_the_public_schema_for_any_seed(seed: int, bank: Bank, rows: int) -> None:
    frame, schema = bank_table(bank, rows=rows, rng=np.random.default_rng(seed)), demo_schema()
    assert list(frame.columns) == [c.name for c in schema.columns]
    assert len(frame) == rows
    for column in schema.columns:
        assert fits(frame[column.name], column), column.name
        assert column.nullable or not frame[column.name].isna().any(), column.name


def test_nullable_columns_do_miss_values_at_every_bank(tables: DemoTables) -> None:
    for frame in tables.banks.values():
        missing = frame[["years_employed", "region", "utilisation"]].isna().mean()
        assert (missing > 0.002).all()
        assert (missing < 0.4).all()


def test_defaults_are_a_minority_and_differ_between_banks(tables: DemoTables) -> None:
    rates = {name: frame[TARGET].mean() for name, frame in tables.banks.items()}
    assert 0.15 < tables.held_out[TARGET].mean() < 0.20
    assert rates["retail_bank"] < 0.12 < rates["credit_union"] < 0.21 < rates["online_lender"] < 0.32


def test_banks_lend_to_different_people(tables: DemoTables) -> None:
    retail, union, online = tables.banks.values()
    assert retail["age"].mean() > union["age"].mean() + 10
    assert retail["income"].mean() > 1.1 * online["income"].mean()
    assert (online["purpose"] == "debt_consolidation").mean() > 10 * (retail["purpose"] == "debt_consolidation").mean()


def test_columns_hang_together(tables: DemoTables) -> None:
    def correlation(one: str, other: str) -> float:
        return float(tables.held_out[one].astype("float64").corr(tables.held_out[other].astype("float64"), "spearman"))

    assert correlation("age", "years_employed") > 0.2
    assert correlation("utilisation", "debt_to_income") > 0.2
    assert correlation("utilisation", "late_payments") > 0.2


def test_pooled_rows_teach_clearly_more_than_any_bank_alone(tables: DemoTables) -> None:
    pooled = auc_of(pd.concat(tables.banks.values(), ignore_index=True), tables.held_out)
    alone = {name: auc_of(frame, tables.held_out) for name, frame in tables.banks.items()}
    assert 0.80 < pooled < 0.86
    assert max(alone.values()) < pooled - 0.03
    assert min(alone.values()) > 0.65


def test_a_table_of_no_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="rows must be a finite number above 0"):
        bank_table(BANKS[0], rows=0, rng=np.random.default_rng(0))


def test_banks_are_frozen_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BANKS[0].rows = 1  # type: ignore[misc]
