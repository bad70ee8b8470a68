"""Every artefact in tests/assets/bundles is refused with exactly its class, and reading it leaves no trace."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from distill import errors
from distill.exchange import bundle
from distill.exchange.bundle import parse_bundle, read_bundle
from tests.assets import make_bundles
from tests.assets.forge import ATTACKS, House, make_house, parts_of, sealed
from tests.assets.watching import watched

ASSETS = Path(__file__).resolve().parents[2] / "assets"
MENDS = (bundle.DAMAGED, bundle.MADE_SO, "Name a file that `fit` wrote.", "update distill.", "fit again.")
MOST_GROWTH = 100_000  # kilobytes that reading all of them may add; the largest member any of them states is 4 GB
READ_ALL = """
import json, os, resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from tests.assets.watching import watched
from distill.exchange.bundle import read_bundle
from distill.errors import BundleError

good, *hostile = map(Path, sys.argv[2:])
read_bundle(good)  # imports what is still missing
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no library can write either
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with watched() as attempts:
    for path in hostile:
        try:
            read_bundle(path)
        except BundleError:
            pass
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"attempts": attempts, "grown": grown}))
"""


@pytest.fixture(scope="module")
def house() -> House:
    """A house with keys of its own, not those of the artefacts."""
    return make_house()


def where(name: str) -> Path:
    return make_bundles.BUNDLES / f"{name}.distill"


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_bundle_is_refused_with_its_own_class(name: str) -> None:
    with pytest.raises(errors.BundleError) as caught:
        read_bundle(where(name))
    assert type(caught.value) is ATTACKS[name].expected
    message = str(caught.value)
    assert message.startswith(str(where(name)))
    assert message.endswith(MENDS)
    assert message.isprintable()
    assert len(message) < 600


def test_the_folder_and_the_table_hold_what_the_script_makes() -> None:
    assert sorted(p.name for p in make_bundles.BUNDLES.iterdir()) == sorted(f"{name}.distill" for name in ATTACKS)
    text = (ASSETS / "README.md").read_text(encoding="utf-8")
    assert text.partition(make_bundles.START)[2].partition(make_bundles.END)[0] == make_bundles.table()
    assert max(where(name).stat().st_size for name in ATTACKS) < 20_000


def test_every_class_of_refusal_has_an_attack() -> None:
    family = set(errors.BundleTamperedError.__subclasses__())
    assert len(family) == 9
    assert {a.expected for a in ATTACKS.values()} == family | {errors.BundleVersionError, errors.BundleError}


def test_the_script_still_makes_every_attack(house: House, tmp_path: Path) -> None:
    make_bundles.make(house, tmp_path)
    for attack in ATTACKS.values():
        path = tmp_path / f"{attack.name}.distill"
        with pytest.raises(errors.BundleError) as caught:
            read_bundle(path, key=house.key.public_hex)
        assert type(caught.value) is attack.expected, attack.name


def test_what_the_attacks_start_from_is_good(house: House) -> None:
    """Else they would be refused for another reason. The forger's zip writer is the format's, byte for byte."""
    for data in (house.data, house.rehearsal, house.elsewhere, house.strange):
        parse_bundle(data, path=Path("good"))
    assert sealed(parts_of(house.data), house.key) == house.data


def test_reading_them_writes_nothing_and_needs_little_memory(house: House, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "good.distill").write_bytes(house.data)
    before = sorted(make_bundles.BUNDLES.iterdir())
    ran = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(ASSETS.parents[1]), str(tmp_path / "good.distill"), *map(str, before)],
        cwd=tmp_path / "cwd",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["attempts"] == []
    assert found["grown"] < MOST_GROWTH
    assert list((tmp_path / "cwd").iterdir()) == []
    assert sorted(make_bundles.BUNDLES.iterdir()) == before


def test_the_watch_notices_what_it_is_there_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with watched() as attempts:
        (tmp_path / "a").read_bytes()
        assert attempts == []
        (tmp_path / "a").write_bytes(b"y")
        (tmp_path / "a").rename(tmp_path / "b")
        with contextlib.suppress(OSError):
            (tmp_path / "none" / "c").mkdir()
    assert [a.split()[0] for a in attempts] == ["open", "os.rename", "os.mkdir"]
    (tmp_path / "d").write_bytes(b"x")
    assert len(attempts) == 3


def test_the_command_line_names_the_class() -> None:
    path = where("proof_over_the_grant")
    ran = CliRunner().invoke(app, ["bundle", "verify", str(path), "--json"])
    assert ran.exit_code == 2
    error = json.loads(ran.stderr)["error"]
    assert error["type"] == "BundleClaimError"
    assert "went over the grant" in error["message"]
