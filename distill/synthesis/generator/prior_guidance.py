"""The global term of a fit: what the hub's joint model of all institutions says, in this institution's own bins.

Another institution's rows may follow other laws. So the hub's word is never taken as it is: an own noisy statistic is moved
towards it by no more than the statistic's own noise explains (James & Stein 1961), once the hub's table has this institution's
own margins. Where institutions are alike most of the noise goes; where one is unlike the others its own counts stand.

That is the precision-weighted mean of the two, with the distance that noise does not explain as the hub's variance. To the
candidates, which are fitted to it, it is a penalty on their distance to the hub's statistics whose strength (lambda_g) is
measured, table by table, and not tuned. Everything here is post-processing: no private row is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.bins import ColumnBins
from distill.synthesis.generator.class_head import fit_head
from distill.synthesis.generator.generator import Generator
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.statistics.class_odds import log_normalise, match_prior
from distill.synthesis.statistics.raking import SMOOTHING, rake_table

ROWS = 100_000  # drawn from the joint model, to see what its class head says of them
HEAD_ROWS = 20_000  # of those, for the class head on own bins


@dataclass(frozen=True, eq=False)
class GlobalTerm:
    """The hub's joint model in an institution's own coarse bins.

    Attributes:
        layout: One-hot layout of the institution's bins.
        records: For each feature the probabilities of its bins in each soft record, (K, bins).
        weights: Of the soft records, (K,), sum 1.
        codes: Rows drawn from them, (rows, features).
        chances: Chance of each class for each row by the joint model's class head, (rows, classes).
    """

    layout: Layout
    records: tuple[np.ndarray, ...]
    weights: np.ndarray
    codes: np.ndarray
    chances: np.ndarray

    def class_guess(self, feature: int, classes: np.ndarray) -> np.ndarray:
        """What to expect of the counts of a feature's bins in each class, of sizes `classes`; (classes, bins)."""
        width = self.layout.features[feature]
        counted = np.stack([np.bincount(self.codes[:, feature], c, width) for c in self.chances.T])
        smoothed = counted + SMOOTHING * counted.mean(axis=0) + 1e-9
        return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True) * classes[:, None])

    def pair_guess(self, first: int, second: int, one_way: Sequence[np.ndarray]) -> np.ndarray:
        """What to expect of two features whose own one-way shares are `one_way`: the joint model's odds ratios at these."""
        together = self.records[first].T @ (self.records[second] * self.weights[:, None])
        return rake_table(together, one_way[first], one_way[second])

    def head(self, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The joint model's class head on own one-hot features, at class frequencies `prior`: weight and bias."""
        weight, bias = fit_head(self.layout, self.codes[:HEAD_ROWS], self.chances[:HEAD_ROWS])
        shift = np.log(np.maximum(prior, 1e-6)) - np.log(np.maximum(self.chances.mean(axis=0), 1e-6))
        return weight, bias + shift.astype(np.float32)


def global_term(prior: Generator, bins: Sequence[ColumnBins], rng: np.random.Generator) -> GlobalTerm:
    """The hub's joint model through an institution's coarse bins (one a column, in table order); `rng` draws its rows."""
    features = [b for b in bins if b.grid.column.name != prior.schema.target]
    shared = [overlap(p, b) for p, b in zip(prior.feature_bins, features, strict=True)]
    weights = np.asarray(prior.weights / prior.weights.sum(), dtype=np.float64)
    parts = np.split(prior.logits.astype(np.float64), np.cumsum(prior.layout.features)[:-1], axis=1)
    records = [np.exp(log_normalise(part)) for part in parts]
    record = rng.choice(len(weights), ROWS, p=weights)
    scores = np.broadcast_to(np.asarray(prior.head[1], dtype=np.float64), (ROWS, prior.layout.classes)).copy()
    codes = np.empty((ROWS, len(features)), dtype=np.int64)
    for i, (start, part, share) in enumerate(zip(prior.layout.starts, records, shared, strict=False)):
        drawn = _draw(part, record, rng)
        scores += prior.head[0].T[start + drawn]
        codes[:, i] = _draw(share, drawn, rng)
    chances = np.exp(match_prior(log_normalise(scores), prior.class_prior))
    if prior.schema.task == "number" and prior.schema.target_place is not None:
        chances = chances @ overlap(prior.bins[prior.schema.target_place], bins[prior.schema.target_place])
    layout = Layout(tuple(b.n_bins for b in features), chances.shape[1])
    own = tuple(part @ share for part, share in zip(records, shared, strict=True))
    return GlobalTerm(layout, own, weights, codes, chances)


def overlap(given: ColumnBins, own: ColumnBins) -> np.ndarray:
    """Share of each bin of `given` in each bin of `own`, of one column: (given bins, own bins), rows sum to one.

    Mass is spread evenly inside a piece; a bin without any mass is spread evenly over its leaves.
    """
    starts = np.union1d(given.starts, own.starts)
    sizes = np.append(starts[1:], given.grid.cells) - starts
    piece = np.searchsorted(given.starts, starts, side="right") - 1
    leaves = given.stops - given.starts
    empty = np.bincount(given.bin_of_piece, given.masses) <= 0
    masses = np.where(empty[given.bin_of_piece], leaves, given.masses)
    out = np.zeros((given.n_bins, own.n_bins))
    np.add.at(out, (given.bin_of_piece[piece], own.coarse(starts)), masses[piece] * sizes / leaves[piece])
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def _draw(probabilities: np.ndarray, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column of each row `which` of `probabilities`, (m, k), drawn by them: (len(which),), int64."""
    upper = np.cumsum(probabilities, axis=1)
    upper[:, -1] = 1.0
    line = (upper + np.arange(len(upper))[:, None]).ravel()  # row r occupies (r, r + 1]
    found = np.searchsorted(line, which + rng.random(len(which)))
    return np.asarray(found - which * upper.shape[1]).clip(0, upper.shape[1] - 1)
