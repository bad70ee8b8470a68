"""AIM on `mbi`: rounds that each pick the worst-modelled set of columns, measure it, and fit one graphical model to all.

Source: McKenna, Mullins, Sheldon & Miklau, "AIM: An Adaptive and Iterative Mechanism", arXiv:2201.12677, algorithms 1 and 2,
with the settings of its authors' reference: all pairs of at most 10,000 cells as the workload, 16 rounds a column, a tenth of
rho for selection, a model of at most 80 MB, 1,000 steps a round. Unit: one row; neighbours: add or remove one row.
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import peer
import pgm

MODEL_MB, WORKLOAD_CELLS, STEPS, ROUNDS_A_COLUMN, SELECTION_PORTION = 80.0, 10_000, 1000, 16, 0.1
ROUND_TOLERANCE = 1e-3  # between rounds; the last fit takes all its steps
NOTES = (
    "own code after arXiv:2201.12677 on top of mbi's inference",
    "workload: all pairs of columns, the target like any other",
    peer.GRID_NOTE,
    "zCDP accounting (arXiv:2004.00010); floating-point Gaussian noise; nothing else is read",
)


def fit(task: peer.Task) -> peer.Sample:
    with peer.imports:
        mbi = pgm.library()
    grids, cells = peer.encode(task)
    sizes = {grid.name: grid.cells for grid in grids}
    domain = mbi.Domain(tuple(sizes), tuple(sizes.values()))
    rounds = len(sizes) + 3 if task.quick else ROUNDS_A_COLUMN * len(sizes)
    model = aim(mbi, domain, cells, sizes, pgm.zcdp_of(task.epsilon, task.delta), rounds, 50 if task.quick else STEPS)

    def sample(rows: int) -> Any:
        return peer.decode(grids, model.synthetic_data(rows=rows).to_dict(), task.seed)

    return sample


def aim(
    mbi: Any, domain: Any, cells: dict[str, Any], sizes: dict[str, int], rho: float, rounds: int, steps: int
) -> Any:
    """The graphical model after all rounds."""
    weights = workload_weights(sizes)
    truth = {clique: pgm.counts(cells, sizes, clique) for clique in weights}
    stddev = math.sqrt(rounds / (2 * (1 - SELECTION_PORTION) * rho))
    epsilon = math.sqrt(8 * SELECTION_PORTION * rho / rounds)
    measured = []
    for name in sizes:
        measured.append(mbi.LinearMeasurement(pgm.noisy(truth[(name,)], stddev), (name,), stddev))
    used = len(sizes) * 0.5 / stddev**2
    model = pgm.fitted(mbi, domain, measured, steps)
    last = False
    while not last:
        last = rho - used < 2 * (0.5 / stddev**2 + epsilon**2 / 8)
        if last:  # one round with all that is left
            stddev = math.sqrt(1 / (2 * (1 - SELECTION_PORTION) * (rho - used)))
            epsilon = math.sqrt(8 * SELECTION_PORTION * (rho - used))
        used += 0.5 / stddev**2 + epsilon**2 / 8
        open_cliques = affordable(mbi, domain, model, weights, MODEL_MB * used / rho)
        clique = worst(model, open_cliques, weights, truth, sizes, stddev=stddev, epsilon=epsilon)
        before = marginal(model, clique)
        measured.append(mbi.LinearMeasurement(pgm.noisy(truth[clique], stddev), clique, stddev))
        model = pgm.fitted(mbi, domain, measured, steps, warm_start=model, tol=None if last else ROUND_TOLERANCE)
        moved = np.abs(marginal(model, clique) - before).sum()
        if moved <= stddev * math.sqrt(2 / math.pi) * before.size:  # the answer was known to within its noise
            stddev, epsilon = stddev / 2, epsilon * 2
    return model


def workload_weights(sizes: dict[str, int]) -> dict[pgm.Clique, float]:
    """Single columns and pairs that may be measured, each with its overlap with the workload of all small pairs."""
    pairs = [p for p in itertools.combinations(sizes, 2) if math.prod(sizes[name] for name in p) <= WORKLOAD_CELLS]
    cliques: list[pgm.Clique] = [*((name,) for name in sizes), *pairs]
    return {clique: float(sum(len(set(clique) & set(p)) for p in pairs)) for clique in cliques}


def affordable(mbi: Any, domain: Any, model: Any, cliques: Iterable[pgm.Clique], megabytes: float) -> list[pgm.Clique]:
    """Cliques that the model holds already, or whose addition keeps its junction tree within `megabytes`."""
    size = mbi.junction_tree.hypothetical_model_size
    held = [set(clique) for clique in model.cliques]
    return [
        clique
        for clique in cliques
        if any(set(clique) <= other for other in held) or size(domain, [*model.cliques, clique]) <= megabytes
    ]


def worst(
    model: Any,
    cliques: list[pgm.Clique],
    weights: dict[pgm.Clique, float],
    truth: dict[pgm.Clique, Any],
    sizes: dict[str, int],
    *,
    stddev: float,
    epsilon: float,
) -> pgm.Clique:
    """Clique drawn by weight times (L1 error minus the error that measuring it would leave); sensitivity: the weight."""
    scores = []
    for clique in cliques:
        error = np.abs(truth[clique] - marginal(model, clique)).sum()
        left = math.sqrt(2 / math.pi) * stddev * math.prod(sizes[name] for name in clique)
        scores.append(weights[clique] * (error - left))
    sensitivity = max(weights[clique] for clique in cliques)
    return cliques[pgm.exponential(np.array(scores), epsilon=epsilon, sensitivity=sensitivity)]


def marginal(model: Any, clique: pgm.Clique) -> "np.ndarray[Any, Any]":
    """The model's expected counts of a set of columns, flat: `model.project(clique)`, with numpy.

    Every question has its own shapes, for which jax would compile anew: 100 questions a round took 40 seconds.
    """
    import opt_einsum

    place = {name: i for i, name in enumerate(model.domain.attributes)}
    operands: list[Any] = []
    for factor in model.potentials.tables.values():
        values = np.asarray(factor.values)
        operands += [np.exp(values - values.max()), [place[name] for name in factor.domain.attributes]]
    shares = opt_einsum.contract(*operands, [place[name] for name in clique], optimize="greedy").ravel()
    if not 0 < shares.sum() < math.inf:  # the factors' greatest cells exclude each other: leave it to log space
        return np.asarray(model.project(clique).datavector())
    return np.asarray(shares * (float(model.total) / shares.sum()))


if __name__ == "__main__":
    peer.leave(peer.run(fit, install=pgm.INSTALL, private=True, notes=NOTES))
