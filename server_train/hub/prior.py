"""The global prior that a hub writes for its institutions' next releases: one joint model of all of them, signed.

The components that all institutions share (see `representation`), each institution's weights of them with its share of the rows;
where none could be fitted, all institutions' soft records side by side on the common refinement of their bins. The class head says
what the pool's soft labels say, the correction of its class heads included. Post-processing of the bundles: no budget.
`distill.exchange.prior` has the file, and what it says of privacy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from distill.common.keys import SigningKey
from distill.data.bins import ColumnBins
from distill.errors import ConfigError
from distill.exchange.prior import write_prior
from distill.synthesis.generator.class_head import fit_head
from distill.synthesis.generator.generator import Generator, encode_rows
from distill.synthesis.generator.one_hot import Layout
from server_train.intake.combined_budget import costs
from server_train.intake.intake import Intake
from server_train.pooling.mixture.common_bins import Marginals, common_bins, records_on
from server_train.pooling.pool import Pool
from server_train.pooling.weighing.weights import Contributor

RECORDS, CELLS = 1500, 10_000_000  # soft records in all, about, and what they hold together at most
LEAST_RECORDS = 20  # of an institution with few rows, where there is room
HEAD_ROWS = 40_000


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
            joint_model(pool),
            bundles=[r.bundle.digest for r in intake.received],
            disjoint=disjoint,
            overlapping=overlapping,
            rehearsal=any(r.manifest.rehearsal for r in intake.received),
            key=self.key,
        )
        return self.path


def joint_model(pool: Pool) -> Generator:
    """Return one generator for all institutions of a pool together."""
    features, logits, weights = _components(pool)
    shares = tuple(np.bincount(f.bin_of_piece, f.masses) / f.masses.sum() for f in features)
    layout = Layout(tuple(len(s) for s in shares), len(pool.prior))
    codes = encode_rows(pool.frame.iloc[:HEAD_ROWS], features)
    bins = list(features)
    place = pool.schema.target_place
    if place is not None:
        bins.insert(place, _generator(pool.contributors[0]).bins[place] if pool.bins is None else pool.bins)
    return Generator(
        schema=pool.schema,
        bins=tuple(bins),
        logits=logits,
        weights=weights,
        head=fit_head(layout, codes, pool.soft_labels[:HEAD_ROWS]),
        critic=None,
        shares=shares,
        class_prior=pool.prior,
        noisy_rows=round(sum(m.weight * m.counted_rows for m in pool.members)),
    )


def _components(pool: Pool) -> tuple[tuple[ColumnBins, ...], np.ndarray, np.ndarray]:
    """Common bins of each feature, soft records on them (logits), and their weights: the joint components, if there are any."""
    counted = [(_generator(c), c.contribution.row_share) for c in pool.contributors if c.contribution.row_share > 0]
    if pool.joint is not None:
        rows = np.array([sum(n for g, n in counted if g is site.generator) for site in pool.joint.sites])
        return pool.joint.common.features, pool.joint.logits, rows / rows.sum() @ pool.joint.mixing
    common = common_bins([Marginals(g.feature_bins, g.shares, share) for g, share in counted])
    most = min(RECORDS, CELLS // sum(common.widths))
    least = max(1, min(LEAST_RECORDS, most // len(counted)))
    logits, weights = [], []
    for number, (generator, share) in enumerate(counted):
        records = max(least, round(most * share))
        logits.append(records_on(common, number, generator, records)[1])
        weights.append(np.full(records, share / records))
    return common.features, np.concatenate(logits).astype(np.float32), np.concatenate(weights)


def _generator(contributor: Contributor) -> Generator:
    """The generator of an institution's bundle, with its soft records."""
    return cast(Generator, contributor.institution.generator)
