"""Privacy events and what they cost: one small vocabulary, two accountants.

An `Event` is what the ledger stores and the bundle carries. Events of one *round* had their noise, rate and step
count fixed before the round began, so they compose tightly (one joint privacy loss distribution). A later round's
parameters may follow an earlier round's output, so rounds add up (basic composition of adaptively chosen mechanisms).

Unit: one row (or one entity, where the schema names a `unit`). Neighbours: add or remove one unit.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from distill import check
from distill.errors import ConfigError

Mechanism = Literal["laplace", "gaussian", "poisson_gaussian"]
Accountant = Literal["pld", "rdp"]
COARSE, FINE = 1e-3, 1e-4  # discretisation of the privacy loss; pessimistic, so a coarser grid only overstates epsilon
FINE_BELOW = 0.5  # epsilon under which the coarse grid would waste several percent
EVENT_FORMAT = 1
MOST_ROWS_PER_UNIT = 10_000


class Event(BaseModel):
    """One planned access to the private rows, in numbers that an auditor can recompute from.

    Attributes:
        name: Stage and read, for instance `relate.pairs`; unique within a release.
        mechanism: `laplace` (sensitivity in L1), `gaussian` or `poisson_gaussian` (sensitivity in L2).
        noise_multiplier: Laplace scale or Gaussian stddev of the release, divided by its sensitivity.
        sampling_rate: Chance that a unit joins one step; 1 unless `poisson_gaussian`.
        count: How often the mechanism runs (optimiser steps); each run is one read.
        blocks: Histograms released together, in each of which a row counts in one cell (sensitivity sqrt(blocks) a row).
        rows_per_unit: Most rows that one unit has in the table that is read. They may all be alike, so every sensitivity is
            that of one row times this number (triangle inequality), and so is the noise; 1 is not written down, as in
            events from before there was a choice.
        round: Rounds are added up; events inside one round are composed jointly.
        purpose: In plain words, for the reader of the ledger.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    mechanism: Mechanism
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False)
    sampling_rate: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    count: int = Field(default=1, ge=1)
    blocks: int = Field(default=1, ge=1)
    rows_per_unit: int = Field(default=1, ge=1, le=MOST_ROWS_PER_UNIT)
    round: int = Field(default=0, ge=0)
    purpose: str = ""

    @property
    def cell_stddev(self) -> float:
        """Noise stddev (Laplace: scale) on one cell when all blocks share the noise equally; of a training step, on one
        coordinate of the sum of gradients that are clipped to 1."""
        return self.noise_multiplier * math.sqrt(self.blocks) * self.rows_per_unit

    @model_serializer(mode="wrap")
    def _without_one_row(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialise(self)
        if self.rows_per_unit == 1:
            del written["rows_per_unit"]
        return written


def epsilon_of(events: Sequence[Event], delta: float, *, accountant: Accountant = "pld") -> float:
    """Total epsilon of a release at `delta`: the joint epsilon of each round, added over rounds.

    Delta is spent in the one round that holds Gaussian events; the others must be pure (Laplace).

    Raises:
        ConfigError: delta is not in (0, 1), or two rounds hold Gaussian events.

    Source: joint composition by privacy loss distributions, arXiv:2106.08567; across rounds, basic composition
    (Dwork & Roth 2014, theorem 3.16), which holds for mechanisms chosen adaptively.
    """
    check.positive(delta=delta)
    rounds: dict[int, list[Event]] = {}
    for event in events:
        rounds.setdefault(event.round, []).append(event)
    noisy = [number for number, members in rounds.items() if any(e.mechanism != "laplace" for e in members)]
    if len(noisy) > 1:
        raise ConfigError(f"rounds {noisy} all hold Gaussian events; delta can be spent in one round only.")
    return sum(_joint_epsilon(members, delta, accountant) for _, members in sorted(rounds.items()))


def _joint_epsilon(events: Sequence[Event], delta: float, accountant: Accountant) -> float:
    """Epsilon of events composed together; exact and free of delta where all are Laplace."""
    if all(e.mechanism == "laplace" for e in events):
        return sum(e.count / e.noise_multiplier for e in events)
    from dp_accounting import NeighboringRelation, pld, rdp

    relation = NeighboringRelation.ADD_OR_REMOVE_ONE
    if accountant == "rdp":
        with _without_warnings():
            return _read(rdp.RdpAccountant(neighboring_relation=relation), events, delta)
    epsilon = _read(pld.PLDAccountant(relation, value_discretization_interval=COARSE), events, delta)
    if epsilon < FINE_BELOW:
        epsilon = _read(pld.PLDAccountant(relation, value_discretization_interval=FINE), events, delta)
    return epsilon


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep the library from telling the terminal of each order whose series it gives up: that order is then left out."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _read(accountant: Any, events: Sequence[Event], delta: float) -> float:
    """What an accountant of the library makes of the events."""
    for event, count in _merged(events):
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta))


def _merged(events: Iterable[Event]) -> list[tuple[object, int]]:
    """The library's events; all plain Gaussians become one, which composes to exactly the same loss.

    A sample that every unit joins for certain is no sample: such steps are plain Gaussians too.
    Gaussians with multipliers s_i compose to one with s = (sum 1/s_i**2)**-0.5: arXiv:1905.02383, corollary 3.3.
    """
    from dp_accounting import dp_event

    out: list[tuple[object, int]] = []
    precision = 0.0
    for e in events:
        if e.mechanism == "gaussian" or (e.mechanism == "poisson_gaussian" and e.sampling_rate == 1):
            precision += e.count / e.noise_multiplier**2
        elif e.mechanism == "laplace":
            out.append((dp_event.LaplaceDpEvent(e.noise_multiplier), e.count))
        else:
            step = dp_event.PoissonSampledDpEvent(e.sampling_rate, dp_event.GaussianDpEvent(e.noise_multiplier))
            out.append((step, e.count))
    if precision:
        out.append((dp_event.GaussianDpEvent(precision**-0.5), 1))
    return out
