"""Strategies by name, with their options from words; a strategy in a file of one's own is `module:Class`."""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from distill.errors import ConfigError
from server_train.federated.strategies.base import Strategy

_HERE = "server_train.federated.strategies."
STRATEGIES = {
    "fedsgd": _HERE + "fedsgd:FedSgd",
    "fedavg": _HERE + "fedavg:FedAvg",
    "fedadam": _HERE + "fedadam:FedAdam",
    "fedprox": _HERE + "fedprox:FedProx",
    "fednova": _HERE + "fednova:FedNova",
    "qfedavg": _HERE + "qfedavg:QFedAvg",
    "fedasync": _HERE + "fedasync:FedAsync",
    "scaffold": _HERE + "scaffold:Scaffold",
    "moon": _HERE + "moon:Moon",
    "contribution": _HERE + "contribution:ContributionWeighted",
}


def make_strategy(name: str, options: Mapping[str, str] | None = None) -> Strategy:
    """A fresh strategy.

    Args:
        name: One of `STRATEGIES`, or `module:Class` of a subclass of `Strategy` (the working folder is searched too).
        options: Its fields, as words.

    Raises:
        ConfigError: no such strategy, no such option, or a value that does not fit.
    """
    found = _strategy_class(name)
    fields = {f.name: f for f in dataclasses.fields(found) if f.init}
    values = {}
    for option, word in (options or {}).items():
        if option not in fields:
            known = ", ".join(sorted(fields)) or "none"
            raise ConfigError(f"strategy {name!r} has no option {option!r}; it has: {known}.")
        kind = fields[option].type  # a class, or its name where the module postpones annotations
        values[option] = _value(name, option, getattr(kind, "__name__", str(kind)), word)
    try:
        return found(**values)
    except TypeError as error:  # a method or an option without default is missing
        raise ConfigError(f"strategy {name!r} cannot be made: {error}.") from None


def _strategy_class(name: str) -> type[Strategy]:
    place = STRATEGIES.get(name, name)
    module_name, _, class_name = place.partition(":")
    if not (module_name and class_name):
        raise ConfigError(
            f"no strategy {name!r}. Choose from {', '.join(STRATEGIES)}, or name your own as module:Class."
        )
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a file of the user's own may fail in any way
        raise ConfigError(f"strategy {name!r}: module {module_name!r} cannot be imported ({error}).") from error
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigError(f"strategy {name!r}: module {module_name!r} has no {class_name!r}.")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(f"strategy {name!r} is not a subclass of server_train.federated.strategies.base.Strategy.")
    return found


def _value(name: str, option: str, kind: str, word: str) -> object:
    """A word as the field's type wants it."""
    try:
        if "bool" in kind:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[word.lower()]
        return int(word) if kind.startswith("int") else float(word) if kind.startswith("float") else word
    except (KeyError, ValueError):
        raise ConfigError(f"strategy {name!r}: option {option} is {kind}, not {word!r}.") from None
