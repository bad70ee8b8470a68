"""Draws in bulk straight from the operating system's cryptographic source, for everything that a privacy guarantee rests on.

No generator stands between: there is no state to recover and no seed to guess.
"""

import os

import numpy as np
from scipy.special import ndtri


class SystemRandom:
    """The operating system's source, with the few draws of a numpy generator that a noise source needs."""

    def uniform(self, size: int) -> np.ndarray:
        """`size` numbers uniform on the odd multiples of 2**-53 in (0, 1), float64."""
        bits = np.frombuffer(os.urandom(8 * size), dtype=np.uint64) >> np.uint64(12)
        return (bits.astype(np.float64) + 0.5) * 2.0**-52

    def standard_normal(self, size: int) -> np.ndarray:
        """`size` normal numbers by inversion, float32; none lies beyond 8.3, which cuts off 3e-16 of the law."""
        return np.asarray(ndtri(self.uniform(size)), dtype=np.float32)

    def permutation(self, size: int) -> np.ndarray:
        """The integers below `size` in a random order, by sorting 64 random bits each."""
        return np.argsort(np.frombuffer(os.urandom(8 * size), dtype=np.uint64), kind="stable")

    def poisson_sample(self, size: int, rate: float) -> np.ndarray:
        """Indices of a Poisson sample in order: each of `size` records joins on its own with chance `rate`.

        Joins of independent coins are geometric steps apart; so a small sample of many records takes few draws.
        """
        if rate >= 1:
            return np.arange(size)
        found, last = [], -1
        while last < size:
            many = int((size - last) * rate * 1.1) + 64
            steps = np.floor(np.log(self.uniform(many)) / np.log1p(-rate)).clip(0, size)
            places = last + np.cumsum(steps.astype(np.int64) + 1)
            found.append(places[places < size])
            last = int(places[-1])
        return np.concatenate(found)


class SeededRandom:
    """The same draws from a seed that is known, for rehearsals: repeatable and not private."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def standard_normal(self, size: int) -> np.ndarray:
        """As of `SystemRandom`."""
        return self._rng.standard_normal(size, dtype=np.float32)

    def permutation(self, size: int) -> np.ndarray:
        """As of `SystemRandom`."""
        return self._rng.permutation(size)

    def poisson_sample(self, size: int, rate: float) -> np.ndarray:
        """As of `SystemRandom`: a binomial number of distinct records, chosen uniformly, is the same law."""
        return self._rng.choice(size, int(self._rng.binomial(size, rate)), replace=False, shuffle=False)
