"""Small banks for the end-to-end tests: a table, a schema, a project with a grant, and commands by their words.

A fit of a small table costs some seconds, most of it optimiser steps. `quicken` lowers their number where a test does
not judge what is learnt; everything else (reads, noise, ledger, bundle) is as it is outside the tests.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from distill.common.keys import SigningKey, load_signing_key
from distill.exchange.bundle import Bundle, read_bundle
from distill.ledger import Ledger, LedgerSummary
from distill.project import Project
from distill.synthesis.effort import Effort
from tests.fakes.private_tables import shorten_fits

EPSILON, DELTA = 2.0, 1e-5
SCHEMA: dict[str, Any] = {
    "name": "loans",
    "target": "default",
    "columns": [
        {"name": "income", "kind": "continuous", "min": 0, "max": 1000, "nullable": True},
        {"name": "age", "kind": "integer", "min": 18, "max": 100},
        {"name": "region", "kind": "categorical", "categories": ["north", "south", "east"], "other": True},
        {"name": "default", "kind": "categorical", "categories": [0, 1]},
    ],
}
# Ctrl-C reaches a command also where the tests themselves run in the background, with the signal ignored.
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cli.app import main; main()"


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Take few optimiser steps (planned and charged as few), on few samples."""
    shorten_fits(patch, effort=Effort(first_steps=10, warm_up_steps=10, private_samples=400))


def loans(rows: int, seed: int = 0, *, bad: float = 1.0) -> pd.DataFrame:
    """Rows that fit SCHEMA; `bad` multiplies the odds of a default."""
    rng = np.random.default_rng(seed)
    income = rng.gamma(2.0, 150.0, rows).clip(0, 1000).round(2)
    region = rng.choice(np.array(["north", "south", "east"], dtype=object), rows, p=[0.5, 0.3, 0.2])
    odds = bad * np.exp(1.5 - income / 150 + (region == "south"))
    return pd.DataFrame(
        {
            "income": np.where(rng.random(rows) < 0.05, np.nan, income),
            "age": rng.integers(18, 90, rows),
            "region": region,
            "default": (rng.random(rows) < odds / (1 + odds)).astype(int),
        }
    )


def distill(*words: object) -> Result:
    """Run a command in this process."""
    from cli.app import app

    return CliRunner().invoke(app, [str(word) for word in words])


def result_of(*words: object) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    ran = distill(*words, "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout.count("\n") == 1
    return dict(json.loads(ran.stdout))


def refusal(ran: Result) -> str:
    """The one line with which a command refused."""
    assert ran.exit_code == 2, ran.output
    assert ran.stdout == ""
    line = str(ran.stderr).strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


@dataclass
class Bank:
    """One institution's project folder."""

    project: Project
    schema: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(SCHEMA)))

    @property
    def folder(self) -> Path:
        return self.project.folder

    @property
    def key(self) -> SigningKey:
        return load_signing_key(self.project.key)

    @property
    def ledger(self) -> Ledger:
        return self.project.ledger()

    @property
    def books(self) -> LedgerSummary:
        return self.ledger.summary()

    @property
    def bundle(self) -> Bundle:
        return read_bundle(self.project.out, key=self.key.public_hex)

    def grant(self, epsilon: float = EPSILON, delta: float = DELTA) -> None:
        self.ledger.grant(
            epsilon=epsilon,
            delta=delta,
            reason="for the tests",
            actor="officer",
            key=load_signing_key(self.project.officer),
        )

    def write_schema(self) -> None:
        self.project.schema.write_text(json.dumps(self.schema), encoding="utf-8")

    def write_rows(self, rows: pd.DataFrame) -> None:
        rows.to_csv(self.project.data, index=False)

    def fit(self, *words: object) -> Result:
        """Fit on a machine of its own, so that a test may give one table to several banks."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISTILL_STATE", f"{self.folder}.state")
            return distill("fit", "--project", self.folder, *words)

    def files(self) -> dict[str, int]:
        """Every file below the folder with its size, also hidden ones; the ledger's own helpers are left out."""
        found = [
            p for p in self.folder.rglob("*") if p.is_file() and not p.name.startswith(self.project.ledger_file.name)
        ]
        return {str(p.relative_to(self.folder)): p.stat().st_size for p in sorted(found)}

    def begin_fit(self, *words: object) -> "subprocess.Popen[str]":
        """Start a fit of full length in a process of its own, and wait until it is in the middle of its reads."""
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "fit", "--project", str(self.folder), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        give_up = time.monotonic() + 90
        while not any(r.status == "planned" for r in self.books.standing):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up, "the fit did not get to its plan"
            time.sleep(0.02)
        time.sleep(0.3)  # the plan is recorded; now the stages run
        assert process.poll() is None, process.communicate()
        return process

    def stop_fit(self, process: "subprocess.Popen[str]", number: signal.Signals) -> tuple[int, str, str]:
        """Send a signal; exit code, stdout, stderr."""
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where commands keep what they remember if nobody names a project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        yield


MakeBank = Callable[..., Bank]


def make_bank(
    folder: Path,
    rows: pd.DataFrame | None = None,
    *,
    schema: dict[str, Any] | None = None,
    grant: float | None = EPSILON,
) -> Bank:
    """Set up a project in `folder`, with a table, a schema, keys, a ledger and a grant."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loans.schema.json").write_text(json.dumps(schema or SCHEMA), encoding="utf-8")
    (loans(1500) if rows is None else rows).to_csv(folder / "loans.csv", index=False)
    Project.create(folder, data=folder / "loans.csv", schema=folder / "loans.schema.json")
    bank = Bank(Project.open(folder), schema=json.loads(json.dumps(schema or SCHEMA)))
    if grant is not None:
        bank.grant(grant)
    return bank


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """A bank with 1500 rows (the noise on the count, of scale 50, never makes them 200) and a grant of epsilon 2."""
    return make_bank(tmp_path / "bank")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few optimiser steps in this test."""
    quicken(monkeypatch)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank after one quick fit. Tests copy the bundle before they change it."""
    bank = make_bank(tmp_path_factory.mktemp("fitted") / "bank", loans(1500, seed=5))
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        ran = bank.fit()
    assert ran.exit_code == 0, ran.output
    return bank
