"""FedProx, FedNova and q-FedAvg on the case worked by hand in `federated_fakes`, and what defines each of them."""

from dataclasses import replace

import numpy as np
import pytest

from distill.errors import ConfigError, DataError
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.base import Strategy
from server_train.federated.strategies.fedavg import FedAvg
from server_train.federated.strategies.fednova import FedNova, effective_steps
from server_train.federated.strategies.fedprox import FedProx
from server_train.federated.strategies.qfedavg import QFedAvg
from tests.fakes.federations import A_ROWS, B_ROWS, answer, blobs, client, play, two_clients

ORIGIN = np.zeros(2)


def mlp_path(strategy: Strategy, **settings: float) -> np.ndarray:
    """Four rounds of a small network in float32 on three unequal clients."""
    model = Mlp([10, 6, 2])
    clients = [
        Client(i, *blobs(rows, i), model, LocalSettings(**settings), np.random.default_rng(i))
        for i, rows in enumerate((40, 130, 300))
    ]
    return np.array(play(strategy, clients, model.initial(np.random.default_rng(9)), 4))


def test_fedprox_reproduces_two_rounds_worked_by_hand():
    # mu = 1, two local steps of 1/4; d is the way already gone from the server's weights w.
    # Round 1 from (0, 0)
    #   A: gradient (-2, 4), d = (0.5, -1); gradient (2 * 0.5 - 2, 2 * -1 + 4) + d = (-1, 2) + (0.5, -1) = (-0.5, 1),
    #      d = (0.625, -1.25).
    #   B: gradient (-1.5, -0.5), d = (0.375, 0.125); gradient (-1.3125, -0.4375) + d = (-0.9375, -0.3125),
    #      d = (0.609375, 0.203125).
    #   mean (0.15625 + 0.45703125, -0.3125 + 0.15234375) = (0.61328125, -0.16015625) = w.
    # Round 2
    #   A: gradient (-0.7734375, 3.6796875), d = (0.193359375, -0.919921875);
    #      gradient (-0.38671875, 1.83984375) + d = (-0.193359375, 0.919921875), d = (0.24169921875, -1.14990234375).
    #   B: gradient (-1.193359375, -0.580078125), d = (0.29833984375, 0.14501953125);
    #      gradient (-1.044189453125, -0.507568359375) + d = (-0.745849609375, -0.362548828125),
    #      d = (0.48480224609375, 0.23565673828125).
    #   mean (0.0604248046875 + 0.3636016845703125, -0.2874755859375 + 0.1767425537109375)
    #      = (0.4240264892578125, -0.1107330322265625), added to w.
    path = play(FedProx(mu=1.0), two_clients(a_steps=2, b_steps=2), ORIGIN, 2)
    assert path[0] == pytest.approx([0.61328125, -0.16015625], abs=1e-6)
    assert path[1] == pytest.approx([1.0373077392578125, -0.2708892822265625], abs=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fedprox_without_its_term_is_fedavg_bit_for_bit(momentum):
    assert np.array_equal(mlp_path(FedProx(mu=0.0), momentum=momentum), mlp_path(FedAvg(), momentum=momentum))


def test_a_stronger_term_keeps_clients_nearer_to_the_server():
    moved = [np.linalg.norm(play(FedProx(mu=mu), two_clients(a_steps=9, b_steps=9), ORIGIN, 1)[0]) for mu in (0, 1, 3)]
    assert moved[0] > moved[1] > moved[2]


def test_partial_work_of_a_slow_client_counts_in_full():
    # A does one step of its two: (0.5, -1); B both: (0.609375, 0.203125), as above. The shares stay 1/4 and 3/4.
    path = play(FedProx(mu=1.0), two_clients(a_steps=1, b_steps=2), ORIGIN, 1)
    assert path[0] == pytest.approx([0.125 + 0.45703125, -0.25 + 0.15234375], abs=1e-6)


def test_fednova_reproduces_two_rounds_worked_by_hand():
    # One step at A, three at B, so tau_eff = 1/4 * 1 + 3/4 * 3 = 2.5.
    # Updates: A 1/2 * ((1, -2) - w), B (1 - (7/8)^3) * ((3, 1) - w) = 0.330078125 * ((3, 1) - w).
    # Round 1: A / 1 = (0.5, -1), B / 3 = (0.330078125, 0.1100260416666667);
    #   mean (0.125 + 0.24755859375, -0.25 + 0.08251953125) = (0.37255859375, -0.16748046875);
    #   times 2.5: (0.931396484375, -0.418701171875).
    # Round 2: A 1/2 * (0.068603515625, -1.581298828125) = (0.0343017578125, -0.7906494140625)
    #          B / 3 = 0.330078125 / 3 * (2.068603515625, 1.418701171875)
    #                = (0.2276002566020, 0.1560940742493);
    #   mean (0.0085754394531 + 0.1707001924515, -0.1976623535156 + 0.1170705556870)
    #      = (0.1792756319046, -0.0805917978286); times 2.5: (0.4481890797615, -0.2014794945717), added.
    path = play(FedNova(), two_clients(a_steps=1, b_steps=3), ORIGIN, 2)
    assert path[0] == pytest.approx([0.931396484375, -0.418701171875], abs=1e-6)
    assert path[1] == pytest.approx([1.3795855641365, -0.6201806664467], abs=1e-6)


def test_fednova_with_local_momentum_reproduces_two_rounds_worked_by_hand():
    # Momentum 1/2; one step at A (||a|| = 1), two at B (a = (1 + 1/2, 1), ||a|| = 2.5): tau_eff = 0.25 + 1.875 = 2.125.
    # B from (0, 0): velocity (-1.5, -0.5), w (0.375, 0.125); gradient (-1.3125, -0.4375),
    #   velocity (-0.75, -0.25) + gradient = (-2.0625, -0.6875), w (0.890625, 0.296875) = 0.296875 * (3, 1),
    #   and in general an update of 0.296875 * ((3, 1) - w), as all of it is linear.
    # Round 1: mean 1/4 * (0.5, -1) + 3/4 / 2.5 * (0.890625, 0.296875) = (0.3921875, -0.1609375);
    #   times 2.125: (0.8333984375, -0.3419921875).
    # Round 2: A (0.08330078125, -0.82900390625), B 0.296875 * (2.1666015625, 1.3419921875)
    #            = (0.6432098388671875, 0.3984039306640625);
    #   mean (0.0208251953125 + 0.19296295166015625, -0.2072509765625 + 0.11952117919921875)
    #      = (0.21378814697265625, -0.08772979736328125); times 2.125: (0.4542998123168945, -0.1864258193969727).
    path = play(FedNova(), two_clients(a_steps=1, b_steps=2, momentum=0.5), ORIGIN, 2)
    assert path[0] == pytest.approx([0.8333984375, -0.3419921875], abs=1e-6)
    assert path[1] == pytest.approx([1.2876982498168945, -0.5284180068969727], abs=1e-6)


@pytest.mark.parametrize(
    ("fednova", "same"), [(FedNova(), FedAvg()), (FedNova(mu=0.5), FedProx(mu=0.5))], ids=["plain", "proximal"]
)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_fednova_with_equal_steps_is_plain_averaging(fednova, same, momentum):
    paths = [mlp_path(strategy, momentum=momentum, steps=4, learning_rate=0.01) for strategy in (fednova, same)]
    assert paths[0] == pytest.approx(paths[1], abs=1e-6)


def test_fednova_has_no_bias_towards_the_client_that_works_more():
    """In the limit of small steps the fixed point is that of the pooled loss, however unequal the steps."""
    # Pooled gradient 1/4 * 2 * (w - a) + 3/4 * 1/2 * (w - b) = 0: w = (4 a + 3 b) / 7.
    pooled = (4 * np.array([1.0, -2.0]) + 3 * np.array([3.0, 1.0])) / 7
    settings = {"a_steps": 1, "b_steps": 20, "learning_rate": 1e-3}
    nova = play(FedNova(), two_clients(**settings), pooled, 400)[-1]
    plain = play(FedAvg(), two_clients(**settings), pooled, 400)[-1]
    assert np.abs(nova - pooled).max() < 0.01
    assert np.abs(plain - pooled).max() > 0.5


@pytest.mark.parametrize(
    ("steps", "momentum", "mu", "expected"),
    [
        (7, 0.0, 0.0, 7.0),
        (3, 0.5, 0.0, 1.75 + 1.5 + 1.0),  # (1 - 1/2^j) * 2 for j = 3, 2, 1
        (3, 0.0, 1.0, 0.75**2 + 0.75 + 1.0),  # (1 - 1/4)^j for j = 2, 1, 0
        (100, 0.9, 0.0, (100 - 0.9 * (1 - 0.9**100) / 0.1) / 0.1),  # the closed form of the paper
    ],
)
def test_effective_steps_are_those_of_the_paper(steps, momentum, mu, expected):
    settings = LocalSettings(learning_rate=0.25, momentum=momentum)
    assert effective_steps(steps, settings, mu=mu) == pytest.approx(expected, rel=1e-12)


def test_effective_steps_say_how_far_a_constant_gradient_moves_the_weights():
    """Momentum and proximal term together, against the client's own training."""

    class Slope:
        size = 2

        def gradient(self, weights, x, y, pull=None):
            return np.array([1.0, -2.0])

    settings = LocalSettings(learning_rate=0.1, momentum=0.7, steps=9, batch_size=0)
    one = Client(0, np.ones((4, 1)), np.ones(4), Slope(), settings, np.random.default_rng(0))
    run = FedNova(mu=0.3).proximal_run(one, ORIGIN)
    assert run.weights == pytest.approx(-0.1 * effective_steps(9, settings, mu=0.3) * np.array([1.0, -2.0]), rel=1e-12)


def test_qfedavg_reproduces_two_rounds_worked_by_hand():
    # q = 2, one local step of 1/4, so L = 4 and Delta w = 4 * (w - trained) is the gradient.
    # Round 1 from (0, 0)
    #   A: F = 1 + 4 = 5, Delta w = (-2, 4), norm^2 20; Delta = 25 * Delta w = (-50, 100);
    #      h = 2 * 5 * 20 + 4 * 25 = 300.
    #   B: F = (9 + 1) / 4 = 2.5, Delta w = (-1.5, -0.5), norm^2 2.5; Delta = 6.25 * Delta w = (-9.375, -3.125);
    #      h = 2 * 2.5 * 2.5 + 4 * 6.25 = 37.5.
    #   sum of p Delta (-12.5 - 7.03125, 25 - 2.34375) = (-19.53125, 22.65625); of p h 75 + 28.125 = 103.125.
    first = np.array([19.53125 / 103.125, -22.65625 / 103.125])  # (0.18939394, -0.21969697)
    # Round 2, rounded to 8 places
    #   A: F = 0.81060606^2 + 1.78030303^2 = 0.65708219 + 3.16947888 = 3.82656107, Delta w = (-1.62121212, 3.56060606),
    #      norm^2 = 15.30624426 (= 4 F); h = 2 * 3.82656107 * 15.30624426 + 4 * 14.64256959 = 175.71083503.
    #   B: F = (2.81060606^2 + 1.21969697^2) / 4 = (7.89950643 + 1.48766070) / 4 = 2.34679178,
    #      Delta w = (-1.40530303, -0.60984848), norm^2 = 2.34679178 (= F);
    #      h = 2 * 2.34679178 * 2.34679178 + 4 * 5.50743168 = 33.04458999.
    #   sum of p Delta: (14.64256959 * -1.62121212 / 4 + 3 / 4 * 5.50743168 * -1.40530303,
    #                    14.64256959 * 3.56060606 / 4 + 3 / 4 * 5.50743168 * -0.60984848)
    #                 = (-5.93467782 - 5.80470781, 13.03410550 - 2.51902414) = (-11.73938563, 10.51508136);
    #   of p h 43.92770876 + 24.78344249 = 68.71115125.
    second = first + np.array([11.73938563 / 68.71115125, -10.51508136 / 68.71115125])
    path = play(QFedAvg(q=2.0), two_clients(), ORIGIN, 2)
    assert path[0] == pytest.approx(first, abs=1e-6)
    assert path[1] == pytest.approx(second, abs=1e-6)


def test_qfedavg_with_q_zero_is_fedavg():
    assert mlp_path(QFedAvg(q=0.0)) == pytest.approx(mlp_path(FedAvg()), abs=1e-6)


def test_qfedavg_spreads_losses_more_evenly_than_fedavg():
    def gap(strategy: Strategy) -> float:
        clients = two_clients()
        weights = play(strategy, clients, ORIGIN, 500)[-1]
        return abs(clients[0].loss(weights) - clients[1].loss(weights))

    assert gap(QFedAvg(q=5.0)) < 0.5 * gap(QFedAvg(q=1.0)) < 0.5 * gap(FedAvg())


def test_qfedavg_reads_the_loss_before_training():
    assert answer(started(QFedAvg()), client(A_ROWS), 0).numbers["loss"] == pytest.approx(5.0)  # at (0, 0): 1 + 4


@pytest.mark.parametrize("q", [0.1, 1.0, 50.0, 1000.0])
def test_qfedavg_copes_with_a_client_without_loss_and_with_a_huge_q(q):
    settled = client((A_ROWS[0], [0.0, 0.0]), 0)  # (0, 0) is already its best
    path = play(QFedAvg(q=q), [settled, client(B_ROWS, 1)], ORIGIN, 3)
    assert np.isfinite(path).all()
    assert 0 < path[-1][0] < 3  # towards B's (3, 1)


def started(strategy: Strategy) -> Strategy:
    strategy.start(ORIGIN, 2)
    return strategy


@pytest.mark.parametrize(
    ("strategy", "number", "value", "message"),
    [
        (FedNova(), "effective_steps", 0.0, "must state its effective steps"),
        (QFedAvg(), "loss", -1.0, "must state its loss"),
        (QFedAvg(), "learning_rate", 0.0, "and its learning rate"),
    ],
)
def test_a_reply_without_what_the_average_needs_is_refused(strategy, number, value, message):
    reply = answer(started(strategy), client(A_ROWS), 0)
    strategy.accept(reply)
    with pytest.raises(DataError, match=message):
        strategy.accept(replace(reply, numbers={**reply.numbers, number: value}))
    with pytest.raises(DataError, match=message):
        strategy.accept(Message(reply.tensors, {n: v for n, v in reply.numbers.items() if n != number}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FedProx(mu=-1.0), "mu must be at least 0, not -1"),
        (lambda: FedNova(mu=float("nan")), "mu must be at least 0, not nan"),
        (lambda: QFedAvg(q=float("inf")), "q must be at least 0, not inf"),
        (lambda: QFedAvg(server_rate=0.0), "server_rate must be a finite number above 0"),
    ],
)
def test_an_option_that_cannot_work_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
