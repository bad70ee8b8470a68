"""The global prior that a hub writes for its institutions' next releases: one joint model of all of them, signed.

All institutions' soft records stand side by side on the common refinement of their bins, each institution with its share of the
rows; the class head says what the pool's soft labels say, the correction of its class heads included. Post-processing of the
bundles: no budget. `distill.global_prior` has the file, and what it says of privacy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from distill.bins import ColumnBins
from distill.class_chances import log_normalise
from distill.errors import ConfigError
from distill.generator import Generator, encode_rows
from distill.global_prior import write_prior
from distill.global_term import overlap
from distill.keys import SigningKey
from distill.layout import Layout
from distill.soft_head import fit_head
from server_train.intake import Intake
from server_train.pool import Pool
from server_train.readings import costs

RECORDS, CELLS = 1500, 10_000_000  # soft records in all, about, and what they hold together at most
LEAST_RECORDS = 20  # of an institution with few rows, where there is room
HEAD_ROWS = 40_000
LOWEST = 1e-7  # probability of a bin in a record


@dataclass(frozen=True)
class PriorPlace:
    """Where a hub's global prior goes, and the hub's key, which signs it."""

    path: Path
    key: SigningKey

    def require(self, bundles: Sequence[Path]) -> None:
        """Refuse, before any work, a place that cannot be used. Raises ConfigError."""
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise ConfigError(f"--global-prior {self.path}: its folder does not exist, or it is a folder itself.")
        if self.path.resolve() in {b.resolve() for b in bundles}:
            raise ConfigError(f"--global-prior {self.path} is one of the bundles; name another file.")

    def write(self, intake: Intake, pool: Pool) -> Path:
        """Write the joint model of a pool's institutions; returns the place. Raises PriorError."""
        disjoint, overlapping = costs(intake.received)
        write_prior(
            self.path,
            joint_model(pool, [cast(Generator, r.generator) for r in intake.received]),
            bundles=[r.bundle.digest for r in intake.received],
            disjoint=disjoint,
            overlapping=overlapping,
            rehearsal=any(r.manifest.rehearsal for r in intake.received),
            key=self.key,
        )
        return self.path


def joint_model(pool: Pool, generators: Sequence[Generator]) -> Generator:
    """One generator for all institutions together.

    Args:
        pool: Drawn from them.
        generators: The institutions', in the order of `pool.members`.
    """
    features, logits, weights = _components(generators, np.array([m.row_share for m in pool.members]))
    shares = tuple(np.bincount(f.bin_of_piece, f.masses) / f.masses.sum() for f in features)
    layout = Layout(tuple(len(s) for s in shares), len(pool.prior))
    codes = encode_rows(pool.frame.iloc[:HEAD_ROWS], features)
    bins = list(features)
    place = pool.schema.target_place
    if place is not None:
        bins.insert(place, generators[0].bins[place] if pool.bins is None else pool.bins)
    return Generator(
        schema=pool.schema,
        bins=tuple(bins),
        logits=logits,
        weights=weights,
        head=fit_head(layout, codes, pool.soft_labels[:HEAD_ROWS]),
        critic=None,
        shares=shares,
        class_prior=pool.prior,
        noisy_rows=round(sum(m.noisy_rows for m in pool.members)),
    )


def _components(generators: Sequence[Generator], rows: np.ndarray) -> tuple[list[ColumnBins], np.ndarray, np.ndarray]:
    """Common bins of each feature, soft records on them (logits), and their weights; `rows` is each institution's share."""
    columns = range(len(generators[0].feature_bins))
    features = [
        _common([g.feature_bins[c] for g in generators], [g.shares[c] for g in generators], rows) for c in columns
    ]
    most = min(RECORDS, CELLS // sum(f.n_bins for f in features))
    least = max(1, min(LEAST_RECORDS, most // len(generators)))
    parts = [_records(g, features, max(least, round(most * n))) for g, n in zip(generators, rows, strict=True)]
    weights = [np.full(len(part), n / len(part)) for part, n in zip(parts, rows, strict=True)]
    return features, np.concatenate(parts), np.concatenate(weights)


def _common(bins: Sequence[ColumnBins], shares: Sequence[np.ndarray], rows: np.ndarray) -> ColumnBins:
    """The common refinement of all institutions' bins of one column; pieces carry the share of all rows."""
    starts = np.unique(np.concatenate([b.starts for b in bins]))
    grid = bins[0].grid
    missing = starts >= grid.leaves  # first, so that its bin is the last
    codes = np.stack([missing, *(b.coarse(starts) for b in bins)])
    bin_of_piece = np.unique(codes.astype(np.int64), axis=1, return_inverse=True)[1].ravel()
    pieces = ColumnBins(grid, starts, np.ones(len(starts)), np.arange(len(starts)))
    masses = sum(n * (share @ overlap(b, pieces)) for n, share, b in zip(rows, shares, bins, strict=True))
    return ColumnBins(grid, starts, np.asarray(masses), bin_of_piece)


def _records(generator: Generator, features: Sequence[ColumnBins], number: int) -> np.ndarray:
    """About `number` of an institution's soft records, evenly by weight, on the common bins; logits."""
    ends = np.cumsum(generator.weights / generator.weights.sum())
    points = (np.arange(number) + 0.5) / number
    chosen = np.searchsorted(ends, points).clip(max=len(ends) - 1)
    parts = np.split(generator.logits[chosen].astype(np.float64), np.cumsum(generator.layout.features)[:-1], axis=1)
    spread = [
        np.exp(log_normalise(part)) @ overlap(_as_common(own, common), common)
        for part, own, common in zip(parts, generator.feature_bins, features, strict=True)
    ]
    return np.asarray(np.log(np.maximum(np.concatenate(spread, axis=1), LOWEST)), dtype=np.float32)


def _as_common(own: ColumnBins, common: ColumnBins) -> ColumnBins:
    """An institution's bins with the masses inside them as all institutions together have them."""
    return ColumnBins(own.grid, common.starts, common.masses, own.coarse(common.starts).astype(np.int64))
