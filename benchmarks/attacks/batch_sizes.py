"""Does anything that a fit leaves follow the exact number of rows, once its noisy answers are given? The attack of commit 1c36b01.

    python -m benchmarks.attacks.batch_sizes
    python -m benchmarks.attacks.batch_sizes --plant generator-inside-the-gradient     # on a copy with that hole

There one generator drew the autoencoder's latent noise inside the private gradient, 16 numbers a row of each batch, and later
started the candidates: whoever knew the seed of modelling, and tried each number of rows, read it from the bundle. Here each of
two tables of different sizes is fitted with one known seed of modelling and the very same noisy answers. If all
generators end in the same state and all bytes are the same, nobody can tell the sizes apart.

The small tables, the known seed and the door that repeats its answers are those of the guards (`guard_fakes` and
`test_guard_non_interference` in tests/distill, which is put on the path).
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.attacks import mutations
from benchmarks.attacks.tools.planted import PLANTS
from distill.exchange.bundle import parse_bundle
from distill.synthesis import pipeline
from tests.distill.guards.test_non_interference import Told
from tests.fakes.guards import CASES, freeze, quicken_all, release

CASE = CASES["classes"]
PAIRS = [(rows, rows + more) for rows in (700, 901, 1200, 1701) for more in (1, 2, 16, 200, 1500)]


@dataclass(frozen=True)
class Left:
    """What a fit leaves: the states of all generators of modelling, the soft records, all bytes of the bundle."""

    states: str
    records: bytes
    bundle: bytes


@contextmanager
def generators(patch: pytest.MonkeyPatch) -> Iterator[list[np.random.Generator]]:
    """All generators that are made meanwhile, those of the stages too."""
    made: list[np.random.Generator] = []
    from_seed, split = np.random.default_rng, pipeline.streams

    def kept(*seed: Any) -> np.random.Generator:
        made.append(from_seed(*seed))
        return made[-1]

    def kept_streams(*asked: Any) -> dict[str, np.random.Generator]:
        found = split(*asked)
        made.extend(found.values())
        return found

    with patch.context() as inner:
        inner.setattr(np.random, "default_rng", kept)
        inner.setattr(pipeline, "streams", kept_streams)
        yield made


def fitted(rows: int, folder: Path, patch: pytest.MonkeyPatch) -> Left:
    """Fit a table of so many rows behind the door that notes its answers or repeats them.

    A fit that asks for answers of another shape than those noted is told apart by that alone: it leaves nothing here.
    """
    frame = CASE.rows(rows, rows)
    with generators(patch) as made:
        try:
            bundle = release(CASE, frame, folder, Told, patch)
        except AssertionError:
            if not Told.replays:
                raise
            return Left("", b"", b"")
    records = parse_bundle(bundle, path=folder).tensors["components"].values()
    return Left(str([g.bit_generator.state for g in made]), b"".join(part.tobytes() for part in records), bundle)


def compared(pairs: Sequence[tuple[int, int]]) -> list[tuple[Left, Left]]:
    """Both fits of each pair, the second with the answers of the first."""
    found = []
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as made:
        freeze(patch)
        quicken_all(patch)
        for number, (one, other) in enumerate(pairs):
            Told.tape, Told.replays = [], False
            first = fitted(one, Path(made) / f"{number}-first", patch)
            Told.replays = True
            found.append((first, fitted(other, Path(made) / f"{number}-second", patch)))
    return found


def table(found: Sequence[tuple[Left, Left]]) -> str:
    """As Markdown: an attacker who tries both sizes is right where they differ, and has to toss a coin where they do not."""
    differ = {name: sum(getattr(a, name) != getattr(b, name) for a, b in found) for name in vars(found[0][0])}
    lines = [
        "| pairs of sizes | generators differ | soft records differ | bundles differ | advantage |",
        "|---|---|---|---|---|",
    ]
    told = differ["bundle"] / len(found)
    return "\n".join(
        [*lines, f"| {len(found)} | {differ['states']} | {differ['records']} | {differ['bundle']} | {told:.3f} |"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pairs", type=int, default=len(PAIRS), help=f"the first so many of {len(PAIRS)}")
    p.add_argument(
        "--plant", choices=[plant.name for plant in PLANTS], help="a bug to plant into a copy, which is attacked"
    )
    options = p.parse_args(arguments)
    if options.plant is None:
        print(table(compared(PAIRS[: options.pairs])))
        return 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "copy"
        mutations.copy_tree(folder)
        mutations.plant_into(folder, next(plant for plant in PLANTS if plant.name == options.plant))
        command = [sys.executable, "-m", __spec__.name, "--pairs", str(options.pairs)]
        return subprocess.run(command, cwd=folder, env=mutations.environment_of(folder), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
