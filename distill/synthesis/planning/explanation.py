"""Why a plan is as it is: one plain line for each choice, read off the finished plan, which knows no row.

The numbers in a line are the plan's own, so a rule of `plan` may change without a word here becoming untrue.
"""

import math
from dataclasses import asdict, dataclass, fields

from distill.data.schema import Schema
from distill.synthesis.planning.plan import FEWEST_BINS, SCARCE_BINS, Plan, target_bins
from distill.synthesis.planning.shares import Shares

WHAT_FOR = {  # what each share buys
    "bins": "where the bins of numbers lie and how a value is drawn in one",
    "classes": "how each column hangs together with the classes",
    "pairs": "how columns hang together with each other",
    "represent": "the autoencoder that the candidates start from",
    "cluster": "how many rows lie in each dense region",
    "discriminate": "the class head and the critic",
}
WITHOUT_TARGET = {"classes": "how the values of each column are spread", "discriminate": "the critic alone"}


@dataclass(frozen=True)
class Choice:
    """One choice of a plan.

    Attributes:
        name: What was chosen.
        value: The choice.
        why: One line, in plain words.
    """

    name: str
    value: float | int
    why: str

    def as_dict(self) -> dict[str, str | float | int]:
        """The choice as plain values."""
        return asdict(self)


def choices(plan: Plan, schema: Schema) -> list[Choice]:
    """Every choice of a plan with its reason, in the order of the stages: shares, bins, pairs, candidates, steps, batch.

    Args:
        plan: Finished.
        schema: That it was made for.
    """
    return [
        *(_share(plan, schema, f.name) for f in fields(Shares)),
        _bins(plan),
        *([_target_bins(plan)] if schema.task == "number" else []),
        _pairs(plan, schema),
        Choice(
            "candidates",
            plan.candidates,
            f"soft records that make up the generator: each stands for about {plan.noisy_size / plan.candidates:,.3g} rows; "
            "more would cost time and no budget",
        ),
        *(_steps(plan, name) for name in ("represent", "discriminate")),
        _batch(plan),
        *([_head(plan)] if plan.head_portion else []),
    ]


def _share(plan: Plan, schema: Schema, name: str) -> Choice:
    """A share as portion of all, with what it buys and who chose it."""
    bought = WITHOUT_TARGET.get(name, WHAT_FOR[name]) if schema.task is None else WHAT_FOR[name]
    portion = plan.shares.portion(name)
    unset = Shares().portion(name)
    if name in plan.by_hand:
        origin = f"set by hand to {getattr(plan.shares, name):g}, in proportion to the others"
    elif plan.by_hand:
        origin = "chosen, in proportion to those set by hand"
    elif math.isclose(portion, unset, rel_tol=1e-6):
        origin = "as with plenty of signal"
    else:
        signal = plan.noisy_size * plan.epsilon / max(len(schema.features), 1)
        told = "more" if portion > unset else "less"
        origin = f"{told} than the usual {unset:.1%}, for {signal:,.3g} rows times epsilon a feature" + (
            " and no target" if schema.task is None else ""
        )
    return Choice(f"share {name}", round(portion, 4), f"{bought}; {origin}")


def _bins(plan: Plan) -> Choice:
    rows = plan.noisy_size / plan.bins**2
    noise = plan.event("relate.pairs").cell_stddev if plan.has("relate.pairs") else None
    if noise is None:
        return Choice("bins", plan.bins, "aimed at for a number; there are no pairs whose cells would need rows")
    least = (
        ""
        if plan.bins > FEWEST_BINS
        else f"; not fewer than {FEWEST_BINS} for the class head, with little signal {SCARCE_BINS}"
    )
    return Choice(
        "bins",
        plan.bins,
        f"what pair cells can resolve at this noise: a cell of two such columns holds about {rows:,.3g} rows if all are alike, "
        f"with noise of {noise:,.3g} rows on it{least}",
    )


def _target_bins(plan: Plan) -> Choice:
    bins = target_bins(plan.noisy_size, plan.epsilon)
    cell = plan.event("encode.classes").cell_stddev
    return Choice(
        "target bins",
        bins,
        f"aimed at for the number to predict: each holds about {plan.noisy_size / bins:,.3g} rows, with noise of {cell:,.3g} "
        "on each count of it; a value is drawn inside its bin",
    )


def _pairs(plan: Plan, schema: Schema) -> Choice:
    features = len(schema.features)
    every = features * (features - 1) // 2
    if not plan.pairs:
        return Choice("pairs", 0, "one feature has no pairs")
    noise = plan.event("relate.pairs").cell_stddev
    if plan.pairs >= every:
        return Choice(
            "pairs", plan.pairs, f"all pairs of {features} features: the noise on a cell, {noise:,.3g} rows, allows it"
        )
    return Choice(
        "pairs",
        plan.pairs,
        f"of {every} pairs those that a coarse pass finds furthest from independence; noise on a cell is {noise:,.3g} rows, and "
        f"all pairs would bring it to {noise * math.sqrt(every / plan.pairs):,.3g}",
    )


def _steps(plan: Plan, name: str) -> Choice:
    event = plan.event(name)
    batch = event.sampling_rate * plan.noisy_size
    return Choice(
        f"steps {name}",
        event.count,
        f"DP-SGD steps, each seeing {event.sampling_rate:.3g} of the rows; the mean gradient of one has noise of "
        f"{event.noise_multiplier / batch:.2g} of a record's norm",
    )


def _batch(plan: Plan) -> Choice:
    rate = plan.event("discriminate").sampling_rate
    size = round(rate * plan.noisy_size)
    whole = "every row joins every step" if rate == 1 else f"rate {rate:.3g}, drawn anew for each step (Poisson)"
    return Choice(
        "batch",
        size,
        f"rows expected in a DP-SGD step: {whole}; a larger one needs more noise, a smaller one averages less of it away",
    )


def _head(plan: Plan) -> Choice:
    return Choice(
        "head portion",
        plan.head_portion,
        "of the discriminator's squared clip norm for the class head, the rest for the critic: labels matter most to "
        "whoever trains on the rows",
    )
