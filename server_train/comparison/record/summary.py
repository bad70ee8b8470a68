"""Runs of one name over all repetitions as one line: means, and spreads where there are several."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from server_train.comparison.record.results import Comparison, Kind, Reach, Run


@dataclass(frozen=True)
class Figure:
    """A mean over repetitions; `spread` is the standard deviation, None for a single one."""

    mean: float
    spread: float | None


@dataclass(frozen=True)
class Line:
    """One way to a model over all repetitions.

    Attributes:
        name, kind: Of the runs.
        runs: In the order of their seeds.
        epsilon, delta: Budget of each client's rows, the largest; None: no privacy.
        roc_auc, accuracy, log_loss: Of the last model.
        best_roc_auc, best_round: Of the best model on the way, chosen on the test rows, which flatters it.
        rounds: Until the last model.
        up, down: Bytes a client, mean over clients, until the last model.
        seconds: Simulated, until the last model.
    """

    name: str
    kind: Kind
    runs: tuple[Run, ...]
    epsilon: float | None
    delta: float | None
    roc_auc: Figure
    accuracy: Figure
    log_loss: Figure
    best_roc_auc: Figure
    best_round: float
    rounds: float
    up: float
    down: float
    seconds: float

    @property
    def client_bytes(self) -> float:
        """Bytes a client, both ways."""
        return self.up + self.down


@dataclass(frozen=True)
class ReachLine:
    """When a baseline first has the distilled model's AUC, over all repetitions.

    Attributes:
        baseline, distilled: Names.
        goal: Mean AUC to reach.
        reached, repetitions: In how many of them.
        rounds: That the baseline had.
        round, client_bytes, seconds, ratio, up_ratio: Means over the repetitions that reached it; None: none did.
    """

    baseline: str
    distilled: str
    goal: float
    reached: int
    repetitions: int
    rounds: int
    round: float | None
    client_bytes: float | None
    seconds: float | None
    ratio: float | None
    up_ratio: float | None

    @property
    def words(self) -> str:
        """The round, or that there was none."""
        if self.round is None:
            return f"never in {self.rounds} rounds"
        times = "" if self.reached == self.repetitions else f" ({self.reached} of {self.repetitions} repetitions)"
        return f"{self.round:g}{times}" if self.round == round(self.round) else f"{self.round:.1f}{times}"


def lines(comparison: Comparison) -> list[Line]:
    """One line a name, in the order of the runs; the clients' own models are one line together, called "alone"."""
    groups: dict[str, list[Run]] = {}
    for run in comparison.runs:
        groups.setdefault("clients alone, mean" if run.kind == "alone" else run.name, []).append(run)
    return [_line(name, runs) for name, runs in groups.items()]


def reach_lines(comparison: Comparison) -> list[ReachLine]:
    """One line a baseline and distilled run, in the order of the reaches."""
    groups: dict[tuple[str, str], list[Reach]] = {}
    for reach in comparison.reaches:
        groups.setdefault((reach.baseline, reach.distilled), []).append(reach)
    return [_reach_line(group) for group in groups.values()]


def _line(name: str, runs: Sequence[Run]) -> Line:
    budgets = [r.epsilon for r in runs if r.epsilon is not None]
    deltas = [r.delta for r in runs if r.delta is not None]
    clients = [max(1, len(r.traffic)) for r in runs]
    return Line(
        name=name,
        kind=runs[0].kind,
        runs=tuple(runs),
        epsilon=max(budgets, default=None),
        delta=max(deltas, default=None),
        roc_auc=_figure([r.final.roc_auc for r in runs]),
        accuracy=_figure([r.final.accuracy for r in runs]),
        log_loss=_figure([r.final.log_loss for r in runs]),
        best_roc_auc=_figure([r.best.roc_auc for r in runs]),
        best_round=fmean(r.best.round for r in runs),
        rounds=fmean(r.final.round for r in runs),
        up=fmean(r.final.up / n for r, n in zip(runs, clients, strict=True)),
        down=fmean(r.final.down / n for r, n in zip(runs, clients, strict=True)),
        seconds=fmean(r.final.seconds for r in runs),
    )


def _figure(values: Sequence[float]) -> Figure:
    return Figure(fmean(values), stdev(values) if len(values) > 1 else None)


def _reach_line(group: Sequence[Reach]) -> ReachLine:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return fmean(known) if known else None

    return ReachLine(
        baseline=group[0].baseline,
        distilled=group[0].distilled,
        goal=fmean(r.roc_auc for r in group),
        reached=sum(r.round is not None for r in group),
        repetitions=len(group),
        rounds=max(r.rounds for r in group),
        round=mean([r.round for r in group]),
        client_bytes=mean([r.client_bytes for r in group]),
        seconds=mean([r.seconds for r in group]),
        ratio=mean([r.ratio for r in group]),
        up_ratio=mean([r.up_ratio for r in group]),
    )
