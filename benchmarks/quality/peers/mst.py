"""MST on `mbi`: all one-way counts, a spanning tree of two-way counts chosen by the exponential mechanism, one graphical model.

Source: McKenna, Miklau & Sheldon, "Winning the NIST Contest", arXiv:2108.04978, section 3, with the budget (a third of rho each
for one-way counts, selection, two-way counts), the merging of cells below three standard deviations, and the 5,000 steps of
its authors' reference. Unit: one row; neighbours: add or remove one row.
"""

import itertools
import math
from typing import Any

import numpy as np
import peer
import pgm

Cells = dict[str, "np.ndarray[Any, Any]"]
NOTES = (
    "own code after arXiv:2108.04978 on top of mbi's inference",
    peer.GRID_NOTE,
    "zCDP accounting (arXiv:2004.00010); floating-point Gaussian noise; nothing else is read",
)
SELECTION_STEPS, FINAL_STEPS = 1000, 5000


def fit(task: peer.Task) -> peer.Sample:
    with peer.imports:
        mbi = pgm.library()
    grids, cells = peer.encode(task)
    sizes = {grid.name: grid.cells for grid in grids}
    rho = pgm.zcdp_of(task.epsilon, task.delta)
    stddev = math.sqrt(3 * len(sizes) / (2 * rho))  # d releases of sensitivity 1 share rho / 3
    oneway = {name: pgm.noisy(pgm.counts(cells, sizes, (name,)), stddev) for name in sizes}
    merged = {name: Merged(noisy, stddev) for name, noisy in oneway.items()}
    small = {name: merged[name].cells_of(cells[name]) for name in sizes}
    widths = {name: merged[name].size for name in sizes}
    domain = mbi.Domain(tuple(sizes), tuple(widths.values()))
    first = [merged[name].measurement(mbi, name) for name in sizes]
    steps = (100, 100) if task.quick else (SELECTION_STEPS, FINAL_STEPS)
    tree = spanning_tree(pgm.fitted(mbi, domain, first, steps[0]), small, widths, rho / 3)
    stddev = math.sqrt(3 * len(tree) / (2 * rho))
    pairs = [mbi.LinearMeasurement(pgm.noisy(pgm.counts(small, widths, e), stddev), e, stddev) for e in tree]
    model = pgm.fitted(mbi, domain, first + pairs, steps[1])

    def sample(rows: int) -> Any:
        drawn = model.synthetic_data(rows=rows).to_dict()
        return peer.decode(grids, {name: merged[name].draw(drawn[name]) for name in sizes}, task.seed)

    return sample


class Merged:
    """A column whose cells below three standard deviations of noise became one; the last, if there is any."""

    def __init__(self, noisy: "np.ndarray[Any, Any]", stddev: float) -> None:
        kept = noisy >= 3 * stddev
        if kept.sum() < 2:  # nothing left to model
            kept[:] = True
        self.kept, self.rest = np.flatnonzero(kept), np.flatnonzero(~kept)
        self.size = len(self.kept) + bool(len(self.rest))
        self.noisy, self.stddev = noisy, stddev

    def cells_of(self, cells: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Merged cell of each original one."""
        places = np.full(len(self.noisy), len(self.kept))
        places[self.kept] = np.arange(len(self.kept))
        return places[cells]

    def measurement(self, mbi: Any, name: str) -> Any:
        """The one-way counts over the merged cells, all at the same noise: the sum of k cells is scaled by 1/sqrt(k)."""
        if not len(self.rest):
            return mbi.LinearMeasurement(self.noisy, (name,), self.stddev)
        weights = np.append(np.ones(len(self.kept)), 1 / math.sqrt(len(self.rest)))
        values = np.append(self.noisy[self.kept], self.noisy[self.rest].sum()) * weights
        return mbi.LinearMeasurement(values, (name,), self.stddev, query=mbi.WeightedQuery(weights))

    def draw(self, cells: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """An original cell for each merged one; uniform among those that were merged."""
        cells = np.asarray(cells, dtype=np.int64)
        rest = np.random.choice(self.rest, len(cells)) if len(self.rest) else np.zeros(len(cells), dtype=np.int64)  # noqa: NPY002
        return np.where(cells < len(self.kept), self.kept[np.minimum(cells, len(self.kept) - 1)], rest)


def spanning_tree(model: Any, cells: Cells, sizes: dict[str, int], rho: float) -> list[pgm.Clique]:
    """Edges of a spanning tree; each is drawn by the exponential mechanism, among pairs that join two parts.

    The score of a pair is the L1 distance of its counts from those of the one-way model (sensitivity 1).
    """
    shares = {name: np.asarray(model.project((name,)).datavector()) / float(model.total) for name in sizes}
    candidates = list(itertools.combinations(sizes, 2))
    scores = {}
    for a, b in candidates:
        expected = np.outer(shares[a], shares[b]).ravel() * float(model.total)
        scores[a, b] = np.abs(pgm.counts(cells, sizes, (a, b)) - expected).sum()
    part = {name: name for name in sizes}
    edges: list[pgm.Clique] = []
    epsilon = math.sqrt(8 * rho / (len(sizes) - 1))
    while len(edges) < len(sizes) - 1:
        open_pairs = [(a, b) for a, b in candidates if part[a] != part[b]]
        chosen = pgm.exponential(np.array([scores[p] for p in open_pairs]), epsilon=epsilon, sensitivity=1.0)
        a, b = open_pairs[chosen]
        edges.append((a, b))
        joined, into = part[a], part[b]
        part = {name: into if own == joined else own for name, own in part.items()}
    return edges


if __name__ == "__main__":
    peer.leave(peer.run(fit, install=pgm.INSTALL, private=True, notes=NOTES))
