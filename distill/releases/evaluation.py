"""A figure of a model on private rows that may be published: one noisy table of scores and classes, charged to the ledger.

The order is that of a fit: reserve the release, count rows with noise, record the plan, read, write the result under a
temporary name, commit its digest, rename. Killed anywhere, the reservation stands and counts as spent. All that is read is
the row count and one histogram a block (see `distill.exchange.noisy_scores`); every figure is computed from these noisy counts alone,
and nothing else about the rows leaves this module.

A row's score follows from the public model and that row alone, and its bin from public edges, so a row adds one to one
cell of each block: sensitivity `blocks` in L1 and sqrt(blocks) in L2 a row, times the most rows of a unit; neighbours add or
remove one unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from distill.common.keys import SigningKey
from distill.data.encoded_table import EncodedTable, encode_frame
from distill.data.schema import Schema
from distill.data.tables import read_table
from distill.exchange.evaluation_document import evaluation_document, write_document
from distill.exchange.noisy_scores import Block, Law, NoisyBlock, figures
from distill.ledger import Ledger, Reservation
from distill.privacy.budget import NO_DELTA, require_budget
from distill.privacy.calibration import ReleasePlan, check_rows_per_unit, size_event, solve_scale
from distill.privacy.cells import ScoreBins
from distill.privacy.events import Event, RenyiLimit, cost_of, gaussian_renyi
from distill.privacy.noise import MIN_COUNT_STDDEV, NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.releases.known_tables import remembered
from distill.releases.lifecycle import require_place, require_unit, reserve_release
from distill.releases.placement import commit_and_place, require_nothing_left

SCORES = "evaluate.scores"
FEWEST_BINS, MOST_BINS = 8, 24


class Scorer(Protocol):
    """A public model, and where its scores are told apart. Nothing in it may follow from the private rows."""

    def blocks(self, bins: int) -> tuple[Block, ...]:
        """The histograms to count, about `bins` bins each; their number does not depend on `bins`."""

    def scored(self, frame: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each block whether it holds of each row, (rows,) of 0 and 1, and the row's score, (rows,); row by row."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What is asked. Every field is public or a path.

    Attributes:
        data, schema: The private table's file, with its unit column if the schema names one, and the model's schema.
        name, dataset: Of the institution, and the random id of the ledger that pays.
        model: What the figures are about, in public terms (digests).
        out: Where the result goes.
        epsilon: Budget of this release.
        delta: The same; `check.NO_DELTA` for Laplace noise, which needs none.
        threshold, costs: Of two classes: see `score_table.figures`.
        purpose: One line for the reader of the ledger.
        rows_per_unit, rehearsal, overwrite, known_tables: As of a fit (`pipeline.Request`).
    """

    data: Path
    schema: Schema
    name: str
    dataset: str
    model: dict[str, str]
    out: Path
    epsilon: float
    delta: float
    threshold: float = 0.5
    costs: tuple[float, float] | None = None
    purpose: str = "distill evaluate: noisy table of scores and classes"
    rows_per_unit: int = 1
    rehearsal: int | None = None
    overwrite: bool = False
    known_tables: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TablePlan(ReleasePlan):
    """One evaluation, fully decided; `bins` is the number of score bins. Every field is public."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReceipt:
    """What was released; all of it may be published, unless it is a rehearsal.

    Attributes:
        document: The result as the file holds it.
        path, digest: The file and its SHA-256, which is in the ledger.
        plan: All events, with their joint epsilon.
        reads: Reads of the private table by event.
        head: The ledger's head after the commit.
        linked: Names of data sets that the ledger declares to hold some of the same units.
    """

    document: dict[str, Any]
    path: Path
    digest: str
    plan: TablePlan
    reads: dict[str, int]
    head: str
    linked: tuple[str, ...]


def choose_bins(noisy_size: float, epsilon: float) -> int:
    """Bins of the scores: more where there is signal. Measured in benchmarks/quality/dp_evaluation.py.

    Many bins add the noise of many cells; few leave much to what is taken of the scores inside them.
    """
    return int(np.clip(round(0.55 * max(noisy_size * epsilon, 1.0) ** (1 / 3)), FEWEST_BINS, MOST_BINS))


def table_event(
    blocks: int, *, epsilon: float, delta: float, rows_per_unit: int = 1, limit: RenyiLimit | None = None
) -> Event:
    """The event of the table: Laplace or Gaussian noise, whichever is smaller on a cell within what is reserved.

    Laplace needs no delta and is smaller for few blocks. Gaussian noise is for a delta worth the name, with many blocks
    or where the ledger adds releases up by Renyi DP. Raises ConfigError where neither fits.
    """
    size = size_event(epsilon, rows_per_unit)

    def event(mechanism: str, multiplier: float) -> Event:
        return Event.model_validate(
            {
                "name": SCORES,
                "mechanism": mechanism,
                "noise_multiplier": multiplier,
                "blocks": blocks,
                "rows_per_unit": rows_per_unit,
                "round": 1,
                "purpose": "rows by class and score bin of a public model: all figures of its evaluation follow from it",
            }
        )

    def cheapest(mechanism: str, least: float) -> Event:
        def cost(multiplier: float) -> float:
            return cost_of((size, event(mechanism, multiplier)), delta, epsilon=epsilon, limit=limit)

        return event(mechanism, max(solve_scale(cost, epsilon), least))

    found = [cheapest("laplace", 0.0)]
    if delta > NO_DELTA:
        found.append(cheapest("gaussian", MIN_COUNT_STDDEV / (np.sqrt(blocks) * rows_per_unit)))
    return min(found, key=lambda e: e.cell_stddev * (np.sqrt(2) if e.mechanism == "laplace" else 1))


def release_evaluation(
    request: EvaluationRequest, scorer: Scorer, ledger: Ledger, key: SigningKey
) -> EvaluationReceipt:
    """Release one noisy table of scores and classes, with its figures, as a signed file.

    Raises:
        SchemaError, DataError: The table does not fit; nothing was charged.
        BudgetError: The grant does not cover the release; nothing was charged.
        CopiedTableError: A copy of the table has another ledger; nothing was charged.
        ConfigError: The request's numbers, the schema and the ledger do not fit together; nothing was charged.
        BundleError: The file cannot be written, or an earlier run's was put in place (as for a fit).
        LedgerError, KeyFileError, StateError: As their names say; if the reservation was made, it stands.
    """
    _require_fits(request, ledger)
    blocks = len(scorer.blocks(FEWEST_BINS))
    # Solved before anything is reserved: a budget that fits no noise is refused at no cost.
    event = table_event(
        blocks,
        epsilon=request.epsilon,
        delta=request.delta,
        rows_per_unit=request.rows_per_unit,
        limit=_limit(request, ledger),
    )
    require_nothing_left(request.out, ledger)
    require_place(request.out, protected=(request.data, ledger.path), overwrite=request.overwrite)
    frame = read_table(request.data, request.schema)
    noise = NoiseSource(request.rehearsal)
    encoded, most = encode_frame(frame, request.schema), request.rows_per_unit
    known = None if noise.rehearsal else request.known_tables
    with remembered(known, encoded, request.schema, ledger, request.name):
        reservation = reserve_release(request, ledger, key, rehearsal=noise.rehearsal, rows_per_unit=most)
    codes = [part for pair in scorer.scored(frame) for part in pair]
    table = PrivateTable(EncodedTable(codes, encoded.units), request.schema, reservation, noise, rows_per_unit=most)
    del frame, encoded, codes
    noisy_size = table.noisy_size("size")
    bins = choose_bins(noisy_size / most, request.epsilon)
    plan = TablePlan(
        epsilon=request.epsilon,
        delta=request.delta,
        noisy_size=noisy_size,
        events=(size_event(request.epsilon, most), event),
        bins=bins,
    )
    reservation.plan(plan.events[1:])
    found = count_blocks(table, scorer.blocks(bins), event)
    return _write(request, ledger, reservation, key, plan, found, dict(table.reads))


def _require_fits(request: EvaluationRequest, ledger: Ledger) -> None:
    """Everything about the request that can be refused without a look at a row."""
    require_budget(request.epsilon, request.delta, laplace=True)
    check_rows_per_unit(request.schema, request.rows_per_unit)
    request.schema.require_classes("`evaluate --dp-epsilon`")
    request.schema.require_confirmed()
    require_unit(request.schema, ledger)


def _limit(request: EvaluationRequest, ledger: Ledger) -> RenyiLimit | None:
    """What the release may cost as Renyi DP, where the ledger adds releases up that way."""
    order = ledger.summary().order
    return None if order is None else RenyiLimit(order, gaussian_renyi(request.epsilon, request.delta, order))


def count_blocks(table: PrivateTable, blocks: Sequence[Block], event: Event) -> tuple[NoisyBlock, ...]:
    """The one read of the table, whose columns are those of `Scorer.scored`, block by block: holds, score."""
    cells = [ScoreBins(2 * i, 2 * i + 1, np.array(block.edges)) for i, block in enumerate(blocks)]
    law: Law = "laplace" if event.mechanism == "laplace" else "gaussian"
    if law == "laplace":
        counts = table.laplace_counts(event.name, cells)
    else:
        counts = table.noisy_counts(event.name, cells, [event.cell_stddev] * len(blocks))
    return tuple(
        NoisyBlock(block, noisy.reshape(2, -1), law, event.cell_stddev)
        for block, noisy in zip(blocks, counts, strict=True)
    )


def _write(
    request: EvaluationRequest,
    ledger: Ledger,
    reservation: Reservation,
    key: SigningKey,
    plan: TablePlan,
    blocks: tuple[NoisyBlock, ...],
    reads: dict[str, int],
) -> EvaluationReceipt:
    """Write the result beside its place, commit its digest, then move it into place."""
    document = evaluation_document(
        blocks,
        figures(blocks, threshold=request.threshold, costs=request.costs),
        institution=request.name,
        dataset=request.dataset,
        release=reservation.release,
        head=ledger.head(),
        rehearsal=reservation.rehearsal,
        model=request.model,
        schema_digest=request.schema.digest(),
        privacy={
            "epsilon": reservation.epsilon,
            "delta": reservation.delta,
            "epsilon_release": plan.joint_epsilon,
            "unit": ledger.unit,
            "events": [e.model_dump(mode="json") for e in plan.events],
        },
        noisy_size=plan.noisy_size,
        created=reservation.day,
        key=key,
    )
    placed = commit_and_place(
        request.out, lambda place: write_document(place, document), reservation, overwrite=request.overwrite
    )
    return EvaluationReceipt(
        document=document,
        path=request.out,
        digest=placed.digest,
        plan=plan,
        reads=reads,
        head=placed.head,
        linked=reservation.linked,
    )
