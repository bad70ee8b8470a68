"""A read of private rows leaves nothing behind: no generator advances, no object that lives on changes.

Around each read of the real pipeline all generators, all values of the project's modules and classes, and all of its objects
that are alive are fingerprinted. Only the door's own count of reads and the source of the noise may change. What a read
hands back is looked at elsewhere (`test_guard_twins`, `test_guard_door`).
"""

import functools
import gc
import hashlib
import random
import sys
from types import FunctionType, ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from distill.data.encoded_table import EncodedTable
from distill.ledger import Ledger, Reservation
from distill.privacy import cells, lattice_noise
from distill.privacy.events import Event
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.privacy.random_source import SeededRandom, SystemRandom
from distill.synthesis import pipeline
from tests.fakes.guards import CASES, Case, quicken_all, release
from tests.fakes.private_tables import EVERY_KIND, NoNoise, Paid

# What a read may change, what does not live on, and tables that follow from a public stddev alone.
OWN = (PrivateTable, EncodedTable, NoiseSource, SystemRandom, SeededRandom, Reservation, Ledger, lattice_noise._Strips)
PLAIN = (int, float, str, bytes, bool, type(None), np.generic)


def fingerprint(value: Any, seen: set[int] | None = None, depth: int = 6) -> str:
    """Of what a value holds; functions, classes and modules count by their names."""
    seen = set() if seen is None else seen
    if isinstance(value, PLAIN):
        return repr(value)
    if id(value) in seen or not depth:
        return "seen"
    seen = seen | {id(value)}
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return (
            f"{value.dtype}{value.shape}{hashlib.sha256(np.ascontiguousarray(value)).hexdigest()}"
            if value.dtype != object
            else "objects"
        )
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, dict):
        return str([(fingerprint(k, seen, depth - 1), fingerprint(v, seen, depth - 1)) for k, v in value.items()])
    if isinstance(value, list | tuple | set | frozenset):
        return str([fingerprint(v, seen, depth - 1) for v in value])
    if isinstance(value, (FunctionType, ModuleType, type, *OWN)):
        return getattr(value, "__name__", type(value).__name__)
    if type(value).__module__.startswith(("distill", "torch.nn", "torch.optim")):
        return fingerprint(getattr(value, "__dict__", {}), seen, depth - 1)
    return type(value).__name__


def world() -> dict[str, str]:
    """Fingerprints of all that could remember something of a row."""
    found = {
        "torch": fingerprint(torch.get_rng_state()),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": str(random.getstate()),
    }
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "distill":
            values = {k: v for k, v in vars(module).items() if not k.startswith("__")}
            found[name] = fingerprint(values)
            for kind in (v for v in values.values() if isinstance(v, type) and v.__module__ == name):
                found[f"{name}.{kind.__name__}"] = fingerprint({k: v for k, v in vars(kind).items() if k[:2] != "__"})
    living = [thing for thing in gc.get_objects() if remembers(type(thing))]
    noise = {id(thing._rng) for thing in living if isinstance(thing, NoiseSource)}  # a read is meant to advance these
    for thing in living:
        if id(thing) not in noise and not isinstance(thing, OWN):
            state = thing.get_state() if isinstance(thing, torch.Generator) else thing
            found[f"{type(thing).__name__} {id(thing)}"] = fingerprint(state)
    return found


@functools.cache
def remembers(kind: type) -> bool:
    """Whether things of this kind could remember something of a row."""
    generators = (np.random.Generator, torch.Generator)
    return issubclass(kind, (*generators, NoiseSource)) or str(kind.__module__).startswith("distill.")


class Watched(PrivateTable):
    """A door that compares the world before a read with that after it."""

    looked: ClassVar[set[str]]

    def _watched(self, read: Any, event: str, *asked: Any) -> Any:
        kind = event.rstrip("0123456789")  # the levels of a tree are read alike
        if kind in self.looked:
            return read(event, *asked)
        self.looked.add(kind)
        before = world()
        answer = read(event, *asked)
        changed = sorted(name for name, found in world().items() if before.get(name) != found)
        assert not changed, f"a read of {event} left something behind in {changed}"
        return answer

    def noisy_size(self, *asked: Any) -> int:
        return int(self._watched(super().noisy_size, *asked))

    def noisy_counts(self, *asked: Any) -> list[np.ndarray]:
        return list(self._watched(super().noisy_counts, *asked))

    def laplace_counts(self, *asked: Any) -> list[np.ndarray]:
        return list(self._watched(super().laplace_counts, *asked))

    def noisy_gradient(self, *asked: Any) -> list[np.ndarray]:
        return list(self._watched(super().noisy_gradient, *asked))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_read_leaves_nothing_behind(case: Case, tmp_path, monkeypatch):
    import opendp.prelude  # noqa: F401  # as it is loaded it draws a number

    quicken_all(monkeypatch)
    Watched.looked = set()
    release(case, case.table(), tmp_path / "watched", Watched, monkeypatch)
    assert len(Watched.looked) >= (2 if case.kind == "evaluation" else 4)


@pytest.mark.parametrize("way", ["module", "class", "field", "generator", "global"])
def test_the_watch_sees_each_way_to_remember(way: str, monkeypatch):
    """A saboteur counts rows in a cell and keeps them in one of the places that a program has."""
    kept = np.random.default_rng(0)
    monkeypatch.setattr(cells, "KEPT", [], raising=False)
    monkeypatch.setattr(cells.Cross, "kept", [], raising=False)
    monkeypatch.setattr(pipeline, "DRAWS", kept, raising=False)
    honest = cells.Cross.of

    def sabotaged(self: cells.Cross, rows: Any) -> np.ndarray:
        found = honest(self, rows)
        if way == "module":
            cells.KEPT.append(len(found))
        elif way == "class":
            cells.Cross.kept.append(int(found.sum()))
        elif way == "field":
            object.__setattr__(self, "seen", found)
        elif way == "generator":
            kept.random(len(found))
        else:
            torch.rand(len(found))
        return found

    monkeypatch.setattr(cells.Cross, "of", sabotaged)
    event = Event(name="counts", mechanism="gaussian", noise_multiplier=4.0)
    rows = EncodedTable([np.zeros(9, np.uint8)] * len(EVERY_KIND.columns), None)
    Watched.looked = set()
    door = Watched(rows, EVERY_KIND, Paid([event]), NoNoise())
    with pytest.raises(AssertionError, match="left something behind"):
        door.noisy_counts("counts", [cells.Cross((0,), (1,))], [4.0])
