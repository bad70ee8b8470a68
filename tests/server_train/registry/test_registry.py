"""The registry: whole versions, chains that show any change, promotions that can be gone back on."""

import multiprocessing
import sqlite3
from contextlib import closing

import pytest

from distill.errors import ConfigError, RegistryError, RegistryTamperedError
from server_train.registry.registry import Registry
from tests.fakes.hubs import BINARY, TERNARY
from tests.fakes.registries import FILES, card, institution, register


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "models.db", by="ann")


def behind_its_back(registry, *statements):
    """Change the file as somebody would who first drops the triggers, and puts them back."""
    with closing(sqlite3.connect(registry.path)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement, values in statements:
            assert connection.execute(statement, values).rowcount == 1
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()


def test_a_version_is_read_back_as_it_was_registered(registry):
    first, second = (
        register(registry),
        register(registry, auc=0.8, files={**FILES, "personal/north bank/model.json": b"p"}),
    )
    history = registry.verify()
    assert history.versions == (first, second)
    assert (first.number, first.made_by, first.previous, second.previous) == (1, "ann", "", first.digest)
    assert registry.files(2) == {**FILES, "personal/north bank/model.json": b"p"}
    assert (first.record.kind, first.record.target, first.record.recipe["rows"]) == ("mlp", "default", 900)
    assert [(i.institution, i.sha256, i.ledger_head) for i in first.record.inputs] == [("alder", "a" * 64, "c" * 64)]
    assert first.record.inputs[0].model_extra["label_balance"] == 0.64
    assert second.headline == ("roc_auc", 0.8)
    assert "per_class_auc" not in first.record.metrics


def test_without_a_file_there_is_nothing_and_the_mend_is_told(registry):
    for ask in (
        registry.history,
        registry.verify,
        lambda: registry.files(1),
        lambda: registry.promote(1),
        registry.rollback,
    ):
        with pytest.raises(RegistryError, match=r"no registry of models at .*`distill train-global` makes one"):
            ask()
    assert not registry.path.exists()


def test_numbers_that_json_lacks_are_kept_as_none(registry):
    version = register(registry, auc=float("nan"), members=[institution(head_information=float("inf"))])
    assert version.record.metrics["roc_auc"] is None
    assert version.headline == ("roc_auc", None)
    assert version.record.inputs[0].model_extra["head_information"] is None
    registry.verify()


@pytest.mark.parametrize(
    "name",
    ["../out", "/out", "a/../b", "", "a//b", ".hidden", "a/.b", "a\\b", "a\nb", "a/b/c/d/e", "x" * 300, "a.", "a /b"],
)
def test_names_that_step_out_of_the_folder_are_refused(registry, name):
    with pytest.raises(RegistryError, match="plain relative path"):
        register(registry, files={**FILES, name: b"x"})
    assert not registry.path.exists()


def test_a_version_that_is_too_large_is_refused(registry, monkeypatch):
    monkeypatch.setattr("server_train.registry.version.LARGEST_FILE", 3)
    with pytest.raises(RegistryError, match="cannot be kept"):
        register(registry)
    monkeypatch.undo()
    monkeypatch.setattr("server_train.registry.version.LARGEST_VERSION", 3)
    with pytest.raises(RegistryError, match="1 to 2000 files"):
        register(registry)
    with pytest.raises(RegistryError, match="this model has 0 files"):
        register(registry, files={})


def test_a_write_that_fails_on_the_way_leaves_no_part_of_a_version(registry):
    register(registry)
    with pytest.raises(RegistryError, match="not supported"):
        # The last file cannot be stored: by then the version and the other files stand in the transaction.
        registry.add(card(), Unstorable(FILES), {"rows": 1})
    assert len(registry.verify().versions) == 1
    with closing(sqlite3.connect(registry.path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM files").fetchone()[0] == len(FILES)


class Unstorable(dict):
    """Files whose last one turns into something that no database takes, once it was hashed."""

    asked = 0

    def items(self):
        self.asked += 1
        return [*super().items(), *([("last", b"x")] if self.asked <= 2 else [("last", object())])]


def test_what_was_registered_cannot_be_changed_by_statements(registry):
    register(registry)
    registry.promote(1)
    with closing(sqlite3.connect(registry.path)) as connection:
        for table in ("versions", "files", "marks"):
            column = {"versions": "digest", "files": "content", "marks": "digest"}[table]
            for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
                with pytest.raises(sqlite3.IntegrityError, match="stays as it is"):
                    connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "values", "problem"),
    [
        (
            "UPDATE files SET content = ? WHERE version = 1 AND name = 'model.safetensors'",
            (b"weightz",),
            "not the file",
        ),
        ("DELETE FROM files WHERE version = 2 AND name = 'report.html'", (), "not those that were recorded"),
        ("INSERT INTO files VALUES (2, 'model.onnx', x'00')", (), "not those that were recorded"),
        ("INSERT INTO files VALUES (9, 'model.json', x'00')", (), "files of no version"),
        ("UPDATE versions SET digest = ? WHERE number = 1", ("0" * 64,), "version 1 is missing or not"),
        ("UPDATE versions SET body = replace(body, 'ann', 'bob') WHERE number = 1", (), "version 1 is missing or not"),
        ("DELETE FROM versions WHERE number = 1", (), "version 1 is missing or not"),
        ("DELETE FROM marks WHERE sequence = 1", (), "mark 1 is missing or not"),
        ("DELETE FROM versions WHERE number = 3", (), "version 3, which was promoted, is gone"),
        ("UPDATE marks SET body = replace(body, 'ann', 'bob') WHERE sequence = 2", (), "mark 2 is missing or not"),
    ],
)
def test_a_change_behind_its_back_shows(registry, statement, values, problem):
    for _ in range(3):
        register(registry)
    registry.promote(1)
    registry.promote(3)
    registry.verify()
    if "replace(body" in statement:
        statement = statement.replace(
            "replace(body, 'ann', 'bob')", "CAST(replace(CAST(body AS TEXT), 'ann', 'bob') AS BLOB)"
        )
    behind_its_back(registry, (statement, values))
    with pytest.raises(RegistryTamperedError, match=problem):
        registry.verify()


def test_a_version_with_a_digest_of_its_own_does_not_fit_the_chain(registry, tmp_path):
    register(registry)
    register(registry)
    other = Registry(tmp_path / "other.db", by="mallory")
    false = register(other)
    behind_its_back(registry, ("UPDATE versions SET body = ?, digest = ? WHERE number = 1", (false.body, false.digest)))
    with pytest.raises(RegistryTamperedError, match="version 2 does not follow"):
        registry.history()


def test_a_file_that_was_changed_is_not_exported(registry):
    register(registry)
    behind_its_back(registry, ("UPDATE files SET content = x'00' WHERE name = 'model.json'", ()))
    with pytest.raises(RegistryTamperedError, match=r"model\.json of version 1"):
        registry.files(1)
    assert len(registry.history().versions) == 1, "the list does not read the files"


def test_another_file_is_no_registry(registry):
    with closing(sqlite3.connect(registry.path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    with pytest.raises(RegistryError, match="not a registry of models"):
        registry.history()


def test_promotions_and_rollbacks_are_a_stack_with_a_history(registry):
    for _ in range(4):
        register(registry)
    for number in (1, 3, 2):
        registry.promote(number, reason=f"to {number}")
    digest = BINARY.digest()
    assert registry.history().current == {digest: 2}
    assert [registry.rollback().version, registry.rollback(reason="worse").version] == [3, 1]
    with pytest.raises(ConfigError, match="nothing was promoted before version 1"):
        registry.rollback()
    registry.promote(4)
    assert registry.rollback().version == 1
    history = registry.verify()
    assert history.current == {digest: 1}
    assert [(m.action, m.version) for m in history.marks] == [
        *(("promote", n) for n in (1, 3, 2)), ("rollback", 3), ("rollback", 1), ("promote", 4), ("rollback", 1)
    ]  # fmt: skip
    assert [(m.by, m.reason) for m in history.marks][1::3] == [("ann", "to 3"), ("ann", "worse")]


def test_what_cannot_be_promoted_is_refused_with_a_reason(registry):
    register(registry)
    register(registry, rehearsal=True)
    registry.promote(1)
    for number, problem in (
        (1, "current one already"),
        (2, "REHEARSAL, NOT PRIVATE"),
        (3, "versions 1 to 2"),
        (0, "no version 0"),
    ):
        with pytest.raises(ConfigError, match=problem):
            registry.promote(number)
    for reason in ("x" * 3000, "bell \a"):
        with pytest.raises(ConfigError, match="--reason"):
            registry.promote(1, reason=reason)
    assert registry.promote(2, allow_rehearsal=True).version == 2


def test_each_schema_has_a_current_version_of_its_own(registry):
    renamed = TERNARY.model_copy(update={"name": "claims"})
    register(registry)
    with pytest.raises(ConfigError, match="no version is promoted yet"):
        registry.rollback()
    for schema in (BINARY, renamed, renamed):
        register(registry, schema=schema)
    for number in (1, 2, 3, 4):
        registry.promote(number)
    assert registry.history().current == {BINARY.digest(): 2, renamed.digest(): 4}
    with pytest.raises(ConfigError, match="several schemas are promoted; name one of: 'claims'"):
        registry.rollback()
    with pytest.raises(ConfigError, match="'cl' is not one promoted schema"):
        registry.rollback(schema="cl")
    assert registry.rollback(schema="claims").version == 3
    assert registry.rollback(schema=BINARY.digest()[:8]).version == 1


def _busy(path, barrier):
    barrier.wait(timeout=60)
    for _ in range(5):
        register(Registry(path, by="many"))


def test_several_processes_register_at_once_and_nothing_is_lost(registry):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_busy, args=(registry.path, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert [v.number for v in registry.verify().versions] == list(range(1, 16))
    assert sorted(p.name for p in registry.path.parent.iterdir()) == ["models.db"]
