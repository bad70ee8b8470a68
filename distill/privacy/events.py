"""Privacy events and what they cost: one small vocabulary; `distill.privacy.accountant` holds the two accountants.

An `Event` is what the ledger stores and the bundle carries. Events of one *round* had their noise, rate and step
count fixed before the round began, so they compose tightly (one joint privacy loss distribution). A later round's
parameters may follow an earlier round's output, so rounds add up (basic composition of adaptively chosen mechanisms).

Unit: one row (or one entity, where the schema names a `unit`). Neighbours: add or remove one unit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from distill.common import checks
from distill.errors import ConfigError
from distill.privacy import accountant as recompute
from distill.privacy.accountant import Accountant

__all__ = [
    "EVENT_FORMAT",
    "MOST_ROWS_PER_UNIT",
    "Accountant",
    "Event",
    "Mechanism",
    "RenyiLimit",
    "cost_of",
    "epsilon_of",
    "gaussian_renyi",
    "renyi_of",
]

Mechanism = Literal["laplace", "gaussian", "poisson_gaussian"]
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
        blocks: Histograms released together, in each of which a row counts in one cell (sensitivity a row: sqrt(blocks) in L2,
            blocks in L1).
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
        blocks = self.blocks if self.mechanism == "laplace" else math.sqrt(self.blocks)
        return self.noise_multiplier * blocks * self.rows_per_unit

    @model_serializer(mode="wrap")
    def _without_one_row(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialise(self)
        if self.rows_per_unit == 1:
            del written["rows_per_unit"]
        return written


def epsilon_of(events: Sequence[Event], delta: float, *, accountant: Accountant = "pld") -> float:
    """Total epsilon of a release at `delta`, see `distill.privacy.accountant.epsilon`: rounds add up, one round composes jointly.

    Raises:
        ConfigError: delta is not in (0, 1), or two rounds hold Gaussian events.
    """
    checks.positive(delta=delta)
    try:
        return recompute.epsilon([e.model_dump(mode="json") for e in events], delta, accountant)
    except ValueError as error:
        raise ConfigError(str(error)) from None


@dataclass(frozen=True)
class RenyiLimit:
    """The most that a release may cost as Renyi DP, beside its epsilon, where the grant adds releases up that way."""

    order: float
    most: float


def renyi_of(events: Sequence[Event], order: float) -> float:
    """Renyi DP of a release at a fixed order, see `distill.privacy.accountant.renyi`."""
    return recompute.renyi([e.model_dump(mode="json") for e in events], order)


def gaussian_renyi(epsilon: float, delta: float, order: float) -> float:
    """Renyi DP at `order` of the single Gaussian that costs exactly `epsilon` at `delta`.

    Source: the exact delta of a Gaussian, arXiv:1805.06530, theorem 8; its Renyi DP, arXiv:1702.07476, proposition 7.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    def excess(log_stddev: float) -> float:
        stddev = math.exp(log_stddev)
        tail = math.exp(epsilon + norm.logcdf(-1 / (2 * stddev) - epsilon * stddev))
        return float(norm.cdf(1 / (2 * stddev) - epsilon * stddev) - tail) - delta

    stddev = math.exp(brentq(excess, math.log(1e-3), math.log(1e9), xtol=1e-12))
    return order / (2 * stddev**2)


def cost_of(events: Sequence[Event], delta: float, *, epsilon: float, limit: RenyiLimit | None) -> float:
    """What a release costs against a reservation of `epsilon`: its epsilon at `delta`, or, if that is more, the part that it
    takes of the Renyi limit, times `epsilon`. Raises ConfigError as `epsilon_of` does."""
    cost = epsilon_of(events, delta)
    return cost if limit is None else max(cost, epsilon * renyi_of(events, limit.order) / limit.most)


LEAST_EXPECTED, PORTION = 2000, 0.02
MOST_EXPECTED = 20_000  # rows in a step's sample: enough to quiet it, and time no longer grows with rows


def sampling_rate(noisy_size: int) -> float:
    """Chance of a row to join one step's Poisson sample: 2,000 rows are expected, of more than 1e5 rows 2 %, at most 20,000."""
    return min(1.0, min(max(LEAST_EXPECTED, PORTION * noisy_size), MOST_EXPECTED) / noisy_size)
