from types import SimpleNamespace

import pytest
from hub_fakes import BINARY, TERNARY, TableGenerator, fake_bundle, table

from distill import generator_parts as generators
from distill.errors import BundleError, BundleMismatchError, BundleTamperedError, RehearsalBundleError
from server_train import intake
from server_train.intake import find_bundles, receive


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
    with pytest.raises(BundleTamperedError, match=r"zeta.distill.*signed by key b+, which is none of the 1 trusted"):
        receive([alpha, zeta], trusted=frozenset({"a" * 64}))
    trusted = receive([alpha, zeta], trusted=frozenset({"a" * 64, "b" * 64}))
    assert trusted.notes == ()
    assert any("--trust" in note for note in receive([alpha, zeta]).notes)


def test_the_same_bundle_twice_counts_once_with_a_word(shelf):
    got = receive([shelf("alpha"), shelf("alpha", file="copy"), shelf("zeta")])
    assert [r.name for r in got.received] == ["alpha", "zeta"]
    assert any("same bundle" in note for note in got.notes)


def test_of_two_releases_of_one_data_set_the_newer_counts_with_a_word(shelf):
    old = shelf("alpha", created="2026-01-01T00:00:00+00:00")
    new = shelf("alpha", file="later", created="2026-02-01T00:00:00+00:00")
    got = receive([new, old])
    assert [r.bundle.path.name for r in got.received] == ["later.distill"]
    assert any("two releases of one data set" in note for note in got.notes)


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
