"""Stage 2: pairs that belong together are found through the noise, and nothing is found where nothing is."""

import numpy as np
import pandas as pd
import pytest

from distill.data.bins import ColumnBins
from distill.data.encoded_table import encode_frame
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.synthesis.planning.plan import Plan
from distill.synthesis.stages import encode, relate
from distill.synthesis.statistics.counts import ClassCounts, PairCounts
from tests.fakes.private_tables import NoNoise, category, door, number, plan_of, schema_of

ROWS = 4000


def relation(
    frame: pd.DataFrame, schema: Schema, plan: Plan, source: NoiseSource
) -> tuple[PairCounts, list[ColumnBins], ClassCounts, PrivateTable]:
    table = door(frame, schema, plan, source)
    bins = encode.find_bins(table, plan)
    target = len(schema.columns) - 1
    table.recode([b.coarse for b in bins], target=target)
    counts = encode.count_classes(table, plan, bins, target)
    return relate.count_pairs(table, plan, bins, list(range(target)), counts), bins, counts, table


def linked(rows: int, columns: int, seed: int) -> tuple[pd.DataFrame, Schema]:
    """Categories 0..4; column 1 repeats column 0 three times out of four, the others say nothing."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (rows, columns))
    values[:, 1] = np.where(rng.random(rows) < 0.75, values[:, 0], values[:, 1])
    frame = pd.DataFrame(values, columns=[f"c{i}" for i in range(columns)]).assign(label=rng.integers(0, 2, rows))
    return frame, schema_of(*(category(f"c{i}", *range(5)) for i in range(columns)))


def dependence(pairs: PairCounts, counts: ClassCounts) -> dict[tuple[int, int], float]:
    """How far each block is from independence (L1)."""
    one_way = counts.shares
    return {
        (i, j): float(np.abs(block - np.outer(one_way[i], one_way[j])).sum())
        for (i, j), block in zip(pairs.pairs, pairs.shares, strict=True)
    }


def test_a_planted_pair_stands_out_of_noise_and_the_others_are_independent(seed):
    frame, schema = linked(ROWS, 5, seed)
    plan = plan_of(schema, ROWS, cell_stddev=25.0)
    pairs, _, counts, table = relation(frame, schema, plan, NoiseSource(seed))
    found = dependence(pairs, counts)
    assert set(found) == {(i, j) for i in range(5) for j in range(i + 1, 5)}
    truth = np.bincount(frame["c0"] * 5 + frame["c1"], minlength=25).reshape(5, 5) / ROWS
    assert np.abs(pairs.shares[pairs.pairs.index((0, 1))] - truth).sum() < 0.2  # noise alone adds 0.125
    assert found[0, 1] > 1.0
    assert np.mean([d for pair, d in found.items() if pair != (0, 1)]) < 0.05
    assert pairs.stddev == pytest.approx(25.0 / counts.total)
    assert table.reads["relate.pairs"] == 1


def test_without_noise_the_blocks_are_the_true_co_occurrence():
    rng = np.random.default_rng(0)
    x = rng.random(ROWS)
    schema = schema_of(number("x"), number("y", nullable=True), category("c", "a", "b", "c"))
    frame = pd.DataFrame(
        {
            "x": x,
            "y": np.where(rng.random(ROWS) < 0.1, np.nan, (x + 0.2 * rng.random(ROWS)).clip(0, 1)),
            "c": np.array(["a", "b", "c"])[(3 * x).astype(int)],
            "label": rng.integers(0, 2, ROWS),
        }
    )
    pairs, bins, _, _ = relation(frame, schema, plan_of(schema, ROWS, cell_stddev=2.0), NoNoise())
    leaves = encode_frame(canonical_table(frame, schema), schema).codes
    coarse = [b.coarse(column).astype(int) for b, column in zip(bins, leaves, strict=True)]
    for (i, j), block in zip(pairs.pairs, pairs.shares, strict=True):
        width = bins[j].n_bins
        truth = np.bincount(coarse[i] * width + coarse[j], minlength=block.size).reshape(block.shape) / ROWS
        assert block.shape == (bins[i].n_bins, width)
        assert np.abs(block - truth).sum() < 0.08


def test_a_wide_table_spends_its_pairs_on_those_that_belong_together(seed):
    rows = 1500
    frame, schema = linked(rows, 45, seed)
    frame["c44"] = frame["c20"]
    plan = plan_of(schema, rows, epsilon=2.0, cell_stddev=40.0)
    pairs, _, counts, table = relation(frame, schema, plan, NoiseSource(seed))
    assert len(pairs.pairs) == plan.pairs < 45 * 44 // 2
    assert (0, 1) in pairs.pairs
    assert (20, 44) in pairs.pairs
    assert pairs.pairs == sorted(set(pairs.pairs))
    found = dependence(pairs, counts)
    assert sorted(found, key=found.__getitem__)[-2:] in ([(0, 1), (20, 44)], [(20, 44), (0, 1)])
    assert (table.reads["relate.scout"], table.reads["relate.pairs"]) == (1, 1)


def test_one_feature_has_no_pairs_and_reads_nothing():
    schema = schema_of(number("x"))
    frame = pd.DataFrame({"x": np.linspace(0, 1, 500), "label": np.arange(500) % 2})
    pairs, _, _, table = relation(frame, schema, plan_of(schema, 500), NoNoise())
    assert (pairs.pairs, pairs.shares) == ([], [])
    assert not any(name.startswith("relate") for name in table.reads)
