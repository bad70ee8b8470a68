"""(not a benchmark) Killing a command at every system call of a part of it, or at moments drawn from its whole length."""

import itertools
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.attacks.tools import tracer, warm

# Starts the command in a folder, and gives its process; with a window, one that `tracer.kill_at` waits for.
Begin = Callable[[Path, str | None], int]


def window_kills(begin: Begin, window: str, fresh: Path, home: Path, every: int) -> Iterator[Path]:
    """Kill one run at its first system call in the window, the next at its second, and so on to the window's end."""
    for call in itertools.count(1, every):
        begun = tracer.kill_at(begin(warm.copied(fresh, home), window), call)
        if begun is None:
            sys.exit(f"the run ended before its window {window!r}: {said(home)}")
        yield home
        if begun < call:
            print(f"{window}: {begun} system calls", file=sys.stderr)
            return


def random_kills(begin: Begin, fresh: Path, home: Path, wanted: int, rng: random.Random) -> Iterator[Path]:
    """Kill runs at moments drawn from the whole length of one."""
    length = statistics.median(_full_length(begin, warm.copied(fresh, home)) for _ in range(3))
    done = 0
    while done < wanted:
        pid = begin(warm.copied(fresh, home), None)
        time.sleep(rng.uniform(0, length))
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] == signal.SIGKILL:  # else it had ended before
            done += 1
            yield home


def _full_length(begin: Begin, home: Path) -> float:
    """Seconds of a run that nobody kills."""
    started = time.perf_counter()
    if os.waitpid(begin(home, None), 0)[1]:
        sys.exit(f"a run that nobody killed failed: {said(home)}")
    return time.perf_counter() - started


def output_of(home: Path) -> Path:
    """Where a run says what it says: outside of its folder."""
    return home.with_name(f"{home.name}.said")


def said(home: Path) -> str:
    """The end of what it said."""
    return output_of(home).read_text(encoding="utf-8")[-500:]
