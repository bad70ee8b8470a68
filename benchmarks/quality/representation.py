"""How long the joint components take: made-up institutions with bins of their own, all pairs of columns, and a known noise.

python -m benchmarks.quality.representation
python -m benchmarks.quality.representation --quick
"""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from distill.data.bins import ColumnBins
from distill.data.grids import base_grids
from distill.data.schema import Schema
from distill.synthesis.generator.generator import Generator
from distill.synthesis.statistics.counts import ClassCounts
from distill.synthesis.statistics.denoising import denoise_pairs
from server_train.pooling.institutions.site import Site
from server_train.pooling.mixture.joint_mixture import Stake, fit_joint, pair_distance

BINS, RECORDS, NOISE, ROWS = 16, 200, 60.0, 5_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; prints one line."""
    p = argparse.ArgumentParser(description="Seconds that the joint components take.")
    p.add_argument("--institutions", type=int, default=10)
    p.add_argument("--columns", type=int, default=30)
    p.add_argument("--quick", action="store_true", help="3 institutions of 5 columns")
    asked = p.parse_args(arguments)
    institutions, columns = (3, 5) if asked.quick else (asked.institutions, asked.columns)
    sites = [made(columns, np.random.default_rng(seed)) for seed in range(institutions)]
    wall, cpu = time.perf_counter(), time.process_time()
    joint = fit_joint([Stake(site=s, rows=1.0, trust=1.0) for s in sites], np.random.default_rng(0))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    far = [pair_distance(s, joint.own(i).pair_shares) for i, s in enumerate(sites)]
    print(
        f"{institutions} institutions x {columns} columns: {wall:.1f} s ({cpu:.1f} s of one core), "
        f"{sum(joint.common.widths)} common bins, distance to the pairs {min(far):.2f} to {max(far):.2f} of the noise"
    )
    return 0


def made(columns: int, rng: np.random.Generator) -> Site:
    """An institution whose numbers all follow one hidden number, counted in bins at random places."""
    schema = Schema.model_validate(
        {
            "name": "made up",
            "target": "label",
            "columns": [{"name": f"x{i}", "kind": "integer", "min": 0, "max": 999} for i in range(columns)]
            + [{"name": "label", "kind": "categorical", "categories": [0, 1]}],
        }
    )
    hidden = rng.random((ROWS, 1))
    values = (1000 * (hidden * 0.6 + rng.random((ROWS, columns)) * 0.4)).astype(int).clip(max=999)
    label = (rng.random(ROWS) < hidden[:, 0]).astype(int)
    *numbers, target = base_grids(schema)
    bins = []
    for grid in numbers:
        starts = np.sort(np.append(0, rng.choice(np.arange(1, grid.leaves), BINS - 1, replace=False)))
        bins.append(ColumnBins(grid, starts, np.ones(BINS), np.arange(BINS)))
    codes = np.stack([b.coarse(values[:, i]).astype(int) for i, b in enumerate(bins)], axis=1)
    counts = [
        np.bincount(label * BINS + column, minlength=2 * BINS).reshape(2, BINS) + rng.normal(0, NOISE / 4, (2, BINS))
        for column in codes.T
    ]
    counts = [np.maximum(c, 0) for c in counts]
    shares = tuple(c.sum(axis=0) / c.sum() for c in counts)
    pairs = [(i, j) for i in range(columns) for j in range(i + 1, columns)]
    released = [
        np.bincount(codes[:, i] * BINS + codes[:, j], minlength=BINS**2).reshape(BINS, BINS) / ROWS
        + rng.normal(0, NOISE / ROWS, (BINS, BINS))
        for i, j in pairs
    ]
    width = columns * BINS
    generator = Generator(
        schema=schema,
        bins=(*bins, ColumnBins(target, np.arange(2), np.ones(2), np.arange(2))),
        logits=(np.tile(np.log(np.concatenate(shares) + 1e-3), (RECORDS, 1)) + rng.normal(0, 1, (RECORDS, width))),
        weights=np.full(RECORDS, 1 / RECORDS),
        head=(np.zeros((2, width), np.float32), np.zeros(2, np.float32)),
        critic=None,
        shares=shares,
        class_prior=np.bincount(label, minlength=2) / ROWS,
        noisy_rows=ROWS,
        count_noise=NOISE,
    )
    totals = np.bincount(label, minlength=2).astype(float)
    return Site(generator, ClassCounts(totals, counts, NOISE / 4), denoise_pairs(pairs, released, shares, NOISE / ROWS))


if __name__ == "__main__":
    sys.exit(main())
