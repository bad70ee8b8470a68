"""What does an enemy get out of the reader of bundles? Fuzzed bundles, every bit flipped, every length cut.

    python -m benchmarks.attacks.hostile_bundles                         # 20,000 fuzzed bundles; about ten minutes
    python -m benchmarks.attacks.hostile_bundles --quick
    python -m benchmarks.attacks.hostile_bundles --case 12345            # write one of the bundles here, to look at

The reader runs in a process of its own, in an empty folder, under an audit hook that sees every attempt to write, start,
send or unpickle anything. A bundle counts as *accepted* only after a second look at what was read, by code of its own. The
exit code is 1 if anything went wrong: an exception that is not ours, a crash, a write, an accepted bundle that should not be.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.attacks.tools.hostile_mutations import CARRIER, OWNER
from benchmarks.processes import measured
from distill.data.schema import OTHER
from distill.errors import BundleError, BundleTamperedError
from distill.exchange.bundle import Bundle, parse_bundle
from distill.privacy.events import epsilon_of
from tests.assets.forge import House, make_house
from tests.assets.watching import watched

MUTATIONS = CARRIER | OWNER
NAMED = Path("fuzzed.distill")
CLASSES = [c.__name__ for c in BundleTamperedError.__subclasses__()]
MOST_MEMORY = 2 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.case is not None:
        return save_case(options.seed, options.case)
    if options.quick:
        options.bundles, options.stride = 260, 97
    if options.worker is not None:
        print(json.dumps(work(options.seed, options.bundles, options.stride, options.worker)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        trace, empty = Path(folder) / "case", Path(folder) / "empty"
        trace.write_bytes(b"")
        empty.mkdir()
        asked = ["--bundles", str(options.bundles), "--seed", str(options.seed), "--stride", str(options.stride)]
        command = [sys.executable, "-m", __spec__.name, *asked, "--worker", str(trace)]
        done = measured(command, env={"OMP_NUM_THREADS": "1", "HOSTILE_CWD": str(empty), "TMPDIR": str(empty)})
        if done.code != 0:
            print(
                f"the reader's process ended with {done.code} at case {trace.read_text().strip() or 'none'}:\n{done.output}"
            )
            return 1
        found = json.loads(done.output.splitlines()[-1])
        found["left"] = sorted(p.name for p in empty.iterdir())
    print(report(found, done.cost.peak, done.cost.seconds))
    if options.out:
        pd.DataFrame(found["outcomes"]).T.fillna(0).astype(int).to_csv(options.out, index_label="change")
    return 1 if faults(found, done.cost.peak) else 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bundles", type=int, default=20_000, help="how many fuzzed ones")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--stride", type=int, default=1, help="flip every so-manieth bit, cut at every so-manieth length")
    p.add_argument("--quick", action="store_true", help="260 fuzzed ones, every 97th bit and length")
    p.add_argument(
        "--case", type=int, help="only write this fuzzed bundle (keys are new each time, so it is like the one read)"
    )
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="the table")
    p.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return p


# --- reading --------------------------------------------------------------------------------------------------------------


def work(seed: int, bundles: int, stride: int, trace: Path) -> dict[str, Any]:
    """Read everything in this process; what happened, as JSON."""
    house = make_house()
    good = parse_bundle(house.data, path=NAMED)  # imports what is still missing
    look_again(good)
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in ("every bit", "every length", *MUTATIONS)}
    wrong: list[str] = []
    unforeseen: Counter[str] = Counter()
    slowest = (0.0, "")
    os.chdir(os.environ["HOSTILE_CWD"])
    handle = os.open(trace, os.O_WRONLY)
    with watched() as attempts:
        for name, case, data in cases(house, seed, bundles, stride):
            os.pwrite(handle, f"{case:<40}".encode(), 0)
            started = time.process_time()
            outcome, problem = verdict(data, good, house, signed=name in OWNER)
            slowest = max(slowest, (time.process_time() - started, case))
            outcomes[name][outcome] += 1
            if outcome == "unforeseen":
                unforeseen[problem] += 1
            elif problem:
                wrong.append(f"{case}: {problem}")
        tried = list(attempts)
    os.close(handle)
    return {
        "outcomes": outcomes,
        "bytes": len(house.data),
        "wrong": wrong,
        "unforeseen": unforeseen,
        "slowest": slowest,
        "attempts": tried,
    }


def cases(house: House, seed: int, bundles: int, stride: int) -> Iterator[tuple[str, str, bytes]]:
    """Kind, name and bytes of everything that is read."""
    data = house.data
    for bit in range(0, 8 * len(data), stride):
        place, mask = bit // 8, 1 << bit % 8
        yield "every bit", f"bit {bit}", data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
    for size in range(0, len(data), stride):
        yield "every length", f"length {size}", data[:size]
    for case in range(bundles):
        name, fuzzed = fuzz(house, seed, case)
        yield name, f"case {case} ({name})", fuzzed


def fuzz(house: House, seed: int, case: int) -> tuple[str, bytes]:
    """The fuzzed bundle of this number; the kinds take turns."""
    name = list(MUTATIONS)[case % len(MUTATIONS)]
    return name, MUTATIONS[name](np.random.default_rng([seed, case]), house)


def save_case(seed: int, case: int) -> int:
    """Write one fuzzed bundle into the working folder, to look at."""
    name, data = fuzz(make_house(), seed, case)
    path = Path(f"case-{case}.distill")
    path.write_bytes(data)
    print(f"{path}: {name}")
    return 0


def verdict(data: bytes, good: Bundle, house: House, *, signed: bool) -> tuple[str, str]:
    """How the reader took these bytes, and what is wrong with that ("" if nothing)."""
    try:
        bundle = parse_bundle(data, path=NAMED)
    except BundleTamperedError as error:
        kind = type(error).__name__
        return (kind, "") if kind in CLASSES else ("unforeseen", str(error).partition(". ")[0])
    except BundleError as error:
        return "BundleError", "" if str(NAMED) in str(error) else "the message does not name the file"
    except BaseException as error:
        return "foreign", f"{type(error).__name__}: {error}"
    if not signed:
        whole = data in (house.data, house.elsewhere, house.strange)
        return "accepted: unchanged", "" if whole else "bytes that nobody signed were accepted"
    same = bundle.manifest.model_copy(update={"members": good.manifest.members}) == good.manifest
    same = same and bundle.samples.equals(good.samples) and _same_tensors(bundle, good)
    return ("accepted: same" if same else "accepted: other"), look_again(bundle)


def look_again(bundle: Bundle) -> str:
    """What the reader should have refused in a bundle that it accepted, by code of its own; "" if nothing."""
    for column in bundle.schema.columns:
        values = bundle.samples[column.name]
        if values.isna().any() and not column.nullable:
            return f"{column.name} lacks values"
        present = values.dropna()
        if column.kind == "categorical":
            allowed = {str(c) for c in column.categories or ()} | ({OTHER} if column.other else set())
            if not set(map(str, present)) <= allowed:
                return f"{column.name} holds a strange category"
        elif not all(column.min <= float(v) <= column.max for v in present):  # type: ignore[operator]
            return f"{column.name} is out of bounds"
    for group in bundle.tensors.values():
        if not all(np.isfinite(array).all() for array in group.values()):
            return "a tensor is not finite"
    privacy = bundle.manifest.privacy
    cost = epsilon_of(privacy.events, privacy.delta)
    return "" if cost <= privacy.epsilon * (1 + 2e-6) else f"its events cost {cost}, it says {privacy.epsilon}"


def _same_tensors(one: Bundle, other: Bundle) -> bool:
    flat = [{f"{g}/{n}": a for g, arrays in b.tensors.items() for n, a in arrays.items()} for b in (one, other)]
    return flat[0].keys() == flat[1].keys() and all(np.array_equal(flat[0][n], flat[1][n]) for n in flat[0])


# --- what was found -------------------------------------------------------------------------------------------------------


def faults(found: dict[str, Any], peak: int) -> list[str]:
    """Everything that must not happen and did."""
    out = [*found["wrong"], *found["attempts"], *(f"left behind: {name}" for name in found["left"])]
    return out + ([f"it took {peak >> 20} MB"] if peak > MOST_MEMORY else [])


def report(found: dict[str, Any], peak: int, seconds: float) -> str:
    """A table of outcomes, one line a kind, and the figures below it."""
    columns = [*CLASSES, "BundleError", "unforeseen", "accepted: unchanged", "accepted: same", "accepted: other"]
    columns = [c for c in columns if any(counts.get(c) for counts in found["outcomes"].values())]
    short = [c.removeprefix("Bundle").removesuffix("Error") or "not a bundle, or newer" for c in columns]
    lines = [f"| change | bundles | {' | '.join(short)} |", "|---" * (len(columns) + 2) + "|"]
    for name, counts in found["outcomes"].items():
        cells = [name, sum(counts.values()), *(counts.get(c, 0) for c in columns)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    wrong = faults(found, peak)
    slow, which = found["slowest"]
    lines += [
        "",
        f"A good bundle of {found['bytes']} bytes. Peak memory {peak / 1e6:.0f} MB, {seconds:.0f} s in all, slowest {slow:.2f} s "
        f"({which}). Writes, processes, connections, unpickling: {len(found['attempts'])}. "
        f"Exceptions of others that the reader turned into ours: {sum(found['unforeseen'].values())}.",
        *(f"  {count} x {problem}" for problem, count in found["unforeseen"].items()),
        "Nothing went wrong." if not wrong else f"WRONG ({len(wrong)}):",
        *wrong[:50],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
