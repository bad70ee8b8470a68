"""A generator as the bundle's tensors, and back.

Everything is stored no finer than its own noise makes sense of: probabilities in 8 bits of log scale, statistics in
steps of a quarter of their noise. Reading checks every shape and range, for a bundle may come from an enemy.
"""

from typing import Any

import numpy as np

from distill.bins import ColumnBins
from distill.bundle import Bundle
from distill.errors import BundleError
from distill.generator import Generator
from distill.grid import ColumnGrid, base_grids
from distill.schema import Schema
from distill.statistics import ClassCounts, PairCounts

LOG_RANGE = 12.0  # probabilities below exp(-12) of a segment are stored as exp(-12)
STEP = 0.25  # of a cell's noise stddev
MAX_RECORDS = 100_000
Parts = dict[str, dict[str, np.ndarray]]


def parts_of(
    generator: Generator, counts: ClassCounts, pairs: PairCounts, cluster_shares: np.ndarray
) -> tuple[Parts, dict[str, Any]]:
    """Tensors by group, and the settings that go into the manifest."""
    class_block = np.concatenate(counts.by_column, axis=1)
    pair_step = STEP * pairs.stddev if pairs.pairs else 1.0
    flat = np.concatenate([b.ravel() for b in pairs.shares]) if pairs.pairs else np.zeros(0)
    statistics: dict[str, np.ndarray] = {
        "class_counts": np.rint(class_block / (STEP * counts.stddev)).astype(np.int32),
        "pair_columns": np.array(pairs.pairs, dtype=np.int16).reshape(-1, 2),
        "pair_shares": np.rint(flat / pair_step).astype(np.int32),
        "cluster_shares": cluster_shares.astype(np.float32),
        "bin_pieces": np.array([len(b.starts) for b in generator.bins], dtype=np.int32),
        "bin_starts": np.concatenate([b.starts for b in generator.bins]).astype(np.uint32),
        "bin_masses": np.concatenate([b.masses for b in generator.bins]).astype(np.float32),
        "bin_of_piece": np.concatenate([b.bin_of_piece for b in generator.bins]).astype(np.uint16),
        "shares": np.concatenate(generator.shares).astype(np.float32),
    }
    hidden, hidden_bias, out, out_bias = generator.critic
    heads: dict[str, np.ndarray] = {
        "class_weight": generator.head[0].astype(np.float16),
        "class_bias": generator.head[1].astype(np.float32),
        "critic_hidden": hidden.astype(np.float16),
        "critic_hidden_bias": hidden_bias.astype(np.float16),
        "critic_out": out.astype(np.float16),
        "critic_out_bias": out_bias.astype(np.float32),
    }
    components = {"logits": _quantised(generator), "weights": generator.weights.astype(np.float32)}
    settings = {
        "critic_power": generator.critic_power,
        "class_stddev": counts.stddev,
        "pair_stddev": pairs.stddev,
    }
    return {"statistics": statistics, "heads": heads, "components": components}, settings


def generator_of(bundle: Bundle) -> Generator:
    """The generator that a bundle carries.

    Raises:
        BundleError: A tensor is missing, or its shape or values do not fit the schema.
    """
    try:
        return _read(bundle)
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        reason = f"tensor {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{bundle.path}: the generator inside does not fit its schema ({reason}). Ask for a new bundle."
        ) from None


def _read(bundle: Bundle) -> Generator:
    statistics, heads, components = (bundle.tensors[g] for g in ("statistics", "heads", "components"))
    schema, settings = bundle.schema, bundle.manifest.generator
    bins = _bins(schema, statistics)
    target = next(b for b in bins if b.grid.column.name == schema.target)
    cells = np.arange(len(schema.classes))
    in_order = np.array_equal(target.starts, cells) and np.array_equal(target.bin_of_piece, cells)
    _require(in_order, "the target's bins are not its classes")
    widths = [b.n_bins for b in bins if b.grid.column.name != schema.target]
    width, classes = sum(widths), len(schema.classes)
    logits = components["logits"]
    _require(logits.ndim == 2 and logits.dtype == np.uint8, "logits are not 8-bit rows")
    records, hidden = len(logits), len(heads["critic_hidden_bias"])
    _require(0 < records <= MAX_RECORDS and 0 < hidden <= 4096, "too many or no soft records")
    shapes = {
        "logits": (logits, (records, width)),
        "weights": (components["weights"], (records,)),
        "class_weight": (heads["class_weight"], (classes, width)),
        "class_bias": (heads["class_bias"], (classes,)),
        "critic_hidden": (heads["critic_hidden"], (hidden, width + classes)),
        "critic_hidden_bias": (heads["critic_hidden_bias"], (hidden,)),
        "critic_out": (heads["critic_out"], (hidden,)),
        "critic_out_bias": (heads["critic_out_bias"], (1,)),
        "shares": (statistics["shares"], (width,)),
    }
    for name, (array, shape) in shapes.items():
        _require(array.shape == shape, f"{name} has shape {array.shape}, expected {shape}")
    weights, shares = components["weights"].astype(np.float64), statistics["shares"].astype(np.float64)
    _require(bool((weights >= 0).all()) and weights.sum() > 0, "weights are not shares")
    _require(bool((shares >= 0).all()), "shares are negative")
    power = float(settings["critic_power"])
    _require(0 <= power <= 1, "critic_power is outside 0..1")
    prior = np.asarray(bundle.manifest.class_prior, dtype=np.float64)
    _require(prior.shape == (classes,), "the class prior does not match the classes")
    return Generator(
        schema=schema,
        bins=tuple(bins),
        logits=-logits.astype(np.float32) * np.float32(LOG_RANGE / 255),
        weights=weights / weights.sum(),
        head=(heads["class_weight"].astype(np.float32), heads["class_bias"].astype(np.float32)),
        critic=(
            heads["critic_hidden"].astype(np.float32),
            heads["critic_hidden_bias"].astype(np.float32),
            heads["critic_out"].astype(np.float32),
            heads["critic_out_bias"].astype(np.float32),
        ),
        shares=tuple(np.split(shares, np.cumsum(widths)[:-1])),
        class_prior=prior,
        noisy_rows=bundle.manifest.noisy_rows,
        critic_power=power,
    )


def _quantised(generator: Generator) -> np.ndarray:
    """Log-probabilities relative to each segment's largest, in 255 steps down to -LOG_RANGE; (K, width) uint8."""
    parts = np.split(generator.logits, np.cumsum(generator.layout.features)[:-1], axis=1)
    below = np.concatenate([p - p.max(axis=1, keepdims=True) for p in parts], axis=1)
    return np.asarray(np.rint(np.minimum(-below / LOG_RANGE, 1.0) * 255).astype(np.uint8))


def _bins(schema: Schema, statistics: dict[str, np.ndarray]) -> list[ColumnBins]:
    """Coarse bins of every column, checked against the base grids that the schema fixes."""
    grids, sizes = base_grids(schema), statistics["bin_pieces"].astype(np.int64)
    _require(sizes.shape == (len(grids),) and bool((sizes > 0).all()), "bin_pieces does not fit the columns")
    cuts = np.cumsum(sizes)
    parts = []
    for name in ("bin_starts", "bin_masses", "bin_of_piece"):
        _require(statistics[name].shape == (int(cuts[-1]),), f"{name} has the wrong length")
        parts.append(np.split(statistics[name], cuts[:-1]))
    return [_column_bins(*column) for column in zip(grids, *parts, strict=True)]


def _column_bins(grid: ColumnGrid, starts: np.ndarray, masses: np.ndarray, bin_of_piece: np.ndarray) -> ColumnBins:
    starts, bin_of_piece = starts.astype(np.int64), bin_of_piece.astype(np.int64)
    name = grid.column.name
    _require(
        starts[0] == 0 and bool((np.diff(starts) > 0).all()) and starts[-1] < grid.cells,
        f"bins of {name!r} are out of order",
    )
    _require(bool((masses >= 0).all()), f"bins of {name!r} have negative mass")
    used = np.unique(bin_of_piece)
    _require(bool((used == np.arange(len(used))).all()), f"bins of {name!r} are not numbered in full")
    if grid.column.nullable:
        _require(
            starts[-1] == grid.leaves and (bin_of_piece == bin_of_piece[-1]).sum() == 1,
            f"column {name!r} lacks its missing bin",
        )
    return ColumnBins(grid, starts, masses.astype(np.float64), bin_of_piece)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
