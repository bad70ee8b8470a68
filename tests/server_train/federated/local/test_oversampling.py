import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_train.federated.local.oversampling import MOST_PARENTS, between, with_generated


def encoded(rows, seed):
    """Rows as the encoder makes them: a number (rank, value), a nullable one with its flag, a one-hot category of four."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=rows)
    absent = rng.random(rows) < 0.3
    second = np.where(absent, 0.0, rng.normal(size=rows))
    category = np.eye(4)[rng.integers(4, size=rows)]
    return np.column_stack([first, first**3, second, absent, category]).astype(np.float32)


@given(st.integers(2, 40), st.integers(0, 1000))
def test_generated_rows_are_rows_that_the_encoder_could_have_made(sparse, seed):
    x = encoded(200, seed)
    y = np.array([1] * sparse + [0] * (200 - sparse))
    more_x, more_y = with_generated(x, y, least_share=0.5, rng=np.random.default_rng(seed))
    new = more_x[200:]
    assert (more_y[200:] == 1).all()
    assert np.array_equal(more_x[:200], x)
    assert set(np.unique(new[:, 3:])) <= {0.0, 1.0}
    assert (new[:, 4:].sum(axis=1) == 1).all()
    assert ((new[:, 2] == 0) == (new[:, 3] == 1)).all()  # missing exactly where the flag says so
    assert (new >= x[:sparse].min(axis=0)).all()
    assert (new <= x[:sparse].max(axis=0)).all()
    assert new.dtype == x.dtype


@pytest.mark.parametrize(
    ("counts", "least_share", "generated"),
    [
        ([90, 10], 0.0, [0, 0]),
        ([90, 10], 0.1, [0, 0]),
        ([90, 10], 0.15, [0, 5]),  # up to the share
        ([90, 10], 0.5, [0, 10]),  # but to no more than twice its own
        ([97, 2, 1], 0.2, [0, 2, 0]),  # a single row has no neighbour
        ([100], 0.9, [0]),
    ],
)
def test_sparse_classes_grow_to_their_share(counts, least_share, generated):
    y = np.repeat(np.arange(len(counts)), counts)
    more_x, more_y = with_generated(encoded(100, 0), y, least_share=least_share, rng=np.random.default_rng(0))
    assert len(more_x) == len(more_y)
    assert (np.bincount(more_y) - counts).tolist() == generated


def test_nothing_is_copied_where_no_class_is_sparse():
    x, y = encoded(10, 0), np.array([0, 1] * 5)
    same_x, same_y = with_generated(x, y, least_share=0.3, rng=np.random.default_rng(0))
    assert same_x is x
    assert same_y is y


def test_a_generated_row_lies_between_near_neighbours_not_across_the_class():
    """Two far groups of one class: no row is drawn in the gap between them."""
    rng = np.random.default_rng(0)
    group = np.repeat([1.0, 101.0], 10)[:, None] + rng.random((20, 3))
    x = np.concatenate([group, rng.random((180, 3))])
    y = np.repeat([1, 0], [20, 180])
    new = with_generated(x, y, least_share=0.2, rng=rng)[0][200:]
    assert len(new) == 20
    assert ((new < 3) | (new > 100)).all()
    assert not (new[:, None] == group).all(axis=2).any()


def test_features_that_are_zero_in_either_parent_are_the_first_parents():
    first, second = np.array([[1.0, 0.0, 4.0, -2.0]]), np.array([[3.0, 5.0, 0.0, -4.0]])
    assert between(first, second, np.array([[0.5]])).tolist() == [[2.0, 0.0, 4.0, -3.0]]


def test_a_large_sparse_class_is_thinned_before_distances_are_taken():
    rows = 3 * MOST_PARENTS
    x = np.random.default_rng(0).normal(size=(10 * rows, 2)).astype(np.float32)
    y = np.repeat([1, 0], [rows, 9 * rows])
    assert len(with_generated(x, y, least_share=0.11, rng=np.random.default_rng(0))[0]) == 10 * rows + 0.01 * 10 * rows


def test_the_same_seed_draws_the_same_rows():
    x, y = encoded(100, 0), np.repeat([0, 1], [90, 10])
    one, two = (with_generated(x, y, least_share=0.2, rng=np.random.default_rng(4))[0] for _ in range(2))
    assert np.array_equal(one, two)
