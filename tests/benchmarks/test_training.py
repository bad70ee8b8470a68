"""The benchmark of central training still runs, at its quick size, and counts what it should."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.nightly
def test_the_benchmark_of_central_training_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cost.central_training", "--quick"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--out", str(tmp_path / "results.csv"), "--scratch", str(tmp_path), "--epochs", "2"]
    ran = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        one, two = csv.DictReader(file)
    assert [(run["processes"], run["rows"], run["epochs"]) for run in (one, two)] == [
        ("1", "30000", "2"),
        ("2", "30000", "2"),
    ]
    assert float(one["auc"]) == pytest.approx(float(two["auc"]), abs=1e-3)
    # A process with torch takes some 200 MB at least, and two of them with their launcher more than one.
    assert 200 < float(one["peak_mb"]) < float(two["peak_mb"])
    assert 0 < float(one["cpu"]) < float(two["cpu"])
    assert "2 processes against one: wall ratio" in ran.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]
