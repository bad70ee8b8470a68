"""Bundles that the hub refuses: a line that names the bundle and the mend, and nothing is written."""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill.common.canonical_json import canonical
from distill.common.signed_zip import open_container, pack
from distill.errors import BundleError, BundleTamperedError, BundleVersionError
from distill.exchange.bundle import MANIFEST, parse_bundle
from tests.end_to_end.small_banks import SCHEMA, Bank, distill, flipped, make_bank, quicken


def hub_refuses(folder: Path, *words: object) -> str:
    """train-global's one line; it wrote nothing."""
    before = sorted(folder.iterdir())
    ran = distill("train-global", "--allow-unknown-signers", *words, "--out", folder / "model")
    assert sorted(folder.iterdir()) == before
    assert ran.exit_code == 2, ran.output
    assert ran.stdout == ""
    line = ran.stderr.strip().splitlines()[-1]  # behind the progress
    assert line.startswith("error: ")
    return line


@pytest.fixture
def bundle(fitted: Bank, tmp_path: Path) -> Path:
    """A copy of a good bundle, alone in its folder."""
    folder = tmp_path / "hub"
    folder.mkdir()
    return Path(shutil.copy(fitted.project.out, folder / "north.distill"))


def resigned(bank: Bank, change: Callable[[dict[str, object]], None]) -> bytes:
    """The bank's bundle with another manifest, signed by the bank's own key."""
    container = open_container(bank.project.out.read_bytes())
    files = {name: container.members[name].unpack(1 << 30) for name in container.members}
    manifest = json.loads(files[MANIFEST])
    change(manifest)
    return pack({**files, MANIFEST: canonical(manifest)}, bank.key)


def test_a_bundle_with_any_byte_flipped(bundle):
    """Around every part's border, and 150 places spread over the file, one bit each."""
    good = bundle.read_bytes()
    borders = [m.start() for m in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06", good)]
    near = {b + i for b in borders for i in range(0, 46, 5)}
    places = sorted({p for p in near if p < len(good)} | {int(p) for p in np.linspace(0, len(good) - 1, 150)})
    for place, bit in zip(places, itertools.cycle(range(8)), strict=False):
        with pytest.raises((BundleTamperedError, BundleError)) as caught:
            parse_bundle(flipped(good, place, bit), path=bundle)
        assert bundle.name in str(caught.value)
    bundle.write_bytes(flipped(good, len(good) // 3))
    line = hub_refuses(bundle.parent, bundle)
    assert "north.distill" in line
    assert "altered or damaged" in line
    assert "send it again" in line


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_a_bundle_that_is_cut_short(bundle, cut):
    bundle.write_bytes(bundle.read_bytes()[:cut])
    assert "north.distill" in hub_refuses(bundle.parent, bundle)


def test_a_bundle_from_a_newer_version(bundle, fitted):
    bundle.write_bytes(resigned(fitted, lambda manifest: manifest.update(format_version=4)))
    with pytest.raises(BundleVersionError):
        parse_bundle(bundle.read_bytes(), path=bundle)
    line = hub_refuses(bundle.parent, bundle)
    assert "north.distill was written by a newer version" in line
    assert "update distill" in line


def test_a_bundle_that_claims_a_smaller_epsilon(bundle, fitted):
    bundle.write_bytes(resigned(fitted, lambda m: m["privacy"].update(epsilon=0.5)))  # type: ignore[attr-defined]
    assert "more than the stated 0.5" in hub_refuses(bundle.parent, bundle)


def test_bundles_with_different_schemas(bundle, tmp_path, quick):
    schema = json.loads(json.dumps(SCHEMA))
    schema["columns"][1]["max"] = 120
    south = make_bank(tmp_path / "south", schema=schema)
    assert south.fit().exit_code == 0
    line = hub_refuses(bundle.parent, bundle, south.project.out)
    for word in ("north.distill", "south.distill", "different schemas", "age", "agree on one schema file"):
        assert word in line


def test_a_rehearsal_bundle(tmp_path):
    bank = make_bank(tmp_path / "north")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        ran = bank.fit("--rehearsal", "7")
    assert ran.exit_code == 0
    assert "REHEARSAL, NOT PRIVATE" in ran.stdout
    assert bank.books.spent_epsilon == 0
    line = hub_refuses(bank.folder, bank.project.out)
    assert "REHEARSAL and NOT PRIVATE" in line
    assert "--allow-rehearsal" in line


def test_no_bundle_a_folder_without_one_and_a_table_instead_of_one(bundle, fitted):
    empty = bundle.parent / "empty"
    empty.mkdir()
    assert "no bundle (*.distill) in the folder" in hub_refuses(bundle.parent, empty)
    assert "no bundle at" in hub_refuses(bundle.parent, bundle.parent / "gone.distill")
    assert "loans.csv is not a bundle" in hub_refuses(bundle.parent, fitted.project.data)
