"""What does central training on a pool larger than memory take, by one process and by two?

    python -m benchmarks.cost.central_training                     10 million rows of 20 columns, one and two processes
    python -m benchmarks.cost.central_training --rows 1000000      another size
    python -m benchmarks.cost.central_training --quick             a small size of the same, to see that it runs

A made-up pool with soft labels is written to disk part by part. Then `python -m server_train` trains on it, alone and under torchrun,
the same number of epochs each time (no early stopping before them), and is measured from outside: wall seconds, processor seconds
of all processes, the peak of their resident memory added up (sampled; a page that two processes share counts twice), and the seconds
that training itself says it took. Other work on the machine shows in wall seconds and not in processor seconds, so both are given,
with the load beside them. *Ratio* is one process's wall time over that of several. *Path* is the launcher's processor seconds and those
of the busiest process, one after the other: what the wall time would be at least if each process had a core to itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

ROWS, QUICK_ROWS = 10_000_000, 30_000
EPOCHS = 3
CHUNK = 262_144
EVERY = 0.2  # seconds between two looks at memory
HOMES = ("own", "rent", "family", "other")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    rows = QUICK_ROWS if options.quick else options.rows
    results = []
    with tempfile.TemporaryDirectory(prefix="distill-training-", dir=options.scratch) as scratch:
        pool = Path(scratch) / "pool.parquet"
        make_pool(pool, rows)
        print(f"pool: {rows:,} rows, {pool.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
        for size in [*options.processes] * options.repeats:
            results.append(measured(pool, Path(scratch) / "model", size, options.epochs))
            print(json.dumps(results[-1]), file=sys.stderr)
            if options.out:
                pd.DataFrame(results).round(4).to_csv(options.out, index=False)
    print(markdown(results))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=ROWS)
    p.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the pool")
    p.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many; each count is measured")
    p.add_argument("--repeats", type=int, default=1, help="times that each count is measured, in turns")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="results as CSV, written after every run")
    p.add_argument("--scratch", type=Path, help="folder for the pool and the encoded rows")
    p.add_argument("--quick", action="store_true", help="a small size")
    return p


def make_pool(path: Path, rows: int) -> None:
    """A pool of twelve numbers, seven categorical columns and a binary target, from one formula."""
    from server_train.pooling.pool_file import PoolCard, writing_pool

    rng = np.random.default_rng(0)
    card = PoolCard(
        schema=schema(), rows=rows, class_prior=(0.7, 0.3), institutions=[INSTITUTION], privacy=PRIVACY, rehearsal=True
    )
    with writing_pool(path, card) as writer:
        for start in range(0, rows, CHUNK):
            frame, chance = chunk(min(CHUNK, rows - start), rng)
            writer.write(frame, np.column_stack([1 - chance, chance]))


def schema() -> Any:
    """Of the made-up pool."""
    from distill.data.schema import Schema

    numbers = [{"name": f"amount_{i}", "kind": "continuous", "min": 0, "max": 1000} for i in range(8)]
    counts = [{"name": f"count_{i}", "kind": "integer", "min": 0, "max": 50, "nullable": True} for i in range(4)]
    texts = [{"name": f"home_{i}", "kind": "categorical", "categories": list(HOMES)} for i in range(4)]
    codes = [{"name": f"region_{i}", "kind": "categorical", "categories": list(range(30))} for i in range(3)]
    target = {"name": "default", "kind": "categorical", "categories": [0, 1]}
    return Schema.model_validate(
        {"name": "made up", "target": "default", "columns": [*numbers, *counts, *texts, *codes, target]}
    )


def chunk(rows: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows and their chance of default."""
    amounts = rng.gamma(2.0, 100.0, (rows, 8)).clip(0, 1000)
    counts = rng.poisson(5.0, (rows, 4)).clip(0, 50)
    homes, regions = rng.integers(0, 4, (rows, 4)), rng.integers(0, 30, (rows, 3))
    score = (amounts[:, 0] - amounts[:, 1]) / 200 + (counts[:, 0] > 6) * (homes[:, 0] - 1.5) + np.sin(regions[:, 0]) - 1
    chance = 1 / (1 + np.exp(-score))
    frame = pd.DataFrame({f"amount_{i}": amounts[:, i] for i in range(8)})
    for i in range(4):
        frame[f"count_{i}"] = pd.array(counts[:, i], "Int64")
        frame.loc[rng.random(rows) < 0.1, f"count_{i}"] = pd.NA
        frame[f"home_{i}"] = np.array(HOMES, dtype=object)[homes[:, i]]
    for i in range(3):
        frame[f"region_{i}"] = regions[:, i]
    frame["default"] = (rng.random(rows) < chance).astype(np.int64)
    return frame, chance


INSTITUTION = {
    "institution": "made up", "file": "none", "bytes": 0, "sha256": "0" * 64, "public_key": "0" * 64, "dataset": "0" * 32,
    "ledger_head": "0" * 64, "created": "", "software": "", "rehearsal": True, "epsilon": 0.0, "delta": 0.0, "unit": "row",
    "relation": "", "noisy_rows": 1.0, "class_prior": [0.7, 0.3], "label_balance": 0.84, "head_information": 1.0,
    "row_share": 1.0, "head_share": 1.0, "pooled_rows": 1,
}  # fmt: skip
_NOTHING = {"epsilon": 0.0, "delta": 0.0}
PRIVACY = {"disjoint": _NOTHING, "overlapping": _NOTHING, "units": ["row"], "relations": [""]}


def measured(pool: Path, out: Path, size: int, epochs: int) -> dict[str, float]:
    """Train on the pool with `size` processes; what it took."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"] if size > 1 else []
    options = ["--pool", str(pool), "--out", str(out), "--max-epochs", str(epochs), "--json"]
    load, busy = os.getloadavg()[0], machine_busy()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *launcher, "-m", "server_train", *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    memory = Memory(process.pid)
    said, _ = process.communicate()
    wall = time.perf_counter() - started
    peak = memory.stop()
    if process.returncode:
        sys.exit(f"training by {size} processes failed")
    result = json.loads(said)
    return {
        "processes": size,
        "rows": result["rows"],
        "epochs": result["epochs"],
        "wall": wall,
        "training": result["seconds"],
        "cpu": memory.cpu,
        "path": memory.path,
        "peak_mb": peak / 1e6,
        "auc": result["synthetic_roc_auc"],
        "load": load,
        "others": (machine_busy() - busy - memory.cpu) / wall,
    }


def machine_busy() -> float:
    """Processor seconds that this machine was busy, since it started."""
    user, nice, system = (int(v) for v in Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


class Memory:
    """Watches resident memory and processor time of a process and all that it starts (Linux: /proc)."""

    def __init__(self, pid: int) -> None:
        """Begins at once."""
        self._first = pid
        self._family, self._peak, self._done = {pid}, 0, threading.Event()
        self._seconds: dict[int, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def cpu(self) -> float:
        """Processor seconds of all processes, up to the last look at each."""
        return sum(self._seconds.values())

    @property
    def path(self) -> float:
        """Processor seconds of the first process, and of the busiest that it started."""
        rest = [seconds for pid, seconds in self._seconds.items() if pid != self._first]
        return self._seconds.get(self._first, 0.0) + max(rest, default=0.0)

    def stop(self) -> int:
        """The highest sum of resident bytes seen."""
        self._done.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            now = dict(filter(None, map(_look, Path("/proc").glob("[0-9]*"))))
            while more := {pid for pid, (parent, _, _) in now.items() if parent in self._family} - self._family:
                self._family |= more
            ours = {pid: now[pid] for pid in self._family & now.keys()}
            self._seconds |= {pid: seconds for pid, (_, seconds, _) in ours.items()}
            self._peak = max(self._peak, sum(resident for _, _, resident in ours.values()))


def _look(entry: Path) -> tuple[int, tuple[int, float, int]] | None:
    """One process: its number, its parent's, its processor seconds and its resident bytes."""
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return None
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return int(entry.name), (int(fields[1]), seconds, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))


def markdown(results: Sequence[dict[str, float]]) -> str:
    """One line a run, and the ratios of the fastest runs."""
    head = (
        "processes",
        "rows",
        "epochs",
        "wall s",
        "training s",
        "processor s",
        "path s",
        "peak MB",
        "AUC",
        "load",
        "other work",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in results:
        seconds = " | ".join(f"{r[name]:.1f}" for name in ("wall", "training", "cpu", "path"))
        rest = f"{r['peak_mb']:.0f} | {r['auc']:.4f} | {r['load']:.1f} | {r['others']:.1f}"
        lines.append(f"| {r['processes']} | {r['rows']:,} | {r['epochs']} | {seconds} | {rest} |")
    fastest = {r["processes"]: r for r in sorted(results, key=lambda r: -r["wall"])}
    for size, r in sorted(fastest.items()):
        if size > 1 and 1 in fastest:
            ratios = {name: fastest[1][name] / r[name] for name in ("wall", "training", "path")}
            lines.append(
                f"{size} processes against one: {', '.join(f'{name} ratio {ratio:.2f}' for name, ratio in ratios.items())}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
