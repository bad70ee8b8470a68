import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.schema import Column, Schema
from distill.data.tables import canonical_table
from distill.errors import DataError
from server_train.models.features import Encoder, NumberCurve, category_codes, class_codes, fit_encoder, levels
from tests.fakes.hubs import BINARY, table


def test_numbers_become_rank_value_and_flag_with_mean_zero_and_spread_one():
    frame = table(5000, BINARY, 0)
    inputs = fit_encoder(BINARY, frame).encode(frame)
    assert inputs.dense.shape == (5000, 3 + 2)
    missing = frame["income"].isna().to_numpy()
    assert (inputs.dense[missing][:, :3] == [0, 0, 1]).all()
    assert inputs.dense[~missing][:, :2].mean(axis=0) == pytest.approx([0, 0], abs=0.05)
    assert inputs.dense[~missing][:, :2].std(axis=0) == pytest.approx([1, 1], abs=0.05)


def test_each_category_has_its_own_place_and_missing_has_one_too():
    frame = table(300, BINARY, 0)
    encoder = fit_encoder(BINARY, frame)
    assert encoder.n_codes == 4 + 3
    codes = encoder.encode(frame).codes
    assert set(codes[:, 0]) == {0, 1, 2, 3}
    assert set(codes[:, 1]) == {4, 5, 6}
    assert (codes[frame["region"].isna().to_numpy(), 0] == 3).all()


def test_public_and_canonical_rows_encode_alike():
    frame = table(500, BINARY, 1)
    encoder = fit_encoder(BINARY, frame)
    one, two = encoder.encode(frame), encoder.encode(canonical_table(frame, BINARY))
    assert (one.dense == two.dense).all()
    assert (one.codes == two.codes).all()
    assert (class_codes(BINARY, frame) == class_codes(BINARY, canonical_table(frame, BINARY))).all()


def test_unknown_categories_are_other_then_missing_then_refused():
    values = pd.Series(["a", "zebra", None], dtype=object)
    both = Column(name="c", kind="categorical", categories=("a", "b"), nullable=True, other=True)
    assert category_codes(both, values).tolist() == [0, 2, 3]
    nullable = Column(name="c", kind="categorical", categories=("a", "b"), nullable=True)
    assert category_codes(nullable, values).tolist() == [0, 2, 2]
    strict = Column(name="c", kind="categorical", categories=("a", "b"))
    with pytest.raises(DataError, match="'c' holds values outside its 2 public categories") as refused:
        category_codes(strict, values[:2])
    assert "zebra" not in str(refused.value)
    with pytest.raises(DataError, match="'c' has missing values"):
        category_codes(strict, values[2:])


def test_whole_numbers_that_pandas_turned_into_floats_are_still_categories():
    column = Column(name="g", kind="categorical", categories=(1, 2, 3), nullable=True)
    assert category_codes(column, pd.Series([1.0, 3.0, np.nan])).tolist() == [0, 2, len(levels(column)) - 1]
    assert category_codes(column, pd.Series([1, None], dtype="Int64")).tolist() == [0, 3]


def test_a_spike_and_a_constant_column_stay_finite():
    schema = Schema.model_validate(
        {
            "name": "t",
            "target": "y",
            "columns": [
                {"name": "spike", "kind": "continuous", "min": 0, "max": 1e9},
                {"name": "constant", "kind": "integer", "min": 0, "max": 9},
                {"name": "empty", "kind": "integer", "min": 0, "max": 9, "nullable": True},
                {"name": "y", "kind": "categorical", "categories": [0, 1]},
            ],
        }
    )
    spike = np.where(np.arange(100) < 90, 0.0, np.linspace(1, 1e9, 100))
    pool = pd.DataFrame({"spike": spike, "constant": 4, "empty": np.full(100, np.nan), "y": 0})
    encoder = fit_encoder(schema, pool)
    beyond = pd.DataFrame({"spike": [-5.0, 1e12], "constant": [0, 9], "empty": [np.nan, 3], "y": 0})
    for frame in (pool, beyond):
        assert np.isfinite(encoder.encode(frame).dense).all()
    assert np.abs(encoder.encode(beyond).dense).max() <= 6


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=50))
def test_ranks_never_fall_when_values_rise(values):
    frame = table(200, BINARY, 0).head(len(values)).assign(income=sorted(values))
    ranks = fit_encoder(BINARY, frame).encode(frame).dense[:, 0]
    assert (np.diff(ranks) >= 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns=["age", "grade"]), "columns missing: age, grade"),
        (lambda f: f.assign(age="old"), "'age' is integer in the schema but holds text"),
        (lambda f: f.assign(age=np.inf), "'age' holds infinite values"),
        (lambda f: f.assign(age=np.nan), "'age' has missing values"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_column(change, words):
    frame = table(50, BINARY, 0)
    with pytest.raises(DataError, match=words):
        fit_encoder(BINARY, frame).encode(change(frame))


def test_the_target_is_not_looked_at_and_may_be_absent():
    frame = table(50, BINARY, 0)
    encoder = fit_encoder(BINARY, frame)
    assert (encoder.encode(frame).dense == encoder.encode(frame.drop(columns="default")).dense).all()
    with pytest.raises(DataError, match="target column 'default' is missing"):
        class_codes(BINARY, frame.drop(columns="default"))


def test_preprocessing_that_belongs_to_another_schema_is_refused():
    curve = NumberCurve(knots=(0, 1), ranks=(0, 1), mean=0, spread=1)
    with pytest.raises(ValueError, match="age"):
        Encoder(BINARY, {"income": curve})
    with pytest.raises(ValueError, match="increase"):
        NumberCurve(knots=(1, 1), ranks=(0, 1), mean=0, spread=1)
