"""A second project on the same table is refused until an officer declares it; what is kept for that never leaves."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from distill.releases import fit as pipeline
from tests.end_to_end.small_banks import EPSILON, Bank, distill, loans, make_bank, refusal

pytestmark = pytest.mark.usefixtures("quick")


def state() -> Path:
    return Path(os.environ["DISTILL_STATE"])


def fit(bank: Bank, *words: object) -> Result:
    """Fit on the one machine of this test."""
    return distill("fit", "--project", bank.folder, *words)


def begun(bank: Bank, *words: object) -> bool:
    """Whether a fit gets past its reservation; it is interrupted there, to be quick."""

    def stop_here(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "distil", stop_here)
        return fit(bank, *words).exit_code == 130


@pytest.fixture
def second(bank: Bank, tmp_path: Path) -> Bank:
    """A project on a copy of the first one's table, after the first reserved: other file, names, order."""
    assert begun(bank)
    rows = loans(1500).sample(frac=1, random_state=0).rename(columns={"income": "amount", "age": "years"})
    schema = json.loads(json.dumps(bank.schema).replace('"income"', '"amount"').replace('"age"', '"years"'))
    return make_bank(tmp_path / "copy", rows[rows.columns[::-1]], schema=schema)


def test_a_copy_is_refused_until_the_officer_links_it(bank, second):
    before = second.ledger.head()
    told = refusal(fit(second))
    assert f"'bank' (ledger {bank.project.ledger_file})" in told
    assert second.ledger.head() == before
    assert not second.project.out.exists()
    failed = json.loads(fit(second, "--json").stderr)
    assert failed["error"]["type"] == "CopiedTableError"

    words = told.split("`")[1].replace("--reason TEXT", "--reason shared --project").split()
    assert words[:3] == ["distill", "ledger", "link"]
    assert distill(*words[1:], second.folder).exit_code == 0
    ran = fit(second)
    assert ran.exit_code == 0, ran.output
    assert "  linked     to bank: for customers in both, budgets add up" in ran.stdout


def test_the_refusal_holds_no_figure(bank, second):
    """Yes or no is what the operator learns, not how many rows are shared."""
    told = refusal(fit(second))
    assert not any(c.isdigit() for c in told.replace(str(bank.project.ledger_file), "PATH"))


def test_the_json_names_linked_data_sets_whether_or_not_rows_are_shared(bank, tmp_path):
    other = make_bank(tmp_path / "other", loans(1500, seed=3))
    assert (
        distill("ledger", "link", other.project.ledger_file, "--reason", "r", "--project", bank.folder).exit_code == 0
    )
    ran = fit(bank, "--json")
    assert json.loads(ran.stdout)["linked"] == ["other"]


def test_a_rehearsal_is_neither_refused_nor_remembered(bank, second, tmp_path):
    assert begun(second, "--rehearsal", 1)
    other = make_bank(tmp_path / "other", loans(1500, seed=3))
    assert begun(other, "--rehearsal", 1)
    again = make_bank(tmp_path / "again", loans(1500, seed=3))
    assert begun(again)


def test_a_refused_reservation_leaves_the_table_free(tmp_path):
    poor, other = (make_bank(tmp_path / name, loans(1500), grant=g) for name, g in (("poor", None), ("other", EPSILON)))
    assert "nothing has been granted" in refusal(fit(poor))
    assert begun(other)


def test_a_state_inside_the_project_is_refused(bank, monkeypatch):
    monkeypatch.setenv("DISTILL_STATE", str(bank.folder / "state"))
    assert "inside the project's folder" in refusal(fit(bank))
    assert not (bank.folder / "state").exists()


def test_neither_secret_nor_hashes_are_in_the_project_or_in_print(bank):
    ran = fit(bank, "--compress", "full", "--json")
    assert ran.exit_code == 0, ran.output
    secret = (state() / "tables.key").read_bytes()
    kept = json.loads((state() / "tables.json").read_text())
    sketches = [s for known in kept["tables"] for s in known["sketches"]]
    raw = [base64.b64decode(s["hashes"]) for s in sketches]
    hashes = {blob[i : i + 8] for blob in raw for i in range(0, len(blob), 8)}
    assert len(hashes) > 1000
    told = {"stdout": ran.stdout.encode(), "stderr": ran.stderr.encode()}
    for path in bank.folder.rglob("*"):
        if path.is_file() and path != bank.project.data:
            told[path.name] = path.read_bytes()
    assert {"ledger.db", bank.project.out.name} <= told.keys()
    for name, data in told.items():
        for form in (secret, secret.hex().encode(), base64.b64encode(secret), kept["key"].encode()):
            assert form not in data, name
        windows = {data[i : i + 8] for i in range(len(data))}
        assert not windows & (hashes | {h[::-1] for h in hashes}), name
        for number in np.frombuffer(b"".join(sorted(hashes)), dtype="<u8")[:500]:
            assert str(number).encode() not in data, name
            assert f"{number:016x}".encode() not in data, name
        assert not any(s["hashes"][:40].encode() in data for s in sketches), name
    assert str(state()).encode() not in b"".join(told.values())
