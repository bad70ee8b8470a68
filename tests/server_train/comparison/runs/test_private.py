"""Baselines under the clients' budget: charged to the ledgers, counted with their set-up, refused where nothing pays."""

import pytest

from distill.errors import BudgetError, ConfigError
from server_train.comparison.compare import Request, private_baselines
from server_train.comparison.deal.institutions import Budget, institution
from server_train.comparison.deal.tables import deal, read_tables
from server_train.comparison.record.cache import Parts
from server_train.comparison.runs.baselines import Baseline, Conditions
from server_train.comparison.runs.private import PrivateConditions, private_conditions, private_run
from server_train.comparison.runs.repetition import Repetition
from server_train.federated.engine.clock import HIGH, LOW, Clock
from server_train.federated.local.mlp import Mlp
from tests.fakes.comparisons import folder_source

BUDGET = Budget(epsilon=2.0, delta=1e-5, rehearsal=5)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return deal(read_tables(folder_source(tmp_path_factory.mktemp("rows"), {"a": 700, "b": 700, "tiny": 10})), 0)


def go(rows, out, name="fedavg", *, budget=BUDGET, clock=None):
    return private_run(
        repetition(rows, out, budget),
        Baseline(name=name),
        Mlp([44, 8, 2]),
        Conditions(clock=clock or Clock()),
        private_conditions(4, 1.0),
        progress=lambda *_: None,
    )


def repetition(rows, out, budget=BUDGET):
    return Repetition(seed=0, dealt=rows, budget=budget, out=out, parts=Parts(out / "runs"))


def test_a_private_run_costs_each_client_the_budget_and_its_ledger_tells(rows, tmp_path):
    run = go(rows, tmp_path, budget=Budget(epsilon=2.0, delta=1e-5))
    assert run.name == "FedAvg, private"
    assert run.epsilon == pytest.approx(2.0, rel=0.02)
    assert (run.delta, run.rehearsal) == (1e-5, False)
    assert [p.round for p in run.points] == [0, 1, 2, 3, 4]
    left_out = any(note.startswith("tiny was left out") for note in run.notes)  # by a noisy count: nearly always
    assert [t.client for t in run.traffic] == ["a", "b"] + ["tiny"] * (not left_out)
    assert run.final.up == sum(t.up for t in run.traffic)
    assert run.points[0].up > 0  # noisy sketches are counted
    project = institution(rows, "a", tmp_path)
    (release,) = project.ledger().summary().releases
    assert release.status == "committed"
    assert release.epsilon == pytest.approx(2.0)


def test_a_rehearsal_repeats_and_says_so(rows, tmp_path):
    first, again = go(rows, tmp_path / "a"), go(rows, tmp_path / "b")
    assert first.rehearsal
    assert first.points == again.points


def test_clients_keep_their_machines_where_others_are_left_out(rows, tmp_path):
    quick = go(rows, tmp_path, clock=Clock(tiers=(HIGH, HIGH, LOW)))
    slow = go(rows, tmp_path, clock=Clock(tiers=(HIGH, LOW, HIGH)))
    assert slow.final.seconds > 2 * quick.final.seconds


def test_what_no_budget_pays_for_is_refused_and_told(rows, tmp_path):
    with pytest.raises(ConfigError, match="gradients only"):
        go(rows, tmp_path, "qfedavg")
    request = Request(
        source=folder_source(tmp_path, {"a": 100}),
        out=tmp_path / "out",
        budget=BUDGET,
        baselines=tuple(Baseline(name=n) for n in ("fedavg", "moon")),
        private=PrivateConditions(),
    )
    able, notes = private_baselines(request)
    assert [b.name for b in able] == ["fedavg"]
    assert [n.split(":")[0] for n in notes] == ["MOON has no private run"]


def test_clients_too_small_to_train_are_refused_together(tmp_path):
    rows = deal(read_tables(folder_source(tmp_path, {"a": 40, "b": 40}, test_share=0.5)), 0)
    with pytest.raises(BudgetError, match="no client has enough rows"):
        go(rows, tmp_path)


def test_a_learning_rate_for_plain_clients_is_not_used_under_a_budget(rows, tmp_path):
    plain = go(rows, tmp_path / "a")
    rated = private_run(
        repetition(rows, tmp_path / "b"),
        Baseline(name="fedavg", options={"learning_rate": "77"}),
        Mlp([44, 8, 2]),
        Conditions(),
        private_conditions(4, 1.0),
        progress=lambda *_: None,
    )
    assert (rated.name, rated.points) == (plain.name, plain.points)
