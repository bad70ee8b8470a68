"""Per-record clipping for networks of linear layers, without per-record gradients in memory.

For a linear layer the gradient of one record is an outer product (output gradient x input), so its norm is a product of
two norms, and the clipped sum is one matrix product. Exact, and tested against the brute force.
Source: arXiv:1510.01799 (the norm trick).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Tap:
    """One use of a linear layer in a forward pass: what went in, what came out (before any activation)."""

    layer: nn.Linear
    inputs: Tensor
    outputs: Tensor


class Taps(list[Tap]):
    """Collects a tap each time a layer is applied; a layer may be applied once a pass."""

    def apply(self, layer: nn.Linear, inputs: Tensor) -> Tensor:
        """Run `layer` and remember the pass."""
        outputs: Tensor = layer(inputs)
        self.append(Tap(layer, inputs.detach(), outputs))
        return outputs


def clipped_gradient_sum(losses: Tensor, taps: Sequence[Tap], *, clip_norm: float) -> Tensor:
    """Sum over records of each record's gradient, scaled down to at most `clip_norm` in L2.

    Guarantee: adding or removing one record moves the result by at most `clip_norm`, up to rounding; each record's loss
    must depend on that record alone. A record whose gradient is not finite counts as zero.

    Args:
        losses: One loss a record, shape (n,).
        taps: Every linear layer that took part, each once.
        clip_norm: Bound on one record's gradient over all taps' weights and biases together.

    Returns:
        Flat vector: weight then bias of each tap's layer, in the order of `taps`.
    """
    if len({id(t.layer) for t in taps}) < len(taps):
        raise ValueError("a layer was applied twice in one pass; its per-record norm is not the product of norms")
    if losses.numel() == 0:
        return torch.zeros(sum(parameter.numel() for t in taps for parameter in t.layer.parameters()))
    grads = torch.autograd.grad(losses.sum(), [t.outputs for t in taps])
    inputs = [t.inputs for t in taps]
    squares = torch.zeros_like(losses)
    for tap, grad, rows in zip(taps, grads, inputs, strict=True):
        squares = squares + grad.square().sum(1) * (rows.square().sum(1) + (tap.layer.bias is not None))
    usable = squares.isfinite()
    if not usable.all():  # one infinite record would turn the whole sum into NaN, whatever the noise
        squares = squares[usable]
        grads, inputs = tuple(g[usable] for g in grads), [rows[usable] for rows in inputs]
    scale = clip_norm / squares.sqrt().clamp_min(clip_norm)
    parts = []
    for tap, grad, rows in zip(taps, grads, inputs, strict=True):
        scaled = grad * scale.unsqueeze(1)
        parts.append((scaled.T @ rows).reshape(-1))
        if tap.layer.bias is not None:
            parts.append(scaled.sum(0))
    return torch.cat(parts)


def set_gradients(layers: Sequence[nn.Linear], flat: Tensor) -> None:
    """Write a flat vector (as `clipped_gradient_sum` lays it out) into the layers' `.grad`."""
    offset = 0
    for layer in layers:
        for parameter in (layer.weight, layer.bias):
            if parameter is not None:
                parameter.grad = flat[offset : offset + parameter.numel()].reshape(parameter.shape).clone()
                offset += parameter.numel()
