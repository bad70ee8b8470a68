"""Does a test notice? Known bugs that break the privacy promise are planted one at a time, and the tests named for each must fail.

    python -m benchmarks.attacks.mutations
    python -m benchmarks.attacks.mutations --only no-clipping fixed-batches --json found.json

The source is copied into a temporary folder, changed there and tested there; the tree itself is never touched. First all named tests
must pass on an unchanged copy. A bug counts as caught only if a test failed by an assertion of its own: a plant that
merely breaks the code shows nothing. Ends with 1 if a bug was not caught or no longer fits the code.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.attacks.tools.planted import PLANTS, Plant

ROOT = Path(__file__).resolve().parents[2]
TREE = ("distill", "server_train", "cli", "benchmarks", "tests", "pyproject.toml")
WATCH = "mutation_watch"
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "out")  # a copy compiles its own
LONGEST = 300  # seconds that the tests of one plant may take
ASSERTIONS = ("AssertionError", "Failed")  # pytest's own `Failed`: what was to be raised was not


@dataclass(frozen=True)
class Failure:
    """One failed test, as the watch in the copy notes it."""

    test: str
    when: str
    kind: str
    says: str
    place: str

    @property
    def by_assertion(self) -> bool:
        """Whether the test's own assertion failed, and not the code that it calls."""
        return self.when == "call" and self.kind in ASSERTIONS and self.place.startswith("tests/")


@dataclass(frozen=True)
class Outcome:
    """What the tests said of one plant.

    Attributes:
        name, kind, says: Of the plant.
        verdict: `caught`; `NOT caught`; `crashed`, if nothing but other errors stopped tests; `does not fit`; `took too long`.
        failures: All that failed.
        seconds: Processor time that the tests took.
    """

    name: str
    kind: str
    says: str
    verdict: str
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def test(self) -> str:
        """The first test that caught it; else the first that failed at all."""
        return next((f.test for f in sorted(self.failures, key=lambda f: not f.by_assertion)), "")


class MisfitError(Exception):
    """A plant that no longer fits the code."""


def copy_tree(folder: Path, source: Path = ROOT) -> None:
    """What tests need of a tree, anew in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in TREE:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=None if source != ROOT else LEFT_OUT)
        else:
            shutil.copy2(source / name, folder / name)
    shutil.copy2(ROOT / "benchmarks" / "attacks" / "tools" / f"{WATCH}.py", folder)


def plant_into(folder: Path, plant: Plant) -> None:
    """Change a copy. Raises MisfitError if what is to be changed is not there exactly once."""
    for change in plant.changes:
        text = (folder / change.file).read_text(encoding="utf-8")
        if text.count(change.old) != 1:
            raise MisfitError(f"{change.file} holds {text.count(change.old)} times: {change.old}")
        (folder / change.file).write_text(text.replace(change.old, change.new), encoding="utf-8")


def environment_of(folder: Path) -> dict[str, str]:
    """Of a process that imports the copy, on one thread, with its temporary files beside it."""
    temporary = folder.with_name("tmp")
    temporary.mkdir(exist_ok=True)
    more = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    return {**os.environ, **more}


def run_tests(folder: Path, tests: Sequence[str], limit: float) -> tuple[int, list[Failure], str]:
    """Run tests in a copy: pytest's exit code, what failed, and what it printed. Raises TimeoutExpired, RuntimeError."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", WATCH, "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(
        command, cwd=folder, env=environment_of(folder), capture_output=True, text=True, check=False, timeout=limit
    )
    if ran.returncode not in (0, 1, 2):  # 2: a file of tests could not be imported
        raise RuntimeError(f"pytest ended with {ran.returncode}:\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    noted = folder / "failures.jsonl"
    lines = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    return ran.returncode, [Failure(**json.loads(line)) for line in lines], ran.stdout


def processor_seconds() -> float:
    """Processor time of all tests so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tried(plant: Plant, folder: Path, source: Path = ROOT) -> Outcome:
    """Plant one bug into a new copy of `source` in `folder` and run its tests there."""
    copy_tree(folder, source)
    start = processor_seconds()
    failures: list[Failure] = []
    try:
        plant_into(folder, plant)
        code, failures, _ = run_tests(folder, plant.tests, LONGEST)
        verdict = "crashed" if code else "NOT caught"
        if any(f.by_assertion for f in failures):
            verdict = "caught"
    except MisfitError as error:
        verdict = f"does not fit: {error}"
    except subprocess.TimeoutExpired:
        verdict = f"took more than {LONGEST} s"
    return Outcome(plant.name, plant.kind, plant.says, verdict, tuple(failures), processor_seconds() - start)


def table(outcomes: Sequence[Outcome]) -> str:
    """All outcomes as a Markdown table."""
    lines = ["| kind | planted bug | | caught by | CPU s |", "|---|---|---|---|---|"]
    for o in outcomes:
        by = f"`{o.test.rpartition('/')[2]}`" if o.test else ""
        lines.append(f"| {o.kind} | {o.says} | {o.verdict.splitlines()[0]} | {by} | {o.seconds:.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", nargs="+", metavar="NAME", choices=[plant.name for plant in PLANTS])
    p.add_argument("--json", type=Path, metavar="FILE", help="all outcomes, with what each failed test said")
    options = p.parse_args(arguments)
    plants = [plant for plant in PLANTS if options.only is None or plant.name in options.only]
    start = time.monotonic()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as made:
        folder, whole = Path(made) / "copy", Path(made) / "whole"
        copy_tree(folder)
        named = sorted({test for plant in plants for test in plant.tests})
        code, failures, said = run_tests(folder, named, LONGEST * len(plants))
        if code:
            print(f"on the unchanged copy {len(failures)} of the named tests fail:\n{said[-6000:]}")
            return 2
        copy_tree(whole, folder)  # with what Python compiled in that very place, which saves a fifth of the time
        print(f"unchanged: all named tests pass ({processor_seconds():.0f} s)", flush=True)
        for plant in plants:
            outcomes.append(tried(plant, folder, whole))
            print(f"{outcomes[-1].verdict}: {plant.name} ({outcomes[-1].seconds:.0f} s)", flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1), encoding="utf-8")
    print(f"\n{table(outcomes)}\n")
    missed = [o.name for o in outcomes if o.verdict != "caught"]
    print(
        f"{len(outcomes) - len(missed)} of {len(outcomes)} caught; {time.monotonic() - start:.0f} s, CPU {processor_seconds():.0f} s"
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
