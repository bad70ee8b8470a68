"""Base grids: values go to leaves and come back, row by row, whatever the public bounds."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.grids import base_grids, column_grid, encode_table
from distill.data.schema import Column
from distill.data.tables import OTHER, canonical_table
from tests.fakes.private_tables import EVERY_KIND, category, every_kind, integer, number


def grid_of(raw: dict):
    return column_grid(Column.model_validate(raw))


def there_and_back(grid, values, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Leaves of the values, and one value drawn from each leaf."""
    leaves = grid.encode(pd.Series(np.asarray(values, dtype=float)))
    assert ((leaves >= 0) & (leaves < grid.leaves)).all()
    start = leaves.astype(float)
    return leaves, grid.decode(start, start + 1, np.random.default_rng(seed))


bounds = st.tuples(st.floats(-3000, 3000), st.floats(0.01, 900))


@given(bounds, st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_numbers_on_a_linear_grid_come_back_within_one_leaf(limits, portions):
    low, width = limits
    grid = grid_of(number("x", low, low + width))
    values = np.clip(low + width * np.array(portions), low, low + width)
    assert not grid.log_scale
    leaves, back = there_and_back(grid, values)
    assert (np.abs(back - values) <= width / grid.leaves * (1 + 1e-6)).all()
    assert ((back >= low) & (back <= low + width)).all()
    assert (np.diff(leaves.astype(np.int64)[np.argsort(values)]) >= 0).all()  # the order is kept


@given(
    st.floats(-1e12, 0),
    st.floats(5000, 1e12),
    st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50),
)
def test_numbers_on_a_signed_log_grid_come_back_with_a_small_relative_error(low, high, values):
    grid = grid_of(number("x", low, high))
    assert grid.log_scale
    inside = np.clip(values, low, high)
    leaves, back = there_and_back(grid, inside)
    step = (math.log1p(high) + math.log1p(-low)) / grid.leaves
    assert step < 1e-3
    assert (np.abs(back - inside) <= (1 + np.abs(inside)) * math.expm1(step) * 1.01 + 1e-9).all()
    assert (np.diff(leaves.astype(np.int64)[np.argsort(inside)]) >= 0).all()


@given(bounds, st.integers(0, 65535), st.integers(1, 65536))
def test_a_number_drawn_from_leaves_lies_in_those_leaves(limits, start, length):
    low, width = limits
    for grid in (grid_of(number("x", low, low + width)), grid_of(number("x", low, low + 1e5))):
        stop = min(start + length, grid.leaves)
        drawn = grid.decode(np.full(20, float(start)), np.full(20, float(stop)), np.random.default_rng(start))
        leaves = grid.encode(pd.Series(drawn)).astype(np.int64)
        assert ((leaves >= start - 1) & (leaves <= stop)).all()  # a draw on an edge may round to either side
        if length > 1:
            assert np.mean((leaves >= start) & (leaves < stop)) > 0.9


@given(st.integers(-(10**9), 10**9), st.integers(1, 4095))
def test_integers_of_a_middling_range_have_a_leaf_each(low, span):
    grid = grid_of(integer("x", low, low + span))
    values = np.unique(np.linspace(low, low + span, 300).round())
    leaves, back = there_and_back(grid, values)
    assert grid.by_value
    assert grid.leaves == span + 1
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(leaves, values - low)


@pytest.mark.parametrize("low", [-3999, -2500, -1000])
def test_integers_of_a_wide_linear_range_come_back_exactly(low):
    grid = grid_of(integer("x", low, 5000 + low))
    assert not grid.by_value
    values = np.arange(low, low + 5001)
    np.testing.assert_array_equal(there_and_back(grid, values)[1], values)


@given(st.integers(-(10**9), 0), st.integers(10**4, 10**12), st.integers(0, 10**6))
def test_integers_of_a_huge_range_come_back_whole_inside_the_leaf(low, high, seed):
    grid = grid_of(integer("x", low, high))
    rng = np.random.default_rng(seed)
    spread = rng.choice([-1.0, 1.0], 200) * 10 ** rng.uniform(0, 12, 200)
    values = np.rint(np.clip(np.append(spread, [0, 1, 2, high]), low, high))
    leaves, back = there_and_back(grid, values, seed)
    assert (back == np.rint(back)).all()
    assert ((back >= low) & (back <= high)).all()
    np.testing.assert_array_equal(grid.encode(pd.Series(back)), leaves)
    small = np.abs(values) < 100  # leaves are finer than one there
    np.testing.assert_array_equal(back[small], values[small])


@pytest.mark.parametrize("top", [9, 300, 7999, 50_000])
def test_whole_numbers_inside_a_run_of_leaves_are_drawn_evenly(top):
    """Each tenth of 0..9 (or of a wider range) as often as the others: the ends are not halved."""
    grid = grid_of(integer("x", 0, top))
    first, last = grid.encode(pd.Series([0.0, 9.0])).astype(float)
    n = 50_000
    drawn = grid.decode(np.full(n, first), np.full(n, last + 1), np.random.default_rng(0))
    counts = np.bincount(drawn.astype(int), minlength=10)
    assert counts.size == 10
    assert counts.min() > n / 10 * 0.9
    assert counts.max() < n / 10 * 1.1


@pytest.mark.parametrize(("low", "high"), [(1e15, 1e15 + 8), (-1e9 - 1, -1e9), (1e300, 1.0000000001e300)])
def test_narrow_bounds_far_from_zero_are_resolved(low, high):
    grid = grid_of(number("x", low, high))
    leaves, back = there_and_back(grid, np.linspace(low, high, 9))
    assert len(np.unique(leaves)) == 9
    assert ((back >= low) & (back <= high)).all()


@pytest.mark.parametrize(("low", "high"), [(-1e300, 1e300), (0, 1e300), (0, 5e-324 * 2**60), (-1e-9, 1e-9)])
def test_extreme_bounds_neither_overflow_nor_leave_the_grid(low, high):
    _, back = there_and_back(grid_of(number("x", low, high)), [low, 0, high / 2, high])
    assert ((back >= low) & (back <= high)).all()


@given(st.integers(2, 4096))
def test_the_tree_over_an_integer_column_holds_all_its_leaves(values):
    grid = grid_of(integer("x", 0, values - 1))
    assert grid.depth == 0 or grid.branching**grid.depth >= grid.leaves == values


@pytest.mark.parametrize("raw", [c.model_dump() for c in EVERY_KIND.features if c.kind != "categorical"])
def test_the_middle_of_each_leaf_goes_back_to_its_leaf(raw):
    grid = grid_of(raw)
    middles = grid.middles()
    assert len(middles) == grid.cells
    assert np.isnan(middles[grid.leaves :]).all()
    back = grid.encode(pd.Series(middles)).astype(int)
    off = np.flatnonzero(back != np.arange(grid.cells))
    # Leaves that hold no whole number stand for the nearest one, and the leaf at zero for zero, which may be its edge.
    low, high = grid.span(off, off + 1)
    assert ((low == high) | (raw["kind"] == "integer")).all()
    assert raw["kind"] == "integer" or len(off) <= 1


def test_the_span_of_leaves_holds_the_whole_numbers_in_them():
    small, wide = grid_of(integer("x", 10, 19)), grid_of(integer("x", 0, 2_000_000))
    assert [v.tolist() for v in small.span(np.array([0, 3]), np.array([10, 4]))] == [[10, 13], [19, 13]]
    low, high = wide.span(np.arange(wide.leaves), np.arange(1, wide.leaves + 1))
    assert ((low == np.rint(low)) & (high == np.rint(high)) & (low <= high)).all()
    assert (low[0], high[-1]) == (0, 2_000_000)


def test_one_leaf_around_zero_is_zero_and_several_are_not():
    grid = grid_of(number("x", -1e5, 1e6))
    zero = grid.encode(pd.Series([0.0])).astype(int)
    assert [v.item() for v in grid.span(zero, zero + 1)] == [0.0, 0.0]
    low, high = grid.span(zero - 1, zero + 2)
    assert low.item() < 0 < high.item()


def test_categories_take_their_place_in_the_schema_then_other_then_missing():
    grid = grid_of(category("job", "b", "a", other=True, nullable=True))
    values = pd.Series(pd.Categorical(["a", "b", OTHER, None], categories=grid.labels))
    assert grid.encode(values).tolist() == [1, 0, 2, 3]
    assert (grid.leaves, grid.cells, grid.labels) == (3, 4, ["b", "a", OTHER])


@pytest.mark.parametrize(
    "raw", [number("x", nullable=True), integer("x", nullable=True), number("x", 0, 1e6, nullable=True)]
)
def test_missing_numbers_take_the_last_cell_and_no_value_does(raw):
    grid = grid_of(raw)
    leaves = grid.encode(pd.Series([np.nan, raw["min"], raw["max"]]))
    assert leaves.tolist() == [grid.leaves, 0, grid.leaves - 1]
    assert grid.cells == grid.leaves + 1


def test_values_outside_the_bounds_take_the_outer_leaves():
    for raw in (number("x"), integer("x"), number("x", 0, 1e6), integer("x", -9000, 9000)):
        grid = grid_of(raw)
        assert grid.encode(pd.Series([-1e9, 1e9])).tolist() == [0, grid.leaves - 1]


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_encoding_looks_at_one_row_at_a_time(seed):
    """A row's leaves are the same alone and among others, in any order."""
    frame, grids = canonical_table(every_kind(40, seed), EVERY_KIND), base_grids(EVERY_KIND)
    together = np.stack(encode_table(frame, grids), axis=1)
    shuffled = np.random.default_rng(seed).permutation(40)
    np.testing.assert_array_equal(np.stack(encode_table(frame.iloc[shuffled], grids), axis=1), together[shuffled])
    np.testing.assert_array_equal(np.stack(encode_table(frame.iloc[7:8], grids), axis=1), together[7:8])


def test_leaf_codes_are_small_integers_that_hold_the_missing_cell():
    codes = encode_table(canonical_table(every_kind(500, 3), EVERY_KIND), base_grids(EVERY_KIND))
    for grid, leaves in zip(base_grids(EVERY_KIND), codes, strict=True):
        assert leaves.max() < grid.cells
        assert leaves.dtype == (np.uint16 if grid.cells > 256 else np.uint8)
        assert (leaves == grid.leaves).any() == grid.column.nullable
