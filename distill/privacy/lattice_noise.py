"""Gaussian noise in whole numbers, many draws at a time: the discrete Gaussian of a large standard deviation.

The law is P(x) proportional to exp(-x**2 / (2 stddev**2)) on all whole numbers. A draw picks one of some thousand strips of equal
width by its weight, then a whole number inside the strip, and keeps it by chance so that the law inside the strip is right
(rejection). Everything but the last chance is whole-number arithmetic on bits of the source.

How near: in ratio within 2**-46 of the exact law up to ten stddevs, from weights and chances in float64. What lies beyond 13
stddevs, and what weights of 2**-128 round away, is below 2**-100 of the draws. At a stddev of 2**20 and more nobody can tell the
discrete from the continuous Gaussian any better (docs/explanation/privacy.md).

Source: the discrete Gaussian, arXiv:2004.00010, definition 1; the choice of a strip: Walker's alias method, doi:10.1145/355744.355749.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEAST_STDDEV, MOST_STDDEV = 2.0**8, 2.0**57  # strips have whole widths; draws fit 64 bits
STRIPS = 1 << 11
REACH = 13  # stddevs
AT_ONCE = 1 << 14  # draws: few enough for the processor's cache
Bits = Callable[[int], np.ndarray]  # number -> so many uniform 64-bit words, uint64


@dataclass(frozen=True, eq=False)
class _Strips:
    """The alias table of one stddev.

    Attributes:
        width_bits: Each strip holds 2**width_bits whole numbers.
        high, low: Of each column, its own chance in 128 bits: the upper and the lower 64.
        other: The strip that takes the rest of the column.
    """

    width_bits: int
    high: np.ndarray
    low: np.ndarray
    other: np.ndarray


def draw(size: int, stddev: float, bits: Bits) -> np.ndarray:
    """`size` independent draws, int64, (size,).

    Args:
        size: How many.
        stddev: Within [`LEAST_STDDEV`, `MOST_STDDEV`].
        bits: The source of all randomness.
    """
    if not LEAST_STDDEV <= stddev <= MOST_STDDEV:
        raise ValueError(f"a stddev of {stddev:g} is outside [{LEAST_STDDEV:g}, {MOST_STDDEV:g}]")
    strips = _strips(stddev)
    out = np.empty(size, dtype=np.int64)
    filled = 0
    while filled < size:
        wanted = min(AT_ONCE, size - filled)
        kept = _kept(strips, stddev, bits, wanted + wanted // 64 + 16)[:wanted]
        out[filled : filled + len(kept)] = kept
        filled += len(kept)
    return out


def _kept(strips: _Strips, stddev: float, bits: Bits, tries: int) -> np.ndarray:
    """The draws that are kept of `tries`, (at most tries,)."""
    word, chance, keep = np.split(bits(3 * tries), 3)
    strip = _strip_of(strips, (word & np.uint64(STRIPS - 1)).astype(np.int64), chance, bits)
    width = strips.width_bits
    first = strip << width
    inside = ((word >> np.uint64(11)) & np.uint64((1 << width) - 1)).astype(np.int64)
    negative = (word >> np.uint64(63)).astype(bool)  # width is at most 52, so this bit is no other's
    lost = inside.astype(np.float64) * (2.0 * first + inside) / (2.0 * stddev**2)
    kept = (keep >> np.uint64(11)).astype(np.float64) < np.exp(-lost) * 2.0**53
    found = first + inside
    kept &= ~(negative & (found == 0))  # zero has one sign, else it would come twice as often
    return np.asarray(np.where(negative, -found, found)[kept])


def _strip_of(strips: _Strips, column: np.ndarray, chance: np.ndarray, bits: Bits) -> np.ndarray:
    """The strip of each draw: its column, or the column's other strip, by 128 bits of which 64 nearly always suffice."""
    own = chance < strips.high[column]
    equal = np.flatnonzero(chance == strips.high[column])
    if equal.size:  # once in 2**64 draws
        own[equal] = bits(equal.size) < strips.low[column[equal]]
    return np.where(own, column, strips.other[column])


@functools.lru_cache(maxsize=64)
def _strips(stddev: float) -> _Strips:
    """Walker's alias table, in whole numbers of 128 bits."""
    width_bits = math.floor(math.log2(stddev / 64))
    used = min(STRIPS, math.ceil(REACH * stddev / 2.0**width_bits))
    weights = [int(math.exp(-((i * 2.0**width_bits / stddev) ** 2) / 2) * 2.0**128) for i in range(used)]
    total = sum(weights)
    whole = 1 << 128
    share = [w * STRIPS * whole // total for w in weights] + [0] * (STRIPS - used)
    share[0] += STRIPS * whole - sum(share)  # what the division left over
    other = list(range(STRIPS))
    small = [i for i, s in enumerate(share) if s < whole]
    large = [i for i, s in enumerate(share) if s >= whole]
    while small and large:
        lesser, greater = small.pop(), large[-1]
        other[lesser] = greater
        share[greater] -= whole - share[lesser]
        if share[greater] < whole:
            small.append(large.pop())
    kept = [min(s, whole - 1) for s in share]  # a full column: its other strip is itself
    mask = (1 << 64) - 1
    return _Strips(
        width_bits,
        np.array([s >> 64 for s in kept], dtype=np.uint64),
        np.array([s & mask for s in kept], dtype=np.uint64),
        np.array(other, dtype=np.int64),
    )
