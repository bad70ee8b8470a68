"""Nothing but noisy answers leaves: other rows, fed the same answers, give the same bytes.

Two tables of different sizes are released with the same ids, the same modelling seed and different clocks. The second run
computes everything on its own rows and draws its own noise, but each answer of its door is replaced by that of the first.
What still differs then would be a way around the door: a generator whose state followed rows, a shape, a time, a count.
"""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import pytest

from distill.common import metadata
from distill.exchange.bundle import read_bundle
from distill.ledger.entries import bodies, entry
from distill.privacy.private_table import PrivateTable
from tests.fakes.guards import CASES, Case, freeze, quicken_all, release


class Told(PrivateTable):
    """A door that notes its answers, or gives those noted before."""

    tape: ClassVar[list[Any]]
    replays: ClassVar[bool]

    def _told(self, answer: Any) -> Any:
        if not self.replays:
            self.tape.append(copy.deepcopy(answer))
            return answer
        noted = self.tape.pop(0)
        assert _shapes(noted) == _shapes(answer), "the shape of an answer follows the rows"
        return noted

    def noisy_size(self, event: str) -> int:
        return int(self._told(super().noisy_size(event)))

    def noisy_counts(self, *asked: Any) -> list[np.ndarray]:
        return list(self._told(super().noisy_counts(*asked)))

    def laplace_counts(self, *asked: Any) -> list[np.ndarray]:
        return list(self._told(super().laplace_counts(*asked)))

    def noisy_gradient(self, *asked: Any) -> list[np.ndarray]:
        return list(self._told(super().noisy_gradient(*asked)))


def _shapes(answer: Any) -> Any:
    return np.shape(answer) if np.isscalar(answer) else [np.shape(part) for part in answer]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_other_rows_with_the_same_answers_give_the_same_bytes(case: Case, tmp_path, monkeypatch):
    freeze(monkeypatch)
    quicken_all(monkeypatch)
    Told.tape, Told.replays = [], False
    first = release(case, case.table(), tmp_path / "first", Told, monkeypatch)
    Told.replays = True
    assert len(Told.tape) > (1 if case.kind == "evaluation" else 4)
    second = release(case, case.table(larger=True), tmp_path / "second", Told, monkeypatch)
    assert not Told.tape
    assert first == second


def test_no_time_within_the_day_is_in_what_leaves(tmp_path, monkeypatch):
    """Of two runs with the same answers one takes eleven hours; bytes and file dates are the same."""
    clock = [datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC), timedelta(0)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            clock[0] += clock[1]
            return clock[0].astimezone(tz)

    case = CASES["rows of a unit"]
    freeze(monkeypatch)
    quicken_all(monkeypatch)
    for module in (metadata, bodies):
        monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(entry, "today", TODAY)
    Told.tape, Told.replays = [], False
    first = release(case, case.table(), tmp_path / "first", Told, monkeypatch)
    Told.replays = True
    clock[:] = [datetime(2026, 12, 1, 0, 0, 2, tzinfo=UTC), timedelta(minutes=20)]
    second = release(case, case.table(larger=True), tmp_path / "second", Told, monkeypatch)
    assert clock[0].day == 1
    assert clock[0].hour > 0
    assert first == second
    dates = [(tmp_path / name / "released").stat().st_mtime for name in ("first", "second")]
    assert dates[0] == dates[1] == datetime(2026, 12, 1, tzinfo=UTC).timestamp()


def test_a_release_that_ends_on_the_next_day_is_dated_by_its_reservation(tmp_path, monkeypatch):
    days = iter(["2026-12-01T00:00+00:00"] * 3 + ["2026-12-02T00:00+00:00"] * 9)  # opening, grant, reservation, later
    case = CASES["classes"]
    freeze(monkeypatch)
    quicken_all(monkeypatch)
    monkeypatch.setattr(entry, "today", lambda: next(days))
    Told.tape, Told.replays = [], False
    release(case, case.table(), tmp_path / "first", Told, monkeypatch)
    written = read_bundle(tmp_path / "first" / "released").manifest.to_bytes()
    assert b"2026-12-01" in written
    assert b"2026-12-02" not in written
    assert (tmp_path / "first" / "released").stat().st_mtime == datetime(2026, 12, 1, tzinfo=UTC).timestamp()


TODAY = entry.today
