"""The hub's side: verify bundles, pool what they hold, train one model. It never meets an institution's rows.

This is the door: what `__all__` names is kept stable, and `docs/python.md` shows each name at work. All else may move.
A name is loaded when it is first used, so `import server_train` stays light (no torch, no pandas).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server_train.hub.door import train_global
    from server_train.hub.trained_model import evaluate, load_model
    from server_train.registry.registry import Registry

__all__ = ["Registry", "evaluate", "load_model", "train_global"]

# Where each name lives.
_HOME = {
    "Registry": "server_train.registry.registry",
    "evaluate": "server_train.hub.trained_model",
    "load_model": "server_train.hub.trained_model",
    "train_global": "server_train.hub.door",
}


def __getattr__(name: str) -> object:
    """Load a name of the door from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'server_train' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Name what is loaded, and what the door would load."""
    return sorted({*globals(), *_HOME})
