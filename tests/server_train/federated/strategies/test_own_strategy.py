"""The strategy that the documentation shows is found by its name, takes its options, and does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

from server_train.federated.messages.codec import Message
from server_train.federated.strategies.catalogue import STRATEGIES, make_strategy

DOCS = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "federated.md"


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The documentation's example as a module in the working folder."""
    (code,) = re.findall(r"```python\n# robust\.py\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "robust.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return make_strategy("robust:MedianAverage", {"server_rate": "0.5"})


def test_the_documented_strategy_steps_along_the_median(documented):
    documented.start(np.zeros(2), 3)
    updates = ([1.0, -4.0], [2.0, 0.0], [90.0, 6.0])
    documented.aggregate({i: Message({"update": np.array(u)}, {"rows": 10}) for i, u in enumerate(updates)})
    np.testing.assert_allclose(documented.weights, [1.0, 0.0])


def test_the_documentation_lists_every_strategy_with_its_options():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(STRATEGIES) <= set(rows)
    for name in STRATEGIES:
        options = re.findall(r"`(\w+)`", rows[name].rsplit("|", 2)[1])
        own = {o: "0.5" for o in options if o not in ("staleness", "by_rows")}
        assert make_strategy(name, own), name
