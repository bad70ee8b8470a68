"""Shrinking noisy contingency tables towards independence, by no more than their noise explains.

The estimators take a block of noisy shares, the block that independence would give, and the noise on one cell. They are
post-processing: they read no private row.
"""

from collections.abc import Sequence

import numpy as np

from distill.synthesis.statistics.counts import PairCounts, spread


def denoise_pairs(
    pairs: list[tuple[int, int]],
    released: list[np.ndarray],
    one_way: Sequence[np.ndarray],
    stddev: float,
    rounding: float = 0.0,
    guesses: Sequence[np.ndarray] | None = None,
) -> PairCounts:
    """Pair counts with all that is read from them, from their release; the same at the institution and for any reader of a bundle.

    Args:
        pairs: Positions among the features.
        released: Noisy shares, one block of shape (bins_i, bins_j) a pair.
        one_way: Released share of each bin of each feature: blocks are shrunk towards independence of these.
        stddev: Noise on one cell.
        rounding: Step that `released` was rounded to, in units of `stddev`; counts as noise.
        guesses: What else may be expected of each block, from elsewhere: a block that is nearer to it than to independence is
            shrunk towards it.
    """
    noise = spread(stddev, rounding)
    independent = [np.outer(one_way[i], one_way[j]) for i, j in pairs]
    signal = [signal_portion(r, p, noise) for r, p in zip(released, independent, strict=True)]
    bases, kept = independent, signal
    if guesses is not None:
        bases = [nearer(r, g, p) for r, g, p in zip(released, guesses, independent, strict=True)]
        kept = [signal_portion(r, b, noise) for r, b in zip(released, bases, strict=True)]
    shares = [shrink_low_rank(r, b, noise) for r, b in zip(released, bases, strict=True)]
    aims = [s + x * (r - s) for s, r, x in zip(shares, released, kept, strict=True)]
    return PairCounts(pairs, shares, stddev, aims, signal, released, rounding)


def nearer(block: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whichever of two guesses is nearer to a noisy block."""
    return one if np.square(block - one).sum() <= np.square(block - other).sum() else other


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


def shrink_classes(block: np.ndarray, stddev: float, guess: np.ndarray | None = None) -> np.ndarray:
    """Shrink counts of shape (classes, bins) towards a guess, by one James-Stein factor.

    The factor is 1 - noise energy / observed energy of what the block adds to the guess, at least 0. Without a guess it is the
    same bin shares in every class: a column that says nothing about the class then says exactly nothing, instead of noise.

    Source: the positive-part estimator of James & Stein 1961; the noise energy is exact for independent cell noise.
    """
    prior = block.sum(axis=1) / block.sum()
    guess = np.outer(prior, block.sum(axis=0)) if guess is None else guess
    added = block - guess
    energy = float(np.square(added).sum())
    spread = np.square(1 - prior).sum() + (len(prior) - 1) * np.square(prior).sum()
    noise = (block.shape[1] - 1) * stddev**2 * spread
    return np.asarray(guess + max(0.0, 1 - noise / energy if energy else 0.0) * added)


def shrink_towards(values: np.ndarray, guess: np.ndarray, variance: float) -> np.ndarray:
    """Shrink noisy values towards a guess of the same sum by one James-Stein factor; `variance` is the noise of one value.

    Source: the positive-part estimator of James & Stein 1961.
    """
    energy = float(np.square(values - guess).sum())
    kept = max(0.0, 1 - (values.size - 1) * variance / energy) if energy else 0.0
    return np.asarray(guess + kept * (values - guess))
