"""Does a killed fit leave anything unpaid, unknown or broken? Kill -9 at every system call that matters, and at random moments.

    python -m benchmarks.attacks.crashes --out crashes.csv
    python -m benchmarks.attacks.crashes --quick

Needs Linux (ptrace, fork); it says so where it cannot run. Ends with 1 if anything is found.
"""

from benchmarks.attacks.tools import warm  # isort: skip - first of all: it keeps numpy, torch and Arrow to one thread

import argparse
import functools
import hashlib
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.attacks.tools import tracer
from benchmarks.attacks.tools.kills import output_of, random_kills, window_kills
from distill.common.keys import load_signing_key
from distill.errors import DistillError
from distill.exchange.bundle import read_bundle
from distill.ledger import Ledger, Reservation
from distill.privacy.private_table import PrivateTable
from distill.project import Project
from distill.releases import fit, lifecycle, placement

# Traced call by call. `recover` is how the fit begins that follows one killed between its commit and its rename.
WINDOWS: dict[str, tuple[Any, str]] = {
    "reserve": (Ledger, "reserve"),
    "plan": (Reservation, "plan"),
    "write": (fit, "write_bundle"),
    "commit": (Reservation, "commit"),
    "rename": (placement, "_move"),
    "recover": (lifecycle, "require_nothing_left"),
}
STATES = ("nothing", "reserved", "planned", "committed")
FAULTS = ("uncommitted bundles", "unpaid reads", "corrupt ledgers", "next fits wrong", "left behind")
ANSWERS = ("noisy_size", "noisy_counts", "laplace_counts", "noisy_gradient")
QUICK_RANDOM, QUICK_EVERY = 2, 1000
AGAIN = 10  # after one kill in so many, a whole further fit under a raised grant


@dataclass
class Tally:
    """What was found after the kills of one kind."""

    kills: int = 0
    states: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    recovered: int = 0

    def add(self, found: dict[str, Any]) -> None:
        """Count one kill's findings."""
        self.kills += 1
        self.states[found["state"]] += 1
        self.reads += found["reads"]
        self.recovered += found["recovered"]
        self.faults.update(found["faults"])


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.quick:
        options.random, options.every = QUICK_RANDOM, QUICK_EVERY
    refused = tracer.missing()
    if refused:
        sys.exit(f"cannot run: {refused}.")
    warm.warm_up()
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fresh = warm.make_project(place / "fresh")
        for kind in [*options.windows, *["random"] * bool(options.random)]:
            tally = tallies[kind] = Tally()
            for home in kills_of(kind, fresh, place, options):
                check = functools.partial(examined, home, further=tally.kills % AGAIN == AGAIN - 1)
                found = warm.answer_of(check)
                tally.add(found)
                if found["faults"] or options.verbose:
                    print(f"{kind} kill {tally.kills}: {found}", flush=True)
            print(f"{kind}: {tally.kills} kills, {sum(tally.faults.values())} faults", file=sys.stderr, flush=True)
    rows = [row_of(kind, tally) for kind, tally in tallies.items()]
    if options.out:
        pd.DataFrame(rows).to_csv(options.out, index=False)
    print(markdown(rows))
    return int(any(tally.faults for tally in tallies.values()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="few kills, in each window and at random moments")
    p.add_argument("--random", type=int, default=300, help="kills at random moments (default: 300)")
    p.add_argument("--every", type=int, default=1, help="in windows, kill at each n-th system call (default: 1)")
    p.add_argument("--windows", nargs="*", choices=list(WINDOWS), default=list(WINDOWS), help="default: all")
    p.add_argument("--seed", type=int, default=0, help="of the random moments")
    p.add_argument("--verbose", action="store_true", help="a line for each kill")
    p.add_argument("--out", type=Path, metavar="FILE.csv")
    return p


def kills_of(kind: str, fresh: Path, place: Path, options: argparse.Namespace) -> Iterator[Path]:
    """Projects in which a fit was just killed, one kill after the other."""
    home = place / "run"
    if kind == "random":
        return random_kills(begin, fresh, home, options.random, random.Random(options.seed))
    return window_kills(begin, kind, torn(fresh, place) if kind == "recover" else fresh, home, options.every)


def torn(fresh: Path, place: Path) -> Path:
    """A project whose fit was killed between its commit and its rename."""
    home = warm.copied(fresh, place / "torn")
    tracer.kill_at(begin(home, "rename"), 1)
    return home


def begin(home: Path, window: str | None = None) -> int:
    """Start a fit that notes what it is about to answer; with `window`, one that `tracer.kill_at` waits for."""
    log_of(home).unlink(missing_ok=True)

    def body() -> None:
        log = os.open(log_of(home), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for name in ANSWERS:
            setattr(PrivateTable, name, noted(getattr(PrivateTable, name), log))
        if window:
            owner, name = WINDOWS[window]
            setattr(owner, name, tracer.windowed(getattr(owner, name)))
        warm.command(["fit", "--project", home], output_of(home))

    return warm.fork(body)


def noted(answer: Callable[..., Any], log: int) -> Callable[..., Any]:
    """A private table's answer that is noted, with the event that should pay for it, before it is made."""

    @functools.wraps(answer)
    def inside(table: PrivateTable, event: str, *arguments: Any, **named: Any) -> Any:
        os.write(log, f"{event}\n".encode())  # in the kernel's hands: a killed process loses nothing of it
        return answer(table, event, *arguments, **named)

    return inside


def log_of(home: Path) -> Path:
    """Where a fit notes its answers: outside of its project."""
    return home.with_name(f"{home.name}.reads")


def examined(home: Path, *, further: bool) -> dict[str, Any]:
    """What a kill left, seen from outside, and what the next fit makes of it."""
    log = log_of(home)
    reads = Counter(log.read_text(encoding="utf-8").split()) if log.exists() else Counter()
    project, faults, recovered = Project.open(home), [], 0
    key = load_signing_key(project.key)
    try:
        books = project.ledger().verify(key.public_hex).summary
        state = books.releases[0].status if books.releases else "nothing"
        if len(books.releases) > 1 or books.spent_epsilon != (warm.EPSILON if books.releases else 0):
            faults.append("corrupt ledgers")
        if reads - Counter({e.name: e.count for r in books.releases for e in r.events}):
            faults.append("unpaid reads")
        committed = {r.bundle for r in books.releases}
        if any(hashlib.sha256(path.read_bytes()).hexdigest() not in committed for path in home.glob("*.distill")):
            faults.append("uncommitted bundles")
        in_place = project.out.exists()
        wrong = next_fit_wrong(home, state, in_place=in_place)
        recovered = int(state == "committed" and not in_place)
        project.ledger().grant(
            epsilon=2 * warm.EPSILON,
            delta=2 * warm.DELTA,
            reason="again",
            actor="officer",
            key=load_signing_key(project.officer),
        )
        if further and not wrong:
            code, words = warm.distill("fit", "--project", home, "--overwrite")
            wrong = "" if code == 0 else words
        if wrong:
            print(f"the next fit, after a kill that left {state}: {wrong}")
            faults.append("next fits wrong")
        project.ledger().verify(key.public_hex)
    except DistillError as error:
        print(error)
        faults, state = ["corrupt ledgers"], "corrupt"
    if [path for path in home.iterdir() if path.name.endswith((".tmp", "-wal", "-shm", "-journal"))]:
        faults.append("left behind")
    return {"state": state, "reads": sum(reads.values()), "recovered": recovered, "faults": faults}


def next_fit_wrong(home: Path, state: str, *, in_place: bool) -> str:
    """What the next fit does otherwise than it should; empty: nothing."""
    code, words = warm.distill("fit", "--project", home)
    stopped_by = {
        "nothing": "",
        "reserved": "1 unfinished release(s) included",
        "planned": "1 unfinished release(s) included",
        "committed": "exists already" if in_place else "in place now",
    }[state]
    if code != (2 if stopped_by else 0) or stopped_by not in words:
        return f"exit code {code}: {words[-500:]}"
    if state in ("nothing", "committed"):
        project = Project.open(home)
        bundle = read_bundle(project.out, key=load_signing_key(project.key).public_hex)
        if bundle.digest not in {r.bundle for r in project.ledger().summary().releases}:
            return "its bundle is not the committed one"
    return ""


def row_of(kind: str, tally: Tally) -> dict[str, Any]:
    """One line of the table."""
    states = {f"{state}": tally.states[state] for state in STATES}
    faults = {fault: tally.faults[fault] for fault in FAULTS}
    return {
        "killed in": kind,
        "kills": tally.kills,
        **states,
        "recovered": tally.recovered,
        "reads": tally.reads,
        **faults,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, with its sums."""
    sums = {name: sum(row[name] for row in rows) for name in rows[0] if name != "killed in"}
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[str(value) for value in row.values()] for row in [*rows, {"killed in": "all", **sums}]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
