"""The two doors, `distill` and `server_train`: each name is what it should be, and loads only when it is used."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import distill
import server_train

ROOT = Path(__file__).resolve().parents[1]
DOORS = (distill, server_train)
HEAVY = ("torch", "pandas", "sklearn", "scipy", "pydantic")


def homes(door: ModuleType) -> dict[str, str]:
    return dict(vars(door)["_HOME"])


@pytest.mark.parametrize("door", DOORS)
def test_the_table_of_names_is_what_the_door_lists(door: ModuleType) -> None:
    assert set(door.__all__) - {"__version__"} == set(homes(door))
    assert list(door.__all__) == sorted(door.__all__)
    assert set(door.__all__) <= set(dir(door))


@pytest.mark.parametrize(("door", "name"), [(door, name) for door in DOORS for name in homes(door)])
def test_a_name_is_the_one_that_its_home_defines(door: ModuleType, name: str) -> None:
    found = getattr(door, name)
    assert found is getattr(importlib.import_module(homes(door)[name]), name)
    assert found.__module__ == homes(door)[name], "the table names where it is defined, not where it passes through"
    assert inspect.isclass(found) == name[0].isupper()
    assert inspect.getdoc(found)


@pytest.mark.parametrize("door", DOORS)
def test_no_room_has_the_name_of_what_the_door_shows(door: ModuleType) -> None:
    """`import distill.fit` would put a module in the function's place."""
    rooms = {path.stem for path in (ROOT / door.__name__).iterdir()}
    assert not rooms & set(homes(door))


@pytest.mark.parametrize("door", DOORS)
def test_a_name_that_is_not_there_is_an_attribute_error(door: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{door.__name__}' has no attribute 'fitt'"):
        _ = door.fitt
    with pytest.raises(ImportError, match="cannot import name"):
        exec(f"from {door.__name__} import fitt")


def loaded_by(code: str) -> set[str]:
    """Which heavy libraries a fresh interpreter has loaded after `code`."""
    ask = f"{code}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_to_import_and_to_look_at_the_doors_loads_nothing() -> None:
    assert not loaded_by("import distill, server_train; dir(distill), dir(server_train), distill.__version__")


def test_a_name_loads_what_it_needs_and_no_more() -> None:
    assert not loaded_by("import distill; distill.Project")
    assert loaded_by("from distill import Schema, Ledger, Bundle, read_bundle") == {"pydantic"}
    assert "pandas" in loaded_by("from distill import fit")
