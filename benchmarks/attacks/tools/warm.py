"""(not a benchmark) A warm parent: one thread that has imported everything, and forks a process for each command.

A fit of a tiny table then takes a second instead of five, so hundreds of them can be killed. What the processes run is the real
command line on real files; only optimiser steps are fewer (planned and charged as few), since nothing here looks at what is learnt.
"""

import os

# One thread, before anything is imported: a process is forked whole only from a parent without others.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

import functools
import gc
import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from distill.common.keys import load_signing_key
from distill.project import Project
from distill.releases import fit as releases_fit
from distill.releases.fit import FitRequest
from distill.synthesis.effort import Effort
from distill.synthesis.planning.plan import PlanSettings

EPSILON, DELTA = 2.0, 1e-5
NEEDED = """
    cli.app cli.institution.fit cli.institution.plan_view cli.institution.bundle distill.releases.fit
    distill.exchange.samples opendp.prelude torch._dynamo pyarrow.csv pyarrow.pandas_compat pyarrow.parquet
    sklearn.cluster rich.progress rich.table rich._emoji_codes safetensors.numpy dp_accounting.pld
    dp_accounting.rdp attr
"""
SCHEMA = {
    "name": "tiny",
    "target": "default",
    "columns": [
        {"name": "region", "kind": "categorical", "categories": ["north", "south"]},
        {"name": "default", "kind": "categorical", "categories": [0, 1]},
    ],
}
LIMIT_SECONDS = 240  # a child that takes longer hangs


def warm_up() -> None:
    """Import all that a fit needs, and make its fits short. Stops the benchmark if there is a second thread."""
    if not hasattr(os, "fork"):
        sys.exit("cannot run: this system has no fork().")
    for name in NEEDED.split():
        importlib.import_module(name)
    gc.freeze()  # a child that collects garbage would copy all of it
    effort = Effort(first_steps=5, warm_up_steps=5, private_samples=200)
    settings = PlanSettings(represent_steps=4, discriminate_steps=4)
    releases_fit.FitRequest = functools.partial(FitRequest, effort=effort, settings=settings)  # type: ignore[misc,assignment]
    threads = Path("/proc/self/task")
    if threads.is_dir() and len(list(threads.iterdir())) > 1:
        sys.exit("cannot run: an imported library keeps a thread of its own, so a forked process would not be whole.")


def make_project(folder: Path, *, grant: float = EPSILON, delta: float = DELTA, rows: int = 1500) -> Path:
    """A project with a tiny table and a grant; returns its folder. It can be copied: its paths are relative."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"region": rng.choice(["north", "south"], rows), "default": rng.integers(0, 2, rows)})
    table.to_csv(folder / "tiny.csv", index=False)
    (folder / "tiny.schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    Project.create(folder, data=folder / "tiny.csv", schema=folder / "tiny.schema.json", name="tiny")
    project = Project.open(folder)
    project.ledger().grant(
        epsilon=grant, delta=delta, reason="benchmark", actor="officer", key=load_signing_key(project.officer)
    )
    return folder


def copied(project: Path, folder: Path) -> Path:
    """A copy of a project at `folder`, which is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(project, folder)
    return folder


def fork(body: Callable[[], None]) -> int:
    """Run `body` in a process of its own and leave with 0, or with 1 and a trace if it raised; returns the process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    _leave(body)


def _leave(body: Callable[[], None]) -> NoReturn:
    import signal
    import traceback

    code = 1
    try:
        signal.alarm(LIMIT_SECONDS)
        body()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def command(words: list[object], output: Path) -> None:
    """Inside a forked process: be the `distill` command of these words, with all it says in `output`. Does not return."""
    from cli.app import main

    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["distill", *map(str, words)]
    main()


def distill(*words: object) -> tuple[int, str]:
    """Run one command in a forked process; exit code and all it said."""
    with tempfile.NamedTemporaryFile() as file:
        pid = fork(lambda: command(list(words), Path(file.name)))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code, Path(file.name).read_text(encoding="utf-8")


def answer_of(question: Callable[[], Any]) -> Any:
    """What `question` returns in a forked process, so that this one stays as it is; must fit JSON."""
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        status = os.waitpid(fork(lambda: void(path.write_text(json.dumps(question()), encoding="utf-8"))), 0)[1]
        if os.waitstatus_to_exitcode(status):
            sys.exit("a check did not come to an end; its trace stands above.")
        return json.loads(path.read_text(encoding="utf-8"))


def void(_: object) -> None:
    """Throw a value away."""
