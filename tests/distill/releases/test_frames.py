"""A release of a pandas frame: what it reads, checks, refuses and writes is what it is for a file of the same rows."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distill.data import sources
from distill.data.encoded_table import read_encoded
from distill.data.schema import Schema
from distill.data.tables import write_table
from distill.errors import BudgetError, BundleError, ConfigError, CopiedTableError, DataError, SchemaError
from distill.exchange.bundle import read_bundle
from distill.exchange.noisy_scores import Block
from distill.project import Project
from tests.end_to_end.small_banks import SCHEMA, Bank, loans, make_bank, quicken

ROWS = loans(1500, seed=3)
PLANTED = "Xanthippe"  # a value that no error may quote
FORMS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "as it is": lambda frame: frame,
    "columns in another order": lambda frame: frame[frame.columns[::-1]],
    "an index of its own": lambda frame: frame.set_axis([f"r{i}" for i in range(len(frame))], axis=0),
    "types that hold NA": lambda frame: frame.convert_dtypes(),
    "categories": lambda frame: frame.astype({"region": "category", "default": "category"}),
    "texts": lambda frame: frame.astype(object).map(lambda value: None if value != value else str(value)),
    "small numbers": lambda frame: frame.astype({"age": "uint8", "default": bool}).astype({"default": "int8"}),
}


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """A project whose table is another one than ROWS, on a machine that knows no table."""
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "state"))
    return make_bank(tmp_path / "bank", loans(1200, seed=8))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few optimiser steps in this test."""
    quicken(monkeypatch)


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_becomes_the_codes_that_its_file_becomes(tmp_path, monkeypatch, form):
    monkeypatch.setattr(sources, "BATCH_ROWS", 400)  # so that a frame comes in several batches
    write_table(ROWS, tmp_path / "rows.csv")
    schema = Schema.model_validate(SCHEMA)
    of_file, of_frame = read_encoded(tmp_path / "rows.csv", schema), read_encoded(FORMS[form](ROWS), schema)
    for one, other in zip(of_file.codes, of_frame.codes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_units_of_a_frame_are_those_of_its_file(tmp_path):
    rows = ROWS.assign(customer=np.random.default_rng(0).integers(0, 300, len(ROWS)))
    write_table(rows, tmp_path / "rows.csv")
    schema = Schema.model_validate({**SCHEMA, "unit": "customer"})
    units = [read_encoded(source, schema).units for source in (tmp_path / "rows.csv", rows)]
    np.testing.assert_array_equal(units[0], units[1])


def test_a_column_that_is_missing_for_a_whole_batch_is_missing_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BATCH_ROWS", 100)
    schema = Schema.model_validate(SCHEMA)
    rows = ROWS.head(200).astype({"income": object}).assign(income=lambda f: f["income"].where(f.index >= 100, None))
    write_table(rows, tmp_path / "rows.csv")
    of_file, of_frame = read_encoded(tmp_path / "rows.csv", schema), read_encoded(rows, schema)
    np.testing.assert_array_equal(of_file.codes[0], of_frame.codes[0])


def test_a_fit_of_a_frame_is_the_fit_of_its_file(bank, quick):
    """Both rehearsed with one seed: the same rows, tensors and settings; the frame is as it was."""
    bank.write_rows(ROWS)
    frame, before = ROWS.copy(), ROWS.copy(deep=True)
    receipts = [
        bank.project.fit(data, rehearsal=5, out=bank.folder / f"{i}.distill") for i, data in enumerate([None, frame])
    ]
    one, other = (read_bundle(receipt.bundle, key=bank.key) for receipt in receipts)
    pd.testing.assert_frame_equal(one.samples, other.samples)
    assert one.manifest.noisy_rows == other.manifest.noisy_rows
    assert one.manifest.privacy == other.manifest.privacy
    assert one.manifest.generator == other.manifest.generator
    assert one.tensors.keys() == other.tensors.keys()
    for group in one.tensors:
        for name, tensor in one.tensors[group].items():
            np.testing.assert_array_equal(tensor, other.tensors[group][name])
    pd.testing.assert_frame_equal(frame, before)
    assert receipts[0].reads == receipts[1].reads


class Ages:
    """A public model as an evaluation asks it: the older, the surer."""

    schema, rehearsal, identity = Schema.model_validate(SCHEMA), False, {"weights_sha256": "a" * 64}

    def private_scorer(self, threshold: float) -> "Ages":
        self.threshold = threshold
        return self

    def blocks(self, bins: int) -> tuple[Block, ...]:
        edges = tuple(sorted({self.threshold, *(float(e) for e in np.arange(1, bins) / bins)}))
        middles = tuple(float(m) for m in (np.array([0.0, *edges]) + np.array([*edges, 1.0])) / 2)
        spread = (tuple(m**2 for m in middles), tuple((1 - m) ** 2 for m in middles))
        return (Block("1", edges, middles, (0.5,) * len(middles), spread),)

    def scored(self, frame: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(frame["default"].cat.codes.to_numpy().astype(np.uint8), frame["age"].to_numpy() / 101)]


def test_an_evaluation_on_a_frame_is_the_one_on_its_file(bank):
    bank.write_rows(ROWS)
    found = [
        bank.project.evaluate(
            Ages(), data, epsilon=1, rehearsal=5, threshold=0.4, out=bank.folder / f"{i}.json"
        ).document
        for i, data in enumerate([None, bank.project.data, str(bank.project.data), ROWS])
    ]
    assert [document["figures"] for document in found] == [found[0]["figures"]] * 4
    assert found[0]["figures"]["at_threshold"]["threshold"] == 0.4
    assert found[0]["model"] == Ages.identity


def test_a_model_of_a_rehearsal_is_not_judged_in_earnest(bank):
    rehearsed = Ages()
    rehearsed.rehearsal = True
    before = bank.ledger.head()
    with pytest.raises(ConfigError, match="made from a rehearsal"):
        bank.project.evaluate(rehearsed, ROWS, epsilon=1)
    assert bank.ledger.head() == before


def refused(bank: Bank, kind: type[Exception], data: object, **words: object) -> str:
    """What a fit says when it refuses; nothing is charged, and no bundle is there."""
    before = bank.ledger.head()
    with pytest.raises(kind) as told:
        bank.project.fit(data, **words)  # type: ignore[arg-type]
    assert bank.ledger.head() == before
    assert PLANTED not in str(told.value)
    return str(told.value)


def test_a_frame_with_other_columns_is_refused_by_their_names(bank):
    told = refused(bank, DataError, ROWS.drop(columns="age").assign(shoe_size=PLANTED))
    assert told.startswith("the data frame: column(s) missing: 'age'")
    assert "shoe_size" in refused(bank, DataError, ROWS.assign(shoe_size=PLANTED))
    assert "none of the schema's columns" in refused(bank, DataError, pd.DataFrame({PLANTED: [1, 2]}))
    assert "has no columns" in refused(bank, DataError, pd.DataFrame(index=range(3)))


def test_a_frame_with_values_that_do_not_fit_is_refused_by_the_column(bank):
    assert "'default'" in refused(bank, DataError, ROWS.assign(default=PLANTED))
    assert "'age'" in refused(bank, DataError, ROWS.assign(age=PLANTED))
    assert "column number 2" in refused(bank, DataError, ROWS.assign(age=1j))


def test_what_is_no_table_is_refused(bank):
    assert refused(bank, DataError, ROWS.to_numpy()) == (
        "the data frame is a ndarray; give a pandas DataFrame, or the path of a CSV or Parquet file."
    )


def test_a_frame_is_refused_while_the_schema_is_a_draft(bank):
    bank.schema["columns"][1]["from_data"] = True
    bank.write_schema()
    assert "not confirmed: age" in refused(bank, SchemaError, ROWS)


def test_a_frame_is_refused_without_a_grant(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "state"))
    assert "grant" in refused(make_bank(tmp_path / "poor", ROWS, grant=None), BudgetError, ROWS)


def test_a_frame_is_refused_by_a_ledger_of_another_unit(bank):
    bank.schema["unit"] = "customer"
    bank.write_schema()
    assert "counts privacy by 'customer'" in refused(bank, ConfigError, ROWS.assign(customer=range(len(ROWS))))


def test_a_frame_that_is_a_copy_of_another_table_is_refused(bank, tmp_path, quick):
    """Shuffled and without some rows; the first release was of a file, the second would be of a frame."""
    other = make_bank(tmp_path / "other", ROWS)
    other.project.fit()
    copied = ROWS.sample(frac=0.9, random_state=1)
    assert f"ledger {other.project.ledger_file}" in refused(bank, CopiedTableError, copied)


def test_a_frame_that_was_released_is_known_afterwards(bank, tmp_path, quick):
    bank.project.fit(ROWS)
    other = make_bank(tmp_path / "other", ROWS)
    assert f"ledger {bank.project.ledger_file}" in refused(other, CopiedTableError, None)


@pytest.mark.parametrize("place", ["data", "ledger_file"])
def test_a_bundle_of_a_frame_replaces_neither_table_nor_ledger(bank, place):
    path = getattr(bank.project, place)
    before = path.read_bytes()
    assert "is the table or the ledger itself" in refused(bank, BundleError, ROWS, out=path, overwrite=True)
    assert path.read_bytes() == before


def test_a_project_charges_what_it_is_asked_and_else_its_own_budget(bank, quick):
    bank.grant(10.0, 1e-3)
    frugal = dataclasses.replace(bank.project, epsilon=0.75, delta=1e-6)
    frugal.fit(ROWS)
    frugal.fit(ROWS, epsilon=1.25, delta=1e-5, purpose="second", overwrite=True)
    first, second = bank.books.releases
    assert (first.epsilon, first.delta, first.purpose) == (0.75, 1e-6, "distill fit")
    assert (second.epsilon, second.delta, second.purpose) == (1.25, 1e-5, "second")


def test_a_project_opens_its_own_ledger_and_no_other(bank, tmp_path):
    other = make_bank(tmp_path / "other", loans(300, seed=1))
    assert bank.project.ledger().dataset == bank.project.dataset
    with pytest.raises(Exception, match=other.project.dataset):
        dataclasses.replace(bank.project, ledger_file=other.project.ledger_file).ledger()


def test_a_project_is_opened_and_made_by_text_or_path(bank, tmp_path):
    assert Project.open(str(bank.folder)) == Project.open(bank.folder) == bank.project
    made = Project.create(str(tmp_path / "new"), data=str(bank.project.data), schema=str(bank.project.schema))
    assert made.data == bank.project.data
