"""Institutions made by hand for the joint components: one truth, bins of each one's own, statistics with a known noise."""

import numpy as np

from distill.data.bins import ColumnBins
from distill.data.grids import base_grids
from distill.data.schema import Schema
from distill.synthesis.generator.generator import Generator
from distill.synthesis.statistics.counts import ClassCounts
from distill.synthesis.statistics.denoising import denoise_pairs
from server_train.pooling.institutions.site import Site

SCHEMA = Schema.model_validate(
    {
        "name": "joint",
        "target": "label",
        "columns": [
            {"name": "x", "kind": "integer", "min": 0, "max": 99},
            {"name": "y", "kind": "integer", "min": 0, "max": 99},
            {"name": "c", "kind": "categorical", "categories": ["a", "b", "c"]},
            {"name": "z", "kind": "integer", "min": 0, "max": 9, "nullable": True},
            {"name": "label", "kind": "categorical", "categories": [0, 1]},
        ],
    }
)
ROWS = 5000


def rows(n: int, seed: int, *, shift: float = 0.0) -> np.ndarray:
    """Leaves of every column, (n, 5): x and y nearly the same, c and the label follow x, z is missing where c is the last."""
    rng = np.random.default_rng(seed)
    x = (100 * rng.beta(2 + shift, 2, n)).astype(int).clip(max=99)
    y = (x + rng.normal(0, 6, n)).round().astype(int).clip(0, 99)
    c = np.where(rng.random(n) < 0.8, x * 3 // 100, rng.integers(0, 3, n))
    z = np.where(c == 2, 10, rng.integers(0, 10, n))
    label = rng.random(n) < 0.1 + 0.8 * x / 100
    return np.stack([x, y, c, z, label.astype(int)], axis=1)


def bins_at(edges: dict[str, list[int]]) -> tuple[ColumnBins, ...]:
    """Bins of every column that begin at these leaves; a bin a leaf where none are named."""
    bins = []
    for grid in base_grids(SCHEMA):
        starts = np.array(edges.get(grid.column.name, range(grid.leaves)))
        starts = np.append(starts, grid.leaves) if grid.column.nullable else starts
        bins.append(ColumnBins(grid, starts, np.ones(len(starts)), np.arange(len(starts))))
    return tuple(bins)


def site(leaves: np.ndarray, edges: dict[str, list[int]], *, noise: float, seed: int, tied: bool = False) -> Site:
    """One institution's bundle: statistics with `noise` rows on a cell, and records that know no pairs unless `tied`."""
    rng, bins, n = np.random.default_rng(seed), bins_at(edges), len(leaves)
    codes = np.stack([b.coarse(leaves[:, i]).astype(int) for i, b in enumerate(bins)], axis=1)
    widths = [b.n_bins for b in bins[:-1]]
    label = codes[:, -1]
    by_column = [
        np.maximum(
            np.bincount(label * w + codes[:, j], minlength=2 * w).reshape(2, w) + rng.normal(0, noise / 4, (2, w)), 0
        )
        for j, w in enumerate(widths)
    ]
    counts = ClassCounts(np.bincount(label, minlength=2).astype(float), by_column, noise / 4)
    pairs = [(i, j) for i in range(len(widths)) for j in range(i + 1, len(widths))]
    released = [
        (
            np.bincount(codes[:, i] * widths[j] + codes[:, j], minlength=widths[i] * widths[j]).reshape(widths[i], -1)
            + rng.normal(0, noise, (widths[i], widths[j]))
        )
        / n
        for i, j in pairs
    ]
    shares = tuple(b.sum(axis=0) / b.sum() for b in by_column)
    starts = np.cumsum([0, *widths])
    logits = np.tile(np.log(np.concatenate(shares) + 1e-3), (60, 1)) + rng.normal(0, 0.5, (60, sum(widths)))
    if tied:
        logits = np.full((300, sum(widths)), -6.0)
        logits[np.arange(300)[:, None], codes[:300, :-1] + starts[:-1]] = 2.0
    generator = Generator(
        schema=SCHEMA,
        bins=bins,
        logits=logits.astype(np.float32),
        weights=np.full(len(logits), 1 / len(logits)),
        head=(np.zeros((2, sum(widths)), np.float32), np.zeros(2, np.float32)),
        critic=None,
        shares=shares,
        class_prior=np.bincount(label, minlength=2) / n,
        noisy_rows=n,
        count_noise=noise,
    )
    return Site(generator, counts, denoise_pairs(pairs, released, shares, noise / n))


COARSE = {"x": [0, 20, 40, 60, 80], "y": [0, 20, 40, 60, 80]}
OTHER = {"x": [0, 30, 50, 70, 90], "y": [0, 25, 50, 75]}
