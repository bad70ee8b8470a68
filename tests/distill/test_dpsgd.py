"""The fast clipped gradient sum against a loop over records, and what one record can do to it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from distill.dpsgd import Taps, clipped_gradient_sum, set_gradients


def network(seed: int, *, bias: bool = True) -> list[nn.Linear]:
    torch.manual_seed(seed)
    return [nn.Linear(*size, bias=bias, dtype=torch.float64) for size in [(5, 7), (7, 4), (4, 3)]]


def losses_of(layers: list[nn.Linear], rows: torch.Tensor, labels: torch.Tensor, taps: Taps) -> torch.Tensor:
    hidden = taps.apply(layers[0], rows).relu()
    hidden = taps.apply(layers[1], hidden).tanh()
    return cross_entropy(taps.apply(layers[2], hidden), labels, reduction="none")


def fast(layers: list[nn.Linear], rows: torch.Tensor, labels: torch.Tensor, clip_norm: float) -> torch.Tensor:
    taps = Taps()
    return clipped_gradient_sum(losses_of(layers, rows, labels, taps), taps, clip_norm=clip_norm)


def slow(layers: list[nn.Linear], rows: torch.Tensor, labels: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """One backward pass a record, clipped on its own."""
    parameters = [p for layer in layers for p in layer.parameters()]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for row, label in zip(rows, labels, strict=True):
        (loss,) = losses_of(layers, row[None], label[None], Taps())
        flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])
        total += flat * clip_norm / max(float(flat.norm()), clip_norm)
    return total


def batch(seed: int, n: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = scale * torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return rows, torch.randint(3, (n,), generator=generator)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 25), st.sampled_from([0.01, 1.0, 30.0]), st.sampled_from([0.05, 1, 50]))
def test_the_fast_sum_equals_a_loop_over_records(seed, n, scale, clip_norm):
    layers = network(seed, bias=seed % 2 == 0)
    rows, labels = batch(seed, n, scale)
    torch.testing.assert_close(
        fast(layers, rows, labels, clip_norm), slow(layers, rows, labels, clip_norm), rtol=1e-9, atol=1e-12
    )


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(-8, 8), st.sampled_from([0.05, 1.0, 20.0]))
def test_one_record_moves_the_sum_by_at_most_clip_norm(seed, magnitude, clip_norm):
    """The last record is an outlier of any size, up to 1e8 times the others."""
    layers = network(seed)
    rows, labels = batch(seed, 12, 1.0)
    rows[-1] *= 10.0**magnitude
    moved = fast(layers, rows, labels, clip_norm) - fast(layers, rows[:-1], labels[:-1], clip_norm)
    assert float(moved.norm()) <= clip_norm * (1 + 1e-9)


def test_the_bound_is_reached_so_no_gradient_is_shortened_in_vain():
    layers = network(1)
    rows, labels = batch(1, 1, 1e3)
    assert float(fast(layers, rows, labels, 1e-3).norm()) == pytest.approx(1e-3, rel=1e-9)


def test_a_generous_clip_norm_leaves_the_plain_gradient():
    layers = network(2)
    rows, labels = batch(2, 9, 1.0)
    plain = torch.autograd.grad(
        losses_of(layers, rows, labels, Taps()).sum(), [p for layer in layers for p in layer.parameters()]
    )
    torch.testing.assert_close(fast(layers, rows, labels, 1e6), torch.cat([g.reshape(-1) for g in plain]))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e200])
def test_a_record_whose_gradient_overflows_counts_as_zero(value):
    """Else one record would turn the sum into NaN, and any noise would show that it was there."""
    layers = network(3)
    rows, labels = batch(3, 8, 1.0)
    rows[4] = value
    without = [i for i in range(8) if i != 4]
    moved = fast(layers, rows, labels, 1.0) - fast(layers, rows[without], labels[without], 1.0)
    assert float(moved.norm()) <= 1 + 1e-9  # false for NaN


def test_an_empty_poisson_sample_gives_zeros():
    layers = network(4)
    rows, labels = batch(4, 3, 1.0)
    got = fast(layers, rows[:0], labels[:0], 1.0)
    assert got.shape == fast(layers, rows, labels, 1.0).shape
    assert not got.any()


def test_a_layer_that_is_used_twice_is_refused():
    """Its per-record gradient is a sum of outer products, whose norm is not a product of norms."""
    layer = nn.Linear(4, 4)
    taps = Taps()
    outputs = taps.apply(layer, taps.apply(layer, torch.randn(6, 4)))
    with pytest.raises(ValueError, match="applied twice"):
        clipped_gradient_sum(outputs.square().sum(1), taps, clip_norm=1.0)


@pytest.mark.parametrize("bias", [True, False])
def test_set_gradients_puts_each_number_where_it_belongs(bias):
    layers = network(5, bias=bias)
    rows, labels = batch(5, 6, 1.0)
    set_gradients(layers, fast(layers, rows, labels, 1e6))
    got = [p.grad.clone() for layer in layers for p in layer.parameters()]
    losses_of(layers, rows, labels, Taps()).sum().backward()
    for layer_grad, parameter in zip(got, [p for layer in layers for p in layer.parameters()], strict=True):
        torch.testing.assert_close(2 * layer_grad, parameter.grad)  # backward added the same once more
