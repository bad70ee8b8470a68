"""Stage 1: bins go where the rows are, whatever the bounds, and class counts agree with each other."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from distill.data.bins import ColumnBins
from distill.data.grids import column_grid
from distill.data.schema import Column, Schema
from distill.data.tables import canonical_table
from distill.privacy.noise import NoiseSource
from distill.synthesis.planning.plan import target_bins
from distill.synthesis.stages import encode
from tests.fakes.private_tables import (
    EVERY_KIND,
    NoNoise,
    category,
    door,
    every_kind,
    integer,
    number,
    plan_of,
    schema_of,
)

ROWS = 20_000
NOISE = 20.0  # stddev on a count: about what a table of this size gets at epsilon 1


def binned(values: object, raw: dict, seed: int, *, noise: float = NOISE) -> tuple[ColumnBins, pd.Series]:
    """Bins of one column found on noisy counts, and its values as the table holds them."""
    schema = schema_of(raw)
    frame = pd.DataFrame({raw["name"]: values, "label": np.arange(len(values)) % 2})
    plan = plan_of(schema, len(frame), cell_stddev=noise)
    bins = encode.find_bins(door(frame, schema, plan, NoiseSource(seed)), plan)
    assert bins[1].n_bins == 2
    assert_sound(bins[0])
    return bins[0], canonical_table(frame, schema)[raw["name"]]


def assert_sound(bins: ColumnBins) -> None:
    """Every leaf has a bin; bins of numbers are intervals in order; missing stands alone at the end."""
    coarse = bins.coarse(np.arange(bins.grid.cells))
    assert bins.starts[0] == 0
    assert (np.diff(bins.starts) > 0).all()
    assert np.unique(coarse).tolist() == list(range(bins.n_bins))
    if bins.grid.column.kind != "categorical":
        assert (np.diff(coarse.astype(int)) >= 0).all()
    if bins.grid.column.nullable:
        assert (coarse == coarse[-1]).sum() == 1
    assert (bins.masses >= 0).all()


def true_shares(bins: ColumnBins, values: pd.Series) -> np.ndarray:
    return np.bincount(bins.coarse(bins.grid.encode(values)), minlength=bins.n_bins) / len(values)


def redrawn(bins: ColumnBins, values: pd.Series, seed: int) -> np.ndarray:
    """Each value replaced by a draw from its own bin."""
    codes = bins.coarse(bins.grid.encode(values)).astype(np.int64)
    return bins.draw(codes, np.random.default_rng(seed)).to_numpy()


def test_a_ratio_that_lives_in_a_sliver_of_its_bounds_is_resolved(seed):
    """Equal bins over [0, 1] would see one value; here the sliver 0.79..0.81 is cut into many."""
    values = np.random.default_rng(seed).uniform(0.79, 0.81, ROWS)
    bins, column = binned(values, number("ratio"), seed)
    shares = true_shares(bins, column)
    assert (shares > 0.02).sum() >= 8
    assert shares.max() < 0.2
    back = redrawn(bins, column, seed)
    assert np.mean((back > 0.785) & (back < 0.815)) > 0.95
    assert scipy.stats.ks_2samp(values, back).statistic < 0.03


def test_a_spike_at_zero_with_a_tail_to_a_million_keeps_both(seed):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(ROWS) < 0.6, 0.0, rng.lognormal(8, 2, ROWS).clip(0, 1e6))
    bins, column = binned(values, number("balance", 0, 1e6), seed)
    shares = true_shares(bins, column)
    zero = int(bins.coarse(bins.grid.encode(pd.Series([0.0])))[0])
    assert shares[zero] == pytest.approx(0.6, abs=0.03)
    assert (np.delete(shares, zero) > 0.01).sum() >= 6
    assert np.delete(shares, zero).max() < 0.15
    back = redrawn(bins, column, seed)
    assert np.mean(back < 1) == pytest.approx(np.mean(values < 1), abs=0.02)
    quantiles = [0.7, 0.8, 0.9, 0.95]
    np.testing.assert_allclose(
        np.log1p(np.quantile(back, quantiles)), np.log1p(np.quantile(values, quantiles)), atol=0.6
    )


@pytest.mark.parametrize(
    ("raw", "draw"),
    [
        (number("x", -3, 3), lambda rng: rng.normal(0, 1, ROWS).clip(-3, 3)),
        (number("x", 0, 1), lambda rng: rng.random(ROWS)),
        (number("x", -1e6, 1e6), lambda rng: rng.normal(2e4, 1e4, ROWS)),
        (integer("x", 0, 3000), lambda rng: rng.gamma(4, 100, ROWS).astype(int).clip(0, 3000)),
        (integer("x", 18, 100), lambda rng: rng.integers(18, 95, ROWS)),
        (integer("x", 0, 10**7), lambda rng: rng.lognormal(10, 1, ROWS).astype(int).clip(0, 10**7)),
    ],
    ids=["normal", "uniform", "far", "middling integer", "age", "large integer"],
)
def test_bins_of_a_smooth_column_hold_about_equal_mass(raw, draw, seed):
    bins, column = binned(draw(np.random.default_rng(seed)), raw, seed)
    shares = true_shares(bins, column)
    large = shares[shares > 0.2 / bins.n_bins]
    assert len(large) >= 6
    assert large.max() < 3.0 / len(large)
    assert large.sum() > 0.95
    assert scipy.stats.ks_2samp(column, redrawn(bins, column, seed)).statistic < 0.05


def test_missing_values_get_a_bin_of_their_own_with_their_share(seed):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(ROWS) < 0.25, np.nan, rng.random(ROWS))
    bins, column = binned(values, number("x", nullable=True), seed)
    assert true_shares(bins, column)[-1] == pytest.approx(0.25, abs=0.02)
    assert bins.masses[-1] == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(np.isnan(redrawn(bins, column, seed)), np.isnan(values))


def test_rare_categories_share_a_bin_and_common_ones_do_not(seed):
    rng = np.random.default_rng(seed)
    chances = np.r_[np.full(4, 0.24), np.full(36, 0.04 / 36)]
    bins, column = binned(rng.choice(40, ROWS, p=chances), category("c", *range(40)), seed)
    assert bins.bin_of_piece[:4].tolist() == [0, 1, 2, 3]
    assert bins.n_bins < 12
    drawn = pd.Series(redrawn(bins, column, seed)).astype(int)
    np.testing.assert_allclose(np.bincount(drawn, minlength=40)[:4] / ROWS, 0.24, atol=0.02)


def test_few_cells_are_a_bin_each_without_a_read():
    schema = schema_of(category("c", "a", "b"), integer("k", 0, 5, nullable=True))
    plan = plan_of(schema, 300)
    frame = pd.DataFrame({"c": ["a", "b"] * 150, "k": np.arange(300) % 6, "label": [0, 1] * 150})
    table = door(frame, schema, plan)
    assert [b.n_bins for b in encode.find_bins(table, plan)] == [2, 7, 2]
    assert table.reads == {}


@pytest.mark.parametrize("rows", [200, 2000])
def test_bins_of_any_table_are_sound_even_where_noise_drowns_it(rows, seed):
    """Noise as large as the table, and none at all."""
    frame = every_kind(rows, seed)
    for noise, source in ((rows / 2, NoiseSource(seed)), (2.0, NoNoise())):
        plan = plan_of(EVERY_KIND, rows, cell_stddev=noise)
        for bins in encode.find_bins(door(frame, EVERY_KIND, plan, source), plan):
            assert_sound(bins)


def test_values_that_are_all_alike_are_one_spike():
    bins, column = binned(np.full(ROWS, 0.5), number("x"), 0)
    assert true_shares(bins, column).max() == 1.0
    assert np.mean(np.abs(redrawn(bins, column, 0) - 0.5) < 0.01) > 0.98


def test_the_tree_is_reconciled_as_least_squares_would(seed):
    """Counts of parents and children on a ragged tree against a plain least-squares solution."""
    rng = np.random.default_rng(seed)
    grid = column_grid(Column.model_validate(integer("x", 0, 4095)))  # 16 x 16 x 16
    first = np.arange(16)
    second = (np.array([2, 7, 8])[:, None] * 16 + np.arange(16)).ravel()
    third = (np.array([33, 40, 119])[:, None] * 16 + np.arange(16)).ravel()
    nodes = [first, second, third]
    noisy = [rng.normal(100, 30, len(n)) for n in nodes]
    ends = [(n, level) for level, ns in enumerate(nodes) for n in ns if level == 2 or n not in nodes[level + 1] // 16]
    span = {end: (end[0] * 16 ** (2 - end[1]), (end[0] + 1) * 16 ** (2 - end[1])) for end in ends}
    design = np.array(
        [
            [n * 16 ** (2 - level) <= span[e][0] and span[e][1] <= (n + 1) * 16 ** (2 - level) for e in ends]
            for level, ns in enumerate(nodes)
            for n in ns
        ],
        dtype=float,
    )
    best, *_ = np.linalg.lstsq(design, np.concatenate(noisy), rcond=None)
    tree = encode._Tree(grid, 3, [n.copy() for n in nodes], [c.copy() for c in noisy])
    encode._consistent(tree, 30.0)
    np.testing.assert_allclose(np.concatenate(tree.counts), design @ best, rtol=1e-9)


@pytest.fixture(params=[(0, 1), ("low", "mid", "high")], ids=["binary", "three classes"])
def schema(request: pytest.FixtureRequest) -> Schema:
    return Schema.model_validate(
        {
            **EVERY_KIND.model_dump(),
            "columns": [
                *(c.model_dump() for c in EVERY_KIND.features[:4]),
                category("label", *request.param),  # the target need not be last
                *(c.model_dump() for c in EVERY_KIND.features[4:]),
            ],
        }
    )


def counted(schema: Schema, frame: pd.DataFrame, source: NoiseSource, noise: float):
    """Bins and class counts of a table, with the table to compare."""
    plan = plan_of(schema, len(frame), cell_stddev=noise)
    table = door(frame[[c.name for c in schema.columns]], schema, plan, source)
    bins = encode.find_bins(table, plan)
    target = [c.name for c in schema.columns].index(schema.target)
    table.recode([b.coarse for b in bins], target=target)
    return bins, encode.count_classes(table, plan, bins, target)


def test_class_counts_are_those_of_the_rows(schema):
    """Without noise they are exact, up to the shrinkage of columns that say nothing about the class."""
    frame = every_kind(5000, 1, schema)
    bins, counts = counted(schema, frame, NoNoise(), 2.0)
    codes = pd.Categorical(frame["label"], categories=list(schema.classes)).codes
    np.testing.assert_allclose(counts.classes, np.bincount(codes, minlength=len(schema.classes)))
    table = canonical_table(frame[[c.name for c in schema.columns]], schema)
    for column, got in zip(schema.features, counts.by_column, strict=True):
        b = next(b for b in bins if b.grid.column.name == column.name)
        coarse = b.coarse(b.grid.encode(table[column.name])).astype(int)
        expected = np.bincount(codes * b.n_bins + coarse, minlength=got.size).reshape(got.shape)
        assert np.abs(got - expected).sum() < 0.02 * len(frame)
        np.testing.assert_allclose(got.sum(axis=0), expected.sum(axis=0), atol=1e-6)


@pytest.mark.parametrize("noise", [3.0, 60.0])
def test_noisy_class_counts_agree_with_each_other(schema, noise, seed):
    frame = every_kind(3000, seed, schema)
    _, counts = counted(schema, frame, NoiseSource(seed), noise)
    for block in counts.by_column:
        assert (block >= -1e-9).all()
        np.testing.assert_allclose(block.sum(axis=1), counts.classes)
    assert counts.prior.sum() == pytest.approx(1)
    assert all(s.sum() == pytest.approx(1) for s in counts.shares)
    assert counts.stddev == pytest.approx(noise)
    # The sizes pool what all columns say: better than the sum over the cells of one.
    assert counts.total == pytest.approx(3000, abs=6.5 * noise * 2)


def test_a_class_that_no_row_has_keeps_a_positive_size(schema):
    frame = every_kind(1000, 3, schema)
    frame["label"] = schema.classes[0]
    _, counts = counted(schema, frame, NoNoise(), 2.0)
    assert counts.classes[0] == pytest.approx(1000)
    assert (counts.classes[1:] > 0).all()
    assert counts.prior[1:].max() < 0.01
    assert all(np.isfinite(b).all() for b in counts.by_column)


def test_every_read_of_the_stage_is_a_planned_event_once():
    plan = plan_of(EVERY_KIND, 500)
    table = door(every_kind(500, 0), EVERY_KIND, plan)
    bins = encode.find_bins(table, plan)
    table.recode([b.coarse for b in bins], target=7)
    encode.count_classes(table, plan, bins, 7)
    assert table.reads == {e.name: 1 for e in plan.events if e.name.startswith("encode.")}


def number_schema() -> Schema:
    """Two features and a target that is a number."""
    return Schema.model_validate(
        {"name": "t", "target": "y", "columns": [number("x"), category("c", "a", "b"), number("y", 0, 1e5)]}
    )


def number_rows(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.random(rows)
    y = np.exp(7 + x + 0.5 * rng.normal(size=rows)).clip(0, 1e5)
    return pd.DataFrame({"x": x, "c": rng.choice(["a", "b"], rows), "y": y})


def test_a_target_that_is_a_number_gets_classes_of_about_equal_mass_and_counts_that_follow_it(seed):
    schema, frame = number_schema(), number_rows(ROWS, seed)
    plan = plan_of(schema, ROWS, epsilon=2.0)
    table = door(frame, schema, plan, NoiseSource(seed))
    bins = encode.find_bins(table, plan)
    assert_sound(bins[2])
    aim = target_bins(plan.noisy_size, plan.epsilon)
    assert aim - 4 <= bins[2].n_bins <= aim + 4
    table.recode([b.coarse for b in bins], target=2)
    counts = encode.count_classes(table, plan, bins, 2)
    assert counts.prior.max() < 2.5 / aim
    shares = true_shares(bins[2], canonical_table(frame, schema)["y"])
    np.testing.assert_allclose(counts.prior, shares, atol=0.02)
    middle = (np.arange(bins[0].n_bins) + 0.5) / bins[0].n_bins
    means = (counts.by_column[0] @ middle) / counts.classes
    assert means[-1] - means[0] > 0.2  # the largest amounts have larger x
    for block in counts.by_column:
        assert (block >= 0).all()
        np.testing.assert_allclose(block.sum(axis=1), counts.classes)


def test_the_counts_of_a_number_to_predict_have_half_the_noise_and_the_release_costs_what_was_planned(seed):
    """The door refuses a release with less noise than planned; chi-square on an empty part of the tree, 1e-6."""
    schema = number_schema()
    plan = plan_of(schema, ROWS, epsilon=2.0)
    asked: list[list[float]] = []

    class Watching(NoiseSource):
        def gaussian_counts(self, counts, *, stddev):
            asked[-1:] = [[*asked[-1], stddev]]
            return super().gaussian_counts(counts, stddev=stddev)

    asked.append([])
    table = door(number_rows(ROWS, seed), schema, plan, Watching(seed))
    encode.find_bins(table, plan)
    event = plan.event("encode.bins.1")
    assert event.blocks == 1 + 4
    assert asked[0][:2] == pytest.approx([event.cell_stddev, event.cell_stddev / 2])
    assert sum(s**-2 for s in asked[0][:2]) == pytest.approx(event.noise_multiplier**-2)


@pytest.mark.parametrize("rows", [2000, ROWS])
def test_noise_far_out_does_not_become_values_of_the_target(rows, seed):
    """Without gathering, a few per cent of the values lay ten times beyond the largest real one."""
    schema, frame = number_schema(), number_rows(rows, seed)
    plan = plan_of(schema, rows, epsilon=1.0)
    table = door(frame, schema, plan, NoiseSource(seed))
    bins = encode.find_bins(table, plan)[2]
    drawn = redrawn(bins, canonical_table(frame, schema)["y"], seed)
    assert np.mean(drawn > 3 * frame["y"].quantile(0.999)) < 0.005
    assert np.mean(drawn < 0.3 * frame["y"].quantile(0.001)) < 0.005
    np.testing.assert_allclose(np.median(drawn), frame["y"].median(), rtol=0.1)


def test_ends_that_hold_rows_are_left_alone():
    """Exact counts: the pieces with rows at both ends keep them, and no mass is lost."""
    frame = pd.DataFrame({"x": [0.5] * 300, "c": ["a"] * 300, "y": [0.0] * 100 + [500.0] * 100 + [99_999.0] * 100})
    schema = number_schema()
    plan = plan_of(schema, 300, cell_stddev=2.0)
    bins = encode.find_bins(door(frame, schema, plan), plan)[2]
    codes = bins.coarse(bins.grid.encode(frame["y"]))
    assert len(set(codes.tolist())) == 3
    np.testing.assert_allclose(np.bincount(bins.bin_of_piece, bins.masses)[np.unique(codes)], 1 / 3, atol=0.02)


def test_without_a_target_there_is_one_class_and_its_counts_are_one_way():
    schema = Schema.model_validate({"name": "t", "columns": [number("x"), category("c", "a", "b")]})
    frame = number_rows(2000, 0)[["x", "c"]]
    plan = plan_of(schema, 2000, cell_stddev=2.0)
    table = door(frame, schema, plan)
    bins = encode.find_bins(table, plan)
    table.recode([b.coarse for b in bins], target=2)
    counts = encode.count_classes(table, plan, bins, 2)
    assert counts.prior.tolist() == [1.0]
    coarse = bins[0].coarse(bins[0].grid.encode(canonical_table(frame, schema)["x"]))
    np.testing.assert_allclose(counts.by_column[0][0], np.bincount(coarse), atol=1e-6)
