"""The house rules that an eye misses: which way imports point, what packages show, what nobody imports."""

import ast
import functools
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("distill", "server_train", "cli")
MOST_ENTRIES = 12  # files and folders in a room, beside its `__init__.py`
# The floors of each house, lowest first: a room imports lower floors only, none beside it and none above it.
FLOORS = {
    "distill": [
        ["errors"],
        ["common"],
        ["data"],
        ["privacy"],
        ["synthesis", "ledger"],
        ["exchange"],
        ["releases", "audit"],
        ["project"],
    ],
    "distill.synthesis": [["effort", "statistics"], ["generator"], ["planning", "weights"], ["stages"], ["pipeline"]],
    "distill.ledger": [["entries"], ["rules"]],
    "server_train": [
        ["models"],
        ["evaluation", "pooling", "registry"],
        ["reports", "training", "intake", "federated"],
        ["hub"],
        ["comparison"],
        ["__main__"],
    ],
    "server_train.pooling": [
        ["institutions"],
        ["mixture", "weighing"],
        ["labelling"],
        ["pool"],
        ["personal", "pool_file"],
        ["streaming"],
    ],
    "server_train.federated": [
        ["local"],
        ["messages"],
        ["strategies"],
        ["engine"],
        ["institution"],
        ["flower"],
    ],
    "server_train.comparison": [["deal"], ["record"], ["runs"], ["report"], ["compare"]],
    "cli": [["shared"], ["institution", "ledger", "hub", "evaluation", "research"], ["app"]],
}
# What the hub may open of an institution's house: what crosses the wall, and arithmetic that touches neither rows nor budget.
SHARED = (
    "distill.errors",
    "distill.common",
    "distill.data",
    "distill.exchange",
    "distill.synthesis.generator",
    "distill.synthesis.statistics",
    "distill.privacy.events",
)
# These simulate an institution, or run at one: they may open its house.
AT_AN_INSTITUTION = ("server_train.federated.institution", "server_train.comparison")
STAGES = "distill.synthesis.stages"
COMPARISON = "server_train.comparison"
PRIVATE_CLIENT = "server_train.federated.institution.private_client"
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
HEAVY = ("torch", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "dp_accounting", "opendp")


def module_name(path: Path) -> str:
    """`distill/synthesis/stages/relate.py` -> `distill.synthesis.stages.relate`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(p): p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))}


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"), filename=str(SOURCES[module]))


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    """Every module that `module` imports anywhere, also inside functions; submodules are told from names."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            names = {f"{base}.{alias.name}" for alias in node.names}
            submodules = names & SOURCES.keys()
            # `from distill import errors` means distill.errors; `from distill import __version__` means distill.
            found.update(submodules)
            if submodules != names:
                found.add(base)
    return frozenset(found)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that a `from ... import` names, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room_of(module: str, house: str) -> str:
    """The room of a house that a module is in, or is."""
    return module.removeprefix(house + ".").partition(".")[0]


def floor_of(module: str, house: str) -> int | None:
    """The floor of a module's room, counted from below; None for a room that the table leaves out."""
    room = room_of(module, house)
    return next((n for n, rooms in enumerate(FLOORS[house]) if room in rooms), None)


def holds(entry: Path) -> bool:
    """Whether an entry is more than the bytecode of modules that are gone."""
    return entry.is_file() or any(p.is_file() and "__pycache__" not in p.parts for p in entry.rglob("*"))


def test_the_tree_holds_what_these_rules_are_about() -> None:
    assert {"distill.errors", "distill.data.schema", "distill.synthesis.stages", "server_train"} <= SOURCES.keys()
    assert imports_of("distill.common.checks") >= {"distill.errors"}


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_says_what_it_holds(module: str) -> None:
    assert ast.get_docstring(tree_of(module)), f"{module} opens without a docstring"


@pytest.mark.parametrize("module", [m for m in SOURCES if inside(m, "distill")])
def test_the_institutions_side_imports_neither_hub_nor_command_line(module: str) -> None:
    wrong = sorted(i for i in imports_of(module) if inside(i, "server_train") or inside(i, "cli"))
    assert not wrong, f"{module} imports {wrong}: imports point cli -> server_train -> distill"


@pytest.mark.parametrize("module", [m for m in SOURCES if inside(m, "server_train")])
def test_the_hub_does_not_import_the_command_line(module: str) -> None:
    wrong = sorted(i for i in imports_of(module) if inside(i, "cli"))
    assert not wrong, f"{module} imports {wrong}: imports point cli -> server_train -> distill"


@pytest.mark.parametrize("module", [m for m in SOURCES if inside(m, "server_train")])
def test_the_hub_opens_shared_rooms_only(module: str) -> None:
    if any(inside(module, place) for place in AT_AN_INSTITUTION):
        return
    opened = {i for i in imports_of(module) if inside(i, "distill")} - {"distill"}
    wrong = sorted(i for i in opened if not any(inside(i, room) for room in SHARED))
    assert not wrong, f"{module} imports {wrong}: the hub opens {SHARED} only"


@pytest.mark.parametrize("module", [m for m in SOURCES if inside(m, "server_train")])
def test_the_hub_does_not_walk_round_the_fence_by_the_institutions_door(module: str) -> None:
    """`from distill import Project` names no room, so the fence alone would let it pass."""
    if any(inside(module, place) for place in AT_AN_INSTITUTION):
        return
    nodes = list(ast.walk(tree_of(module)))
    whole = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names if a.name == "distill"]
    taken = [a.name for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "distill" for a in n.names]
    assert not whole, f"{module} imports all of distill: name the room"
    assert set(taken) <= {"__version__"}, f"{module} takes {taken} from the door of distill: name the room"


@pytest.mark.parametrize("house", FLOORS)
def test_a_room_imports_lower_floors_only(house: str) -> None:
    wrong = []
    for module in (m for m in SOURCES if m.startswith(house + ".")):
        floor = floor_of(module, house)
        for imported in sorted(i for i in imports_of(module) if i.startswith(house + ".")):
            if room_of(imported, house) == room_of(module, house) or floor is None:
                continue
            below = floor_of(imported, house)
            if below is not None and below >= floor:
                wrong.append(f"{module} -> {imported}")
    assert not wrong, f"these imports point sideways or up in {house}: {wrong}"


@pytest.mark.parametrize("house", FLOORS)
def test_every_room_has_its_floor(house: str) -> None:
    named = {room for floor in FLOORS[house] for room in floor}
    rooms = {room_of(m, house) for m in SOURCES if m.startswith(house + ".")}
    assert named <= rooms
    if house in PACKAGES:  # of inner rooms the table may leave modules out that all others may use
        assert rooms - named <= {"recompute"}


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks", "examples", "docs"])
def test_a_room_holds_a_dozen_entries_at_most(folder: str) -> None:
    rooms = (p for p in (ROOT / folder).rglob("*") if p.is_dir() and not {"out", "__pycache__"} & set(p.parts))
    tracked = [ROOT / folder, *rooms]
    aside = {"__init__.py", "__pycache__", "py.typed"}
    counts = {p: len([e for e in p.iterdir() if e.name not in aside and holds(e)]) for p in tracked}
    full = {str(p.relative_to(ROOT)): n for p, n in counts.items() if n > MOST_ENTRIES and p.name != "bundles"}
    assert not full, f"too many entries to take in at a glance: {full}"


@pytest.mark.parametrize("module", [m for m in SOURCES if inside(m, "server_train") and not inside(m, COMPARISON)])
def test_the_hub_does_not_reach_an_institution_by_way_of_a_comparison(module: str) -> None:
    wrong = sorted(i for i in imports_of(module) if inside(i, COMPARISON))
    assert not wrong, f"{module} imports {wrong}: a comparison uses the hub, not the other way round"


@pytest.mark.parametrize("module", [m for m in SOURCES if inside(m, "server_train") and not inside(m, COMPARISON)])
def test_only_a_comparison_makes_private_clients(module: str) -> None:
    assert PRIVATE_CLIENT not in imports_of(module), f"{module} imports {PRIVATE_CLIENT}: the hub meets bundles only"


@pytest.mark.parametrize("module", [m for m in SOURCES if inside(m, STAGES)])
def test_no_stage_knows_another_stage(module: str) -> None:
    wrong = sorted(i for i in imports_of(module) if inside(i, STAGES) and i != module)
    assert not wrong, f"{module} imports {wrong}: the pipeline hands values from stage to stage"


@pytest.mark.parametrize("module", [m for m in SOURCES if inside(m, STAGES)])
def test_no_stage_reaches_for_the_ledger_or_the_pipeline(module: str) -> None:
    wrong = sorted(
        imports_of(module)
        & {"distill.ledger", "distill.releases.fit", "distill.exchange.bundle", "distill.common.keys"}
    )
    assert not wrong, f"{module} imports {wrong}: a stage gets values and returns values"


def test_imports_form_no_circle() -> None:
    """Depth-first over the project's own modules; a package's `__init__` counts as a module of its own."""
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"imports go in a circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for imported in sorted(imports_of(module) & SOURCES.keys()):
                visit(imported, (*trail, module))
            done.add(module)

    for module in SOURCES:
        visit(module, ())


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_is_pickled(module: str) -> None:
    wrong = sorted(i for i in imports_of(module) if i.partition(".")[0] in PICKLES)
    assert not wrong, f"{module} imports {wrong}: what is exchanged is JSON, Parquet and safetensors"
    calls = [ast.unparse(n.func) for n in ast.walk(tree_of(module)) if isinstance(n, ast.Call)]
    bad = {"torch.load", "torch.save", "np.load", "numpy.load", "pd.read_pickle", "eval", "exec"}
    assert not bad & set(calls), f"{module} calls {sorted(bad & set(calls))}: these read or write pickles, or run text"
    assert not [c for c in calls if c.endswith(".to_pickle")]


@pytest.mark.parametrize("package", [m for m, p in SOURCES.items() if p.name == "__init__.py"])
def test_every_package_lists_what_is_public_and_has_it(package: str) -> None:
    imported = importlib.import_module(package)
    assert hasattr(imported, "__all__"), f"{package}/__init__.py needs an __all__"
    missing = [name for name in imported.__all__ if not hasattr(imported, name)]
    assert not missing, f"{package}.__all__ names what is not there: {missing}"
    assert len(set(imported.__all__)) == len(imported.__all__)


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {p.parent for p in SOURCES.values()}
    assert not [str(f) for f in folders if not (f / "__init__.py").exists()]


def test_importing_the_packages_stays_light() -> None:
    """In a fresh interpreter: `import distill` and `import server_train` load none of the heavy libraries."""
    code = f"import sys, distill, server_train; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_version_is_the_one_in_the_project_file() -> None:
    import tomllib

    import distill

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert distill.__version__ == project["version"]


def test_every_folder_of_tests_is_a_package() -> None:
    """So two files of tests may share a name."""
    folders = {p.parent for p in (ROOT / "tests").rglob("*.py")}
    assert not [str(f) for f in folders if not (f / "__init__.py").exists()]


def test_every_requirement_is_pinned_exactly() -> None:
    """No ranges, no addresses: the constraints file alone decides what is installed."""
    import re
    import tomllib

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert not [p for p in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", p)]
    pinned = {_normal(p.split("==")[0]) for p in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["flower"]]
    assert not {_normal(re.split(r"[<>=!~\[; ]", w)[0]) for w in wanted} - pinned


def _normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return name.lower().replace("_", "-").replace(".", "-")


def test_no_test_changes_defaults_of_the_project() -> None:
    """How hard optimisers work is a value that a test passes: see `Effort` and `PlanSettings`."""
    places = [p for folder in ("tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    wrong = [str(p) for p in places if p.name != "test_house.py" and "__kwdef" + "aults__" in p.read_text("utf-8")]
    assert not wrong, f"{wrong} write into a function's defaults; make what they change an argument"
    assert not [str(p) for p in places if '"training_event"' in p.read_text("utf-8") and p.name != "test_house.py"]
