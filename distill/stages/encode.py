"""Stage 1, encode: where the bins lie, and how many rows of each class fall into each.

Two Gaussian releases (L2, add or remove one row). First, counts on the base grids, level by level down a tree that only
grows where there is mass (sensitivity sqrt(columns) a level); from them come the coarse bins and how to draw inside
one. Second, counts per (class, column, bin) (sensitivity sqrt(columns)): the class prior, the one-way counts and naive Bayes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.bins import ColumnBins
from distill.denoise import shrink_classes
from distill.grid import ColumnGrid
from distill.plan import Plan, ReleasePlan, measured_depth
from distill.private_table import LabelOf, PrivateTable, Rows
from distill.simplex import project_to_simplex
from distill.statistics import ClassCounts

RARE_CATEGORY = 0.004  # categories with a smaller noisy share are drawn together


@dataclass
class _Tree:
    """Noisy counts of one column, level by level; level 0 counts lists the nodes under the root."""

    grid: ColumnGrid
    depth: int
    nodes: list[np.ndarray]  # per level: node numbers (in units of that level) of the measured nodes
    counts: list[np.ndarray]  # per level: noisy counts of those nodes
    missing: float = 0.0

    def width(self, level: int) -> int:
        """Leaves under one node of `level` (1 is the coarsest)."""
        return self.grid.branching ** (self.depth - level) if self.grid.depth else 1

    def children(self, parents: np.ndarray) -> np.ndarray:
        """Nodes of the next level under `parents`, those that lie inside the grid."""
        level = len(self.nodes) + 1
        if not self.grid.depth:
            return np.arange(self.grid.leaves)
        fan = (parents[:, None] * self.grid.branching + np.arange(self.grid.branching)).ravel()
        return fan[fan * self.width(level) < self.grid.leaves]


def find_bins(table: PrivateTable, plan: ReleasePlan, measured: Sequence[int] | None = None) -> list[ColumnBins]:
    """Release the base-grid counts and derive every column's coarse bins from them.

    Args:
        table, plan: The door, and the events `encode.bins.*` that pay for `measured`.
        measured: Positions of the columns that are counted, each at most once; None: all features. The others' cells are
            told apart only where they are few.
    """
    target = [g.column.name for g in table.grids].index(table.schema.target)
    if measured is None:
        measured = [i for i in range(len(table.grids)) if i != target]
    trees = [_Tree(g, measured_depth(g.depth, g.leaves), [], []) for g in table.grids]
    heavy = plan.noisy_size / (2 * plan.bins)
    stddev = 0.0
    for level in range(1, max((trees[i].depth for i in measured), default=0) + 1):
        active = [i for i in measured if trees[i].depth >= level]
        stddev = plan.event(f"encode.bins.{level}").cell_stddev
        _measure_level(table, trees, active, level, stddev, max(heavy, 3 * stddev))
    return [_bins_of(t, plan, stddev if i in measured else 0.0) for i, t in enumerate(trees)]


def _measure_level(
    table: PrivateTable, trees: list[_Tree], active: list[int], level: int, stddev: float, heavy: float
) -> None:
    """Release one tree level of the active columns: the children of every node heavier than `heavy`."""
    labels: list[LabelOf] = []
    sizes: list[int] = []
    for i in active:
        tree = trees[i]
        parents = np.zeros(1, dtype=np.int64) if level == 1 else tree.nodes[-1][tree.counts[-1] > heavy]
        nodes = tree.children(parents)
        labels.append(_label_of_node(i, nodes, tree.width(level), tree.grid, level))
        sizes.append(len(nodes) + 1)
        tree.nodes.append(nodes)
    released = table.noisy_counts(f"encode.bins.{level}", labels, sizes, [stddev] * len(active))
    for i, counts in zip(active, released, strict=True):
        trees[i].counts.append(counts[:-1].astype(np.float64))
        if level == 1:
            trees[i].missing = float(counts[-1])


def _label_of_node(column: int, nodes: np.ndarray, width: int, grid: ColumnGrid, level: int) -> LabelOf:
    """Cell of a record: the position of its node among `nodes`; missing is the last cell, on level 1 only."""

    def label(leaves: Rows, coarse: Rows) -> np.ndarray:
        del coarse
        node = leaves[column].astype(np.int64) // width
        position = np.searchsorted(nodes, node)
        found = position < len(nodes)
        found[found] = nodes[position[found]] == node[found]
        cells = np.where(found, position, -1)
        return np.where(leaves[column] >= grid.leaves, len(nodes) if level == 1 else -1, cells)

    return label


def _consistent(tree: _Tree, stddev: float) -> None:
    """Make children add up to their parents, by least squares. Source: Hay et al., arXiv:0904.0942, on a ragged tree."""
    variances = [np.full(len(c), stddev**2) for c in tree.counts]
    parent_at = [
        np.searchsorted(tree.nodes[level - 1], tree.nodes[level] // tree.grid.branching)
        for level in range(1, len(tree.nodes))
    ]
    for level in range(len(tree.nodes) - 2, -1, -1):  # bottom up: what the children say of their parent
        at, size = parent_at[level], len(tree.nodes[level])
        below, below_var = np.bincount(at, tree.counts[level + 1], size), np.bincount(at, variances[level + 1], size)
        has = below_var > 0
        own = variances[level][has]
        variances[level][has] = 1 / (1 / own + 1 / below_var[has])
        tree.counts[level][has] = variances[level][has] * (tree.counts[level][has] / own + below[has] / below_var[has])
    for level in range(len(tree.nodes) - 1):  # top down: spread what is left over the children
        at, size = parent_at[level], len(tree.nodes[level])
        gap = tree.counts[level] - np.bincount(at, tree.counts[level + 1], size)
        total = np.bincount(at, variances[level + 1], size)
        tree.counts[level + 1] += gap[at] * variances[level + 1] / total[at]


def _bins_of(tree: _Tree, plan: ReleasePlan, stddev: float) -> ColumnBins:
    """Coarse bins of one column from its noisy tree."""
    grid = tree.grid
    if not tree.counts:  # few cells, nothing measured: each is a bin
        cells = np.arange(grid.cells)
        return ColumnBins(grid, cells, np.ones(len(cells)), cells)
    if grid.depth:
        _consistent(tree, stddev)
    starts, counts = _pieces(tree)
    masses = project_to_simplex(np.append(counts, tree.missing) if grid.column.nullable else counts)
    values = masses[: len(starts)]
    if grid.column.kind == "categorical":
        bins = _group_categories(values, max(RARE_CATEGORY, 2 * stddev / plan.noisy_size))
    else:
        target = 1 / plan.bins if grid.depth else max(0.5 / plan.bins, 3 * stddev / plan.noisy_size)
        bins = _group_neighbours(values, target)
    if grid.column.nullable:
        starts, bins = np.append(starts, grid.leaves), np.append(bins, bins.max() + 1)
    return ColumnBins(grid, starts, masses, bins)


def _pieces(tree: _Tree) -> tuple[np.ndarray, np.ndarray]:
    """First leaf and noisy count of every node that was not split further, in order."""
    starts, counts = [], []
    for level, (nodes, values) in enumerate(zip(tree.nodes, tree.counts, strict=True), start=1):
        split = np.zeros(len(nodes), dtype=bool)
        if level < len(tree.nodes):
            split = np.isin(nodes, tree.nodes[level] // tree.grid.branching)
        starts.append(nodes[~split] * tree.width(level))
        counts.append(values[~split])
    order = np.argsort(np.concatenate(starts))
    return np.concatenate(starts)[order], np.concatenate(counts)[order]


def _group_categories(masses: np.ndarray, rare: float) -> np.ndarray:
    """A bin for each common category, and one last bin for all rare ones together."""
    common = masses >= rare
    bins = np.cumsum(common) - 1
    return np.where(common, bins, bins[-1] + 1)


def _group_neighbours(masses: np.ndarray, target: float) -> np.ndarray:
    """Join neighbouring pieces into bins of about `target` mass; a heavier piece is a bin of its own."""
    bins, spike, filled = np.zeros(len(masses), dtype=np.int64), [False], 0.0
    for i, mass in enumerate(masses):
        heavy = mass >= target
        if i and (heavy or spike[-1] or filled + mass / 2 > target):
            if filled < 0.25 * target and not spike[-1] and len(spike) > 1 and not spike[-2]:
                bins[bins == len(spike) - 1] -= 1  # a sliver joins the bin before it
                spike.pop()
            spike.append(heavy)
            filled = 0.0
        spike[-1] = heavy
        bins[i] = len(spike) - 1
        filled += mass
    return bins


def count_classes(table: PrivateTable, plan: Plan, bins: list[ColumnBins], target: int) -> ClassCounts:
    """Release the counts per (class, column, bin) and reconcile the columns' views of the class sizes."""
    event = plan.event("encode.classes")
    columns = [i for i in range(len(bins)) if i != target]
    classes = bins[target].n_bins
    labels = [_label_of_class(i, bins[i].n_bins, target) for i in columns]
    sizes = [classes * bins[i].n_bins for i in columns]
    released = table.noisy_counts(event.name, labels, sizes, [event.cell_stddev] * len(columns))
    raw = [r.reshape(classes, -1).astype(np.float64) for r in released]
    widths = np.array([r.shape[1] for r in raw])
    totals = np.average([r.sum(axis=1) for r in raw], axis=0, weights=1 / widths)  # precision-weighted
    totals = np.maximum(totals, 1.0)
    fitted = [np.stack([project_to_simplex(row, total) for row, total in zip(r, totals, strict=True)]) for r in raw]
    return ClassCounts(totals, [shrink_classes(f, event.cell_stddev) for f in fitted], event.cell_stddev)


def _label_of_class(column: int, n_bins: int, target: int) -> LabelOf:
    def label(leaves: Rows, coarse: Rows) -> np.ndarray:
        del leaves
        return coarse[target].astype(np.int64) * n_bins + coarse[column]

    return label
