"""Do the low bits of noisy gradients tell whether a record is there? The attack on floating-point noise (arXiv:2107.10138).

    python -m benchmarks.attacks.floating_point
    python -m benchmarks.attacks.floating_point --quick

One coordinate of a clipped gradient sum is exactly zero without a certain record. With it, a float sum of gradient and noise
is rounded to the gradient's own steps wherever the noise nearly cancels it, so small answers lie on coarse steps. The attacker
sees one answer a step, looks at nothing but low bits, and guesses that the record is there where all answers are whole numbers
of some step. Two doors are attacked: the old one in float32 (as at commit 1c36b01, written out here) and
`PrivateTable.noisy_gradient`. All randomness of the doors is the system's; nothing is seeded.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import scipy.stats
from scipy.special import ndtri

from distill.data.encoded_table import EncodedTable
from distill.data.schema import Schema
from distill.privacy.dpsgd import FINEST_BITS
from distill.privacy.events import Event
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.privacy.random_source import SystemRandom
from distill.privacy.record_gradients import Network

RUNS, STEPS = 400, 60
MULTIPLIER = 0.8
PLACES = 8  # of the rows; the record that is looked for is the only one at the last
PART = 0.5 * (1 - 2.0**-40)  # what it adds to its own weight: half a step, for the class head has no opinion yet
NORMALISER = 1234.5  # public: noisy rows times sampling rate
SCHEMA = Schema.model_validate(
    {
        "name": "places",
        "target": "label",
        "columns": [
            {"name": "place", "kind": "categorical", "categories": list(range(PLACES))},
            {"name": "label", "kind": "categorical", "categories": [0, 1]},
        ],
    }
)
EVENT = Event(name="steps", mechanism="poisson_gaussian", noise_multiplier=MULTIPLIER, count=STEPS)
HEAD = Network(((np.zeros((2, PLACES)), np.zeros(2)),), loss="classes", starts=np.zeros(1, dtype=np.int64))
Door = Callable[[bool], np.ndarray]  # whether the record is there -> (steps,)


def float32_door(there: bool) -> np.ndarray:
    """The old answers: float32 normals by inversion, times the stddev, on a float32 sum; the stage divided them."""
    total = np.full(STEPS, PART if there else 0.0, dtype=np.float32)
    noise = np.asarray(ndtri(SystemRandom().uniform(STEPS)), dtype=np.float32) * np.float32(MULTIPLIER)
    return np.asarray((total + noise) / np.float32(NORMALISER))


def lattice_door(there: bool) -> np.ndarray:
    """The answers of today, as the door gives them: float64, before any stage divides them."""
    places = np.arange(PLACES - 1 + there, dtype=np.uint8)
    rows = EncodedTable([places, np.zeros(len(places), np.uint8)], None)
    table = PrivateTable(rows, SCHEMA, SimpleNamespace(events=[EVENT]), NoiseSource())
    table.recode([lambda cells: cells] * 2, target=1)
    return np.array([table.noisy_gradient("steps", [HEAD])[0][PLACES - 1] for _ in range(STEPS)])


def whole(answers: np.ndarray, step: float, normaliser: float = 1.0) -> bool:
    """Whether every answer is what some whole number of steps gives, divided by the normaliser in the answers' precision."""
    divisor = answers.dtype.type(normaliser)
    nearest = (np.rint(answers.astype(np.float64) * normaliser / step) * step).astype(answers.dtype)
    beside = np.maximum(
        np.spacing(np.abs(nearest)), answers.dtype.type(step)
    )  # the division may hide by one which it was
    return bool(np.any([(nearest + way * beside) / divisor == answers for way in (-1, 0, 1)], axis=0).all())


def fine_step(kind: type[np.floating]) -> float:
    """Half the distance of neighbours of the record's part: what is rounded beside it lies on such steps."""
    return float(np.spacing(kind(PART))) / 2


SINGLE, DOUBLE, OWN = fine_step(np.float32), fine_step(np.float64), 2.0**-FINEST_BITS
ATTACKS: dict[Door, dict[str, Callable[[np.ndarray], bool]]] = {
    float32_door: {"of float32": lambda answers: whole(answers, SINGLE, NORMALISER)},
    lattice_door: {
        "of float32": lambda answers: whole(answers, SINGLE),
        "of float64": lambda answers: whole(answers, DOUBLE),
        "twice the door's own": lambda answers: whole(answers, 2 * OWN),
    },
}


@dataclass(frozen=True)
class Result:
    """How often an attacker guessed that the record is there, of `runs` with it and of as many without it."""

    door: str
    attack: str
    runs: int
    true: int
    false: int

    @property
    def advantage(self) -> float:
        """Share of true positives minus that of false ones: 0 is a coin's, 1 is certainty."""
        return (self.true - self.false) / self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """At 95 %: each share by Clopper and Pearson at 97.5 %."""
        (low, high), (least, most) = (
            scipy.stats.binomtest(k, self.runs).proportion_ci(0.975, method="exact") for k in (self.true, self.false)
        )
        return low - most, high - least


def attacked(door: Door, runs: int) -> list[Result]:
    """All attacks on a door, on so many runs with the record and as many without it."""
    seen = {there: [door(there) for _ in range(runs)] for there in (True, False)}
    return [
        Result(door.__name__, name, runs, *(sum(map(guess, seen[there])) for there in (True, False)))
        for name, guess in ATTACKS[door].items()
    ]


def table(results: Sequence[Result]) -> str:
    """As Markdown."""
    lines = [
        "| door | steps looked for | true positives | false positives | advantage | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        low, high = r.interval
        lines.append(
            f"| {r.door} | {r.attack} | {r.true} of {r.runs} | {r.false} of {r.runs} | {r.advantage:.3f} | {low:.3f} to {high:.3f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=RUNS, help="with the record, and as many without it")
    p.add_argument("--quick", action="store_true", help="20 runs")
    options = p.parse_args(arguments)
    runs = 20 if options.quick else options.runs
    print(table([result for door in ATTACKS for result in attacked(door, runs)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
