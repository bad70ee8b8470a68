"""Stage 3: the autoencoder's private gradient is the clipped sum it claims to be, and it learns what columns share."""

import numpy as np
import pytest
import torch
from private_fakes import door, every_kind, plan_of, schema_of

from distill.accounting import Event
from distill.dpsgd import Taps
from distill.layout import Layout
from distill.plan import Plan
from distill.stages import represent

LAYOUT = Layout((4, 3, 6), 2)


def coders(seed: int, layout: Layout = LAYOUT) -> represent.Autoencoder:
    return represent.Autoencoder(layout, torch.Generator().manual_seed(seed))


def codes_of(layout: Layout, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, w, n) for w in layout.widths], axis=1)


def plan_with(rate: float = 0.5) -> Plan:
    event = Event(name="represent", mechanism="poisson_gaussian", noise_multiplier=1.0, sampling_rate=rate, count=9)
    return Plan(epsilon=1, delta=1e-5, noisy_size=100, events=(event,), bins=8, pairs=1, candidates=10)


class Batch:
    """A table whose Poisson sample is given; keeps what it was asked for and answers without noise."""

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes

    def noisy_gradient(self, event, gradient_of, *, clip_norm):
        self.event, self.clip_norm = event, clip_norm
        self.total = gradient_of(self.codes)
        return self.total


def clipped_sum(coder: represent.Autoencoder, codes: np.ndarray) -> torch.Tensor:
    """A loop over records, each with the latent noise that it has in the batch."""
    state = coder.generator.get_state()
    losses = coder._losses(torch.from_numpy(codes), Taps())
    coder.generator.set_state(state)
    parameters = coder._parameters
    total = torch.zeros(sum(p.numel() for p in parameters))
    for loss in losses:
        flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        total += flat / max(float(flat.norm()), 1.0)
    return total


def test_the_gradient_equals_a_loop_over_records(seed):
    coder, codes = coders(seed), codes_of(LAYOUT, 30, seed)
    expected = clipped_sum(coder, codes)
    batch = Batch(codes)
    coder.step(batch, plan_with(), rows=100.0)
    assert (batch.event, batch.clip_norm) == ("represent", 1.0)
    torch.testing.assert_close(torch.from_numpy(batch.total), expected, rtol=1e-4, atol=1e-5)


def test_one_record_alone_has_a_gradient_of_norm_at_most_one(seed):
    coder = coders(seed)
    with torch.no_grad():
        for parameter in coder._parameters:
            parameter.mul_(30)  # far from the start, where gradients are large
    for row in codes_of(LAYOUT, 20, seed):
        batch = Batch(row[None])
        coder.step(batch, plan_with(), rows=100.0)
        assert np.linalg.norm(batch.total) <= 1 + 1e-5


def test_the_noisy_row_count_and_the_rate_normalise_the_gradient():
    for rows, rate in ((100.0, 0.5), (1e4, 0.02)):
        coder, batch = coders(1), Batch(codes_of(LAYOUT, 12, 1))
        coder.step(batch, plan_with(rate), rows=rows)
        got = torch.cat([p.grad.reshape(-1) for p in coder._parameters])
        torch.testing.assert_close(got, torch.from_numpy(batch.total) / (rows * rate))


def test_an_empty_sample_still_takes_a_step():
    coder, batch = coders(2), Batch(codes_of(LAYOUT, 0, 0))
    coder.step(batch, plan_with(), rows=100.0)
    assert batch.total.shape == (sum(p.numel() for p in coder._parameters),)


def test_decoded_samples_keep_what_columns_share():
    """Column 1 repeats column 0; the class is its parity."""
    layout = Layout((4, 4), 2)
    first = np.random.default_rng(0).choice(4, 3000, p=[0.4, 0.3, 0.2, 0.1])
    coder = coders(0, layout)
    coder.warm_up(torch.from_numpy(np.stack([first, first, first % 2], axis=1)))
    logits = coder.decode(torch.randn(3000, represent.LATENT, generator=coder.generator))
    assert logits.shape == (3000, layout.width)
    drawn = layout.draw(logits, coder.generator).numpy()
    assert np.mean(drawn[:, 0] == drawn[:, 1]) > 0.6  # independent columns: 0.3
    assert np.mean(drawn[:, 0] % 2 == drawn[:, 2]) > 0.75
    np.testing.assert_allclose(np.bincount(drawn[:, 0], minlength=4) / 3000, [0.4, 0.3, 0.2, 0.1], atol=0.1)
    assert coder.latent_mean(torch.from_numpy(drawn)).shape == (3000, represent.LATENT)


def test_steps_on_rows_lower_their_loss():
    """Through the real door, with little noise."""
    schema = schema_of(
        {"name": "a", "kind": "categorical", "categories": [0, 1, 2]},
        {"name": "b", "kind": "categorical", "categories": [0, 1, 2]},
    )
    frame = every_kind(2000, 0)[["late", "label"]].assign(a=lambda f: f["late"].fillna(0).clip(0, 2).astype(int))
    frame = frame.assign(b=frame["a"])[["a", "b", "label"]]
    plan = plan_of(schema, 2000, steps=60)
    table = door(frame, schema, plan)
    table.recode([lambda leaves: leaves] * 3, target=2)
    coder = coders(0, Layout((3, 3), 2))
    codes = torch.from_numpy(frame.to_numpy(int))
    before = float(coder._losses(codes, Taps()).detach().mean())
    for _ in range(60):
        coder.step(table, plan, rows=2000.0)
    assert float(coder._losses(codes, Taps()).detach().mean()) < before - 0.2
    assert table.reads == {"represent": 60}


def test_the_same_generator_makes_the_same_network():
    for first, second in zip(coders(7)._parameters, coders(7)._parameters, strict=True):
        torch.testing.assert_close(first, second)
    assert not torch.equal(coders(7).encode_1.weight, coders(8).encode_1.weight)


@pytest.mark.parametrize("widths", [((2,), 2), ((2, 2, 31), 5)])
def test_any_layout_can_be_represented(widths):
    layout = Layout(*widths)
    coder = coders(0, layout)
    coder.warm_up(torch.from_numpy(codes_of(layout, 40, 0)), steps=3)
    logits = coder.decode(coder.latent_mean(torch.from_numpy(codes_of(layout, 9, 1))))
    assert logits.shape == (9, layout.width)
    assert bool(logits.isfinite().all())
