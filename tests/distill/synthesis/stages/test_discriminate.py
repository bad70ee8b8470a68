"""Stage 5's discriminator: one bounded vector a record for both heads together, and heads that learn."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy, softplus

from distill.privacy.noise import NoiseSource
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.planning.plan import Plan, make_plan
from distill.synthesis.stages import discriminate
from distill.synthesis.stages.discriminate import Discriminator, head_step, naive_bayes
from distill.synthesis.statistics.counts import ClassCounts
from tests.fakes.private_tables import Batch, NoNoise, category, door, plan_of, schema_of, statistics_of

WIDTHS = (4, 3, 5)


def score_of(values: np.ndarray) -> np.ndarray:
    return 1.5 * (values[:, 0] - 1.5) + 0.8 * ((values[:, 1] + values[:, 2]) - 3)


def rows_of(n: int, classes: int, seed: int) -> np.ndarray:
    """Codes with the class last; it follows column 0 and the sum of columns 1 and 2."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(0, w, n) for w in WIDTHS], axis=1)
    chances = np.exp(np.outer(score_of(values), np.arange(classes)))
    chances /= chances.sum(axis=1, keepdims=True)
    label = (rng.random((n, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return np.column_stack([values, label])


def schema_for(classes: int):
    columns = [category(f"c{i}", *range(w)) for i, w in enumerate(WIDTHS)]
    return schema_of(*columns, classes=tuple(range(classes)))


def start(rows: np.ndarray, plan: Plan, classes: int, seed: int = 0) -> Discriminator:
    counts, _ = statistics_of(rows, WIDTHS, classes)
    return Discriminator(Layout(WIDTHS, classes), counts, plan, np.random.default_rng(seed))


def gradient(model: Discriminator, plan: Plan, codes: np.ndarray) -> np.ndarray:
    """The sum that the table adds noise to, both heads in one vector, without moving the model."""
    batch = Batch(codes)
    batch.reads = {"discriminate": 1}
    before = {id(p): p.detach().clone() for p in parameters(model)}
    model.step(
        batch, plan, torch.from_numpy(codes[:1]) if len(codes) else torch.zeros(1, 4, dtype=torch.int64), rows=100
    )
    with torch.no_grad():
        for p in parameters(model):
            p.copy_(before[id(p)])
    assert batch.event == "discriminate"
    assert {asked.clip for asked in batch.asked} == {1.0}
    assert sum(asked.share for asked in batch.asked) == pytest.approx(1, abs=1e-15)
    return np.concatenate(batch.sums)


def parameters(model: Discriminator) -> list[torch.Tensor]:
    return [p for layer in (model.head, model.hidden, model.out) for p in layer.parameters()]


def expected_gradient(model: Discriminator, plan: Plan, codes: np.ndarray) -> np.ndarray:
    """A loop over records: head and critic gradients, each clipped to its portion, side by side."""
    layout, total = model.layout, 0.0
    for row in torch.from_numpy(codes):
        features = layout.one_hot(row[None, :-1]) / len(WIDTHS) ** 0.5
        parts = []
        for loss, layers, portion in (
            (cross_entropy(model.head(features), row[None, -1]), [model.head], plan.head_portion),
            (softplus(-model.score(layout.one_hot(row[None]))).sum(), [model.hidden, model.out], 1 - plan.head_portion),
        ):
            own = [p for layer in layers for p in layer.parameters()]
            flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, own)])
            parts.append(portion**0.5 * flat / max(float(flat.norm()), 1.0))
        total = total + torch.cat(parts).numpy()
    return total


@pytest.fixture(params=[2, 3], ids=["binary", "three classes"])
def classes(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def plan(classes: int) -> Plan:
    return plan_of(schema_for(classes), 3000, steps=80)


def test_the_gradient_equals_a_loop_over_records(classes, plan, seed):
    rows = rows_of(3000, classes, seed)
    model = start(rows, plan, classes, seed)
    for scale in (1.0, 20.0):  # 20: weights so large that records are clipped
        with torch.no_grad():
            for p in parameters(model):
                p.mul_(scale)
        expected = expected_gradient(model, plan, rows[:40])
        off = gradient(model, plan, rows[:40]) - expected
        assert np.linalg.norm(off) < 1e-3 * np.linalg.norm(expected) + 1e-3


@pytest.mark.parametrize("portion", [0.05, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_one_record_moves_both_heads_together_by_at_most_one(classes, plan, portion, scale, seed):
    rows = rows_of(200, classes, seed)
    plan = dataclasses.replace(plan, head_portion=portion)
    model = start(rows, plan, classes, seed)
    with torch.no_grad():
        for p in parameters(model):
            p.mul_(scale)
    for row in rows[:10]:
        assert np.linalg.norm(gradient(model, plan, row[None])) <= 1
    moved = gradient(model, plan, rows[:60]) - gradient(model, plan, rows[1:60])
    assert np.linalg.norm(moved) <= 1


def test_an_empty_sample_gives_zeros(classes, plan):
    rows = rows_of(100, classes, 0)
    model = start(rows, plan, classes)
    empty = gradient(model, plan, rows[:0])
    assert empty.shape == (sum(p.numel() for p in parameters(model)),)
    assert not empty.any()


def trained(classes: int, plan: Plan, source: NoiseSource, seed: int) -> tuple[Discriminator, np.ndarray]:
    """A discriminator trained against fakes that take features at random, and fresh rows to judge it on."""
    rows = rows_of(3000, classes, seed)
    schema = schema_for(classes)
    table = door(pd.DataFrame(rows, columns=[c.name for c in schema.columns]), schema, plan, source)
    table.recode([lambda leaves: leaves] * 4, target=3)
    model = start(rows, plan, classes, seed)
    rng = np.random.default_rng(seed)
    for _ in range(plan.event("discriminate").count):
        model.step(table, plan, torch.from_numpy(rng.permuted(rows[:500], axis=0)), rows=3000.0)
    assert table.reads == {"discriminate": plan.event("discriminate").count}
    return model, rows_of(2000, classes, seed + 1000)


def test_the_class_head_learns_the_planted_relation(classes, plan, seed):
    model, fresh = trained(classes, plan, NoiseSource(seed), seed)
    weight, bias = model.averaged_head()
    assert weight.shape == (classes, sum(WIDTHS))
    cells = fresh[:, :-1] + np.array([0, 4, 7])
    logits = weight.T[cells].sum(axis=1) + bias
    top = fresh[:, -1] == classes - 1
    assert roc_auc_score(top, logits[:, -1] - logits[:, 0]) > roc_auc_score(top, score_of(fresh)) - 0.02
    chances = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    np.testing.assert_allclose(chances.mean(axis=0), np.bincount(fresh[:, -1]) / len(fresh), atol=0.08)


def test_the_critic_prefers_real_rows_to_fakes_without_the_relation(classes, plan, seed):
    model, fresh = trained(classes, plan, NoNoise(), seed)
    fakes = np.random.default_rng(seed).permuted(fresh, axis=0)
    with torch.no_grad():
        real, fake = (model.score(model.layout.one_hot(torch.from_numpy(r))).numpy() for r in (fresh, fakes))
    assert roc_auc_score(np.r_[np.ones(len(real)), np.zeros(len(fake))], np.r_[real, fake]) > 0.6


def test_the_head_that_is_kept_is_the_average_of_the_second_half(classes, plan):
    plan = dataclasses.replace(
        plan, events=tuple(e.model_copy(update={"count": 6} if e.name == "discriminate" else {}) for e in plan.events)
    )
    rows = rows_of(200, classes, 0)
    model, batch, seen = start(rows, plan, classes), Batch(rows), []
    for i in range(6):
        batch.reads = {"discriminate": i + 1}
        model.step(batch, plan, torch.from_numpy(rows[:50]), rows=200.0)
        seen.append(model.head.weight.detach().clone().numpy() / len(WIDTHS) ** 0.5)
    np.testing.assert_allclose(model.averaged_head()[0], np.mean(seen[3:], axis=0), rtol=1e-5)


def test_naive_bayes_is_the_log_ratio_of_each_bin(classes):
    rows = rows_of(200_000, classes, 1)
    counts, _ = statistics_of(rows, WIDTHS, classes)
    weight, bias = naive_bayes(counts)
    given = np.concatenate([c / c.sum(axis=1, keepdims=True) for c in counts.by_column], axis=1)
    pooled = np.concatenate(counts.shares)
    np.testing.assert_allclose(weight.numpy(), np.log(given / pooled), atol=0.01)
    np.testing.assert_allclose(bias.numpy(), np.log(counts.prior), atol=1e-5)


def test_a_bin_that_a_class_never_showed_has_bounded_odds():
    counts = ClassCounts(np.array([1000.0, 1.0]), [np.array([[1000.0, 0.0], [0.0, 1.0]])], 2.0)
    weight, bias = naive_bayes(counts)
    assert bool(weight.isfinite().all() and bias.isfinite().all())
    assert float(weight.abs().max()) < 12


def test_the_fake_half_reads_no_row_and_moves_the_critic_alone(classes, plan):
    rows = rows_of(100, classes, 0)
    model = start(rows, plan, classes)
    head, hidden = model.head.weight.detach().clone(), model.hidden.weight.detach().clone()
    batch = Batch(rows[:0])
    batch.reads = {"discriminate": 1}
    model.step(batch, plan, torch.from_numpy(rows), rows=100.0)
    assert torch.equal(model.head.weight, head)
    assert not torch.equal(model.hidden.weight, hidden)


def test_the_event_is_the_one_that_the_plan_names(plan):
    assert plan.event(discriminate.EVENT).mechanism == "poisson_gaussian"


def test_heads_that_will_be_averaged_may_each_carry_more_noise():
    """The average of K heads has their noise over sqrt(K), so each may have sqrt(K) times that of a head alone."""
    small = schema_of(category("a", 3), category("b", 4))
    alone, pooled, many = (make_plan(small, 1000, epsilon=0.5, delta=1e-5, institutions=n) for n in (1, 4, 10**6))
    assert alone.events == pooled.events
    assert head_step(pooled, 1000) == pytest.approx(2 * head_step(alone, 1000))
    assert head_step(many, 1000) == discriminate.HEAD_STEP


def test_without_classes_the_critic_alone_has_the_whole_norm(seed):
    """Brute force against the fast path, and the sensitivity, where there is no target (one class, portion 0)."""
    rows = rows_of(500, 2, seed)
    rows[:, -1] = 0
    plan = dataclasses.replace(plan_of(schema_for(2), 3000, steps=80), head_portion=0.0)
    model = start(rows, plan, 1, seed)
    before = model.head.weight.detach().clone()
    for scale in (1.0, 15.0):
        with torch.no_grad():
            for p in (*model.hidden.parameters(), *model.out.parameters()):
                p.mul_(scale)
        expected = expected_gradient(model, plan, rows[:40])
        head = sum(p.numel() for p in model.head.parameters())
        assert not expected[:head].any()
        off = gradient(model, plan, rows[:40]) - expected[head:]
        assert np.linalg.norm(off) < 1e-3 * np.linalg.norm(expected) + 1e-3
        for row in rows[:10]:
            assert np.linalg.norm(gradient(model, plan, row[None])) <= 1
    with torch.no_grad():
        model.out.bias.fill_(-1e4)  # sure that every row is fake: the gradient is as large as it gets
    norms = [np.linalg.norm(gradient(model, plan, row[None])) for row in rows[:5]]
    np.testing.assert_allclose(norms, 1, rtol=1e-4)  # clipped at the whole norm, not at a part of it
    assert torch.equal(model.head.weight, before)
    assert all(not part.any() for part in model.averaged_head())
