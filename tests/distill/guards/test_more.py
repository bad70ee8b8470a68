"""What the other guards do not see: tables that are unlike each other, ways past the door, days of entries, seeds by any name.

Each test was written for a bug that was planted on purpose and that the guards before let through
(`benchmarks/attacks/tools/planted.py`).
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distill.exchange.bundle import read_bundle
from distill.exchange.prior import USE
from distill.ledger import open_ledger
from distill.ledger.entries import entry
from distill.privacy import private_table
from distill.privacy.private_table import PrivateTable
from distill.synthesis.planning import plan
from tests.distill.guards.test_non_interference import Told
from tests.fakes.guards import CASES, Case, freeze, quicken_all, release


def cases(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [CASES[name] for name in names], ids=names)


SEED = 0x9A3F_1C77_E05B_D428_6F91_A2C4_77E3_0B5D  # its digits turn up nowhere by chance

SETTINGS = {"critic_power", "class_stddev", "pair_stddev", "pair_step", "probability_steps"}


def unlike(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Tables as unlike as can be: its first row alone, and many rows that hold each column's least value, or its largest."""
    yield frame.head(1)
    for rows, end in ((37, 0), (2000, -1)):
        values = {name: sorted(set(column.dropna()))[end] for name, column in frame.items()}
        alike = pd.DataFrame({name: [value] * rows for name, value in values.items()}).astype(frame.dtypes.to_dict())
        yield alike.assign(customer=[f"c{i}" for i in range(rows)]) if "customer" in frame else alike


def assert_unlike_rows_tell_nothing(case: Case, folder: Path, patch: pytest.MonkeyPatch) -> None:
    freeze(patch)
    quicken_all(patch)
    Told.tape, Told.replays = [], False
    first = release(case, case.table(), folder / "first", Told, patch)
    tape, Told.replays = Told.tape, True
    for number, frame in enumerate(unlike(case.table())):
        Told.tape = list(tape)
        assert release(case, frame, folder / f"other{number}", Told, patch) == first
        assert not Told.tape


@cases("classes", "training")
def test_rows_of_another_law_with_the_same_answers_give_the_same_bytes(case: Case, tmp_path, monkeypatch):
    """Two tables of one law have nearly the same ends, categories and losses: what is taken from these may not differ."""
    assert_unlike_rows_tell_nothing(case, tmp_path, monkeypatch)


def test_the_pairs_of_a_wide_table_are_chosen_by_noisy_counts_alone(tmp_path, monkeypatch):
    """At the guards' 900 rows and epsilon 4 all 45 pairs would be measured, and none chosen."""
    monkeypatch.setattr(plan, "_wide_pairs", lambda *_: 15)
    assert_unlike_rows_tell_nothing(CASES["wide"], tmp_path, monkeypatch)
    (made,) = open_ledger(tmp_path / "first" / "ledger.db").summary().releases
    assert {"relate.scout", "relate.pairs"} <= {e.name for e in made.events}


class Closed(PrivateTable):
    """A door that shows nothing of what lies behind it to any code but its own."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__"):
            place = sys._getframe(1).f_code.co_filename
            assert place == private_table.__file__, f"{place} takes {name} from behind the door"
        return super().__getattribute__(name)


@cases("classes", "rows of a unit", "wide", "training")
def test_only_the_door_touches_what_lies_behind_it(case: Case, tmp_path, monkeypatch):
    quicken_all(monkeypatch)
    release(case, case.table(), tmp_path / "closed", Closed, monkeypatch)


def test_the_door_has_no_other_way_out():
    """Whoever adds one has to say here how it is paid for."""
    asked = {"noisy_size", "noisy_counts", "laplace_counts", "noisy_gradient"}
    assert {name for name in vars(PrivateTable) if not name.startswith("_")} == asked | {"recode", "featurise"}


@cases("classes", "rows of a unit", "wide", "training")
def test_every_entry_of_a_release_is_dated_by_its_reservation(case: Case, tmp_path, monkeypatch):
    """The commit too, which no bundle of its own carries: the next one's chain lets its time be searched."""
    opening = ["2026-12-01T00:00+00:00"] * 2
    days = (f"2026-12-{day:02}T00:00+00:00" for day in itertools.count(2))
    quicken_all(monkeypatch)
    monkeypatch.setattr(entry, "today", lambda: opening.pop() if opening else next(days))
    release(case, case.table(), tmp_path / "first", PrivateTable, monkeypatch)
    entries = open_ledger(tmp_path / "first" / "ledger.db").entries()
    assert [e.kind for e in entries[2:]] == ["reserve", "plan", "commit"]
    assert {e.time for e in entries[2:]} == {"2026-12-02T00:00+00:00"}


@cases("classes", "evaluation of units")
def test_no_seed_is_in_what_leaves_whatever_it_is_called(case: Case, tmp_path, monkeypatch):
    """Every generator gets a seed that is known here, and no spelling of it may be found."""
    from_seed = np.random.default_rng
    quicken_all(monkeypatch)
    monkeypatch.setattr(np.random, "default_rng", lambda seed=None: from_seed(SEED if seed is None else seed))
    whole = release(case, case.table(), tmp_path / "seeded", PrivateTable, monkeypatch)
    said = [whole, *(e.to_bytes() for e in open_ledger(tmp_path / "seeded" / "ledger.db").entries())]
    settings = set()
    if case.kind == "fit":
        bundle = read_bundle(tmp_path / "seeded" / "released")
        said += [
            bundle.manifest.to_bytes(),
            *(t.tobytes() for group in bundle.tensors.values() for t in group.values()),
        ]
        settings = set(bundle.manifest.generator)
    known = (SEED, from_seed(SEED).bit_generator.state["state"]["inc"])  # neither changes as numbers are drawn
    spelt = [spell(number).encode() for number in known for spell in (str, "{:x}".format, "{:X}".format)]
    raw = [part.to_bytes(8, order) for part in (SEED >> 64, SEED % 2**64) for order in ("little", "big")]
    assert not [word for word in [*spelt, *raw] if any(word in text for text in said)]
    assert settings <= SETTINGS | {USE}, "whoever adds a setting has to say here what it tells"
