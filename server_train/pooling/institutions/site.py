"""The statistics of one institution that the joint components are fitted to."""

from dataclasses import dataclass

from distill.exchange.bundle import Bundle
from distill.exchange.generator_codec import statistics_of
from distill.synthesis.generator.generator import Generator
from distill.synthesis.statistics.counts import ClassCounts, PairCounts


@dataclass(frozen=True, eq=False)
class Site:
    """The released statistics of one institution.

    Attributes:
        generator: The generator of its bundle.
        counts: Class histograms as released.
        pairs: Pairs of columns as released; at least one.
    """

    generator: Generator
    counts: ClassCounts
    pairs: PairCounts


def site_of(bundle: Bundle, generator: object) -> Site | None:
    """Return the statistics of a bundle, or None where no pairs travelled. Raises BundleError on nonsense."""
    if not isinstance(generator, Generator) or "pair_columns" not in bundle.tensors["statistics"]:
        return None
    counts, pairs, _ = statistics_of(bundle)
    return Site(generator, counts, pairs) if pairs.pairs else None
