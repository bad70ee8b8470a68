"""Nothing but what was paid for leaves a fit: no exact count, no value of a record, in print, bundle or ledger."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distill.data.schema import Schema
from distill.privacy.noise import NoiseSource
from distill.releases import fit
from distill.releases.fit import FitRequest
from distill.synthesis.planning.plan import Plan
from tests.end_to_end.small_banks import SCHEMA, Bank, distill, loans, make_bank, quicken

ROWS = 1237  # distinctive: not a step, a size or a default of anything
PLANTED = {"region": "Xanthippe", "income": 777.0078125}  # a category outside the schema, a number inside its bounds
OUTSIDE = 83412.71875  # beyond the bounds


@dataclass
class Told:
    """All that a fit of a table with a planted record said, wrote into the bundle and into the ledger."""

    bank: Bank
    texts: dict[str, str]


def with_planted_record(rows: int) -> pd.DataFrame:
    frame = loans(rows, seed=11)
    frame.loc[5, "region"] = PLANTED["region"]
    frame.loc[5, "income"] = PLANTED["income"]
    frame.loc[6, "income"] = OUTSIDE
    return frame


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A rehearsal, whose noise is the same in each run: no figure of it is the exact one by bad luck."""
    bank = make_bank(tmp_path_factory.mktemp("told") / "bank", with_planted_record(ROWS))
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        ran = bank.fit("--rehearsal", 4, "--compress", "full")
        assert ran.exit_code == 0, ran.output
        again = bank.fit("--rehearsal", 4, "--compress", "full", "--overwrite", "--json")
    texts = {
        "stdout": ran.stdout,
        "stderr": ran.stderr,
        "json": again.stdout,
        "manifest": json.dumps(bank.bundle.manifest.model_dump(mode="json", by_alias=True)),
        "ledger": json.dumps([e.model_dump(mode="json") for e in bank.ledger.entries()]),
        "inspect": distill("bundle", "inspect", bank.project.out).stdout,
    }
    return Told(bank, texts)


def numbers_in(value: Any) -> list[float]:
    """Every number of nested JSON."""
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers_in(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers_in(v)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def words_of(text: str) -> list[str]:
    """The text's words without thousands separators; hashes, ids and paths, where any four digits turn up, left out."""
    words = [word.strip("\"'().,:;").replace(",", "") for word in text.split()]
    return [w for w in words if "/" not in w and not re.fullmatch("[0-9a-f]{8,}", w)]


def test_the_exact_row_count_is_nowhere(told):
    for name in ("stdout", "stderr", "inspect"):
        assert not [w for w in words_of(told.texts[name]) if str(ROWS) in w], name
    for name in ("json", "manifest", "ledger"):
        found = numbers_in(json.loads(told.texts[name]))
        assert found, name
        assert not [n for n in found if abs(n) in (ROWS, 1 / ROWS)], name
    bundle = told.bank.bundle
    assert len(bundle.samples) != ROWS
    for tensors in bundle.tensors.values():
        for name, tensor in tensors.items():
            assert ROWS not in tensor.shape, name
            assert not np.isin(tensor.astype(np.float64), [ROWS, 1 / ROWS]).any(), name


def test_no_rate_step_or_noise_of_the_plan_follows_the_exact_row_count(tmp_path, monkeypatch):
    """Two tables of different sizes whose noisy count comes out the same get the same plan."""
    plans = []

    def stop_here(table: Any, plan: Plan, *_: Any) -> None:
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(NoiseSource, "laplace_count", lambda self, count, *, scale: 2500)
    monkeypatch.setattr(fit, "distil", stop_here)
    for rows in (700, 4000):
        assert make_bank(tmp_path / f"bank{rows}", loans(rows)).fit().exit_code == 130
    assert plans[0] == plans[1]
    assert plans[0].noisy_size == 2500


def test_the_exact_class_counts_are_nowhere(told):
    exact = np.bincount(with_planted_record(ROWS)["default"])
    prior = np.array(told.bank.bundle.manifest.class_prior)
    assert not np.isclose(prior, exact / ROWS, rtol=1e-9).any()
    assert prior == pytest.approx(exact / ROWS, abs=0.1)  # it is the noisy one
    for name in ("json", "manifest", "ledger"):
        assert not np.isin(exact, numbers_in(json.loads(told.texts[name]))).any(), name


def test_a_planted_record_is_nowhere(told):
    values = [str(v) for v in PLANTED.values()] + [str(OUTSIDE), f"{OUTSIDE:,}"]
    for name, text in told.texts.items():
        assert not [v for v in values if v in text], name
    bundle = told.bank.bundle
    assert set(bundle.samples["region"]) <= {"north", "south", "east", "(other)"}
    incomes = bundle.samples["income"].to_numpy()
    assert not np.isclose(incomes, PLANTED["income"], rtol=1e-7).any()
    assert np.nanmax(incomes) <= 1000
    for tensors in bundle.tensors.values():
        for name, tensor in tensors.items():
            assert not np.isclose(tensor.astype(np.float64), PLANTED["income"], rtol=1e-7).any(), name
            assert not np.isclose(tensor.astype(np.float64), OUTSIDE, rtol=1e-7).any(), name
    raw = told.bank.project.out.read_bytes()
    assert b"Xanthippe" not in raw


@pytest.mark.parametrize(("words", "counted"), [((), 20), (("--max-rows-per-unit", 3), 60)])
def test_a_request_for_a_unit_counts_units_and_not_rows(tmp_path, monkeypatch, words, counted):
    """Forty rows of one customer are one unit: the door holds one row a customer, or as many as allowed."""
    seen = []

    def noted(self: NoiseSource, count: int, *, scale: float) -> int:
        seen.append(count)
        return 2500

    def stop_here(*_: Any) -> None:
        raise KeyboardInterrupt

    schema = {**SCHEMA, "unit": "customer"}
    rows = loans(800).assign(customer=[f"c{i // 40}" for i in range(800)])
    bank = make_bank(tmp_path / "bank", rows, schema=schema)
    monkeypatch.setattr(NoiseSource, "laplace_count", noted)
    monkeypatch.setattr(fit, "distil", stop_here)
    assert bank.fit(*words).exit_code == 130
    assert seen == [counted]
    assert bank.books.unit == "customer"


def test_every_field_of_a_request_that_prints_is_public():
    """What may be stored or printed: paths and settings, no row and no count of them; a frame is left out."""
    rows = loans(7).assign(income=PLANTED["income"])
    public = {"schema": Schema.model_validate(SCHEMA), "name": "bank", "dataset": "0" * 32, "out": Path("b.distill")}
    assert "777" not in str(FitRequest(data=rows, epsilon=1.0, delta=1e-5, **public))
    assert not {"frame", "rows", "table"} & set(FitRequest.__dataclass_fields__)
