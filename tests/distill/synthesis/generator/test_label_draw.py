"""Balanced labels: right on average for each row, and far less noisy in each bin than independent coins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.synthesis.generator.label_draw import balanced_labels


def rows(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Class chances, one-hot positions of 4 features with 5 values, width of the one-hot row."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (n, 4))
    score = np.outer(values @ np.array([0.5, -0.3, 0.2, 0.0]) - 0.8, np.arange(classes))
    chances = np.exp(score)
    return chances / chances.sum(axis=1, keepdims=True), values + 5 * np.arange(4), 20


def gaps(labels: np.ndarray, chances: np.ndarray, cells: np.ndarray, width: int) -> np.ndarray:
    """Drawn minus expected number of each class in each cell, (cells, classes)."""
    error = np.eye(chances.shape[1])[labels] - chances
    return np.stack(
        [np.bincount(cells.ravel(), np.repeat(error[:, c], cells.shape[1]), width) for c in range(error.shape[1])],
        axis=1,
    )


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_label_counts_stay_near_their_expectation_in_every_cell(classes, seed):
    chances, cells, width = rows(4000, classes, seed)
    rng = np.random.default_rng(seed)
    balanced = gaps(balanced_labels(chances, cells, width, rng), chances, cells, width)
    coins = gaps((rng.random((4000, 1)) > chances.cumsum(axis=1)).sum(axis=1), chances, cells, width)
    assert np.square(balanced).sum() < 0.4 * np.square(coins).sum()
    assert np.abs(balanced.sum(axis=0)).max() / 4 < 40  # over all rows; independent coins: about 30 a stddev


def test_each_rows_chance_stays_near_its_own(seed):
    chances, cells, width = rows(300, 3, seed)
    rounds = 300
    rng = np.random.default_rng(seed)
    drawn = np.stack([balanced_labels(chances, cells, width, rng) for _ in range(rounds)])
    frequency = np.stack([(drawn == c).mean(axis=0) for c in range(3)], axis=1)
    sampling = np.sqrt(chances * (1 - chances) / rounds)
    assert np.abs(frequency - chances).max() < 0.05 + 5.5 * sampling.max()
    assert np.abs((frequency - chances).mean(axis=0)).max() < 0.01  # and there is no drift towards a class


@settings(max_examples=30)
@given(st.integers(0, 200), st.integers(2, 6), st.integers(0, 1000))
def test_every_label_is_a_class_for_any_number_of_rows(n, classes, seed):
    chances, cells, width = rows(n, classes, seed)
    labels = balanced_labels(chances, cells, width, np.random.default_rng(seed))
    assert labels.shape == (n,)
    assert set(labels.tolist()) <= set(range(classes))


def test_certain_rows_get_their_class():
    truth = np.arange(500) % 3
    _, cells, width = rows(500, 3, 0)
    labels = balanced_labels(np.eye(3)[truth], cells, width, np.random.default_rng(0))
    np.testing.assert_array_equal(labels, truth)


def test_a_rare_class_appears_as_often_as_expected(seed):
    """Two in a thousand of 20,000 rows: 40, where independent coins would give 40 +- 6."""
    _, cells, width = rows(20_000, 2, seed)
    chances = np.tile([0.998, 0.002], (20_000, 1))
    labels = balanced_labels(chances, cells, width, np.random.default_rng(seed))
    assert abs(int(labels.sum()) - 40) <= 30


def test_the_same_generator_gives_the_same_labels():
    chances, cells, width = rows(200, 3, 1)
    first, second = (balanced_labels(chances, cells, width, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
