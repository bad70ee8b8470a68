"""Gradients in closed form against finite differences and autograd."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from server_train.federated.local.mlp import Mlp, row_losses, softmax
from server_train.models.model import Network

SIZES = [[4, 3], [4, 5, 2], [4, 6, 5, 3]]


def case(sizes: list[int], seed: int, rows: int = 7) -> tuple[Mlp, np.ndarray, np.ndarray, np.ndarray]:
    """A network in float64, weights with all biases away from zero, rows and classes."""
    rng = np.random.default_rng(seed)
    model = Mlp(sizes, dtype=np.float64)
    weights = model.initial(rng) + 0.1 * rng.normal(size=model.size)
    return model, weights, rng.normal(size=(rows, sizes[0])), rng.integers(0, sizes[-1], rows)


def finite_differences(function, weights: np.ndarray, width: float = 1e-6) -> np.ndarray:
    """Central differences of a scalar function; good to about 1e-8 for losses of order one."""
    bumps = np.eye(len(weights)) * width
    return np.array([(function(weights + bump) - function(weights - bump)) / (2 * width) for bump in bumps])


@pytest.mark.parametrize("sizes", SIZES)
def test_the_gradient_is_that_of_the_mean_loss(sizes, seed):
    model, weights, x, y = case(sizes, seed)
    slow = finite_differences(lambda w: model.losses(w, x, y).mean(), weights)
    assert model.gradient(weights, x, y) == pytest.approx(slow, abs=1e-6)


@pytest.mark.parametrize("sizes", SIZES[1:])
def test_a_pull_adds_the_gradient_of_its_loss_in_the_representation(sizes, seed):
    model, weights, x, y = case(sizes, seed)
    aim = np.linspace(-1, 1, sizes[-2])

    def pull(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (z - aim) / len(z), 0.5 * np.square(z - aim).sum(axis=1)

    def loss(w: np.ndarray) -> float:
        return float((model.losses(w, x, y) + pull(model.representation(w, x))[1]).mean())

    assert model.gradient(weights, x, y, pull) == pytest.approx(finite_differences(loss, weights), abs=1e-6)


def test_it_is_the_network_that_the_hub_trains(seed):
    """Same logits and same gradients as `server_train.models.model.Network`, codes looked up there and one-hot here."""
    rng = np.random.default_rng(seed)
    n_dense, n_codes, rows = 3, 5, 11
    model = Mlp([n_dense + n_codes, 6, 4, 3], dtype=np.float64)
    weights = model.initial(rng, prior=np.array([0.2, 0.3, 0.5]))
    network = Network(n_dense=n_dense, n_codes=n_codes, hidden=(6, 4), classes=3).double()
    first, *rest = (torch.tensor(part) for part in model.layers(weights))
    with torch.no_grad():
        network.dense.copy_(first[:n_dense])
        network.table.copy_(first[n_dense:])
        network.bias.copy_(rest[0])
        for i, (matrix, bias) in enumerate(zip(rest[1::2], rest[2::2], strict=True)):
            network.weights[i].copy_(matrix)
            network.biases[i].copy_(bias)
    dense, codes = rng.normal(size=(rows, n_dense)), rng.integers(0, n_codes, (rows, 1))
    x = np.hstack([dense, np.eye(n_codes)[codes[:, 0]]])
    y = rng.integers(0, 3, rows)
    logits = network(torch.tensor(dense), torch.tensor(codes))
    functional.cross_entropy(logits, torch.tensor(y)).backward()
    pairs = zip(network.weights, network.biases, strict=True)
    parts = [network.dense, network.table, network.bias, *(p for pair in pairs for p in pair)]
    assert model.logits(weights, x) == pytest.approx(logits.detach().numpy(), abs=1e-12)
    torch_gradient = np.concatenate([p.grad.numpy().ravel() for p in parts])
    assert model.gradient(weights, x, y) == pytest.approx(torch_gradient, abs=1e-12)


def test_weights_and_gradients_stay_in_float32():
    model = Mlp([4, 5, 2])
    weights = model.initial(np.random.default_rng(0))
    x, y = np.ones((3, 4), dtype=np.float32), np.array([0, 1, 0])
    assert weights.dtype == np.float32
    assert model.gradient(weights, x, y).dtype == np.float32


def test_the_first_guess_is_the_prior():
    model = Mlp([4, 5, 3], dtype=np.float64)
    weights = model.initial(np.random.default_rng(0), prior=np.array([0.7, 0.2, 0.1]))
    assert model.probabilities(weights, np.zeros((1, 4)))[0] == pytest.approx([0.7, 0.2, 0.1])


def test_large_logits_neither_overflow_nor_lose_the_loss():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], dtype=np.float32)
    assert softmax(logits) == pytest.approx(np.eye(2))
    assert row_losses(logits, np.array([0, 0])) == pytest.approx([0.0, 1e4])
