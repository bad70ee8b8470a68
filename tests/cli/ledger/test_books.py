"""What an officer types beside grant, show and verify: members, rotation, a filter, links, closing what crashed."""

import pytest

from distill.common.keys import generate_key, load_public_key
from distill.ledger import open_ledger
from distill.project import Project
from tests.fakes.banks import GRANT, answer, bank, begin, bundle_of, run

__all__ = ["bank"]  # a fixture
WHY = ("--reason", "board of May")


@pytest.fixture
def granted(bank):
    run("ledger", "grant", *GRANT, "--project", bank)
    return bank


def test_init_makes_a_key_for_each_role_and_the_first_entry_names_them(bank):
    members = answer("ledger", "show", "--project", bank)["members"]
    keys = {role: load_public_key(bank / "keys" / f"{role}.pub") for role in ("operator", "officer")}
    assert {m["role"]: m["public_key"] for m in members} == keys
    assert keys["operator"] != keys["officer"]


def test_an_officer_may_bring_a_key_whose_private_half_is_elsewhere(bank, tmp_path):
    away = generate_key(tmp_path / "away" / "anna.pem")
    inputs = ("--data", tmp_path / "loans.csv", "--schema", tmp_path / "loans.json")
    run("init", tmp_path / "b", *inputs, "--officer", tmp_path / "away" / "anna.pub")
    assert sorted(p.name for p in (tmp_path / "b" / "keys").iterdir()) == [
        "officer.pub",
        "operator.pem",
        "operator.pub",
    ]
    assert "names it with --key" in run("ledger", "grant", *GRANT, "--project", tmp_path / "b", code=2).stderr
    operator = ("--key", tmp_path / "b" / "keys" / "operator.pem")
    refused = run("ledger", "grant", *GRANT, "--project", tmp_path / "b", *operator, code=2).stderr
    assert "grant entries of the ledger" in refused
    assert "signed by an officer" in refused
    run("ledger", "grant", *GRANT, "--project", tmp_path / "b", "--key", tmp_path / "away" / "anna.pem")
    found = answer("ledger", "verify", "--project", tmp_path / "b")
    assert (found["key_given"], found["strangers"]) == (True, [])
    assert away.public_hex in {m["public_key"] for m in found["members"]}


def test_another_officers_key_does_not_replace_the_one_that_is_there(bank, tmp_path):
    generate_key(tmp_path / "anna.pem")
    inputs = ("--data", tmp_path / "loans.csv", "--schema", tmp_path / "loans.json")
    kept = (bank / "keys" / "officer.pub").read_bytes()
    told = run("init", bank, *inputs, "--officer", tmp_path / "anna.pub", "--force", code=2).stderr
    assert "holds another officer's key" in told
    assert (bank / "keys" / "officer.pub").read_bytes() == kept


def test_members_come_and_go_by_an_officers_word(granted, tmp_path):
    generate_key(tmp_path / "ben.pem")
    who = (tmp_path / "ben.pub", "--role", "operator", *WHY, "--project", granted)
    found = answer("ledger", "enrol", *who, "--name", "Ben")
    assert [m["name"] for m in found["members"] if m["role"] == "operator"][1:] == ["Ben"]
    assert "Ben" in run("ledger", "show", "--project", granted).stdout
    assert "Ben" not in {m["name"] for m in answer("ledger", "retire", *who)["members"]}
    assert "is no operator" in run("ledger", "retire", *who, code=2).stderr
    operator = ("--key", granted / "keys" / "operator.pem")
    assert "signed by an officer" in run("ledger", "enrol", *who, "--name", "Ben", *operator, code=2).stderr


@pytest.mark.parametrize("role", ["operator", "officer"])
def test_keys_rotate_hands_over_and_everything_goes_on(granted, role):
    before = load_public_key(granted / "keys" / f"{role}.pub")
    done = answer("keys", "rotate", "--role", role, "--project", granted)
    assert done["replaced"] == before
    assert load_public_key(granted / "keys" / f"{role}.pub") == done["public_key"] != before
    run("ledger", "grant", *GRANT, "--project", granted)
    file = bundle_of(granted, begin(granted))
    found = answer("ledger", "verify", "--project", granted, "--against", file)
    assert found["verified"]
    assert found["strangers"] == []


def test_a_renyi_filter_is_chosen_at_the_first_grant(bank):
    told = run("ledger", "grant", *GRANT, "--filter", "renyi", "--project", bank).stdout
    assert "by a Renyi filter of order" in told
    begin(bank)
    shown = answer("ledger", "show", "--project", bank)
    assert shown["filter"] == "renyi"
    assert 0 < shown["spent_epsilon"] < 2
    assert "cannot change now" in run("ledger", "grant", *GRANT, "--filter", "basic", "--project", bank, code=2).stderr
    assert answer("ledger", "grant", *GRANT, "--project", bank)["order"] == shown["order"]


def test_a_crashed_release_is_closed_as_spent(granted):
    standing = begin(granted)
    found = answer("ledger", "resolve", standing.release[:8], *WHY, "--project", granted)
    assert (found["release"], found["epsilon"], found["spent_epsilon"]) == (standing.release, 0.5, 0.5)
    text = run("ledger", "show", "--project", granted).stdout
    assert "STANDING" not in text
    assert "resolve" in text
    assert (
        "no standing release" in run("ledger", "resolve", standing.release, *WHY, "--project", granted, code=2).stderr
    )


def test_linked_data_sets_are_told_as_a_sum(granted, tmp_path):
    begin(granted)
    inputs = ("--data", tmp_path / "loans.csv", "--schema", tmp_path / "loans.json")
    run("init", tmp_path / "cards", *inputs)
    run("ledger", "grant", *GRANT, "--project", tmp_path / "cards")
    begin(tmp_path / "cards")
    other = Project.open(tmp_path / "cards").ledger_file
    found = answer("ledger", "link", other, *WHY, "--project", granted)
    assert found["dataset"] == open_ledger(other).dataset
    assert (found["name"], found["epsilon_sum"]) == ("cards", 1.0)
    assert "cards" in run("ledger", "show", "--project", granted).stdout
    own = Project.open(granted).ledger_file
    assert "share units with itself" in run("ledger", "link", own, *WHY, "--project", granted, code=2).stderr


def test_show_says_what_each_release_read(granted):
    begin(granted)
    rows = answer("ledger", "show", "--project", granted)["rows"]
    assert [r["read"] for r in rows] == ["", "", "size", "encode"]
    text = run("ledger", "show", "--project", granted).stdout
    assert "reads size" in text
