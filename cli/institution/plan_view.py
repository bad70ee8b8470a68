"""How a plan is shown: one line a mechanism, with its share, noise, rate, steps and cost alone and together; and `--share`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Group

    from distill.data.schema import Schema
    from distill.synthesis.planning.plan import Plan

ShareOption = Annotated[
    list[str] | None,
    typer.Option(
        "--share",
        help="Set a share of the budget by hand, in proportion to the others; repeat for more. Names: bins, classes, pairs, "
        "represent, cluster, discriminate.",
        metavar="NAME=VALUE",
    ),
]


def read_shares(given: Sequence[str] | None) -> dict[str, float]:
    """What `--share NAME=VALUE` says, by name. Raises ConfigError naming what there is."""
    from dataclasses import fields

    from distill.errors import ConfigError
    from distill.synthesis.planning.shares import Shares

    names = [f.name for f in fields(Shares)]
    known = f"The shares are {', '.join(names)}."
    out: dict[str, float] = {}
    for text in given or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise ConfigError(f"--share {text}: write NAME=VALUE, for instance --share pairs=0.3. {known}")
        if name not in names:
            raise ConfigError(f"--share {text}: there is no share {name!r}. {known}")
        if name in out:
            raise ConfigError(f"--share {text}: {name!r} is given twice; give it once. {known}")
        try:
            out[name] = float(value)
        except ValueError:
            out[name] = math.nan
        if not (math.isfinite(out[name]) and out[name] > 0):
            raise ConfigError(f"--share {text}: the value must be a finite number above 0. {known}")
    return out


def choices_payload(plan: "Plan", schema: "Schema") -> dict[str, Any]:
    """Each choice of a plan with its reason, for --json."""
    from distill.synthesis.planning.explanation import choices

    return {"choices": [choice.as_dict() for choice in choices(plan, schema)]}


def choices_table(plan: "Plan", schema: "Schema") -> "Group":
    """One line a choice: what, how much, why."""
    from rich.console import Group
    from rich.text import Text

    from distill.synthesis.planning.explanation import choices

    lines = [
        f"{c.name} {f'{c.value:.1%}' if c.name.startswith('share') else f'{c.value:,}'}: {c.why}"
        for c in choices(plan, schema)
    ]
    return Group(Text("why:"), *(Text(f"  {line}") for line in lines))


def plan_payload(plan: "Plan") -> dict[str, Any]:
    """A plan as plain values, for --json."""
    from dataclasses import asdict

    from distill.privacy.events import epsilon_of

    return {
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "joint_epsilon": plan.joint_epsilon,
        "joint_epsilon_rdp": epsilon_of(plan.events, plan.delta, accountant="rdp"),
        "noisy_size": plan.noisy_size,
        "rows_per_unit": plan.rows_per_unit,
        "bins": plan.bins,
        "pairs": plan.pairs,
        "candidates": plan.candidates,
        "shares": asdict(plan.shares),
        "events": [e.model_dump(mode="json") | {"epsilon_alone": epsilon_of([e], plan.delta)} for e in plan.events],
    }


def plan_table(plan: "Plan") -> "Group":
    """The budget table, with what it adds up to."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    payload = plan_payload(plan)
    signal = [_signal(e) for e in plan.events]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # its figures fit 80 columns
    table.add_column("mechanism", no_wrap=True)
    for name in ("share", "noise", "on a\ncell", "rate", "steps", "epsilon\nalone"):
        table.add_column(name, justify="right")
    table.add_column("what is read", overflow="fold")
    for event, own, strength in zip(plan.events, payload["events"], signal, strict=True):
        counted = event.mechanism != "poisson_gaussian"
        table.add_row(
            event.name,
            "1.0 %" if event.round == 0 else f"{99 * strength / sum(signal[1:]):.1f} %",
            f"{event.noise_multiplier:.2f}",
            f"{event.cell_stddev:.1f}" if counted else "",
            "" if counted else f"{event.sampling_rate:.3f}",
            str(event.count),
            f"{own['epsilon_alone']:.3f}",
            event.purpose,
        )
    joint, rdp = payload["joint_epsilon"], payload["joint_epsilon_rdp"]
    alone = sum(e["epsilon_alone"] for e in payload["events"])
    lines: tuple[str, ...] = (
        f"jointly: epsilon {joint:.4f} at delta {plan.delta:g}, of {plan.epsilon:g} granted to this release "
        f"(each alone would add up to {alone:.2f}; Renyi cross-check {rdp:.4f})",
        "noise: stddev (size: Laplace scale) over sensitivity; unit: one row, or one entity where the schema names a unit; "
        "neighbours: add or remove one unit",
    )
    if plan.rows_per_unit > 1:
        lines += (
            f"rows: at most {plan.rows_per_unit} of each unit count; sensitivity, and so the noise on a cell or a gradient, is "
            f"{plan.rows_per_unit} times that of one row",
        )
    return Group(table, *(Text(line) for line in lines))


def _signal(event: object) -> float:
    """A mechanism's part of the squared Gaussian signal (mu**2), by which shares are counted."""
    import math

    from distill.privacy.events import Event

    assert isinstance(event, Event)
    if event.mechanism == "poisson_gaussian":
        return event.count * event.sampling_rate**2 * math.expm1(event.noise_multiplier**-2)
    return event.count / event.noise_multiplier**2
