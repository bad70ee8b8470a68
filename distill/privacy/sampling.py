"""How many rows join a training step: arithmetic that a plan follows and the hub, to which a plan is private, checks."""

LEAST_EXPECTED, PORTION = 2000, 0.02
MOST_EXPECTED = 20_000  # rows in a step's sample: enough to quiet it, and time no longer grows with rows


def sampling_rate(noisy_size: int) -> float:
    """Chance of a row to join one step's Poisson sample: 2,000 rows are expected, of more than 1e5 rows 2 %, at most 20,000."""
    return min(1.0, min(max(LEAST_EXPECTED, PORTION * noisy_size), MOST_EXPECTED) / noisy_size)
