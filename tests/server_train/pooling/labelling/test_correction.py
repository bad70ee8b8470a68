"""The union's head: recovers what only shows between institutions, leaves alone what noise explains, and is judged."""

import numpy as np
import pandas as pd
import pytest

from distill.data.schema import Schema
from distill.synthesis.statistics.class_odds import log_normalise
from server_train.pooling.institutions.cells import CELLS, find_cells
from server_train.pooling.labelling.correction import FIT_ROWS, fit_correction

SCHEMA = Schema.model_validate(
    {
        "name": "t",
        "target": "y",
        "columns": [
            {"name": "kind", "kind": "categorical", "categories": ["a", "b"], "other": True, "nullable": True},
            {"name": "few", "kind": "integer", "min": 0, "max": 9},
            {"name": "amount", "kind": "continuous", "min": 0, "max": 1e6, "nullable": True},
            {"name": "y", "kind": "categorical", "categories": [0, 1]},
        ],
    }
)


def rows(n, seed):
    rng = np.random.default_rng(seed)
    amount = np.where(rng.random(n) < 0.3, 0.0, rng.lognormal(6, 2, n).clip(0, 1e6))
    return pd.DataFrame(
        {
            "kind": rng.choice(np.array(["a", "b", "else", None], dtype=object), n),
            "few": rng.integers(2, 5, n),
            "amount": np.where(rng.random(n) < 0.2, np.nan, amount),
        }
    )


def test_cells_are_categories_few_values_or_parts_of_about_equal_mass_and_what_is_missing():
    frame = rows(8000, 0)
    cells = find_cells(SCHEMA, frame)
    assert cells.widths[:2] == (4, 3)
    codes = cells.of(frame)
    starts = np.concatenate([[0], np.cumsum(cells.widths)])
    for feature in range(3):
        assert set(codes[:, feature]) == set(range(starts[feature], starts[feature + 1])), feature
    missing = frame["amount"].isna().to_numpy()
    assert set(codes[missing, 2]) == {starts[3] - 1}
    assert not (codes[~missing, 2] == starts[3] - 1).any()
    known = np.bincount(codes[~missing, 2] - starts[2]) / (~missing).sum()
    assert len(known) <= CELLS
    assert known[1:].max() < 1.3 / CELLS
    assert codes[frame["amount"] == 0, 2].max() == starts[2]


def test_rows_that_were_not_there_when_cells_were_found_get_the_nearest():
    cells = find_cells(SCHEMA, rows(500, 0))
    far = pd.DataFrame({"kind": ["a", "a"], "few": [0, 9], "amount": [0.0, 1e6]})
    low, high = cells.of(far)
    assert low.tolist() == [0, 4, 7]
    assert high.tolist() == [0, 6, sum(cells.widths) - 2]


@pytest.mark.parametrize("classes", [2, 3])
def test_what_sets_institutions_apart_comes_back(classes):
    """Each institution has one half of the first column and says one thing of all its rows; all heads together say nothing."""
    rng = np.random.default_rng(0)
    origin = rng.integers(0, 2, 5000)
    cells = np.stack([origin, 2 + rng.integers(0, 8, 5000)], axis=1)
    said = rng.dirichlet(np.full(classes, 3.0), 2)
    together = np.full((5000, classes), -np.log(classes))
    correct = fit_correction(cells, (2, 8), together, said[origin], origin, rows=20_000, noise=30.0)
    assert correct is not None
    got = np.exp(correct(np.array([[0, 5], [1, 9]]), together[:2]))
    assert got == pytest.approx(said, abs=0.01)


def test_class_frequencies_that_differ_for_no_reason_in_the_rows_move_nothing():
    """Two institutions with the same customers and the same word on them but for their own class frequencies."""
    rng = np.random.default_rng(1)
    origin = rng.integers(0, 2, 8000)
    cells = rng.integers(0, 4, (8000, 1))
    score = np.array([-1.0, 0.0, 0.5, 1.0])
    chance = 1 / (1 + np.exp(-(score[cells[:, 0]] + np.array([-2.0, 2.0])[origin])))
    own = np.stack([1 - chance, chance], axis=1)
    correct = fit_correction(cells, (4,), np.full((8000, 2), np.log(0.5)), own, origin, rows=8000, noise=1000.0)
    assert correct is not None
    logs = correct(np.arange(4)[:, None], np.full((4, 2), np.log(0.5)))
    odds = logs[:, 1] - logs[:, 0]
    assert odds - odds[1] == pytest.approx(score, abs=0.02)


@pytest.mark.parametrize(
    ("noise", "low", "high"), [(50.0, -0.01, 0.01), (11.0, 0.05, 0.19), (0.0, 0.195, 0.205)], ids=str
)
def test_between_institutions_a_column_moves_where_noise_does_not_explain_it(noise, low, high):
    """Ten institutions, each a cell of the second column, whose words stray by a logit of +-.1 in turns.

    By hand, at even chances: the gradient of a cell is rows / 10 * .25 * .1 counts for each class, over the column
    sqrt(10 * 2) times that: 112 counts of 10,000 rows. The threshold is noise * sqrt(10): 35 at noise 11, 158 at noise 50.
    """
    rng = np.random.default_rng(1)
    origin = rng.integers(0, 10, 10_000)
    cells = np.stack([rng.integers(0, 2, 10_000), 2 + origin], axis=1)
    own = np.exp(log_normalise(np.stack([np.zeros(10_000), np.where(origin % 2, 0.1, -0.1)], axis=1)))
    together = np.full((10_000, 2), np.log(0.5))
    correct = fit_correction(cells, (2, 10), together, own, origin, rows=10_000, noise=noise)
    assert correct is not None
    logs = correct(np.array([[0, 2], [0, 3]]), together[:2])
    assert low < (logs[1] - logs[0]) @ [-1, 1] < high


def test_a_correction_that_rows_held_out_do_not_bear_out_is_refused():
    """Sixty rows with words of chance and as many cells: what fits them says nothing of others."""
    rng = np.random.default_rng(2)
    cells = np.stack([rng.integers(0, 30, 60), 30 + rng.integers(0, 30, 60)], axis=1)
    own = np.eye(2)[rng.integers(0, 2, 60)]
    together = np.full((60, 2), np.log(0.5))
    assert fit_correction(cells, (30, 30), together, own, np.zeros(60, int), rows=60, noise=0.0) is None


def test_only_so_many_rows_are_fitted_to():
    """Rows beyond the limit could say anything."""
    rng = np.random.default_rng(3)
    n = FIT_ROWS + 5000
    cells = rng.integers(0, 2, (n, 1))
    own = np.where(np.arange(n)[:, None] < FIT_ROWS, [[0.7, 0.3]], [[0.0, 1.0]])
    correct = fit_correction(cells, (2,), np.full((n, 2), np.log(0.5)), own, np.zeros(n, int), rows=n, noise=1.0)
    assert correct is not None
    assert np.exp(correct(np.array([[0]]), np.log([[0.5, 0.5]])))[0] == pytest.approx([0.7, 0.3], abs=0.005)
