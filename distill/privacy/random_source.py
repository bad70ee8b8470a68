"""Draws in bulk from the operating system's cryptographic source, for everything that a privacy guarantee rests on.

Every call takes a fresh key of 256 bits from the system, expands it by ChaCha20 (RFC 8439, as the system itself does inside) and
forgets it: between two calls there is no state to recover, and there is no seed to guess.
"""

import os
from typing import Protocol

import numpy as np

from distill.privacy import lattice_noise

_KEY_BYTES, _NONCE = 32, bytes(16)
FARTHEST = 7.0  # expected gaps that one draw may span: its chance is then never finer than the bits that it is made of


class Draws(Protocol):
    """The draws that a noise source needs."""

    def words(self, size: int) -> np.ndarray:
        """`size` uniform words of 64 bits, uint64."""

    def lattice_normal(self, size: int, stddev: float) -> np.ndarray:
        """`size` draws of the discrete Gaussian, int64; see `lattice_noise.draw`."""

    def permutation(self, size: int) -> np.ndarray:
        """The integers below `size` in a random order."""

    def poisson_sample(self, size: int, rate: float) -> np.ndarray:
        """Indices of a Poisson sample in order: each of `size` records joins on its own with chance `rate`."""


class SystemRandom:
    """The operating system's source, with the few draws that a noise source needs."""

    def words(self, size: int) -> np.ndarray:
        """`size` uniform words of 64 bits, uint64."""
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        stream = Cipher(algorithms.ChaCha20(os.urandom(_KEY_BYTES), _NONCE), None).encryptor()
        return np.frombuffer(stream.update(bytes(8 * size)), dtype=np.uint64)

    def uniform(self, size: int) -> np.ndarray:
        """`size` numbers uniform on the odd multiples of 2**-53 in (0, 1), float64."""
        bits = self.words(size) >> np.uint64(12)
        return (bits.astype(np.float64) + 0.5) * 2.0**-52

    def lattice_normal(self, size: int, stddev: float) -> np.ndarray:
        """`size` draws of the discrete Gaussian, int64; see `lattice_noise.draw`."""
        return lattice_noise.draw(size, stddev, self.words)

    def permutation(self, size: int) -> np.ndarray:
        """The integers below `size` in a random order, by sorting 64 random bits each."""
        return np.argsort(self.words(size), kind="stable")

    def poisson_sample(self, size: int, rate: float) -> np.ndarray:
        """Indices of a Poisson sample in order: each of `size` records joins on its own with chance `rate`.

        Joins of independent coins are geometric steps apart; so a small sample of many records takes few draws. A step
        longer than `FARTHEST` mean steps ends there, without a join, and the next begins: a geometric step has no memory.
        """
        if rate >= 1:
            return np.arange(size)
        far = int(min(FARTHEST / rate, 2.0**40)) + 1
        found, last = [], -1
        while last < size:
            many = int((size - last) * rate * 1.1) + 64
            steps = np.floor(np.log(self.uniform(many)) / np.log1p(-rate)) + 1
            joins = steps <= far
            places = last + np.cumsum(np.minimum(steps, far).astype(np.int64))
            found.append(places[joins & (places < size)])
            last = int(places[-1])
        return np.concatenate(found)


class SeededRandom:
    """The same draws from a seed that is known, for rehearsals: repeatable and not private."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def words(self, size: int) -> np.ndarray:
        """As of `SystemRandom`."""
        return self._rng.integers(0, 2**64, size, dtype=np.uint64)

    def lattice_normal(self, size: int, stddev: float) -> np.ndarray:
        """As of `SystemRandom`."""
        return lattice_noise.draw(size, stddev, self.words)

    def permutation(self, size: int) -> np.ndarray:
        """As of `SystemRandom`."""
        return self._rng.permutation(size)

    def poisson_sample(self, size: int, rate: float) -> np.ndarray:
        """As of `SystemRandom`: a binomial number of distinct records, chosen uniformly, is the same law."""
        return self._rng.choice(size, int(self._rng.binomial(size, rate)), replace=False, shuffle=False)
