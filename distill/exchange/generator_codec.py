"""A generator as the bundle's tensors, and back.

Nothing is stored finer than its own noise makes sense of: statistics in steps of a fraction of their noise, pairs as what
they add to independence, probabilities and head weights in at most 8 bits. How much of it travels is the level (`levels`).
Reading checks every shape and range, for a bundle may come from an enemy.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from distill.common.checks import require
from distill.data.bins import ColumnBins
from distill.data.grids import ColumnGrid, base_grids
from distill.data.schema import MAX_CATEGORIES, MAX_TARGET_BINS, Schema
from distill.errors import BundleError
from distill.exchange.levels import LEVELS, Level
from distill.exchange.manifest import Manifest
from distill.synthesis.generator.generator import Critic, Generator
from distill.synthesis.generator.thinning import thin
from distill.synthesis.statistics.counts import ClassCounts, PairCounts
from distill.synthesis.statistics.denoising import denoise_pairs

CLASS_STEP = 0.25  # of a class cell's noise stddev
MAX_RECORDS = 100_000
MOST_ROUNDING = 4.0  # beyond it what is left of a noisy cell says little
MOST_SHARE = 1e6  # of the rows, in a cell that is mostly noise of a few rows
MOST_BINS_OF_PAIR = MAX_CATEGORIES + 2  # missing and other included; a block is decomposed, which takes time
Parts = dict[str, dict[str, np.ndarray]]
T = TypeVar("T")


class Contents(Protocol):
    """What is read of a verified bundle (see `distill.exchange.bundle.Bundle`)."""

    @property
    def path(self) -> Path:
        """The file, for errors."""

    @property
    def schema(self) -> Schema:
        """The public schema."""

    @property
    def manifest(self) -> Manifest:
        """What was released."""

    @property
    def tensors(self) -> Parts:
        """By group and name."""


def parts_of(
    generator: Generator,
    counts: ClassCounts,
    pairs: PairCounts,
    cluster_shares: np.ndarray,
    level: Level,
    rng: np.random.Generator,
) -> tuple[Parts, dict[str, Any]]:
    """Tensors by group, and the settings that go into the manifest; `rng` thins the records where the level asks."""
    kept = LEVELS[level]
    if level == "default":
        generator = thin(generator, kept.records_for(generator.layout.feature_width), rng)
    class_counts = np.rint(np.concatenate(counts.by_column, axis=1) / (CLASS_STEP * counts.stddev)).astype(np.int32)
    statistics = {"class_counts": class_counts, **bin_tensors(generator.bins)}
    if kept.pair_step:
        statistics["cluster_shares"] = cluster_shares.astype(np.float32)
        statistics |= _pair_tensors(pairs, _shares(class_counts, generator.layout.features), kept.pair_step)
    heads = class_head_tensors(generator.head)
    if kept.critic and generator.critic is not None:
        heads |= _critic(generator.critic)
    parts = {"statistics": statistics, "heads": heads}
    if kept.probability_steps:
        probabilities = np.rint(record_probabilities(generator) * kept.probability_steps).astype(np.uint8)
        parts["components"] = {"probabilities": probabilities, "weights": generator.weights.astype(np.float32)}
    settings = {
        "critic_power": generator.critic_power,
        "class_stddev": counts.stddev,
        "pair_stddev": pairs.stddev,
        "pair_step": kept.pair_step,
        "probability_steps": kept.probability_steps,
    }
    return parts, settings


def generator_of(bundle: Contents) -> Generator:
    """The generator that a bundle carries, whatever its level.

    Raises:
        BundleError: A tensor is missing, or its shape or values do not fit the schema.
    """
    return _guarded(bundle, _read_generator)


def statistics_of(bundle: Contents) -> tuple[ClassCounts, PairCounts, np.ndarray]:
    """Class counts, pair counts and cluster shares that a bundle carries; the latter two need a level above compact.

    Raises:
        BundleError: A tensor is missing, or its shape or values do not fit the schema.
    """
    return _guarded(bundle, _read_statistics)


def _guarded(bundle: Contents, read: Callable[[Contents], T]) -> T:
    """What `read` makes of a bundle; what does not fit becomes a BundleError."""
    try:
        return read(bundle)
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        reason = f"tensor {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{bundle.path}: the generator inside does not fit its schema ({reason}). Ask for a new bundle."
        ) from None


def _read_generator(bundle: Contents) -> Generator:
    schema, heads = bundle.schema, bundle.tensors["heads"]
    bins = read_bins(schema, bundle.tensors["statistics"])
    widths, classes = _widths(bundle, bins), class_count(schema, bins)
    counts = bundle.tensors["statistics"]["class_counts"]
    shares = _shares(counts, widths)
    prior = np.asarray(bundle.manifest.class_prior, dtype=np.float64)
    require(prior.shape == (classes,), "the class prior does not match the classes")
    power = float(bundle.manifest.generator["critic_power"])
    require(0 <= power <= 1, "critic_power is outside 0..1")
    logits, weights = _records(bundle, widths, prior, shares)
    return Generator(
        schema=schema,
        bins=tuple(bins),
        logits=logits,
        weights=weights,
        head=read_class_head(heads, classes, sum(widths)),
        critic=_read_critic(heads, sum(widths) + classes) if "critic_hidden" in heads else None,
        shares=tuple(shares),
        class_prior=prior,
        noisy_rows=bundle.manifest.noisy_rows,
        critic_power=power,
        count_noise=_count_noise(bundle),
    )


def _read_statistics(bundle: Contents) -> tuple[ClassCounts, PairCounts, np.ndarray]:
    tensors, settings = bundle.tensors["statistics"], bundle.manifest.generator
    widths = _widths(bundle, read_bins(bundle.schema, tensors))
    shares = _shares(tensors["class_counts"], widths)
    noise = {name: float(settings[name]) for name in ("class_stddev", "pair_stddev", "pair_step")}
    require(all(np.isfinite(v) and v >= 0 for v in noise.values()), "a noise scale is not a positive number")
    cells = np.split(tensors["class_counts"] * (CLASS_STEP * noise["class_stddev"]), np.cumsum(widths)[:-1], axis=1)
    counts = ClassCounts(cells[0].sum(axis=1), cells, noise["class_stddev"])
    columns = tensors["pair_columns"]
    require(columns.ndim == 2 and columns.shape[1] == 2 and columns.dtype.kind == "i", "pair_columns are not pairs")
    first, second = columns.T
    require(bool(((first >= 0) & (first < second) & (second < len(widths))).all()), "pair_columns names no columns")
    pairs = [(int(i), int(j)) for i, j in columns]
    require(len(set(pairs)) == len(pairs), "pair_columns names a pair twice")
    require(not pairs or 0 < noise["pair_step"] <= MOST_ROUNDING, "pair_step is not a step of the noise")
    require(not pairs or 0 < noise["pair_stddev"] <= MOST_SHARE, "pair_stddev is not the noise of a share")
    require(not pairs or max(widths) <= MOST_BINS_OF_PAIR, "a feature of a pair has too many bins")
    sizes = [widths[i] * widths[j] for i, j in pairs]
    added = shaped(tensors, "pair_additions", (sum(sizes),), "i") * (noise["pair_step"] * noise["pair_stddev"])
    require(bool((np.abs(added) <= MOST_SHARE).all()), "pair_additions are no shares")
    parts = np.split(added, np.cumsum(sizes)[:-1]) if pairs else []
    blocks = [
        np.outer(shares[i], shares[j]) + part.reshape(widths[i], widths[j])
        for (i, j), part in zip(pairs, parts, strict=True)
    ]
    clusters = shaped(tensors, "cluster_shares", tensors["cluster_shares"].shape[:1], "f").astype(np.float64)
    return counts, denoise_pairs(pairs, blocks, shares, noise["pair_stddev"], noise["pair_step"]), clusters


def _widths(bundle: Contents, bins: list[ColumnBins]) -> list[int]:
    """Coarse bins of each feature; the class counts must fit them."""
    schema = bundle.schema
    widths = [b.n_bins for b in bins if b.grid.column.name != schema.target]
    counts = shaped(bundle.tensors["statistics"], "class_counts", (class_count(schema, bins), sum(widths)), "i")
    first = counts[:, : widths[0]].astype(np.float64)
    require(bool((counts >= 0).all()) and first.sum() > 0, "class_counts are negative or all zero")
    return widths


def class_count(schema: Schema, bins: list[ColumnBins]) -> int:
    """How many classes there are; the bins of a target with classes must be these, in order."""
    if schema.target_place is None:
        return 1
    target = bins[schema.target_place]
    if schema.task == "number":
        require(bool((np.diff(target.bin_of_piece) >= 0).all()), "the target's bins are not in order")
        require(target.n_bins <= MAX_TARGET_BINS, "the target has too many bins")
        return target.n_bins
    cells = np.arange(len(schema.classes))
    in_order = np.array_equal(target.starts, cells) and np.array_equal(target.bin_of_piece, cells)
    require(in_order, "the target's bins are not its classes")
    return len(cells)


def _shares(class_counts: np.ndarray, widths: "list[int] | tuple[int, ...]") -> list[np.ndarray]:
    """Share of each bin of each feature, classes together, from stored class counts (classes, width)."""
    blocks = np.split(class_counts.sum(axis=0, dtype=np.float64), np.cumsum(widths)[:-1])
    return [block / max(float(block.sum()), 1.0) for block in blocks]


def _records(
    bundle: Contents, widths: list[int], prior: np.ndarray, shares: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Soft records and their weights; without stored ones, one record a class from the class histograms."""
    components, settings = bundle.tensors["components"], bundle.manifest.generator
    if not components:
        rows = bundle.tensors["statistics"]["class_counts"] * (CLASS_STEP * _count_noise(bundle))
        return np.log(rows + 0.5).astype(np.float32), prior / prior.sum()
    steps = settings["probability_steps"]
    stored = components["probabilities"]
    require(stored.ndim == 2 and stored.dtype == np.uint8, "probabilities are not 8-bit rows")
    require(0 < len(stored) <= MAX_RECORDS, "too many or no soft records")
    require(stored.shape[1] == sum(widths), "probabilities do not fit the bins")
    require(type(steps) is int and 1 <= steps <= 255, "probability_steps is not within 1..255")
    weights = shaped(components, "weights", (len(stored),), "f").astype(np.float64)
    require(bool((weights >= 0).all()) and weights.sum() > 0, "weights are not shares")
    # What was rounded to zero is not impossible: a quarter of a step, less for a bin that is rarer than a step anyway.
    floor = 0.25 * np.minimum(np.concatenate(shares) * steps, 1.0)
    logits = np.log(np.maximum(stored + floor, 1e-6)).astype(np.float32)
    return logits, weights / weights.sum()


def _count_noise(bundle: Contents) -> float:
    """Stddev of the noise on one class count, in rows."""
    stddev = float(bundle.manifest.generator["class_stddev"])
    require(0 < stddev < float("inf"), "class_stddev is not a positive number")
    return stddev


def bin_tensors(bins: tuple[ColumnBins, ...]) -> dict[str, np.ndarray]:
    """Pieces of all columns; a piece's mass as a 255th of the largest in its bin, since it only divides its bin."""
    masses = []
    for b in bins:
        largest = np.zeros(b.n_bins)
        np.maximum.at(largest, b.bin_of_piece, b.masses)
        masses.append(np.rint(255 * b.masses / np.maximum(largest[b.bin_of_piece], 1e-300)))
    return {
        "bin_pieces": np.array([len(b.starts) for b in bins], dtype=np.int32),
        "bin_starts": np.concatenate([b.starts for b in bins]).astype(np.uint32),
        "bin_masses": np.concatenate(masses).astype(np.uint8),
        "bin_of_piece": np.concatenate([b.bin_of_piece for b in bins]).astype(np.uint16),
    }


def _pair_tensors(pairs: PairCounts, shares: list[np.ndarray], step: float) -> dict[str, np.ndarray]:
    """What each pair, as it was released, adds to independence of `shares`, in steps of its noise."""
    unit = step * pairs.stddev if pairs.pairs else 1.0
    blocks = zip(pairs.pairs, pairs.released or pairs.shares, strict=True)
    added = [(b - np.outer(shares[i], shares[j])).ravel() for (i, j), b in blocks]
    flat = np.rint(np.concatenate([*added, np.zeros(0)]) / unit)
    wide = next(t for t in (np.int8, np.int16, np.int32) if np.abs(flat).max(initial=0) <= np.iinfo(t).max)
    return {
        "pair_columns": np.array(pairs.pairs, dtype=np.int16).reshape(-1, 2),
        "pair_additions": flat.astype(wide),
    }


def class_head_tensors(head: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights in steps of a 127th of the largest."""
    step = max(float(np.abs(head[0]).max(initial=0.0)), 1e-6) / 127
    return {
        "class_weight": np.rint(head[0] / step).astype(np.int8),
        "class_weight_step": np.array([step], dtype=np.float32),
        "class_bias": head[1].astype(np.float32),
    }


def read_class_head(heads: dict[str, np.ndarray], classes: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What `class_head_tensors` stored: weight (classes, width) and bias (classes,). Raises ValueError, KeyError."""
    step = shaped(heads, "class_weight_step", (1,), "f")
    weight = shaped(heads, "class_weight", (classes, width), "i") * step
    return weight.astype(np.float32), shaped(heads, "class_bias", (classes,), "f").astype(np.float32)


def _critic(critic: Critic) -> dict[str, np.ndarray]:
    names = ("critic_hidden", "critic_hidden_bias", "critic_out", "critic_out_bias")
    return {name: array.astype(np.float16) for name, array in zip(names, critic, strict=True)}


def _read_critic(heads: dict[str, np.ndarray], width: int) -> Critic:
    hidden = len(heads["critic_hidden_bias"])
    require(0 < hidden <= 4096, "the critic is too large or empty")
    shapes = {
        "critic_hidden": (hidden, width),
        "critic_hidden_bias": (hidden,),
        "critic_out": (hidden,),
        "critic_out_bias": (1,),
    }
    one, two, three, four = (shaped(heads, name, shape, "f").astype(np.float32) for name, shape in shapes.items())
    return one, two, three, four


def record_probabilities(generator: Generator) -> np.ndarray:
    """Of each soft record, normalised within each feature; (K, feature_width)."""
    parts = np.split(generator.logits.astype(np.float64), np.cumsum(generator.layout.features)[:-1], axis=1)
    raised = [np.exp(p - p.max(axis=1, keepdims=True)) for p in parts]
    return np.concatenate([r / r.sum(axis=1, keepdims=True) for r in raised], axis=1)


def read_bins(schema: Schema, statistics: dict[str, np.ndarray]) -> list[ColumnBins]:
    """Coarse bins of every column, checked against the base grids that the schema fixes."""
    grids, sizes = base_grids(schema), statistics["bin_pieces"].astype(np.int64)
    require(sizes.shape == (len(grids),) and bool((sizes > 0).all()), "bin_pieces does not fit the columns")
    cuts = np.cumsum(sizes)
    parts = []
    for name in ("bin_starts", "bin_masses", "bin_of_piece"):
        require(statistics[name].shape == (int(cuts[-1]),), f"{name} has the wrong length")
        parts.append(np.split(statistics[name], cuts[:-1]))
    return [_column_bins(*column) for column in zip(grids, *parts, strict=True)]


def _column_bins(grid: ColumnGrid, starts: np.ndarray, masses: np.ndarray, bin_of_piece: np.ndarray) -> ColumnBins:
    starts, bin_of_piece = starts.astype(np.int64), bin_of_piece.astype(np.int64)
    name = grid.column.name
    require(
        starts[0] == 0 and bool((np.diff(starts) > 0).all()) and starts[-1] < grid.cells,
        f"bins of {name!r} are out of order",
    )
    require(bool((masses >= 0).all()), f"bins of {name!r} have negative mass")
    used = np.unique(bin_of_piece)
    require(bool((used == np.arange(len(used))).all()), f"bins of {name!r} are not numbered in full")
    if grid.column.nullable:
        require(
            starts[-1] == grid.leaves and (bin_of_piece == bin_of_piece[-1]).sum() == 1,
            f"column {name!r} lacks its missing bin",
        )
    return ColumnBins(grid, starts, masses.astype(np.float64), bin_of_piece)


def shaped(group: dict[str, np.ndarray], name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """The tensor called `name`, of this shape and of a type of this kind ("f" or "i")."""
    array = group[name]
    require(array.shape == shape, f"{name} has shape {array.shape}, expected {shape}")
    require(array.dtype.kind == kind, f"{name} has type {array.dtype}")
    return array
