"""What is claimed is what is enforced: the unit of ledger, schema and manifest is one, whoever makes or reads a release."""

import pytest

from distill.common.keys import SigningKey, generate_key
from distill.data.schema import Schema
from distill.errors import ConfigError
from distill.exchange.bundle import parse_bundle, read_bundle
from distill.exchange.manifest import check_manifest
from distill.privacy import accountant
from distill.privacy.budget import NO_DELTA
from distill.privacy.events import Event
from distill.privacy.private_table import PrivateTable
from tests.fakes.guards import CASES, UNITS, Case, quicken_all, release
from tests.fakes.private_tables import EVERY_KIND
from tests.fakes.releases import RELEASES, books, evaluate

ROWS = CASES["units"].table()


@pytest.fixture
def key(tmp_path) -> SigningKey:
    return generate_key(tmp_path / "key.pem")


@pytest.mark.parametrize("kind", RELEASES)
@pytest.mark.parametrize(
    ("unit", "schema"), [("customer", EVERY_KIND), ("row", UNITS), ("account", UNITS)], ids=["no unit", "unit", "other"]
)
def test_no_release_is_made_under_a_ledger_of_another_unit(kind: str, unit: str, schema: Schema, tmp_path, key):
    ledger = books(tmp_path, unit, key)
    frame = ROWS if schema.unit else ROWS.drop(columns="customer")
    with pytest.raises(ConfigError, match=rf"counts privacy by '{schema.counted_unit}' and the ledger .* by '{unit}'"):
        RELEASES[kind](frame, schema, ledger, key)
    assert [e.kind for e in ledger.entries()] == ["open", "grant"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", [CASES["classes"], CASES["rows of a unit"]], ids=["row", "customer"])
def test_a_reader_refuses_a_manifest_whose_claim_is_not_that_of_its_schema(case: Case, tmp_path, monkeypatch):
    quicken_all(monkeypatch)
    release(case, case.table(), tmp_path / "bank", PrivateTable, monkeypatch)
    manifest = read_bundle(tmp_path / "bank" / "released").manifest
    assert manifest.privacy.unit == case.schema.counted_unit
    check_manifest(manifest)
    other = manifest.schema_.model_copy(update={"unit": None if case.schema.unit else "customer"})
    forged = manifest.model_copy(update={"schema_": other, "schema_digest": other.digest()})
    with pytest.raises(ValueError, match=r"its unit is '\w+', and its schema counts by '\w+'"):
        check_manifest(forged)
    first, *rest = manifest.privacy.events
    mixed = (first.model_copy(update={"rows_per_unit": first.rows_per_unit + 1}), *rest)
    forged = manifest.model_copy(update={"privacy": manifest.privacy.model_copy(update={"events": mixed})})
    with pytest.raises(ValueError, match="do not protect the same number of rows of a unit"):
        check_manifest(forged)
    if case.schema.unit is None:
        many = tuple(e.model_copy(update={"rows_per_unit": 2}) for e in manifest.privacy.events)
        forged = manifest.model_copy(update={"privacy": manifest.privacy.model_copy(update={"events": many})})
        with pytest.raises(ValueError, match="a row that is a unit has several"):
            check_manifest(forged)
    assert parse_bundle((tmp_path / "bank" / "released").read_bytes(), path=tmp_path)


def test_no_column_may_be_called_what_a_ledger_calls_each_row():
    with pytest.raises(ValueError, match="cannot be called 'row'"):
        Schema.model_validate(EVERY_KIND.model_dump() | {"unit": "row"})


@pytest.mark.parametrize("kind", RELEASES)
def test_a_delta_that_the_accountant_cannot_see_is_refused_before_anything_is_recorded(kind: str, tmp_path, key):
    ledger = books(tmp_path, "row", key)
    with pytest.raises(ConfigError, match=r"delta must be at least 1e-10, not 1e-11: .* Fourier transforms"):
        RELEASES[kind](ROWS.drop(columns="customer"), EVERY_KIND, ledger, key, delta=1e-11)
    assert [e.kind for e in ledger.entries()] == ["open", "grant"]


@pytest.mark.parametrize("kind", ["fit", "training"])
def test_only_laplace_noise_goes_without_a_delta(kind: str, tmp_path, key):
    ledger = books(tmp_path, "row", key)
    with pytest.raises(ConfigError, match="delta must be at least 1e-10"):
        RELEASES[kind](ROWS.drop(columns="customer"), EVERY_KIND, ledger, key, delta=NO_DELTA)
    assert [e.kind for e in ledger.entries()] == ["open", "grant"]
    evaluate(ROWS.drop(columns="customer"), EVERY_KIND, ledger, key, delta=NO_DELTA)
    assert {e.mechanism for e in ledger.summary().releases[0].events} == {"laplace"}


def test_an_epsilon_at_a_delta_below_what_the_accountant_sees_is_not_vouched_for():
    noisy = Event(name="a", mechanism="gaussian", noise_multiplier=2.0).model_dump(mode="json")
    with pytest.raises(ValueError, match="cannot be computed reliably at delta 1e-11"):
        accountant.epsilon([noisy], 1e-11)
    assert accountant.epsilon([noisy], 1e-11, "rdp") > accountant.epsilon([noisy], 1e-10)
    pure = Event(name="a", mechanism="laplace", noise_multiplier=2.0).model_dump(mode="json")
    assert accountant.epsilon([pure], 1e-15) == 0.5
