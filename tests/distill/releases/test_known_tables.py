"""A table with a ledger gets no second one unnoticed, and what is kept for that stays closed to others."""

import contextlib
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from distill.common.keys import SigningKey, generate_key
from distill.data.encoded_table import EncodedTable
from distill.data.grids import base_grids
from distill.data.schema import Schema
from distill.errors import BudgetError, ConfigError, CopiedTableError, StateError
from distill.ledger import Ledger, create_ledger
from distill.project import new_dataset_id
from distill.releases import known_tables
from distill.releases.known_tables import KEPT, remembered, state_folder

SCHEMA = Schema.model_validate(
    {
        "name": "accounts",
        "target": "closed",
        "columns": [
            {"name": "balance", "kind": "continuous", "min": 0, "max": 1},
            {"name": "months", "kind": "integer", "min": 0, "max": 500},
            {"name": "closed", "kind": "categorical", "categories": ["no", "yes"]},
        ],
    }
)


def table(seed: int, rows: int = 500) -> EncodedTable:
    rng = np.random.default_rng(seed)
    return EncodedTable([rng.integers(0, g.cells, rows).astype(g.code_type) for g in base_grids(SCHEMA)], None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "distill"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return generate_key(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture
def ledgers(tmp_path: Path, key: SigningKey) -> list[Ledger]:
    """Three data sets."""
    paths = [tmp_path / name / "ledger.db" for name in ("north", "south", "east")]
    return [create_ledger(path, dataset=new_dataset_id(), unit="row", key=key) for path in paths]


def release(folder: Path, rows: EncodedTable, ledger: Ledger) -> None:
    """A reservation that goes through."""
    with remembered(folder, rows, SCHEMA, ledger, ledger.path.parent.name):
        pass


# ---- copies ---------------------------------------------------------------------------------------------------------


def test_a_copy_under_another_ledger_is_refused_before_the_body_runs(folder, ledgers):
    release(folder, table(1), ledgers[0])
    with pytest.raises(CopiedTableError) as refused, remembered(folder, table(1), SCHEMA, ledgers[1], "south"):
        pytest.fail("the body ran")
    text = str(refused.value)
    assert f"'north' (ledger {ledgers[0].path})" in text
    assert f"`distill ledger link {ledgers[0].path} --reason TEXT`" in text
    assert isinstance(refused.value, BudgetError)
    release(folder, table(2), ledgers[1])  # another table is welcome


def test_the_refusal_names_every_ledger_that_has_the_table(folder, ledgers, key):
    release(folder, table(1), ledgers[0])
    ledgers[1].link(ledgers[0].dataset, name="north", reason="shared", actor="officer", key=key)
    release(folder, table(1), ledgers[1])
    with pytest.raises(CopiedTableError, match=r"'north' .* and 'south' "):
        release(folder, table(1), ledgers[2])


def test_the_same_data_set_releases_again(folder, ledgers):
    release(folder, table(1), ledgers[0])
    release(folder, table(1), ledgers[0])


def test_a_link_lets_a_copy_pass_in_the_ledger_that_has_it(folder, ledgers, key):
    release(folder, table(1), ledgers[0])
    ledgers[1].link(ledgers[0].dataset, name="north", reason="same customers", actor="officer", key=key)
    release(folder, table(1), ledgers[1])
    with pytest.raises(CopiedTableError, match="'south'"):
        release(folder, table(1), ledgers[0])  # which does not declare it


def test_nothing_is_remembered_if_the_reservation_fails(folder, ledgers):
    with pytest.raises(BudgetError, match="granted"), remembered(folder, table(1), SCHEMA, ledgers[0], "north"):
        raise BudgetError("nothing has been granted")
    release(folder, table(1), ledgers[1])


def test_no_folder_means_no_check(tmp_path, ledgers, monkeypatch):
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "state"))
    for ledger in ledgers:
        with remembered(None, table(1), SCHEMA, ledger, "any"):
            pass
    assert not (tmp_path / "state").exists()


def test_the_last_tables_of_a_data_set_are_known(folder, ledgers):
    """Also after one of them came several times."""
    for seed in [*range(KEPT + 1), KEPT, KEPT]:
        release(folder, table(seed), ledgers[0])
    for seed in range(1, KEPT + 1):
        with pytest.raises(CopiedTableError):
            release(folder, table(seed), ledgers[1])
    release(folder, table(0), ledgers[1])  # the oldest is forgotten
    with pytest.raises(CopiedTableError):
        release(folder, table(KEPT), ledgers[2])  # and the others' tables are kept


def test_of_two_copies_at_once_one_is_refused(folder, ledgers, monkeypatch):
    """The second waits while the first reserves, and then knows its table."""
    inside, refused = threading.Event(), []
    release(folder, table(9), ledgers[2])  # folder and secret are there

    def first() -> None:
        with remembered(folder, table(1), SCHEMA, ledgers[0], "north"):
            inside.set()
            waiting.join(0.5)

    def second() -> None:
        inside.wait(20)
        with contextlib.suppress(CopiedTableError):
            release(folder, table(1), ledgers[1])
            return
        refused.append(True)

    waiting = threading.Thread(target=second)
    waiting.start()
    first()
    waiting.join(20)
    assert refused == [True]


# ---- what is kept ---------------------------------------------------------------------------------------------------


@pytest.fixture
def used(folder, ledgers) -> Path:
    """The folder after one release."""
    release(folder, table(1), ledgers[0])
    return folder


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_only_the_owner_can_read_what_is_kept(used, ledgers):
    release(used, table(2), ledgers[1])
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (used, *used.iterdir())}
    assert modes == {"distill": 0o700, "tables.json": 0o600, "tables.key": 0o600, "tables.lock": 0o600}


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("name", ["tables.key", "tables.json"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_what_others_can_read_or_change_is_refused(used, ledgers, name, mode):
    (used / name).chmod(mode)
    with pytest.raises(StateError, match=rf"{name} can be read or changed by other users .* `chmod 600 "):
        release(used, table(2), ledgers[1])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tables.json", b"{"),
        ("tables.json", b"\xff"),
        ("tables.json", None),
        ("tables.key", b"short"),
        ("tables.lock", b"no lock at all" * 100),
    ],
)
def test_damage_is_told_and_nothing_is_reserved(used, ledgers, name, content):
    path = used / name
    cut = path.read_bytes().replace(b'"hashes":"', b'"hashes":"!', 1)
    path.write_bytes(cut if content is None else content)
    with pytest.raises(StateError, match=name), remembered(used, table(2), SCHEMA, ledgers[1], "south"):
        pytest.fail("the body ran")


def test_a_lost_secret_is_told(used, ledgers):
    (used / "tables.key").unlink()
    with pytest.raises(StateError, match=r"made with another tables\.key"):
        release(used, table(1), ledgers[1])


def test_a_removed_folder_removes_the_check_and_nothing_else(used, ledgers):
    for path in used.iterdir():
        path.unlink()
    release(used, table(1), ledgers[1])


def test_a_lock_that_is_not_let_go_is_told(used, ledgers, monkeypatch):
    monkeypatch.setattr(known_tables, "BUSY_SECONDS", 0.05)
    with (
        remembered(used, table(1), SCHEMA, ledgers[0], "north"),
        pytest.raises(StateError, match=r"tables\.lock is locked"),
    ):
        release(used, table(2), ledgers[1])


def test_a_folder_that_cannot_be_made_is_told(tmp_path, ledgers):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot make the folder of known tables"):
        release(tmp_path / "file" / "state", table(1), ledgers[0])


# ---- where it lies --------------------------------------------------------------------------------------------------


def test_the_folder_is_the_users_own(tmp_path, monkeypatch):
    project = tmp_path / "home" / "project"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DISTILL_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert state_folder(project) == tmp_path / "home" / ".local" / "state" / "distill"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/paths/do/not/count")
    assert state_folder(project) == tmp_path / "home" / ".local" / "state" / "distill"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder(project) == tmp_path / "xdg" / "distill"
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "own"))
    assert state_folder(project) == tmp_path / "own"


@pytest.mark.parametrize("inside", ["", "state", "state/deep"])
def test_the_folder_is_not_inside_the_project(tmp_path, monkeypatch, inside):
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "project" / inside))
    with pytest.raises(ConfigError, match="inside the project's folder"):
        state_folder(tmp_path / "project")
