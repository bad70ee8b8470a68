"""Whether a bundle's statistics bear each other out: what no noise explains is a contradiction, and the bundle counts for nothing.

One release's statistics are several views of the same rows, each with noise of its own: a row count, the classes, one
histogram a column and class, one block a pair of columns. The institution's software makes them agree up to noise and to the
rounding of what travels, so a gap of more than `MOST_STDDEVS` of that is no chance: someone changed a part and not the rest.
The noise itself is not the bundle's word alone; the ledger says what was planned, and for how many rows. A report that was made up
as a whole is coherent: that is for `review`. Post-processing of the bundle.
"""

from collections.abc import Iterator

import numpy as np

from distill.exchange.bundle import Bundle
from distill.exchange.generator_codec import CLASS_STEP, statistics_of
from distill.privacy.events import sampling_rate
from distill.synthesis.generator.generator import Generator
from distill.synthesis.statistics.counts import PairCounts

MOST_STDDEVS = 8.0  # a fair draw passes that once in 1e15
PLANNED = 0.01  # relative: by how much the noise of a share may differ from the planned noise over the noisy row count
PLANNED_TIMES = 2.0  # by how much the rows that training was planned for may differ from those that are claimed


def fault_of(bundle: Bundle, generator: object) -> str | None:
    """How a bundle contradicts itself, in plain words; None: it does not.

    Args:
        bundle: Verified; `generator` was read from it.
        generator: Only `distill.synthesis.generator.generator.Generator` comes with statistics to compare.

    Raises:
        BundleError: A statistic is missing or does not fit the schema.
    """
    if not isinstance(generator, Generator):
        return None
    return next(_faults(bundle, generator), None)


def _faults(bundle: Bundle, generator: Generator) -> Iterator[str]:
    """All contradictions, the cheapest to find first."""
    rows, noise = max(float(generator.noisy_rows), 1.0), generator.count_noise
    planned = {e.name: e.cell_stddev for e in bundle.manifest.privacy.events}
    if not np.isclose(noise, planned.get("encode.classes", 0.0), rtol=1e-6):
        yield f"it states a noise of {noise:.1f} on its class counts, and its ledger planned another"
    yield from _count_faults(bundle, generator, rows)
    yield from _plan_faults(bundle, rows, MOST_STDDEVS * planned.get("size", 0.0))
    if "pair_columns" in bundle.tensors["statistics"]:
        _, pairs, _ = statistics_of(bundle)
        if pairs.pairs and not np.isclose(pairs.stddev * rows, planned.get("relate.pairs", 0.0), rtol=PLANNED):
            yield f"it states a noise of {pairs.stddev * rows:.1f} on its pair counts, and its ledger planned another"
        yield from _pair_faults(pairs, generator, rows)


def _plan_faults(bundle: Bundle, rows: float, chance: float) -> Iterator[str]:
    """Training was planned for about as many rows: for the first row count, which may be off by `chance` rows."""
    least, most = (sampling_rate(max(round(n), 1)) for n in (rows + chance, rows - chance))
    rates = [e.sampling_rate for e in bundle.manifest.privacy.events if e.mechanism == "poisson_gaussian"]
    if any(not least / PLANNED_TIMES <= rate <= most * PLANNED_TIMES for rate in rates):
        yield f"it states {rows:,.0f} rows, and the sampling that its ledger planned is that of another number of rows"


def _count_faults(bundle: Bundle, generator: Generator, rows: float) -> Iterator[str]:
    """Every column's histogram adds up to the classes that the manifest states, and so to the row count."""
    widths = np.array(generator.layout.features)
    counts = bundle.tensors["statistics"]["class_counts"].astype(np.float64) * (CLASS_STEP * generator.count_noise)
    found = np.add.reduceat(counts, np.cumsum(widths) - widths, axis=1)  # (classes, features)
    # Rounding moves a cell by half a step at most, all of them the same way at worst.
    most = generator.count_noise * (MOST_STDDEVS * np.sqrt(widths) + CLASS_STEP / 2 * widths) + 1.0
    gap = np.abs(found - rows * generator.class_prior[:, None]) / most
    worst = int(gap.max(axis=0).argmax())
    if gap.max() > 1:
        name = generator.feature_bins[worst].grid.column.name
        yield (
            f"its counts by {name!r} add up to {found[:, worst].sum():,.0f} rows, and it states {rows:,.0f} "
            f"(class by class they are up to {gap.max() * MOST_STDDEVS:,.0f} stddevs of their noise apart)"
        )


def _pair_faults(pairs: PairCounts, generator: Generator, rows: float) -> Iterator[str]:
    """Every pair's block has the margins of its two columns, and no cell is below zero or above its margins."""
    blocks = pairs.shares if pairs.released is None else pairs.released
    one_way = generator.count_noise * np.sqrt(len(generator.class_prior)) / rows
    for (i, j), block in zip(pairs.pairs, blocks, strict=True):
        first, second = generator.shares[i], generator.shares[j]
        gaps = [
            np.abs(block.sum(axis=1) - first).max() / (pairs.spread * np.sqrt(block.shape[1]) + one_way),
            np.abs(block.sum(axis=0) - second).max() / (pairs.spread * np.sqrt(block.shape[0]) + one_way),
            -block.min() / pairs.spread,
            (block - np.minimum(first[:, None], second)).max() / (pairs.spread + one_way),
        ]
        if max(gaps) > MOST_STDDEVS:
            names = [generator.feature_bins[k].grid.column.name for k in (i, j)]
            yield (
                f"its counts by {names[0]!r} and {names[1]!r} together do not fit those by each alone "
                f"({max(gaps):,.0f} stddevs of their noise apart)"
            )
            return
