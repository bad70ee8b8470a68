"""What every test may use."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests keep what is known of tables: never in the home of whoever runs them."""
    return tmp_path_factory.mktemp("states")


def _own_state(states: Path) -> Iterator[None]:
    """A folder of known tables of its own: tests give the same table many ledgers, and are no copies of each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_STATE", str(states / secrets.token_hex(8)))
        yield


# One for fixtures of each scope, and one for the test itself.
session_state = pytest.fixture(scope="session", autouse=True)(_own_state)
module_state = pytest.fixture(scope="module", autouse=True)(_own_state)
own_state = pytest.fixture(autouse=True)(_own_state)
