"""The benchmarks of what a ledger survives still run, at their quick sizes, and find nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.nightly
def test_the_benchmark_of_large_ledgers_runs() -> None:
    command = [sys.executable, "-m", "benchmarks.cost.ledger_size", "--quick"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=600)
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [(line["plans"], line["entries"]) for line in lines] == [("same", 20), ("noisy", 20)]
    assert all(line["verify"] > 0 for line in lines)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("script", "figures"),
    [
        ("crashes", ["uncommitted bundles", "unpaid reads", "corrupt ledgers", "next fits wrong", "left behind"]),
        ("crowd", ["overspent", "releases lost", "bundles lost", "wrong words", "left behind"]),
        ("tampering", ["read differently"]),
        (
            "hub_crashes",
            ["half versions", "half models", "unregistered models", "not finished", "next runs wrong", "left behind"],
        ),
    ],
)
def test_a_benchmark_of_the_ledger_runs_and_finds_nothing(script: str, figures: list[str]) -> None:
    command = [sys.executable, "-m", f"benchmarks.attacks.{script}", "--quick"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=600)
    if ran.stderr.startswith("cannot run"):
        pytest.skip(ran.stderr.strip())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    head, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in ran.stdout.splitlines() if line[:1] == "|"
    )
    assert rows
    for row in rows:
        counted = dict(zip(head, row, strict=True))
        assert [counted[figure] for figure in figures] == ["0"] * len(figures), counted
