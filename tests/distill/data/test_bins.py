"""Coarse bins: they cover every leaf, and a value drawn from a bin goes back to it."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.bins import ColumnBins, one_hot_slices
from distill.data.grids import column_grid
from distill.data.schema import Column
from distill.data.tables import OTHER
from tests.fakes.private_tables import EVERY_KIND, FALSE_ALARM, category, integer, number, plain_bins

RAW = {
    "ratio": number("x", nullable=True),
    "balance": number("x", -1e5, 1e6),
    "salary": integer("x", 0, 2_000_000, nullable=True),
    "steps": integer("x", -2500, 2500),
    "age": integer("x", 18, 100, nullable=True),
    "late": integer("x", 0, 5),
    "job": category("x", *"abcdefghijkl", other=True, nullable=True),
}


def bins_of(name: str, starts: np.ndarray, masses: np.ndarray, bin_of_piece: np.ndarray) -> ColumnBins:
    """Bins over pieces; a nullable column gets its missing piece and bin."""
    grid = column_grid(Column.model_validate(RAW[name]))
    if grid.column.nullable:
        starts, masses = np.append(starts, grid.leaves), np.append(masses, 0.1)
        bin_of_piece = np.append(bin_of_piece, bin_of_piece.max() + 1)
    return ColumnBins(grid, starts, masses, bin_of_piece)


@st.composite
def any_bins(draw: st.DrawFn) -> ColumnBins:
    """Random pieces of a random kind of column, in random bins; categories may be grouped out of order."""
    name = draw(st.sampled_from(sorted(RAW)))
    leaves = column_grid(Column.model_validate(RAW[name])).leaves
    starts = np.array(sorted({0, *draw(st.lists(st.integers(0, leaves - 1), max_size=30))}))
    masses = np.array(draw(st.lists(st.sampled_from([0.0, 0.01, 1.0]), min_size=len(starts), max_size=len(starts))))
    joined = draw(st.lists(st.booleans(), min_size=len(starts), max_size=len(starts)))
    bins = np.cumsum([0, *(not j for j in joined[1:])])
    if RAW[name]["kind"] == "categorical":
        bins = np.random.default_rng(len(starts)).permutation(bins)
    return bins_of(name, starts, masses, bins)


@given(any_bins())
def test_every_leaf_is_in_a_bin_and_every_bin_has_one(bins):
    coarse = bins.coarse(np.arange(bins.grid.cells))
    assert np.unique(coarse).tolist() == list(range(bins.n_bins))
    assert (bins.stops > bins.starts).all()
    assert bins.stops[-1] == bins.grid.cells
    for start, stop, own in zip(bins.starts, bins.stops, bins.bin_of_piece, strict=True):
        assert (coarse[start:stop] == own).all()


@settings(max_examples=200)
@given(any_bins(), st.integers(0, 10**6))
def test_a_drawn_value_goes_back_to_its_bin(bins, seed):
    wanted = np.repeat(np.arange(bins.n_bins), 20)
    values = bins.draw(wanted, np.random.default_rng(seed))
    back = bins.coarse(bins.grid.encode(values))
    if bins.grid.column.kind == "integer":  # between two pieces there may be no whole number at all
        starts, stops = bins.starts.astype(float), bins.stops.astype(float)
        nearest = bins.grid.decode(starts, np.minimum(stops, bins.grid.leaves), np.random.default_rng(0))
        holds = bins.grid.encode(pd.Series(nearest))
        empty = bins.bin_of_piece[((holds < bins.starts) | (holds >= bins.stops)) & (bins.starts < bins.grid.leaves)]
        checked = ~np.isin(wanted, empty)
        np.testing.assert_array_equal(back[checked], wanted[checked])
    else:
        assert np.mean(back == wanted) > (0.999 if bins.grid.column.kind == "categorical" else 0.99)


@pytest.mark.parametrize("name", sorted(RAW))
def test_only_the_last_bin_of_a_nullable_column_draws_missing_values(name):
    leaves = column_grid(Column.model_validate(RAW[name])).leaves
    cut = np.array([0, leaves // 2])
    bins = bins_of(name, cut, np.array([0.5, 0.5]), np.array([0, 1]))
    values = bins.draw(np.repeat(np.arange(bins.n_bins), 50), np.random.default_rng(0))
    nullable = RAW[name].get("nullable", False)
    assert values.isna().tolist() == [False] * 100 + [True] * 50 * nullable


def test_pieces_of_a_bin_are_drawn_by_their_mass_and_never_without_any():
    masses = np.array([0.1, 0.0, 0.3, 0.2, 0.0])
    bins = bins_of("late", np.arange(5), masses, np.array([0, 0, 0, 1, 1]))
    n = 40_000
    values = bins.draw(np.zeros(n, dtype=np.int64), np.random.default_rng(1)).to_numpy()
    assert set(values) == {0.0, 2.0}
    assert scipy.stats.binomtest(int((values == 0).sum()), n, 0.25).pvalue > FALSE_ALARM
    assert set(bins.draw(np.ones(n, dtype=np.int64), np.random.default_rng(2))) == {3.0}


def test_a_bin_without_mass_draws_evenly_over_its_leaves():
    bins = bins_of("late", np.array([0, 1]), np.array([0.0, 0.0]), np.array([0, 0]))
    values = bins.draw(np.zeros(60_000, dtype=np.int64), np.random.default_rng(3)).astype(int)
    assert scipy.stats.chisquare(np.bincount(values, minlength=6)).pvalue > FALSE_ALARM


def test_quantiles_spread_mass_inside_a_piece_and_jump_at_a_single_value():
    ages = bins_of("age", np.array([0, 10, 11]), np.array([0.25, 0.5, 0.25]), np.array([0, 1, 2]))  # 18-27, 28, 29-100
    assert ages.quantiles(np.array([0.0, 0.125, 0.3, 0.7, 1.0])).tolist() == pytest.approx([18, 22.5, 28, 28, 100])
    late = bins_of("late", np.array([0, 1, 3]), np.array([0.0, 1.0, 0.0]), np.array([0, 1, 2]))
    assert late.quantiles(np.array([0.0, 1.0])).tolist() == [1, 2]  # values without mass are never reached


@pytest.mark.parametrize("name", [n for n in sorted(RAW) if n != "job"])
def test_quantiles_ascend_inside_the_bounds_also_where_nothing_is_known(name):
    empty = bins_of(name, np.array([0, 3]), np.zeros(2), np.array([0, 1]))
    got = empty.quantiles(np.linspace(0, 1, 65))
    assert (np.diff(got) >= 0).all()
    assert (got[0], got[-1]) == pytest.approx((RAW[name]["min"], RAW[name]["max"]))


def test_quantiles_are_those_of_the_rows_that_the_bins_describe(seed):
    grid = column_grid(Column.model_validate(RAW["balance"]))
    values = np.random.default_rng(seed).lognormal(6, 1.5, 20_000).clip(0, 1e6)
    counts = np.bincount(grid.encode(pd.Series(values)), minlength=grid.cells)
    bins = ColumnBins(grid, np.arange(grid.cells), counts.astype(float), np.arange(grid.cells))
    ranks = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(bins.quantiles(ranks), np.quantile(values, ranks), rtol=2e-3)


def test_grouped_categories_draw_every_member_and_other():
    grid = column_grid(Column.model_validate(RAW["job"]))
    starts = np.arange(grid.leaves)
    bins = bins_of("job", starts, np.full(grid.leaves, 0.05), np.array([1, 0] * 6 + [1]))
    values = bins.draw(np.repeat([0, 1], 500), np.random.default_rng(4))
    assert set(values[:500]) == set("bdfhjl")
    assert set(values[500:]) == {*"acegik", OTHER}


def test_one_hot_slices_lie_side_by_side():
    bins = plain_bins(EVERY_KIND)
    slices = one_hot_slices(bins)
    assert slices[0].start == 0
    for before, after in pairwise(slices):
        assert before.stop == after.start
    assert [s.stop - s.start for s in slices] == [b.n_bins for b in bins]
