"""Does a killed train-global leave half a version, half a model or anything else? Kill -9 at system calls and at random moments.

    python -m benchmarks.attacks.hub_crashes --out hub_crashes.csv
    python -m benchmarks.attacks.hub_crashes --quick

Two hubs: one that never trained, and one whose registry and folder hold an earlier model. In each window a run is killed at its first
system call, the next run at its second, and so on to the window's end. Needs Linux (ptrace, fork); it says so where it cannot run.
Ends with 1 if anything is found.
"""

from benchmarks.attacks.tools import warm  # isort: skip - first of all: it keeps numpy, torch and Arrow to one thread

import argparse
import functools
import hashlib
import importlib
import itertools
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.attacks.tools import tracer
from benchmarks.attacks.tools.kills import output_of, random_kills, window_kills
from distill.common.keys import load_signing_key
from distill.errors import DistillError, ModelError
from distill.project import Project
from server_train.hub import job
from server_train.intake.store import HUB_FILE, HubStore
from server_train.models import folder as publishing
from server_train.models.model import load_model
from server_train.registry.registry import REGISTRY_FILE, Registry

# Traced call by call, in this order of a run. `settle` is how the run begins that follows one killed while it replaced a folder.
WINDOWS: dict[str, tuple[Any, str]] = {
    "remember": (HubStore, "remember"),
    "write": (job, "save_model"),
    "register": (Registry, "add"),
    "publish": (job, "put"),
    "settle": (job, "settle"),
}
STATES = ("nothing", "registered", "torn", "published")
FAULTS = ("half versions", "half models", "unregistered models", "not finished", "next runs wrong", "left behind")
MODEL, MINE = "global-model", "mine.txt"
QUICK_RANDOM, QUICK_EVERY = 1, 150
ROWS = 60
NEEDED = """
    cli.hub.train_global cli.hub.trust server_train.intake.intake server_train.training.network
    server_train.pooling.pool server_train.reports.model_report sklearn.metrics
"""


@dataclass
class Tally:
    """What was found after the kills of one kind."""

    kills: int = 0
    states: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, found: dict[str, Any]) -> None:
        """Count one kill's findings."""
        self.kills += 1
        self.states[found["state"]] += 1
        self.faults.update(found["faults"])


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.quick:
        options.random, options.every = QUICK_RANDOM, QUICK_EVERY
    refused = tracer.missing()
    if refused:
        sys.exit(f"cannot run: {refused}.")
    for name in NEEDED.split():
        importlib.import_module(name)
    warm.warm_up()
    job.render_report = lambda _: "<p>a report takes a second to draw, and nothing here looks at it</p>"  # type: ignore[assignment]
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, home in hubs(place).items():
            for kind in [*options.windows, *["random"] * bool(options.random)]:
                if kind == "settle" and name == "new":
                    continue  # a new folder is one rename, which leaves nothing to settle
                tally = tallies[f"{kind}, {name}"] = Tally()
                for killed in kills_of(kind, home, place, options):
                    found = warm.answer_of(functools.partial(examined, killed, earlier=name == "earlier"))
                    tally.add(found)
                    if found["faults"] or options.verbose:
                        print(f"{kind}, {name}, kill {tally.kills}: {found}", flush=True)
                print(f"{kind}, {name}: {tally.kills} kills, {sum(tally.faults.values())} faults", file=sys.stderr)
    rows = [row_of(kind, tally) for kind, tally in tallies.items()]
    if options.out:
        pd.DataFrame(rows).to_csv(options.out, index=False)
    print(markdown(rows))
    return int(any(tally.faults for tally in tallies.values()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="few kills, in each window and at random moments")
    p.add_argument("--random", type=int, default=100, help="kills at random moments, of each hub (default: 100)")
    p.add_argument("--every", type=int, default=1, help="in windows, kill at each n-th system call (default: 1)")
    p.add_argument("--windows", nargs="*", choices=list(WINDOWS), default=list(WINDOWS), help="default: all")
    p.add_argument("--seed", type=int, default=0, help="of the random moments")
    p.add_argument("--verbose", action="store_true", help="a line for each kill")
    p.add_argument("--out", type=Path, metavar="FILE.csv")
    return p


def hubs(place: Path) -> dict[str, Path]:
    """A hub with two banks' bundles that never trained, and one that did."""
    new = place / "new"
    new.mkdir()
    for name in ("north", "south"):
        bank = warm.make_project(place / name)
        ran(*warm.distill("fit", "--project", bank))
        project = Project.open(bank)
        project.out.rename(new / f"{name}.distill")
        HubStore(new / HUB_FILE).add_key(load_signing_key(project.key).public_hex, name=name, by="benchmark")
    earlier = warm.copied(new, place / "earlier")
    ran(*warm.distill(*words(earlier)))
    (earlier / MODEL / MINE).write_text("keep", "utf-8")
    (earlier / MODEL / "model.onnx").write_text("of an earlier model", "utf-8")
    return {"new": new, "earlier": earlier}


def ran(code: int, said: str) -> None:
    """Stop unless a command went well."""
    if code:
        sys.exit(f"a command that nobody killed failed: {said}")


def words(home: Path) -> list[object]:
    """The command that is killed."""
    return ["train-global", home / "north.distill", home / "south.distill", "--project", home, "--rows", ROWS]


def kills_of(kind: str, fresh: Path, place: Path, options: argparse.Namespace) -> Iterator[Path]:
    """Hubs in which a run was just killed, one kill after the other."""
    home = place / "run"
    if kind == "random":
        return random_kills(begin, fresh, home, options.random, random.Random(options.seed))
    return window_kills(begin, kind, torn(fresh, place) if kind == "settle" else fresh, home, options.every)


def torn(fresh: Path, place: Path) -> Path:
    """A hub whose run was killed when the earlier model was gone and the new one not yet there."""
    for call in itertools.count(1):
        home = warm.copied(fresh, place / "torn")
        tracer.kill_at(begin(home, "publish"), call)
        if not (home / MODEL / "model.json").exists() and (home / MODEL / "report.html").exists():
            return home
    raise AssertionError


def begin(home: Path, window: str | None = None) -> int:
    """Start a run; with `window`, one that `tracer.kill_at` waits for."""

    def body() -> None:
        if window:
            owner, name = WINDOWS[window]
            setattr(owner, name, tracer.windowed(getattr(owner, name)))
        warm.command(words(home), output_of(home))

    return warm.fork(body)


def examined(home: Path, *, earlier: bool) -> dict[str, Any]:
    """What a kill left, seen from outside, and what the next run makes of it."""
    out, faults = home / MODEL, []
    try:
        before = versions(home)
        model = model_in(out)
        if model not in ("absent", "torn", *before):
            faults.append("unregistered models")
        state = "torn" if model == "torn" else "nothing" if len(before) == earlier else "registered"
        state = "published" if len(before) > earlier and model == before[-1] else state
        wanted = waiting(out)
        if publishing.settle(out) != wanted or model_in(out) == "torn":
            faults.append("not finished")
        code, words_said = warm.distill(*words(home))
        after = versions(home)
        if code or after[: len(before)] != before or len(after) != len(before) + 1 or model_in(out) != after[-1]:
            print(f"the next run, after a kill that left {state}: exit code {code}: {words_said[-500:]}")
            faults.append("next runs wrong")
    except ModelError as error:
        print(error)
        state, faults = "torn", ["half models"]
    except DistillError as error:
        print(error)
        state, faults = "nothing", ["half versions"]
    if earlier and ((out / MINE).read_text("utf-8") != "keep" or (out / "model.onnx").exists()):
        faults.append("half models")
    if [p for p in [*home.iterdir(), *out.iterdir()] if p.name.startswith(".") or p.name.endswith(("-wal", "-shm"))]:
        faults.append("left behind")
    return {"state": state, "faults": faults}


def versions(home: Path) -> list[str]:
    """The card's digest of each version, all of them checked and loaded. Raises DistillError."""
    registry = Registry(home / REGISTRY_FILE)
    if not registry.path.exists():
        return []
    found = []
    for version in registry.verify().versions:
        with tempfile.TemporaryDirectory() as folder:
            publishing.write_folder(registry.files(version.number), Path(folder) / "model")
            load_model(Path(folder) / "model")
        found.append(version.files["model.json"].sha256)
    return found


def model_in(out: Path) -> str:
    """The digest of the card of a whole model in a folder; or `absent`, or `torn`: no card. Raises ModelError for half of one."""
    if not out.exists():
        return "absent"
    if not (out / "model.json").exists():
        return "torn"
    load_model(out)
    return hashlib.sha256((out / "model.json").read_bytes()).hexdigest()


def waiting(out: Path) -> bool:
    """Whether a whole new model lies beside the folder."""
    return any(p.suffix in (".whole", ".moving") for p in out.parent.iterdir())


def row_of(kind: str, tally: Tally) -> dict[str, Any]:
    """One line of the table."""
    states = {state: tally.states[state] for state in STATES}
    faults = {fault: tally.faults[fault] for fault in FAULTS}
    return {"killed in, hub": kind, "kills": tally.kills, **states, **faults}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, with its sums."""
    sums = {name: sum(row[name] for row in rows) for name in list(rows[0])[1:]}
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[str(value) for value in row.values()] for row in [*rows, {"killed in, hub": "all", **sums}]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
