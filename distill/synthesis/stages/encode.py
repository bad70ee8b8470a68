"""Stage 1, encode: where the bins lie, and how many rows of each class fall into each.

Two Gaussian releases (L2, add or remove one row). First, counts on the base grids, level by level down a tree that only
grows where there is mass (sensitivity sqrt(columns) a level); from them come the coarse bins and how to draw inside
one. Second, counts per (class, column, bin) (sensitivity sqrt(columns)): the class prior, the one-way counts and naive Bayes.
The classes of a target that is a number are its own coarse bins; without a target all rows are of one class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.bins import ColumnBins
from distill.data.grids import ColumnGrid
from distill.privacy.calibration import ReleasePlan, measured_depth
from distill.privacy.cells import Cross, Lookup
from distill.privacy.private_table import PrivateTable
from distill.synthesis.generator.prior_guidance import GlobalTerm
from distill.synthesis.planning.plan import Plan, bin_weight, binned_columns, target_bins
from distill.synthesis.statistics.counts import ClassCounts
from distill.synthesis.statistics.denoising import nearer, shrink_classes, shrink_low_rank, shrink_towards
from distill.synthesis.statistics.raking import rake_table
from distill.synthesis.statistics.simplex import project_to_simplex

END_NOISE = 3.0  # stddevs below which the ends of a number look empty
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
        measured: Positions of the columns that are counted, each at most once; None: all features, and a target that is a
            number. The others' cells are told apart only where they are few.
    """
    if measured is None:
        measured = binned_columns(table.schema)
    aims = [plan.bins] * len(table.grids)
    if table.schema.target_place is not None:
        aims[table.schema.target_place] = target_bins(plan.noisy_size, plan.epsilon)
    trees = [_Tree(g, measured_depth(g.depth, g.leaves), [], []) for g in table.grids]
    heavy = plan.noisy_size / (2 * plan.bins)
    # A column of weight m is paid for as m blocks, so its own counts may have 1/sqrt(m) of the noise.
    finer = [bin_weight(table.schema, i) ** -0.5 for i in range(len(table.grids))]
    stddev = 0.0
    for level in range(1, max((trees[i].depth for i in measured), default=0) + 1):
        active = [i for i in measured if trees[i].depth >= level]
        stddev = plan.event(f"encode.bins.{level}").cell_stddev
        _measure_level(table, trees, active, level, [stddev * finer[i] for i in active], heavy)
    return [
        _bins_of(
            t,
            aim,
            plan.noisy_size,
            stddev * finer[i] if i in measured else 0.0,
            gather_ends=i == table.schema.target_place,
        )
        for i, (t, aim) in enumerate(zip(trees, aims, strict=True))
    ]


def _measure_level(
    table: PrivateTable, trees: list[_Tree], active: list[int], level: int, stddevs: list[float], heavy: float
) -> None:
    """Release one tree level of the active columns: the children of every node heavier than `heavy` and than its noise."""
    cells: list[Lookup] = []
    for i, stddev in zip(active, stddevs, strict=True):
        tree = trees[i]
        least = max(heavy, 3 * stddev)
        parents = np.zeros(1, dtype=np.int64) if level == 1 else tree.nodes[-1][tree.counts[-1] > least]
        nodes = tree.children(parents)
        cells.append(_cells_of_nodes(i, nodes, tree.width(level), tree.grid, level))
        tree.nodes.append(nodes)
    released = table.noisy_counts(f"encode.bins.{level}", cells, stddevs)
    for i, counts in zip(active, released, strict=True):
        trees[i].counts.append(counts[:-1].astype(np.float64))
        if level == 1:
            trees[i].missing = float(counts[-1])


def _cells_of_nodes(column: int, nodes: np.ndarray, width: int, grid: ColumnGrid, level: int) -> Lookup:
    """A cell a node, by its position among `nodes` (ascending); missing is the last cell, on level 1 only."""
    node = np.arange(grid.leaves) // width
    position = np.searchsorted(nodes, node).clip(max=max(len(nodes) - 1, 0))
    cells = np.where(nodes[position] == node, position, -1) if len(nodes) else np.full(grid.leaves, -1)
    if grid.column.nullable:
        cells = np.append(cells, len(nodes) if level == 1 else -1)
    return Lookup((column,), (cells.astype(np.int64),), (len(nodes) + 1,))


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


def _bins_of(tree: _Tree, aim: int, rows: float, stddev: float, *, gather_ends: bool) -> ColumnBins:
    """Coarse bins of one column, about `aim` of a number, from its noisy tree over `rows` rows."""
    grid = tree.grid
    if not tree.counts:  # few cells, nothing measured: each is a bin
        cells = np.arange(grid.cells)
        return ColumnBins(grid, cells, np.ones(len(cells)), cells)
    if grid.depth:
        _consistent(tree, stddev)
    starts, counts = _pieces(tree)
    if gather_ends and grid.depth:
        counts = _gather_ends(tree, starts, counts, stddev)
    masses = project_to_simplex(np.append(counts, tree.missing) if grid.column.nullable else counts)
    values = masses[: len(starts)]
    if grid.column.kind == "categorical":
        bins = _group_categories(values, max(RARE_CATEGORY, 2 * stddev / rows))
    else:
        mass = 1 / aim if grid.depth else max(0.5 / aim, 3 * stddev / rows)
        bins = _group_neighbours(values, mass)
        held = np.flatnonzero(values > 0)
        if gather_ends and len(held):  # an end without mass says nothing of the values in it: it joins the next bin
            bins = np.clip(bins, bins[held[0]], bins[held[-1]]) - bins[held[0]]
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


def _gather_ends(tree: _Tree, starts: np.ndarray, counts: np.ndarray, stddev: float) -> np.ndarray:
    """Counts of a number's pieces with what looks empty at either end gathered in the outermost piece that does not.

    A piece far out that holds nothing but noise would give some rows values far from any real one, and a squared error counts
    those most. What the ends hold, if positive, moves inwards, so no mass is lost. Post-processing.
    """
    first, last = (_outermost(tree, stddev, step) for step in (1, -1))
    inside = np.flatnonzero((starts >= first) & (starts <= last))
    if not len(inside):
        return counts
    gathered = np.zeros_like(counts)
    gathered[inside] = counts[inside]
    gathered[inside[0]] += max(float(counts[: inside[0]].sum()), 0.0)
    gathered[inside[-1]] += max(float(counts[inside[-1] + 1 :].sum()), 0.0)
    return gathered


def _outermost(tree: _Tree, stddev: float, step: int) -> int:
    """First leaf of the outermost piece that is not empty to all appearances, from the left (`step` 1) or the right (-1).

    Level by level: nodes are added up from the end until the sum exceeds `END_NOISE` stddevs of its noise, then the search goes
    on among the children of that node. Where nothing does, the end stays as it is.
    """
    leaf = 0 if step > 0 else tree.grid.leaves - 1
    parent = 0
    for level, (nodes, counts) in enumerate(zip(tree.nodes, tree.counts, strict=True), start=1):
        among = np.flatnonzero(nodes // tree.grid.branching == parent) if level > 1 else np.arange(len(nodes))
        among = among[::step]
        noise = stddev * np.sqrt(np.arange(1, len(among) + 1))
        seen = np.flatnonzero(np.cumsum(counts[among]) > END_NOISE * noise)
        if not len(seen):
            break
        parent = int(nodes[among[seen[0]]])
        leaf = parent * tree.width(level) if step > 0 else min((parent + 1) * tree.width(level), tree.grid.leaves) - 1
    return leaf


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


def count_classes(
    table: PrivateTable, plan: Plan, bins: list[ColumnBins], target: int, term: GlobalTerm | None = None
) -> ClassCounts:
    """Release the counts per (class, column, bin) and reconcile the columns' views of the class sizes.

    Args:
        table, plan: The rows and what was planned (event `encode.classes`).
        bins: Coarse bins of every column of the table.
        target: Position of the classes; one past the last column: there is one class.
        term: What the hub's joint model says of these counts, if there is one.
    """
    event = plan.event("encode.classes")
    columns = [i for i in range(len(bins)) if i != target]
    classes = bins[target].n_bins if target < len(bins) else 1
    cells = [Cross((target, i), (classes, bins[i].n_bins)) for i in columns]
    released = table.noisy_counts(event.name, cells, [event.cell_stddev] * len(columns))
    raw = [r.reshape(classes, -1).astype(np.float64) for r in released]
    widths = np.array([r.shape[1] for r in raw])
    totals = np.average([r.sum(axis=1) for r in raw], axis=0, weights=1 / widths)  # precision-weighted
    totals = np.maximum(totals, 1.0)
    fitted = [np.stack([project_to_simplex(row, total) for row, total in zip(r, totals, strict=True)]) for r in raw]
    denoise = _shrink_ranges if table.schema.task == "number" else shrink_classes
    if term is None:
        return ClassCounts(totals, [denoise(f, event.cell_stddev) for f in fitted], event.cell_stddev)
    by_column = []
    for j, block in enumerate(fitted):
        guess, shift = _guess(term.class_guess(j, totals), block, event.cell_stddev)
        by_column.append(_with_sums(denoise(block, event.cell_stddev, guess) + shift, totals))
    return ClassCounts(totals, by_column, event.cell_stddev)


def _guess(expected: np.ndarray, block: np.ndarray, stddev: float) -> tuple[np.ndarray, np.ndarray]:
    """What counts (classes, bins) are shrunk towards: what the hub expects of them or independence, whichever is nearer.

    Returns:
        The guess at the block's own class sizes and bin sums, and what it changes by where the bin sums themselves are moved
        towards the hub's, as far as their noise goes.
    """
    sums, own = block.sum(axis=1), np.maximum(block.sum(axis=0), 1e-9)
    moved = np.maximum(shrink_towards(own, expected.sum(axis=0), len(sums) * stddev**2), 1e-9)
    hub, independent = rake_table(expected, sums, own), np.outer(sums / sums.sum(), own)
    if nearer(block, hub, independent) is hub:
        return hub, rake_table(expected, sums, moved) - hub
    return independent, np.outer(sums / sums.sum(), moved) - independent


def _shrink_ranges(block: np.ndarray, stddev: float, guess: np.ndarray | None = None) -> np.ndarray:
    """Denoise counts of shape (classes, bins) whose classes are ranges of a number; each class keeps its sum.

    What neighbouring ranges say differs little, so what a block adds to independence is of low rank. On the table of
    benchmarks/quality/regression.py (epsilon 2, one seed) the class head's R2 rose from .44 to .46 at 3,000 rows and 8 bins, from
    .54 to .56 at 20,000 and 8, and stayed at .57 at 20,000 and 12, against one factor for the whole block.
    """
    sums = block.sum(axis=1)
    guess = np.outer(sums / sums.sum(), block.sum(axis=0)) if guess is None else guess
    return _with_sums(shrink_low_rank(block, guess, stddev), sums)


def _with_sums(block: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Nonnegative counts (classes, bins) whose classes have these sums."""
    positive = np.maximum(block, 0.0)
    return np.asarray(positive * (sums / np.maximum(positive.sum(axis=1), 1e-9))[:, None])
