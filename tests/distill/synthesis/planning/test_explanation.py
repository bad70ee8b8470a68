"""The reasons of a plan: one line for each choice, with the plan's own numbers in it, whatever was asked."""

import dataclasses

import pytest

from distill.data.schema import Schema
from distill.synthesis.planning.explanation import Choice, choices
from distill.synthesis.planning.plan import Plan, make_plan, target_bins
from distill.synthesis.planning.shares import Shares
from tests.fakes.private_tables import EVERY_KIND, category, number, schema_of

DELTA = 1e-5
NAMES = [f"share {f.name}" for f in dataclasses.fields(Shares)]
NUMBER = Schema.model_validate(
    {**EVERY_KIND.model_dump(), "target": "y", "columns": [*EVERY_KIND.features, number("y", 0, 1e5)]}
)
UNTARGETED = Schema.model_validate({**EVERY_KIND.model_dump(), "target": None, "columns": EVERY_KIND.features})
WIDE = schema_of(*(number(f"x{i}") for i in range(60)))
NARROW = schema_of(category("only", "a", "b"))


def planned(schema: Schema, rows: int = 20_000, **more: object) -> tuple[Plan, dict[str, Choice]]:
    plan = make_plan(schema, rows, epsilon=2.0, delta=DELTA, **more)
    made = choices(plan, schema)
    assert len({c.name for c in made}) == len(made)
    assert all(c.why and "\n" not in c.why for c in made)
    return plan, {c.name: c for c in made}


@pytest.mark.parametrize("schema", [EVERY_KIND, NUMBER, UNTARGETED, WIDE, NARROW])
@pytest.mark.parametrize("rows", [300, 20_000, 10**6])
def test_every_choice_of_any_plan_has_its_value_and_a_reason(schema, rows):
    plan, made = planned(schema, rows)
    assert list(made)[: len(NAMES)] == NAMES
    assert {"bins", "pairs", "candidates", "steps represent", "steps discriminate", "batch"} <= made.keys()
    assert sum(made[name].value for name in NAMES) == pytest.approx(1, abs=1e-3)
    for name in NAMES:
        assert made[name].value == pytest.approx(plan.shares.portion(name.removeprefix("share ")), abs=1e-4)
    assert (made["bins"].value, made["pairs"].value, made["candidates"].value) == (
        plan.bins,
        plan.pairs,
        plan.candidates,
    )
    assert made["steps discriminate"].value == plan.event("discriminate").count
    assert made["batch"].value == round(plan.event("discriminate").sampling_rate * rows)


def test_the_reason_for_bins_and_pairs_quotes_the_noise_of_this_plan():
    plan, made = planned(EVERY_KIND)
    noise = f"{plan.event('relate.pairs').cell_stddev:,.3g} rows"
    assert noise in made["bins"].why
    assert noise in made["pairs"].why
    assert made["pairs"].why.startswith("all pairs of 7 features")


def test_a_wide_table_says_how_many_pairs_there_are_and_a_narrow_one_that_there_are_none():
    assert planned(WIDE, 1000)[1]["pairs"].why.startswith(f"of {60 * 59 // 2} pairs those that a coarse pass")
    narrow = planned(NARROW)[1]
    assert (narrow["pairs"].value, narrow["pairs"].why) == (0, "one feature has no pairs")
    assert "no pairs" in narrow["bins"].why


def test_what_a_target_asks_for_is_explained():
    _, classes = planned(EVERY_KIND)
    plan, a_number = planned(NUMBER)
    _, nothing = planned(UNTARGETED)
    assert "target bins" not in classes
    assert a_number["target bins"].value == target_bins(plan.noisy_size, plan.epsilon)
    assert "head portion" in classes
    assert "head portion" not in nothing
    assert nothing["share discriminate"].why.startswith("the critic alone")
    assert "no target" in nothing["share pairs"].why
    assert not any("class" in c.why for c in nothing.values())


def test_scarce_signal_is_given_as_the_reason_for_other_shares():
    assert "as with plenty of signal" in planned(EVERY_KIND)[1]["share classes"].why
    scarce = planned(EVERY_KIND, 500)[1]
    assert "more than the usual 26.1%" in scarce["share classes"].why
    assert "less than the usual 29.6%" in scarce["share discriminate"].why


def test_a_share_set_by_hand_is_taken_in_proportion_and_says_so():
    plan, made = planned(EVERY_KIND, 500, shares={"pairs": 0.8})
    chosen, _ = planned(EVERY_KIND, 500)
    assert plan.shares == dataclasses.replace(chosen.shares, pairs=0.8)
    assert plan.by_hand == ("pairs",)
    assert "set by hand to 0.8" in made["share pairs"].why
    assert all("in proportion to those set by hand" in made[n].why for n in NAMES if n != "share pairs")
    assert plan.event("relate.pairs").noise_multiplier < chosen.event("relate.pairs").noise_multiplier
    assert plan.joint_epsilon <= 2
    whole, _ = planned(EVERY_KIND, 500, shares=plan.shares)
    assert whole.events == plan.events
