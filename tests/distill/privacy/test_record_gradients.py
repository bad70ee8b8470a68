"""What a record adds for a network that is declared: autograd's gradient of that record alone, clipped, and nothing else."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, log_softmax, one_hot, softplus

from distill.common.exact import on_grid
from distill.errors import ConfigError
from distill.privacy.dpsgd import FINEST_BITS
from distill.privacy.record_gradients import Gradients, Layer, Network, Records, Variational, segment_softmax
from tests.fakes.private_tables import assert_row_local, lattice_sum

WIDTHS = (4, 2, 7, 3)  # the class last
STARTS, WIDTH = np.cumsum([0, *WIDTHS[:-1]]), sum(WIDTHS)
NUMBERS = 5
STEP = 2.0**-FINEST_BITS
# From flat parameters and a record's number to its loss, and numbers at whose zero its gradient jumps.
Loss = Callable[[list[torch.Tensor], int], tuple[torch.Tensor, list[torch.Tensor]]]


def records_of(rows: int, seed: int, *, features: bool = False) -> Records:
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, w, rows) for w in WIDTHS], axis=1).astype(np.uint8)
    classes = codes[:, -1].astype(np.int64)
    if features:
        return Records(None, on_grid(rng.normal(size=(rows, NUMBERS))).astype(np.float32), classes)
    return Records(codes, None, classes)


def some(records: Records, chosen: np.ndarray) -> Records:
    """Some of the records, by their numbers."""
    parts = (records.codes, records.features, records.classes)
    return Records(*(None if part is None else part[chosen] for part in parts))


def layers_of(sizes: Sequence[int], seed: int, scale: float = 1.0) -> tuple[Layer, ...]:
    rng = np.random.default_rng(seed)
    sides = itertools.pairwise(sizes)
    return tuple((scale * rng.normal(size=(out, of)) / of**0.5, rng.normal(size=out) / 2) for of, out in sides)


def a_network(kind: str, hidden: Sequence[int], loss: str, seed: int, *, clip: float = 1.0) -> tuple[Network, Records]:
    """On `codes` without the class, `all codes` or `features`, with the records that it sees."""
    starts = {"codes": STARTS[:-1], "all codes": STARTS, "features": None}[kind]
    width = {"codes": WIDTH - WIDTHS[-1], "all codes": WIDTH, "features": NUMBERS}[kind]
    layers = layers_of([width, *hidden, WIDTHS[-1] if loss == "classes" else 1], seed)
    return Network(layers, loss=loss, starts=starts, clip=clip), records_of(24, seed, features=kind == "features")


def a_variational(seed: int, *, pool: int = 16, scale: float = 1.0) -> tuple[Variational, Records]:
    """Its limits of the log-variance keep latents on the grid."""
    rng = np.random.default_rng(seed)
    (w1, b1), (w2, b2) = layers_of([WIDTH, 9, 6], seed, scale)
    (w3, b3), (w4, b4) = layers_of([3, 8, WIDTH], seed + 1, scale)
    multipliers = 2 * rng.integers(2**30, size=len(WIDTHS)) + 1
    layers = ((w1 * WIDTH**0.5, b1), (w2, b2), (w3, b3), (w4, b4))
    return Variational(layers, STARTS, rng.normal(size=(pool, 3)), multipliers, (-3.0, 1.0)), records_of(24, seed)


def vectors_of(gradient: Gradients, records: Records) -> torch.Tensor:
    """Rows as they go into the first layer, written out."""
    if records.features is not None:
        return torch.as_tensor(records.features.astype(np.float64))
    codes = torch.as_tensor(records.codes[:, : len(gradient.starts)].astype(np.int64))
    parts = [one_hot(codes[:, j], WIDTHS[j]) for j in range(codes.shape[1])]
    return torch.cat(parts, dim=1).double() / codes.shape[1] ** 0.5


def network_loss(network: Network, records: Records) -> Loss:
    rows, classes = vectors_of(network, records), torch.as_tensor(records.classes)

    def loss(parameters: list[torch.Tensor], i: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x, bends = rows[i : i + 1] @ parameters[0].T + parameters[1], []
        for weight, bias in zip(parameters[2::2], parameters[3::2], strict=True):
            bends.append(x)
            x = x.relu() @ weight.T + bias
        return softplus(-x).sum() if network.loss == "real" else cross_entropy(x, classes[i : i + 1]), bends

    return loss


def variational_loss(coder: Variational, records: Records) -> Loss:
    rows, codes = vectors_of(coder, records), records.codes.astype(object)
    mixed = (codes * coder.multipliers.astype(object)).sum(axis=1)

    def loss(parameters: list[torch.Tensor], i: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        w1, b1, w2, b2, w3, b3, w4, b4 = parameters
        encoded = rows[i] @ w1.T + b1
        mean, said = (encoded.relu() @ w2.T + b2).split(3)
        log_variance = said.clamp(*coder.log_variance)
        noise = torch.as_tensor(coder.pool[mixed[i] % len(coder.pool)])
        decoded = (mean + noise * (log_variance / 2).exp()) @ w3.T + b3
        parts = zip((decoded.relu() @ w4.T + b4).split(WIDTHS), codes[i].tolist(), strict=True)
        picked = sum(log_softmax(part, 0)[code] for part, code in parts)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        return divergence - picked, [encoded, decoded, *(said - limit for limit in coder.log_variance)]

    return loss


def autograd(gradient: Gradients, records: Records) -> tuple[np.ndarray, Records]:
    """Each record's own gradient, one backward pass a record, (n, weights and biases); and the records that it is of.

    Those that stand at a bend of a rectifier, on either side of which rounding may put them, are left out.
    """
    loss = (network_loss if isinstance(gradient, Network) else variational_loss)(gradient, records)
    parameters = [torch.tensor(part, requires_grad=True) for layer in gradient.layers for part in layer]
    found, kept = [], []
    for i in range(len(records.classes)):
        value, bends = loss(parameters, i)
        if all(float(at.detach().abs().min()) > 2.0**-10 for at in bends):
            found.append(np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(value, parameters)]))
            kept.append(i)
    assert len(kept) > 12
    return np.array(found), some(records, np.array(kept))


def each(gradient: Gradients, records: Records) -> np.ndarray:
    """What each record adds, unclipped, from what the door uses, (n, weights and biases)."""
    found = []
    for i in range(len(records.classes)):
        parts = [f.inputs.summed(f.outputs, FINEST_BITS) for f in gradient.factors(some(records, np.array([i])))]
        found.append(np.concatenate([part.ravel() for layer in parts for part in layer]) * STEP)
    return np.array(found)


NETWORKS = {
    f"{kind}, {len(hidden)} hidden, {loss}": (kind, hidden, loss)
    for kind in ("codes", "all codes", "features")
    for hidden in ((), (8,), (8, 6))
    for loss in ("classes", "real")
}
MADE: dict[str, Callable[[int], tuple[Gradients, Records]]] = {
    **{name: lambda seed, what=what: a_network(*what, seed) for name, what in NETWORKS.items()},
    "variational": a_variational,
    "variational of large weights": lambda seed: a_variational(seed, scale=1.5),
    "variational of a pool of one": lambda seed: a_variational(seed, pool=1),
}
EVERY = pytest.mark.parametrize("made", MADE.values(), ids=MADE)


@EVERY
def test_what_a_record_adds_is_autograds_gradient_of_its_loss(made, seed):
    """In float64, up to the grid on which layers work: by less than a thousandth of a record's gradient."""
    gradient, records = made(seed)
    expected, records = autograd(gradient, records)
    got = each(gradient, records)
    assert got.shape == expected.shape == (len(records.classes), gradient.size)
    off = np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert off.max() < 1e-3
    assert np.median(off) < 1e-4


def clipped(gradients: np.ndarray, clip: float, length: float) -> np.ndarray:
    """By hand: one record after the other."""
    return sum(g * length / max(float(np.linalg.norm(g)), clip) for g in gradients)


@EVERY
@pytest.mark.parametrize(("clip", "share"), [(0.3, 1.0), (1.0, 0.25), (30.0, 0.75)])
def test_the_clipped_sum_is_that_of_records_clipped_one_by_one(made, clip, share, seed):
    gradient, records = made(seed)
    gradient = dataclasses.replace(gradient, clip=clip, share=share)
    gradients, records = autograd(gradient, records)
    expected = clipped(gradients, clip, share**0.5)
    got = lattice_sum(gradient, records) * STEP
    assert np.linalg.norm(got - expected) < 1e-3 * np.linalg.norm(expected) + 1e-4


@EVERY
def test_factors_of_a_record_are_the_same_to_the_last_bit_beside_any_others(made, seed):
    gradient, _ = made(seed)
    records = records_of(2048, seed, features=isinstance(gradient, Network) and gradient.starts is None)

    def told(chosen: np.ndarray) -> np.ndarray:
        """Outputs of every factor, lengths of inputs, and what the first layer makes of them."""
        factors = gradient.factors(some(records, chosen))
        first = factors[0].inputs.times(gradient.layers[0][0])
        values = [f.inputs.values for f in factors[1:]]
        squares = [np.broadcast_to(f.inputs.squares, len(chosen))[:, None] for f in factors]
        return np.hstack([*(f.outputs for f in factors), first, *values, *squares])

    assert_row_local(told, 2048, seed)


@EVERY
def test_one_record_more_anywhere_moves_the_sum_by_what_it_adds_alone_and_that_is_no_longer_than_its_length(made, seed):
    """In whole numbers: no rounding of the sum can hide behind a tolerance."""
    gradient, records = made(seed)
    for clip, share in ((1e-3, 1.0), (1.0, 0.3)):
        asked = dataclasses.replace(gradient, clip=clip, share=share)
        everyone = np.arange(24)
        whole = lattice_sum(asked, records)
        for place in (0, 1, 12, 22, 23):
            moved = whole - lattice_sum(asked, some(records, np.delete(everyone, place)))
            np.testing.assert_array_equal(moved, lattice_sum(asked, some(records, everyone[[place]])))
            assert sum(int(m) ** 2 for m in moved) <= share * 4.0**FINEST_BITS
            assert clip > 1e-2 or math.dist(moved * STEP, np.zeros(len(moved))) == pytest.approx(share**0.5, rel=1e-4)


@EVERY
def test_records_in_another_order_have_the_same_sum(made, seed):
    gradient, records = made(seed)
    shuffled = some(records, np.random.default_rng(seed).permutation(24))
    np.testing.assert_array_equal(lattice_sum(gradient, records), lattice_sum(gradient, shuffled))


@EVERY
def test_no_record_at_all_adds_nothing(made):
    gradient, records = made(0)
    none = some(records, np.zeros(0, dtype=int))
    assert [f.outputs.shape[0] for f in gradient.factors(none)] == [0] * len(gradient.layers)
    total = lattice_sum(gradient, none)
    assert total.shape == (gradient.size,)
    assert not total.any()


@pytest.mark.parametrize("loss", ["classes", "real"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1.7e308])
def test_a_record_without_a_finite_gradient_counts_as_zero_and_is_told_by_no_warning(loss, value):
    """A weight that no number can be made of, at a code that two of the records hold; pytest makes warnings errors."""
    network, records = a_network("codes", (), loss, 3)
    ((weight, bias),) = network.layers
    weight[:, STARTS[1] + 1] = value
    layers = ((weight, bias + (value if np.isfinite(value) else 0)),)
    broken = dataclasses.replace(network, layers=layers)
    hit = records.codes[:, 1] == 1
    assert 2 <= hit.sum() <= 22
    got = lattice_sum(broken, records)
    np.testing.assert_array_equal(got, lattice_sum(broken, some(records, np.flatnonzero(~hit))))
    assert not lattice_sum(broken, some(records, np.flatnonzero(hit))).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_a_record_of_features_beyond_all_bounds_moves_the_sum_by_no_more_and_spoils_no_other(bad, hidden):
    """Such a feature stands at the limit of the grid."""
    network, records = a_network("features", hidden, "classes", 5, clip=0.5)
    spoilt = records.features.copy()
    spoilt[2, 1] = bad
    at_limit = records.features.copy()
    at_limit[2, 1] = 32.0 if bad > 0 else -32.0
    got, expected, without = (
        lattice_sum(network, r)
        for r in (
            Records(None, spoilt, records.classes),
            Records(None, at_limit, records.classes),
            some(records, np.delete(np.arange(24), 2)),
        )
    )
    np.testing.assert_array_equal(got, expected)
    assert sum(int(m) ** 2 for m in got - without) <= 4**FINEST_BITS


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 12),
    hidden=st.sampled_from([[], [3], [5, 4]]),
    row_power=st.floats(-3, 36),
    weight_power=st.floats(-2, 300),
    clip=st.floats(1e-3, 1e3),
)
def test_one_record_moves_the_clipped_sum_by_at_most_its_length(seed, rows, hidden, row_power, weight_power, clip):
    """Whatever the record and whatever weights a server sends."""
    rng = np.random.default_rng(seed)
    layers = tuple((w * 10**weight_power, b * 10**weight_power) for w, b in layers_of([3, *hidden, 2], seed))
    network = Network(layers, loss="classes", clip=clip)
    features = rng.normal(size=(rows, 3)).astype(np.float32)
    features[0] *= np.float32(10**row_power)
    records = Records(None, features, rng.integers(0, 2, rows))
    moved = lattice_sum(network, records) - lattice_sum(network, some(records, np.arange(1, rows)))
    assert sum(int(m) ** 2 for m in moved) <= 4**FINEST_BITS


def test_a_layer_that_is_listed_twice_has_two_parts_whose_lengths_are_clipped_together(seed):
    """Were its two uses one part, its gradient would be a sum of outer products, whose length no product of lengths tells."""
    (shared,) = layers_of([NUMBERS, NUMBERS], seed)
    last = layers_of([NUMBERS, 3], seed + 1)
    twice = Network((shared, shared, *last), loss="classes", clip=0.2)
    gradients, records = autograd(twice, records_of(24, seed, features=True))
    assert twice.size == 2 * (shared[0].size + shared[1].size) + last[0][0].size + 3
    expected = clipped(gradients, 0.2, 1.0)
    assert np.linalg.norm(lattice_sum(twice, records) * STEP - expected) < 1e-3 * np.linalg.norm(expected) + 1e-4


@pytest.mark.parametrize(
    ("bound", "value"),
    [*(("clip", v) for v in (0.0, -1.0, np.nan, np.inf)), *(("share", v) for v in (-0.1, 1.001, np.nan, np.inf))],
)
@EVERY
def test_a_bound_that_bounds_nothing_is_refused(made, bound, value):
    """Else a record without a number for a gradient would move the sum by 2**63 steps."""
    gradient, _ = made(0)
    with pytest.raises(ConfigError, match=f"{bound} must be"):
        dataclasses.replace(gradient, **{bound: value})


# ---- the autoencoder's latent noise ---------------------------------------------------------------------------------


def test_latent_noise_is_a_records_own_and_alike_records_have_the_same(seed):
    """So a record that is there twice adds twice the same."""
    coder, records = a_variational(seed)
    twice = some(records, np.repeat(np.arange(24), 2))
    np.testing.assert_array_equal(lattice_sum(coder, twice), 2 * lattice_sum(coder, records))


def test_different_records_take_from_the_whole_pool():
    """Every combination of codes: each of 16 noises is taken, and none by more than a third of them."""
    coder, _ = a_variational(1)
    codes = np.stack(np.meshgrid(*(np.arange(w) for w in WIDTHS)), axis=-1).reshape(-1, len(WIDTHS))
    taken = np.bincount((codes @ coder.multipliers) % 16, minlength=16)
    assert taken.min() > 0
    assert taken.max() < len(codes) / 3


@pytest.mark.parametrize("said", [-30.0, 30.0])
def test_a_log_variance_beyond_its_limits_is_held_there_and_pulls_no_weight(said, seed):
    """As autograd has it of a clamp."""
    coder, records = a_variational(seed)
    (w1, b1), (w2, b2), *decoder = coder.layers
    b2 = np.append(b2[:3], np.full(3, said))
    held = dataclasses.replace(coder, layers=((w1, b1), (w2, b2), *decoder))
    expected, records = autograd(held, records)
    gradients = each(held, records)
    bias_of_variance = w1.size + b1.size + w2.size + 3 + np.arange(3)
    assert not gradients[:, bias_of_variance].any()
    assert np.linalg.norm(gradients - expected) < 1e-3 * np.linalg.norm(expected)


# ---- softmax by segments --------------------------------------------------------------------------------------------


def test_chances_of_each_segment_are_its_own_softmax(seed):
    scores = np.random.default_rng(seed).normal(0, 5, (50, WIDTH))
    before = scores.copy()
    got = segment_softmax(scores, STARTS)
    expected = torch.cat([part.softmax(1) for part in torch.as_tensor(scores).split(WIDTHS, dim=1)], dim=1)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(scores, before)


def test_chances_neither_overflow_nor_depend_on_the_rows_beside_them(seed):
    scores = np.random.default_rng(seed).normal(0, 300, (500, WIDTH))
    scores[0] = 1e300
    scores[1, 0] = 1e300
    got = segment_softmax(scores, STARTS)
    np.testing.assert_allclose(got[:2, :4], [[0.25] * 4, [1, 0, 0, 0]])
    assert np.isfinite(got).all()
    assert_row_local(lambda chosen: segment_softmax(scores[chosen], STARTS), 500, seed)
