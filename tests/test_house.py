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
STAGES = "distill.synthesis.stages"
# What the hub may know of an institution: its bundles, and leaves that touch neither private rows nor the budget.
HUB_MAY_IMPORT = {
    "distill",  # the version
    "distill.data.bins",  # coarse bins as bundles hold them
    "distill.exchange.bundle",
    "distill.exchange.samples",  # one codec for tensors, bundles' and federated messages'
    "distill.common.canonical_json",
    "distill.common.checks",
    "distill.synthesis.statistics.class_odds",
    "distill.data.demo",
    "distill.common.files",
    "distill.errors",
    "distill.common.exact",  # products of matrices that are free of rounding, as arithmetic
    "distill.common.report_style",
    "distill.synthesis.generator.generator",
    "distill.exchange.generator_codec",
    "distill.exchange.prior",  # what the hub writes and institutions read
    "distill.data.grids",  # base grids, from the public schema alone
    "distill.common.keys",  # the hub signs its global prior
    "distill.synthesis.generator.one_hot",
    "distill.ledger.rules.filters",  # whether a sum of budgets is within another
    "distill.exchange.levels",
    "distill.data.schema",
    "distill.exchange.noisy_scores",  # figures from noisy counts: touches neither rows nor the budget
    "distill.synthesis.statistics.simplex",
    "distill.synthesis.generator.class_head",
    "distill.common.sqlite",
    "distill.synthesis.statistics.counts",  # released statistics as bundles hold them
    "distill.data.sources",
    "distill.data.tables",
}
COMPARISON = "server_train.comparison"
# A comparison simulates both sides on public data, so it may also run an institution's release from end to end.
COMPARISON_MAY_IMPORT = HUB_MAY_IMPORT | {
    "distill.privacy.events",
    "distill.common.keys",
    "distill.ledger",
    "distill.releases.fit",
    "distill.synthesis.planning.plan",
    "distill.releases.training",
    "distill.project",
    "distill.releases.shrink",
}
PRIVATE_CLIENT = "server_train.federated.institution.private_client"
# A private client stands for a process at an institution: it alone asks the institution's rows, by paid noisy answers.
PRIVATE_CLIENT_MAY_IMPORT = HUB_MAY_IMPORT | {"distill.releases.training"}
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
def test_the_hub_meets_an_institution_only_through_its_bundle(module: str) -> None:
    allowed = COMPARISON_MAY_IMPORT if inside(module, COMPARISON) else HUB_MAY_IMPORT
    allowed = PRIVATE_CLIENT_MAY_IMPORT if module == PRIVATE_CLIENT else allowed
    wrong = sorted(i for i in imports_of(module) if inside(i, "distill") and i not in allowed)
    assert not wrong, f"{module} imports {wrong}: it may import only {sorted(allowed)}"


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


def test_test_files_have_unique_names() -> None:
    """Test folders are no packages, so two files of one name would shadow each other."""
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


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
