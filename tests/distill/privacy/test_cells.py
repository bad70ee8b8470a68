"""Each row falls into the cell that its declaration says, by itself: brute force row by row, and beside any others."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.privacy.cells import ROWS_AT_ONCE, Cells, Cross, Lookup, Nearest, ScoreBins, nearest
from tests.fakes.private_tables import assert_row_local

WIDTHS = (3, 5, 2, 300)


def codes_of(rows: int, seed: int, widths: tuple[int, ...] = WIDTHS) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, w, rows).astype(np.uint8 if w < 256 else np.uint16) for w in widths]


def on_grid(value: float) -> float:
    return min(max(round(value * 65536) / 65536, -32.0), 32.0)


def with_centres(seed: int, order: tuple[int, ...] = (2, 0, 3), *, clusters: int = 7, scale: float = 1.0) -> Nearest:
    """A random network on some columns in another order; its output is longer than the point."""
    rng = np.random.default_rng(seed)
    widths = [WIDTHS[i] for i in order]
    layers = tuple((scale * rng.normal(size=(out, of)), rng.normal(size=out)) for out, of in ((9, sum(widths)), (8, 9)))
    return Nearest(order, np.cumsum([0, *widths[:-1]]), layers, rng.normal(0, 2 * scale, (clusters, 4)))


def point_of(cells: Nearest, row: list[int]) -> list[float]:
    """Where the network puts one row, by hand, all rounded to the grid where a layer begins."""
    (first, first_bias), (second, second_bias) = cells.layers
    ones = [start + row[column] for column, start in zip(cells.order, cells.starts, strict=True)]
    summed = [sum(line[i] for i in ones) / len(ones) ** 0.5 for line in first]
    hidden = [on_grid(max(s + b, 0.0)) for s, b in zip(summed, first_bias, strict=True)]
    given = [sum(on_grid(w) * h for w, h in zip(line, hidden, strict=True)) for line in second]
    return [on_grid(g + b) for g, b in zip(given, second_bias, strict=True)][: cells.centres.shape[1]]


def cell_of_point(cells: Nearest, row: list[int]) -> int:
    """The centre at the least distance, all of them measured."""
    point = point_of(cells, row)
    distances = [sum((p - on_grid(c)) ** 2 for p, c in zip(point, centre, strict=True)) for centre in cells.centres]
    return min(range(len(distances)), key=distances.__getitem__)


EDGES = np.array([-1.0, 0.25, 0.5, 7.0])
TABLES = (np.array([1, -1, 0]), np.array([2, 0, 1, -1, 2]))


def by_hand(cells: Cells, row: list[Any]) -> int:
    """The cell of one row, from what each declaration says in words."""
    match cells:
        case Cross():
            cell = 0
            for column, width in zip(cells.columns, cells.widths, strict=True):
                cell = cell * width + int(row[column])
            return cell
        case Lookup():
            cell = 0
            for column, table, width in zip(cells.columns, cells.tables, cells.widths, strict=True):
                value = int(table[int(row[column])])
                if value == -1:
                    return -1
                cell = cell * width + value
            return cell
        case ScoreBins():
            bins = len(cells.edges) + 1
            return bins * int(row[cells.holds]) + sum(row[cells.score] >= edge for edge in cells.edges)
        case Nearest():
            return cell_of_point(cells, [int(code) for code in row])


KINDS: dict[str, Cells] = {
    "one column": Cross((3,), (300,)),
    "columns crossed": Cross((3, 0, 1), (300, 3, 5)),
    "a column twice": Cross((1, 1), (5, 5)),
    "looked up": Lookup((0,), TABLES[:1], (2,)),
    "looked up and crossed": Lookup((1, 0), TABLES[::-1], (3, 2)),
    "scores": ScoreBins(2, 4, EDGES),
    "one score bin": ScoreBins(2, 4, np.zeros(0)),
    "nearest": with_centres(0),
    "nearest with large weights": with_centres(1, scale=20.0),
    "nearest of one": with_centres(2, clusters=1),
}


def rows_of(rows: int, seed: int) -> list[np.ndarray]:
    """Codes of four columns, and scores of which many lie on an edge."""
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(rows) < 0.3, rng.choice(EDGES, rows), rng.normal(0, 4, rows))
    return [*codes_of(rows, seed), scores]


@pytest.mark.parametrize("cells", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("rows", [0, 1, 24, 25, 26, 600])
def test_every_row_falls_into_the_cell_that_a_look_at_it_alone_gives(cells: Cells, rows: int, seed):
    columns = rows_of(rows, seed)
    got = cells.of(columns)
    assert (got.shape, got.dtype) == ((rows,), np.int64)
    expected = [by_hand(cells, [column[i] for column in columns]) for i in range(rows)]
    np.testing.assert_array_equal(got, np.array(expected, dtype=np.int64))
    assert ((got >= -1) & (got < cells.size)).all()


@pytest.mark.parametrize("cells", KINDS.values(), ids=KINDS)
def test_a_rows_cell_does_not_depend_on_the_rows_beside_it(cells: Cells, seed):
    columns = rows_of(2 * ROWS_AT_ONCE + 75, seed)
    assert_row_local(lambda chosen: cells.of([c[chosen] for c in columns]), len(columns[0]), seed)


def test_a_row_midway_between_two_centres_goes_to_the_first_beside_any_others(seed):
    """One bit less in any batch, say of 25 rows and not of 24, and it would go to the second."""
    cells = with_centres(seed)
    rows, points = [], np.zeros((0, 4))
    for row in np.stack(codes_of(200, seed), axis=1).tolist():
        point = np.array(point_of(cells, row))
        if (np.linalg.norm(points - point, axis=1) > 0.2).all():
            rows, points = [*rows, row], np.vstack([points, point])
    off = 2.0**-9 * np.random.default_rng(seed).integers(1, 9, points.shape)
    either = dataclasses.replace(cells, centres=np.stack([points + off, points - off], axis=1).reshape(-1, 4))
    assert len(rows) > 60
    columns = list(np.array(rows).T)
    np.testing.assert_array_equal(either.of(columns), 2 * np.arange(len(rows)))
    assert_row_local(lambda chosen: either.of([c[chosen] for c in columns]), len(rows), seed)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_lookups_leave_out_a_row_that_any_table_leaves_out_and_no_other(seed, rows):
    rng = np.random.default_rng(seed)
    columns = codes_of(rows, seed)
    tables = tuple(rng.integers(-1, 4, w) for w in WIDTHS[:3])
    got = Lookup((0, 1, 2), tables, (4, 4, 4)).of(columns)
    out = np.any([table[column] == -1 for table, column in zip(tables, columns, strict=False)], axis=0)
    np.testing.assert_array_equal(got == -1, out)
    assert (got[~out] >= 0).all()


def test_a_score_on_an_edge_is_in_the_bin_above_and_what_holds_comes_last():
    cells = ScoreBins(0, 1, np.array([0.5, 0.75]))
    scores = np.array([0.0, 0.4999, 0.5, 0.7, 0.75, 1.0])
    assert cells.size == 6
    assert cells.of([np.zeros(6, np.uint8), scores]).tolist() == [0, 0, 1, 1, 2, 2]
    assert cells.of([np.ones(6, np.uint8), scores]).tolist() == [3, 3, 4, 4, 5, 5]


def test_small_codes_do_not_overflow_where_many_columns_are_crossed():
    cells = Cross((0, 1, 2), (250, 250, 250))
    columns = [np.full(3, 249, dtype=np.uint8)] * 3
    assert cells.of(columns).tolist() == [250**3 - 1] * 3
    assert cells.size == 250**3


def test_of_centres_equally_far_the_first_is_taken():
    centres = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    points = np.array([[0.0, 0.0], [0.0, 0.5], [-0.5, 0.5], [0.5, 0.0], [5.0, 5.0]])
    assert nearest(points, centres).tolist() == [0, 2, 1, 0, 0]
    assert nearest(points, centres[::-1]).tolist() == [0, 1, 1, 0, 0]


def test_the_nearest_centre_is_the_one_at_the_least_distance(seed):
    rng = np.random.default_rng(seed)
    points, centres = rng.normal(0, 5, (2000, 6)), rng.normal(0, 5, (40, 6))
    distances = np.square(points[:, None] - centres).sum(axis=2)
    got = nearest(points, centres)
    least = distances.min(axis=1)
    assert (distances[np.arange(2000), got] <= least + 1e-2).all()  # the grid's rounding
    assert (got == distances.argmin(axis=1)).mean() > 0.99
    assert_row_local(lambda chosen: nearest(points[chosen], centres), 2000, seed)


def test_one_row_more_adds_one_to_one_cell_of_a_histogram_over_centres(seed):
    """As the door counts: whatever the row and wherever it is put in."""
    cells, columns = with_centres(seed), codes_of(51, seed)
    whole = np.bincount(cells.of(columns), minlength=cells.size)
    for without in range(51):
        fewer = np.bincount(cells.of([np.delete(c, without) for c in columns]), minlength=cells.size)
        assert sorted(whole - fewer) == [0] * (cells.size - 1) + [1]
