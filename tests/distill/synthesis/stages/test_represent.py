"""Stage 3: the autoencoder's private gradient is the clipped sum it claims to be, and it learns what columns share."""

import numpy as np
import pytest
import scipy.stats
import torch

from distill.privacy.events import Event
from distill.privacy.record_gradients import Variational
from distill.synthesis.generator.draws import draw_normal
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.planning.plan import Plan
from distill.synthesis.stages import represent
from tests.fakes.private_tables import FALSE_ALARM, Batch, door, every_kind, plan_of, schema_of

LAYOUT = Layout((4, 3, 6), 2)


def coders(seed: int, layout: Layout = LAYOUT) -> represent.Autoencoder:
    return represent.Autoencoder(layout, np.random.default_rng(seed))


def codes_of(layout: Layout, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, w, n) for w in layout.widths], axis=1)


def plan_with(rate: float = 0.5) -> Plan:
    event = Event(name="represent", mechanism="poisson_gaussian", noise_multiplier=1.0, sampling_rate=rate, count=9)
    return Plan(epsilon=1, delta=1e-5, noisy_size=100, events=(event,), bins=8, pairs=1, candidates=10)


def losses_of(coder: represent.Autoencoder, asked: Variational, codes: np.ndarray) -> torch.Tensor:
    """The stage's own loss of each record, with the latent noise that the door was told to give it."""
    mixed = (codes.astype(object) * asked.multipliers.astype(object)).sum(axis=1) % len(asked.pool)
    noise = asked.pool[mixed.astype(int)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(represent, "draw_normal", lambda shape, rng: torch.as_tensor(noise.astype(np.float32)))
        return coder._losses(torch.from_numpy(codes))


def clipped_sum(coder: represent.Autoencoder, asked: Variational, codes: np.ndarray) -> np.ndarray:
    """A loop over records."""
    losses = losses_of(coder, asked, codes)
    total = np.zeros(sum(p.numel() for p in coder._parameters))
    for loss in losses:
        grads = torch.autograd.grad(loss, coder._parameters, retain_graph=True)
        flat = np.concatenate([g.numpy().ravel() for g in grads])
        total += flat / max(float(np.linalg.norm(flat)), 1.0)
    return total


def before_the_step(coder: represent.Autoencoder, batch: Batch) -> represent.Autoencoder:
    """The network whose gradient was asked for; the step has moved the one that asked."""
    (asked,) = batch.asked
    twin = coders(0, coder.layout)
    with torch.no_grad():
        for layer, (weight, bias) in zip(twin._layers, asked.layers, strict=True):
            layer.weight.copy_(torch.as_tensor(weight))
            layer.bias.copy_(torch.as_tensor(bias))
    return twin


def test_the_gradient_equals_a_loop_over_records(seed):
    coder, codes = coders(seed), codes_of(LAYOUT, 30, seed)
    weights = [p.detach().clone() for p in coder._parameters]
    batch = Batch(codes)
    coder.step(batch, plan_with(), rows=100.0)
    (asked,) = batch.asked
    assert (batch.event, asked.clip, asked.share) == ("represent", 1.0, 1.0)
    asker = before_the_step(coder, batch)
    assert all(torch.equal(one, other) for one, other in zip(weights, asker._parameters, strict=True))
    expected = clipped_sum(asker, asked, codes)
    assert np.linalg.norm(batch.sums[0] - expected) < 1e-3 * np.linalg.norm(expected)


def test_one_record_alone_has_a_gradient_of_norm_at_most_one(seed):
    coder = coders(seed)
    with torch.no_grad():
        for parameter in coder._parameters:
            parameter.mul_(30)  # far from the start, where gradients are large
    for row in codes_of(LAYOUT, 20, seed):
        batch = Batch(row[None])
        coder.step(batch, plan_with(), rows=100.0)
        assert np.linalg.norm(batch.sums[0]) <= 1


def test_each_step_has_latent_noise_of_its_own_and_it_is_normal(seed):
    """It is drawn before any record is seen, as often for no record as for many."""
    coder, other, pools = coders(seed), coders(seed), []
    for n in (0, 40, 7):
        batch, twin = Batch(codes_of(LAYOUT, n, seed)), Batch(codes_of(LAYOUT, 3 * n, seed + 1))
        coder.step(batch, plan_with(), rows=100.0)
        other.step(twin, plan_with(), rows=100.0)
        ((asked,), (told,)) = batch.asked, twin.asked
        np.testing.assert_array_equal(asked.pool, told.pool)
        np.testing.assert_array_equal(asked.multipliers, told.multipliers)
        assert (asked.pool.shape, asked.log_variance) == ((represent.POOL, represent.LATENT), (-8.0, 4.0))
        assert (asked.multipliers % 2 == 1).all()
        pools.append(asked.pool.ravel())
    assert coder.rng.random() == other.rng.random()
    assert scipy.stats.kstest(np.concatenate(pools), "norm").pvalue > FALSE_ALARM
    assert abs(np.corrcoef(pools)[np.triu_indices(3, 1)]).max() < 6 / len(pools[0]) ** 0.5


def test_the_noisy_row_count_and_the_rate_normalise_the_gradient():
    for rows, rate in ((100.0, 0.5), (1e4, 0.02)):
        coder, batch = coders(1), Batch(codes_of(LAYOUT, 12, 1))
        coder.step(batch, plan_with(rate), rows=rows)
        got = np.concatenate([p.grad.numpy().ravel() for p in coder._parameters])
        np.testing.assert_allclose(got, batch.sums[0] / (rows * rate), rtol=1e-6)


def test_an_empty_sample_still_takes_a_step():
    coder, batch = coders(2), Batch(codes_of(LAYOUT, 0, 0))
    coder.step(batch, plan_with(), rows=100.0)
    assert batch.sums[0].shape == (sum(p.numel() for p in coder._parameters),)


def test_decoded_samples_keep_what_columns_share():
    """Column 1 repeats column 0; the class is its parity."""
    layout = Layout((4, 4), 2)
    first = np.random.default_rng(0).choice(4, 3000, p=[0.4, 0.3, 0.2, 0.1])
    coder = coders(0, layout)
    coder.warm_up(torch.from_numpy(np.stack([first, first, first % 2], axis=1)), steps=300)
    logits = coder.decode(draw_normal((3000, represent.LATENT), coder.rng))
    assert logits.shape == (3000, layout.width)
    drawn = layout.draw(logits, coder.rng).numpy()
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
    before = float(coder._losses(codes).detach().mean())
    for _ in range(60):
        coder.step(table, plan, rows=2000.0)
    assert float(coder._losses(codes).detach().mean()) < before - 0.2
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
