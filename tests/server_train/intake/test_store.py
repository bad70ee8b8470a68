"""The hub's memory: what it keeps, that several processes may keep it, and that all of a run is kept or none."""

import multiprocessing
import sqlite3
from contextlib import closing

import pytest

from distill.errors import BundleMismatchError, ConfigError, HubFileError, LedgerForkError
from distill.exchange import generator_codec as generators
from server_train.intake import intake
from server_train.intake.admission import Admission
from server_train.intake.intake import receive
from server_train.intake.store import HubStore
from tests.fakes.hubs import BINARY, TableGenerator, fake_bundle, fake_chain, fake_proven, table

KEY = "a" * 64


@pytest.fixture
def hub(tmp_path):
    return HubStore(tmp_path / "hub.db")


def seen(name, *entries, **changes):
    """A bundle of a trusted bank whose ledger has these entries."""
    proven = fake_proven(f"{name}{entries}", fake_chain(*entries), **changes)
    return fake_bundle(name, BINARY, table(50, BINARY, 0), proven=proven)


def remember(hub, *bundles):
    return hub.remember(bundles, [b.manifest.public_key for b in bundles])


def test_there_is_no_file_before_there_is_something_to_remember(hub):
    assert hub.all_keys() == ()
    assert hub.ledgers() == ()
    with pytest.raises(ConfigError, match="no trusted key has the digits or the name 'north'; trusted: none"):
        hub.remove_key("north")
    assert not hub.exists


def test_a_key_is_kept_until_it_is_taken_back_and_then_told_as_gone(hub):
    kept = hub.add_key(KEY, name="north", by="ann")
    assert hub.all_keys() == (kept,)
    assert (kept.name, kept.public_key, kept.added_by, kept.removed) == ("north", KEY, "ann", None)
    assert hub.add_key(KEY, name="north", by="bob") == kept
    hub.remove_key("north")
    (gone,) = hub.all_keys()
    assert gone.removed is not None
    again = hub.add_key(KEY, name="north bank", by="bob")
    assert hub.all_keys() == (again,)
    hub.remove_key(KEY)
    assert hub.all_keys()[0].removed is not None


def test_names_and_keys_are_not_mixed_up(hub):
    hub.add_key(KEY, name="north", by="ann")
    with pytest.raises(ConfigError, match="is trusted already, as 'north'"):
        hub.add_key(KEY, name="south", by="ann")
    with pytest.raises(ConfigError, match=r"'north' is the name of key a{16}"):
        hub.add_key("b" * 64, name="north", by="ann")
    for name in ("", "two\nlines", "n" * 501):
        with pytest.raises(ConfigError, match="one line"):
            hub.add_key("c" * 64, name=name, by="ann")
    assert [k.public_key for k in hub.all_keys()] == [KEY]


def test_what_was_seen_is_read_back_the_same_and_seeing_it_twice_changes_nothing(hub):
    bundle = seen("alpha", "open", "grant", "reserve 1", "plan 1", epsilon=1.25, epsilon_total=1.25)
    remember(hub, bundle)
    first = hub.ledgers()
    (ledger,), (release,) = first, first[0].releases
    assert (ledger.dataset, ledger.entries, ledger.head) == (bundle.manifest.dataset, 4, bundle.proven.hashes[-1])
    assert (release.release, release.sequence, release.epsilon) == (bundle.proven.release, 3, 1.25)
    assert (release.adds_up, release.rehearsal, release.origin) == (True, False, bundle.digest)
    assert remember(hub, bundle) == ()
    assert hub.ledgers() == first


def test_the_longest_chain_is_kept_and_an_older_bundle_is_taken(hub):
    old = seen("alpha", "open", "grant", "reserve 1", "plan 1")
    new = seen("alpha", "open", "grant", "reserve 1", "plan 1", "commit 1", "reserve 2", "plan 2", epsilon_total=4.0)
    for bundles in ([new], [old], [new, old]):
        remember(hub, *bundles)
        (ledger,) = hub.ledgers()
        assert ledger.head == new.proven.hashes[-1]
    assert [r.sequence for r in ledger.releases] == [3, 6]


def test_a_ledger_that_was_rolled_back_is_caught_by_what_was_seen_before(hub):
    remember(hub, seen("alpha", "open", "grant", "reserve 1", "plan 1"))
    before = hub.ledgers()
    for parted in (("open", "grant", "reserve 2", "plan 2"), ("open", "grant", "x", "y", "reserve 2", "plan 2")):
        with pytest.raises(LedgerForkError, match="agree up to entry 2 and part after it"):
            remember(hub, seen("zulu", "open", "grant", "r", "p"), seen("alpha", *parted))
    assert hub.ledgers() == before, "all of a run is remembered, or nothing"


def test_a_successor_is_kept_once_under_a_name_of_its_own(hub):
    hub.add_key("e" * 64, name="north", by="ann")
    hub.add_key("f" * 64, name="north (2)", by="ann")
    bundle = seen("alpha", "open", "grant", "reserve 1", "plan 1", predecessors=("e" * 64,))
    (new,) = hub.remember([bundle], ["e" * 64])
    assert (new.public_key, new.name) == (bundle.manifest.public_key, "north (3)")
    assert new.note.startswith("e" * 16)
    assert new in hub.all_keys()
    assert hub.remember([bundle], ["e" * 64]) == ()
    hub.remove_key("north (3)")
    assert hub.remember([bundle], ["e" * 64]) == ()
    assert [k.removed is None for k in hub.all_keys() if k.name == "north (3)"] == [False]


def _busy(path, name, barrier):
    barrier.wait(timeout=30)
    store = HubStore(path)
    store.add_key(f"{ord(name):064x}", name=name, by="tester")
    for i in range(5):
        remember(store, seen(f"{name}{i}", "open", "grant", "reserve", "plan"))


def test_processes_that_start_at_once_lose_nothing(hub):
    """Six processes race to make the file, then each remembers a key and five ledgers."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(6)
    running = [context.Process(target=_busy, args=(hub.path, name, barrier)) for name in "abcdef"]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [p.exitcode for p in running] == [0] * 6
    assert [k.name for k in hub.all_keys()] == list("abcdef")
    assert len(hub.ledgers()) == 30
    assert [p.name for p in hub.path.parent.iterdir() if p.suffix == ".tmp"] == []


def test_two_hubs_that_see_the_two_sides_of_a_fork_at_once_do_not_both_remember(hub):
    """The check is made again under the write lock: what the other wrote in between counts."""
    sides = [seen("alpha", "open", "grant", f"reserve {i}", f"plan {i}") for i in range(2)]
    assert hub.ledgers() == ()  # both looked before either wrote
    remember(hub, sides[0])
    with pytest.raises(LedgerForkError):
        remember(hub, sides[1])


@pytest.mark.parametrize("write", [b"no database at all, but long enough", b""], ids=["another file", "an empty file"])
def test_a_file_that_is_no_memory_is_told_and_left_alone(hub, write):
    hub.path.write_bytes(write)
    for use in (hub.all_keys, hub.ledgers, lambda: hub.add_key(KEY, name="north", by="ann")):
        with pytest.raises(HubFileError, match=r"hub.db is .*not a hub's memory"):
            use()
    assert hub.path.read_bytes() == write


def test_a_damaged_or_changed_memory_is_told(hub):
    hub.add_key(KEY, name="north", by="ann")
    with closing(sqlite3.connect(hub.path)) as connection:
        connection.execute("CREATE TRIGGER keys_add AFTER INSERT ON keys BEGIN DELETE FROM keys; END")
        connection.commit()
    with pytest.raises(HubFileError, match="are not those of a hub's memory"):
        hub.all_keys()


def test_a_folder_that_cannot_hold_it_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HubFileError, match="cannot write the hub's memory"):
        HubStore(tmp_path / "file" / "hub.db").add_key(KEY, name="north", by="ann")


# ---- what train-global and check remember ------------------------------------------------------------------------------


@pytest.fixture
def door(monkeypatch, tmp_path, hub):
    """Let bundles in by the front desk: all of a call or none."""
    monkeypatch.setattr(generators, "generator_of", lambda b: TableGenerator(b.schema, b.samples), raising=False)

    def enter(*bundles, **how):
        found = {f"{i}.distill": bundle for i, bundle in enumerate(bundles)}
        monkeypatch.setattr(intake, "read_bundle", lambda path: found[path.name])
        return receive([tmp_path / name for name in found], Admission(hub=hub, **how))

    return enter


def test_only_what_a_trusted_signer_sent_is_remembered(door, hub):
    north, stranger = seen("alpha", "open", "grant", "r", "p"), seen("zulu", "open", "grant", "r", "p")
    door(stranger, allow_unknown_signers=True)
    assert not hub.exists
    hub.add_key(north.manifest.public_key, name="north", by="ann")
    door(north, remember=False)
    assert hub.ledgers() == ()
    door(north, stranger, allow_unknown_signers=True)
    assert [ledger.dataset for ledger in hub.ledgers()] == [north.manifest.dataset]


def test_a_stranger_is_still_compared_with_what_was_seen(door, hub):
    north = seen("alpha", "open", "grant", "r", "p")
    remember(hub, north)
    forged = seen("zulu", "open", "grant", "r2", "p2")
    forged.manifest.dataset = north.manifest.dataset
    with pytest.raises(LedgerForkError):
        door(forged, allow_unknown_signers=True)


def test_nothing_is_remembered_unless_all_bundles_pass(door, hub):
    north, south = seen("alpha", "open", "grant", "r", "p"), seen("beta", "open", "grant", "r", "p")
    south.manifest.schema_digest = "0" * 64
    hub.add_key(north.manifest.public_key, name="both", by="ann")
    with pytest.raises(BundleMismatchError):
        door(north, south)
    assert hub.ledgers() == ()


def test_a_new_key_is_told_and_trusted_from_then_on(door, hub):
    hub.add_key("e" * 64, name="north", by="ann")
    rotated = seen("alpha", "open", "grant", "rotate", "r", "p", predecessors=("e" * 64,))
    (note,) = door(rotated).notes
    assert "trusted from now on as 'north (2)'" in note
    fresh = seen("another", "open", "grant", "r", "p")
    assert fresh.manifest.public_key == rotated.manifest.public_key
    assert door(fresh).notes == ()
