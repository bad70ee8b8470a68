"""What a noisy table of scores and classes says of a model: AUC, accuracy, Brier score, calibration, each with its interval.

All of it is post-processing: it sees noisy counts and public bins, never a row, so it costs nothing and may be repeated by
anybody who holds the table. What lies inside a bin is not seen: there scores are taken to be spread as the model's are on
synthetic rows and to be chances, or, where that is not known, to be all at the bin's middle.

Intervals redraw the noise: how far a figure moves when the same noise is added to the noisy counts once more is taken for
how far the first noise moved it (a basic bootstrap: doi:10.1017/CBO9780511802843, section 5.2). One interval holds the noise
alone, and so is about these very rows; the other also draws rows anew (a Poisson count a cell), and so is about the
customers that they come from.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

CONFIDENCE = 0.95
REDRAWS = 4000
CLEAR = 5.0  # deviations of its noise that a number of rows must be above 0, else nothing is divided by it
Law = Literal["laplace", "gaussian"]
Figure = Callable[[np.ndarray], np.ndarray]  # counts (..., 2, bins) -> (...)


@dataclass(frozen=True)
class Block:
    """One histogram of the table: rows by whether something holds of them and by the bin of a score. All of it is public.

    Attributes:
        name: What holds: the class that the row is of, or that the most probable class is right.
        edges: Inner edges of the bins of the score, ascending; a score on an edge is in the bin above.
        middles: The score that stands for each bin, one more than edges.
        wins: Of two rows of a bin, one of which it holds of and one not, the chance that the first has the higher score: 0.5, or
            more where it is known how the model's scores are spread inside the bin.
        losses: Mean squared error of a bin's scores for rows that it does not hold of, and for those that it holds of.
    """

    name: str
    edges: tuple[float, ...]
    middles: tuple[float, ...]
    wins: tuple[float, ...]
    losses: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def cells(self) -> int:
        """Bins, twice: first of the rows of which it does not hold."""
        return 2 * len(self.middles)


@dataclass(frozen=True, eq=False)
class NoisyBlock:
    """A released block.

    Attributes:
        block: Its bins.
        counts: Noisy rows, (2, bins); they may be negative.
        law, scale: Of the noise on each: Laplace scale or Gaussian stddev.
    """

    block: Block
    counts: np.ndarray
    law: Law
    scale: float

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise on a cell."""
        return self.scale * (np.sqrt(2.0) if self.law == "laplace" else 1.0)

    @cached_property
    def redrawn(self) -> dict[str, np.ndarray]:
        """The counts with the same noise once more, and with rows drawn anew too, by interval; (REDRAWS, 2, bins) each.

        Seeded by the block's name, so that two blocks do not share their noise. Drawn anew, they are independent, though one
        row is in all blocks: an approximation, in figures over several.
        """
        rng = np.random.default_rng(zlib.crc32(self.block.name.encode()))
        shape = (REDRAWS, *self.counts.shape)
        noise = rng.laplace(0, self.scale, shape) if self.law == "laplace" else rng.normal(0, self.scale, shape)
        expected = np.maximum(self.counts, 0)
        rows = rng.poisson(expected, shape) - expected
        return {"interval": self.counts + noise, "interval_customers": self.counts + noise + rows}

    def clear(self, *parts: Any) -> bool:
        """Whether the rows in each part of the table stand out of their noise; a part indexes (2, bins)."""
        chosen = [self.counts[part] for part in parts]
        return all(c.sum() > CLEAR * self.stddev * np.sqrt(max(c.size, 1)) for c in chosen)


def auc(block: Block) -> Figure:
    """ROC-AUC. No count is cut off at 0: the noise then has no bias in either factor."""
    loses = 1 - np.array(block.wins)

    def figure(counts: np.ndarray) -> np.ndarray:
        negatives, positives = counts[..., 0, :], counts[..., 1, :]
        below = negatives.cumsum(axis=-1) - negatives * loses
        return np.asarray((positives * below).sum(axis=-1) / (positives.sum(axis=-1) * negatives.sum(axis=-1)))

    return figure


def brier(block: Block) -> Figure:
    """Mean squared error of the scores."""
    losses = np.array(block.losses)
    return lambda counts: np.asarray((counts * losses).sum(axis=(-2, -1)) / counts.sum(axis=(-2, -1)))


def share(part: Any, of: Any = np.s_[:, :]) -> Figure:
    """Rows in one part of the table over rows in another; a part indexes (2, bins) with slices."""

    def figure(counts: np.ndarray) -> np.ndarray:
        inside, whole = (counts[(..., *p)].sum(axis=(-2, -1)) for p in (part, of))
        return np.asarray(inside / whole)

    return figure


def with_interval(
    blocks: Sequence[NoisyBlock], figure: Callable[..., np.ndarray], *, most: float = 1.0
) -> dict[str, Any]:
    """A figure of one or several blocks with both intervals, all cut off at 0 and `most`. Repeatable: the redraws are seeded."""
    value = float(figure(*(b.counts for b in blocks)))
    out: dict[str, Any] = {"value": float(np.clip(value, 0, most))}
    for name in ("interval", "interval_customers"):
        moved = figure(*(b.redrawn[name] for b in blocks)) - value
        low, high = np.quantile(moved, [(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2])
        out[name] = [float(np.clip(value - low, 0, most)), float(np.clip(value - high, 0, most))]
    return out


def figures(
    blocks: Sequence[NoisyBlock], *, threshold: float, costs: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Everything that the table says, ready for JSON; a figure that the noise drowns is None.

    Args:
        blocks: Of two classes one, of the last class. Of more, one a class and then whether the most probable is right.
        threshold: Of two classes: from which score on a row counts as of the last class; an edge of the block.
        costs: Of a false positive and of a false negative, for two classes.
    """
    first, last = blocks[0], blocks[-1]
    out: dict[str, Any] = {
        "rows": round(max(0.0, float(last.counts.sum()))),
        "rows_stddev": float(last.stddev * np.sqrt(last.counts.size)),
        "accuracy": None,
        "brier": None,
    }
    ranked = blocks if len(blocks) == 1 else blocks[:-1]
    every = all(b.clear(np.s_[:, :]) for b in blocks)
    known = [b for b in ranked if _both_sides(b)]
    out["roc_auc"] = _auc(known)
    if len(blocks) > 1:
        out["per_class_auc"] = {b.block.name: _auc([b] if b in known else []) for b in ranked}
        out["accuracy"] = _if(every, [last], share(np.s_[1:, :]))
    else:
        out["accuracy"] = _if(every, [first], _right(_first_above(first.block, 0.5)))
        out["base_rate"] = _if(every, [first], share(np.s_[1:, :]))
        out["at_threshold"] = _at_threshold(first, threshold, costs)
    most = 1.0 if len(blocks) == 1 else 2.0
    out["brier"] = _if(every, ranked, _over(ranked, brier, np.sum), most=most)
    out["calibration"] = [line for b in ranked for line in calibration(b)]
    return out


def calibration(noisy: NoisyBlock) -> list[dict[str, Any]]:
    """For each bin what the model says and what is observed, with its interval; neighbours that the noise drowns are joined."""
    lines, start = [], 0
    bins = len(noisy.block.middles)
    for stop in range(1, bins + 1):
        whole = np.s_[:, start:stop]
        if not noisy.clear(whole):
            continue
        rows = np.maximum(noisy.counts[whole].sum(axis=0), 0)
        middles = np.array(noisy.block.middles[start:stop])
        weights = rows if rows.sum() else np.ones(len(middles))
        lines.append(
            {
                "of": noisy.block.name,
                "from": float(([0.0, *noisy.block.edges])[start]),
                "to": float(([*noisy.block.edges, 1.0])[stop - 1]),
                "rows": round(float(noisy.counts[whole].sum())),
                "predicted": float(np.average(middles, weights=weights)),
                "observed": with_interval([noisy], share(np.s_[1:, start:stop], whole)),
            }
        )
        start = stop
    return lines


def roc_points(noisy: NoisyBlock) -> list[tuple[float, float]]:
    """False and true positive rate with each edge as the threshold, the noise smoothed away so that neither falls."""
    rates = [np.append(0.0, np.cumsum(side[::-1]) / side.sum()) for side in noisy.counts.astype(float)]
    shape = [np.clip((np.maximum.accumulate(r) + np.minimum.accumulate(r[::-1])[::-1]) / 2, 0, 1) for r in rates]
    return [(float(f), float(t)) for f, t in zip(*shape, strict=True)]


def _at_threshold(noisy: NoisyBlock, threshold: float, costs: tuple[float, float] | None) -> dict[str, Any]:
    """The confusion matrix at a threshold and its rates, with what a row costs."""
    at = _first_above(noisy.block, threshold)
    (tn, fp), (fn, tp) = ((float(side[:at].sum()), float(side[at:].sum())) for side in noisy.counts)
    found: dict[str, Any] = {
        "threshold": threshold,
        "true_negatives": round(tn),
        "false_positives": round(fp),
        "false_negatives": round(fn),
        "true_positives": round(tp),
        "selection_rate": _if(noisy.clear(np.s_[:, :]), [noisy], share(np.s_[:, at:])),
        "true_positive_rate": _if(noisy.clear(np.s_[1:, :]), [noisy], share(np.s_[1:, at:], np.s_[1:, :])),
        "false_positive_rate": _if(noisy.clear(np.s_[:1, :]), [noisy], share(np.s_[:1, at:], np.s_[:1, :])),
    }
    if costs is not None:
        false_positives, false_negatives = share(np.s_[:1, at:]), share(np.s_[1:, :at])

        def cost(counts: np.ndarray) -> np.ndarray:
            return costs[0] * false_positives(counts) + costs[1] * false_negatives(counts)

        found["cost_a_row"] = _if(noisy.clear(np.s_[:, :]), [noisy], cost, most=max(costs))
    return found


def _right(at: int) -> Figure:
    """Share of rows on the right side of bin `at`."""
    return lambda counts: share(np.s_[:1, :at])(counts) + share(np.s_[1:, at:])(counts)


def _auc(blocks: Sequence[NoisyBlock]) -> dict[str, Any] | None:
    """The mean AUC of some blocks. Its intervals are wider by half of what the rows inside bins are taken to add to it."""
    found = _if(bool(blocks), blocks, _over(blocks, auc, np.mean))
    if found is None:
        return None
    ties = _over(blocks, lambda b: auc(replace(b, wins=(0.5,) * len(b.wins))), np.mean)(*(b.counts for b in blocks))
    slack = abs(found["value"] - float(np.clip(ties, 0, 1))) / 2
    wider = {
        name: [max(0.0, found[name][0] - slack), min(1.0, found[name][1] + slack)]
        for name in ("interval", "interval_customers")
    }
    return {**found, **wider}


def _over(
    blocks: Sequence[NoisyBlock], make: Callable[[Block], Figure], join: Callable[..., Any]
) -> Callable[..., np.ndarray]:
    """The mean or sum over blocks of a figure of each."""
    parts = [make(b.block) for b in blocks]
    return lambda *tables: np.asarray(join([part(t) for part, t in zip(parts, tables, strict=True)], axis=0))


def _both_sides(noisy: NoisyBlock) -> bool:
    return noisy.clear(np.s_[:1, :], np.s_[1:, :])


def _if(
    clear: bool, blocks: Sequence[NoisyBlock], figure: Callable[..., np.ndarray], *, most: float = 1.0
) -> dict[str, Any] | None:
    return with_interval(blocks, figure, most=most) if clear else None


def _first_above(block: Block, threshold: float) -> int:
    """The first bin whose scores are at or above a threshold, which is an edge of the block."""
    return block.edges.index(threshold) + 1
