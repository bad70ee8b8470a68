"""What every test may use."""

import os

import pytest
from hypothesis import settings

settings.register_profile("shared", deadline=None)  # other work on the machine must not fail a test
settings.load_profile("shared")


def _seeds() -> list[int]:
    """One seed by day; `DISTILL_SEEDS=20` at night runs each test that takes `seed` with 0..19."""
    return list(range(int(os.environ.get("DISTILL_SEEDS", "1"))))


@pytest.fixture(params=_seeds())
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for what a test draws itself; a test must hold for any."""
    return int(request.param)
