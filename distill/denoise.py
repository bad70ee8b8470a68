"""Shrinking noisy contingency tables towards independence, by no more than their noise explains.

The estimators take a block of noisy shares, the block that independence would give, and the noise on one cell. They are
post-processing: they read no private row.
"""

from collections.abc import Sequence

import numpy as np

from distill.statistics import PairCounts, spread


def denoise_pairs(
    pairs: list[tuple[int, int]],
    released: list[np.ndarray],
    one_way: Sequence[np.ndarray],
    stddev: float,
    rounding: float = 0.0,
) -> PairCounts:
    """Pair counts with all that is read from them, from their release; the same at the institution and for any reader of a bundle.

    Args:
        pairs: Positions among the features.
        released: Noisy shares, one block of shape (bins_i, bins_j) a pair.
        one_way: Released share of each bin of each feature: blocks are shrunk towards independence of these.
        stddev: Noise on one cell.
        rounding: Step that `released` was rounded to, in units of `stddev`; counts as noise.
    """
    noise = spread(stddev, rounding)
    independent = [np.outer(one_way[i], one_way[j]) for i, j in pairs]
    shares = [shrink_low_rank(r, p, noise) for r, p in zip(released, independent, strict=True)]
    signal = [signal_portion(r, p, noise) for r, p in zip(released, independent, strict=True)]
    aims = [s + x * (r - s) for s, r, x in zip(shares, released, signal, strict=True)]
    return PairCounts(pairs, shares, stddev, aims, signal, released, rounding)


def shrink_low_rank(block: np.ndarray, independent: np.ndarray, stddev: float) -> np.ndarray:
    """Shrink the singular values of what `block` adds to `independent`; all shapes (m, k).

    Source: the optimal shrinker for Frobenius loss under white noise, Gavish & Donoho, arXiv:1405.7511, equation 7.
    """
    left, values, right = np.linalg.svd(block - independent, full_matrices=False)
    scale = stddev * np.sqrt(max(block.shape))
    beta = min(block.shape) / max(block.shape)
    edge = 1 + np.sqrt(beta)  # singular values below it are what noise alone has
    y = np.maximum(values / scale, edge)
    shrunk = np.sqrt(np.maximum((y**2 - beta - 1) ** 2 - 4 * beta, 0.0)) / y
    return np.asarray(independent + (left * (shrunk * scale)) @ right)


def signal_portion(block: np.ndarray, independent: np.ndarray, stddev: float) -> float:
    """Portion of what `block` adds to `independent` that is not explained by its noise: 1 - noise / observed energy, at least 0.

    Source: the positive-part factor of James & Stein 1961.
    """
    energy = float(np.square(block - independent).sum())
    return max(0.0, 1 - block.size * stddev**2 / energy) if energy else 0.0


def shrink_classes(block: np.ndarray, stddev: float) -> np.ndarray:
    """Shrink counts of shape (classes, bins) towards the same bin shares in every class, by one James-Stein factor.

    The factor is 1 - noise energy / observed energy of what the block adds to independence, at least 0. A column that says
    nothing about the class then says exactly nothing, instead of noise.

    Source: the positive-part estimator of James & Stein 1961; the noise energy is exact for independent cell noise.
    """
    prior = block.sum(axis=1) / block.sum()
    independent = np.outer(prior, block.sum(axis=0))
    added = block - independent
    energy = float(np.square(added).sum())
    spread = np.square(1 - prior).sum() + (len(prior) - 1) * np.square(prior).sum()
    noise = (block.shape[1] - 1) * stddev**2 * spread
    return np.asarray(independent + max(0.0, 1 - noise / energy if energy else 0.0) * added)
