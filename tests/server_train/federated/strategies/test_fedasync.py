"""FedAsync on the case worked by hand in `federated_fakes`, its staleness functions, and replies that overtake each other."""

import numpy as np
import pytest

from distill.errors import ConfigError, DataError
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.fedasync import FedAsync
from tests.fakes.federations import A_ROWS, answer, blobs, client, play, two_clients

ORIGIN = np.zeros(2)


def test_fedasync_reproduces_two_rounds_worked_by_hand():
    # alpha = 1/2, polynomial with a = 1: weights 1/2, 1/4 at staleness 0, 1. In both rounds A and B start together and A
    # arrives first. A step brings A half of the way to (1, -2), B one eighth of the way to (3, 1).
    # Round 1 from (0, 0): A (0.5, -1) fresh: (0.25, -0.5).
    #   B (0.375, 0.125), one late: 3/4 * (0.25, -0.5) + 1/4 * B = (0.28125, -0.34375).
    # Round 2: A (0.640625, -1.171875) fresh: (0.4609375, -0.7578125).
    #   B (0.28125 + 2.71875 / 8, -0.34375 + 1.34375 / 8) = (0.62109375, -0.17578125), one late:
    #   3/4 * (0.4609375, -0.7578125) + 1/4 * B = (0.5009765625, -0.6123046875).
    strategy = FedAsync(alpha=0.5, staleness="polynomial", a=1.0, rho=0.0)
    path = play(strategy, two_clients(), ORIGIN, 2)
    assert path[0] == pytest.approx([0.28125, -0.34375], abs=1e-6)
    assert path[1] == pytest.approx([0.5009765625, -0.6123046875], abs=1e-6)
    assert strategy.round == 4


def test_the_proximal_term_holds_a_client_near_the_model_it_got():
    # rho = 1, two steps of A from (0, 0): first (0.5, -1); there the gradient 2 * ((0.5, -1) - (1, -2)) = (-1, 2) and
    # the term (0.5, -1) make (-0.5, 1), a quarter of it: (0.625, -1.25). Without the term it would be (0.75, -1.5).
    path = play(FedAsync(alpha=1.0, rho=1.0), [client(A_ROWS, steps=2)], ORIGIN, 1)
    assert path[0] == pytest.approx([0.625, -1.25], abs=1e-9)


@pytest.mark.parametrize("staleness", ["constant", "polynomial", "hinge"])
def test_fedasync_with_one_client_is_plain_sgd(staleness):
    """alpha = 1 and no proximal term: the same batches, one after the other, without a server."""
    x, y = blobs(50, 3)
    model = Mlp([10, 6, 2], dtype=np.float64)
    settings = LocalSettings(learning_rate=0.1, batch_size=16)
    start = model.initial(np.random.default_rng(0))
    alone = Client(0, x, y, model, settings, np.random.default_rng(1))
    expected = start
    for _ in range(4):
        expected = alone.train(expected).weights
    asked = Client(0, x, y, model, settings, np.random.default_rng(1))
    path = play(FedAsync(alpha=1.0, rho=0.0, staleness=staleness), [asked], start, 4)
    assert path[-1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"staleness": "constant"}, [0.8, 0.8, 0.8, 0.8]),
        ({"staleness": "polynomial", "a": 0.5}, [0.8, 0.8 / 2**0.5, 0.8 / 3**0.5, 0.8 / 4**0.5]),
        ({"staleness": "hinge", "a": 10.0, "b": 1.0}, [0.8, 0.8, 0.8 / 11, 0.8 / 21]),
    ],
)
def test_staleness_functions_are_the_papers(options, shares):
    strategy = FedAsync(alpha=0.8, **options)
    assert [strategy.share(age) for age in range(4)] == pytest.approx(shares)


def test_a_slow_reply_is_mixed_in_from_the_model_it_started_with():
    """B starts first and is overtaken twice by A; its model is then two aggregations old."""
    strategy, (fast, slow) = FedAsync(alpha=0.5, staleness="polynomial", a=1.0, rho=0.0), two_clients()
    strategy.start(ORIGIN, 2)
    late = answer(strategy, slow, 1)
    for _ in range(2):
        strategy.aggregate({0: answer(strategy, fast, 0)})
    before = strategy.weights
    assert before == pytest.approx([0.25 + 0.75 / 4, -0.5 - 1.5 / 4])  # a quarter of the way to (1, -2), twice
    strategy.accept(late)
    strategy.aggregate({1: late})
    from_the_origin = np.array([0.375, 0.125])
    assert strategy.weights == pytest.approx(5 / 6 * before + 1 / 6 * from_the_origin)


def test_only_models_that_a_client_still_trains_are_kept():
    strategy, clients = FedAsync(), two_clients()
    strategy.start(ORIGIN, 2)
    strategy.broadcast(1)
    for _ in range(5):
        strategy.aggregate({0: answer(strategy, clients[0], 0)})
    assert sorted(strategy.versions) == [0, 4]


@pytest.mark.parametrize("numbers", [{}, {"round": 1}, {"round": -1}, {"round": 0.5}, {"round": 1e300}])
def test_a_reply_to_no_known_model_is_refused(numbers):
    strategy = FedAsync()
    strategy.start(ORIGIN, 1)
    strategy.broadcast(0)
    with pytest.raises(DataError, match="must name the round of the model it started from"):
        strategy.accept(Message({"update": ORIGIN}, {"rows": 1, **numbers}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a finite number above 0"),
        ({"alpha": 1.5}, "alpha must be at most 1"),
        ({"staleness": "linear"}, "staleness must be one of constant, polynomial, hinge, not 'linear'"),
        ({"a": -1.0}, "a must be at least 0, not -1"),
        ({"rho": float("inf")}, "rho must be at least 0, not inf"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        FedAsync(**options)
