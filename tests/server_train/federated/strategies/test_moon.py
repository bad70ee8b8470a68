"""MOON on a small case worked by hand, its gradient against finite differences, and what it shares with FedAvg."""

from math import exp, sqrt

import numpy as np
import pytest

from distill.errors import ConfigError
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.strategies.fedavg import FedAvg
from server_train.federated.strategies.moon import Moon, contrastive
from tests.fakes.federations import LeastSquares, answer, blobs, play


class Scaled(LeastSquares):
    """Representation w * x (two features), prediction its sum: the smallest model with a representation to move."""

    def representation(self, weights, x):
        return weights * x

    def gradient(self, weights, x, y, pull=None):
        z = weights * x
        in_z = np.repeat((z.sum(axis=1) - y)[:, None], 2, axis=1) / len(y)
        return ((in_z + pull(z)[0] if pull else in_z) * x).sum(axis=0)


def scaled_clients():
    settings = LocalSettings(learning_rate=0.25, batch_size=0)
    tables = [(np.array([[1.0, 1.0]]), np.array([3.0])), (np.array([[1.0, 2.0]] * 3), np.zeros(3))]
    return [Client(i, x, y, Scaled(), settings, np.random.default_rng(i)) for i, (x, y) in enumerate(tables)]


def test_moon_reproduces_two_rounds_worked_by_hand():
    # Round 1 from (1, 0), no last model yet. A predicts 1 for 3: gradient (-2, -2), A = (1.5, 0.5).
    #   B predicts 1 for 0: gradient (1, 2), B = (0.75, -0.5). Mean 1/4 * A + 3/4 * B = (0.9375, -0.25).
    # Round 2. A: z = (0.9375, -0.25), predicts 0.6875 for 3: gradient in z (-2.3125, -2.3125).
    #   z is the global representation itself (cosine 1, slope 0); the last one is u = (1.5, 0.5).
    #   z.u = 1.28125, |z|^2 = 0.94140625, |u|^2 = 2.5. The loss log(1 + exp((cos - 1) / T)) has the gradient
    #   mu * sigmoid((cos - 1) / T) / T * (u / |u| - cos * z / |z|) / |z|.
    cosine, z, u = 1.28125 / sqrt(0.94140625 * 2.5), sqrt(0.94140625), sqrt(2.5)
    force = 2.0 / (1 + exp((1 - cosine) / 0.5)) / 0.5 / z
    a_z = [-2.3125 + force * (1.5 / u - cosine * 0.9375 / z), -2.3125 + force * (0.5 / u + cosine * 0.25 / z)]
    a = [0.9375 - 0.25 * a_z[0], -0.25 - 0.25 * a_z[1]]
    #   B: z = (0.9375, -0.5), predicts 0.4375 for 0; last one u = (0.75, -1); z.u = 1.203125, |z|^2 = 1.12890625,
    #   |u|^2 = 1.5625. The gradient in w is that in z times x = (1, 2).
    cosine, z, u = 1.203125 / sqrt(1.12890625 * 1.5625), sqrt(1.12890625), 1.25
    force = 2.0 / (1 + exp((1 - cosine) / 0.5)) / 0.5 / z
    b_z = [0.4375 + force * (0.75 / u - cosine * 0.9375 / z), 0.4375 + force * (-1 / u + cosine * 0.5 / z)]
    b = [0.9375 - 0.25 * b_z[0], -0.25 - 0.25 * 2 * b_z[1]]
    path = play(Moon(mu=2.0, temperature=0.5), scaled_clients(), np.array([1.0, 0.0]), 2)
    assert path[0] == pytest.approx([0.9375, -0.25], abs=1e-6)
    assert path[1] == pytest.approx([0.25 * a[0] + 0.75 * b[0], 0.25 * a[1] + 0.75 * b[1]], abs=1e-6)
    assert np.abs(path[1] - play(FedAvg(), scaled_clients(), np.array([1.0, 0.0]), 2)[1]).max() > 0.01


@pytest.mark.parametrize("temperature", [0.1, 0.5, 3.0])
def test_the_gradient_of_the_contrastive_loss_matches_finite_differences(seed, temperature):
    rng = np.random.default_rng(seed)
    z, near, far = rng.normal(size=(3, 7, 5))
    gradient, losses = contrastive(z, near, far, temperature=temperature)
    assert losses.shape == (7,)
    step = 1e-6
    numeric = np.zeros_like(z)
    for i in np.ndindex(z.shape):
        for sign in (1, -1):
            moved = z.copy()
            moved[i] += sign * step
            numeric[i] += sign * contrastive(moved, near, far, temperature=temperature)[1].mean() / (2 * step)
    assert gradient == pytest.approx(numeric, abs=1e-7)


def test_the_contrastive_loss_is_equation_3(seed):
    z, near, far = np.random.default_rng(seed).normal(size=(3, 1, 4))

    def weight(other):
        return exp(float(z[0] @ other[0]) / sqrt(float(z[0] @ z[0]) * float(other[0] @ other[0])) / 0.5)

    expected = -np.log(weight(near) / (weight(near) + weight(far)))
    assert contrastive(z, near, far, temperature=0.5)[1][0] == pytest.approx(expected, rel=1e-12)


def test_the_whole_networks_gradient_with_the_contrastive_loss_matches_finite_differences(seed):
    rng = np.random.default_rng(seed)
    model = Mlp([10, 6, 4, 2], dtype=np.float64)
    x, y = blobs(12, seed)
    x = x.astype(np.float64)
    weights, near, far = rng.normal(0.0, 0.5, (3, model.size))  # biases too: no row whose units are all dead
    near, far = model.representation(near, x), model.representation(far, x)

    def pull(z):
        return contrastive(z, near, far, temperature=0.5)

    def loss(at):
        return model.losses(at, x, y).mean() + pull(model.representation(at, x))[1].mean()

    gradient = model.gradient(weights, x, y, pull)
    for i in rng.integers(model.size, size=25):
        step = np.zeros(model.size)
        step[i] = 1e-6
        assert gradient[i] == pytest.approx((loss(weights + step) - loss(weights - step)) / 2e-6, abs=1e-5)


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_zero_representation_gives_finite_losses_and_is_not_pulled_itself(zero):
    parts = [np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]]), np.array([[1.0, -1.0]])]
    parts[zero] = np.zeros((1, 2))
    gradient, losses = contrastive(*parts, temperature=0.5)
    assert np.isfinite(gradient).all()
    assert np.isfinite(losses).all()
    assert (gradient == 0).all() == (zero == 0)


def test_an_extreme_temperature_does_not_overflow():
    z, far = np.array([[1.0, 0.1]]), np.array([[1.0, 0.0]])
    gradient, losses = contrastive(z, -z, far, temperature=1e-4)
    assert np.isfinite(gradient).all()
    assert losses[0] == pytest.approx((1 + 1 / sqrt(1.01)) / 1e-4)


def network_clients(hidden=(8,), batch_size=16):
    model = Mlp([10, *hidden, 2])
    settings = LocalSettings(learning_rate=0.2, batch_size=batch_size)
    tables = [blobs(60, 1), blobs(90, 2, positives=0.2)]
    return [Client(i, x, y, model, settings, np.random.default_rng(i)) for i, (x, y) in enumerate(tables)]


def network_path(strategy, hidden=(8,)):
    clients = network_clients(hidden)
    return np.array(play(strategy, clients, clients[0].model.initial(np.random.default_rng(0)), 3))


def test_moon_with_weight_zero_is_fedavg_bit_for_bit():
    assert np.array_equal(network_path(Moon(mu=0.0)), network_path(FedAvg()))


def test_moon_differs_from_fedavg_from_the_second_round_on():
    moon, fedavg = network_path(Moon(mu=5.0)), network_path(FedAvg())
    assert np.array_equal(moon[0], fedavg[0])
    assert np.abs(moon[1] - fedavg[1]).max() > 1e-3


def test_moon_without_hidden_layers_is_fedavg():
    assert np.array_equal(network_path(Moon(mu=5.0), hidden=()), network_path(FedAvg(), hidden=()))


def test_moon_sends_what_fedavg_sends_and_is_charged_for_two_more_forward_passes():
    strategy, one = Moon(mu=1.0), network_clients(batch_size=0)[0]
    strategy.start(one.model.initial(np.random.default_rng(0)), 1)
    first = answer(strategy, one, 0)
    assert (sorted(first.tensors), sorted(first.numbers)) == (["update"], ["rows"])
    assert one.work == 60
    answer(strategy, one, 0)
    assert one.work == 60 + 60 + 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": -0.1}, "mu must be at least 0, not -0.1"),
        ({"mu": float("nan")}, "mu must be at least 0, not nan"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Moon(**options)
