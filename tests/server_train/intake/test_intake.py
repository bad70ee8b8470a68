import shlex
from types import SimpleNamespace

import pytest

from distill.errors import (
    BundleError,
    BundleMismatchError,
    LedgerConflictError,
    LedgerForkError,
    RehearsalBundleError,
    UntrustedSignerError,
)
from distill.exchange import generator_codec as generators
from server_train.intake import intake
from server_train.intake.admission import Admission
from server_train.intake.intake import find_bundles
from server_train.intake.store import HubStore
from tests.fakes.hubs import BINARY, TERNARY, TableGenerator, fake_bundle, fake_chain, fake_proven, table

FIRST = fake_chain("open", "grant", "reserve 1", "plan 1")
SECOND = fake_chain("open", "grant", "reserve 1", "plan 1", "commit 1", "reserve 2", "plan 2")


def receive(paths, **how):
    """Let bundles in, whoever signed them."""
    return intake.receive(paths, Admission(allow_unknown_signers=True, **how))


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """Put fake bundles on a shelf; `read_bundle` finds them by file name."""
    found = {}

    def put(name, schema=BINARY, *, file=None, **changes):
        path = tmp_path / f"{file or name}.distill"
        path.touch()
        bundle = fake_bundle(name, schema, table(200, schema, 0), **changes)
        found[path.name] = SimpleNamespace(**{**vars(bundle), "path": path})
        return path

    monkeypatch.setattr(intake, "read_bundle", lambda path: found[path.name])
    monkeypatch.setattr(generators, "generator_of", lambda b: TableGenerator(b.schema, b.samples), raising=False)
    return put


def test_bundles_come_in_one_order_however_they_are_named(shelf):
    paths = [shelf("zeta"), shelf("alpha")]
    assert [r.name for r in receive(paths).received] == ["alpha", "zeta"]
    assert [r.name for r in receive(paths[::-1]).received] == ["alpha", "zeta"]


def test_different_schemas_are_refused_naming_both_sides_and_the_place(shelf):
    wider = BINARY.model_copy(
        update={"columns": (BINARY.columns[0].model_copy(update={"max": 5e3}), *BINARY.columns[1:])}
    )
    with pytest.raises(BundleMismatchError, match=r"'alpha'.*'zeta'.*bounds.*income"):
        receive([shelf("alpha"), shelf("zeta", wider)])
    with pytest.raises(BundleMismatchError, match="target 'default' against 'outcome'"):
        receive([shelf("alpha"), shelf("zeta", TERNARY)])
    fewer = BINARY.model_copy(update={"columns": BINARY.columns[1:]})
    with pytest.raises(BundleMismatchError, match="one side only: income"):
        receive([shelf("alpha"), shelf("zeta", fewer)])


def test_a_rehearsal_is_refused_unless_it_is_allowed(shelf):
    path = shelf("alpha", rehearsal=True)
    with pytest.raises(RehearsalBundleError, match=r"'alpha' is a REHEARSAL and NOT PRIVATE.*--allow-rehearsal"):
        receive([path])
    assert len(receive([path], allow_rehearsal=True).received) == 1


def test_a_signer_that_nobody_trusts_is_refused(shelf):
    alpha, zeta = shelf("alpha"), shelf("zeta")
    with pytest.raises(UntrustedSignerError, match=r"zeta.distill.*key b{64}\. .*hub trust add KEY.pub --name zeta`"):
        intake.receive([alpha, zeta], Admission(trusted=frozenset({"a" * 64})))
    with pytest.raises(UntrustedSignerError):
        intake.receive([alpha], Admission())
    assert intake.receive([alpha, zeta], Admission(trusted=frozenset({"a" * 64, "b" * 64}))).notes == ()
    (note,) = receive([alpha, zeta], trusted=frozenset({"a" * 64})).notes
    assert "zeta.distill" in note
    assert "alpha.distill" not in note


def test_the_command_that_an_error_proposes_is_safe_to_paste(shelf, tmp_path):
    path = shelf("alpha", institution="x; rm -rf $HOME 'y'")
    with pytest.raises(UntrustedSignerError) as caught:
        intake.receive([path], Admission(hub=HubStore(tmp_path / "my hub.db")))
    command = str(caught.value).split("`")[1]
    words = [
        "distill",
        "hub",
        "trust",
        "add",
        "KEY.pub",
        "--name",
        "x; rm -rf $HOME 'y'",
        "--hub",
        str(tmp_path / "my hub.db"),
    ]
    assert shlex.split(command) == words


def test_a_key_that_a_trusted_one_handed_over_to_is_let_in(shelf):
    rotated = fake_proven("alpha", FIRST, predecessors=("e" * 64, "f" * 64))
    path = shelf("alpha", proven=rotated)
    for key in ("a", "e", "f"):
        assert intake.receive([path], Admission(trusted=frozenset({key * 64}))).received[0].voucher == key * 64
    with pytest.raises(UntrustedSignerError):
        intake.receive([path], Admission(trusted=frozenset({"c" * 64})))


def test_a_key_that_was_taken_back_ends_the_search(shelf, tmp_path):
    hub = HubStore(tmp_path / "hub.db")
    for key in ("e", "f"):
        hub.add_key(key * 64, name=key, by="tester")
    hub.remove_key("e")
    thief = shelf("alpha", proven=fake_proven("alpha", FIRST, predecessors=("e" * 64, "f" * 64)))
    with pytest.raises(UntrustedSignerError, match=r"trust in e{16}\.\.\. was taken back on"):
        intake.receive([thief], Admission(hub=hub))
    good = shelf("alpha", proven=fake_proven("alpha", FIRST, predecessors=("f" * 64, "e" * 64)))
    assert intake.receive([good], Admission(hub=hub)).received[0].voucher == "f" * 64


def test_two_ledgers_of_one_data_set_that_part_ways_are_refused_naming_both_and_the_entry(shelf):
    """The second release has the same sequence in both, or another one, with other releases in between."""
    mine = shelf("alpha", proven=fake_proven("one", FIRST))
    for parted in (
        fake_chain("open", "grant", "reserve 2", "plan 2"),
        fake_chain("open", "grant", "reserve x", "plan x", "commit x", "reserve 2", "plan 2"),
    ):
        other = shelf("alpha", file="copy", proven=fake_proven("two", parted, epsilon_total=4.0))
        for paths in ([mine, other], [other, mine]):
            with pytest.raises(LedgerForkError, match=r"agree up to entry 2 and part after it") as caught:
                receive(paths)
            assert "alpha.distill" in str(caught.value)
            assert "copy.distill" in str(caught.value)


def test_a_data_sets_id_under_a_ledger_that_has_nothing_in_common_is_refused(shelf):
    mine = shelf("alpha", proven=fake_proven("one", FIRST))
    chain = fake_chain("another open", "grant", "reserve 1", "plan 1")
    other = shelf("zeta", dataset="alpha".ljust(32, "0"), proven=fake_proven("two", chain))
    with pytest.raises(LedgerForkError, match=r"differ from the first entry on .*a{16}.*b{16}|b{16}.*a{16}"):
        receive([mine, other])


def test_a_release_has_one_bundle_and_what_was_shrunk_from_it(shelf):
    proven = fake_proven("one", FIRST)
    whole = shelf("alpha", level="full", proven=proven)
    origin = intake.read_bundle(whole).digest
    shelf("alpha", file="small", level="compact", derived_from=origin, proven=proven)
    assert len(receive([whole, whole.with_name("small.distill")]).received) == 1
    again = shelf("alpha", file="again", created="2026-02-01T00:00:00+00:00", proven=proven)
    with pytest.raises(LedgerConflictError, match=r"again.distill.* and alpha.distill.* two different bundles of one"):
        receive([whole, again])
    with pytest.raises(LedgerConflictError, match="two different bundles"):
        receive([whole.with_name("small.distill"), again])


@pytest.mark.parametrize("first", [0, 1], ids=["in order", "the later one first"])
def test_totals_that_leave_a_release_out_are_refused(shelf, first):
    one = shelf("alpha", proven=fake_proven("one", FIRST))
    two = shelf(
        "alpha", file="two", created="2026-02-01T00:00:00+00:00", proven=fake_proven("two", SECOND, epsilon_total=2.0)
    )
    with pytest.raises(LedgerConflictError, match=r"had spent epsilon 2 in all, .* spent 4 up to there"):
        receive([one, two][:: -1 if first else 1])


@pytest.mark.parametrize(
    ("before", "later"),
    [
        ({}, {"epsilon_total": 4.0}),
        ({"rehearsal": True, "epsilon_total": 0.0}, {"epsilon_total": 2.0}),
        ({"grant": SimpleNamespace(order=8.0)}, {"epsilon_total": 2.9, "grant": SimpleNamespace(order=8.0)}),
    ],
    ids=["totals add up", "a rehearsal is charged nothing", "a Renyi filter's total is no sum"],
)
def test_two_releases_of_one_ledger_are_taken_in_any_order(shelf, before, later):
    rehearsal = bool(before.get("rehearsal"))
    one = shelf("alpha", rehearsal=rehearsal, proven=fake_proven("one", FIRST, **before))
    two = shelf("alpha", file="two", created="2026-02-01T00:00:00+00:00", proven=fake_proven("two", SECOND, **later))
    for paths in ([one, two], [two, one]):
        got = receive(paths, allow_rehearsal=True)
        assert [r.bundle.path.name for r in got.received] == ["two.distill"]
        assert any("two releases of one data set" in note for note in got.notes)


def test_the_same_bundle_twice_counts_once_with_a_word(shelf):
    got = receive([shelf("alpha"), shelf("alpha", file="copy"), shelf("zeta")])
    assert [r.name for r in got.received] == ["alpha", "zeta"]
    assert any("same bundle" in note for note in got.notes)


def test_institutions_that_share_a_name_are_told_apart(shelf):
    got = receive([shelf("bank"), shelf("bank", file="other", dataset="f" * 32)])
    assert [r.name for r in got.received] == ["bank", "bank (2)"]


def test_a_generator_that_cannot_be_read_is_a_bundle_error(shelf, monkeypatch):
    monkeypatch.setattr(generators, "generator_of", lambda b: b.tensors["heads"], raising=False)
    with pytest.raises(BundleError, match="'alpha' is broken: reading its generator failed"):
        receive([shelf("alpha")])


def test_files_and_folders_are_found_once(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.distill", "b.distill", ".hidden.distill", "notes.txt"):
        (tmp_path / "sub" / name).touch()
    found = find_bundles([tmp_path / "sub", tmp_path / "sub" / "b.distill"])
    assert [p.name for p in found] == ["a.distill", "b.distill"]


def test_places_without_bundles_are_refused(tmp_path):
    with pytest.raises(BundleError, match=r"no bundle .+ in the folder"):
        find_bundles([tmp_path])
    with pytest.raises(BundleError, match="no bundle at"):
        find_bundles([tmp_path / "nowhere.distill"])
    with pytest.raises(BundleError, match="no bundle given"):
        find_bundles([])
