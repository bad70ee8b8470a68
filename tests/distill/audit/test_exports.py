"""The ledger as JSON recomputes and notices meddling, the registry entry says what the ledger says, and copies compare."""

import json
import shutil

import pytest

from distill.audit import compare, export_ledger, read_chain, registry_entry
from distill.audit.export import export_bytes
from distill.common.canonical_json import canonical
from distill.common.keys import generate_key
from distill.errors import LedgerError, LedgerTamperedError
from distill.ledger import create_ledger, open_ledger
from distill.ledger.entries.entry import read_entry
from distill.privacy import accountant
from distill.privacy.events import Event

DATASET = "0123456789abcdef0123456789abcdef"
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0)
REST = Event(name="encode", mechanism="gaussian", noise_multiplier=10.0, round=1)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return generate_key(tmp_path_factory.mktemp("keys") / "k.pem")


def opened(path, key, dataset=DATASET, unit="row"):
    ledger = create_ledger(path, dataset=dataset, unit=unit, key=key)
    ledger.grant(epsilon=2.0, delta=1e-4, reason="first year", actor="weber", key=key)
    return ledger


def reserve(ledger, key, **options):
    fields = {"epsilon": 0.5, "delta": 1e-5, "purpose": "scores", "actor": "keller", "events": [SIZE]}
    return ledger.reserve(**fields | options, key=key)


def release(ledger, key, **options):
    reservation = reserve(ledger, key, **options)
    reservation.plan([REST])
    reservation.commit("ab" * 32)


@pytest.fixture
def ledger(tmp_path, key):
    """A ledger with one finished release: five entries."""
    ledger = opened(tmp_path / "ledger.db", key)
    release(ledger, key)
    return ledger


def exported(ledger, path):
    path.write_bytes(export_bytes(export_ledger(ledger)))
    return path


# --- the ledger as JSON -----------------------------------------------------------------------------------------------


def test_an_export_recomputes_by_the_auditors_own_program(ledger, key, tmp_path, capsys):
    reserve(ledger, key).abandon("too few rows")
    path = exported(ledger, tmp_path / "export.json")
    assert accountant.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.endswith(" agrees") for line in lines)


def test_a_false_epsilon_in_an_export_is_told_by_the_auditors_program(ledger, tmp_path, capsys):
    path = exported(ledger, tmp_path / "export.json")
    path.write_text(path.read_text().replace('"noise_multiplier":10.0', '"noise_multiplier":9.0'))
    assert accountant.main([str(path)]) == 1
    assert "DOES NOT AGREE" in capsys.readouterr().out


def test_an_export_holds_the_entries_as_stored(ledger, tmp_path):
    found = json.loads(exported(ledger, tmp_path / "export.json").read_bytes())
    assert [read_entry(canonical(raw)) for raw in found["entries"]] == ledger.entries()
    summary = ledger.summary()
    assert (found["dataset"], found["unit"], found["head"]) == (DATASET, "row", summary.head)
    assert found["relation"] == summary.relation
    assert read_chain(tmp_path / "export.json").state.spent() == (summary.spent_epsilon, summary.spent_delta)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"noise_multiplier":10.0', '"noise_multiplier":9.0', "entry 4: its contents do not match its hash"),
        ('"actor":"weber"', '"actor":"other"', "entry 2: its contents do not match its hash"),
        ('"seal": "', '"seal": "00', "the end of the chain: the seal is not that of the last entry"),
        ("distill ledger export 1", "distill ledger export 2", "is not an exported ledger"),
        ('"entries": [', '"entries": 5, "rest": [', "is not an exported ledger"),
        ('"seal"', '"sael"', "is not an exported ledger"),
    ],
)
def test_a_changed_export_is_noticed(ledger, tmp_path, old, new, problem):
    path = exported(ledger, tmp_path / "export.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(LedgerError, match=problem):
        read_chain(path)


def test_an_export_cut_short_or_reordered_is_noticed(ledger, tmp_path):
    whole = export_ledger(ledger)
    for entries in (whole["entries"][:-1], [], whole["entries"][::-1], [*whole["entries"], whole["entries"][-1]]):
        (tmp_path / "cut.json").write_bytes(export_bytes(whole | {"entries": entries}))
        with pytest.raises(LedgerTamperedError, match="make it again from the ledger"):
            read_chain(tmp_path / "cut.json")


# --- the registry -----------------------------------------------------------------------------------------------------


def nulls(value, path=""):
    """The paths of everything that is null."""
    if isinstance(value, dict):
        return {p for key, item in value.items() for p in nulls(item, f"{path}.{key}".lstrip("."))}
    if isinstance(value, list):
        return {p for number, item in enumerate(value) for p in nulls(item, f"{path}[{number}]")}
    return {path} if value is None else set()


@pytest.mark.parametrize("institution", ["Bank", None])
def test_every_gap_of_a_registry_entry_says_what_belongs_there(ledger, institution):
    found = registry_entry(ledger, institution=institution)
    assert nulls(found["entry"]) == found["to_fill"].keys()


def test_a_registry_entry_says_what_the_ledger_says(ledger, key, tmp_path):
    release(ledger, key, epsilon=0.7)
    reserve(ledger, key, epsilon=0.1)
    release(ledger, key, epsilon=0.4, rehearsal=True)
    deployment = registry_entry(ledger, key.public_hex, institution="Bank")["entry"]["deployment"]
    summary = ledger.summary()
    assert deployment["privacy_loss"]["privacy_parameters"] == {
        "epsilon": summary.spent_epsilon,
        "delta": summary.spent_delta,
    }
    assert summary.spent_epsilon == pytest.approx(1.3)
    assert "epsilon 0.5 at delta 1e-05; epsilon 0.7" in deployment["privacy_loss"]["privacy_parameters_details"]
    assert "0.4" not in deployment["privacy_loss"]["privacy_parameters_details"]
    assert (deployment["dp_variant"]["variant_name"], deployment["deployment_model"]["release_type"]) == (
        "Approximate DP",
        "Many releases",
    )
    assert deployment["privacy_loss"]["privacy_unit"] == "Record-level"
    assert deployment["basic"]["publication_date"] == ledger.entries()[4].time[:10]
    assert "Gaussian noise, standard deviation 10 on a cell" in deployment["implementation"]["mechanisms"]
    other = opened(tmp_path / "other.db", key, unit="customer_id")
    release(other, key)
    loss = registry_entry(other)["entry"]["deployment"]["privacy_loss"]
    assert loss["privacy_unit"] == "User-level"
    assert "customer_id" in loss["privacy_unit_details"]


def test_nothing_finished_is_nothing_to_register(tmp_path, key):
    ledger = opened(tmp_path / "l.db", key)
    reserve(ledger, key)
    with pytest.raises(LedgerError, match="no finished release"):
        registry_entry(ledger)


def test_a_registry_entry_comes_from_a_ledger_that_verifies(ledger):
    with pytest.raises(LedgerTamperedError, match="was expected"):
        registry_entry(ledger, "c" * 64)


# --- two copies -------------------------------------------------------------------------------------------------------


def test_a_ledger_equals_its_copy_and_its_export(ledger, tmp_path):
    shutil.copy(ledger.path, tmp_path / "copy.db")
    first = read_chain(ledger.path)
    for other in (tmp_path / "copy.db", exported(ledger, tmp_path / "export.json")):
        found = compare(first, read_chain(other))
        assert (found.relation, found.common, list(found.after(found.second))) == ("equal", 5, [])


def test_an_older_copy_is_the_beginning_of_a_newer_one(ledger, key, tmp_path):
    old = exported(ledger, tmp_path / "old.json")
    reserve(ledger, key)
    older, newer = read_chain(old), read_chain(ledger.path)
    found = compare(older, newer)
    assert (found.relation, found.common, list(found.after(newer))) == ("first is older", 5, [6])
    assert "reserve by keller" in newer.described(6)
    back = compare(newer, older)
    assert (back.relation, list(back.after(newer)), back.together) == ("second is older", [6], None)


def test_two_copies_that_were_both_used_have_forked_and_their_spending_adds_up(ledger, key, tmp_path):
    both = reserve(ledger, key, epsilon=0.2)  # under way when the copy is made, and finished in both
    shutil.copy(ledger.path, tmp_path / "copy.db")
    copy = open_ledger(tmp_path / "copy.db")
    both.plan([REST.model_copy(update={"noise_multiplier": 30.0})])
    release(ledger, key, epsilon=0.5)
    both.ledger = copy
    both.events = both.events[:1]
    both.plan([REST.model_copy(update={"noise_multiplier": 40.0})])
    release(copy, key, epsilon=0.7)
    found = compare(read_chain(ledger.path), read_chain(copy.path))
    assert (found.relation, found.common) == ("forked", 6)
    assert list(found.after(found.first)) == [7, 8, 9, 10]
    assert found.together == pytest.approx((0.5 + 2 * 0.2 + 0.5 + 0.7, 5e-5))


def test_a_ledger_written_anew_forks_at_its_first_entry(ledger, key, tmp_path):
    found = compare(read_chain(ledger.path), read_chain(opened(tmp_path / "anew.db", key).path))
    assert (found.relation, found.common) == ("forked", 0)


def test_ledgers_of_different_data_sets_are_not_compared(ledger, key, tmp_path):
    other = opened(tmp_path / "other.db", key, dataset="f" * 32)
    with pytest.raises(LedgerError, match="nothing to compare"):
        compare(read_chain(ledger.path), read_chain(other.path))


@pytest.mark.parametrize(
    ("data", "problem"), [(b"id,amount\n", "is neither"), (b"", "is neither"), (b'{"a": 1}', "is not an exported")]
)
def test_what_is_no_copy_of_a_ledger_is_told(tmp_path, data, problem):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(LedgerError, match=problem):
        read_chain(tmp_path / "file")
    with pytest.raises(LedgerError, match="cannot read"):
        read_chain(tmp_path / "missing")
