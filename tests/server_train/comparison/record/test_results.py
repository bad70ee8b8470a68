import pytest

from server_train.comparison.record.results import Comparison, reach_of
from server_train.comparison.record.summary import lines, reach_lines
from tests.fakes.comparisons import comparison, run

OURS = run("distilled", "distillation", [0.8], first=1)


def test_reach_is_the_first_round_at_or_above_the_goal():
    found = reach_of(run("federated", "FedAvg", [0.5, 0.7, 0.8, 0.9, 0.7]), OURS)
    assert (found.round, found.rounds) == (2, 4)
    assert found.client_bytes == 2 * 2000  # two clients, each 1000 bytes up and 1000 down a round
    assert found.ratio == pytest.approx(2.0)
    assert found.words == "round 2"


def test_a_goal_out_of_reach_says_in_how_many_rounds():
    found = reach_of(run("federated", "FedAvg", [0.5, 0.7, 0.79]), OURS)
    assert found.round is found.client_bytes is found.ratio is None
    assert found.words == "never in 2 rounds"


def test_the_best_model_is_the_first_of_the_best():
    assert run("federated", "FedAvg", [0.5, 0.9, 0.7, 0.9]).best.round == 1


def test_lines_are_means_with_spreads_over_repetitions():
    runs = [
        run("alone", "a alone", [0.6]),
        run("alone", "b alone", [0.7]),
        OURS,
        run("federated", "FedAvg", [0.5, 0.7]),
        run("federated", "FedAvg", [0.5, 0.9], seed=1),
    ]
    alone, ours, fedavg = lines(comparison(runs))
    assert (alone.name, alone.roc_auc.mean) == ("clients alone, mean", pytest.approx(0.65))
    assert (ours.roc_auc.mean, ours.roc_auc.spread, ours.epsilon) == (0.8, None, 2.0)
    assert fedavg.roc_auc.mean == pytest.approx(0.8)
    assert fedavg.roc_auc.spread == pytest.approx(0.2 / 2**0.5)
    assert fedavg.epsilon is None
    assert (fedavg.up, fedavg.down, fedavg.client_bytes) == (1000, 1000, 2000)


def test_reach_lines_count_the_repetitions_that_got_there():
    runs = [
        OURS,
        run("distilled", "distillation", [0.8], first=1, seed=1),
        run("federated", "FedAvg", [0.5, 0.9]),
        run("federated", "FedAvg", [0.5, 0.7], seed=1),
        run("federated", "FedProx", [0.5, 0.7]),
        run("federated", "FedProx", [0.5, 0.7], seed=1),
    ]
    fedavg, fedprox = reach_lines(comparison(runs))
    assert (fedavg.reached, fedavg.repetitions, fedavg.words) == (1, 2, "1 (1 of 2 repetitions)")
    assert fedprox.words == "never in 1 rounds"


def test_a_comparison_comes_back_from_json_as_it_was():
    found = comparison([OURS, run("federated", "FedAvg", [0.5, 0.9])])
    assert Comparison.model_validate_json(found.model_dump_json()) == found
