"""Labels that balance each other's luck: nearer to expectation in every cell, and still each row's own probability.

All draws are seeded, so nothing here fails by chance.
"""

import numpy as np
import pandas as pd
import pytest

from distill.data.schema import Column, Schema
from server_train.pooling.labelling.label_draw import balanced_classes, draw_labels

ROWS = 20_000


def rows(n: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cells of two columns (eight and five cells) and chances of three classes that depend on both."""
    rng = np.random.default_rng(seed)
    cells = np.stack([rng.integers(8, size=n), 8 + rng.integers(5, size=n)], axis=1)
    scores = rng.normal(0, 1, (13, 3))[cells].sum(axis=1) + rng.normal(0, 0.5, (n, 3))
    soft = np.exp(scores)
    return cells, soft / soft.sum(axis=1, keepdims=True)


def independent(soft: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One row without regard to the others."""
    return (soft.cumsum(axis=1) < rng.random((len(soft), 1))).sum(axis=1).clip(max=soft.shape[1] - 1)


def gaps(codes: np.ndarray, soft: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Labels beyond their expectation, a group and class."""
    beyond = np.eye(soft.shape[1])[codes] - soft
    return np.stack([np.bincount(groups, b) for b in beyond.T], axis=1)


def spread(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


@pytest.mark.parametrize("column", [0, 1])
def test_every_cell_gets_nearly_the_labels_it_expects(column):
    cells, soft = rows()
    rng = np.random.default_rng(1)
    balanced, plain = balanced_classes(soft, cells, rng), independent(soft, rng)
    before, after = (spread(gaps(c, soft, cells[:, column])) for c in (plain, balanced))
    assert before > 10
    assert after < before / 5


def test_rows_with_alike_chances_get_the_labels_they_expect():
    cells, soft = rows()
    rng = np.random.default_rng(1)
    balanced, plain = balanced_classes(soft, cells, rng), independent(soft, rng)
    for k in range(3):
        groups = np.searchsorted(np.quantile(soft[:, k], np.arange(1, 32) / 32), soft[:, k])
        before, after = (spread(gaps(c, soft, groups)[:, k]) for c in (plain, balanced))
        assert after < before / 2


def test_each_row_follows_its_own_probability():
    """Over 600 draws of the same rows the mean label of a row is its probability; luck alone leaves .02 of it."""
    cells, soft = rows(400)
    drawn = np.mean([np.eye(3)[balanced_classes(soft, cells, np.random.default_rng(s))] for s in range(600)], axis=0)
    gap = (drawn - soft) / np.sqrt(soft * (1 - soft) / 600)
    assert abs(gap.mean()) < 0.1
    assert spread(gap) < 1.25  # 1 is what luck alone leaves
    assert np.abs(gap).max() < 5


def test_a_class_that_a_row_cannot_have_is_never_drawn():
    cells, soft = rows()
    soft[:, 1] = np.where(cells[:, 0] == 3, 0.0, soft[:, 1])
    soft /= soft.sum(axis=1, keepdims=True)
    codes = balanced_classes(soft, cells, np.random.default_rng(0))
    assert not (codes[cells[:, 0] == 3] == 1).any()
    assert (codes[cells[:, 0] != 3] == 1).any()


def test_certain_rows_keep_their_class():
    cells, _ = rows(500)
    wanted = np.random.default_rng(0).integers(3, size=500)
    np.testing.assert_array_equal(balanced_classes(np.eye(3)[wanted], cells, np.random.default_rng(1)), wanted)


def test_no_features_and_one_row_are_fine():
    soft = np.full((1000, 2), 0.5)
    codes = balanced_classes(soft, np.zeros((1000, 0), dtype=np.int64), np.random.default_rng(0))
    assert abs(codes.sum() - 500) < 8  # 16 is one standard deviation of independent draws
    assert balanced_classes(soft[:1], np.zeros((1, 1), dtype=np.int64), np.random.default_rng(0)).shape == (1,)


def test_labels_are_in_the_schemas_own_values():
    schema = Schema(
        name="loans",
        columns=(
            Column(name="x", kind="continuous", min=0.0, max=10.0),
            Column(name="paid", kind="categorical", categories=("no", "yes")),
        ),
        target="paid",
    )
    frame = pd.DataFrame({"x": np.linspace(0, 10, 300), "paid": "no"})
    labels = draw_labels(schema, None, np.tile([0.2, 0.8], (300, 1)), frame, np.random.default_rng(0))
    assert set(labels) == {"no", "yes"}
    assert abs((labels == "yes").sum() - 240) < 10
