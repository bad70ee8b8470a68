"""A pytest plugin for a copy with a planted bug: that it is the copy which runs, and by what a test fails.

`mutations.py` lays it into the copy. A line of `failures.jsonl` is one failure: the test, when (setup, call, teardown), the kind of
exception, what it says, and the file of the copy in which it was raised (or from which it was raised elsewhere).
"""

import json
from pathlib import Path

import pytest

import cli
import distill
import server_train

HERE = Path(__file__).resolve().parent


def pytest_configure() -> None:
    """Stop if it is not the copy that is tested."""
    for package in (distill, server_train, cli):
        assert Path(str(package.__file__)).resolve().is_relative_to(HERE), f"{package.__file__} is outside {HERE}"


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Note a failure."""
    if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
        return
    places = [Path(str(frame.path)) for frame in call.excinfo.traceback]
    inside = [place.relative_to(HERE).as_posix() for place in places if place.is_relative_to(HERE)]
    failure = {
        "test": item.nodeid,
        "when": call.when,
        "kind": call.excinfo.typename,
        "says": str(call.excinfo.value),
        "place": inside[-1] if inside else "",
    }
    with (HERE / "failures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(failure) + "\n")
