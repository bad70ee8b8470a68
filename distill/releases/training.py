"""The institution's part in a federated run under a budget: DP-SGD over all rounds, planned and paid for as one release.

The order is that of every release (see `lifecycle`): everything that comes later (round counts, sampling rate, noise) is
planned before anything is answered. What is answered are noisy counts, from which all
institutions' numbers are scaled alike, and noisy sums of clipped gradients, at most as many as planned. Everything that an
institution sends is post-processing of these answers; `finish` commits their digest. Killed anywhere, the reservation
stands and counts as spent.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from distill.common import checks
from distill.common.keys import SigningKey
from distill.data.bins import ColumnBins
from distill.data.encoded_table import encode_frame
from distill.data.grids import ColumnGrid, base_grids
from distill.data.schema import Schema
from distill.errors import BudgetError, ConfigError, UnpaidReadError
from distill.ledger import Ledger, Reservation
from distill.privacy.budget import require_budget
from distill.privacy.calibration import (
    ReleasePlan,
    bin_events,
    check_rows_per_unit,
    gaussian_event,
    size_event,
    solve_scale,
    training_event,
)
from distill.privacy.cells import Cross
from distill.privacy.dpsgd import MOST_ROWS
from distill.privacy.events import Event, RenyiLimit, cost_of
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Network
from distill.releases.lifecycle import ReleaseRequest, open_release
from distill.synthesis.stages import encode

STEPS, CLASSES = "training.steps", "training.classes"
CLASSES_PART = 0.2  # of the share for scaling goes to the class counts
BINS = 64  # aimed at a number: as many as a curve has pieces
LEAST_ROWS = 20  # and at least two scales of the size's noise: below, the count says nothing
FINE_RANKS = (np.arange(1024) + 0.5) / 1024  # for means and spreads


@dataclass(frozen=True, kw_only=True)
class PrivateSteps:
    """What a client does in a run, fixed before it begins. Every field is public.

    The defaults are the best found at epsilon 2 for few rounds: the noise of a step on all rows costs least, and three
    steps a round save two thirds of the bytes of one step a round, at the same accuracy.

    Attributes:
        rounds: In which the client takes part at most.
        steps: Noisy steps a round.
        batch_size: Rows expected in a step's Poisson sample; 0: all rows, every time.
        clip_norm: L2 bound on one row's gradient.
        scaling: Share of the budget for noisy counts from which numbers are scaled; 0: from public bounds alone.
    """

    rounds: int = 20
    steps: int = 3
    batch_size: int = 0
    clip_norm: float = 1.0
    scaling: float = 0.03

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        checks.positive(rounds=self.rounds, steps=self.steps, clip_norm=self.clip_norm)
        if self.batch_size < 0:
            raise ConfigError(f"batch_size must be at least 0, not {self.batch_size}.")
        if not 0 <= self.scaling < 1:
            raise ConfigError(f"scaling must be in [0, 1), not {self.scaling:g}: the rest pays for the steps.")

    def rate(self, noisy_size: int) -> float:
        """Chance that a row joins a step."""
        return min(1.0, self.batch_size / noisy_size) if self.batch_size else 1.0


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(ReleasePlan):
    """One institution's part in a federated run, fully decided. Every field is public.

    Attributes:
        settings: That it follows from.
    """

    settings: PrivateSteps


@dataclass(frozen=True, kw_only=True)
class TrainingRequest(ReleaseRequest):
    """What a federated training is asked for beside what every release is; the budget is for all rounds together.

    Attributes:
        settings: What the client does.
    """

    purpose: str = "federated training"
    settings: PrivateSteps = PrivateSteps()


@dataclass(frozen=True, eq=False)
class NoisySketch:
    """How an institution's numbers and classes are spread, as far as its noisy counts tell.

    Attributes:
        quantiles: Of each number at the ranks asked for, shape (numbers, ranks).
        known: Rows in which each number is not missing, shape (numbers,).
        mean, spread: Of each number, shape (numbers,).
        classes: Rows of each class, at least 0, shape (classes,).
    """

    quantiles: np.ndarray
    known: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    classes: np.ndarray


def make_training_plan(
    schema: Schema,
    noisy_size: int,
    settings: PrivateSteps,
    *,
    epsilon: float,
    delta: float,
    rows_per_unit: int = 1,
    limit: RenyiLimit | None = None,
) -> TrainingPlan:
    """Decide every later access from public settings, the grant, the noisy row count and the ledger's limit, if it sets one.

    Raises:
        BudgetError: the noisy row count is lost in its own noise.
        ConfigError: the budget is too small to calibrate any noise for.
        SchemaError: the target has no classes.
    """
    require_budget(epsilon, delta)
    schema.require_classes("federated training")
    check_rows_per_unit(schema, rows_per_unit)
    size = size_event(epsilon, rows_per_unit)
    least = max(LEAST_ROWS * rows_per_unit, round(2 * size.cell_stddev))
    if noisy_size < least:
        raise BudgetError(
            f"the noisy row count is below {least}: too few to train under epsilon {epsilon:g}. "
            "Leave this client out, pool more rows into its table, or grant more."
        )

    if settings.rate(noisy_size) * noisy_size > MOST_ROWS:
        raise ConfigError(
            f"a step on all of about {noisy_size} rows is too large; give a batch_size of at most {MOST_ROWS}."
        )

    def events_at(scale: float) -> tuple[Event, ...]:
        later = _later_events(schema, noisy_size, settings, scale)
        return size, *(e.model_copy(update={"rows_per_unit": rows_per_unit}) for e in later)

    scale = solve_scale(lambda s: cost_of(events_at(s), delta, epsilon=epsilon, limit=limit), epsilon)
    return TrainingPlan(
        epsilon=epsilon, delta=delta, noisy_size=noisy_size, events=events_at(scale), bins=BINS, settings=settings
    )


def _later_events(schema: Schema, noisy_size: int, settings: PrivateSteps, scale: float) -> list[Event]:
    """Events of round 1 at a given noise scale."""
    events = []
    if settings.scaling:
        grids = base_grids(schema)
        numbers = [grids[i] for i in _numbers(schema)]
        events += bin_events(numbers, (1 - CLASSES_PART) * settings.scaling, scale)
        events.append(gaussian_event(CLASSES, CLASSES_PART * settings.scaling, scale, 1, "rows of each class"))
    steps = training_event(
        STEPS,
        1 - settings.scaling,
        scale,
        settings.rounds * settings.steps,
        f"DP-SGD steps of federated training, {settings.rounds} rounds of {settings.steps}",
        rate=settings.rate(noisy_size),
    )
    return [*events, steps]


def begin_training(frame: pd.DataFrame, request: TrainingRequest, ledger: Ledger, key: SigningKey) -> "PrivateTraining":
    """Reserve the whole run, count the rows, record the plan.

    Args:
        frame: The institution's rows, as `tables.read_table` gives them; with the unit column if the schema names one.
        request: What is asked.
        ledger: The data set's ledger; holds the grant.
        key: An operator's signing key.

    Raises:
        SchemaError: The schema is not confirmed, or its target has no classes; nothing was charged.
        BudgetError: The grant does not cover the release (nothing was charged), or there are too few rows (only the
            count was charged).
        CopiedTableError: A copy of the table has another ledger; nothing was charged.
        ConfigError: The request's numbers do not fit schema and ledger (nothing was charged), or the budget is too small to
            calibrate any noise for (only the count was charged).
        LedgerError, KeyFileError, StateError: As their names say; if the reservation was made, it stands.
    """
    request.schema.require_classes("federated training")
    release = open_release(request, ledger, key)
    release.reserve(encode_frame(frame, request.schema))
    noisy_size = release.count()
    plan = release.plan(
        lambda: make_training_plan(
            request.schema,
            noisy_size,
            request.settings,
            epsilon=request.epsilon,
            delta=request.delta,
            rows_per_unit=request.rows_per_unit,
            limit=release.reservation.limit,
        )
    )
    return PrivateTraining(release.table, plan, release.reservation)


class PrivateTraining:
    """A planned release under way. It hands out noisy answers only; `begin_training` makes it.

    Attributes:
        plan: What may be asked.
        reservation: That pays.
    """

    def __init__(self, table: PrivateTable, plan: TrainingPlan, reservation: Reservation) -> None:
        """`reservation` must hold the events of `plan`, and `table` must be paid by it."""
        self.plan, self.reservation = plan, reservation
        self._table = table
        self._answers = hashlib.sha256(str(plan.noisy_size).encode())
        self._bins: list[ColumnBins] = []
        self._classes = np.zeros(0)
        self._finished = False

    @property
    def rows(self) -> int:
        """The released row count; the only one there is outside."""
        return self.plan.noisy_size

    @property
    def schema(self) -> Schema:
        """Of the rows."""
        return self._table.schema

    @property
    def rehearsal(self) -> bool:
        """Whether the noise is repeatable, and the run NOT PRIVATE."""
        return self.reservation.rehearsal

    @property
    def reads(self) -> Mapping[str, int]:
        """Reads of the rows so far, by event."""
        return dict(self._table.reads)

    @property
    def steps_left(self) -> int:
        """Steps that are planned and not taken yet; 0 once the release is finished."""
        taken = self._table.reads.get(STEPS, 0)
        return 0 if self._finished else self.plan.event(STEPS).count - taken

    def sketch(self, ranks: np.ndarray) -> NoisySketch:
        """What is told of numbers and classes before training; read once, whatever `ranks` (in [0, 1]) it is asked at.

        Raises:
            UnpaidReadError: the release is finished.
        """
        if not self._bins:
            self._count()
        numbers = [self._bins[i] for i in _numbers(self.schema)]
        fine = np.array([b.quantiles(FINE_RANKS) for b in numbers]).reshape(len(numbers), len(FINE_RANKS))
        return NoisySketch(
            quantiles=np.array([b.quantiles(ranks) for b in numbers]).reshape(len(numbers), len(ranks)),
            known=np.array([self.rows * _known_share(b) for b in numbers]),
            mean=fine.mean(axis=1),
            spread=fine.std(axis=1),
            classes=self._classes,
        )

    def featurise(self, features: Mapping[int, np.ndarray]) -> None:
        """Let gradients see features: column position -> what each of its cells becomes, (cells, width), in their order."""
        self._table.featurise(features, target=_target(self.schema))

    def gradient(self, layers: Sequence[np.ndarray]) -> np.ndarray:
        """One step's estimate of the mean gradient of a perceptron's cross-entropy over all rows.

        Args:
            layers: Matrices (in, out) and biases (out,) in turn; hidden layers are rectified, one output a class.

        Returns:
            Flat float64, in the order of `layers`: the noisy sum, divided by what the released row count makes one expect,
            which is sampling rate times noisy rows.

        Raises:
            UnpaidReadError: all planned steps are taken, or the release is finished; no row was looked at.
        """
        self._require_open()
        event, clip_norm = self.plan.event(STEPS), self.plan.settings.clip_norm
        turned = tuple((weight.T, bias) for weight, bias in zip(layers[::2], layers[1::2], strict=True))
        (noisy,) = self._table.noisy_gradient(STEPS, [Network(turned, loss="classes", clip=clip_norm)])
        self._answers.update(noisy.tobytes())
        return _turned_back(noisy, layers) / (event.sampling_rate * self.rows)

    def finish(self) -> str:
        """Commit the release to the ledger and answer no more; the digest (SHA-256, hex) of all answers given.

        Steps not taken stay charged: they were reserved. Raises LedgerError.
        """
        digest = self._answers.hexdigest()
        if not self._finished:
            self._finished = True
            self.reservation.commit(digest)
        return digest

    def _count(self) -> None:
        """Release the counts for scaling, or fill in for them from public bounds."""
        self._require_open()
        schema, table = self.schema, self._table
        classes = len(schema.classes)
        if not self.plan.settings.scaling:
            self._bins = [_spread_evenly(g) for g in table.grids]
            self._classes = np.full(classes, self.rows / classes)
            return
        self._bins = encode.find_bins(table, self.plan, _numbers(schema))
        stddev = self.plan.event(CLASSES).cell_stddev
        (counts,) = table.noisy_counts(CLASSES, [Cross((_target(schema),), (classes,))], [stddev])
        self._classes = np.maximum(counts, 0).astype(np.float64)
        for bins in self._bins:
            self._answers.update(bins.starts.tobytes() + bins.masses.tobytes())
        self._answers.update(counts.tobytes())

    def _require_open(self) -> None:
        if self._finished:
            raise UnpaidReadError("this release is finished: nothing more is answered from it.")


def _numbers(schema: Schema) -> list[int]:
    """Positions of the numeric features."""
    return [i for i, c in enumerate(schema.columns) if c.kind != "categorical" and c.name != schema.target]


def _target(schema: Schema) -> int:
    """Position of the target."""
    return [c.name for c in schema.columns].index(schema.require_classes("federated training"))


def _turned_back(flat: np.ndarray, layers: Sequence[np.ndarray]) -> np.ndarray:
    """A flat gradient whose weights are (out, in) as one whose weights are (in, out), like `layers`."""
    parts = np.split(flat, np.cumsum([part.size for part in layers])[:-1])
    turned = [p.reshape(layer.T.shape).T if layer.ndim == 2 else p for p, layer in zip(parts, layers, strict=True)]
    return np.concatenate([part.ravel() for part in turned])


def _known_share(bins: ColumnBins) -> float:
    """Share of the rows in which a number is not missing."""
    missing = bins.masses[bins.starts >= bins.grid.leaves].sum()
    return float(1 - missing / bins.masses.sum()) if bins.masses.sum() > 0 else 1.0


def _spread_evenly(grid: ColumnGrid) -> ColumnBins:
    """Bins as if rows were spread evenly over a column's leaves, on the grid's own scale; none missing."""
    starts = np.unique(np.linspace(0, grid.leaves, BINS, endpoint=False).round().astype(np.int64))
    masses = np.diff(np.append(starts, grid.leaves)).astype(np.float64)
    if grid.column.nullable:
        starts, masses = np.append(starts, grid.leaves), np.append(masses, 0.0)
    return ColumnBins(grid, starts, masses, np.arange(len(starts)))
