"""One door to the rows: every read of a fit is an event of the ledger, one to one, and none is more than was planned."""

import ast
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.schema import Schema
from distill.errors import UnpaidReadError
from distill.privacy.cells import Cross
from distill.privacy.events import Event, epsilon_of
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Network
from distill.releases import fit, lifecycle
from distill.synthesis.planning.plan import Plan
from tests.end_to_end.small_banks import (
    DELTA,
    EPSILON,
    SCHEMA,
    Bank,
    distill,
    loans,
    make_bank,
    quicken,
    refusal,
    result_of,
)

ROOT = Path(__file__).resolve().parents[3]
DOOR = ROOT / "distill" / "privacy" / "private_table.py"


@dataclass
class Read:
    """One answer of the door: which event was named, and whether the ledger on disk held it by then."""

    event: str
    recorded: bool


class WatchedTable(PrivateTable):
    """The real door, which also notes each read and refuses its rows to any code but its own."""

    log: list[Read]
    bank: Bank

    def __getattribute__(self, name: str) -> Any:
        if name in ("_codes", "_features", "_firsts", "_n", "_records", "_counted", "_sampled"):
            place = sys._getframe(1).f_code.co_filename
            assert Path(place) == DOOR, f"{place} takes {name} from behind the door"
        return super().__getattribute__(name)

    def _note(self, event: str) -> None:
        seen = any(read.event == event for read in self.log)
        self.log.append(Read(event, seen or event in {e.name for r in self.bank.books.releases for e in r.events}))

    def noisy_size(self, event: str) -> int:
        self._note(event)
        return super().noisy_size(event)

    def noisy_counts(self, event: str, *arguments: Any) -> list[np.ndarray]:
        self._note(event)
        return super().noisy_counts(event, *arguments)

    def laplace_counts(self, event: str, *arguments: Any) -> list[np.ndarray]:
        self._note(event)
        return super().laplace_counts(event, *arguments)

    def noisy_gradient(self, event: str, *arguments: Any) -> list[np.ndarray]:
        self._note(event)
        return super().noisy_gradient(event, *arguments)


@dataclass
class Watched:
    """A fit whose reads were noted, with all it said."""

    bank: Bank
    reads: list[Read]
    plan: Plan
    receipt: dict[str, Any]

    @property
    def events(self) -> tuple[Event, ...]:
        """Of the one release, as the ledger has it."""
        (release,) = self.bank.books.releases
        return release.events


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """One quick fit behind a watched door."""
    bank = make_bank(tmp_path_factory.mktemp("watched") / "bank", loans(1500, seed=3))
    plans: list[Plan] = []
    make_plan = fit.make_plan

    def remember(*arguments: Any, **named: Any) -> Plan:
        plans.append(make_plan(*arguments, **named))
        return plans[-1]

    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        patch.setattr(WatchedTable, "log", [], raising=False)
        patch.setattr(WatchedTable, "bank", bank, raising=False)
        patch.setattr(lifecycle, "PrivateTable", WatchedTable)
        patch.setattr(fit, "make_plan", remember)
        receipt = result_of("fit", "--project", bank.folder)
        reads = WatchedTable.log
    return Watched(bank, reads, plans[0], receipt)


# ---- the books of one fit -------------------------------------------------------------------------------------------


def test_the_reads_and_the_ledgers_events_match_one_to_one(watched):
    read = Counter(r.event for r in watched.reads)
    planned = {e.name: e.count for e in watched.events}
    assert read == planned
    assert watched.receipt["reads"] == planned
    assert len(planned) == len(watched.events)  # no two events share a name


def test_every_read_was_in_the_ledger_before_it_happened(watched):
    assert all(read.recorded for read in watched.reads)
    first = list(dict.fromkeys(read.event for read in watched.reads))
    assert first == [e.name for e in watched.events]


def test_all_stages_of_the_design_read(watched):
    names = {read.event.split(".")[0] for read in watched.reads}
    assert names == {"size", "encode", "relate", "represent", "cluster", "discriminate"}
    kinds = {e.name.split(".")[0]: e.mechanism for e in watched.events}
    assert kinds["size"] == "laplace"
    assert kinds["encode"] == kinds["relate"] == kinds["cluster"] == "gaussian"
    assert kinds["represent"] == kinds["discriminate"] == "poisson_gaussian"


def test_the_plan_the_ledger_and_the_bundle_hold_the_same_events(watched):
    manifest = watched.bank.bundle.manifest
    assert watched.plan.events == watched.events == manifest.privacy.events
    assert manifest.noisy_rows == watched.receipt["noisy_rows"]
    assert (manifest.privacy.epsilon, manifest.privacy.delta) == (EPSILON, DELTA)
    assert manifest.privacy.unit == watched.bank.books.unit == "row"


def test_the_release_is_committed_with_the_digest_of_the_bundle(watched):
    (release,) = watched.bank.books.releases
    assert release.status == "committed"
    assert release.bundle == watched.bank.bundle.digest == watched.receipt["digest"]
    assert release.release == watched.receipt["release"]
    assert watched.bank.ledger.head() == watched.receipt["ledger_head"]
    assert watched.bank.ledger.knows(watched.bank.bundle.manifest.ledger.head)


def test_verify_recomputes_the_epsilon_and_it_is_at_most_what_was_reserved(watched):
    (audited,) = watched.bank.ledger.verify(watched.bank.key.public_hex).releases
    assert audited.epsilon_pld == pytest.approx(epsilon_of(watched.events, DELTA), rel=1e-6)
    assert audited.epsilon_pld == pytest.approx(watched.receipt["epsilon"], rel=1e-6)
    assert 0.98 * EPSILON < audited.epsilon_pld <= EPSILON
    assert audited.epsilon_pld <= audited.epsilon_rdp
    told = result_of("ledger", "verify", "--project", watched.bank.folder, "--against", watched.bank.project.out)
    assert told["verified"] is True
    assert told["bundles"][0]["release"] == watched.receipt["release"]
    assert told["spent_epsilon"] == EPSILON


def test_the_bundle_verifies_for_whoever_knows_the_public_key(watched):
    public = watched.bank.project.key.with_suffix(".pub")
    told = result_of("bundle", "verify", watched.bank.project.out, "--key", public)
    assert told["verified"] is True
    assert told["key_given"] is True
    assert told["epsilon"] == EPSILON


def test_the_rows_are_read_in_one_place_only():
    """All kinds of release open the door in one place; no stage imports a way to a file."""
    callers: dict[str, set[str]] = {"read_table": set(), "read_encoded": set(), "PrivateTable": set()}
    for path in sorted((ROOT / "distill").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in callers:
                callers[node.func.id].add(path.relative_to(ROOT).as_posix())
            if path.parent.name == "stages" and isinstance(node, ast.ImportFrom):
                assert node.module not in ("pandas", "distill.data.tables", "distill.data.sources", "pathlib"), path
    evaluation = "distill/releases/evaluation.py"  # scores rows before it encodes them
    assert callers == {
        "read_table": {evaluation},
        "read_encoded": {"distill/releases/fit.py"},
        "PrivateTable": {"distill/releases/lifecycle.py"},
    }


def test_several_rows_a_unit_are_shown_in_plan_ledger_and_bundle(tmp_path):
    rows = loans(1500).assign(customer=[f"c{i // 3}" for i in range(1500)])
    bank = make_bank(tmp_path / "bank", rows, schema={**SCHEMA, "unit": "customer"})
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        fitted = bank.fit("--max-rows-per-unit", 3)
    assert fitted.exit_code == 0, fitted.output
    (release,) = bank.books.releases
    privacy = bank.bundle.manifest.privacy
    assert {e.rows_per_unit for e in (*release.events, *privacy.events)} == {3}
    assert (privacy.unit, privacy.rows_per_unit) == ("customer", 3)
    assert bank.bundle.manifest.noisy_rows == pytest.approx(1500, abs=500)
    planned = distill("plan", "--project", bank.folder, "--max-rows-per-unit", 3).stdout
    assert "at most 3 of each unit count" in " ".join(planned.split())
    shown = " ".join(distill("bundle", "inspect", bank.project.out).stdout.split())
    assert "for each customer (all its rows together, at most 3)" in shown
    assert "rows, at most 3 a unit (noisy count)" in shown


def test_several_rows_a_unit_are_refused_without_a_unit_and_nothing_is_charged(bank):
    line = refusal(bank.fit("--max-rows-per-unit", 3))
    assert "names no `unit` column" in line
    assert not bank.books.releases
    assert "names no `unit` column" in refusal(distill("plan", "--project", bank.folder, "--max-rows-per-unit", 3))


def test_no_seed_of_any_noise_is_kept(watched):
    """Of a real release: neither settings nor ledger name a seed."""
    manifest = json.dumps(watched.bank.bundle.manifest.model_dump(mode="json", by_alias=True))
    entries = json.dumps([e.model_dump(mode="json") for e in watched.bank.ledger.entries()])
    assert "seed" not in manifest
    assert "seed" not in entries


# ---- the door itself ------------------------------------------------------------------------------------------------


@dataclass
class Paid:
    """A reservation that holds what the test says."""

    events: Sequence[Event]


EVENTS = (
    Event(name="size", mechanism="laplace", noise_multiplier=10.0),
    Event(name="counts", mechanism="gaussian", noise_multiplier=4.0, round=1),
    Event(name="steps", mechanism="poisson_gaussian", noise_multiplier=1.0, sampling_rate=0.1, count=3, round=1),
)


@pytest.fixture
def door() -> PrivateTable:
    """Some rows behind a door that EVENTS pay for."""
    schema = Schema.model_validate(SCHEMA)
    from distill.data.encoded_table import encode_frame
    from distill.data.tables import canonical_table

    table = PrivateTable(encode_frame(canonical_table(loans(50), schema), schema), schema, Paid(EVENTS), NoiseSource(1))
    table.recode([lambda leaves: leaves % 9] * len(SCHEMA["columns"]), target=3)
    return table


@dataclass(frozen=True)
class Blind:
    """Stands for what is counted or learnt, and must not be asked of a row."""

    size: int = 1
    share: float = 1.0
    clip: float = 1.0

    def of(self, *rows: Any) -> np.ndarray:
        raise AssertionError("a row was looked at")

    factors = of


class Breaks(Blind):
    """Fails half-way."""

    def of(self, *rows: Any) -> np.ndarray:
        raise MemoryError


ALL = Cross((3,), (2,))
HEAD = Network(((np.zeros((2, 9)), np.zeros(2)),), loss="classes", starts=np.zeros(1, dtype=int))


READS: dict[str, Callable[[PrivateTable, str, Any], Any]] = {
    "noisy_size": lambda door, event, see: door.noisy_size(event),
    "noisy_counts": lambda door, event, see: door.noisy_counts(event, [see], [4.0]),
    "laplace_counts": lambda door, event, see: door.laplace_counts(event, [see]),
    "noisy_gradient": lambda door, event, see: door.noisy_gradient(event, [see]),
}
PAYS = {"noisy_size": "size", "noisy_counts": "counts", "laplace_counts": "size", "noisy_gradient": "steps"}


@pytest.mark.parametrize("read", READS)
def test_a_read_without_a_reserved_event_is_refused_before_any_row_is_seen(door, read):
    with pytest.raises(UnpaidReadError, match="no reserved event 'gift' pays for this read"):
        READS[read](door, "gift", Blind())
    assert door.reads == {}


@pytest.mark.parametrize("event", [e.name for e in EVENTS])
@pytest.mark.parametrize("read", READS)
def test_an_event_of_another_mechanism_does_not_pay(door, read, event):
    if PAYS[read] == event:
        return
    with pytest.raises(UnpaidReadError, match=f"event '{event}' pays for a .* release, not"):
        READS[read](door, event, Blind())
    assert door.reads == {}


def test_an_event_pays_as_often_as_it_counts_and_not_once_more(door):
    door.noisy_size("size")
    door.noisy_counts("counts", [ALL], [4.0])
    for _ in range(3):
        door.noisy_gradient("steps", [HEAD])
    assert door.reads == {"size": 1, "counts": 1, "steps": 3}
    for read, event in PAYS.items():
        with pytest.raises(UnpaidReadError, match="all are used"):
            READS[read](door, event, Blind())
    assert door.reads == {"size": 1, "counts": 1, "steps": 3}


@pytest.mark.parametrize("stddevs", [[3.99], [4.0, 1000.0], [5.6, 5.6]])
def test_counts_with_less_noise_than_planned_are_refused(door, stddevs):
    with pytest.raises(UnpaidReadError, match="more noise than this read would add"):
        door.noisy_counts("counts", [Blind()] * len(stddevs), stddevs)
    assert door.reads == {}


def test_a_read_that_fails_half_way_is_paid_for_all_the_same(door):
    with pytest.raises(MemoryError):
        door.noisy_counts("counts", [Breaks()], [4.0])
    assert door.reads == {"counts": 1}
