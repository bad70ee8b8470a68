"""The plan of a release: what is read, with how much noise, and what that costs, before anything is read.

Everything here is a function of the public schema, the granted (epsilon, delta) and the noisy row count of stage 0.
Shares divide the budget: a Gaussian release with share a gets mu**2 = a / scale**2 (Gaussian differential privacy), DP-SGD the
same by its central limit (arXiv:1911.11607, corollary 4), and one `scale` is solved so that the joint epsilon of all of it
is at or just under the grant.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from distill.common import checks
from distill.data.grids import base_grids
from distill.data.schema import Schema
from distill.errors import BudgetError
from distill.privacy.budget import require_budget
from distill.privacy.calibration import (
    ReleasePlan,
    bin_events,
    check_rows_per_unit,
    gaussian_event,
    size_event,
    solve_scale,
    three_digits,
    training_event,
)
from distill.privacy.events import Event, RenyiLimit, cost_of, sampling_rate
from distill.synthesis.planning.shares import HEAD_PORTION, Shares, choose_shares, without_target

MIN_ROWS = 200
FEWEST_BINS, MOST_BINS = 16, 32  # aimed at a number; below 16 the class head loses more than pairs gain (measured)
SCARCE_BINS = 8  # where signal is so scarce that 16 bins drown in noise
SIGNAL_A_BIN = 14.0  # rows * epsilon / columns / bins below which they do
FEWEST_CLASSES, MOST_CLASSES = 8, 12  # aimed at a number that is the target, see `target_bins`
TARGET_WEIGHT = 4  # blocks that its base-grid counts stand for: half the noise of a feature's
SCOUT_BINS = 3  # bins a column in the first, coarse pass over the pairs of a wide table


def fewest_bins(noisy_size: int, epsilon: float, features: int) -> int:
    """Bins that a number gets at least, 8 to 16, by rows * epsilon / columns.

    With 16 bins on 5,455 rows of 95 numbers at epsilon 2, class counts a bin are below their noise, and what is drawn from
    them misleads any model (docs/research/plan.md).
    """
    return max(SCARCE_BINS, min(FEWEST_BINS, round(noisy_size * epsilon / features / SIGNAL_A_BIN)))


def target_bins(noisy_size: int, epsilon: float) -> int:
    """Bins aimed at for a number that is the target; they are the classes of the class head.

    Few lose what lies inside a bin, many what noise does to the rows of each. On the table of benchmarks/quality/regression.py at epsilon 2
    (one seed) the class head's R2 with 6, 8, 12 and 16 bins aimed at was .47, .44, .41 and .29 with 3,000 rows, and
    .54, .54, .57 and .54 with 20,000.
    """
    return int(max(FEWEST_CLASSES, min(MOST_CLASSES, round(0.85 * (noisy_size * epsilon) ** 0.25))))


def bin_weight(schema: Schema, column: int) -> int:
    """How many blocks the base-grid counts of a column stand for: more, with less noise, for a number that is the target.

    A bin of a feature that is misplaced blurs one column; a target's values far out that noise made up are what a squared
    error sees most.
    """
    return TARGET_WEIGHT if schema.task == "number" and column == schema.target_place else 1


def binned_columns(schema: Schema) -> list[int]:
    """Positions of the columns whose bins are measured: all but a target that brings its own classes."""
    return [i for i in range(len(schema.columns)) if schema.task != "classes" or i != schema.target_place]


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What a plan goes by beside budget, schema and row count. Public; it moves what is read, and so what that costs.

    Attributes:
        represent_steps, discriminate_steps: DP-SGD steps of these stages.
        all_pairs_up_to: Number of column pairs up to which all are measured; of more, some are chosen by noisy counts.
    """

    represent_steps: int = 200
    discriminate_steps: int = 600
    all_pairs_up_to: int = 600

    def __post_init__(self) -> None:
        """Refuse numbers below 1. Raises ConfigError."""
        checks.positive(**{field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Plan(ReleasePlan):
    """One distillation, fully decided. Every field is public.

    Attributes:
        pairs: Column pairs that are measured.
        candidates: Soft records.
        head_portion: Portion of the discriminator's squared clip norm that goes to the class head; the critic gets the rest.
            0 where there is no target.
        shares: How the budget after stage 0 is divided.
        by_hand: Names of the shares that were given, not chosen.
        institutions: How many the hub will pool, as publicly agreed. Their class heads are averaged, so each may carry more
            noise of its own and follow its rows more closely; noise multipliers, rates and steps do not depend on it.
    """

    pairs: int
    candidates: int
    head_portion: float = HEAD_PORTION
    shares: Shares = field(default_factory=Shares)
    by_hand: tuple[str, ...] = ()
    institutions: int = 1


def make_plan(
    schema: Schema,
    noisy_size: int,
    *,
    epsilon: float,
    delta: float,
    shares: Shares | Mapping[str, float] | None = None,
    institutions: int = 1,
    rows_per_unit: int = 1,
    limit: RenyiLimit | None = None,
    settings: PlanSettings = PlanSettings(),
) -> Plan:
    """Decide every later access from the schema, the grant and the noisy row count.

    `shares` may be some of them by name: these are taken as given, in proportion to the others, which are chosen. `limit`, where
    the ledger sets one, bounds the release beside its epsilon. `settings` are public too.

    Raises:
        ConfigError: units of this schema cannot have `rows_per_unit` rows.
        BudgetError: fewer than about 200 rows, or a budget too small to calibrate any noise for.
    """
    require_budget(epsilon, delta)
    checks.positive(institutions=institutions)
    check_rows_per_unit(schema, rows_per_unit)
    if noisy_size < MIN_ROWS:
        enough = _rounded_up(epsilon * MIN_ROWS / max(noisy_size, 20))
        raise BudgetError(
            f"the noisy row count is below {MIN_ROWS}: too few for a release that is both private and useful at epsilon {epsilon:g}. "
            f"Pool more rows into one table, or grant more: about epsilon {enough:g} would carry as much signal as 200 rows do here."
        )
    size = size_event(epsilon, rows_per_unit)
    noisy_size = three_digits(noisy_size)
    features = len(schema.features)
    units = noisy_size // rows_per_unit  # at least so many: what noise, which grows with a unit's rows, is up against
    by_hand = tuple(f.name for f in fields(Shares)) if isinstance(shares, Shares) else tuple(shares or ())
    if not isinstance(shares, Shares):
        chosen = choose_shares(units, epsilon, features)
        chosen = without_target(chosen) if schema.target is None else chosen
        shares = replace(chosen, **(shares or {}))
    all_pairs = features * (features - 1) // 2
    pairs = all_pairs if all_pairs <= settings.all_pairs_up_to else _wide_pairs(units, epsilon, all_pairs)

    def events_at(scale: float) -> tuple[Event, ...]:
        scout = all_pairs if pairs < all_pairs else 0
        later = _later_events(schema, noisy_size, shares, scale, settings, pairs=pairs, scout=scout)
        return size, *(e.model_copy(update={"rows_per_unit": rows_per_unit}) for e in later)

    events = events_at(solve_scale(lambda s: cost_of(events_at(s), delta, epsilon=epsilon, limit=limit), epsilon))
    fitting = round(1.3 * math.sqrt(noisy_size / (3.5 * _cell_stddev(events, "relate.pairs"))))
    bins = max(fewest_bins(units, epsilon, features), min(MOST_BINS, fitting))
    return Plan(
        epsilon=epsilon,
        delta=delta,
        noisy_size=noisy_size,
        events=events,
        bins=bins,
        pairs=pairs,
        candidates=1000,
        shares=shares,
        by_hand=by_hand,
        head_portion=HEAD_PORTION if schema.target is not None else 0.0,
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
    schema: Schema, noisy_size: int, shares: Shares, scale: float, settings: PlanSettings, *, pairs: int, scout: int
) -> list[Event]:
    """Events of round 1 at a given noise scale."""
    features = len(schema.features)
    rate = sampling_rate(noisy_size)
    grids = base_grids(schema)
    measured = [grids[i] for i in binned_columns(schema) for _ in range(bin_weight(schema, i))]
    counted = "counts per class, column and bin" if schema.target is not None else "counts per column and bin"
    heads = "class head and critic" if schema.target is not None else "the critic"
    events = [
        *bin_events(measured, shares.portion("bins"), scale),
        gaussian_event("encode.classes", shares.portion("classes"), scale, features, counted),
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
            settings.represent_steps,
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
            settings.discriminate_steps,
            f"DP-SGD steps of {heads}",
            rate=rate,
        )
    )
    return events
