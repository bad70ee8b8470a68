"""The fast clipped gradient sum against a loop over records, and what one record can do to it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from distill.common.exact import on_grid
from distill.privacy.dpsgd import FINEST_BITS, MOST_ROWS, Factor, clipped_sum, lattice_bits
from distill.privacy.lattice_noise import LEAST_STDDEV, MOST_STDDEV
from distill.privacy.row_vectors import Dense, OneHot

STEP = 2.0**-FINEST_BITS
STARTS, WIDTH = np.array([0, 4, 6]), 9


def network(seed: int) -> list[nn.Linear]:
    torch.manual_seed(seed)
    return [nn.Linear(*size, dtype=torch.float64) for size in [(5, 7), (7, 4), (4, 3)]]


def factors_of(layers: list[nn.Linear], rows: torch.Tensor, labels: torch.Tensor) -> list[Factor]:
    """What goes into each layer of a network with two kinds of activation, and the losses' gradients in what comes out."""
    inputs = [rows]
    outputs = [layers[0](rows)]
    for layer, activation in zip(layers[1:], (torch.relu, torch.tanh), strict=True):
        inputs.append(activation(outputs[-1]))
        outputs.append(layer(inputs[-1]))
    gradients = torch.autograd.grad(cross_entropy(outputs[-1], labels, reduction="sum"), outputs)
    return [Factor(Dense(x.detach().numpy()), g.numpy()) for x, g in zip(inputs, gradients, strict=True)]


def fast(factors: Sequence[Factor], clip: float, length: float = 1.0) -> np.ndarray:
    """The sum in clip norms that were scaled to `length`."""
    got = clipped_sum(factors, clip=clip, length=length, bits=FINEST_BITS)
    assert got.dtype == np.int64
    return got * STEP


def one_hot(codes: np.ndarray) -> np.ndarray:
    rows = np.zeros((len(codes), WIDTH))
    np.put_along_axis(rows, codes + STARTS, len(STARTS) ** -0.5, axis=1)
    return rows


def gradients_of(inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Each record's gradient, written out: (n, weights and biases)."""
    parts = []
    for x, g in zip(inputs, outputs, strict=True):
        parts += [(g[:, :, None] * x[:, None, :]).reshape(len(x), g.shape[1] * x.shape[1]), g]
    return np.concatenate(parts, axis=1)


def slow(gradients: np.ndarray, clip: float, length: float = 1.0) -> np.ndarray:
    """One record after the other, clipped on its own."""
    total = np.zeros(gradients.shape[1])
    for gradient in gradients:
        total += gradient * length / max(float(np.linalg.norm(gradient)), clip)
    return total


def slack(inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> np.ndarray:
    """How far a sum may be off: gradients of outputs are cut to steps of 2**-20 before they meet their inputs."""
    parts = []
    for x, g in zip(inputs, outputs, strict=True):
        parts += [np.tile(np.abs(x).sum(axis=0), g.shape[1]), np.full(g.shape[1], len(x))]
    return np.concatenate(parts) * 2.0**-20 + 1e-10


def batch(seed: int, n: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows on the grid of exact products, on which nothing of them is rounded."""
    generator = torch.Generator().manual_seed(seed)
    rows = scale * torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return torch.as_tensor(on_grid(rows.numpy())), torch.randint(3, (n,), generator=generator)


def made_up(seed: int, n: int, scale: float = 0.3) -> tuple[list[np.ndarray], list[np.ndarray], list[Factor]]:
    """Inputs, gradients of outputs, and the factors made of them: one-hot rows and numbers; no network is behind them."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, w, n) for w in (4, 2, 3)], axis=1)
    inputs = [one_hot(codes), on_grid(rng.normal(size=(n, 6))), on_grid(rng.normal(size=(n, 3)))]
    outputs = [scale * rng.normal(size=(n, out)) for out in (6, 3, 2)]
    vectors = [OneHot(codes, STARTS, WIDTH), Dense(inputs[1]), Dense(inputs[2])]
    return inputs, outputs, [Factor(x, g) for x, g in zip(vectors, outputs, strict=True)]


def some(factors: Sequence[Factor], codes: np.ndarray, chosen: np.ndarray) -> list[Factor]:
    """The factors of some of the records."""
    first, *rest = factors
    return [
        Factor(OneHot(codes[chosen], STARTS, WIDTH), first.outputs[chosen]),
        *(Factor(Dense(f.inputs.values[chosen]), f.outputs[chosen]) for f in rest),
    ]


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 25), st.sampled_from([0.01, 1.0, 30.0]), st.sampled_from([0.05, 1, 50]))
def test_the_fast_sum_equals_a_loop_over_records(seed, n, scale, clip):
    layers = network(seed)
    rows, labels = batch(seed, n, scale)
    factors = factors_of(layers, rows, labels)
    inputs, outputs = [f.inputs.values for f in factors], [f.outputs for f in factors]
    off = np.abs(fast(factors, clip) - slow(gradients_of(inputs, outputs), clip))
    assert (off <= slack(inputs, outputs)).all()


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 25), st.sampled_from([0.02, 0.3, 20.0]), st.sampled_from([0.25, 0.6, 1.0]))
def test_the_fast_sum_of_one_hot_rows_and_numbers_equals_a_loop_over_records_of_any_share(seed, n, scale, share):
    inputs, outputs, factors = made_up(seed, n, scale)
    length = share**0.5
    off = np.abs(fast(factors, 0.7, length) - slow(gradients_of(inputs, outputs), 0.7, length))
    assert (off <= slack(inputs, outputs)).all()


def test_the_fast_sum_of_a_network_is_that_of_its_own_gradient():
    """Factors as the tests above make them are what autograd says: a generous clip norm leaves the plain gradient."""
    layers = network(2)
    rows, labels = batch(2, 9, 1.0)
    scores = layers[2](torch.tanh(layers[1](torch.relu(layers[0](rows)))))
    parameters = [p for layer in layers for p in layer.parameters()]
    plain = torch.autograd.grad(cross_entropy(scores, labels, reduction="sum"), parameters)
    got = fast(factors_of(layers, rows, labels), 64.0) * 64.0
    np.testing.assert_allclose(got, np.concatenate([g.numpy().ravel() for g in plain]), atol=9 * 64 * 2.0**-19)


def whole_square(steps: np.ndarray) -> int:
    """Squared length in whole numbers, of any size."""
    return sum(int(s) ** 2 for s in steps)


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.floats(-8, 150),
    st.sampled_from([0.05, 1.0, 20.0]),
    st.sampled_from([1.0, 0.3]),
    st.integers(0, 11),
)
def test_one_record_moves_the_sum_by_at_most_its_length_in_exact_arithmetic(seed, magnitude, clip, share, place):
    """The record is an outlier of any size, wherever it stands, and moves the sum by what it adds alone."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, w, 12) for w in (4, 2, 3)], axis=1)
    _, _, factors = made_up(seed, 12)
    for factor in factors:
        factor.outputs[place] *= 10.0**magnitude
    length = share**0.5

    def steps(chosen: np.ndarray) -> np.ndarray:
        return clipped_sum(some(factors, codes, chosen), clip=clip, length=length, bits=FINEST_BITS)

    everyone = np.arange(12)
    moved = steps(everyone) - steps(np.delete(everyone, place))
    assert whole_square(moved) <= share * 4.0**FINEST_BITS
    np.testing.assert_array_equal(moved, steps(everyone[[place]]))


@pytest.mark.parametrize("bits", [FINEST_BITS, 27, 18])
def test_a_coarser_lattice_keeps_the_bound(bits, seed):
    _, _, factors = made_up(seed, 1, 50.0)
    steps = clipped_sum(factors, clip=0.5, length=1.0, bits=bits)
    assert 0 < whole_square(steps) <= 4**bits


@pytest.mark.parametrize("output", [1e3, 0.7, 1e-3, 3e140])
def test_a_gradient_of_two_numbers_of_which_cutting_takes_next_to_nothing_is_within_the_bound_too(output):
    """Its length is short of the bound by a few steps of 2**-36: there is no other room for rounding up."""
    factor = Factor(OneHot(np.zeros((1, 1), dtype=int), np.zeros(1, dtype=int), 1), np.array([[output]]))
    for share in (1.0, 0.75, 0.1):
        steps = clipped_sum([factor], clip=1e-3, length=share**0.5, bits=FINEST_BITS)
        assert whole_square(steps) <= share * 4.0**FINEST_BITS
        assert whole_square(steps) > share * 4.0**FINEST_BITS * (1 - 2.0**-31)


@pytest.mark.parametrize("scale", [1e3, 1e25, 1e140])
def test_the_bound_is_reached_so_no_gradient_is_shortened_in_vain(scale, seed):
    """However long it was: a scale that no float32 holds neither vanishes nor is rounded up."""
    _, _, factors = made_up(seed, 1, scale)
    assert np.linalg.norm(fast(factors, 1e-3)) == pytest.approx(1, rel=1e-5)
    assert np.linalg.norm(fast(factors, 1e-3, 0.5)) == pytest.approx(0.5, rel=1e-5)


def test_a_gradient_just_below_the_clip_norm_is_not_clipped():
    inputs, outputs, factors = made_up(4, 1)
    (norm,) = np.linalg.norm(gradients_of(inputs, outputs), axis=1)
    assert np.linalg.norm(fast(factors, norm * 1.01)) == pytest.approx(1 / 1.01, rel=1e-5)
    assert np.linalg.norm(fast(factors, norm * 0.99)) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e200])
def test_a_record_whose_gradient_overflows_counts_as_zero(value, seed):
    """Else one record would turn the sum into nonsense, and any noise would show that it was there."""
    codes = np.zeros((8, 3), dtype=int)
    for layer in range(3):
        _, _, factors = made_up(seed, 8)
        factors[layer].outputs[4] = value
        others = np.delete(np.arange(8), 4)
        got, expected, alone = (
            clipped_sum(some(factors, codes, chosen), clip=1.0, length=1.0, bits=FINEST_BITS)
            for chosen in (np.arange(8), others, np.array([4]))
        )
        np.testing.assert_array_equal(got, expected)
        assert not alone.any()


def test_a_batch_of_nothing_but_gradients_that_overflow_is_zero():
    _, _, factors = made_up(0, 5)
    factors[1].outputs[:] = np.nan
    assert not fast(factors, 1.0).any()


def test_an_empty_poisson_sample_gives_zeros():
    _, _, factors = made_up(1, 3)
    none = some(factors, np.zeros((3, 3), dtype=int), np.zeros(0, dtype=int))
    got = fast(none, 1.0)
    assert got.shape == fast(factors, 1.0).shape
    assert not got.any()


@pytest.mark.parametrize("power", [-20.0, -3.0, 0.0, 0.01, 7.9, 8.0, 8.1, 20.0, 30.0, 43.0])
def test_steps_follow_from_the_noise_and_leave_room_for_it_and_for_the_largest_sum(power):
    """Noise in such steps can be drawn, and together with the sum of MOST_ROWS rows alike it fits 64 bits."""
    stddev = 2.0**power
    bits = lattice_bits(stddev)
    assert LEAST_STDDEV <= stddev * 2.0**bits <= MOST_STDDEV
    assert bits == FINEST_BITS or stddev * 2.0**bits > 2.0**42
    assert bits <= FINEST_BITS
    assert (MOST_ROWS + 13 * stddev) * 2.0**bits < 2.0**63
