"""The ledger keeps its books, refuses what would overspend, and notices every kind of meddling."""

import contextlib
import json
import math
import multiprocessing
import os
import resource
import shutil
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.common.canonical_json import canonical, parse_canonical
from distill.common.keys import generate_key, load_signing_key
from distill.errors import BudgetError, ConfigError, KeyFileError, LedgerError, LedgerTamperedError
from distill.ledger import REHEARSAL, create_ledger, open_ledger
from distill.ledger.entries import store as ledger_store
from distill.ledger.entries.bodies import MAX_STEPS, GrantBody, Member, PlanBody, ReserveBody, opening
from distill.ledger.entries.entry import Entry, chain_of, read_entry, sign_entry, sign_head
from distill.ledger.proof import check_proof
from distill.ledger.verification import audited_epsilon
from distill.privacy.events import Event, epsilon_of
from tests.fakes.ledgers import BUNDLE, DATASET, REST, SIZE, reserve
from tests.fakes.ledgers import put as put_entry


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return generate_key(folder / "a.pem"), generate_key(folder / "b.pem")


@pytest.fixture
def key(keys):
    return keys[0]


@pytest.fixture
def ledger(tmp_path, key):
    """A ledger with a grant of 2 at 1e-4."""
    ledger = create_ledger(tmp_path / "ledger.db", dataset=DATASET, unit="row", key=key)
    ledger.grant(epsilon=2.0, delta=1e-4, reason="first year", actor="officer", key=key)
    return ledger


@pytest.fixture
def busy(ledger, key):
    """The ledger after one committed, one abandoned and one standing release: ten entries."""
    first = reserve(ledger, key, 0.5)
    first.plan(REST)
    first.commit(BUNDLE)
    reserve(ledger, key, 0.5).abandon("the table is too small")
    ledger.grant(epsilon=2.5, delta=1e-4, reason="second year", actor="officer", key=key)
    reserve(ledger, key, 0.6).plan(REST)
    return ledger


# --- the books ------------------------------------------------------------------------------------------------------


def test_a_new_ledger_grants_nothing(tmp_path, key):
    ledger = create_ledger(tmp_path / "new" / "ledger.db", dataset=DATASET, unit="row", key=key)
    summary = ledger.summary()
    assert (summary.granted_epsilon, summary.spent_epsilon, summary.remaining_epsilon) == (0, 0, 0)
    assert [e.kind for e in ledger.entries()] == ["open"]
    with pytest.raises(BudgetError, match=r"nothing has been granted.*ledger grant --epsilon 0\.5"):
        reserve(ledger, key)
    assert [p.name for p in ledger.path.parent.iterdir()] == ["ledger.db"]


def test_a_release_goes_from_reserved_to_committed(ledger, key):
    reservation = reserve(ledger, key)
    assert reservation.events == (SIZE,)
    reservation.plan(REST)
    assert reservation.events == (SIZE, *REST)
    reservation.commit(BUNDLE)
    summary = ledger.summary()
    assert summary.standing == ()
    assert (summary.spent_epsilon, summary.spent_delta) == (0.5, 1e-5)
    assert summary.releases[0].bundle == BUNDLE
    assert [e.kind for e in ledger.entries()] == ["open", "grant", "reserve", "plan", "commit"]
    entry = ledger.entries()[3]
    assert entry.body["epsilon_release"] == epsilon_of([SIZE, *REST], 1e-5)
    assert (entry.body["epsilon_total"], entry.body["delta_total"]) == (0.5, 1e-5)
    assert entry.relation == "add or remove one unit"
    assert ledger.verify(key.public_hex).releases[0].status == "committed"


def test_four_halves_fit_a_grant_of_two_and_a_fifth_does_not(ledger, key):
    for _ in range(4):
        reserve(ledger, key)
    before = ledger.path.read_bytes(), ledger.head()
    with pytest.raises(
        BudgetError, match=r"asks for epsilon 0\.5.*granted 2, 2 is spent.*4 unfinished.*0 is left.*2\.5"
    ):
        reserve(ledger, key)
    with pytest.raises(BudgetError):
        reserve(ledger, key, 0.011)
    assert (ledger.path.read_bytes(), ledger.head()) == before


@pytest.mark.parametrize(("parts", "epsilon"), [(10, 0.2), (3, 2 / 3), (7, 2 / 7), (49, 2 / 49)])
def test_equal_parts_of_a_grant_fit_whatever_their_last_bits(ledger, key, parts, epsilon):
    ledger.grant(epsilon=2.0, delta=9e-3, reason="many", actor="officer", key=key)
    for _ in range(parts):
        reserve(ledger, key, epsilon)
    assert ledger.summary().remaining_epsilon == 0
    with pytest.raises(BudgetError):
        reserve(ledger, key, 0.0101)


def test_delta_is_counted_like_epsilon(ledger, key):
    reserve(ledger, key, 0.1, delta=6e-5)
    with pytest.raises(
        BudgetError, match=r"asks for delta 5e-05, but of the granted 0\.0001, 6e-05 is spent.*4e-05 is left"
    ):
        reserve(ledger, key, 0.1, delta=5e-5)
    reserve(ledger, key, 0.1, delta=4e-5)


def test_a_grant_replaces_the_one_before(ledger, key):
    reserve(ledger, key, 1.5)
    ledger.grant(epsilon=1.0, delta=1e-4, reason="lowered", actor="officer", key=key)
    assert ledger.summary().remaining_epsilon == 0
    with pytest.raises(BudgetError, match="Nothing is left"):
        reserve(ledger, key, 0.1)
    ledger.grant(epsilon=3.0, delta=1e-4, reason="raised", actor="officer", key=key)
    reserve(ledger, key, 1.5)
    ledger.verify(key.public_hex)


def test_an_abandoned_release_costs_only_what_was_read(ledger, key):
    reserve(ledger, key, 1.5).abandon("too few rows")
    summary = ledger.summary()
    assert (summary.spent_epsilon, summary.spent_delta) == (0.01, 0)
    assert summary.standing == ()
    reserve(ledger, key, 1.99)
    ledger.verify(key.public_hex)


def test_an_abandoned_gaussian_first_round_keeps_its_delta(ledger, key):
    noisy = Event(name="size", mechanism="gaussian", noise_multiplier=50.0)
    ledger.reserve(epsilon=1.0, delta=1e-5, purpose="p", actor="a", events=[noisy], key=key).abandon("enough")
    assert ledger.summary().spent_delta == 1e-5
    assert ledger.summary().spent_epsilon == epsilon_of([noisy], 1e-5)


def test_a_rehearsal_must_fit_but_costs_nothing_and_says_so(ledger, key):
    with pytest.raises(BudgetError):
        reserve(ledger, key, 2.5, rehearsal=True)
    rehearsal = reserve(ledger, key, 2.0, rehearsal=True)
    rehearsal.plan(REST)
    rehearsal.commit(BUNDLE)
    assert ledger.entries()[2].body["warning"] == REHEARSAL == "REHEARSAL, NOT PRIVATE"
    assert ledger.summary().spent_epsilon == 0
    reserve(ledger, key, 2.0)
    ledger.verify(key.public_hex)


def test_a_plan_must_not_cost_more_than_was_reserved(ledger, key):
    reservation = reserve(ledger, key, 0.3)
    head = ledger.head()
    with pytest.raises(
        BudgetError, match=r"planned events cost epsilon 0\.\d+ at delta 1e-05, more than the reserved 0\.3"
    ):
        reservation.plan(REST)
    assert ledger.head() == head
    assert reservation.events == (SIZE,)
    reservation.plan([REST[0].model_copy(update={"noise_multiplier": 40.0})])


def test_round_0_alone_must_fit_the_release(ledger, key):
    dear = SIZE.model_copy(update={"noise_multiplier": 50.0})
    with pytest.raises(BudgetError, match=r"more than the reserved 0\.01"):
        ledger.reserve(epsilon=0.01, delta=1e-5, purpose="count", actor="operator", events=[dear], key=key)


def test_each_step_has_its_turn(ledger, key):
    reservation = reserve(ledger, key)
    with pytest.raises(LedgerError, match="the release is reserved, not planned"):
        reservation.commit(BUNDLE)
    reservation.plan(REST)
    for step in (lambda: reservation.plan(REST), lambda: reservation.abandon("late")):
        with pytest.raises((LedgerError, ConfigError, BudgetError)):
            step()
    reservation.commit(BUNDLE)
    with pytest.raises(LedgerError, match="the release is committed, not planned"):
        reservation.commit(BUNDLE)
    abandoned = reserve(ledger, key)
    abandoned.abandon("enough")
    with pytest.raises(LedgerError, match="already abandoned"):
        abandoned.plan(REST)
    ledger.verify(key.public_hex)


def test_events_belong_to_their_round_and_have_names_of_their_own(ledger, key):
    with pytest.raises(ConfigError, match="round 0 only"):
        ledger.reserve(epsilon=1, delta=1e-5, purpose="p", actor="a", events=REST, key=key)
    with pytest.raises(ConfigError, match="at least one event"):
        ledger.reserve(epsilon=1, delta=1e-5, purpose="p", actor="a", events=[], key=key)
    reservation = reserve(ledger, key)
    with pytest.raises(ConfigError, match="after 0 only"):
        reservation.plan([SIZE])
    with pytest.raises(ConfigError, match="share a name"):
        reservation.plan([REST[0], REST[0]])
    with pytest.raises(LedgerError, match="share a name"):
        reservation.plan([REST[0].model_copy(update={"name": "size"})])


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_a_senseless_epsilon_is_refused(ledger, key, epsilon):
    head = ledger.head()
    with pytest.raises(ConfigError, match="epsilon must be"):
        ledger.grant(epsilon=epsilon, delta=1e-5, reason="r", actor="a", key=key)
    with pytest.raises(ConfigError, match="epsilon must be"):
        reserve(ledger, key, epsilon)
    assert ledger.head() == head


@pytest.mark.parametrize("delta", [0.0, -1e-5, math.nan, math.inf, 0.01, 1.0])
def test_a_senseless_delta_is_refused(ledger, key, delta):
    with pytest.raises(ConfigError, match="delta must be"):
        ledger.grant(epsilon=1.0, delta=delta, reason="r", actor="a", key=key)
    with pytest.raises(ConfigError, match="delta must be"):
        reserve(ledger, key, 0.5, delta=delta)


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "\x1b[2Jgone", "x" * 501, "\ud800"])
def test_texts_are_single_printable_lines(ledger, key, text):
    head = ledger.head()
    with pytest.raises(ConfigError, match="reason"):
        ledger.grant(epsilon=1.0, delta=1e-5, reason=text, actor="officer", key=key)
    with pytest.raises(ConfigError, match="actor"):
        ledger.grant(epsilon=1.0, delta=1e-5, reason="r", actor=text, key=key)
    assert ledger.head() == head


def test_only_a_member_adds_to_the_ledger(ledger, keys):
    head = ledger.head()
    with pytest.raises(KeyFileError, match="are signed by an officer, and the given key is"):
        ledger.grant(epsilon=9.0, delta=1e-5, reason="mine now", actor="stranger", key=keys[1])
    assert ledger.head() == head


def test_floats_survive_the_ledger_to_the_last_bit(ledger, key):
    epsilon, noise = 0.1 + 0.2, 1e17 / 3
    event = Event(name="size", mechanism="laplace", noise_multiplier=noise)
    ledger.reserve(epsilon=epsilon, delta=1e-5, purpose="p", actor="a", events=[event], key=key)
    release = open_ledger(ledger.path).summary().releases[0]
    assert release.epsilon == epsilon
    assert release.events[0].noise_multiplier == noise


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_canonical_json_reads_back_to_the_same_bytes(value):
    data = canonical(value)
    with contextlib.suppress(UnicodeEncodeError):
        json.dumps(value, ensure_ascii=False).encode()
        assert canonical(parse_canonical(data)) == data


@pytest.mark.parametrize(
    "data", [b'{"b":1,"a":2}', b'{"a":1,"a":1}', b'{"a": 1}', b"1.00", b"NaN", b"1e400", b"[" * 100_000, b'"\xff"', b""]
)
def test_json_in_another_spelling_is_refused(data):
    with pytest.raises(ValueError, match=r"JSON|canonical"):
        parse_canonical(data)


# --- opening --------------------------------------------------------------------------------------------------------


def test_a_ledger_is_never_overwritten(ledger, key):
    data = ledger.path.read_bytes()
    with pytest.raises(LedgerError, match="never overwritten"):
        create_ledger(ledger.path, dataset=DATASET, unit="row", key=key)
    assert ledger.path.read_bytes() == data


def test_what_is_not_a_ledger_is_told_apart(tmp_path):
    with pytest.raises(LedgerError, match=r"no ledger at .*distill init"):
        open_ledger(tmp_path / "none.db")
    with pytest.raises(LedgerError, match="is a directory"):
        open_ledger(tmp_path)
    (tmp_path / "text.db").write_text("id,amount\n" * 1000)
    with pytest.raises(LedgerError, match="is not a ledger"):
        open_ledger(tmp_path / "text.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(LedgerError, match="not a ledger"):
        open_ledger(tmp_path / "empty.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(LedgerError, match="but not a ledger"):
        open_ledger(tmp_path / "other.db")


def test_a_ledger_of_another_data_set_is_refused(ledger):
    assert open_ledger(ledger.path, dataset=DATASET).dataset == DATASET
    with pytest.raises(LedgerError, match=f"belongs to data set {DATASET}, not ffff"):
        open_ledger(ledger.path, dataset="f" * 32)


def test_a_ledger_from_a_newer_version_is_refused(ledger):
    with raw(ledger.path) as connection:
        connection.execute("PRAGMA user_version=3")
    with pytest.raises(LedgerError, match="newer version"):
        open_ledger(ledger.path)


def test_a_ledger_in_an_odd_place_works(tmp_path, key):
    path = tmp_path / "a b%20?c#d" / "l%edger?.db"
    create_ledger(path, dataset=DATASET, unit="row", key=key).grant(
        epsilon=1, delta=1e-5, reason="r", actor="a", key=key
    )
    assert len(open_ledger(path).entries()) == 2


def test_an_auditor_can_read_a_copy_that_cannot_be_written(busy, tmp_path, key, monkeypatch):
    """As root the folder's mode means nothing, so the question whether it can be written is answered for it."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert open_ledger(busy.path).verify(key.public_hex).summary.entries == 10
    with pytest.raises(LedgerError, match=r"cannot open the ledger .* for writing.*permissions"):
        reserve(busy, key, 0.1)


# --- several processes ----------------------------------------------------------------------------------------------


def _spend(path, key_path, epsilon, tries, start, results):
    """Reserve again and again; report how many were admitted."""
    ledger, key = open_ledger(path), load_signing_key(key_path)
    start.wait()
    admitted = 0
    for _ in range(tries):
        with contextlib.suppress(BudgetError):
            reserve(ledger, key, epsilon)
            admitted += 1
    results.put(admitted)


def test_processes_at_once_cannot_overspend(tmp_path):
    key = generate_key(tmp_path / "key.pem")
    ledger = create_ledger(tmp_path / "ledger.db", dataset=DATASET, unit="row", key=key)
    ledger.grant(epsilon=2.0, delta=1e-3, reason="r", actor="officer", key=key)
    context = multiprocessing.get_context("spawn")
    workers, start, results = 4, context.Barrier(4), context.Queue()
    arguments = (ledger.path, tmp_path / "key.pem", 0.3, 4, start, results)
    processes = [context.Process(target=_spend, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    admitted = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    results.close()
    results.join_thread()
    assert sum(admitted) == 6, "16 tries at 0.3 each: exactly 6 fit a grant of 2"
    assert ledger.summary().spent_epsilon == pytest.approx(1.8)
    assert ledger.verify(key.public_hex).summary.entries == 8


def _reserve_and_die(path, key_path):
    reserve(open_ledger(path), load_signing_key(key_path), 1.5)
    os._exit(9)


def test_a_crash_leaves_the_reservation_standing_and_it_counts(tmp_path):
    key = generate_key(tmp_path / "key.pem")
    ledger = create_ledger(tmp_path / "ledger.db", dataset=DATASET, unit="row", key=key)
    ledger.grant(epsilon=2.0, delta=1e-3, reason="r", actor="officer", key=key)
    process = multiprocessing.get_context("spawn").Process(
        target=_reserve_and_die, args=(ledger.path, tmp_path / "key.pem")
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    summary = ledger.summary()
    assert [(r.status, r.epsilon, r.purpose) for r in summary.standing] == [("reserved", 1.5, "credit scores")]
    assert summary.spent_epsilon == 1.5
    with pytest.raises(BudgetError, match=r"1 unfinished release\(s\) included"):
        reserve(ledger, key, 1.0)


def test_a_locked_ledger_is_told_and_nothing_is_recorded(ledger, key, monkeypatch):
    monkeypatch.setattr("distill.common.sqlite.BUSY_SECONDS", 0.05)
    head = ledger.head()
    with raw(ledger.path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="in use by another process"):
            reserve(ledger, key)
        assert ledger.head() == head, "readers do not wait for writers"
    reserve(ledger, key)


def test_an_interrupt_under_the_lock_undoes_the_entry(ledger, key, monkeypatch):
    head = ledger.head()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("distill.ledger.ledger.sign_head", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reserve(ledger, key)
    monkeypatch.undo()
    assert ledger.head() == head
    reserve(ledger, key)


@contextlib.contextmanager
def files_no_larger_than(size):
    """A disk that is full beyond `size` bytes a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_nothing_is_recorded(ledger, key):
    entries = ledger.entries()
    with (
        files_no_larger_than(2000),
        pytest.raises(LedgerError, match=rf"cannot write the ledger {ledger.path}.*Free some"),
    ):
        reserve(ledger, key)
    assert ledger.entries() == entries
    ledger.verify(key.public_hex)
    reserve(ledger, key)


def test_a_ledger_that_cannot_be_made_leaves_nothing_behind(tmp_path, key):
    with files_no_larger_than(2000), pytest.raises(LedgerError, match="cannot write the ledger"):
        create_ledger(tmp_path / "ledger.db", dataset=DATASET, unit="row", key=key)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot write the ledger"):
        create_ledger(tmp_path / "file" / "ledger.db", dataset=DATASET, unit="row", key=key)


# --- meddling -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def raw(path):
    """The file as any SQLite tool sees it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@contextlib.contextmanager
def meddling(path):
    """Triggers off, then on again exactly as they were."""
    with raw(path) as connection:
        for name in ledger_store._TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for sql in ledger_store._TRIGGERS.values():
            connection.execute(sql)


def stored(connection):
    return dict(connection.execute("SELECT sequence, entry FROM entries"))


def put(connection, sequence, text):
    connection.execute("UPDATE entries SET entry = ? WHERE sequence = ?", (text, sequence))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET entry = 'x'",
        "DELETE FROM entries",
        "DELETE FROM entries WHERE sequence = 10",
        "INSERT OR REPLACE INTO entries VALUES (3, 'x')",
        "INSERT INTO entries VALUES (12, 'x')",
        "INSERT INTO entries VALUES (-1, 'x')",
        "UPDATE entries SET sequence = 12 WHERE sequence = 10",
        "DELETE FROM head",
        "INSERT OR REPLACE INTO head VALUES (1, 3, 'x')",
        "UPDATE head SET seal = 'x'",
        "UPDATE head SET sequence = 3",
    ],
)
def test_the_file_itself_refuses_changes(busy, statement):
    before = busy.entries()
    with raw(busy.path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    assert busy.entries() == before


def test_a_sound_ledger_verifies_and_says_what_was_checked(busy, key):
    found = busy.verify(key.public_hex)
    assert found.key_given
    assert [r.status for r in found.releases] == ["committed", "abandoned", "planned"]
    for release in found.releases:
        assert release.epsilon_pld == pytest.approx(release.epsilon_release, rel=1e-9)
        assert release.epsilon_rdp >= release.epsilon_pld
    assert any("10 hashes and signatures" in check for check in found.checks)
    assert not busy.verify().key_given


def _leaves(value, place=()):
    """Every place in a JSON value that holds a number, a text or a truth value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*place, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*place, number))
    else:
        yield place, value


def _changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1
    if value is None:
        return 1.0
    return ("f" if value[:1] != "f" else "e") + value[1:]


def test_an_edit_of_any_field_of_any_entry_is_noticed_and_the_entry_named(busy, tmp_path):
    with raw(busy.path) as connection:
        entries = stored(connection)
    places = [(number, place) for number, text in entries.items() for place, _ in _leaves(json.loads(text))]
    assert len(places) > 150
    for number, place in places:
        entry = json.loads(entries[number])
        holder = entry
        for step in place[:-1]:
            holder = holder[step]
        holder[place[-1]] = _changed(holder[place[-1]])
        with pytest.raises(ValueError, match=r"hash|signature|not an entry"):
            read_entry(canonical(entry))
    # and through the file, one field of each entry
    for number in entries:
        copy = tmp_path / f"copy{number}.db"
        shutil.copy(busy.path, copy)
        entry = json.loads(entries[number])
        entry["actor"] = "nobody"
        with meddling(copy) as connection:
            put(connection, number, canonical(entry).decode())
        with pytest.raises(LedgerTamperedError, match=rf"entry {number}: its contents do not match its hash"):
            open_ledger(copy)


def test_a_removed_entry_is_noticed_wherever_it_was(busy, tmp_path):
    for number in range(1, 11):
        copy = tmp_path / f"copy{number}.db"
        shutil.copy(busy.path, copy)
        with meddling(copy) as connection:
            connection.execute("DELETE FROM entries WHERE sequence = ?", (number,))
        expected = f"entry {number}: it is missing" if number < 10 else "the end of the chain: .*cut off"
        with pytest.raises(LedgerTamperedError, match=expected):
            open_ledger(copy)


def test_a_tail_cut_off_with_the_numbers_put_right_is_noticed(busy):
    with meddling(busy.path) as connection:
        connection.execute("DELETE FROM entries WHERE sequence > 6")
        connection.execute("UPDATE head SET sequence = 6")
    with pytest.raises(LedgerTamperedError, match="seal is not that of entry 6: entries were cut off"):
        open_ledger(busy.path)


def test_removed_entries_with_the_rest_renumbered_are_noticed(busy):
    with meddling(busy.path) as connection:
        connection.execute("DELETE FROM entries WHERE sequence = 4")
        connection.execute("UPDATE entries SET sequence = sequence - 1 WHERE sequence > 4")
    with pytest.raises(LedgerTamperedError, match=r"entry 4 \(commit\): sequence 4 was expected"):
        open_ledger(busy.path)


def test_reordered_entries_are_noticed(busy):
    with meddling(busy.path) as connection:
        entries = stored(connection)
        put(connection, 5, entries[6])
        put(connection, 6, entries[5])
    with pytest.raises(LedgerTamperedError, match=r"entry 5 \(reserve\): sequence 5 was expected"):
        open_ledger(busy.path)


def test_a_repeated_entry_is_noticed(busy):
    with meddling(busy.path) as connection:
        connection.execute("INSERT INTO entries VALUES (11, ?)", (stored(connection)[10],))
    with pytest.raises(LedgerTamperedError, match="entry 11"):
        open_ledger(busy.path)


def test_an_empty_ledger_and_a_missing_seal_are_noticed(busy, tmp_path):
    copy = tmp_path / "copy.db"
    shutil.copy(busy.path, copy)
    with meddling(copy) as connection:
        connection.execute("DELETE FROM head")
    with pytest.raises(LedgerTamperedError, match="the seal on the end of the chain is missing"):
        open_ledger(copy)
    with meddling(busy.path) as connection:
        connection.execute("DELETE FROM entries")
    with pytest.raises(LedgerTamperedError, match="all entries are missing"):
        open_ledger(busy.path)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER entries_delete",
        "DROP TRIGGER head_update",
        "DROP TABLE head",
        "CREATE TABLE more (x)",
        "CREATE INDEX i ON entries (entry)",
        "CREATE VIEW v AS SELECT * FROM entries",
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN SELECT 1; END",
        "ALTER TABLE entries ADD COLUMN note TEXT",
        "PRAGMA user_version=0",
    ],
)
def test_a_changed_table_or_trigger_is_noticed(busy, statement):
    with raw(busy.path) as connection:
        connection.execute(statement)
    with pytest.raises(LedgerTamperedError, match="tables or triggers are not those of a ledger"):
        open_ledger(busy.path)
    with pytest.raises(LedgerTamperedError):
        busy.summary()


def test_a_weakened_trigger_under_its_old_name_is_noticed(busy, key):
    with raw(busy.path) as connection:
        connection.execute("DROP TRIGGER entries_update")
        connection.execute("CREATE TRIGGER entries_update BEFORE UPDATE ON entries BEGIN SELECT 1; END")
    with pytest.raises(LedgerTamperedError, match="triggers"):
        reserve(busy, key, 0.1)


def test_no_flipped_byte_of_the_file_changes_what_is_read(busy, tmp_path):
    """Flips in unused space are harmless; anywhere else they are noticed. Every 37th byte, all pages."""
    data, entries, copy = busy.path.read_bytes(), busy.entries(), tmp_path / "copy.db"
    noticed = 0
    for place in range(0, len(data), 37):
        copy.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        try:
            assert open_ledger(copy).entries() == entries
        except LedgerError:
            noticed += 1
    assert noticed > 100


def test_a_schema_that_is_no_text_is_damage_and_not_a_defect(busy, tmp_path):
    data, copy = busy.path.read_bytes(), tmp_path / "copy.db"
    for piece in (b"CREATE TABLE entries", b"CREATE TRIGGER head_delete", b"head_update"):
        place = data.index(piece)
        copy.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        with pytest.raises(LedgerTamperedError, match=r"copy\.db: "):
            open_ledger(copy).verify()


@pytest.mark.parametrize("seal", [None, b"\x00", 7, "upper"])
def test_a_seal_that_is_no_seal_is_noticed(busy, seal):
    """What the table's own checks would refuse can still be in a damaged page."""
    with meddling(busy.path) as connection:
        (right,) = connection.execute("SELECT seal FROM head").fetchone()
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'seal TEXT NOT NULL', 'seal ANY') WHERE name='head'"
        )
    with raw(busy.path) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        for name in ledger_store._TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE head SET seal = ?", (right.upper() if seal == "upper" else seal,))
        for sql in ledger_store._TRIGGERS.values():
            connection.execute(sql)
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'seal ANY', 'seal TEXT NOT NULL') WHERE name='head'"
        )
    with pytest.raises(LedgerTamperedError, match=r"the seal|damaged"):
        open_ledger(busy.path)


def test_a_truncated_file_is_noticed(busy, tmp_path):
    data, copy = busy.path.read_bytes(), tmp_path / "copy.db"
    for size in range(0, len(data), 1024):
        copy.write_bytes(data[:size])
        with pytest.raises(LedgerError):
            open_ledger(copy)


def test_an_older_copy_is_caught_by_a_head_that_left_the_house(ledger, key, tmp_path):
    copy = tmp_path / "older.db"
    shutil.copy(ledger.path, copy)
    reserve(ledger, key)
    head = ledger.head()
    assert ledger.knows(head)
    assert not open_ledger(copy).knows(head)


# --- a signer who cheats: everything is hashed, signed and sealed properly, and still wrong ---------------------------


def opened(public_hex):
    return opening(*(Member(role=role, name=role, public_key=public_hex) for role in ("officer", "operator")))


def forge(path, key, steps):
    """A ledger file with the given (kind, body) entries, all signed with `key`."""
    entry = sign_entry("open", opened(key.public_hex), after=None, actor="x", dataset=DATASET, unit="row", key=key)
    ledger_store.create(path, entry, sign_head(entry, key))
    for kind, body in steps:
        entry = sign_entry(kind, body, after=entry, actor="x", dataset=DATASET, unit="row", key=key)
        with ledger_store.writing(path) as connection:
            ledger_store.append(connection, entry, sign_head(entry, key))
    return path


def granted(epsilon=2.0):
    return "grant", GrantBody(epsilon=epsilon, delta=1e-4, reason="r")


def reserved(**changes):
    fields = {
        "release": "a" * 32,
        "purpose": "p",
        "rehearsal": False,
        "warning": "",
        "epsilon": 1.0,
        "delta": 1e-5,
        "events": (SIZE,),
        "epsilon_release": 0.01,
        "epsilon_total": 1.0,
        "delta_total": 1e-5,
    }
    return "reserve", ReserveBody.model_validate(fields | changes)


def plan(**changes):
    fields = {
        "release": "a" * 32,
        "events": REST,
        "epsilon_release": epsilon_of([SIZE, *REST], 1e-5),
        "epsilon_total": 1.0,
        "delta_total": 1e-5,
    }
    return "plan", PlanBody.model_validate(fields | changes)


def test_an_honest_forgery_verifies(tmp_path, key):
    open_ledger(forge(tmp_path / "l.db", key, [granted(), reserved(), plan()])).verify(key.public_hex)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([reserved()], r"entry 2 \(reserve\): the granted epsilon was exceeded"),
        ([granted(0.5), reserved()], r"entry 3 \(reserve\): the granted epsilon was exceeded"),
        ([granted(), reserved(epsilon_total=0.5)], r"entry 3 \(reserve\): its running totals do not add up"),
        ([granted(), reserved(delta_total=0.0)], r"entry 3 \(reserve\): its running totals do not add up"),
        ([granted(), reserved(rehearsal=True)], r"entry 3 \(reserve\): the rehearsal warning is missing"),
        ([granted(), reserved(epsilon_release=3.0)], r"entry 3 \(reserve\): its events cost more than the release"),
        ([granted(), reserved(events=REST)], r"entry 3 \(reserve\): a reservation holds round 0 only"),
        ([granted(), reserved(), reserved()], r"entry 4 \(reserve\): the release was reserved before"),
        ([granted(), plan()], r"entry 3 \(plan\): the release was never reserved"),
        ([granted(), reserved(), plan(), plan()], r"entry 5 \(plan\): the release is already planned"),
        ([granted(), reserved(), plan(epsilon_total=0.9)], r"entry 4 \(plan\): its running totals"),
        ([granted(), ("open", opened("c" * 64))], r"entry 3 \(open\): only the first entry opens"),
    ],
)
def test_a_broken_rule_is_noticed_though_everything_is_signed(tmp_path, key, steps, problem):
    with pytest.raises(LedgerTamperedError, match=problem):
        open_ledger(forge(tmp_path / "l.db", key, steps))


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (
            [granted(), reserved(epsilon_release=0.009)],
            r"entry 3 \(reserve\): its events cost epsilon 0\.01 .*more than",
        ),
        ([granted(), reserved(epsilon_release=0.02)], r"entry 3 \(reserve\): it states epsilon 0\.02, .* cost 0\.01"),
        ([granted(), reserved(), plan(epsilon_release=0.1)], r"entry 4 \(plan\): its events cost epsilon"),
        ([granted(), reserved(), plan(epsilon_release=0.9)], r"entry 4 \(plan\): it states epsilon 0\.9"),
    ],
)
def test_an_epsilon_that_the_noise_does_not_give_is_noticed(tmp_path, key, steps, problem):
    ledger = open_ledger(forge(tmp_path / "l.db", key, steps))
    with pytest.raises(LedgerTamperedError, match=problem):
        ledger.verify()


def test_a_ledger_written_anew_with_another_key_is_noticed_when_the_key_is_known(tmp_path, keys):
    ledger = open_ledger(forge(tmp_path / "l.db", keys[1], [granted(9.0)]))
    ledger.verify()
    with pytest.raises(LedgerTamperedError, match=rf"entry 1 \(open\): it is signed by key {keys[1].public_hex}"):
        ledger.verify(keys[0].public_hex)


def test_an_entry_signed_with_another_key_in_the_middle_is_noticed(tmp_path, keys):
    path = forge(tmp_path / "l.db", keys[0], [granted()])
    put_entry(open_ledger(path), *granted(9.0), keys[1])
    with pytest.raises(
        LedgerTamperedError,
        match=r"grant entries are signed by an officer, and .* is no officer",
    ):
        open_ledger(path)


@settings(max_examples=30, deadline=None)
@given(
    noise=st.floats(1e-6, 1e6),
    rate=st.floats(1e-9, 1.0),
    count=st.integers(1, MAX_STEPS),
    kind=st.sampled_from(["gaussian", "poisson_gaussian"]),
)
@pytest.mark.filterwarnings("ignore")
def test_recomputing_hostile_events_ends_soon(noise, rate, count, kind):
    """Whatever the numbers: an answer or a refusal, within the time of a test."""
    rate = rate if kind == "poisson_gaussian" else 1.0
    event = Event(name="e", mechanism=kind, noise_multiplier=noise, sampling_rate=rate, count=count)
    with contextlib.suppress(ValueError):
        audited_epsilon([event], 1e-5, stated=2.0)


# --- the proof that travels -----------------------------------------------------------------------------------------


def test_the_proof_holds_the_grants_and_this_release_only(busy, key):
    other = reserve(busy, key, 0.1)
    reservation = reserve(busy, key, 0.6)
    reservation.plan(REST)
    proof = reservation.proof()
    assert [e["kind"] for e in proof.entries] == ["open", "grant", "grant", "reserve", "plan"]
    assert other.release not in proof.model_dump_json()
    checked = check_proof(proof, key.public_hex)
    assert checked.events == (SIZE, *REST)
    assert (checked.epsilon, checked.grant.epsilon, checked.dataset) == (0.6, 2.5, DATASET)
    assert checked.hashes == tuple(e.hash for e in busy.entries())


def test_a_proof_with_anything_changed_is_refused(ledger, keys):
    reservation = reserve(ledger, keys[0])
    reservation.plan(REST)
    proof = reservation.proof()
    with pytest.raises(ValueError, match="signed by another key"):
        check_proof(proof, keys[1].public_hex)
    entries = proof.entries
    for wrong in (
        entries[1:],
        entries[:-1],
        entries[::-1],
        (*entries, entries[-1]),
        (entries[0], *entries),
        entries[:1] + entries[2:],
        (),
    ):
        with pytest.raises(ValueError, match=r"needed|opens no ledger|order|exceeded|over the grant|belong|plan"):
            check_proof(proof.model_copy(update={"entries": wrong}), keys[0].public_hex)
    for number, entry in enumerate(entries):
        changed = (*entries[:number], entry | {"actor": "nobody"}, *entries[number + 1 :])
        with pytest.raises(ValueError, match=f"entry {number + 1} of the ledger proof: its contents"):
            check_proof(proof.model_copy(update={"entries": changed}), keys[0].public_hex)


def test_the_chain_in_a_proof_cannot_be_shortened_or_changed(ledger, key):
    reservation = reserve(ledger, key)
    reservation.plan(REST)
    proof = reservation.proof()
    chain = proof.chain
    for wrong in (chain[:-1], chain[1:], (*chain, "a" * 64), ("b" * 64, *chain[1:]), ()):
        with pytest.raises(ValueError, match="does not end in its head"):
            check_proof(proof.model_copy(update={"chain": wrong}), key.public_hex)
    other = (*chain[:-1], "b" * 64)
    changed = proof.model_copy(update={"chain": other, "head": chain_of(other)[-1]})
    with pytest.raises(ValueError, match=r"entry 4 of the ledger proof: it is not in the chain"):
        check_proof(changed, key.public_hex)


# --- units of several rows -------------------------------------------------------------------------------------------


def test_the_ledger_and_its_proof_say_how_many_rows_of_a_unit_were_read(ledger, key):
    many = [e.model_copy(update={"rows_per_unit": 3}) for e in (SIZE, *REST)]
    reservation = ledger.reserve(
        epsilon=0.5, delta=1e-5, purpose="credit scores", actor="operator", events=many[:1], key=key
    )
    reservation.plan(many[1:])
    assert check_proof(reservation.proof(), key.public_hex).events == tuple(many)
    assert open_ledger(ledger.path).verify(key.public_hex).summary.releases[0].events == tuple(many)


def test_an_entry_that_spells_out_what_goes_without_saying_is_refused(ledger, key):
    """One form for each content: `rows_per_unit` is written only where it is above 1."""
    reserve(ledger, key).plan(REST)
    entry = ledger.entries()[-1]
    assert entry.kind == "plan"
    body = json.loads(json.dumps(entry.body))
    body["events"][0]["rows_per_unit"] = 1
    with pytest.raises(ValueError, match="leaves out or adds something"):
        _ = Entry(**entry.model_dump() | {"body": body}).details
    body["events"][0]["rows_per_unit"] = 2
    assert Entry(**entry.model_dump() | {"body": body}).details.events[0].rows_per_unit == 2


def test_an_officer_grants_by_the_file_of_the_key_and_under_the_users_name(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.ledger.ledger.acting_user", lambda: "ada")
    path = tmp_path / "officer.pem"
    ledger = create_ledger(tmp_path / "ledger.db", dataset=DATASET, unit="row", key=generate_key(path))
    entry = ledger.grant(epsilon=1.0, delta=1e-5, reason="board", key=path)
    assert (entry.actor, ledger.summary().granted_epsilon) == ("ada", 1.0)
    assert ledger.grant(epsilon=2.0, delta=1e-5, reason="board", actor="the board", key=str(path)).actor == "the board"
    new = generate_key(tmp_path / "new.pem")
    assert ledger.rotate(new, reason="every year", key=path).actor == "ada"
    before = ledger.head()
    with pytest.raises(KeyFileError, match="no signing key at"):
        ledger.grant(epsilon=3.0, delta=1e-5, reason="board", key=tmp_path / "nowhere.pem")
    assert ledger.head() == before
