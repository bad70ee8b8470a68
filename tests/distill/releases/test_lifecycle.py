"""What every kind of release refuses, and in which order it goes: the same for a fit, an evaluation and a training."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.common.keys import SigningKey, generate_key
from distill.errors import BudgetError, ConfigError, CopiedTableError, DistillError, SchemaError
from distill.ledger import create_ledger
from distill.privacy.events import MOST_ROWS_PER_UNIT
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.releases import lifecycle
from tests.fakes.guards import BUDGET, CASES, NARROW, UNITS, of_every_kind, quicken_all
from tests.fakes.private_tables import EVERY_KIND
from tests.fakes.releases import RELEASES, books

ROWS = CASES["units"].table()
PLAIN = ROWS.drop(columns="customer")
Release = Callable[..., None]


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return generate_key(tmp_path / "key.pem")


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Release:
    """One kind of release, with few steps."""
    quicken_all(monkeypatch)
    return RELEASES[request.param]


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door to the rows must stay shut."""
    monkeypatch.setattr(lifecycle, "PrivateTable", lambda *_, **__: pytest.fail("the rows were asked"))


def refused(release: Release, kind: type[DistillError], words: str, ledger, key, frame, schema, **more) -> None:
    """The release is refused in these words, and nothing was recorded."""
    before = [e.hash for e in ledger.entries()]
    with pytest.raises(kind, match=words):
        release(frame, schema, ledger, key, **more)
    assert [e.hash for e in ledger.entries()] == before
    assert not ledger.path.with_name("out").exists()


def test_a_copy_of_a_table_that_has_another_ledger_is_refused(release: Release, tmp_path: Path, key):
    known = tmp_path / "known"
    ledger = books(tmp_path, "row", key)
    release(PLAIN, EVERY_KIND, ledger, key, known_tables=known)
    (tmp_path / "copy").mkdir()
    other = create_ledger(tmp_path / "copy" / "ledger.db", dataset="cd" * 16, unit="row", key=key)
    other.grant(**BUDGET, reason="test", actor="officer", key=key)
    refused(
        release,
        CopiedTableError,
        "bank",
        other,
        key,
        PLAIN.sample(frac=1, random_state=0),
        EVERY_KIND,
        known_tables=known,
    )


def test_a_rehearsal_is_neither_checked_nor_remembered(release: Release, tmp_path: Path, key):
    known = tmp_path / "known"
    release(PLAIN, EVERY_KIND, books(tmp_path, "row", key), key, known_tables=known, rehearsal=3)
    assert not known.exists()


def test_a_schema_that_nobody_confirmed_is_refused(release: Release, tmp_path: Path, key, shut):
    columns = [c.model_copy(update={"from_data": c.name == "age"}) for c in EVERY_KIND.columns]
    draft = EVERY_KIND.model_copy(update={"columns": tuple(columns)})
    refused(release, SchemaError, "age", books(tmp_path, "row", key), key, PLAIN, draft)


@pytest.mark.parametrize(
    ("schema", "most", "words"),
    [
        (EVERY_KIND, 2, "names no `unit` column"),
        (UNITS, 0, "must be within 1"),
        (UNITS, MOST_ROWS_PER_UNIT + 1, "must be within 1"),
    ],
)
def test_rows_of_a_unit_that_cannot_be_are_refused(release: Release, schema, most, words, tmp_path: Path, key, shut):
    frame = ROWS if schema.unit else PLAIN
    ledger = books(tmp_path, schema.counted_unit, key)
    refused(release, ConfigError, words, ledger, key, frame, schema, rows_per_unit=most)


def test_what_the_grant_does_not_cover_is_refused_before_the_rows_are_asked(
    release: Release, tmp_path: Path, key, shut
):
    refused(release, BudgetError, "epsilon 9", books(tmp_path, "row", key), key, PLAIN, EVERY_KIND, epsilon=9.0)


def test_the_budget_is_set_aside_before_the_table_is_made(release: Release, tmp_path: Path, key, monkeypatch):
    ledger, seen = books(tmp_path, "row", key), []

    class Door(PrivateTable):
        def __init__(self, *arguments: object, **more: object) -> None:
            seen.append([e.kind for e in ledger.entries()])
            super().__init__(*arguments, **more)

    monkeypatch.setattr(lifecycle, "PrivateTable", Door)
    release(PLAIN, EVERY_KIND, ledger, key)
    assert seen == [["open", "grant", "reserve"]]
    assert [e.kind for e in ledger.entries()][:4] == ["open", "grant", "reserve", "plan"]


def test_a_table_too_small_for_a_plan_ends_with_only_the_count_charged(
    release: Release, tmp_path: Path, key, request, monkeypatch
):
    if "evaluation" in request.node.name:
        pytest.skip("an evaluation has a plan for any table")
    monkeypatch.setattr(NoiseSource, "laplace_count", lambda self, count, scale: count)
    ledger = books(tmp_path, "row", key)
    with pytest.raises(BudgetError, match="Only the row count was read and charged"):
        release(PLAIN.head(3), EVERY_KIND, ledger, key)
    assert ledger.summary().releases[0].status == "abandoned"


def test_every_event_is_charged_for_the_rows_of_a_unit(release: Release, tmp_path: Path, key):
    ledger = books(tmp_path, "customer", key)
    release(ROWS, UNITS, ledger, key, rows_per_unit=3)
    (made,) = ledger.summary().releases
    assert {e.rows_per_unit for e in made.events} == {3}


def test_a_training_reads_three_rows_of_a_unit_where_three_may_count(tmp_path: Path, key, monkeypatch):
    """As a fit does: of a unit with five rows three stay, and the noise is for three."""
    frame = of_every_kind(NARROW)(600, 0).assign(customer=[f"c{i // 5}" for i in range(600)])
    schema = NARROW.model_copy(update={"unit": "customer"})
    counted: list[int] = []
    real = PrivateTable.noisy_size
    monkeypatch.setattr(PrivateTable, "noisy_size", lambda self, event: (counted.append(self._n), real(self, event))[1])
    RELEASES["training"](frame, schema, books(tmp_path, "customer", key), key, rows_per_unit=3)
    assert counted == [360]
