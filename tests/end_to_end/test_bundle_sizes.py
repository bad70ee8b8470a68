"""One release in three sizes: `--compress` and `bundle shrink` change what travels, never what is read or charged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.exchange.bundle import read_bundle
from distill.exchange.generator_codec import generator_of
from distill.exchange.levels import LEVELS
from tests.end_to_end.small_banks import Bank, distill, make_bank, quicken, refusal, result_of


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank whose bundle holds everything."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        bank = make_bank(tmp_path_factory.mktemp("bank") / "north")
        assert bank.fit("--compress", "full").exit_code == 0
    return bank


def shrink(bank: Bank, level: str, out: Path) -> dict[str, Any]:
    words = ("--out", out, "--compress", level, "--project", bank.folder)
    return result_of("bundle", "shrink", bank.project.out, *words)


def test_a_smaller_bundle_is_of_the_same_release_and_charges_nothing(bank, tmp_path):
    whole, entries = bank.bundle, bank.ledger.entries()
    sizes = [whole.size]
    for level in ("default", "compact"):
        said = shrink(bank, level, tmp_path / f"{level}.distill")
        small = read_bundle(tmp_path / f"{level}.distill", key=bank.key.public_hex)
        assert (small.digest, small.size) == (said["digest"], said["bytes"])
        assert (small.manifest.level, small.manifest.derived_from) == (level, whole.digest)
        kept = ("privacy", "ledger", "class_prior", "noisy_rows", "dataset", "created", "schema_digest")
        assert [getattr(small.manifest, k) for k in kept] == [getattr(whole.manifest, k) for k in kept]
        assert len(generator_of(small).draw(300, np.random.default_rng(0))) == 300
        sizes.append(small.size)
    assert sizes[0] > 2 * sizes[1] > 2 * sizes[2]
    assert bank.ledger.entries() == entries


def test_shrinking_twice_gives_the_same_contents(bank, tmp_path):
    for name in ("one", "two"):
        shrink(bank, "default", tmp_path / f"{name}.distill")
    assert (tmp_path / "one.distill").read_bytes() == (tmp_path / "two.distill").read_bytes()


def test_fit_writes_the_level_asked_for(tmp_path, monkeypatch):
    quicken(monkeypatch)
    for level in LEVELS:
        bank = make_bank(tmp_path / level)
        assert bank.fit("--compress", level).exit_code == 0
        manifest = bank.bundle.manifest
        assert (manifest.level, manifest.derived_from) == (level, None)
        assert bool(len(bank.bundle.samples)) == (level == "full")


def test_any_level_stores_rows_if_asked_to_and_says_so_if_not(tmp_path, monkeypatch):
    quicken(monkeypatch)
    bank, out = make_bank(tmp_path / "few"), tmp_path / "rows.csv"
    assert bank.fit("--compress", "compact", "--samples", 25).exit_code == 0
    assert len(bank.bundle.samples) == 25
    assert result_of("bundle", "export", bank.project.out, "-o", out, "--stored")["rows"] == 25
    none = make_bank(tmp_path / "none")
    assert none.fit().exit_code == 0
    line = refusal(distill("bundle", "export", none.project.out, "-o", out, "--stored"))
    assert "stores no rows; leave out --stored" in line


def test_what_cannot_be_shrunk_is_refused_and_nothing_is_written(bank, tmp_path):
    out, other = tmp_path / "out.distill", make_bank(tmp_path / "other")
    shrink(bank, "default", tmp_path / "small.distill")
    small = tmp_path / "small.distill"
    tries = [
        ("full", bank.project.out, bank, "is full, so it cannot become full; it can become default, compact"),
        ("full", small, bank, "is default, so it cannot become full; it can become compact"),
        ("compact", small, bank, "not a bundle that this ledger committed"),
        ("compact", bank.project.out, other, "signed by another key"),
    ]
    for level, file, owner, words in tries:
        ran = distill("bundle", "shrink", file, "--out", out, "--compress", level, "--project", owner.folder)
        assert words in refusal(ran)
    out.write_bytes(b"something")
    ran = distill("bundle", "shrink", bank.project.out, "--out", out, "--project", bank.folder)
    assert "exists already" in refusal(ran)
    assert out.read_bytes() == b"something"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "out.distill", "small.distill"]


def test_two_sizes_of_one_release_count_once_at_the_hub(bank, tmp_path):
    shrink(bank, "compact", tmp_path / "small.distill")
    words = ("--out", tmp_path / "hub", "--rows", 500)
    got = result_of("train-global", "--allow-unknown-signers", tmp_path / "small.distill", bank.project.out, *words)
    assert [i["file"] for i in got["institutions"]] == [bank.project.out.name]
    assert any("two sizes of one release" in note for note in got["notes"])


def test_shrinking_never_replaces_the_ledger_or_the_bundle_itself(bank, tmp_path):
    for out in (bank.project.ledger_file, bank.project.out):
        before = out.read_bytes()
        words = ("--out", out, "--overwrite", "--project", bank.folder)
        assert "name another file" in refusal(distill("bundle", "shrink", bank.project.out, *words))
        assert out.read_bytes() == before
