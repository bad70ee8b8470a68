"""Small checks. Of arguments: each raises ConfigError naming the argument, its value and what is allowed. Of what is read
from a file: `require`, a ValueError in a few words to which the caller adds the place."""

import math
from numbers import Real

from distill.errors import ConfigError


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


def require(condition: bool, problem: str) -> None:
    """Raise ValueError with `problem` unless `condition` holds."""
    if not condition:
        raise ValueError(problem)


SLACK = 1e-9  # relative: four releases of 0.5 fit a grant of 2.0 whatever the last bit of a sum says


def within(total: float, limit: float) -> bool:
    """Whether `total` is at most `limit`, up to the last bits of a sum."""
    return total <= limit * (1 + SLACK)
