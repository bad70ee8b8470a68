"""Ledgers that were copied, rolled back or cut off, and keys that changed: what the hub makes of their bundles.

The ledgers are real; the bundles are small ones that carry their proofs.
"""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distill.common.keys import SigningKey, generate_key
from distill.data.schema import Schema
from distill.exchange import generator_codec
from distill.exchange.bundle import write_bundle
from distill.ledger import Ledger, Member, create_ledger, open_ledger
from distill.ledger.entries import store as ledger_store
from distill.ledger.entries.entry import sign_head
from distill.privacy.events import Event
from tests.end_to_end.small_banks import SCHEMA, distill, loans, refusal, result_of

EPSILON, DELTA = 1.5, 1e-6
EVENTS = (
    Event(name="size", mechanism="laplace", noise_multiplier=60.0),
    Event(name="all", mechanism="gaussian", noise_multiplier=8.0, round=1),
)
TABLE = Schema.model_validate(SCHEMA)


class Bank:
    """One institution with an officer, an operator, a ledger, and an outbox of bundles."""

    def __init__(self, home: Path, name: str = "north", dataset: str = "d" * 32) -> None:
        home.mkdir()
        self.home, self.name, self.dataset = home, name, dataset
        self.officer, self.operator = generate_key(home / "officer.pem"), generate_key(home / "operator.pem")
        keys = {"officer": self.officer, "operator": self.operator}
        members = [Member(role=role, name=role, public_key=key.public_hex) for role, key in keys.items()]  # type: ignore[arg-type]
        create_ledger(self.path, dataset=dataset, unit="row", key=self.operator, members=members)
        self.ledger.grant(epsilon=20, delta=1e-4, reason="for the tests", actor="officer", key=self.officer)

    @property
    def path(self) -> Path:
        return self.home / "ledger.db"

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.path)

    def copied_to(self, home: Path) -> "Bank":
        """A second machine with a copy of everything."""
        shutil.copytree(self.home, home)
        other = object.__new__(Bank)
        other.__dict__ = {**self.__dict__, "home": home}
        return other

    def trusted_by(self, hub: Path, name: str = "operator") -> None:
        result_of("hub", "trust", "add", self.home / f"{name}.pub", "--name", f"{self.name} {name}", "--hub", hub)

    def release(self, file: str, key: SigningKey | None = None) -> Path:
        """One more release and its bundle."""
        key = key or self.operator
        paid = self.ledger.reserve(
            epsilon=EPSILON, delta=DELTA, purpose="test", actor="operator", events=EVENTS[:1], key=key
        )
        paid.plan(EVENTS[1:])
        digest = write_bundle(
            self.home / f"{file}.distill",
            institution=self.name,
            dataset=self.dataset,
            schema=TABLE,
            privacy={"epsilon": EPSILON, "delta": DELTA, "unit": "row", "events": EVENTS},
            noisy_rows=300,
            class_prior=[0.75, 0.25],
            generator={},
            ledger=paid.proof(),
            samples=loans(300),
            tensors={},
            key=key,
        )
        paid.commit(digest)
        return self.home / f"{file}.distill"


class Samples:
    """Draws the bundle's own rows again; every class is as likely as in the bundle."""

    def __init__(self, bundle: Any) -> None:
        self.samples, self.noisy_rows = bundle.samples, bundle.manifest.noisy_rows
        self.class_prior = np.array(bundle.manifest.class_prior)
        self.head_information = 1.0
        self.count_noise = 10.0

    def draw(self, n: int, rng: np.random.Generator) -> pd.DataFrame:
        return self.samples.iloc[rng.integers(len(self.samples), size=n)].reset_index(drop=True)

    def class_log_probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        return np.log(np.tile(self.class_prior, (len(frame), 1)))


@pytest.fixture(autouse=True)
def samples_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_codec, "generator_of", Samples)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
def bank(tmp_path: Path, hub: Path) -> Bank:
    """A bank that the hub trusts."""
    made = Bank(tmp_path / "bank")
    made.trusted_by(hub)
    return made


def take(hub: Path, *bundles: Path) -> dict[str, Any]:
    """Check bundles and remember them."""
    return result_of("hub", "check", *bundles, "--remember", "--hub", hub)


def refused(hub: Path, *bundles: Path) -> str:
    """The line of `hub check`; train-global says the same and writes nothing, and what the hub knows stays as it was."""
    known = result_of("hub", "heads", "--hub", hub)
    line = refusal(distill("hub", "check", *bundles, "--hub", hub))
    out = hub.with_name("model")
    trained = distill("train-global", *bundles, "--hub", hub, "--out", out)
    assert trained.exit_code == 2
    assert trained.stderr.strip().splitlines()[-1] == line
    assert not out.exists()
    assert result_of("hub", "heads", "--hub", hub) == known
    return line


def heads(hub: Path) -> list[dict[str, Any]]:
    return list(result_of("hub", "heads", "--hub", hub)["ledgers"])


def test_a_second_release_of_one_ledger_is_taken_and_so_is_the_first_again(bank: Bank, hub: Path) -> None:
    one = bank.release("one")
    take(hub, one)
    two = bank.release("two")
    for bundles in ([two], [one], [one, two], [two, one]):
        assert take(hub, *bundles)["accepted"]
    (seen,) = heads(hub)
    assert [r["epsilon_total"] for r in seen["releases"]] == [EPSILON, 2 * EPSILON]
    assert [r["sequence"] for r in seen["releases"]] == [3, 6]
    assert bank.ledger.knows(seen["head"])


@pytest.mark.parametrize("in_between", [0, 1, 2], ids=["the same entries", "one release in between", "two in between"])
@pytest.mark.parametrize("together", [True, False], ids=["in one run", "one after the other"])
def test_a_ledger_copied_and_used_on_two_machines_is_caught(
    bank: Bank, hub: Path, tmp_path: Path, in_between: int, together: bool
) -> None:
    first = bank.release("first")
    take(hub, first)
    other = bank.copied_to(tmp_path / "other")
    mine = bank.release("mine")
    for number in range(in_between):
        other.release(f"unsent{number}")
    theirs = other.release("theirs")
    if not together:
        take(hub, mine)
    line = refused(hub, *([mine, theirs] if together else [theirs]))
    for words in ("mine.distill", "theirs.distill", "agree up to entry 5 and part after it", "two machines"):
        assert words in line


def test_a_backup_that_was_restored_over_a_release_is_caught(bank: Bank, hub: Path) -> None:
    take(hub, bank.release("one"))
    backup = bank.path.read_bytes()
    take(hub, bank.release("two"))
    bank.path.write_bytes(backup)
    assert bank.ledger.verify(bank.operator.public_hex), "the ledger alone looks well"
    assert "rolled back" in refused(hub, bank.release("three"))


def test_a_ledger_whose_end_was_cut_off_with_the_operators_key_is_caught(bank: Bank, hub: Path) -> None:
    take(hub, bank.release("one"))
    kept = bank.ledger.entries()[-1]
    take(hub, bank.release("two"))
    with contextlib.closing(sqlite3.connect(bank.path, isolation_level=None)) as connection:
        for name in ledger_store._TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM entries WHERE sequence > ?", (kept.sequence,))
        seal = sign_head(kept, bank.operator)
        connection.execute("UPDATE head SET sequence = ?, seal = ?", (kept.sequence, seal))
        for sql in ledger_store._TRIGGERS.values():
            connection.execute(sql)
    assert bank.ledger.verify(bank.operator.public_hex), "the ledger alone looks well"
    assert f"agree up to entry {kept.sequence} and part" in refused(hub, bank.release("three"))


def test_a_ledger_made_anew_for_the_same_data_set_is_caught(bank: Bank, hub: Path, tmp_path: Path) -> None:
    take(hub, bank.release("one"))
    again = Bank(tmp_path / "again")
    again.trusted_by(hub, "officer")
    assert "hub trust add" in refused(hub, again.release("two"))
    result_of("hub", "trust", "add", again.home / "operator.pub", "--name", "again", "--hub", hub)
    line = refused(hub, again.release("three"))
    assert "differ from the first entry on" in line
    assert again.operator.public_hex[:16] in line
    assert bank.operator.public_hex[:16] in line


def test_a_key_that_was_rotated_is_taken_and_trusted_from_then_on(bank: Bank, hub: Path) -> None:
    take(hub, bank.release("one"))
    new, newest = (generate_key(bank.home / f"{name}.pem") for name in ("new", "newest"))
    bank.ledger.rotate(new, reason="every year", actor="operator", key=bank.operator)
    bank.ledger.rotate(newest, reason="lost", actor="operator", key=new)
    (note,) = take(hub, bank.release("two", newest))["notes"]
    assert newest.public_hex[:16] in note
    keys = {k["public_key"]: k for k in result_of("hub", "trust", "list", "--hub", hub)["keys"]}
    assert set(keys) == {bank.operator.public_hex, newest.public_hex}
    assert bank.operator.public_hex[:16] in keys[newest.public_hex]["note"]
    result_of("hub", "trust", "remove", bank.operator.public_hex, "--hub", hub)
    assert take(hub, bank.release("three", newest))["notes"] == []
    assert "nobody vouched" in refused(hub, bank.home / "one.distill")


def test_an_operator_who_was_retired_and_kept_a_copy_is_caught(bank: Bank, hub: Path, tmp_path: Path) -> None:
    copy = bank.copied_to(tmp_path / "copy")
    new = generate_key(bank.home / "new.pem")
    words = {"reason": "left the house", "actor": "officer", "key": bank.officer}
    bank.ledger.enrol(Member(role="operator", name="new", public_key=new.public_hex), **words)
    bank.ledger.retire("operator", bank.operator.public_hex, **words)
    bank.trusted_by(hub, "new")
    take(hub, bank.release("new", new))
    old = copy.release("old")
    assert "agree up to entry 2 and part after it" in refused(hub, old)
    result_of("hub", "trust", "remove", "north operator", "--hub", hub)
    assert "trust in" in refused(hub, old)


def test_a_stranger_is_told_how_to_be_trusted_and_leaves_no_mark(hub: Path, tmp_path: Path) -> None:
    stranger = Bank(tmp_path / "stranger", name="Bank 'A' of $HOME")
    bundle = stranger.release("one")
    line = refused(hub, bundle)
    assert stranger.operator.public_hex in line
    assert "distill hub trust add KEY.pub" in line
    words = (bundle, "--hub", hub, "--allow-unknown-signers")
    said = result_of("train-global", *words, "--out", tmp_path / "model", "--rows", 100)
    assert "Nobody vouched" in said["notes"][0]
    assert not hub.exists()
    stranger.trusted_by(hub)
    assert take(hub, bundle)["bundles"][0]["vouched_by"] == stranger.operator.public_hex


def test_what_was_seen_counts_as_seen_even_if_training_fails(
    bank: Bank, hub: Path, monkeypatch, tmp_path: Path
) -> None:
    from server_train.hub import job as training

    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "draw_pool", fails)
    ran = distill("train-global", bank.release("one"), "--hub", hub, "--out", tmp_path / "model")
    assert ran.exit_code == 130
    assert [seen["dataset"] for seen in heads(hub)] == [bank.dataset]


def test_a_check_alone_records_nothing_and_people_read_what_it_found(bank: Bank, hub: Path) -> None:
    bundle = bank.release("one")
    shown = distill("hub", "check", bundle, "--hub", hub).stdout
    assert "All would be taken; nothing was recorded." in shown
    assert heads(hub) == []
    assert "Nothing was seen yet" in distill("hub", "heads", "--hub", hub).stdout
    take(hub, bundle)
    shown = distill("hub", "heads", "--hub", hub).stdout
    for words in (bank.dataset, bank.ledger.entries()[3].hash, "north", "one.distill"):
        assert words in shown.replace("\n", "")
    listed = distill("hub", "trust", "list", "--hub", hub).stdout
    assert "north operator" in listed


def test_the_memory_lies_in_the_projects_folder_unless_another_is_named(bank: Bank, tmp_path: Path) -> None:
    folder = tmp_path / "consortium"
    folder.mkdir()
    result_of("hub", "trust", "add", bank.home / "operator.pub", "--project", folder)
    said = result_of("hub", "trust", "list", "--project", folder)
    assert [k["name"] for k in said["keys"]] == ["operator"]
    assert json.dumps(said["hub"]) == json.dumps(str(folder / "hub.db"))
    words = ("--project", folder, "--rows", 100)
    assert result_of("train-global", bank.release("one"), *words)["notes"] == []
    assert len(result_of("hub", "heads", "--project", folder)["ledgers"]) == 1
