"""Do eight fits at once overspend, lose a release or wait for ever? Real processes against one grant that covers three of them.

    python -m benchmarks.attacks.crowd --out crowd.csv
    python -m benchmarks.attacks.crowd --quick

In *own places* each fit has a bundle file of its own; in *one place* all are to write the same file, and what cannot go there
must be found again by `distill bundle recover`. Needs fork. Ends with 1 if anything is found.
"""

from benchmarks.attacks.tools import warm  # isort: skip - first of all: it keeps numpy, torch and Arrow to one thread

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from distill.common.keys import load_signing_key
from distill.project import Project

FITS, COVERED = 8, 3
REFUSED = "of the granted"
FAULTS = ("overspent", "releases lost", "bundles lost", "wrong words", "left behind")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    warm.warm_up()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("own places", "one place"):
            rounds = [crowd(Path(folder) / f"{kind}{n}", one_place=kind == "one place") for n in range(options.rounds)]
            rows.append({"kind": kind, **{name: round(sum(r[name] for r in rounds), 1) for name in rounds[0]}})
    if options.out:
        pd.DataFrame(rows).to_csv(options.out, index=False)
    print(markdown(rows))
    return int(any(row[fault] for row in rows for fault in FAULTS))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", dest="rounds", action="store_const", const=1, help="one round of each kind")
    p.add_argument("--rounds", type=int, default=10, help="of each kind (default: 10)")
    p.add_argument("--out", type=Path, metavar="FILE.csv")
    return p


def crowd(home: Path, *, one_place: bool) -> dict[str, Any]:
    """One round: what eight fits at once did, and what is wrong with what they left."""
    warm.make_project(home, grant=COVERED * warm.EPSILON, delta=COVERED * warm.DELTA)
    outs = [home / ("tiny.distill" if one_place else f"tiny{n}.distill") for n in range(FITS)]
    logs = [home.with_name(f"{home.name}.said{n}") for n in range(FITS)]
    started = time.perf_counter()
    pids = [
        warm.fork(lambda o=out, s=said: warm.command(["fit", "--project", home, "--out", o], s))  # type: ignore[misc]
        for out, said in zip(outs, logs, strict=True)
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]  # a hanging one ends by its alarm
    seconds = time.perf_counter() - started
    words = [path.read_text(encoding="utf-8") for path in logs]
    return {"fits": FITS, "seconds": round(seconds, 1), **warm.answer_of(lambda: left(home, codes, words))}


def left(home: Path, codes: list[int], words: list[str]) -> dict[str, int]:
    """What the ledger and the folder say afterwards, beside what the fits said."""
    project = Project.open(home)
    key, ledger = load_signing_key(project.key), project.ledger()
    books = ledger.verify(key.public_hex).summary
    committed = {r.bundle for r in books.releases if r.status == "committed"}
    unplaced = sum(
        code == 2 and "the release is committed, but" in said for code, said in zip(codes, words, strict=True)
    )
    warm.distill("bundle", "recover", "--project", home)
    there = {hashlib.sha256(path.read_bytes()).hexdigest() for path in home.glob("*.distill")}
    refused = sum(
        code == 2 and (REFUSED in said or "exists already" in said) for code, said in zip(codes, words, strict=True)
    )
    files = [path for path in home.iterdir() if path.name.endswith((".tmp", "-wal", "-shm", "-journal"))]
    return {
        "made": codes.count(0),
        "made, place taken": unplaced,
        "refused": refused,
        "overspent": int(books.spent_epsilon > books.granted_epsilon * (1 + 1e-9)),
        "releases lost": abs(len(books.releases) - codes.count(0) - unplaced) + len(books.standing),
        "bundles lost": len(committed ^ there),
        "wrong words": FITS - codes.count(0) - unplaced - refused,
        "left behind": len(files),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
