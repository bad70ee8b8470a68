"""Officers grant, operators spend, keys hand over; nobody else signs anything."""

import shutil

import pytest

from distill.common import files
from distill.common.keys import generate_key, load_public_key, load_signing_key
from distill.errors import ConfigError, KeyFileError, LedgerError, LedgerTamperedError
from distill.ledger import Member, create_ledger, open_ledger
from distill.ledger.entries.bodies import EnrolBody, GrantBody, RetireBody, RotateBody
from distill.ledger.key_rotation import rotate_key
from distill.ledger.proof import check_proof
from distill.ledger.rules.members import cross_sign
from tests.fakes.ledgers import BUNDLE, DATASET, REST, put, reserve

WHY = {"reason": "because", "actor": "somebody"}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Keys: officer, operator, and strangers."""
    folder = tmp_path_factory.mktemp("keys")
    return {name: generate_key(folder / f"{name}.pem") for name in ("officer", "operator", "second", "third")}


@pytest.fixture
def ledger(tmp_path, house):
    """A ledger of two roles and two keys, with a grant of 2."""
    members = [member(role, house[role]) for role in ("operator", "officer")]
    made = create_ledger(tmp_path / "l.db", dataset=DATASET, unit="row", key=house["operator"], members=members)
    made.grant(epsilon=2.0, delta=1e-4, key=house["officer"], **WHY)
    return made


def member(role, key, name="n"):
    return Member(role=role, name=name, public_key=key.public_hex)


def test_an_operator_does_not_grant_and_an_officer_does_not_spend(ledger, house):
    head = ledger.head()
    with pytest.raises(KeyFileError, match=r"grant entries .* are signed by an officer.*officers are: n \("):
        ledger.grant(epsilon=9.0, delta=1e-4, key=house["operator"], **WHY)
    with pytest.raises(KeyFileError, match=r"reserve entries .* are signed by an operator"):
        reserve(ledger, house["officer"])
    assert ledger.head() == head
    reserve(ledger, house["operator"])


@pytest.mark.parametrize("act", ["enrol", "retire", "link", "resolve"])
def test_only_an_officer_changes_the_rest(ledger, house, act):
    release = reserve(ledger, house["operator"])
    acts = {
        "enrol": lambda key: ledger.enrol(member("operator", house["second"]), key=key, **WHY),
        "retire": lambda key: ledger.retire("operator", house["operator"].public_hex, key=key, **WHY),
        "link": lambda key: ledger.link("f" * 32, name="other", key=key, **WHY),
        "resolve": lambda key: ledger.resolve(release.release, key=key, **WHY),
    }
    for stranger in ("operator", "third"):
        with pytest.raises(KeyFileError, match=f"{act} entries"):
            acts[act](house[stranger])
    assert acts[act](house["officer"]).kind == act


def test_a_forged_grant_by_the_operator_does_not_verify(ledger, house):
    put(ledger, "grant", GrantBody(epsilon=9.0, delta=1e-4, reason="mine"), house["operator"])
    with pytest.raises(LedgerTamperedError, match=r"entry 3 \(grant\): grant entries are signed by an officer"):
        open_ledger(ledger.path)


def test_an_enrolled_operator_spends_until_retired(ledger, house):
    second = house["second"]
    with pytest.raises(KeyFileError, match="can enrol a key"):
        reserve(ledger, second)
    ledger.enrol(member("operator", second, "night shift"), key=house["officer"], **WHY)
    done = reserve(ledger, second)
    done.plan(REST)
    proof = done.proof()
    assert check_proof(proof, second.public_hex).predecessors == ()
    with pytest.raises(ValueError, match="signed by another key"):
        check_proof(proof, house["operator"].public_hex)
    ledger.retire("operator", second.public_hex, key=house["officer"], **WHY)
    with pytest.raises(KeyFileError, match="commit entries"):
        done.commit(BUNDLE)
    with pytest.raises(KeyFileError):
        reserve(ledger, second)
    assert [m.public_key for m in ledger.summary().members if m.role == "operator"] == [house["operator"].public_hex]
    found = ledger.verify(second.public_hex)  # what a key signed before it was retired still counts
    assert found.vouched == 5
    assert {m.public_key for m in found.strangers} == {house["officer"].public_hex, house["operator"].public_hex}


def test_an_expected_officer_who_is_none_gives_a_forged_ledger_away(tmp_path, house):
    """An operator writes a ledger anew, with an officer of his own making; his own signature alone must not vouch for it."""
    members = [member("operator", house["operator"]), member("officer", house["third"])]
    forged = create_ledger(tmp_path / "f.db", dataset=DATASET, unit="row", key=house["operator"], members=members)
    forged.grant(epsilon=9.0, delta=1e-4, key=house["third"], **WHY)
    assert [m.role for m in forged.verify(house["operator"].public_hex).strangers] == ["officer"]
    with pytest.raises(LedgerTamperedError, match=f"key {house['officer'].public_hex} was expected among"):
        forged.verify(house["officer"].public_hex, house["operator"].public_hex)


def test_the_last_officer_stays(ledger, house):
    with pytest.raises(LedgerError, match="the last officer cannot be retired"):
        ledger.retire("officer", house["officer"].public_hex, key=house["officer"], **WHY)
    ledger.enrol(member("officer", house["second"]), key=house["officer"], **WHY)
    ledger.retire("officer", house["officer"].public_hex, key=house["second"], **WHY)
    with pytest.raises(KeyFileError):
        ledger.grant(epsilon=3.0, delta=1e-4, key=house["officer"], **WHY)
    with pytest.raises(LedgerError, match="was retired; use a new key"):
        ledger.enrol(member("officer", house["officer"]), key=house["second"], **WHY)


def test_a_ledger_needs_an_officer_and_its_opener(tmp_path, house):
    for members in ([member("operator", house["operator"])], [member("officer", house["officer"])]):
        with pytest.raises(ConfigError, match=r"names no officer|its signer is not among"):
            create_ledger(tmp_path / "l.db", dataset=DATASET, unit="row", key=house["operator"], members=members)
    assert not (tmp_path / "l.db").exists()


def test_a_rotated_key_takes_over_every_role_and_the_old_one_none(ledger, house):
    old, new = house["operator"], house["third"]
    ledger.enrol(member("officer", old), key=house["officer"], **WHY)
    ledger.rotate(new, key=old, **WHY)
    with pytest.raises(KeyFileError, match=f"it was replaced by {new.public_hex[:16]}"):
        reserve(ledger, old)
    done = reserve(ledger, new)
    ledger.grant(epsilon=3.0, delta=1e-4, key=new, **WHY)
    done.plan(REST)
    assert check_proof(done.proof(), new.public_hex).predecessors == (old.public_hex,)
    assert ledger.verify(old.public_hex).vouched == 4  # the handover itself


def test_nobody_hands_over_to_a_key_that_is_not_theirs(ledger, house):
    old, new = house["operator"], house["third"]
    signature = cross_sign(house["second"], dataset=DATASET, old_key=old.public_hex)
    put(ledger, "rotate", RotateBody(new_key=new.public_hex, cross_signature=signature, reason="r"), old)
    with pytest.raises(LedgerTamperedError, match=r"entry 3 \(rotate\): the new key did not sign the handover"):
        open_ledger(ledger.path)


def test_a_handover_of_another_ledger_or_key_is_not_taken(ledger, house):
    old, new = house["operator"], house["third"]
    for number, signature in enumerate(
        (
            cross_sign(new, dataset="f" * 32, old_key=old.public_hex),
            cross_sign(new, dataset=DATASET, old_key=house["officer"].public_hex),
        )
    ):
        copy = ledger.path.with_name(f"{number}.db")
        shutil.copy(ledger.path, copy)
        put(open_ledger(copy), "rotate", RotateBody(new_key=new.public_hex, cross_signature=signature, reason="r"), old)
        with pytest.raises(LedgerTamperedError, match="did not sign the handover"):
            open_ledger(copy)


def test_a_key_that_was_a_member_does_not_come_back(ledger, house):
    ledger.rotate(house["third"], key=house["operator"], **WHY)
    with pytest.raises(LedgerError, match="is, or was, a member already"):
        ledger.rotate(house["operator"], key=house["third"], **WHY)
    with pytest.raises(LedgerError, match="was replaced by"):
        ledger.enrol(member("operator", house["operator"]), key=house["officer"], **WHY)
    with pytest.raises(LedgerError, match="is an operator already"):
        ledger.enrol(member("operator", house["third"]), key=house["officer"], **WHY)


def test_an_operator_does_not_change_the_members(ledger, house):
    bodies = {
        "enrol": EnrolBody(member=member("officer", house["operator"]), reason="r"),
        "retire": RetireBody(role="officer", public_key=house["officer"].public_hex, reason="r"),
    }
    for kind, body in bodies.items():
        copy = ledger.path.with_name(f"{kind}.db")
        shutil.copy(ledger.path, copy)
        other = open_ledger(copy)
        put(other, kind, body, house["operator"])
        with pytest.raises(LedgerTamperedError, match=rf"entry 3 \({kind}\): .* are signed by an officer"):
            open_ledger(copy)


# --- the files of a key ---------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    """A ledger opened by a key on the disk."""
    path = tmp_path / "keys" / "operator.pem"
    key = generate_key(path)
    return create_ledger(tmp_path / "k.db", dataset=DATASET, unit="row", key=key), path, key


def test_a_rotation_puts_the_new_pair_in_place_and_keeps_the_old_one(pair):
    ledger, path, old = pair
    done = rotate_key(ledger, path, reason="yearly", actor="a")
    new = load_signing_key(path)
    assert (done.public_hex, done.replaced) == (new.public_hex, old.public_hex)
    assert load_public_key(path.with_suffix(".pub")) == new.public_hex
    assert load_signing_key(done.kept).public_hex == old.public_hex
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(
        [path.name, "operator.pub", done.kept.name, done.kept.with_suffix(".pub").name]
    )
    assert path.stat().st_mode & 0o777 == 0o600
    ledger.grant(epsilon=1.0, delta=1e-5, key=new, **WHY)


@pytest.mark.parametrize("step", range(1, 12))
def test_a_rotation_that_is_cut_short_anywhere_goes_on_where_it_stopped(pair, monkeypatch, step):
    """Stops before the n-th file operation, then runs again: one handover, one working key."""
    ledger, path, old = pair
    done = 0

    def maybe(real):
        def call(*args, **kwargs):
            nonlocal done
            done += 1
            if done == step:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("write_exactly", "put_in_place"):
            patch.setattr(files, name, maybe(getattr(files, name)))
        with pytest.raises(KeyboardInterrupt):
            rotate_key(ledger, path, reason="r", actor="a")
    usable = load_signing_key(path)
    rotated = [e for e in ledger.entries() if e.kind == "rotate"]
    if usable.public_hex == old.public_hex:
        rotate_key(ledger, path, reason="r", actor="a")
        rotated = [e for e in ledger.entries() if e.kind == "rotate"]
    assert len(rotated) == 1
    ledger.grant(epsilon=1.0, delta=1e-5, key=load_signing_key(path), **WHY)
    assert load_public_key(path.with_suffix(".pub")) == load_signing_key(path).public_hex


def test_a_key_that_may_not_sign_is_not_rotated(pair, house):
    ledger, path, _ = pair
    stranger = path.with_name("other.pem")
    generate_key(stranger)
    with pytest.raises(KeyFileError, match="rotate entries"):
        rotate_key(ledger, stranger, reason="r", actor="a")
    assert load_signing_key(stranger)
