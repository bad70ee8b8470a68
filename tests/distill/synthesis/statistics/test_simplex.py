"""Projection of noisy counts: onto the right set, and to its nearest point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill.synthesis.statistics.simplex import project_to_simplex

counts = arrays(float, st.integers(1, 40), elements=st.floats(-1e6, 1e6))


@given(counts, st.floats(1e-3, 1e6))
def test_the_projection_is_nonnegative_with_the_wanted_sum(noisy, total):
    got = project_to_simplex(noisy, total)
    assert (got >= 0).all()
    assert got.sum() == pytest.approx(total, rel=1e-6, abs=1e-6)


@given(counts, st.floats(1, 1e6))
def test_no_other_point_of_the_set_is_nearer(noisy, total):
    """The conditions of Karush, Kuhn and Tucker: one shift where the result is positive, no less where it is zero."""
    got = project_to_simplex(noisy, total)
    shift = noisy - got
    kept = got > 0
    assert np.ptp(shift[kept]) < 1e-6 * (1 + np.abs(noisy).max())
    assert (shift[~kept] <= shift[kept].max() + 1e-6 * (1 + np.abs(noisy).max())).all()


@given(counts, st.floats(1, 1e6), st.integers(0, 1000))
def test_random_points_of_the_set_are_further_away(noisy, total, seed):
    got = project_to_simplex(noisy, total)
    rng = np.random.default_rng(seed)
    for other in rng.dirichlet(np.ones(noisy.size), 20) * total:
        assert np.linalg.norm(noisy - got) <= np.linalg.norm(noisy - other) * (1 + 1e-9) + 1e-6


@given(counts)
def test_shares_sum_to_one(noisy):
    got = project_to_simplex(noisy)
    assert (got >= 0).all()
    assert got.sum() == pytest.approx(1)


def test_counts_that_could_be_true_stay_as_they_are():
    np.testing.assert_allclose(project_to_simplex(np.array([3.0, 0.0, 5.0]), 8.0), [3, 0, 5])
    np.testing.assert_allclose(project_to_simplex(np.array([3.0, 0.0, 5.0])), [0.375, 0, 0.625])


@pytest.mark.parametrize("noisy", [[-5.0, -7.0, -9.0], [-4.0], [0.0, 0.0]])
def test_counts_with_no_positive_sum_still_give_shares(noisy):
    got = project_to_simplex(np.array(noisy))
    assert got.sum() == pytest.approx(1)
    assert got.argmax() == 0


def test_whole_numbers_are_accepted():
    np.testing.assert_allclose(project_to_simplex(np.array([4, -1, 4]), 6), [3, 0, 3])
