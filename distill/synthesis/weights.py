"""Weights of linear layers: their first values, and how they go to the door to the rows and come back as a gradient."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from distill.privacy.record_gradients import Layer


@torch.no_grad()
def uniform_start(layers: Sequence[nn.Linear], rng: np.random.Generator) -> None:
    """Draw weights uniformly within one over the root of a layer's inputs; biases are zero."""
    for layer in layers:
        drawn = rng.uniform(-1, 1, tuple(layer.weight.shape)) * layer.in_features**-0.5
        layer.weight.copy_(torch.as_tensor(drawn, dtype=torch.float32))
        layer.bias.zero_()


def arrays_of(layer: nn.Linear) -> Layer:
    """Copies of weight (out, in) and bias (out,), float64."""
    return layer.weight.numpy(force=True).astype(np.float64), layer.bias.numpy(force=True).astype(np.float64)


def set_gradients(layers: Sequence[nn.Linear], flat: np.ndarray) -> None:
    """Write a flat vector, weight then bias of each layer as the door answers, into the layers' `.grad`."""
    values, offset = torch.as_tensor(flat.astype(np.float32)), 0
    for layer in layers:
        for parameter in (layer.weight, layer.bias):
            parameter.grad = values[offset : offset + parameter.numel()].reshape(parameter.shape).clone()
            offset += parameter.numel()
