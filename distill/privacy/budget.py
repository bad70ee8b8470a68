"""What a usable (epsilon, delta) is: one rule for grants, releases and plans."""

from distill.common.checks import positive
from distill.errors import ConfigError
from distill.privacy.accountant import LEAST_DELTA

LEAST_EPSILON = 0.01
NO_DELTA = 1e-15  # written down where noise needs no delta: ledgers state a number above 0


def require_budget(epsilon: float, delta: float, *, laplace: bool = False) -> None:
    """Require a usable (epsilon, delta): finite, epsilon at least 0.01, delta from 1e-10 to below 1e-2.

    Args:
        epsilon, delta: The budget.
        laplace: Whether all noise may turn out to be Laplace noise, which needs no delta; then `NO_DELTA` stands for none.

    Raises:
        ConfigError: The budget is not usable; names the value and the limit.
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
