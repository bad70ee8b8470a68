"""A federated baseline under the clients' budget: record-level DP-SGD at every client, accounted over all rounds.

The same (epsilon, delta) as for distillation, charged to the same ledgers by a release of its own. A client whose rows are
too few takes no part, and the run says so.
"""

import dataclasses
import time
from dataclasses import dataclass, field

from distill.errors import BudgetError
from distill.releases.training import PrivateSteps, PrivateTraining, TrainingRequest, begin_training
from server_train.comparison.deal.institutions import grant_another, institution
from server_train.comparison.record.results import PRIVATE, Run
from server_train.comparison.runs.baselines import Baseline, Conditions
from server_train.comparison.runs.federated import Progress, run_strategy
from server_train.comparison.runs.repetition import Repetition
from server_train.comparison.runs.scaling import Agreed, read_test
from server_train.federated.institution.private_client import (
    TUNED,
    PrivateClient,
    Tuned,
    agree,
    cell_features,
    require_private,
)
from server_train.federated.local.client import LocalSettings
from server_train.federated.local.mlp import Mlp

UNTUNED = Tuned(learning_rate=1.0, options={})  # for a strategy of one's own


@dataclass(frozen=True, kw_only=True)
class PrivateConditions:
    """What differs from `Conditions` where baselines run under a budget.

    Attributes:
        steps: What a client may do in all; its rounds are those of the run.
        learning_rate: Of the clients' steps; None: what each strategy works well with (`private_client.TUNED`).
    """

    steps: PrivateSteps = field(default_factory=PrivateSteps)
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        """Refuse, before any work, what a client refuses."""
        if self.learning_rate is not None:
            LocalSettings(learning_rate=self.learning_rate)


def private_conditions(rounds: int, learning_rate: float | None) -> PrivateConditions:
    """The best found: a few steps on all rows a round (see docs/how-to/federated.md). Raises ConfigError."""
    return PrivateConditions(steps=PrivateSteps(rounds=rounds), learning_rate=learning_rate)


def require_runs(baseline: Baseline) -> None:
    """Refuse a baseline that clients under a budget cannot serve. Raises ConfigError."""
    require_private(baseline.make())


def private_name(baseline: Baseline) -> str:
    """As tables and figures show the run."""
    return baseline.without_rate().label + PRIVATE


def private_run(
    repetition: Repetition,
    baseline: Baseline,
    model: Mlp,
    conditions: Conditions,
    private: PrivateConditions,
    *,
    progress: Progress,
) -> Run:
    """Run one baseline with every client under the budget of a repetition.

    Args:
        repetition: Rows, budget over all rounds, seed of the first weights and of the choice of participants, and places.
        baseline: The strategy.
        model: The network.
        conditions: How strategies run.
        private: What differs under a budget.
        progress: Called after each round.

    Raises:
        BudgetError: no client has enough rows.
        ConfigError: the strategy asks for what no budget pays for.
    """
    began = time.perf_counter()
    require_runs(baseline)
    dealt, budget, seed = repetition.dealt, repetition.budget, repetition.seed
    trainings, notes = _begin(repetition, baseline, private)
    told = agree(list(trainings.values()))
    features = cell_features(told.encoder)
    tuned = TUNED.get(baseline.name, UNTUNED)
    local = LocalSettings(learning_rate=private.learning_rate or tuned.learning_rate)
    tuned_baseline = dataclasses.replace(baseline, options={**tuned.options, **baseline.without_rate().options})
    clients = {
        name: PrivateClient(i, training, features, model, local) for i, (name, training) in enumerate(trainings.items())
    }
    test_x, test_y = read_test(dealt, told.encoder)
    agreed = Agreed(test_x=test_x, test_y=test_y, prior=told.prior, up=told.up, down=(told.down,) * len(told.up))
    places = [i for i, name in enumerate(dealt.clients) if name in trainings]  # who takes part keeps machine and line
    clock = dataclasses.replace(conditions.clock, tiers=tuple(conditions.clock.tier(i) for i in places))
    conditions = dataclasses.replace(conditions, rounds=private.steps.rounds, clock=clock)
    run = run_strategy(tuned_baseline, dealt, clients, agreed, model, conditions, seed=seed, progress=progress)
    for client in clients.values():
        client.finish()
    return run.model_copy(
        update={
            "name": private_name(baseline),
            "epsilon": max(t.plan.joint_epsilon for t in trainings.values()),
            "delta": budget.delta,
            "rehearsal": budget.rehearsal is not None,
            "notes": (*notes, *run.notes),
            "seconds": time.perf_counter() - began,
        }
    )


def _begin(
    repetition: Repetition, baseline: Baseline, private: PrivateConditions
) -> tuple[dict[str, PrivateTraining], list[str]]:
    """Every client's release, planned and charged; and who is left out, with the reason."""
    dealt, budget, seed = repetition.dealt, repetition.budget, repetition.seed
    trainings, notes = {}, []
    for number, (name, frame) in enumerate(dealt.clients.items()):
        ledger, key = grant_another(
            institution(dealt, name, repetition.out), budget, f"comparison: {private_name(baseline)}"
        )
        request = TrainingRequest(
            schema=dealt.schema,
            name=name,
            epsilon=budget.epsilon,
            delta=budget.delta,
            settings=private.steps,
            purpose=f"comparison: {private_name(baseline)}, repetition {seed}",
            rehearsal=budget.rehearsal_of(seed, number),
        )
        try:
            trainings[name] = begin_training(frame, request, ledger, key)
        except BudgetError as error:
            notes.append(f"{name} was left out: {error}")
    if not trainings:
        raise BudgetError("no client has enough rows to train under its budget; deal to fewer clients.")
    return trainings, notes
