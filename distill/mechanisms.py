"""Where noise and record sampling come from: one object, private by default.

Every draw that a privacy guarantee rests on goes through a `NoiseSource`. The private one uses OpenDP's exact
integer samplers (fed by the operating system) for counts, and the operating system's source for Poisson sampling and
gradient noise; there is no seed. A rehearsal draws everything from one given seed and is not private.
"""

import math

import numpy as np

from distill import check
from distill.errors import ConfigError
from distill.system_random import SeededRandom, SystemRandom

MIN_COUNT_STDDEV = 2.0  # below, the discrete Gaussian's loss is no longer that of the continuous one to 30 digits


class NoiseSource:
    """Draws noise; `seed` None (the default) means private, anything else means a repeatable rehearsal."""

    def __init__(self, seed: int | None = None) -> None:
        self.rehearsal = seed is not None
        self._rng = np.random.default_rng(seed)  # of a rehearsal
        self._draws = SystemRandom() if seed is None else SeededRandom(self._rng)

    def laplace_count(self, count: int, *, scale: float) -> int:
        """`count` plus discrete Laplace noise; (1 / scale)-DP for a count of sensitivity 1."""
        return int(self.laplace_counts(np.array([count]), scale=scale)[0])

    def laplace_counts(self, counts: np.ndarray, *, scale: float) -> np.ndarray:
        """Integer `counts` (any shape) plus independent discrete Laplace noise; (s / scale)-DP at L1 sensitivity s.

        Source: the geometric mechanism, arXiv:0811.2841; sampled exactly by OpenDP.
        """
        check.positive(scale=scale)
        flat = np.asarray(counts, dtype=np.int64).ravel()
        if self.rehearsal:
            p = -math.expm1(-1.0 / scale)
            noise = self._rng.geometric(p, flat.size) - self._rng.geometric(p, flat.size)
            return np.asarray(flat + noise).reshape(counts.shape)
        import opendp.prelude as dp

        dp.enable_features("contrib")
        release = dp.m.make_laplace(dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64"), scale=scale)
        return np.asarray(release(flat.tolist()), dtype=np.int64).reshape(counts.shape)

    def gaussian_counts(self, counts: np.ndarray, *, stddev: float) -> np.ndarray:
        """Integer `counts` (any shape) plus independent discrete Gaussian noise of scale `stddev`.

        With at least 2 as `stddev`, the loss equals that of a continuous Gaussian up to a relative exp(-2 pi^2 stddev^2)
        (below 1e-34), so it is accounted as one.

        Source: the discrete Gaussian, arXiv:2004.00010; sampled exactly by OpenDP.
        """
        check.positive(stddev=stddev)
        if stddev < MIN_COUNT_STDDEV * (1 - 1e-9):  # a plan divides and multiplies by sqrt(blocks): allow its rounding
            raise ConfigError(
                f"noise of {stddev:.2f} on a count is below {MIN_COUNT_STDDEV:g}; lower epsilon or this stage's share."
            )
        flat = np.asarray(counts, dtype=np.int64).ravel()
        if self.rehearsal:
            return (flat + np.rint(self._rng.normal(0.0, stddev, flat.size)).astype(np.int64)).reshape(counts.shape)
        import opendp.prelude as dp

        dp.enable_features("contrib")
        release = dp.m.make_gaussian(dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float), scale=stddev)
        return np.asarray(release(flat.tolist()), dtype=np.int64).reshape(counts.shape)

    def gaussian(self, size: int, *, stddev: float) -> np.ndarray:
        """`size` independent N(0, stddev**2) draws, float32; floating point, so see arXiv:2107.10138."""
        check.positive(stddev=stddev)
        return self._draws.standard_normal(size) * np.float32(stddev)

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
