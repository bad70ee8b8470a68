"""The institution's side: one private table in, one signed bundle of private summaries and synthetic rows out.

This is the door: what `__all__` names is kept stable, and `docs/python.md` shows each name at work. All else may move.
A name is loaded when it is first used, so `import distill` stays light (no torch, no pandas).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.data.schema import Schema
    from distill.exchange.bundle import Bundle, read_bundle
    from distill.ledger.ledger import Ledger
    from distill.project import Project
    from distill.releases.evaluation import EvaluationRequest, evaluate
    from distill.releases.fit import FitRequest, fit

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "EvaluationRequest",
    "FitRequest",
    "Ledger",
    "Project",
    "Schema",
    "__version__",
    "evaluate",
    "fit",
    "read_bundle",
]

# Where each name lives.
_HOME = {
    "Bundle": "distill.exchange.bundle",
    "EvaluationRequest": "distill.releases.evaluation",
    "FitRequest": "distill.releases.fit",
    "Ledger": "distill.ledger.ledger",
    "Project": "distill.project",
    "Schema": "distill.data.schema",
    "evaluate": "distill.releases.evaluation",
    "fit": "distill.releases.fit",
    "read_bundle": "distill.exchange.bundle",
}


def __getattr__(name: str) -> object:
    """Load a name of the door from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'distill' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Name what is loaded, and what the door would load."""
    return sorted({*globals(), *_HOME})
