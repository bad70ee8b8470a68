"""The plan of a release: what is read, with how much noise, and what that costs, before anything is read.

Everything here is a function of the public schema, the granted (epsilon, delta) and the noisy row count of stage 0.
Shares divide the budget: a Gaussian release with share a gets mu**2 = a / scale**2 (Gaussian differential privacy), DP-SGD the
same by its central limit (arXiv:1911.11607, corollary 4), and one `scale` is solved so that the joint epsilon of all of it
is at or just under the grant.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from distill import check
from distill.accounting import MOST_ROWS_PER_UNIT, Event, epsilon_of
from distill.errors import BudgetError, ConfigError
from distill.grid import ColumnGrid, base_grids
from distill.mechanisms import MIN_COUNT_STDDEV
from distill.schema import Schema

SIZE_SHARE = 0.01  # of epsilon, for the noisy row count
MIN_ROWS = 200
ALL_PAIRS_UP_TO = 600
SCARCE_SIGNAL = 1600.0  # rows * epsilon / columns below which budget moves to the class counts
FEWEST_BINS, MOST_BINS = 16, 32  # aimed at a number; below 16 the class head loses more than pairs gain (measured)
MOST_EXPECTED = (
    20_000  # rows in a training step's sample: so many quiet a step enough, and time no longer grows with rows
)
SCOUT_BINS = 3  # bins a column in the first, coarse pass over the pairs of a wide table


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How the budget after stage 0 is divided; any positive numbers, used in proportion."""

    bins: float = 0.08
    classes: float = 0.30
    pairs: float = 0.20
    represent: float = 0.06
    cluster: float = 0.02
    discriminate: float = 0.34

    def __post_init__(self) -> None:
        check.positive(**vars(self))

    def portion(self, name: str) -> float:
        """The share called `name` as a portion of all shares."""
        return float(getattr(self, name) / sum(getattr(self, f.name) for f in fields(self)))


def choose_shares(noisy_size: int, epsilon: float, features: int) -> Shares:
    """Default shares: with little signal a column, budget moves from pairs and training to the class counts.

    Where rows * epsilon / columns is small, gradients and pairs drown in noise and naive Bayes on the class counts is
    the best there is; the counts also stay useful at noise levels where nothing else is.
    """
    scarce = max(0.0, 1 - noisy_size * epsilon / (features * SCARCE_SIGNAL))
    return Shares(
        classes=0.30 + 0.30 * scarce,
        pairs=0.20 - 0.08 * scarce,
        represent=0.06 - 0.02 * scarce,
        discriminate=0.34 - 0.20 * scarce,
    )


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """What every release decides beforehand. Every field is public.

    Attributes:
        epsilon, delta: What was granted to this release.
        noisy_size: Released row count of stage 0 (or, in a preview, an assumed one).
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


@dataclass(frozen=True, kw_only=True)
class Plan(ReleasePlan):
    """One distillation, fully decided. Every field is public.

    Attributes:
        pairs: Column pairs that are measured.
        candidates: Soft records.
        head_portion: Portion of the discriminator's squared clip norm that goes to the class head; the critic gets the rest.
        institutions: How many the hub will pool, as publicly agreed. Their class heads are averaged, so each may carry more
            noise of its own and follow its rows more closely; noise multipliers, rates and steps do not depend on it.
    """

    pairs: int
    candidates: int
    head_portion: float = 0.75
    institutions: int = 1


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
        purpose="noisy row count: fixes rates and steps",
    )


def make_plan(
    schema: Schema,
    noisy_size: int,
    *,
    epsilon: float,
    delta: float,
    shares: Shares | None = None,
    institutions: int = 1,
    rows_per_unit: int = 1,
) -> Plan:
    """Decide every later access from the schema, the grant and the noisy row count.

    Raises:
        ConfigError: units of this schema cannot have `rows_per_unit` rows.
        BudgetError: fewer than about 200 rows, or a budget too small to calibrate any noise for.
    """
    check.budget(epsilon, delta)
    check.positive(institutions=institutions)
    check_rows_per_unit(schema, rows_per_unit)
    if noisy_size < MIN_ROWS:
        enough = _rounded_up(epsilon * MIN_ROWS / max(noisy_size, 20))
        raise BudgetError(
            f"the noisy row count is below {MIN_ROWS}: too few for a release that is both private and useful at epsilon {epsilon:g}. "
            f"Pool more rows into one table, or grant more: about epsilon {enough:g} would carry as much signal as 200 rows do here."
        )
    size = size_event(epsilon, rows_per_unit)
    features = len(schema.features)
    units = (
        noisy_size // rows_per_unit
    )  # at least so many: what the noise, which grows with a unit's rows, is up against
    shares = shares or choose_shares(units, epsilon, features)
    all_pairs = features * (features - 1) // 2
    pairs = all_pairs if all_pairs <= ALL_PAIRS_UP_TO else _wide_pairs(units, epsilon, all_pairs)

    def events_at(scale: float) -> tuple[Event, ...]:
        scout = all_pairs if pairs < all_pairs else 0
        later = _later_events(schema, noisy_size, shares, scale, pairs=pairs, scout=scout)
        return size, *(e.model_copy(update={"rows_per_unit": rows_per_unit}) for e in later)

    events = events_at(solve_scale(lambda scale: epsilon_of(events_at(scale), delta), epsilon))
    fitting = round(1.3 * math.sqrt(noisy_size / (3.5 * _cell_stddev(events, "relate.pairs"))))
    bins = max(FEWEST_BINS, min(MOST_BINS, fitting))
    return Plan(
        epsilon=epsilon,
        delta=delta,
        noisy_size=noisy_size,
        events=events,
        bins=bins,
        pairs=pairs,
        candidates=1000,
        institutions=institutions,
    )


def _rounded_up(epsilon: float) -> float:
    """To two digits, never down."""
    step = 10.0 ** (math.floor(math.log10(epsilon)) - 1)
    return float(f"{math.ceil(epsilon / step - 1e-9) * step:.12g}")


def _wide_pairs(noisy_size: int, epsilon: float, all_pairs: int) -> int:
    """Pairs to measure on a wide table, where measuring all would drown them in noise."""
    return int(min(all_pairs, max(40, 0.014 * noisy_size * epsilon)))


def _cell_stddev(events: tuple[Event, ...], name: str) -> float:
    return next((e.cell_stddev for e in events if e.name == name), 1.0)


def _later_events(
    schema: Schema, noisy_size: int, shares: Shares, scale: float, *, pairs: int, scout: int
) -> list[Event]:
    """Events of round 1 at a given noise scale."""
    features = len(schema.features)
    rate = min(1.0, min(max(2000, 0.02 * noisy_size), MOST_EXPECTED) / noisy_size)
    measured = [g for g in base_grids(schema) if g.column.name != schema.target]
    events = [
        *bin_events(measured, shares.portion("bins"), scale),
        gaussian_event(
            "encode.classes", shares.portion("classes"), scale, features, "counts per class, column and bin"
        ),
    ]
    pair_share = shares.portion("pairs")
    if scout:
        events.append(
            gaussian_event(
                "relate.scout",
                0.25 * pair_share,
                scale,
                scout,
                "very coarse counts of all column pairs, to choose from",
            )
        )
        pair_share *= 0.75
    if pairs:
        events.append(gaussian_event("relate.pairs", pair_share, scale, pairs, "co-occurrence counts of column pairs"))
    events.append(
        training_event(
            "represent",
            shares.portion("represent"),
            scale,
            200,
            "DP-SGD steps of the variational autoencoder",
            rate=rate,
        )
    )
    events.append(gaussian_event("cluster", shares.portion("cluster"), scale, 1, "records per latent cluster"))
    events.append(
        training_event(
            "discriminate",
            shares.portion("discriminate"),
            scale,
            600,
            "DP-SGD steps of class head and critic",
            rate=rate,
        )
    )
    return events


def bin_events(measured: Sequence[ColumnGrid], share: float, scale: float) -> list[Event]:
    """One event a tree level; every measured column is one block, all blocks with the same noise."""
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
