"""(not a benchmark) The peers: which there are, in which environment each runs, and what running one gives.

A peer is a script in `peers/` with the command line of `peers/peer.py`; it runs as a process of its own under whatever Python
has its tool. What is not installed is skipped with one line; what fails or takes too long gives a result that says so.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.processes import ROOT, measured

FOLDER = Path(__file__).with_name("peers")
OURS = {"independent": FOLDER / "independent.py", "naive_bayes": FOLDER / "naive_bayes.py"}  # on distill's own bins
TOOLS = {
    "mst": FOLDER / "mst.py",
    "aim": FOLDER / "aim.py",
    "mostlyai": FOLDER / "mostlyai_dp.py",
    "ctgan": FOLDER / "ctgan_plain.py",
    "tvae": FOLDER / "tvae_plain.py",
}
NOT_PRIVATE = ("ctgan", "tvae")
LABELS = {
    "independent": "independent columns",
    "naive_bayes": "DP naive Bayes",
    "mst": "MST (mbi)",
    "aim": "AIM (mbi)",
    "mostlyai": "MOSTLY AI, DP",
    "ctgan": "CTGAN, not private",
    "tvae": "TVAE, not private",
}
NOT_INSTALLED = 3  # exit code, as in peers/peer.py


class PeerNotInstalled(Exception):
    """The environment that a peer runs in does not have its tool; the text says what to install."""


class PeerFailed(Exception):
    """A peer ended without an answer; the text says how, in a few words."""


@dataclass(frozen=True)
class Peers:
    """Where each peer's script is and which Python runs it.

    Attributes:
        scripts: Name -> script.
        pythons: Name -> interpreter; those not named run under `python`.
        python: Interpreter of all other tools. The baselines on distill's own bins always run under this one.
        timeout: Seconds that one peer may take, reading and sampling included.
    """

    scripts: Mapping[str, Path] = field(default_factory=lambda: {**OURS, **TOOLS})
    pythons: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    timeout: float = 900.0

    def interpreter(self, name: str) -> str:
        """The Python that runs the peer called `name`."""
        return self.pythons.get(name, sys.executable if name in OURS else self.python)


def label_of(name: str) -> str:
    """How a peer is called in tables."""
    return LABELS.get(name, name)


def pairs_of(texts: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a dictionary; stops the benchmark where one is not of that form."""
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        sys.exit(f"{option} {wrong[0]}: write NAME=PATH")
    return dict(text.split("=", 1) for text in texts)


def run_peer(
    peers: Peers,
    name: str,
    train: pd.DataFrame,
    schema: Mapping[str, Any],
    *,
    epsilon: float,
    delta: float,
    seed: int,
    rows: int,
    quick: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fit one peer and draw `rows` rows: (rows, what it says of itself: seconds, cpu_seconds, peak_mb, private, notes).

    Raises:
        PeerNotInstalled: its tool is not there.
        PeerFailed: it crashed, gave no answer or passed the time limit.
    """
    if shutil.which(peers.interpreter(name)) is None:
        raise PeerNotInstalled(f"{peers.interpreter(name)} is not there")
    with tempfile.TemporaryDirectory(prefix="distill-peer-") as scratch:
        folder = Path(scratch)
        train.to_parquet(folder / "train.parquet", index=False)
        (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
        out = folder / "out.parquet"
        command = [peers.interpreter(name), str(peers.scripts[name])]
        command += [str(folder / "train.parquet"), str(folder / "schema.json"), "--out", str(out)]
        command += ["--epsilon", str(epsilon), "--delta", str(delta), "--seed", str(seed), "--rows", str(rows)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])) if name in OURS else None
        done = measured(
            command + ["--quick"] * quick, timeout=peers.timeout, env={"PYTHONPATH": path} if path else None
        )
        last = (done.output.strip().splitlines() or [""])[-1]
        if done.code == NOT_INSTALLED:
            raise PeerNotInstalled(last)
        if done.code is None:
            raise PeerFailed(f"stopped after {peers.timeout:g} s")
        answers = [line for line in done.output.splitlines() if line.startswith('{"seconds"')]
        if done.code or not answers or not out.is_file():
            raise PeerFailed(f"failed: {last[:200]}")
        return pd.read_parquet(out), json.loads(answers[-1])
