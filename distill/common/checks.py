"""Small checks. Of arguments: each raises ConfigError naming the argument, its value and what is allowed. Of what is read
from a file: `require`, a ValueError in a few words to which the caller adds the place."""

import math
from numbers import Real

from distill.errors import ConfigError
from distill.privacy.accountant import LEAST_DELTA

LEAST_EPSILON = 0.01
NO_DELTA = 1e-15  # written down where noise needs no delta: ledgers state a number above 0


def positive(**values: float) -> None:
    """Each value is a finite number above zero."""
    for name, value in values.items():
        if not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
            raise ConfigError(f"{name} must be a finite number above 0, not {value!r}.")


def at_most(limit: float, **values: float) -> None:
    """Each value is at most `limit`."""
    for name, value in values.items():
        if value > limit:
            raise ConfigError(f"{name} must be at most {limit:g}, not {value!r}.")


def budget(epsilon: float, delta: float, *, laplace: bool = False) -> None:
    """A usable (epsilon, delta): finite, epsilon at least 0.01, delta from 1e-10 to below 1e-2.

    `laplace`: all noise may turn out to be Laplace noise, which needs no delta; then `NO_DELTA` stands for none.
    """
    positive(epsilon=epsilon, delta=delta)
    if epsilon < LEAST_EPSILON:
        raise ConfigError(
            f"epsilon must be at least {LEAST_EPSILON:g}, not {epsilon:g}: below, the noise leaves nothing to learn."
        )
    if delta < LEAST_DELTA and not (laplace and delta == NO_DELTA):
        raise ConfigError(
            f"delta must be at least {LEAST_DELTA:g}, not {delta:g}: below, the rounding of Fourier transforms in the accountant is as "
            "large as delta itself, and epsilon would be understated."
        )
    if delta >= 1e-2:
        raise ConfigError(
            f"delta must be below 0.01, not {delta:g}: at delta = 1/n a mechanism may publish a whole record. "
            "A common choice is 1e-5, or well below one over the number of rows."
        )


def require(condition: bool, problem: str) -> None:
    """Raise ValueError with `problem` unless `condition` holds."""
    if not condition:
        raise ValueError(problem)


SLACK = 1e-9  # relative: four releases of 0.5 fit a grant of 2.0 whatever the last bit of a sum says


def within(total: float, limit: float) -> bool:
    """Whether `total` is at most `limit`, up to the last bits of a sum."""
    return total <= limit * (1 + SLACK)
