"""Strategies by name and options by word; a user's own file counts, and what does not fit is refused in words."""

import sys
from pathlib import Path

import pytest

from distill.errors import ConfigError
from server_train.federated.strategies.catalogue import make_strategy
from server_train.federated.strategies.fedavg import FedAvg
from server_train.federated.strategies.fedprox import FedProx

OWN = """
from dataclasses import dataclass
from server_train.federated.strategies.fedavg import FedAvg
from server_train.federated.strategies.base import Strategy

@dataclass(kw_only=True)
class Mine(FedAvg):
    depth: int = 3
    loud: bool = False
    label: str = "x"

@dataclass(kw_only=True)
class Needy(FedAvg):
    must: float

class Unfinished(Strategy):
    pass

class Stranger:
    pass

number = 7
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working folder; the search path and modules are put back afterwards."""
    (tmp_path / "own_strategies.py").write_text(OWN)
    (tmp_path / "broken_strategies.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return "own_strategies"


@pytest.mark.parametrize("name", ["fedsgd", "fedavg", "fedadam", "fedprox", "fednova", "qfedavg"])
def test_a_published_strategy_is_found_by_its_name(name):
    strategy = make_strategy(name)
    assert type(strategy).__name__.lower() == name
    assert repr(strategy) == repr(type(strategy)())  # with its defaults


def test_options_become_values_of_the_right_type():
    strategy = make_strategy("fedprox", {"mu": "0.5", "server_momentum": "0.9"})
    assert isinstance(strategy, FedProx)
    assert (strategy.mu, strategy.server_momentum, strategy.server_rate) == (0.5, 0.9, 1.0)


def test_two_strategies_share_no_state():
    assert make_strategy("fedavg") is not make_strategy("fedavg")


def test_a_strategy_of_ones_own_is_found_in_the_working_folder(own_file):
    strategy = make_strategy(f"{own_file}:Mine", {"depth": "5", "loud": "yes", "label": "7", "server_rate": "2"})
    assert isinstance(strategy, FedAvg)
    assert (strategy.depth, strategy.loud, strategy.label, strategy.server_rate) == (5, True, "7", 2.0)


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match=r"no strategy 'fedfoo'\. Choose from fedsgd, fedavg, .* module:Class"):
        make_strategy("fedfoo")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no_such_module:Mine", {}, "module 'no_such_module' cannot be imported"),
        ("broken_strategies:Mine", {}, "module 'broken_strategies' cannot be imported .*division by zero"),
        (":Mine", {}, "no strategy ':Mine'"),
        ("own_strategies:", {}, "no strategy 'own_strategies:'"),
        ("own_strategies:Yours", {}, "module 'own_strategies' has no 'Yours'"),
        ("own_strategies:Stranger", {}, "is not a subclass of server_train.federated.strategies.base.Strategy"),
        ("own_strategies:number", {}, "is not a subclass of server_train.federated.strategies.base.Strategy"),
        ("own_strategies:Unfinished", {}, "'own_strategies:Unfinished' cannot be made: .*aggregate"),
        ("own_strategies:Needy", {}, "'own_strategies:Needy' cannot be made: .*must"),
        ("own_strategies:Mine", {"loud": "maybe"}, "option loud is bool, not 'maybe'"),
        ("own_strategies:Mine", {"depth": "2.5"}, "option depth is int, not '2.5'"),
        ("fedprox", {"mu": "strong"}, "option mu is float, not 'strong'"),
        ("fedprox", {"mu": "-1"}, "mu must be at least 0"),
        ("fedprox", {"nu": "1"}, "has no option 'nu'; it has: mu, server_momentum, server_rate"),
        ("fedavg", {"velocity": "1"}, "has no option 'velocity'"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(own_file, name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_strategy(name, options)
