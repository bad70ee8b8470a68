"""Stand-ins for a ledger reservation and for noise, small schemas of every kind of column, and hand-made releases."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from distill.data.bins import ColumnBins
from distill.data.encoded_table import encode_frame
from distill.data.grids import base_grids
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.privacy.cells import Cross, Rows
from distill.privacy.dpsgd import FINEST_BITS, Factor, clipped_sum
from distill.privacy.events import Event
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Gradients, Network, Records
from distill.releases import fit as releases_fit
from distill.releases.fit import FitRequest
from distill.synthesis.effort import Effort
from distill.synthesis.generator.generator import Generator
from distill.synthesis.planning.plan import Plan, PlanSettings, make_plan
from distill.synthesis.statistics.counts import ClassCounts, PairCounts
from server_train.comparison.runs import distilled

FALSE_ALARM = 1e-6  # chance that correct code fails a statistical test on one fresh seed


def rounded(law: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Weights of a continuous law, rounded to whole numbers."""
    return lambda k: law.cdf(k + 0.5) - law.cdf(k - 0.5)


def rounded_laplace(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """Weights of the law of Laplace noise on counts."""
    return rounded(scipy.stats.laplace(scale=scale))


def rounded_gaussian(stddev: float) -> Callable[[np.ndarray], np.ndarray]:
    """Weights of the law of Gaussian noise on counts."""
    return rounded(scipy.stats.norm(scale=stddev))


def assert_follows(draws: np.ndarray, weight_of: Callable[[np.ndarray], np.ndarray], reach: int) -> None:
    """Chi-square test of integer draws against weights on -reach..reach, the ends standing for the tails."""
    support = np.arange(-20 * reach, 20 * reach + 1)
    weights = weight_of(support.astype(float))
    expected = np.bincount(np.clip(support, -reach, reach) + reach, weights / weights.sum()) * draws.size
    observed = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
    assert expected.min() > 10  # else the chi-square law would not hold
    assert scipy.stats.chisquare(observed, expected * (observed.sum() / expected.sum())).pvalue > FALSE_ALARM


def assert_row_local(answer: Callable[[np.ndarray], np.ndarray], rows: int, seed: int = 0) -> None:
    """What each row gives is the same to the last bit, wherever it stands and whatever others stand beside it.

    Args:
        answer: Of some rows, by their numbers, (n,) -> (n, ...).
        rows: How many there are; the first and the last up to 70 are also asked for alone.
        seed: Of the orders in which all are asked for.
    """
    whole = answer(np.arange(rows))
    rng = np.random.default_rng(seed)
    few = range(1, min(rows, 70) + 1)
    chosen = [np.arange(k) for k in few] + [np.arange(rows - k, rows) for k in few]
    chosen += [rng.permutation(rows), np.arange(rows)[::-1], rng.permutation(rows)[: rows // 2]]
    for some in chosen:
        got, expected = answer(some), whole[some]
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(bits_of(got), bits_of(expected))


def bits_of(values: np.ndarray) -> np.ndarray:
    """Floats as their bits, of which zero has one form only; whole numbers as they are."""
    return np.ascontiguousarray(values + 0.0).view(np.uint64) if values.dtype == np.float64 else values


@dataclass
class Paid:
    """A reservation that holds just these events."""

    events: list[Event]


class NoNoise(NoiseSource):
    """Answers exactly: for tests of what lies under the noise. Poisson samples hold every record."""

    def __init__(self) -> None:
        super().__init__(0)

    def laplace_count(self, count: int, *, scale: float) -> int:
        return count

    def laplace_counts(self, counts: np.ndarray, *, scale: float) -> np.ndarray:
        return np.asarray(counts, dtype=np.int64)

    def gaussian_counts(self, counts: np.ndarray, *, stddev: float) -> np.ndarray:
        return np.asarray(counts, dtype=np.int64)

    def lattice_gaussian(self, size: int, *, stddev: float) -> np.ndarray:
        return np.zeros(size, dtype=np.int64)

    def poisson_sample(self, size: int, *, rate: float) -> np.ndarray:
        return np.arange(size)


class OneByOne(NoNoise):
    """Answers exactly; each sample is one record, the next one each time."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0

    def poisson_sample(self, size: int, *, rate: float) -> np.ndarray:
        self._next += 1
        return np.array([self._next - 1])


class OnlySamples(NoiseSource):
    """Samples as privately as can be, and adds no noise to their sums: for tests of who is in a sample."""

    def lattice_gaussian(self, size: int, *, stddev: float) -> np.ndarray:
        return np.zeros(size, dtype=np.int64)


class ForbiddenCells(Cross):
    """Cells that no row may be put into."""

    def of(self, rows: Rows) -> np.ndarray:
        raise AssertionError("a row was looked at before it was paid for")


class ForbiddenNetwork(Network):
    """A network that no row may be put through."""

    def factors(self, records: Records) -> list[Factor]:
        raise AssertionError("a row was looked at before it was paid for")


FORBIDDEN_CELLS = ForbiddenCells((0,), (4,))
FORBIDDEN_NETWORK = ForbiddenNetwork(layers=((np.zeros((1, 4)), np.zeros(1)),), loss="real")


def counting_network(width: int, *, clip: float = 2.0, starts: np.ndarray | None = None) -> Network:
    """A critic that is sure of every row: a row's gradient is minus the row, and minus one for the bias.

    The row is (width,): features, or one-hot segments of length 1 together, whose gradient has the length of sqrt(2).
    """
    return Network(layers=((np.zeros((1, width)), np.array([-1e4])),), loss="real", clip=clip, starts=starts)


def times_seen(answer: np.ndarray, columns: int) -> np.ndarray:
    """How often each one-hot position was in a sample, then its size, from a counting network's exact answer."""
    times = np.append(-answer[:-1] * columns**0.5, -answer[-1])
    np.testing.assert_allclose(times, np.rint(times), atol=1e-6 * max(times[-1], 1))
    return np.rint(times).astype(np.int64)


def codes_seen(table: PrivateTable, event: str, widths: Sequence[int], rows: int) -> np.ndarray:
    """The first rows of a `OneByOne` table as its gradients see them, (rows, columns): codes below `widths`."""
    starts = np.cumsum([0, *widths[:-1]])
    asked = counting_network(sum(widths), starts=starts)
    seen = []
    for _ in range(rows):
        (answer,) = table.noisy_gradient(event, [asked])
        held = np.flatnonzero(times_seen(answer, len(widths))[:-1])
        assert len(held) == len(widths)
        seen.append(held - starts)
    return np.array(seen)


def lattice_sum(gradient: Gradients, records: Records) -> np.ndarray:
    """What the door adds up for one network, in whole steps of 2**-FINEST_BITS; int64."""
    factors = gradient.factors(records)
    return clipped_sum(factors, clip=gradient.clip, length=gradient.share**0.5, bits=FINEST_BITS)


class Batch:
    """A table whose Poisson sample is given; keeps what it was asked for and answers without noise.

    Attributes:
        reads: As of a table.
        sums: What was added up for each network, in clip norms of all of them together.
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.reads: dict[str, int] = {}
        self._records = Records(codes, None, codes[:, -1])

    def noisy_gradient(self, event: str, gradients: Sequence[Gradients]) -> list[np.ndarray]:
        self.event, self.asked = event, gradients
        self.sums = [lattice_sum(g, self._records) * 2.0**-FINEST_BITS for g in gradients]
        return [part * g.clip / g.share**0.5 for part, g in zip(self.sums, gradients, strict=True)]


def number(name: str, low: float = 0, high: float = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "continuous", "min": low, "max": high, **more}


def integer(name: str, low: int = 0, high: int = 9, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "integer", "min": low, "max": high, **more}


def category(name: str, *values: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "categorical", "categories": list(values), **more}


def schema_of(*features: dict[str, Any], classes: tuple[Any, ...] = (0, 1), unit: str | None = None) -> Schema:
    """A schema whose target `label` comes last."""
    return Schema.model_validate(
        {"name": "t", "target": "label", "columns": [*features, category("label", *classes)], "unit": unit}
    )


EVERY_KIND = schema_of(
    number("ratio", 0, 1, nullable=True),
    number("balance", -1e5, 1e6),
    integer("age", 18, 100),
    integer("late", 0, 5, nullable=True),
    integer("salary", 0, 2_000_000),
    category("job", "clerk", "smith", "baker", other=True, nullable=True),
    category("home", *range(30)),
)


def every_kind(rows: int, seed: int, schema: Schema = EVERY_KIND) -> pd.DataFrame:
    """Rows of EVERY_KIND in public terms; the label follows ratio, job and home."""
    rng = np.random.default_rng(seed)
    ratio = np.where(rng.random(rows) < 0.1, np.nan, rng.beta(2, 5, rows))
    job = rng.choice(np.array(["clerk", "smith", "baker", "pilot", None], dtype=object), rows)
    home = rng.integers(0, 30, rows)
    frame = pd.DataFrame(
        {
            "ratio": ratio,
            "balance": np.where(rng.random(rows) < 0.4, 0.0, rng.lognormal(7, 2, rows).clip(0, 1e6)),
            "age": rng.integers(18, 90, rows),
            "late": pd.array(np.where(rng.random(rows) < 0.2, np.nan, rng.poisson(0.5, rows).clip(0, 5)), "Int64"),
            "salary": rng.lognormal(10, 0.6, rows).astype(int).clip(0, 2_000_000),
            "job": job,
            "home": home,
        }
    )
    classes = len(schema.classes)
    score = 6 * (np.nan_to_num(ratio, nan=0.5) - 0.3) + (job == "smith") + 0.05 * (home - 15)
    chances = np.exp(np.outer(score, np.arange(classes)))
    chances /= chances.sum(axis=1, keepdims=True)
    codes = (rng.random((rows, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return frame.assign(label=np.array(schema.classes, dtype=object)[codes])


def door(frame: pd.DataFrame, schema: Schema, plan: Plan, noise: NoiseSource | None = None) -> PrivateTable:
    """A private table of rows in public terms, paid for by a plan; exact unless given noise."""
    return PrivateTable(
        encode_frame(canonical_table(frame, schema), schema), schema, Paid(list(plan.events)), noise or NoNoise()
    )


@functools.lru_cache(maxsize=32)
def _base_plan(schema: Schema, rows: int, epsilon: float) -> Plan:
    return make_plan(schema, rows, epsilon=epsilon, delta=1e-5)


def plan_of(
    schema: Schema, rows: int, *, epsilon: float = 1.0, cell_stddev: float | None = None, steps: int | None = None
) -> Plan:
    """The plan for a table; optionally with that much noise on a count, or with few and nearly noiseless DP-SGD steps.

    A changed plan costs something else than `epsilon`: it tests what stages do with their answers.
    """
    plan = _base_plan(schema, rows, epsilon)
    events = []
    for event in plan.events:
        change: dict[str, Any] = {}
        if event.mechanism == "gaussian" and cell_stddev is not None:
            change["noise_multiplier"] = cell_stddev / math.sqrt(event.blocks)
        if event.mechanism == "poisson_gaussian" and steps is not None:
            change |= {"count": steps, "noise_multiplier": 0.01}
        events.append(event.model_copy(update=change))
    return dataclasses.replace(plan, events=tuple(events))


# Few optimiser steps and samples, for tests that do not judge what is learnt.
SHORT = Effort(first_steps=20, warm_up_steps=10, private_samples=400, adversarial_rows=100, trial_rows=500)


def shorten_fits(patch: pytest.MonkeyPatch, *, effort: Effort = SHORT, steps: int = 8, **settings: int) -> None:
    """Make each fit that a command or a comparison asks for a short one, planned and charged as such.

    This is the one place where tests reach in: what is asked for is made here, and given more than the command gave.
    """
    planned = PlanSettings(represent_steps=steps, discriminate_steps=steps, **settings)
    short = functools.partial(FitRequest, effort=effort, settings=planned)
    for module in (releases_fit, distilled):
        patch.setattr(module, "FitRequest", short)


def plain_bins(schema: Schema, target: int = 6) -> list[ColumnBins]:
    """Hand-made bins: leaves cut into about `target` equal runs of two pieces each, missing apart."""
    out = []
    for grid in base_grids(schema):
        if grid.column.name == schema.target or grid.leaves <= target:
            cells = np.arange(grid.cells)
            out.append(ColumnBins(grid, cells, np.ones(len(cells)), cells))
            continue
        pieces = grid.leaves if grid.column.kind == "categorical" else 2 * target  # a category is a piece of its own
        starts = np.unique(np.linspace(0, grid.leaves, pieces, endpoint=False).round().astype(np.int64))
        bins = np.arange(len(starts)) * target // len(starts)
        if grid.column.nullable:
            starts, bins = np.append(starts, grid.leaves), np.append(bins, bins[-1] + 1)
        out.append(ColumnBins(grid, starts, np.ones(len(starts)) / len(starts), bins))
    return out


def statistics_of(codes: np.ndarray, widths: tuple[int, ...], classes: int) -> tuple[ClassCounts, PairCounts]:
    """The exact statistics of coarse codes (n, features + 1), class last; noise scales of 2 rows."""
    n, features = codes.shape[0], len(widths)
    by_column = [
        np.bincount(codes[:, -1] * w + codes[:, j], minlength=classes * w).reshape(classes, w).astype(float)
        for j, w in enumerate(widths)
    ]
    pairs = [(i, j) for i in range(features) for j in range(i + 1, features)]
    blocks = [
        np.bincount(codes[:, i] * widths[j] + codes[:, j], minlength=widths[i] * widths[j]).reshape(
            widths[i], widths[j]
        )
        / n
        for i, j in pairs
    ]
    sizes = np.bincount(codes[:, -1], minlength=classes).astype(float)
    return ClassCounts(sizes, by_column, 2.0), PairCounts(pairs, blocks, 2.0 / n)


def toy_generator(schema: Schema = EVERY_KIND, *, records: int = 40, seed: int = 0) -> Generator:
    """A generator of random soft records over hand-made bins; its head and critic are random too."""
    rng = np.random.default_rng(seed)
    bins = plain_bins(schema)
    widths = [b.n_bins for b in bins if b.grid.column.name != schema.target]
    width, classes, hidden = sum(widths), len(schema.classes), 5
    logits = rng.normal(0, 2, (records, width))
    weights = rng.dirichlet(np.ones(records))
    parts = np.split(logits, np.cumsum(widths)[:-1], axis=1)
    shares = tuple(weights @ torch.from_numpy(p).softmax(1).numpy() for p in parts)
    return Generator(
        schema=schema,
        bins=tuple(bins),
        logits=logits,
        weights=weights,
        head=(rng.normal(0, 0.5, (classes, width)), rng.normal(0, 0.1, classes)),
        critic=(
            rng.normal(0, 0.3, (hidden, width + classes)),
            rng.normal(0, 0.1, hidden),
            rng.normal(0, 0.3, hidden),
            rng.normal(0, 0.1, 1),
        ),
        shares=shares,
        class_prior=rng.dirichlet(np.full(classes, 5.0)),
        noisy_rows=1234,
        critic_power=0.5,
    )
