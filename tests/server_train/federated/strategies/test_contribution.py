"""Contribution-weighted averaging on the case worked by hand in `federated_fakes`, and replies that are odd or hostile."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import ConfigError, DataError
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.base import row_shares
from server_train.federated.strategies.contribution import (
    DIMENSIONS,
    ContributionWeighted,
    class_diversity,
    contribution_scores,
    contribution_shares,
)
from server_train.federated.strategies.fedavg import FedAvg
from tests.fakes.federations import A_BEST, A_ROWS, B_BEST, answer, blobs, client, play, two_clients

ORIGIN = np.zeros(2)
ALONE = {**dict.fromkeys(DIMENSIONS, 0.0), "history_pull": 0.0, "least_share": 0.0}


def only(**options):
    """The strategy with nothing but these options above zero."""
    return ContributionWeighted(**{**ALONE, **options})


def reply(update, *, rows=10.0, loss_reduction=0.5, diversity=0.5):
    numbers = {"rows": rows, "loss_reduction": loss_reduction, "diversity": diversity}
    return Message({"update": np.array(update, dtype=float)}, numbers)


def shares_of(replies, **mixed):
    numbered = dict(enumerate(replies))
    amounts = {**dict.fromkeys(DIMENSIONS, 0.0), **mixed}
    return contribution_shares(row_shares(numbered), contribution_scores(numbered), amounts)


def test_rows_and_loss_reduction_reproduce_two_rounds_worked_by_hand():
    # A step halves A's distance to its best weights, so 3/4 of its loss goes; B keeps (7/8)^2, so 15/64 of its goes;
    # the same in every round. Rows times score: A 1/4 * 3/4 = 48/256, B 3/4 * 15/64 = 45/256; so 16/31 and 15/31.
    # Half rows, half loss reduction: A (1/4 + 16/31) / 2 = 95/248, B 153/248.
    # Round 1 from (0, 0): 95/248 * (0.5, -1) + 153/248 * (0.375, 0.125) = (104.875, -75.875) / 248.
    # Round 2: w + 95/248 * ((1, -2) - w) / 2 + 153/248 * ((3, 1) - w) / 8.
    first = np.array([104.875, -75.875]) / 248
    path = play(only(rows=1.0, loss_reduction=1.0), two_clients(), ORIGIN, 2)
    assert path[0] == pytest.approx(first, abs=1e-6)
    second = first + 95 / 248 * (A_BEST - first) / 2 + 153 / 248 * (B_BEST - first) / 8
    assert path[1] == pytest.approx(second, abs=1e-6)


def test_direction_and_size_are_weighed_as_worked_by_hand():
    # Updates A (0.5, -1), B (0.375, 0.125); mean by rows (0.40625, -0.15625).
    # Dot products 0.203125 + 0.15625 = 0.359375 and 0.15234375 - 0.01953125 = 0.1328125.
    mean = sqrt(0.40625**2 + 0.15625**2)
    a_norm, b_norm = sqrt(1.25), sqrt(0.15625)
    a_cosine, b_cosine = 0.359375 / a_norm / mean, 0.1328125 / b_norm / mean
    median = (a_norm + b_norm) / 2
    a_size, b_size = median / a_norm, b_norm / median
    strategy = only(consistency=1.0, magnitude=1.0)
    path = play(strategy, two_clients(), ORIGIN, 1)
    assert strategy.scores[0] == pytest.approx(
        {"loss_reduction": 0.75, "diversity": 0.5, "consistency": a_cosine, "magnitude": a_size}
    )
    a = (a_cosine / (a_cosine + 3 * b_cosine) + a_size / (a_size + 3 * b_size)) / 2
    assert path[0] == pytest.approx([a * 0.5 + (1 - a) * 0.375, -a + (1 - a) * 0.125], abs=1e-6)


def test_the_pull_towards_past_global_models_reproduces_two_rounds_worked_by_hand():
    # Client A alone, pull 1, memory 1/2, two steps; a step against g takes away g / 4.
    # Round 1: the past is (0, 0). (0.5, -1); there (-1, 2) + (0.5, -1) = (-0.5, 1): (0.625, -1.25).
    # Round 2: the past is 1/2 * (0, 0) + 1/2 * (0.625, -1.25) = (0.3125, -0.625).
    #   2 * ((0.625, -1.25) - (1, -2)) + (0.3125, -0.625) = (-0.4375, 0.875): (0.734375, -1.46875);
    #   2 * (-0.265625, 0.53125) + (0.421875, -0.84375) = (-0.109375, 0.21875): (0.76171875, -1.5234375).
    strategy = only(rows=1.0, history_pull=1.0, history_memory=0.5)
    path = play(strategy, [client(A_ROWS, steps=2)], ORIGIN, 2)
    assert path[0] == pytest.approx([0.625, -1.25], abs=1e-6)
    assert path[1] == pytest.approx([0.76171875, -1.5234375], abs=1e-6)


def network_clients():
    model = Mlp([10, 8, 2])
    settings = LocalSettings(learning_rate=0.2, batch_size=16)
    tables = [blobs(60, 1), blobs(90, 2, positives=0.05)]
    return [Client(i, x, y, model, settings, np.random.default_rng(i)) for i, (x, y) in enumerate(tables)]


def network_path(strategy):
    clients = network_clients()
    return np.array(play(strategy, clients, clients[0].model.initial(np.random.default_rng(0)), 3))


def test_with_rows_alone_it_is_fedavg_bit_for_bit():
    assert np.array_equal(network_path(only(rows=3.0)), network_path(FedAvg()))


@pytest.mark.parametrize("extra", [{"consistency": 5.0}, {"history_pull": 0.5}, {"least_share": 0.3}])
def test_every_part_makes_a_difference(extra):
    assert np.abs(network_path(only(rows=1.0, **extra)) - network_path(FedAvg())).max() > 1e-4


def test_generated_rows_are_drawn_once_and_neither_counted_nor_weighed():
    strategy, one = only(rows=1.0, least_share=0.3), network_clients()[1]
    strategy.start(one.model.initial(np.random.default_rng(0)), 1)
    first = answer(strategy, one, 0)
    drawn = one.memory["generated"]
    assert len(drawn[1]) > one.rows == 90 == first.numbers["rows"]
    assert first.numbers["diversity"] == class_diversity(one.y)
    assert one.work == len(drawn[1]) + 2 * 30
    answer(strategy, one, 0)
    assert one.memory["generated"] is drawn


def test_a_reversed_update_gets_less_weight_than_an_honest_one():
    honest = [[1.0, 0.2], [0.9, 0.3], [1.1, 0.1]]
    shares = shares_of([reply(u) for u in [*honest, [-1.0, -0.2]]], rows=1.0, consistency=1.0)
    assert shares[3] == pytest.approx(1 / 8)  # half of its rows' share: no direction to agree with
    assert shares[:3].min() > 1 / 4


def test_more_loss_removed_and_more_classes_get_more_weight():
    better, worse = reply([1.0, 0.0], loss_reduction=0.6), reply([1.0, 0.0], loss_reduction=0.2)
    assert shares_of([better, worse], loss_reduction=1.0) == pytest.approx([0.75, 0.25])
    diverse, one_class = reply([1.0, 0.0], diversity=0.5), reply([1.0, 0.0], diversity=0.0)
    assert shares_of([diverse, one_class], diversity=1.0) == pytest.approx([1.0, 0.0])


def test_neither_an_idle_nor_an_inflated_update_gains_by_its_size():
    usual = [reply([1.0, 0.0]), reply([1.0, 0.1]), reply([0.9, 0.0])]
    shares = shares_of([*usual, reply([0.0, 0.0]), reply([1000.0, 0.0])], magnitude=1.0)
    assert shares[3] == 0
    assert shares[4] < 0.01 * shares[0]


def test_equal_or_silent_dimensions_fall_back_on_the_rows():
    equal = [reply([1.0, 0.0], rows=30.0), reply([1.0, 0.0], rows=10.0)]
    assert shares_of(equal, **dict.fromkeys(DIMENSIONS, 1.0)) == pytest.approx([0.75, 0.25])
    silent = [reply([0.0, 0.0], rows=rows, loss_reduction=-1.0, diversity=0.0) for rows in (30.0, 10.0)]
    assert shares_of(silent, **dict.fromkeys(DIMENSIONS, 1.0)) == pytest.approx([0.75, 0.25])
    assert shares_of([reply([0.0, 0.0])], **dict.fromkeys(DIMENSIONS, 1.0)) == pytest.approx([1.0])


stated = st.floats(-1e300, 1e300)
odd_reply = st.builds(
    reply,
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30]), min_size=3, max_size=3),
    rows=st.floats(1e-3, 1e6),
    loss_reduction=stated,
    diversity=stated,
)


@given(st.lists(odd_reply, min_size=1, max_size=5), st.lists(st.floats(0.01, 10), min_size=5, max_size=5))
def test_weights_are_a_distribution_whatever_the_replies_state(replies, amounts):
    shares = shares_of(replies, **dict(zip(DIMENSIONS, amounts, strict=True)))
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1)


def test_a_boast_gains_no_more_than_the_best_possible_score():
    honest, boast = reply([1.0, 0.0], loss_reduction=1.0), reply([1.0, 0.0], loss_reduction=1e300)
    assert shares_of([honest, boast], loss_reduction=1.0) == pytest.approx([0.5, 0.5])


def test_a_client_without_loss_states_no_reduction():
    """Client A at its best weights: nothing to remove, and no division by zero."""
    strategy, one = ContributionWeighted(), client(A_ROWS)
    strategy.start(A_BEST.copy(), 1)
    message = answer(strategy, one, 0)
    assert message.numbers["loss_reduction"] == 0
    strategy.aggregate({0: message})
    assert strategy.weights == pytest.approx(A_BEST)


@pytest.mark.parametrize("absent", ["loss_reduction", "diversity"])
def test_a_reply_that_does_not_state_what_it_is_weighed_by_is_refused(absent):
    strategy = ContributionWeighted()
    strategy.start(ORIGIN, 1)
    whole = reply([0.0, 0.0])
    strategy.accept(whole)
    numbers = {name: value for name, value in whole.numbers.items() if name != absent}
    with pytest.raises(DataError, match=f"a reply must state its {absent}"):
        strategy.accept(Message(whole.tensors, numbers))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consistency": -1.0}, "consistency must be a finite number of at least 0, not -1"),
        ({"rows": float("nan")}, "rows must be a finite number of at least 0, not nan"),
        (ALONE, "must be above 0: else no reply has any weight"),
        ({"history_memory": 1.0}, r"history_memory must be in \[0, 1\), not 1"),
        ({"least_share": 1.5}, r"least_share must be in \[0, 1\], not 1.5"),
        ({"server_rate": 0.0}, "server_rate must be a finite number above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ContributionWeighted(**options)


def test_it_reports_losses_and_so_cannot_run_under_record_level_privacy():
    assert ContributionWeighted.needs_loss
