"""A figure of a model on private rows that may be published: one noisy table of scores and classes, charged to the ledger.

The order is that of every release (see `lifecycle`). All that is read is the row count and one histogram a block (see
`distill.exchange.noisy_scores`); every figure is computed from these noisy counts alone, and nothing else about the rows
leaves this module.

A row's score follows from the public model and that row alone, and its bin from public edges, so a row adds one to one
cell of each block: sensitivity `blocks` in L1 and sqrt(blocks) in L2 a row, times the most rows of a unit; neighbours add or
remove one unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd

from distill.common.keys import SigningKey, signing_key_of
from distill.data.encoded_table import EncodedTable, encode_frame
from distill.data.schema import Schema
from distill.data.tables import read_table
from distill.errors import ConfigError
from distill.exchange.evaluation_document import evaluation_document, write_document
from distill.exchange.noisy_scores import Block, Law, NoisyBlock, figures
from distill.ledger import Ledger
from distill.privacy.budget import NO_DELTA
from distill.privacy.calibration import ReleasePlan, size_event, solve_scale
from distill.privacy.cells import ScoreBins
from distill.privacy.events import Event, RenyiLimit, cost_of, gaussian_renyi
from distill.privacy.noise import MIN_COUNT_STDDEV
from distill.privacy.private_table import PrivateTable
from distill.releases.lifecycle import FileRequest, OpenRelease, open_release

SCORES = "evaluate.scores"
FEWEST_BINS, MOST_BINS = 8, 24


class Scorer(Protocol):
    """A public model, and where its scores are told apart. Nothing in it may follow from the private rows."""

    def blocks(self, bins: int) -> tuple[Block, ...]:
        """The histograms to count, about `bins` bins each; their number does not depend on `bins`."""

    def scored(self, frame: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each block whether it holds of each row, (rows,) of 0 and 1, and the row's score, (rows,); row by row."""


class PublicModel(Protocol):
    """A model that may be judged on private rows, as `server_train.load_model` gives one."""

    @property
    def schema(self) -> Schema:
        """The public schema of the rows that it scores."""

    @property
    def rehearsal(self) -> bool:
        """Whether it is made from a rehearsal, and so is NOT PRIVATE itself."""

    @property
    def identity(self) -> dict[str, str]:
        """What the figures are about, in public terms (digests)."""

    def private_scorer(self, threshold: float) -> Scorer:
        """Return the model as a private evaluation asks it; `threshold` is an edge of its bins."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(FileRequest):
    """What an evaluation is asked for beside what every release is; `delta` may be `NO_DELTA`, which Laplace noise needs not.

    Attributes:
        model: What is judged; `schema` is that of its rows.
        threshold: Of two classes: score from which on a row is taken for the last class.
        costs: Of two classes: of a false positive and of a false negative; None: not asked.
    """

    laplace_alone: ClassVar[bool] = True

    schema: Schema = field(init=False)
    model: PublicModel
    threshold: float = 0.5
    costs: tuple[float, float] | None = None
    purpose: str = "distill evaluate: noisy table of scores and classes"

    def __post_init__(self) -> None:
        """Take the schema of the model: no other one fits its scores."""
        object.__setattr__(self, "schema", self.model.schema)


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


def evaluate(request: EvaluationRequest, ledger: Ledger, key: SigningKey | Path | str) -> EvaluationReceipt:
    """Release one noisy table of scores and classes, with its figures, as a signed file.

    Args:
        request: What is asked.
        ledger: The data set's ledger; holds the grant.
        key: An operator's signing key, or its file; signs the result.

    Raises:
        SchemaError, DataError: The table does not fit; nothing was charged.
        BudgetError: The grant does not cover the release; nothing was charged.
        CopiedTableError: A copy of the table has another ledger; nothing was charged.
        ConfigError: The request's numbers, the schema and the ledger do not fit together, or the model is a rehearsal's
            and this release is none; nothing was charged.
        BundleError: The file cannot be written, or an earlier run's was put in place (as for a fit).
        LedgerError, KeyFileError, StateError: As their names say; if the reservation was made, it stands.
    """
    if request.model.rehearsal and request.rehearsal is None:
        raise ConfigError(
            "the model is made from a rehearsal, so neither it nor the bins that it brings may leave the house: "
            "train it on real bundles, or rehearse this release too (--rehearsal SEED)."
        )
    key = signing_key_of(key)
    request.schema.require_classes("`evaluate --dp-epsilon`")
    release = open_release(request, ledger, key)
    scorer = request.model.private_scorer(request.threshold)
    # Solved before anything is reserved: a budget that fits no noise is refused at no cost.
    event = table_event(
        len(scorer.blocks(FEWEST_BINS)),
        epsilon=request.epsilon,
        delta=request.delta,
        rows_per_unit=request.rows_per_unit,
        limit=_limit(request, ledger),
    )
    frame = read_table(request.data, request.schema)
    encoded = encode_frame(frame, request.schema)

    def scored() -> EncodedTable:
        return EncodedTable([part for pair in scorer.scored(frame) for part in pair], encoded.units)

    release.reserve(encoded, scored)
    noisy_size = release.count()
    plan = release.plan(lambda: _plan(request, noisy_size, event))
    blocks = count_blocks(release.table, scorer.blocks(plan.bins), event)
    return _publish(request, release, key, plan, blocks)


def _plan(request: EvaluationRequest, noisy_size: int, event: Event) -> TablePlan:
    """Decide the rest of the release: how finely the scores are cut."""
    return TablePlan(
        epsilon=request.epsilon,
        delta=request.delta,
        noisy_size=noisy_size,
        events=(size_event(request.epsilon, request.rows_per_unit), event),
        bins=choose_bins(noisy_size / request.rows_per_unit, request.epsilon),
    )


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


def _publish(
    request: EvaluationRequest, release: OpenRelease, key: SigningKey, plan: TablePlan, blocks: tuple[NoisyBlock, ...]
) -> EvaluationReceipt:
    """Write the result beside its place, commit its digest, then move it into place."""
    reservation, ledger = release.reservation, release.ledger
    document = evaluation_document(
        blocks,
        figures(blocks, threshold=request.threshold, costs=request.costs),
        institution=request.name,
        dataset=request.dataset,
        release=reservation.release,
        head=ledger.head(),
        rehearsal=reservation.rehearsal,
        model=request.model.identity,
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
    placed = release.publish(lambda place: write_document(place, document))
    return EvaluationReceipt(
        document=document,
        path=request.out,
        digest=placed.digest,
        plan=plan,
        reads=dict(release.table.reads),
        head=placed.head,
        linked=reservation.linked,
    )
