"""Where noise and record sampling come from: one object, private by default.

Every draw that a privacy guarantee rests on goes through a `NoiseSource`. The private one uses OpenDP's exact
integer samplers (fed by the operating system) for counts, and the operating system's source for Poisson sampling and
the noise of gradients; there is no seed. A rehearsal draws everything from one given seed and is not private.

All noise is a whole number of steps of a lattice, so that no low bit of an answer can tell anything. Counts get noise from a
lattice 2**24 times finer than they are, and the sum is rounded to whole counts. Rounding is post-processing, so a count has
the guarantee of the fine noise, which is that of continuous Laplace or Gaussian noise to 12 digits. Noise from the
lattice of the counts themselves would cost more: with a stddev of 2, up to 1.12 times the delta of the continuous Gaussian.
"""

import math

import numpy as np

from distill.common import checks
from distill.errors import ConfigError
from distill.privacy.random_source import Draws, SeededRandom, SystemRandom

MIN_COUNT_STDDEV = 2.0  # below, whole counts say little that noise of this kind could hide any better
FINE_BITS = 24  # counts get noise in steps of 2**-24


class NoiseSource:
    """Draws noise; `seed` None (the default) means private, anything else means a repeatable rehearsal."""

    def __init__(self, seed: int | None = None) -> None:
        self.rehearsal = seed is not None
        self._rng = np.random.default_rng(seed)  # of a rehearsal
        self._draws: Draws = SystemRandom() if seed is None else SeededRandom(self._rng)

    def laplace_count(self, count: int, *, scale: float) -> int:
        """`count` plus Laplace noise, rounded; (1 / scale)-DP for a count of sensitivity 1."""
        return int(self.laplace_counts(np.array([count]), scale=scale)[0])

    def laplace_counts(self, counts: np.ndarray, *, scale: float) -> np.ndarray:
        """Integer `counts` (any shape) plus independent Laplace noise, rounded; (s / scale)-DP at L1 sensitivity s.

        Source: the discrete Laplace on a fine lattice, arXiv:0811.2841; sampled exactly by OpenDP.
        """
        checks.positive(scale=scale)
        fine = scale * 2.0**FINE_BITS
        if self.rehearsal:
            p = -math.expm1(-1.0 / fine)
            return _rounded(counts, self._rng.geometric(p, counts.size) - self._rng.geometric(p, counts.size))
        import opendp.prelude as dp

        dp.enable_features("contrib")
        release = dp.m.make_laplace(dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64"), scale=fine)
        return _rounded(counts, np.asarray(release([0] * counts.size), dtype=np.int64))

    def gaussian_counts(self, counts: np.ndarray, *, stddev: float) -> np.ndarray:
        """Integer `counts` (any shape) plus independent Gaussian noise of `stddev`, rounded.

        Source: the discrete Gaussian on a fine lattice, arXiv:2004.00010; sampled exactly by OpenDP.
        """
        checks.positive(stddev=stddev)
        if stddev < MIN_COUNT_STDDEV * (1 - 1e-9):  # a plan divides and multiplies by sqrt(blocks): allow its rounding
            raise ConfigError(
                f"noise of {stddev:.2f} on a count is below {MIN_COUNT_STDDEV:g}; lower epsilon or this stage's share."
            )
        fine = stddev * 2.0**FINE_BITS
        if self.rehearsal:
            return _rounded(counts, self._draws.lattice_normal(counts.size, fine))
        import opendp.prelude as dp

        dp.enable_features("contrib")
        release = dp.m.make_gaussian(dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float), scale=fine)
        return _rounded(counts, np.asarray(release([0] * counts.size), dtype=np.int64))

    def lattice_gaussian(self, size: int, *, stddev: float) -> np.ndarray:
        """`size` independent draws of a discrete Gaussian, int64; `stddev` is in steps of the lattice (see `lattice_noise`)."""
        return self._draws.lattice_normal(size, stddev)

    def poisson_sample(self, size: int, *, rate: float) -> np.ndarray:
        """Indices of a Poisson sample: each of `size` records joins on its own with chance `rate`."""
        return self._draws.poisson_sample(size, rate)

    def choose_per_group(self, groups: np.ndarray, most: int = 1) -> np.ndarray:
        """Indices of at most `most` members of each group, drawn uniformly; groups in order, each one's members side by side.

        Args:
            groups: One integer label a record, (n,).
            most: Members kept; smaller groups are kept whole.

        Each group is drawn from on its own, so another group's records neither change nor reveal its draw.
        """
        shuffled = self._draws.permutation(groups.size)
        order = shuffled[np.argsort(groups[shuffled], kind="stable")]
        ordered = groups[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: groups.size])
        rank = np.arange(groups.size) - np.repeat(starts, np.diff(np.append(starts, groups.size)))
        return np.asarray(order[rank < most])


def _rounded(counts: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """`counts` plus `noise` (flat, in steps of 2**-FINE_BITS), to the nearest whole number; int64, shaped as `counts`."""
    return np.asarray(
        np.asarray(counts, dtype=np.int64) + ((noise + (1 << (FINE_BITS - 1))) >> FINE_BITS).reshape(np.shape(counts))
    )
