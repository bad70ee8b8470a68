"""Common bins of a number: no edge is lost, each head keeps its word, and means are those of drawn values."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from distill.data.bins import ColumnBins
from distill.data.grids import column_grid
from distill.data.schema import Schema
from server_train.evaluation.metrics import evaluate_numbers
from server_train.models.number_target import (
    LEAST_MASS,
    TargetBins,
    _join_light,
    bin_labels,
    bin_means,
    on_common_bins,
    stored_bins,
    target_codes,
)

SCHEMA = Schema.model_validate(
    {
        "name": "claims",
        "target": "amount",
        "columns": [
            {"name": "x", "kind": "continuous", "min": 0, "max": 1},
            {"name": "amount", "kind": "continuous", "min": 0, "max": 1000},
        ],
    }
)
GRID = column_grid(SCHEMA.column("amount"))


class Institution:
    """A generator whose head knows its bins from x alone."""

    def __init__(self, edges: list[float], rows: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        starts = np.unique((np.sort([0, *edges, *rng.uniform(0, 1000, 20)]) / 1000 * GRID.leaves).astype(int))
        cuts = (np.array(edges) / 1000 * GRID.leaves).astype(int)
        own = ColumnBins(GRID, starts, rng.random(len(starts)), np.searchsorted(cuts, starts, side="right"))
        self.bins = (SimpleNamespace(), own)
        self.noisy_rows = rows
        self.class_prior = rng.dirichlet(np.full(own.n_bins, 3.0))
        self._weight = rng.normal(size=own.n_bins)

    def class_log_probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        scores = np.log(self.class_prior) + np.outer(frame["x"], self._weight)
        return np.asarray(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))


@pytest.fixture
def two() -> list[Institution]:
    return [Institution([100, 300, 600], 3000, 1), Institution([150, 300, 450, 900], 1000, 2)]


def test_every_edge_is_kept_and_every_row_counts_alike(two):
    common, spoken = on_common_bins(SCHEMA, two)
    edges = {int(b.starts[i]) for t in two for b in [t.bins[1]] for i in np.flatnonzero(np.diff(b.bin_of_piece)) + 1}
    kept = {int(common.starts[i]) for i in np.flatnonzero(np.diff(common.bin_of_piece)) + 1}
    assert kept <= edges
    shares = np.bincount(common.bin_of_piece, common.masses)
    assert common.masses.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares, 0.75 * spoken[0].class_prior + 0.25 * spoken[1].class_prior)
    for one in spoken:
        np.testing.assert_allclose(one.spread.sum(axis=1), 1)
        assert one.class_prior.sum() == pytest.approx(1)


def test_inside_one_of_its_own_bins_a_head_says_what_it_said_of_that_bin(two):
    frame = pd.DataFrame({"x": np.linspace(0, 1, 7)})
    common, spoken = on_common_bins(SCHEMA, two)
    checked = 0
    for own, one in zip(two, spoken, strict=True):
        said = own.class_log_probabilities(frame) - np.log(own.class_prior)
        says = one.class_log_probabilities(frame) - np.log(np.maximum(one.class_prior, 1e-300))
        for place in range(common.n_bins):
            inside = np.flatnonzero(one.spread[:, place] > 0)
            if len(inside) == 1:
                np.testing.assert_allclose(says[:, place], said[:, inside[0]], atol=1e-6)
                checked += 1
        np.testing.assert_allclose(np.exp(one.class_log_probabilities(frame)).sum(axis=1), 1, atol=1e-6)
    assert checked >= 6


def test_one_institution_alone_keeps_its_own_bins():
    alone = Institution([100, 300, 600], 3000, 1)
    common, (one,) = on_common_bins(SCHEMA, [alone])
    np.testing.assert_array_equal(common.bin_of_piece, alone.bins[1].bin_of_piece)
    np.testing.assert_allclose(one.class_prior, alone.class_prior)
    np.testing.assert_allclose(one.spread, np.eye(4))


def test_light_neighbours_are_joined_and_heavy_bins_stand_alone(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        masses = rng.dirichlet(np.full(60, 0.2))
        bins = _join_light(masses)
        assert (np.diff(bins) >= 0).all()
        assert set(np.diff(bins)) <= {0, 1}
        together = np.bincount(bins, masses)
        assert (together < 2 * LEAST_MASS + masses[masses < LEAST_MASS].max())[np.bincount(bins) > 1].all()
        assert (np.bincount(bins)[bins[masses >= LEAST_MASS]] >= 1).all()
        assert not ((together[:-1] < LEAST_MASS) & (together[1:] < LEAST_MASS)).any()


def test_means_of_bins_are_those_of_values_drawn_from_them(two, seed):
    common, _ = on_common_bins(SCHEMA, two)
    codes = np.repeat(np.arange(common.n_bins), 40_000)
    drawn = common.draw(codes, np.random.default_rng(seed)).to_numpy().reshape(common.n_bins, -1)
    error = drawn.std(axis=1) / 200  # five of these: missed less than once in 1e6
    assert (np.abs(drawn.mean(axis=1) - bin_means(common)) < 5.5 * error + 1e-9).all()
    np.testing.assert_array_equal(target_codes(common, pd.Series(drawn.ravel())), codes)


def test_bins_survive_the_card_and_broken_ones_are_refused(two):
    common, _ = on_common_bins(SCHEMA, two)
    stored = stored_bins(common)
    again = TargetBins.model_validate_json(stored.model_dump_json()).on(SCHEMA.column("amount"))
    np.testing.assert_allclose(bin_means(again), bin_means(common))
    assert len(bin_labels(again)) == common.n_bins
    assert bin_labels(again)[0].startswith("0 to ")
    sound = stored.model_dump()
    for change in (
        {"starts": (1, *sound["starts"][1:])},
        {"masses": sound["masses"][1:]},
        {"masses": (-1.0, *sound["masses"][1:])},
        {"bin_of_piece": (0, *[5] * (len(sound["starts"]) - 1))},
        {"starts": sound["starts"][::-1]},
    ):
        with pytest.raises(ValidationError):
            TargetBins.model_validate({**sound, **change})
    beyond = TargetBins(starts=(0, GRID.leaves), masses=(0.5, 0.5), bin_of_piece=(0, 1))
    with pytest.raises(ValueError, match="do not fit its column"):
        beyond.on(SCHEMA.column("amount"))


def test_a_bin_without_mass_is_spread_over_its_leaves():
    empty = ColumnBins(GRID, np.array([0, GRID.leaves // 2]), np.array([1.0, 0.0]), np.array([0, 1]))
    np.testing.assert_allclose(bin_means(empty), [250, 750], rtol=1e-6)


def test_figures_of_numbers_are_those_of_the_books():
    truth, predicted = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 3.0, 3.0, 4.0])
    figures = evaluate_numbers(truth, predicted)
    assert figures.rmse == pytest.approx((5 / 4) ** 0.5)
    assert figures.mae == pytest.approx(3 / 4)
    assert figures.r2 == pytest.approx(1 - 5 / 14)
    assert evaluate_numbers(np.ones(3), np.ones(3)).r2 is None
