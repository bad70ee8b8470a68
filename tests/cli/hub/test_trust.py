"""The commands keys, ledger and bundle: what an operator, a privacy officer and a hub type to grant and to check."""

import stat
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from cli.app import app
from distill.common.keys import load_signing_key
from distill.project import Project
from tests.fakes.banks import GRANT, answer, bank, begin, bundle_of, run


def test_keys_new_makes_a_private_and_a_public_file(tmp_path):
    found = answer("keys", "new", "--key", tmp_path / "k.pem")
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    assert found["public_key"] == load_signing_key(tmp_path / "k.pem").public_hex
    assert Path(found["public_key_file"]) == tmp_path / "k.pub"
    refused = run("keys", "new", "--key", tmp_path / "k.pem", code=2)
    assert "already exists and is kept" in refused.stderr
    assert answer("keys", "new", "--key", tmp_path / "k.pem", "--overwrite")["public_key"] != found["public_key"]


__all__ = ["bank"]  # a fixture


def test_keys_new_can_ask_for_a_passphrase(tmp_path):
    typed = CliRunner().invoke(app, ["keys", "new", "--key", str(tmp_path / "k.pem"), "--passphrase"], input="s\ns\n")
    assert typed.exit_code == 0, typed.output
    load_signing_key(tmp_path / "k.pem", passphrase=b"s")


def test_a_grant_is_recorded_with_who_and_why(bank):
    found = answer("ledger", "grant", *GRANT, "--actor", "officer", "--project", bank)
    assert (found["granted_epsilon"], found["remaining_epsilon"]) == (2, 2)
    rows = answer("ledger", "show", "--project", bank)["rows"]
    assert (rows[1]["actor"], rows[1]["purpose"], rows[1]["epsilon"]) == ("officer", "board of March", 2)
    for wrong in (("--epsilon", "-1"), ("--delta", "0.5"), ("--reason", " ")):
        assert run("ledger", "grant", *GRANT, *wrong, "--project", bank, code=2).stderr.startswith("error: ")


def test_a_grant_with_an_exposed_key_is_refused_with_the_mend(bank):
    Project.open(bank).officer.chmod(0o644)
    assert "chmod 600" in run("ledger", "grant", *GRANT, "--project", bank, code=2).stderr


def test_show_highlights_what_stands_and_explains_it(bank):
    run("ledger", "grant", *GRANT, "--project", bank)
    reservation = begin(bank)
    text = run("ledger", "show", "--project", bank).stdout
    assert "STANDING" in text
    assert "count as spent in full" in text
    found = answer("ledger", "show", "--project", bank)
    assert [r["release"] for r in found["standing"]] == [reservation.release]
    assert [r["standing"] for r in found["rows"]] == [False, False, True, False]
    assert (found["spent_epsilon"], found["remaining_epsilon"]) == (0.5, 1.5)
    bundle_of(bank, reservation)
    assert "STANDING" not in run("ledger", "show", "--project", bank).stdout


def test_show_marks_a_rehearsal(bank):
    run("ledger", "grant", *GRANT, "--project", bank)
    begin(bank, rehearsal=True)
    row = answer("ledger", "show", "--project", bank)["rows"][2]
    assert row["purpose"] == "REHEARSAL, NOT PRIVATE: scores"
    assert row["epsilon_total"] == 0


def test_ledger_verify_says_what_it_checked_and_recomputed(bank):
    run("ledger", "grant", *GRANT, "--project", bank)
    file = bundle_of(bank, begin(bank))
    found = answer("ledger", "verify", "--project", bank, "--against", file)
    assert found["verified"]
    assert found["key_given"]
    assert found["releases"][0]["epsilon_pld"] == pytest.approx(found["releases"][0]["epsilon_release"])
    assert found["bundles"][0]["release"] == found["releases"][0]["release"]
    text = run("ledger", "verify", "--ledger", bank / "ledger.db").stdout
    assert "ok  5 hashes and signatures match" in text
    assert "PLD" in text
    assert "nobody told to expect it" in text


def test_ledger_verify_refuses_a_tampered_or_rolled_back_ledger(bank):
    run("ledger", "grant", *GRANT, "--project", bank)
    ledger = Project.open(bank).ledger_file
    before = ledger.read_bytes()
    file = bundle_of(bank, begin(bank))
    after = ledger.read_bytes()
    ledger.write_bytes(before)
    assert "rolled back" in run("ledger", "verify", "--project", bank, "--against", file, code=2).stderr
    place = after.index(b"board of March")
    ledger.write_bytes(after[:place] + b"B" + after[place + 1 :])
    assert "entry 2: its contents do not match its hash" in run("ledger", "verify", "--project", bank, code=2).stderr


def test_a_bundle_is_inspected_and_verified(bank):
    run("ledger", "grant", *GRANT, "--project", bank)
    file = bundle_of(bank, begin(bank))
    found = answer("bundle", "inspect", file)
    assert (found["rows"], found["manifest"]["privacy"]["epsilon"]) == (2, 0.5)
    assert found["tensors"]["heads"] == {"w": "float64[2]"}
    text = run("bundle", "inspect", file).stdout
    assert "epsilon 0.5 at delta 1e-05 for each row" in text.replace("\n", " ")
    assert "anybody could have signed" in run("bundle", "verify", file).stdout
    public = Project.open(bank).key.with_suffix(".pub")
    assert answer("bundle", "verify", "b.distill", "--key", public, "--project", bank)["key_given"]


def test_a_tampered_or_foreign_bundle_is_refused_in_one_line(bank, tmp_path):
    run("ledger", "grant", *GRANT, "--project", bank)
    file = bundle_of(bank, begin(bank))
    run("keys", "new", "--key", tmp_path / "other.pem")
    assert "was expected" in run("bundle", "verify", file, "--key", tmp_path / "other.pub", code=2).stderr
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    for command in (("verify",), ("inspect",), ("export", "--out", tmp_path / "x.csv")):
        error = run("bundle", command[0], file, *command[1:], code=2).stderr
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert "the signature does not match" in error
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export_writes_the_samples(bank, tmp_path, suffix):
    run("ledger", "grant", *GRANT, "--project", bank)
    file = bundle_of(bank, begin(bank))
    out = tmp_path / f"rows.{suffix}"
    assert answer("bundle", "export", file, "-o", out, "--stored")["rows"] == 2
    back = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
    pd.testing.assert_frame_equal(back, pd.DataFrame({"age": [20, 30], "default": [0, 1]}))


def test_a_rehearsal_bundle_says_so(bank):
    run("ledger", "grant", *GRANT, "--project", bank)
    file = bundle_of(bank, begin(bank, rehearsal=True))
    for command in ("inspect", "verify"):
        assert "REHEARSAL, NOT PRIVATE" in run("bundle", command, file).stdout
    assert answer("bundle", "verify", file)["rehearsal"]


def test_a_folder_without_a_project_is_told(tmp_path):
    for command in (("keys", "new"), ("ledger", "show"), ("ledger", "grant", *GRANT), ("ledger", "verify")):
        assert "distill init" in run(*command, "--project", tmp_path, code=2).stderr
