"""(not a benchmark) Running commands as processes of their own, with their wall seconds, CPU seconds and peak memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cost:
    """What one process took: wall seconds, CPU seconds and peak resident memory in bytes."""

    seconds: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Finished:
    """A process that ended: its exit code (None: it was stopped at the time limit), all it said, and its cost."""

    code: int | None
    output: str
    cost: Cost


# A process starts its life with the peak memory of whoever forked it, so a small go-between starts what is measured.
MEASURE = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as out:
    json.dump([time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss], out)
code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)
"""


def measured(command: Sequence[str], *, timeout: float | None = None, env: Mapping[str, str] | None = None) -> Finished:
    """Run `command` from the repository's root, with `env` on top of this process's; everything it started ends with it."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", MEASURE, file.name, *command],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            return Finished(None, said.decode("utf-8", "replace"), Cost(timeout or 0.0, 0.0, 0))
        except BaseException:  # an interrupted benchmark leaves nothing running
            os.killpg(process.pid, signal.SIGKILL)
            raise
        seconds, cpu, peak = json.loads(Path(file.name).read_text(encoding="utf-8"))
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kibibytes elsewhere
    return Finished(process.returncode, said.decode("utf-8", "replace"), Cost(seconds, cpu, peak * unit))


def distill(*arguments: object) -> Cost:
    """Run one `distill` command in a process of its own; stops the benchmark with its words if it fails."""
    return _distill(arguments).cost


def distill_json(*arguments: object) -> Any:
    """What one `distill` command prints with --json."""
    said = _distill([*arguments, "--json"]).output
    return json.loads(said[said.index("{") :])


def _distill(arguments: Sequence[object]) -> Finished:
    # What is known of tables is the user's; here, the same table gets a fresh budget in every run.
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-c", "from cli.app import main; main()", *map(str, arguments)]
        done = measured(command, env={"DISTILL_STATE": state})
    if done.code:
        sys.exit(f"`distill {' '.join(map(str, arguments))}` failed:\n{done.output.strip()}")
    return done
