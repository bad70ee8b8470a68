"""A federated baseline as one run of a comparison: the strategy on the clients' rows, judged on the test rows every round."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from distill.errors import DataError
from server_train.comparison.deal.tables import Dealt
from server_train.comparison.record.results import Point, Run, Traffic
from server_train.comparison.runs.baselines import Baseline, Conditions
from server_train.comparison.runs.scaling import Agreed, Prepared
from server_train.evaluation.metrics import evaluate_scores
from server_train.federated.engine import run
from server_train.federated.engine.clock import Clock
from server_train.federated.engine.transport import InProcess
from server_train.federated.local.client import Client
from server_train.federated.local.mlp import Mlp, Vector

Progress = Callable[[int, int], None]  # rounds done, rounds in all


def federated_run(
    baseline: Baseline,
    dealt: Dealt,
    prepared: Prepared,
    model: Mlp,
    conditions: Conditions,
    *,
    seed: int,
    progress: Progress,
) -> Run:
    """Run one baseline without privacy.

    Args:
        baseline: Which.
        dealt, prepared: The rows, and the rows as the network reads them.
        model: The network.
        conditions: How.
        seed: Of the first weights, the order of rows and the choice of participants.
        progress: Called after each round.
    """
    clients = {
        name: Client(
            number=i,
            x=prepared.x[i],
            y=prepared.y[i],
            model=model,
            settings=baseline.local(conditions.local),
            rng=np.random.default_rng([seed, 3, i]),
        )
        for i, name in enumerate(dealt.clients)
    }
    return run_strategy(baseline, dealt, clients, prepared, model, conditions, seed=seed, progress=progress)


def run_strategy(
    baseline: Baseline,
    dealt: Dealt,
    clients: Mapping[str, Client],
    agreed: Agreed,
    model: Mlp,
    conditions: Conditions,
    *,
    seed: int,
    progress: Progress,
) -> Run:
    """All rounds of one baseline with these clients, or those before it gave up; every round judged on the test rows.

    Args:
        baseline: Which.
        dealt: All rows; of the clients only those in `clients` take part.
        clients: By name.
        agreed: Test rows as the network reads them, and what the set-up cost each client, in the order of `clients`.
        model: The network.
        conditions: How.
        seed: Of the first weights and the choice of participants.
        progress: Called after each round.
    """
    began = time.perf_counter()
    strategy = baseline.make()
    weights = model.initial(np.random.default_rng([seed, 2]), agreed.prior)
    judge = _judge(model, dealt, agreed)
    record = [run.Round(number=0, seconds=0.0, down=0, up=0, participants=(), metrics=judge(weights))]

    def note(one: run.Round) -> None:
        record.append(one)
        progress(one.number, conditions.rounds)

    transport = InProcess(list(clients.values()), strategy, conditions.compression)
    settings, clock = conditions.run_settings(seed), conditions.clock
    notes = []
    try:
        run.run(strategy, transport, weights, settings, judge, clock=clock, on_round=note)
    except DataError as error:
        notes.append(f"gave up after round {record[-1].number}: {error}")
    reasons = [reason for one in record for reason in one.lost.values()]
    if reasons:
        notes.append(f"{len(reasons)} exchanges were lost, the first one because: {reasons[0]}")
    return Run(
        kind="federated",
        name=baseline.label,
        seed=seed,
        points=tuple(_point(one, agreed, clock) for one in record),
        traffic=_traffic(record[-1], dealt, list(clients), agreed),
        seconds=time.perf_counter() - began,
        settings={"strategy": baseline.name, "options": dict(baseline.options)},
        notes=tuple(notes),
    )


def _judge(model: Mlp, dealt: Dealt, agreed: Agreed) -> Callable[[Vector], dict[str, float]]:
    """The figures of weights on the test rows."""

    def judge(weights: Vector) -> dict[str, float]:
        scores = model.probabilities(weights, agreed.test_x)
        judged = evaluate_scores(agreed.test_y, scores, dealt.schema.classes)
        return {"roc_auc": judged.roc_auc or 0.0, "accuracy": judged.accuracy, "log_loss": judged.log_loss}

    return judge


def _traffic(last: run.Round, dealt: Dealt, names: list[str], agreed: Agreed) -> tuple[Traffic, ...]:
    """Every client's bytes over the run, set-up included."""
    none = (0,) * len(names)  # nothing was sent before the first round
    up, down = last.client_up or none, last.client_down or none
    return tuple(
        Traffic(client=name, rows=len(dealt.clients[name]), up=up[i] + agreed.up[i], down=down[i] + agreed.down[i])
        for i, name in enumerate(names)
    )


def _point(record: run.Round, agreed: Agreed, clock: Clock) -> Point:
    """A round with the set-up added: its bytes, and the time of the slowest client's two messages."""
    waits = [
        clock.upload_seconds(i, up) + clock.download_seconds(i, down)
        for i, (up, down) in enumerate(zip(agreed.up, agreed.down, strict=True))
    ]
    return Point(
        round=record.number,
        seconds=record.seconds + max(waits),
        up=record.up + sum(agreed.up),
        down=record.down + sum(agreed.down),
        participants=len(record.participants),
        lost=len(record.lost),
        **record.metrics,
    )
