"""The commands ledger report, export and diff, as a privacy officer types them."""

import json
import shutil
from pathlib import Path

import pytest

from distill.privacy import accountant
from distill.project import Project
from tests.fakes.banks import SCHEMA, answer, begin, bundle_of, run


def project(tmp_path: Path, name: str) -> Path:
    """A project folder with a grant."""
    (tmp_path / "loans.csv").write_text("age,default\n" + "30,0\n" * 10)
    (tmp_path / "loans.json").write_text(json.dumps(SCHEMA))
    run("init", tmp_path / name, "--data", tmp_path / "loans.csv", "--schema", tmp_path / "loans.json")
    run("ledger", "grant", "--epsilon", "2", "--delta", "1e-4", "--reason", "board", "--project", tmp_path / name)
    return tmp_path / name


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A project with one planned release."""
    folder = project(tmp_path, "bank")
    begin(folder)
    return folder


def test_report_writes_a_page_and_tells_its_figures(bank, tmp_path):
    found = answer("ledger", "report", "-o", tmp_path / "audit.html", "--project", bank)
    verified = answer("ledger", "verify", "--project", bank)
    for figure in ("spent_epsilon", "granted_epsilon", "remaining_epsilon", "head", "vouched", "checks"):
        assert found[figure] == verified[figure]
    assert [r["epsilon_pld"] for r in found["releases"]] == [r["epsilon_pld"] for r in verified["releases"]]
    assert found["spent"]["epsilon"] == 0.5
    assert len(found["standing"]) == 1
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert found["head"] in page
    assert "<h1>bank</h1>" in page
    assert "sign the last page" in run("ledger", "report", "-o", tmp_path / "audit.html", "--project", bank).stdout


def test_report_of_a_ledger_by_itself_says_that_no_key_was_given(bank, tmp_path):
    told = run("ledger", "report", "-o", tmp_path / "a.html", "--ledger", Project.open(bank).ledger_file).stdout
    assert "No key was given from outside" in told


def test_report_adds_up_linked_ledgers_and_names_missing_ones(bank, tmp_path):
    other = project(tmp_path, "claims")
    begin(other)
    linked = ("ledger", "link", other / "ledger.db", "--name", "claims", "--reason", "same customers")
    report = ("ledger", "report", "-o", tmp_path / "a.html", "--project", bank)
    assert "not linked" in run(*report, "--with", other / "ledger.db", code=2).stderr
    assert not (tmp_path / "a.html").exists()
    run(*linked, "--project", bank)
    assert "Not included: claims" in run(*report).stdout
    assert answer(*report)["linked"]["complete"] is False
    found = answer(*report, "--with", other / "ledger.db")["linked"]
    assert (found["spent_epsilon"], found["complete"]) == (1.0, True)
    assert "For a customer in all" in run(*report, "--with", other / "ledger.db").stdout


def test_export_prints_or_writes_what_the_auditor_recomputes(bank, tmp_path, capsys):
    assert run("ledger", "export", "--project", bank, "-o", tmp_path / "l.json").exit_code == 0
    assert accountant.main([str(tmp_path / "l.json")]) == 0
    printed = json.loads(run("ledger", "export", "--project", bank).stdout)
    assert printed == json.loads((tmp_path / "l.json").read_text()) == answer("ledger", "export", "--project", bank)
    assert "no finished release" in run("ledger", "export", "--format", "registry", "--project", bank, code=2).stderr


def test_export_in_the_shape_of_the_registry(bank):
    bundle_of(bank, begin(bank))
    found = answer("ledger", "export", "--format", "registry", "--project", bank)
    curators = found["entry"]["deployment"]["basic"]["data_curators"]
    assert curators == [{"data_curator_name": "bank", "data_curator_type": None}]
    assert found["to_fill"]


def test_diff_tells_an_older_copy_an_equal_one_and_a_bundle(bank, tmp_path):
    ledger = Project.open(bank).ledger_file
    shutil.copy(ledger, tmp_path / "old.db")
    run("ledger", "export", "--project", bank, "-o", tmp_path / "l.json")
    assert answer("ledger", "diff", ledger, tmp_path / "l.json")["relation"] == "equal"
    assert "Equal: 4 entries" in run("ledger", "diff", ledger, tmp_path / "l.json").stdout
    bundle = bundle_of(bank, begin(bank))
    assert "is newer by 3 entries" in run("ledger", "diff", tmp_path / "old.db", ledger).stdout
    assert "is newer by 3 entries" in run("ledger", "diff", ledger, tmp_path / "old.db").stdout
    found = answer("ledger", "diff", bundle, ledger)
    assert (found["relation"], found["common"], found["a"]["kind"]) == ("first is older", 6, "bundle")
    assert "commit by operator" in found["b"]["after"][0]


def test_diff_refuses_a_fork_after_telling_it(bank, tmp_path):
    ledger = Project.open(bank).ledger_file
    shutil.copy(ledger, tmp_path / "copy.db")
    bundle = bundle_of(bank, begin(bank))
    grant = ("ledger", "grant", "--epsilon", "3", "--delta", "1e-4", "--reason", "on the copy", "--project", bank)
    run(*grant, "--ledger", tmp_path / "copy.db")
    result = run("ledger", "diff", ledger, tmp_path / "copy.db", code=2)
    assert "Forked: the first 4 entries are the same" in result.stdout
    assert "grant by" in result.stdout
    assert "epsilon 1, delta 2e-05" in result.stdout
    assert "part ways after entry 4" in result.stderr
    found = answer("ledger", "diff", bundle, tmp_path / "copy.db", code=2)
    assert (found["relation"], found["common"], found["together"]) == ("forked", 4, None)


def test_diff_says_which_entries_a_bundle_does_not_show(tmp_path):
    folder = project(tmp_path, "bank")
    ledger = Project.open(folder).ledger_file
    shutil.copy(ledger, tmp_path / "copy.db")
    begin(folder)
    bundle = bundle_of(folder, begin(folder))
    again = ("ledger", "grant", "--epsilon", "3", "--delta", "1e-4", "--reason", "on the copy", "--project", folder)
    run(*again, "--ledger", tmp_path / "copy.db")
    after = answer("ledger", "diff", bundle, tmp_path / "copy.db", code=2)["a"]["after"]
    assert ["(not shown by the bundle)" in line for line in after] == [True, True, False, False]
