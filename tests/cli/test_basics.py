"""What all commands share: speed, help, versions, errors in one line or as JSON, and the commands init and schema."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from cli.app import app
from cli.shared.output import Report, project_at, reporting
from distill.errors import BudgetError, ConfigError

HEAVY = ("torch", "pandas", "numpy", "sklearn", "scipy", "pyarrow", "matplotlib", "dp_accounting", "opendp", "jinja2")
COMMANDS = (
    "init",
    "schema",
    "keys",
    "ledger",
    "plan",
    "fit",
    "bundle",
    "hub",
    "train-global",
    "evaluate",
    "predict",
    "demo",
)
SECRET = "Xanthippe"  # a value that no message may quote
RUN = "from cli.app import main; main()"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def shell(*arguments: str | Path, **settings: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", RUN, *(str(a) for a in arguments)]
    return subprocess.run(command, text=True, timeout=60, check=False, **settings)


def one_line(text: str) -> str:
    """The one line that `text` must be."""
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text.strip()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A table and its schema."""
    data, schema = tmp_path / "loans.csv", tmp_path / "loans.schema.json"
    data.write_text("age,home,default\n" + "".join(f"{20 + i % 50},own,{i % 2}\n" for i in range(100)))
    home = {"name": "home", "kind": "categorical", "categories": ["own", "rent"]}
    age = {"name": "age", "kind": "integer", "min": 18, "max": 100}
    target = {"name": "default", "kind": "categorical", "categories": [0, 1]}
    schema.write_text(json.dumps({"name": "loans", "target": "default", "columns": [age, home, target]}))
    return {"data": data, "schema": schema}


# ---- speed and help -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["fit"], ["ledger"], ["train-global"], ["evaluate"]])
def test_help_imports_no_heavy_library(words: list[str]) -> None:
    code = f"""
import sys
from cli.app import main
sys.argv = ["distill", *{words}, "--help"]
try:
    main()
finally:
    print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_help_names_every_command_and_each_has_its_own() -> None:
    text = run("--help").stdout
    for command in COMMANDS:
        assert f"\n  {command} " in text
        assert run(command, "--help").exit_code == 0
    for command in ("draft", "check"):
        assert run("schema", command, "--help").exit_code == 0


def test_the_version_is_that_of_the_package() -> None:
    from distill import __version__

    assert run("--version").stdout == f"distill {__version__}\n"


def test_a_misspelt_command_is_wrong_usage() -> None:
    result = run("inti")
    assert result.exit_code == 2
    assert "init" in result.stderr


# ---- errors ---------------------------------------------------------------------------------------------------------


def fail_with(error: BaseException, as_json: bool = False, **settings: str) -> int:
    """The exit code of a command in which `error` arises."""
    with pytest.raises(typer.Exit) as caught, reporting(as_json, **settings):
        raise error
    return caught.value.exit_code


def test_a_refusal_is_one_line_on_stderr_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(BudgetError("too much.\nAsk for less.")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert one_line(err) == "error: too much. Ask for less."


def test_with_json_a_refusal_is_an_object_on_stderr_and_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(BudgetError("too much."), as_json=True) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {"error": {"type": "BudgetError", "message": "too much."}}


def test_an_interruption_is_one_line_and_says_what_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(KeyboardInterrupt(), interrupted="The reservation stands.") == 130
    assert one_line(capsys.readouterr().err) == "error: interrupted. The reservation stands."


@pytest.mark.parametrize(
    ("number", "mend"),
    [(errno.ENOSPC, "Free some space"), (errno.EACCES, "Check the permissions"), (errno.EROFS, "Choose a folder")],
)
def test_a_problem_with_the_disk_names_file_and_mend(
    number: int, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(OSError(number, os.strerror(number), "/data/out.distill")) == 2
    line = one_line(capsys.readouterr().err)
    assert line.startswith(f"error: /data/out.distill: {os.strerror(number)}. ")
    assert mend in line


def test_a_defect_shows_where_it_arose_but_not_its_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTILL_DEBUG", raising=False)
    assert fail_with(ValueError(f"could not convert {SECRET}")) == 1
    err = capsys.readouterr().err
    assert SECRET not in err
    assert "unexpected ValueError" in err
    assert "test_basics.py" in err
    monkeypatch.setenv("DISTILL_DEBUG", "1")
    with pytest.raises(ValueError, match=SECRET), reporting(False):
        raise ValueError(SECRET)


def test_a_commands_own_exit_code_passes_through() -> None:
    with pytest.raises(typer.Exit) as caught, reporting(False):
        raise typer.Exit(7)
    assert caught.value.exit_code == 7


def test_a_report_is_one_json_object_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    Report(as_json=True)(
        {
            "path": Path("a/b"),
            "nan": float("nan"),
            "n": np.int64(3),
            "x": np.ones(2),
            "set": {1},
            "none": None,
            "é": True,
        }
    )
    parsed = json.loads(one_line(capsys.readouterr().out))
    assert parsed == {"path": "a/b", "nan": None, "n": 3, "x": [1.0, 1.0], "set": [1], "none": None, "é": True}


def test_a_report_for_people_is_text_or_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    report = Report(as_json=False)
    report({"a": 1}, "all [is] well")
    table = Table("column")
    table.add_row("[age]")
    report({"a": 1}, table)
    report({"a": 1, "b": Path("x")})
    report.note("by the way")
    out, err = capsys.readouterr()
    assert out.startswith("all [is] well\n")
    assert "[age]" in out
    assert out.endswith("a: 1\nb: x\n")
    assert err == "by the way\n"


def test_a_reader_who_leaves_gets_no_traceback(files: dict[str, Path]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = shell("schema", "draft", files["data"], stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.returncode in (1, 141)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_one_line(files: dict[str, Path]) -> None:
    with open("/dev/full", "w") as full:
        done = shell("schema", "check", files["schema"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("error: ")
    assert "No space left" in done.stderr


def test_a_project_is_looked_up_in_its_folder(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="distill init"):
        project_at(tmp_path)
    run("init", tmp_path, "--data", files["data"], "--schema", files["schema"])
    assert project_at(tmp_path).data == files["data"]


# ---- init -----------------------------------------------------------------------------------------------------------


def test_init_sets_up_a_project_and_says_what_comes_next(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = tmp_path / "bank_a"
    result = run("init", folder, "--data", files["data"], "--schema", files["schema"], "--name", "Bank A")
    assert result.exit_code == 0
    for step in ("distill ledger grant", "distill plan", "distill fit"):
        assert step in result.stdout
    project = project_at(folder)
    assert project.name == "Bank A"
    assert project.ledger_file.exists()
    assert project.key.exists()


def test_init_without_a_folder_takes_the_current_one(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("init", "--data", files["data"].name, "--schema", files["schema"].name, "--json")
    payload = json.loads(one_line(result.stdout))
    assert payload["schema_confirmed"] is True
    assert payload["data"] == str(files["data"])
    assert project_at(tmp_path).dataset == payload["dataset"]


def test_init_does_not_overwrite_a_project_unless_forced(tmp_path: Path, files: dict[str, Path]) -> None:
    arguments = ["init", tmp_path / "bank", "--data", files["data"], "--schema", files["schema"]]
    assert run(*arguments).exit_code == 0
    before = (tmp_path / "bank" / "distill.toml").read_text()
    result = run(*arguments)
    assert result.exit_code == 2
    assert "--force" in one_line(result.stderr)
    assert (tmp_path / "bank" / "distill.toml").read_text() == before
    assert run(*arguments, "--force").exit_code == 0


def test_init_says_when_the_schema_is_still_a_draft(tmp_path: Path, files: dict[str, Path]) -> None:
    draft = tmp_path / "draft.json"
    assert run("schema", "draft", files["data"], "-o", draft).exit_code == 0
    result = run("init", tmp_path / "bank", "--data", files["data"], "--schema", draft)
    assert "confirm the schema" in result.stdout


@pytest.mark.parametrize("missing", ["data", "schema"])
def test_init_refuses_files_that_are_not_there(tmp_path: Path, files: dict[str, Path], missing: str) -> None:
    files[missing].unlink()
    result = run("init", tmp_path / "bank", "--data", files["data"], "--schema", files["schema"])
    assert result.exit_code == 2
    assert files[missing].name in one_line(result.stderr)
    assert not (tmp_path / "bank").exists()


# ---- schema ---------------------------------------------------------------------------------------------------------


def test_a_draft_goes_to_stdout_with_its_warning_on_stderr(files: dict[str, Path]) -> None:
    result = run("schema", "draft", files["data"])
    assert json.loads(result.stdout)["target"] == "default"
    assert "DRAFT FROM THE DATA" in result.stderr
    assert "--target" in result.stderr


def test_a_draft_file_is_not_replaced_unless_forced(tmp_path: Path, files: dict[str, Path]) -> None:
    out = tmp_path / "out.json"
    arguments: list[str | Path] = ["schema", "draft", files["data"], "-o", out, "--target", "home"]
    files["data"].write_text(files["data"].read_text() + "30,rent,1\n")
    assert run(*arguments).exit_code == 0
    assert json.loads(out.read_text())["target"] == "home"
    assert run(*arguments).exit_code == 2
    result = run(*arguments, "--force", "--json")
    payload = json.loads(one_line(result.stdout))
    assert payload["out"] == str(out)
    assert payload["schema"] == json.loads(out.read_text())


def test_a_schema_alone_is_checked(tmp_path: Path, files: dict[str, Path]) -> None:
    result = run("schema", "check", files["schema"])
    assert result.exit_code == 0
    assert "is a sound schema: 3 columns, target 'default' with 2 classes; confirmed" in result.stdout
    run("schema", "draft", files["data"], "-o", tmp_path / "draft.json")
    result = run("schema", "check", tmp_path / "draft.json", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["unconfirmed"] == ["age", "home", "default"]
    (tmp_path / "bad.json").write_text("{")
    result = run("schema", "check", tmp_path / "bad.json")
    assert result.exit_code == 2
    assert "is not valid JSON" in one_line(result.stderr)


def test_a_table_is_checked_against_a_schema(files: dict[str, Path]) -> None:
    arguments: list[str | Path] = ["schema", "check", files["data"], "--schema", files["schema"]]
    result = run(*arguments)
    assert result.exit_code == 0
    assert "fits schema 'loans'" in result.stdout
    files["data"].write_text(files["data"].read_text() + f"{SECRET},{SECRET},0\n")
    result = run(*arguments, "--json")
    assert result.exit_code == 2
    assert SECRET not in result.output
    payload = json.loads(one_line(result.stdout))
    assert payload["fits"] is False
    assert [finding["column"] for finding in payload["findings"]] == ["age", "home"]
    assert "error: column 'age'" in run(*arguments).stdout


def test_a_table_is_checked_against_the_projects_schema(tmp_path: Path, files: dict[str, Path]) -> None:
    assert run("schema", "check", files["data"], "--project", tmp_path / "bank").exit_code == 2
    run("init", tmp_path / "bank", "--data", files["data"], "--schema", files["schema"])
    assert run("schema", "check", files["data"], "--project", tmp_path / "bank").exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"age;home;default\n1;own;0\n", "semicolons"),
        ("t.csv", b"age,home,default\n1,own\n", "row 2"),
        ("t.csv", b"age,home,default\n1,\xe9,0\n", "is not UTF-8"),
        ("t.parquet", b"PAR1", "is not a readable Parquet file"),
        ("t.txt", b"age", "suffix"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, files: dict[str, Path], name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for arguments in (["draft", path], ["check", path, "--schema", files["schema"]]):
        result = run("schema", *arguments)
        assert result.exit_code == 2
        assert words in one_line(result.stderr)
