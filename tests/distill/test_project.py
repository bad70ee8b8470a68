"""The project file: it survives writing and reading, and every fault in it is named."""

import json
import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.common.keys import load_public_key, public_path_of
from distill.errors import ConfigError, DataError, DistillError, SchemaError
from distill.project import PROJECT_FILE, Project, new_dataset_id, write_project

SCHEMA = {
    "name": "loans",
    "target": "default",
    "columns": [
        {"name": "age", "kind": "integer", "min": 18, "max": 100},
        {"name": "default", "kind": "categorical", "categories": [0, 1]},
    ],
}
DATASET = "0123456789abcdef" * 2


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A table and its schema."""
    data, schema = tmp_path / "loans.csv", tmp_path / "loans.schema.json"
    data.write_text("age,default\n41,0\n")
    schema.write_text(json.dumps(SCHEMA))
    return {"data": data, "schema": schema}


def project_in(folder: Path, **settings: object) -> Project:
    paths = {name: folder / name for name in ("data", "schema", "key", "officer", "out")}
    known: dict[str, object] = {
        "folder": folder,
        "name": "bank",
        "dataset": DATASET,
        "ledger_file": folder / "ledger",
        **paths,
    }
    return Project(**(known | settings))  # type: ignore[arg-type]


def write(folder: Path, text: str) -> None:
    (folder / PROJECT_FILE).write_text(text)


GOOD = f"""
name = "bank"
dataset = "{DATASET}"
data = "a.csv"
schema = "s.json"
ledger = "ledger.db"
key = "keys/k.pem"
officer = "keys/o.pem"
out = "/elsewhere/b.distill"
"""


def test_a_project_survives_writing_and_reading(tmp_path: Path) -> None:
    project = project_in(tmp_path.resolve(), epsilon=0.5, delta=1e-6, data=tmp_path.parent / "shared" / "a.csv")
    write_project(project)
    assert Project.open(tmp_path) == project


def test_paths_are_relative_to_the_file_and_read_as_absolute_ones(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("a.csv", "sub/../../a.csv"))
    project = Project.open(tmp_path)
    assert project.data == tmp_path.resolve().parent / "a.csv"
    assert project.key == tmp_path.resolve() / "keys" / "k.pem"
    assert project.out == Path("/elsewhere/b.distill")
    assert (project.epsilon, project.delta) == (2.0, 1e-5)


def test_a_project_folder_can_move(tmp_path: Path, inputs: dict[str, Path]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    Project.create(old, **inputs)
    old.rename(new)
    project = Project.open(new)
    assert project.data == inputs["data"]
    assert project.ledger().dataset == project.dataset


def test_the_written_file_is_relative_where_it_can_be_and_explains_itself(tmp_path: Path) -> None:
    path = write_project(project_in(tmp_path, data=Path("/elsewhere/a.csv"), schema=tmp_path.parent / "s.json"))
    settings = tomllib.loads(path.read_text())
    assert settings["data"] == "/elsewhere/a.csv"
    assert settings["schema"] == "../s.json"
    assert settings["ledger"] == "ledger"
    assert "# " in path.read_text()


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    write_project(project_in(tmp_path))
    with pytest.raises(ConfigError, match=r"is there already and is kept.*--force"):
        write_project(project_in(tmp_path, name="other"))
    write_project(project_in(tmp_path, name="other"), overwrite=True)
    assert Project.open(tmp_path).name == "other"
    assert [p.name for p in tmp_path.iterdir()] == [PROJECT_FILE]


def test_a_folder_without_a_project_says_how_to_make_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"no distill\.toml in .*distill init.*--project DIR"):
            Project.open(folder)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"no distill\.toml in"):
        Project.open(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "is not valid TOML"),
        (GOOD.replace('data = "a.csv"', ""), r"missing setting\(s\): data"),
        (GOOD.replace('"a.csv"', "3"), "data must be a text in quotes"),
        (GOOD.replace('"a.csv"', '" "'), "data must be a text in quotes that is not empty"),
        (GOOD + "epsilon = 2\n", "unknown setting: epsilon"),
        (GOOD + "[budget]\nepsilion = 2\n", r"unknown setting in \[budget\]: epsilion. Known are epsilon, delta"),
        (GOOD + "budget = 2\n", r"budget must be a table"),
        (GOOD + '[budget]\nepsilon = "2"\n', r"budget.epsilon must be a number, not '2'"),
        (GOOD + "[budget]\nepsilon = true\n", r"budget.epsilon must be a number"),
        (GOOD + "[budget]\nepsilon = 0\n", "epsilon must be a finite number above 0"),
        (GOOD + "[budget]\nepsilon = nan\n", "epsilon must be a finite number above 0"),
        (GOOD + "[budget]\ndelta = 0.1\n", "delta must be below 0.01"),
        (GOOD.replace(DATASET, "mine"), "dataset must be 32 lower-case hex digits"),
        (GOOD.replace('"bank"', '"a/b"'), "name 'a/b' must start with a letter or digit"),
    ],
)
def test_a_faulty_file_is_refused_with_its_path_and_the_setting(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        Project.open(tmp_path)
    assert str(tmp_path / PROJECT_FILE) in str(caught.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / PROJECT_FILE).write_bytes(b'name = "\xff"\n')
    with pytest.raises(ConfigError, match="is not valid TOML"):
        Project.open(tmp_path)


def test_creating_a_project_makes_key_ledger_and_file(tmp_path: Path, inputs: dict[str, Path]) -> None:
    made = Project.create(tmp_path / "deep" / "bank_a", **inputs)
    assert Project.open(made.folder) == made
    assert made.name == "bank_a"
    assert made.out == made.folder / "bank_a.distill"
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    ledger = made.ledger()
    assert ledger.unit == "row"
    assert ledger.entries()[0].public_key == load_public_key(public_path_of(made.key))


def test_the_ledger_counts_the_schemas_unit(tmp_path: Path, inputs: dict[str, Path]) -> None:
    inputs["schema"].write_text(json.dumps(SCHEMA | {"unit": "customer"}))
    assert Project.create(tmp_path / "bank", **inputs).ledger().unit == "customer"


def test_forcing_a_new_file_keeps_key_ledger_and_data_set(tmp_path: Path, inputs: dict[str, Path]) -> None:
    first = Project.create(tmp_path / "bank", **inputs)
    key, head = first.key.read_bytes(), first.ledger().head()
    with pytest.raises(ConfigError, match="is there already"):
        Project.create(tmp_path / "bank", **inputs)
    second = Project.create(tmp_path / "bank", **inputs, name="renamed", overwrite=True)
    assert (second.dataset, second.name) == (first.dataset, "renamed")
    assert (second.key.read_bytes(), second.ledger().head()) == (key, head)


def test_two_projects_have_different_data_sets() -> None:
    assert len({new_dataset_id() for _ in range(100)}) == 100


@pytest.mark.parametrize("fault", ["data", "schema", "suffix", "name", "folder", "schema content"])
def test_nothing_is_made_when_something_is_wrong(tmp_path: Path, inputs: dict[str, Path], fault: str) -> None:
    folder, name = tmp_path / "bank", "bank"
    kinds: dict[str, type[DistillError]] = {"data": DataError, "suffix": DataError, "schema": SchemaError}
    if fault in ("data", "schema"):
        inputs[fault].unlink()
    elif fault == "suffix":
        inputs["data"] = inputs["data"].rename(tmp_path / "loans.xls")
    elif fault == "schema content":
        inputs["schema"].write_text("{}")
        kinds[fault] = SchemaError
    elif fault == "name":
        name = "../evil"
    else:
        folder.write_text("a file")
    with pytest.raises(kinds.get(fault, ConfigError)):
        Project.create(folder, **inputs, name=name)
    assert not folder.is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, inputs: dict[str, Path]) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="cannot make the folder"):
            Project.create(tmp_path / "bank", **inputs)
    finally:
        tmp_path.chmod(0o700)


FILE_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=30).filter(
    lambda text: text.strip() and not text.startswith("~") and text not in (".", "..")
)


@settings(deadline=None)
@given(file=FILE_NAMES, epsilon=st.floats(0.01, 1e3), delta=st.floats(1e-10, 9e-3))
def test_any_file_name_and_budget_survive(
    file: str, epsilon: float, delta: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("project").resolve()
    project = project_in(folder, data=folder / file, epsilon=epsilon, delta=delta)
    write_project(project)
    assert Project.open(folder) == project
