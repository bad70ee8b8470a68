"""Weights go to the door and come back as a gradient with each number in its place."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from distill.common.exact import on_grid
from distill.privacy.dpsgd import FINEST_BITS
from distill.privacy.record_gradients import Network, Records
from distill.synthesis.weights import arrays_of, set_gradients, uniform_start
from tests.fakes.private_tables import lattice_sum


def network(seed: int) -> list[nn.Linear]:
    layers = [nn.Linear(*size, dtype=torch.float64) for size in [(5, 7), (7, 4), (4, 3)]]
    uniform_start(layers, np.random.default_rng(seed))
    return layers


def test_set_gradients_puts_each_number_where_it_belongs():
    """A whole round: weights to the door's network, its unclipped sum back, against backward."""
    layers = network(5)
    rng = np.random.default_rng(5)
    rows, labels = on_grid(rng.normal(size=(6, 5))).astype(np.float32), rng.integers(0, 3, 6)
    asked = Network(tuple(map(arrays_of, layers)), loss="classes", clip=16.0)
    flat = lattice_sum(asked, Records(None, rows, labels)) * 2.0**-FINEST_BITS * 16.0
    float32 = [nn.Linear(layer.in_features, layer.out_features) for layer in layers]
    set_gradients(float32, flat)
    hidden = layers[1](layers[0](torch.as_tensor(rows).double()).relu()).relu()
    cross_entropy(layers[2](hidden), torch.as_tensor(labels), reduction="sum").backward()
    for got, true in zip(float32, layers, strict=True):
        for name in ("weight", "bias"):
            mine, autograd = getattr(got, name).grad, getattr(true, name).grad
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine.double(), autograd, rtol=1e-3, atol=1e-3)


def test_gradients_of_layers_do_not_share_memory_with_what_they_were_made_of():
    layers = [nn.Linear(2, 3), nn.Linear(3, 1)]
    flat = np.arange(13.0)
    set_gradients(layers, flat)
    assert layers[0].weight.grad.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert layers[0].bias.grad.tolist() == [6, 7, 8]
    assert layers[1].weight.grad.tolist() == [[9, 10, 11]]
    assert layers[1].bias.grad.tolist() == [12]
    flat[:] = 99
    layers[0].weight.grad.add_(1)
    assert layers[0].bias.grad.tolist() == [6, 7, 8]


def test_arrays_are_copies_in_double_precision():
    layer = nn.Linear(3, 2)
    weight, bias = arrays_of(layer)
    assert (weight.dtype, weight.shape, bias.shape) == (np.float64, (2, 3), (2,))
    np.testing.assert_array_equal(weight, layer.weight.detach().numpy())
    weight[:], bias[:] = 7, 7
    assert not (layer.weight == 7).any()
    assert not (layer.bias == 7).any()


def test_weights_start_evenly_within_one_over_the_root_of_the_inputs_and_biases_at_zero(seed):
    layers = [nn.Linear(400, 50), nn.Linear(25, 40)]
    uniform_start(layers, np.random.default_rng(seed))
    for layer, bound in zip(layers, (0.05, 0.2), strict=True):
        weights = layer.weight.detach().numpy()
        assert 0.99 * bound < np.abs(weights).max() <= bound
        assert abs(weights.mean()) < 6 * bound / (3 * weights.size) ** 0.5
        assert abs(weights.std() / bound - 3**-0.5) < 0.05
        assert not layer.bias.any()
    again = [nn.Linear(400, 50), nn.Linear(25, 40)]
    uniform_start(again, np.random.default_rng(seed))
    assert torch.equal(again[1].weight, layers[1].weight)
