"""How much noise a budget buys: the events of a release, and the one scale that makes them cost what was granted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.data.grids import ColumnGrid
from distill.data.schema import Schema
from distill.errors import ConfigError
from distill.privacy.events import MOST_ROWS_PER_UNIT, Event, epsilon_of
from distill.privacy.noise import MIN_COUNT_STDDEV

SIZE_SHARE = 0.01  # of epsilon, for the noisy row count


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """What every release decides beforehand. Every field is public.

    Attributes:
        epsilon, delta: What was granted to this release.
        noisy_size: Released row count of stage 0 (or, in a preview, an assumed one); of a distillation, to three digits.
        events: All events, the size count of round 0 first.
        bins: Coarse bins aimed at for a number.
    """

    epsilon: float
    delta: float
    noisy_size: int
    events: tuple[Event, ...]
    bins: int

    def event(self, name: str) -> Event:
        """The event called `name`; KeyError if the plan has none."""
        for event in self.events:
            if event.name == name:
                return event
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether the plan holds an event called `name`."""
        return any(e.name == name for e in self.events)

    @property
    def rows_per_unit(self) -> int:
        """Most rows that one unit has; all noise is that for one row times this number."""
        return self.events[0].rows_per_unit

    @property
    def joint_epsilon(self) -> float:
        """Epsilon of all events together at the plan's delta."""
        return epsilon_of(self.events, self.delta)


def check_rows_per_unit(schema: Schema, rows_per_unit: int) -> None:
    """Raise ConfigError unless a unit of this schema may have so many rows."""
    if not 1 <= rows_per_unit <= MOST_ROWS_PER_UNIT:
        raise ConfigError(f"the most rows of a unit must be within 1..{MOST_ROWS_PER_UNIT}, not {rows_per_unit}.")
    if rows_per_unit > 1 and schema.unit is None:
        raise ConfigError(
            f"schema {schema.name!r} names no `unit` column, so each row is a unit and {rows_per_unit} rows of one unit "
            "cannot be told. Name the column that says whose row it is as `unit`, or leave the most rows of a unit at 1."
        )


def size_event(epsilon: float, rows_per_unit: int = 1) -> Event:
    """Stage 0: the row count, Laplace, sensitivity `rows_per_unit`, at 1 % of epsilon."""
    return Event(
        name="size",
        mechanism="laplace",
        noise_multiplier=1.0 / (SIZE_SHARE * epsilon),
        rows_per_unit=rows_per_unit,
        purpose="noisy row count: the rest is planned from it",
    )


def three_digits(noisy_size: int) -> int:
    """A row count to three digits. Releases of one table then share a few plans, each of which is recomputed only once."""
    step: int = 10 ** max(0, len(str(noisy_size)) - 3)
    return round(noisy_size / step) * step


def bin_events(measured: Sequence[ColumnGrid], share: float, scale: float) -> list[Event]:
    """One event a tree level; every measured column is one block, all blocks with the same noise.

    A column that is listed m times stands for m blocks: its own counts then have 1/sqrt(m) of the noise.
    """
    depths = [measured_depth(g.depth, g.leaves) for g in measured]
    blocks = [sum(d >= level for d in depths) for level in range(1, max(depths, default=0) + 1)]
    return [
        gaussian_event(
            f"encode.bins.{level}",
            share * n / sum(blocks),
            scale,
            n,
            f"base-grid counts, tree level {level}, to place the bins",
        )
        for level, n in enumerate(blocks, start=1)
    ]


def measured_depth(depth: int, leaves: int) -> int:
    """Tree levels measured for a column: its depth; 1 for a flat column with many cells; 0 for one with few."""
    return depth or int(leaves > 8)


def gaussian_event(name: str, share: float, scale: float, blocks: int, purpose: str) -> Event:
    """Histograms released together, at a share of the budget after stage 0."""
    multiplier = max(scale / math.sqrt(share), MIN_COUNT_STDDEV / math.sqrt(blocks))
    return Event(name=name, mechanism="gaussian", noise_multiplier=multiplier, blocks=blocks, round=1, purpose=purpose)


def training_event(name: str, share: float, scale: float, steps: int, purpose: str, *, rate: float) -> Event:
    """Steps of DP-SGD on Poisson samples, at a share of the budget after stage 0."""
    multiplier = max(0.3, math.log1p(share / (scale**2 * steps * rate**2)) ** -0.5)
    return Event(
        name=name,
        mechanism="poisson_gaussian",
        noise_multiplier=multiplier,
        sampling_rate=rate,
        count=steps,
        round=1,
        purpose=purpose,
    )


def solve_scale(epsilon_at: Callable[[float], float], epsilon: float) -> float:
    """Smallest noise scale (to 0.05 %) whose joint epsilon does not exceed `epsilon`. Raises ConfigError."""
    low = high = 1.0 / epsilon
    while epsilon_at(high) > epsilon:
        low, high = high, high * 2
        if high > 1e6:
            raise ConfigError(f"epsilon {epsilon:g} is too small to calibrate noise for.")
    while low == high or epsilon_at(low) <= epsilon:
        high, low = low, low / 2
        if low < 1e-4:
            return high
    while high / low > 1.0005:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if epsilon_at(middle) <= epsilon else (middle, high)
    return high
