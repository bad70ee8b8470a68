"""The two baselines that any one-shot method must beat, on distill's own bins: independent columns, and DP naive Bayes.

Each spends the whole budget on what it needs: a noisy row count (1 %), the bins (a fifth of the rest), and one Gaussian release
of histograms. Unit: one row; neighbours: add or remove one row; noise and composition as in a fit, see distill/privacy/events.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import peer

from distill.data.bins import ColumnBins
from distill.data.encoded_table import encode_frame
from distill.data.schema import Schema
from distill.data.tables import canonical_table, to_public
from distill.privacy.calibration import ReleasePlan, bin_events, gaussian_event, size_event, solve_scale
from distill.privacy.events import Event, epsilon_of
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable

INSTALL = "this repository (`pip install -e .`)"
BINS_SHARE = 0.2
FEWEST_BINS, MOST_BINS = 8, 32  # aimed at a number
STDDEVS_A_BIN = 28  # rows that a bin of even mass should hold, in standard deviations of a cell's noise
NOTES = (
    "distill's own private bins, at a fifth of the budget; all the rest buys one release of histograms",
    "joint privacy loss distribution, as in a fit; the noise of this run is seeded",
)


@dataclass
class Paid:
    """What a ledger would have reserved."""

    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A table with its events paid for, and its plan."""

    schema: Schema
    table: PrivateTable
    plan: ReleasePlan
    target: int


def open_table(task: peer.Task, name: str, blocks: Callable[[Schema], int]) -> Opened:
    """Count the rows, then plan `encode.bins.*` and one release called `name` of as many histograms as `blocks` says."""
    schema = Schema.model_validate(task.schema)
    paid = Paid((size_event(task.epsilon),))
    table = PrivateTable(
        encode_frame(canonical_table(task.train, schema), schema), schema, paid, NoiseSource(task.seed)
    )
    size = max(1, table.noisy_size("size"))
    measured = [g for g in table.grids if g.column.name != schema.target]

    def events_at(scale: float) -> tuple[Event, ...]:
        histograms = gaussian_event(name, 1 - BINS_SHARE, scale, blocks(schema), "histograms")
        return (size_event(task.epsilon), *bin_events(measured, BINS_SHARE, scale), histograms)

    paid.events = events_at(solve_scale(lambda scale: epsilon_of(events_at(scale), task.delta), task.epsilon))
    bins = round(size / (STDDEVS_A_BIN * paid.events[-1].cell_stddev))
    bins = max(FEWEST_BINS, min(MOST_BINS, bins))
    plan = ReleasePlan(epsilon=task.epsilon, delta=task.delta, noisy_size=size, events=paid.events, bins=bins)
    return Opened(schema, table, plan, [c.name for c in schema.columns].index(schema.target))


def drawn(opened: Opened, bins: list[ColumnBins], cells: list[np.ndarray], rng: np.random.Generator) -> pd.DataFrame:
    """Rows in the schema's own values from one bin a column and row."""
    names = [c.name for c in opened.schema.columns]
    values = {name: b.draw(c, rng) for name, b, c in zip(names, bins, cells, strict=True)}
    return to_public(pd.DataFrame(values), opened.schema)
