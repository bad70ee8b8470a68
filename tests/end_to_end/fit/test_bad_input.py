"""What `distill fit` refuses, one test each: a line that names what, where and the mend, and nothing else.

The refusal comes before the private table is opened: no file is new, changed or half-written and no budget is spent (a
table that is too small costs its noisy row count, and the line says so).
"""

import os
import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distill.common import files as durable
from distill.common.keys import generate_key
from distill.errors import ConfigError, LedgerError
from distill.releases import fit, lifecycle
from tests.end_to_end.small_banks import EPSILON, SCHEMA, Bank, flipped, full_disk, loans, make_bank, refusal

ROOT = getattr(os, "geteuid", lambda: 1)() == 0


def door_stays_shut(*_: object, **__: object) -> None:
    raise AssertionError("the private table was opened")


@pytest.fixture
def refused(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run fit, which must refuse with all `words` before anything was read, charged or written; the line it printed."""
    monkeypatch.setattr(lifecycle, "PrivateTable", door_stays_shut)

    def run(*options: object, words: tuple[str, ...], books: bool = True) -> str:
        files, before = bank.files(), bank.books if books else None
        line = refusal(bank.fit(*options))
        for word in words:
            assert word in line
        assert bank.files() == files
        if books:
            assert bank.books == before
        return line

    return run


# ---- the table ------------------------------------------------------------------------------------------------------


def test_a_missing_table(bank, refused):
    bank.project.data.unlink()
    refused(words=("no table at", "loans.csv", "Check the path"))


def test_an_empty_table(bank, refused):
    bank.project.data.write_bytes(b"")
    refused(words=("loans.csv is empty", "export the table again"))


def test_a_directory_in_place_of_the_table(bank, refused):
    folder = bank.folder / "tables.csv"
    folder.mkdir()
    refused("--data", folder, words=("tables.csv is a directory", "name one CSV or Parquet file"))


def test_a_file_that_is_no_table(bank, refused):
    refused("--data", bank.project.schema, words=("loans.schema.json", ".json", "tables are .csv or .parquet"))


@pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_a_wrong_delimiter(bank, refused, delimiter, name):
    loans(400).to_csv(bank.project.data, index=False, sep=delimiter)
    refused(words=("loans.csv", name, "Save it with commas"))


def test_ragged_rows(bank, refused):
    with bank.project.data.open("a") as file:
        file.write("12.5,40\n")
    line = refused(words=("loans.csv", "2 cells where the header has 4", "double quotes"))
    assert "12.5" not in line


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "another encoding"), ("utf-16", "UTF-16")])
def test_a_wrong_encoding(bank, refused, encoding, name):
    rows = loans(400)
    rows.loc[rows.index[-1], "region"] = "Zürich"
    rows.to_csv(bank.project.data, index=False, encoding=encoding)
    line = refused(words=("loans.csv is not UTF-8", name, "save it as UTF-8"))
    assert "rich" not in line.split("loans.csv", 1)[1]


def test_a_missing_column(bank, refused):
    bank.write_rows(loans(400).drop(columns="age"))
    refused(words=("loans.csv", "column(s) missing: 'age'", "add them, or take the schema of this table"))


def test_an_extra_column(bank, refused):
    bank.write_rows(loans(400).assign(iban="DE00"))
    line = refused(words=("loans.csv", "does not name: 'iban'", "drop them"))
    assert "DE00" not in line


def test_a_duplicated_column(bank, refused):
    rows = loans(400)
    bank.write_rows(pd.concat([rows, rows["age"]], axis=1))
    refused(words=("loans.csv", "more than once: 'age'", "keep one of each"))


def test_text_in_a_numeric_column(bank, refused):
    rows = loans(400).astype({"income": object})
    rows.loc[7, "income"] = "about 4711"
    bank.write_rows(rows)
    line = refused(words=("column 'income' is continuous", "text that is not a number", "write decimals with a point"))
    assert "4711" not in line


def test_fractions_in_an_integer_column(bank, refused):
    rows = loans(400).astype({"age": float})
    rows.loc[7, "age"] = 47.25
    bank.write_rows(rows)
    assert "47.25" not in refused(words=("column 'age' is integer", "fractions", "round them"))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values(bank, refused, value):
    rows = loans(400)
    rows.loc[7, "income"] = value
    bank.write_rows(rows)
    refused(words=("column 'income'", "infinite values", "replace them by a bound"))


def test_a_target_with_nulls(bank, refused):
    rows = loans(400).astype({"default": "Int64"})
    rows.loc[7, "default"] = pd.NA
    bank.write_rows(rows)
    refused(words=("target 'default' has missing values", "drop those rows"))


def test_a_target_outside_its_classes(bank, refused):
    rows = loans(400)
    rows.loc[7, "default"] = 4711
    bank.write_rows(rows)
    assert "4711" not in refused(words=("target 'default'", "outside its classes '0', '1'", "correct them"))


def test_nulls_where_the_schema_allows_none(bank, refused):
    rows = loans(400).astype({"age": "Int64"})
    rows.loc[7, "age"] = pd.NA
    bank.write_rows(rows)
    refused(words=("column 'age'", "missing values", "nullable"))


def test_a_damaged_parquet_file(bank, refused):
    table = bank.folder / "loans.parquet"
    loans(400).to_parquet(table)
    table.write_bytes(table.read_bytes()[:-100])
    refused("--data", table, words=("loans.parquet is not a readable Parquet file", "Export it again"))


def test_one_class_in_the_table_is_no_error_for_saying_so_would_be_a_release(bank, quick):
    bank.write_rows(loans(1500).assign(default=0))
    ran = bank.fit()
    assert ran.exit_code == 0, ran.output
    assert set(bank.bundle.samples.columns) == {c["name"] for c in SCHEMA["columns"]}
    assert "one class" not in ran.output


# ---- the schema -----------------------------------------------------------------------------------------------------


def test_a_target_with_one_class(bank, refused):
    bank.schema["columns"][-1]["categories"] = [0]
    bank.write_schema()
    refused(words=("loans.schema.json", "target 'default' has 1 class(es)", "between 2 and 50"))


def test_unconfirmed_bounds(bank, refused):
    bank.schema["columns"][0]["from_data"] = bank.schema["columns"][2]["from_data"] = True
    bank.write_schema()
    refused(words=("schema 'loans'", "income, region", "not confirmed", "public knowledge", "`from_data`"))


@pytest.mark.parametrize(("low", "high"), [(100, 18), (18, 18)])
def test_bounds_that_are_not_in_order(bank, refused, low, high):
    bank.schema["columns"][1] |= {"min": low, "max": high}
    bank.write_schema()
    refused(words=("loans.schema.json", "column 'age'", f"min {low} must be below max {high}"))


def test_a_schema_that_is_missing_or_no_json(bank, refused):
    bank.project.schema.write_text("{")
    refused(words=("loans.schema.json is not valid JSON",))
    bank.project.schema.unlink()
    refused(words=("no schema at", "distill schema draft"))


# ---- the budget -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
@pytest.mark.parametrize("name", ["epsilon", "delta"])
def test_a_budget_that_is_no_positive_number(refused, name, value):
    refused(f"--{name}", value, words=(f"{name} must be a finite number above 0", value))


@pytest.mark.parametrize("value", ["0.01", "0.5", "1"])
def test_a_delta_that_would_publish_records(refused, value):
    refused("--delta", value, words=("delta must be below 0.01", value, "1e-5"))


def test_a_wrong_budget_in_the_project_file(bank, refused):
    path = bank.folder / "distill.toml"
    path.write_text(path.read_text().replace("delta = 1e-05", "delta = 0.05"))
    refused(words=("distill.toml", "delta must be below 0.01"), books=False)


def test_a_budget_beyond_all_reason_is_refused_before_anything_is_charged(bank, refused):
    bank.grant(epsilon=1000)
    refused("--epsilon", "1e6", words=("epsilon 1e+06", "granted 1000", "is left"))


def test_a_grant_that_is_too_small(bank, refused):
    bank.grant(epsilon=1.5)
    refused(words=("epsilon 2", "granted 1.5", "1.5 is left", "distill ledger grant"))
    refused("--epsilon", "1", "--delta", "1e-4", words=("delta 0.0001", "granted 1e-05", "distill ledger grant"))


def test_nothing_granted_at_all(tmp_path, monkeypatch):
    bank = make_bank(tmp_path / "poor", grant=None)
    monkeypatch.setattr(lifecycle, "PrivateTable", door_stays_shut)
    line = refusal(bank.fit())
    assert "nothing has been granted" in line
    assert "distill ledger grant --epsilon 2 --delta 1e-05" in line
    assert bank.books.entries == 1


@pytest.mark.parametrize("rows", [0, 60])
def test_too_few_rows_cost_the_row_count_only_and_the_line_says_what_budget_would_do(tmp_path, rows):
    """At epsilon 10 the count's Laplace noise has scale 10: 60 rows pass for 200 less than once in 1e6 runs."""
    bank = make_bank(tmp_path / "bank", loans(rows), grant=10)
    files = bank.files()
    ran = bank.fit("--epsilon", 10)
    assert ran.exit_code == 2
    line = ran.stderr.strip().splitlines()[-1]
    assert line.startswith("error: the noisy row count is below 200")
    wanted = re.search(r"about epsilon ([0-9.]+)", line)
    assert wanted
    assert float(wanted[1]) > 10
    assert "Only the row count was read and charged" in line
    assert bank.files() == files
    assert [r.status for r in bank.books.releases] == ["abandoned"]
    assert bank.books.standing == ()
    assert bank.books.spent_epsilon == pytest.approx(0.1)
    assert bank.books.spent_delta == 0
    bank.ledger.verify(bank.key.public_hex)


def test_a_budget_that_no_noise_fits_costs_the_row_count_only(bank, monkeypatch):
    def no_plan(*_: object, **__: object) -> None:
        raise ConfigError("epsilon 2 is too small to calibrate noise for.")

    files = bank.files()
    monkeypatch.setattr(fit, "make_plan", no_plan)
    ran = bank.fit()
    assert ran.exit_code == 2
    line = ran.stderr.strip().splitlines()[-1]
    assert line.endswith("too small to calibrate noise for. Only the row count was read and charged.")
    assert bank.files() == files
    assert [r.status for r in bank.books.releases] == ["abandoned"]
    assert bank.books.spent_epsilon == pytest.approx(0.01 * EPSILON)


# ---- the key and the ledger -----------------------------------------------------------------------------------------


def test_a_missing_key(bank, refused):
    bank.project.key.rename(bank.folder / "elsewhere.pem")
    refused(words=("no signing key at", "operator.pem", "distill keys new"))


def test_a_key_that_cannot_be_read(bank, refused):
    bank.project.key.write_text("not a key")
    refused(words=("operator.pem is not a private key", "distill keys new"))
    bank.project.key.unlink()
    bank.project.key.mkdir()
    refused(words=("operator.pem", "Name a file, not a directory"))


@pytest.mark.skipif(ROOT, reason="the superuser reads everything")
def test_a_key_without_permission_to_read(bank, refused):
    bank.project.key.chmod(0)
    refused(words=("cannot read the signing key", "operator.pem"))


def test_a_key_that_others_can_read(bank, refused):
    bank.project.key.chmod(0o644)
    refused(words=("operator.pem", "can be read or changed by other users", "chmod 600"))
    assert stat.S_IMODE(bank.project.key.stat().st_mode) == 0o644


def test_a_wrong_key(bank, refused):
    other = generate_key(bank.folder / "other.pem")
    refused(
        "--key",
        bank.folder / "other.pem",
        words=("are signed by an operator, and the given key is", other.public_hex[:16]),
    )


def test_a_key_behind_a_passphrase(bank, refused, monkeypatch):
    monkeypatch.delenv("DISTILL_KEY_PASSPHRASE", raising=False)
    generate_key(bank.folder / "locked.pem", passphrase=b"open sesame")
    refused("--key", bank.folder / "locked.pem", words=("locked.pem is protected", "DISTILL_KEY_PASSPHRASE"))
    monkeypatch.setenv("DISTILL_KEY_PASSPHRASE", "wrong")
    refused("--key", bank.folder / "locked.pem", words=("passphrase does not open", "locked.pem"))


def test_a_missing_ledger(bank, refused):
    refused("--ledger", bank.folder / "gone.db", words=("no ledger at", "gone.db", "distill init"))


def test_a_file_that_is_no_ledger(bank, refused):
    refused("--ledger", bank.project.data, words=("loans.csv is not a ledger",))


def test_a_ledger_of_another_data_set(bank, refused, tmp_path):
    other = make_bank(tmp_path / "other")
    refused(
        "--ledger",
        other.project.ledger_file,
        words=(f"belongs to data set {other.project.dataset}", bank.project.dataset, "distill.toml"),
    )
    assert other.books.releases == ()


def rewrite(ledger: Path, statement: str, *values: object) -> None:
    """Change entries behind the triggers' back, and put the triggers up again."""
    with sqlite3.connect(ledger) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement, values)
        for _, sql in triggers:
            connection.execute(sql)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE entries SET entry = replace(entry, '2.0', '9.0') WHERE sequence = 2", "entry 2"),
        ("DELETE FROM entries WHERE sequence = 2", "the end of the chain"),
        ("DELETE FROM entries WHERE sequence = 1", "entry 1"),
        ("UPDATE head SET seal = replace(seal, substr(seal, 1, 1), 'x')", "the end of the chain"),
    ],
    ids=["a larger grant", "a grant removed", "the opening removed", "another seal"],
)
def test_a_tampered_ledger(bank, refused, statement, place):
    rewrite(bank.project.ledger_file, statement)
    before = bank.project.ledger_file.read_bytes()
    refused(words=("ledger.db", place, "backup"), books=False)
    assert bank.project.ledger_file.read_bytes() == before


def test_a_ledger_with_a_flipped_byte_is_refused_or_reads_as_before(bank, refused):
    """Every 997th byte; many of them lie where the file holds nothing."""
    good, books = bank.project.ledger_file.read_bytes(), bank.books
    for place in range(13, len(good), 997):
        bank.project.ledger_file.write_bytes(flipped(good, place))
        try:
            unchanged = bank.books == books
        except LedgerError:
            refused(words=("ledger.db",), books=False)
        else:
            assert unchanged


# ---- the bundle's place ---------------------------------------------------------------------------------------------


def test_a_bundle_is_not_replaced_unasked(bank, refused):
    bank.project.out.write_bytes(b"precious")
    refused(words=("bank.distill exists already", "--out", "--overwrite"))
    assert bank.project.out.read_bytes() == b"precious"


def test_a_bundle_cannot_be_a_directory_or_lie_inside_a_file(bank, refused):
    refused("--out", bank.folder / "keys", words=("keys is a directory", "name a file"))
    refused("--out", bank.project.data / "x.distill", words=("x.distill", "cannot write the bundle"))


@pytest.mark.skipif(ROOT, reason="the superuser writes everywhere")
def test_a_folder_that_cannot_be_written(bank, refused):
    shut = bank.folder / "shut"
    shut.mkdir(mode=0o500)
    refused("--out", shut / "x.distill", words=("cannot write the bundle", "Check the folder's permissions"))


def test_too_little_room_for_a_bundle_is_noticed_before_anything_is_charged(bank, refused):
    """The system's limit on file sizes stands in for a disk that is nearly full."""
    resource = pytest.importorskip("resource", reason="no such limit on this system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 << 10, limits[1]))
    try:
        refused(words=("cannot write the bundle", "bank.distill", "File too large", "Raise the limit"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_noticed_before_anything_is_charged(refused, monkeypatch):
    monkeypatch.setattr(durable.os, "fsync", full_disk)
    refused(words=("cannot write the bundle", "bank.distill", "No space left on device", "Free some space"))


@pytest.mark.parametrize("own", ["data", "ledger_file"])
def test_the_table_and_the_ledger_are_never_replaced_by_a_bundle(bank, refused, own):
    path = getattr(bank.project, own)
    before = path.read_bytes()
    refused("--out", path, "--overwrite", words=(path.name, "is the table or the ledger itself", "another file"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("purpose", ["", "two\nlines"])
def test_a_purpose_that_the_ledger_cannot_hold(refused, purpose):
    refused("--purpose", purpose, words=("purpose", "one line of printable text"))
