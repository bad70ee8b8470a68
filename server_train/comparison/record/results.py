"""What a comparison finds, as plain values that go to JSON and come back checked.

Byte counts are payload bytes, `up` from clients to the server and `down` back, set-up included, totals since the start,
until the server holds the model. Handing the finished model to the clients costs every run the same and is counted for none.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PRIVATE = ", private"  # ends the name of a baseline that runs under a budget
Kind = Literal["distilled", "federated", "central", "alone"]


class Record(BaseModel):
    """Frozen, with no unknown fields: what does not fit is not taken for a finished part."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Point(Record):
    """One model on the way, judged on the test rows.

    Attributes:
        round: Aggregations so far.
        seconds: Simulated time.
        up, down: Bytes of all clients together.
        participants, lost: Clients whose replies were used in this round, and that were asked in vain.
        roc_auc, accuracy, log_loss: On the test rows; the AUC of more than two classes is the macro mean.
    """

    round: int
    seconds: float
    up: int
    down: int
    participants: int = 0
    lost: int = 0
    roc_auc: float
    accuracy: float
    log_loss: float


class Traffic(Record):
    """One client's bytes over a whole run."""

    client: str
    rows: int
    up: int
    down: int


class Run(Record):
    """One way to a model, in one repetition.

    Attributes:
        kind: What it is.
        name: As tables and figures show it; the same in every repetition.
        seed: Of the repetition.
        epsilon, delta: Budget of each client's rows; None: no privacy.
        rehearsal: The noise was repeatable, so the run was NOT PRIVATE.
        points: Models on the way, in order; a run without rounds has one.
        traffic: Of every client that took part; empty where nothing travels.
        seconds: Wall time that the run took here; of a distilled run, its hub.
        settings: Its own settings, as words.
        notes: What a reader must know.
    """

    kind: Kind
    name: str
    seed: int
    epsilon: float | None = None
    delta: float | None = None
    rehearsal: bool = False
    points: tuple[Point, ...] = Field(min_length=1)
    traffic: tuple[Traffic, ...] = ()
    seconds: float
    settings: dict[str, Any] = {}
    notes: tuple[str, ...] = ()

    @property
    def final(self) -> Point:
        """The last model."""
        return self.points[-1]

    @property
    def best(self) -> Point:
        """The first of the models with the highest AUC on the test rows."""
        return max(self.points, key=lambda p: p.roc_auc)

    def client_bytes(self, point: Point) -> float:
        """Bytes a client, both ways, until `point`; the mean over the clients that took part."""
        return (point.up + point.down) / max(1, len(self.traffic))


class Reach(Record):
    """Where a baseline first has at least the distilled model's AUC on the test rows.

    Attributes:
        baseline, distilled: Names of the two runs.
        seed: Of both.
        roc_auc: That must be reached.
        rounds: Rounds that the baseline had.
        round, client_bytes, seconds: When it was reached; None: never.
        ratio: Bytes a client of the baseline there over those of distillation.
        up_ratio: The same of the bytes from clients to server alone.
    """

    baseline: str
    distilled: str
    seed: int
    roc_auc: float
    rounds: int
    round: int | None = None
    client_bytes: float | None = None
    seconds: float | None = None
    ratio: float | None = None
    up_ratio: float | None = None

    @property
    def words(self) -> str:
        """The round, or that there was none."""
        return f"round {self.round}" if self.round is not None else f"never in {self.rounds} rounds"


class ClientRows(Record):
    """What a report tells of one client's rows: their number and the share of each class."""

    client: str
    rows: int
    shares: tuple[float, ...]


class Deal(Record):
    """How the rows lay in one repetition."""

    seed: int
    words: str
    digest: str
    test_rows: int
    clients: tuple[ClientRows, ...]


class Comparison(Record):
    """Everything that a comparison writes down.

    Attributes:
        created: UTC time.
        versions: Of this software and the libraries that matter.
        table, target: Name of the schema and what is predicted.
        classes: In order.
        architecture: Widths of inputs, hidden layers and outputs, the same in every run.
        parameters: Number of weights.
        settings: What was asked for.
        deals: One a repetition.
        runs: All of them.
        reaches: One a baseline, distilled run and repetition.
        notes: What a reader must know, once.
    """

    format: Literal["distill-comparison"] = "distill-comparison"
    format_version: int = 1
    created: str
    versions: dict[str, str]
    table: str
    target: str
    classes: tuple[str, ...]
    architecture: tuple[int, ...]
    parameters: int
    settings: dict[str, Any]
    deals: tuple[Deal, ...]
    runs: tuple[Run, ...]
    reaches: tuple[Reach, ...]
    notes: tuple[str, ...]


def reach_of(baseline: Run, distilled: Run) -> Reach:
    """When `baseline` first had the AUC of `distilled`."""
    goal = distilled.final.roc_auc
    out = Reach(
        baseline=baseline.name,
        distilled=distilled.name,
        seed=baseline.seed,
        roc_auc=goal,
        rounds=baseline.final.round,
    )
    for point in baseline.points:
        if point.roc_auc >= goal:
            count = baseline.client_bytes(point)
            spent, sent = distilled.client_bytes(distilled.final), distilled.final.up / len(distilled.traffic)
            ratios = {"ratio": count / spent, "up_ratio": point.up / len(baseline.traffic) / sent}
            found = {"round": point.round, "client_bytes": count, "seconds": point.seconds}
            return out.model_copy(update={**found, **ratios})
    return out
