"""All stages in their order on small tables: every read planned and made, and rows that fit the schema come out."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from distill.common.compute import single_thread
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.errors import UnpaidReadError
from distill.privacy.noise import NoiseSource
from distill.synthesis.pipeline import Distilled, distil
from distill.synthesis.planning.plan import Plan
from tests.fakes.private_tables import (
    EVERY_KIND,
    SHORT,
    category,
    door,
    every_kind,
    integer,
    number,
    plan_of,
    schema_of,
)

STEPS = 8


def short(plan: Plan) -> Plan:
    """The plan with few DP-SGD steps, at their planned noise."""
    events = tuple(e.model_copy(update={"count": min(e.count, STEPS)}) for e in plan.events)
    return dataclasses.replace(plan, events=events, candidates=100)


def distilled(
    frame: pd.DataFrame, schema: Schema, *, epsilon: float = 2.0, noise: NoiseSource | None = None
) -> tuple[Distilled, dict[str, int], Plan]:
    plan = short(plan_of(schema, 2000, epsilon=epsilon))
    table = door(frame, schema, plan, noise or NoiseSource())
    return distil(table, plan, np.random.default_rng(0), effort=SHORT), table.reads, plan


def assert_complete(result: Distilled, reads: dict[str, int], plan: Plan, schema: Schema) -> None:
    """Every planned event after the size count was read exactly as often as planned, and the result can be drawn from."""
    assert reads == {e.name: e.count for e in plan.events if e.name != "size"}
    frame = result.generator.draw(300, np.random.default_rng(1))
    canonical_table(frame, schema, role="evaluate")  # raises if a value does not fit
    assert list(frame.columns) == [c.name for c in schema.columns]
    assert not frame["label"].isna().any()
    assert result.cluster_shares.sum() == pytest.approx(1)
    for array in (result.generator.logits, *result.generator.head, *result.generator.critic):
        assert np.isfinite(array).all()
    chances = np.exp(result.generator.class_log_probabilities(frame))
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-4)


def with_classes(*classes: object) -> Schema:
    raw = EVERY_KIND.model_dump()
    raw["columns"] = [*(c.model_dump() for c in EVERY_KIND.features), category("label", *classes)]
    return Schema.model_validate(raw)


@pytest.mark.parametrize("classes", [(0, 1), ("low", "mid", "high")], ids=["binary", "three classes"])
def test_a_table_of_every_kind_of_column_is_distilled(classes):
    schema = with_classes(*classes)
    assert_complete(*distilled(every_kind(2000, 0, schema), schema), schema)


def test_a_target_that_comes_first_is_distilled():
    raw = EVERY_KIND.model_dump()
    schema = Schema.model_validate({**raw, "columns": [raw["columns"][-1], *raw["columns"][:-1]]})
    frame = every_kind(1000, 1)
    result, reads, plan = distilled(frame[[c.name for c in schema.columns]], schema)
    assert_complete(result, reads, plan, schema)


def test_a_table_with_one_class_only_is_distilled():
    frame = every_kind(1500, 2).assign(label=1)
    result, reads, plan = distilled(frame, EVERY_KIND)
    assert_complete(result, reads, plan, EVERY_KIND)
    assert result.generator.draw(2000, np.random.default_rng(0))["label"].mean() > 0.9


@pytest.mark.parametrize(
    "feature",
    [number("x", nullable=True), integer("x", 0, 3), category("x", "a", "b", other=True, nullable=True)],
    ids=["number", "integer", "category"],
)
def test_two_columns_are_enough(feature):
    schema = schema_of(feature)
    rng = np.random.default_rng(0)
    values = {
        "continuous": rng.random(800),
        "integer": rng.integers(0, 4, 800),
        "categorical": rng.choice(["a", "b", "z"], 800),
    }
    frame = pd.DataFrame({"x": values[feature["kind"]], "label": rng.integers(0, 2, 800)})
    result, reads, plan = distilled(frame, schema)
    assert_complete(result, reads, plan, schema)
    assert result.pairs.pairs == []


def test_a_wide_table_is_scouted_and_distilled():
    rng = np.random.default_rng(0)
    schema = schema_of(*(number(f"x{i}") for i in range(50)), *(category(f"c{i}", *range(12)) for i in range(9)))
    frame = pd.DataFrame(rng.random((1000, 50)), columns=[f"x{i}" for i in range(50)])
    frame = frame.assign(**{f"c{i}": rng.integers(0, 12, 1000) for i in range(9)}, label=rng.integers(0, 2, 1000))
    result, reads, plan = distilled(frame, schema)
    assert plan.has("relate.scout")
    assert len(result.pairs.pairs) == plan.pairs
    assert_complete(result, reads, plan, schema)


def test_rows_of_one_unit_count_once():
    schema = EVERY_KIND.model_copy(update={"unit": "customer"})
    frame = every_kind(3000, 3).assign(customer=[f"c{i // 3}" for i in range(3000)])
    result, reads, plan = distilled(frame, schema, epsilon=8.0)
    assert_complete(result, reads, plan, EVERY_KIND)
    assert "customer" not in result.generator.draw(5, np.random.default_rng(0)).columns
    assert result.generator.noisy_rows == pytest.approx(1000, abs=100)


def test_a_table_with_far_more_noise_than_rows_is_distilled():
    """Nothing but noise: the plan was made for 200 rows at a tenth of epsilon, the table has 40."""
    plan = short(plan_of(EVERY_KIND, 200, epsilon=0.1))
    table = door(every_kind(40, 4), EVERY_KIND, plan, NoiseSource())
    assert_complete(distil(table, plan, np.random.default_rng(0), effort=SHORT), table.reads, plan, EVERY_KIND)


def test_columns_without_any_value_are_distilled():
    frame = every_kind(800, 5).assign(ratio=np.nan, late=np.nan, job=None, balance=0.0)
    result, reads, plan = distilled(frame, EVERY_KIND, epsilon=8.0)
    assert_complete(result, reads, plan, EVERY_KIND)
    assert result.generator.draw(1000, np.random.default_rng(0))["ratio"].isna().mean() > 0.8


def test_a_rehearsal_repeats_itself():
    frame = every_kind(600, 6)
    first, second = (distilled(frame, EVERY_KIND, noise=NoiseSource(7))[0] for _ in range(2))
    one, two = (r.generator.draw(100, np.random.default_rng(0)) for r in (first, second))
    pd.testing.assert_frame_equal(one, two)


def test_a_plan_that_is_not_reserved_reads_nothing():
    plan = short(plan_of(EVERY_KIND, 2000, epsilon=2.0))
    table = door(every_kind(300, 7), EVERY_KIND, plan)
    table._paid_by.events = plan.events[:1]
    with pytest.raises(UnpaidReadError):
        distil(table, plan, np.random.default_rng(0), effort=SHORT)
    assert table.reads == {}


def test_progress_is_told_stage_by_stage():
    told: list[tuple[str, int, int]] = []
    plan = short(plan_of(EVERY_KIND, 2000, epsilon=2.0))
    table = door(every_kind(400, 8), EVERY_KIND, plan)
    distil(table, plan, np.random.default_rng(0), lambda *step: told.append(step), effort=SHORT)
    order = list(dict.fromkeys(stage for stage, _, _ in told))
    assert order == ["encode", "relate", "represent", "cluster", "refine", "select"]
    assert all(0 <= done <= total for _, done, total in told)
    finished = {stage for stage, done, total in told if done == total}
    assert finished == set(order)


def test_torch_gets_its_threads_back():
    before = torch.get_num_threads()
    inside = []

    def fail() -> None:
        with single_thread():
            inside.append(torch.get_num_threads())
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert inside == [1]
    assert torch.get_num_threads() == before


@pytest.mark.nightly
def test_a_planted_relation_survives_at_full_length(monkeypatch):
    """All steps, 6,000 rows, epsilon 4: the head ranks fresh real rows, and drawn rows tie columns as the real ones do."""
    monkeypatch.undo()
    schema = schema_of(number("ratio"), integer("age", 18, 100), category("job", "a", "b", "c"))
    rng = np.random.default_rng(0)

    def rows(n: int) -> pd.DataFrame:
        ratio = rng.beta(2, 5, n)
        job = np.where(rng.random(n) < ratio, "a", rng.choice(["b", "c"], n))
        chance = 1 / (1 + np.exp(3 - 8 * ratio - (job == "a")))
        return pd.DataFrame(
            {"ratio": ratio, "age": rng.integers(18, 90, n), "job": job, "label": (rng.random(n) < chance).astype(int)}
        )

    real, fresh = rows(6000), rows(4000)
    plan = plan_of(schema, 6000, epsilon=4.0)
    table = door(real, schema, plan, NoiseSource())
    generator = distil(table, plan, np.random.default_rng(0)).generator
    log_odds = np.diff(generator.class_log_probabilities(fresh), axis=1)[:, 0]
    best = roc_auc_score(fresh["label"], 8 * fresh["ratio"] + (fresh["job"] == "a"))
    assert roc_auc_score(fresh["label"], log_odds) > best - 0.03
    drawn = generator.draw(6000, np.random.default_rng(1))
    assert drawn["label"].mean() == pytest.approx(real["label"].mean(), abs=0.03)
    for frame in (real, drawn):
        assert frame.loc[frame["job"] == "a", "ratio"].mean() - frame.loc[frame["job"] != "a", "ratio"].mean() > 0.08
