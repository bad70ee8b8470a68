"""Variants of the ablation cost what the whole costs, hold and read nothing of what they switch off, and put all of it back."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.quality import (
    ablation,
    variants,
)
from distill.data.demo import demo_schema, mixed_table
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.privacy.events import Event
from distill.privacy.record_gradients import Network
from distill.synthesis.effort import Effort
from distill.synthesis.generator import generator
from distill.synthesis.generator.generator import Generator
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.planning.plan import Plan, make_plan
from distill.synthesis.stages import cluster, discriminate, refine, represent
from tests.fakes.private_tables import EVERY_KIND, category, door, every_kind, schema_of, statistics_of, toy_generator

ROWS, DELTA = 1_200, 1e-5
NAMES = list(variants.VARIANTS)
GONE = {"no_pairs": ("relate",), "no_vae": ("represent", "cluster"), "no_clusters": ("cluster",)}  # events, by stage


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return mixed_table(rows=ROWS, rng=np.random.default_rng(0))


def plan_of(name: str, epsilon: float) -> Plan:
    return variants.VARIANTS[name].plan(demo_schema(), 20_000, epsilon=epsilon, delta=DELTA)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_variant_spends_the_whole_grant_and_nothing_on_what_it_lacks(name: str, epsilon: float) -> None:
    plan, whole = plan_of(name, epsilon), plan_of("whole", epsilon)
    assert 0.98 < plan.joint_epsilon / epsilon <= 1.0
    gone = {e.name for e in whole.events if e.name.partition(".")[0] in GONE.get(name, ())}
    assert set(GONE.get(name, ())) == {e.partition(".")[0] for e in gone}
    assert [e.name for e in plan.events] == [e.name for e in whole.events if e.name not in gone]
    assert plan.bins == whole.bins
    assert plan.head_portion == {"no_critic": 1.0, "no_head": 0.0}.get(name, whole.head_portion)


@pytest.mark.parametrize("name", GONE)
def test_a_freed_budget_goes_to_all_others_in_proportion(name: str) -> None:
    """Gaussian releases all get the same factor less noise; training gets less too, by its own calibration."""
    plan, whole = plan_of(name, 2.0), plan_of("whole", 2.0)
    factors = {e.name: e.noise_multiplier / whole.event(e.name).noise_multiplier for e in plan.events}
    assert factors.pop("size") == 1.0
    gaussian = [factors[e.name] for e in plan.events if e.mechanism == "gaussian"]
    assert np.ptp(gaussian) < 1e-9
    assert all(0.5 < factor < 0.999 for factor in factors.values())


def test_the_whole_is_what_a_fit_plans() -> None:
    assert plan_of("whole", 2.0) == make_plan(demo_schema(), 20_000, epsilon=2.0, delta=DELTA)


def test_without_pairs_a_wide_table_has_no_scouting_pass_either() -> None:
    wide = schema_of(*(category(f"c{i}", "u", "v") for i in range(40)))
    whole, without = (
        variants.VARIANTS[name].plan(wide, 20_000, epsilon=2.0, delta=DELTA) for name in ("whole", "no_pairs")
    )
    assert whole.has("relate.scout")
    assert whole.has("relate.pairs")
    assert not any(e.name.startswith("relate") for e in without.events)
    assert without.pairs == 0
    assert 0.98 < without.joint_epsilon / 2.0 <= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_puts_back_what_it_replaced_even_after_an_error(name: str) -> None:
    variant = variants.VARIANTS[name]
    before = [getattr(owner, attribute) for owner, attribute, _ in variant.seams]

    def halfway() -> None:
        with variant.running():
            assert all(getattr(owner, attribute) is instead for owner, attribute, instead in variant.seams)
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        halfway()
    assert all(getattr(o, a) is b for (o, a, _), b in zip(variant.seams, before, strict=True))


def quick_fit(name: str, frame: pd.DataFrame, patch: pytest.MonkeyPatch) -> ablation.Fitted:
    """A fit with few steps; call it inside the variant's block."""
    effort = Effort(
        first_steps=5,
        warm_up_steps=5,
        settle_before=5,
        settle_after=5,
        private_samples=300,
        adversarial_rows=50,
        trial_rows=500,
    )
    plan_in_full = variants.Variant.plan

    def shortened(self: variants.Variant, schema: Schema, size: int, **budget: float) -> Plan:
        plan = plan_in_full(self, schema, 20_000, **budget)  # one plan for all tests
        few = tuple(e.model_copy(update={"count": min(e.count, 4)}) for e in plan.events)
        return dataclasses.replace(plan, events=few)

    patch.setattr(variants.Variant, "plan", shortened)
    return ablation.fit(variants.VARIANTS[name], frame, demo_schema(), 0, epsilon=2.0, delta=DELTA, effort=effort)


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_reads_all_that_it_planned_and_draws_whole_rows(
    name: str, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    with variants.VARIANTS[name].running():
        fitted = quick_fit(name, frame, monkeypatch)
        drawn = fitted.generator.draw(300, np.random.default_rng(0))
    assert fitted.reads == {e.name: e.count for e in fitted.plan.events}
    assert len(canonical_table(drawn, demo_schema())) == 300
    assert np.isfinite(fitted.generator.logits).all()
    assert all(np.isfinite(part).all() for part in fitted.generator.head)
    assert 0 <= ablation.head_auc(fitted.generator, frame) <= 1
    assert (fitted.generator.critic is None) == (name == "no_critic")
    assert isinstance(fitted.generator, variants.OwnClasses) == (name == "no_head")
    if name in ("no_rejection", "no_selection"):
        assert fitted.generator.critic_power == 0


def test_a_reads_noise_follows_seed_event_and_run_alone(frame: pd.DataFrame) -> None:
    steps = [Event(name=n, mechanism="poisson_gaussian", noise_multiplier=1.0, count=3) for n in ("one", "other")]

    def noise(seed: int, *names: str) -> list[np.ndarray]:
        table = ablation.SharedLuck(frame, demo_schema(), ablation.Paid(tuple(steps)), seed)
        table.recode([np.zeros_like] * len(demo_schema().columns), target=0)
        flat = Network(((np.zeros((2, 60)), np.zeros(2)),), loss="classes", starts=np.zeros(1, dtype=int))
        return [table.noisy_gradient(n, [flat])[0][61:120] for n in names]

    first, second = noise(0, "one", "one")
    other, again = noise(0, "other", "one")
    assert np.array_equal(first, again)
    different = [first, second, other, *noise(1, "one")]
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.8 for a, b in itertools.combinations(different, 2))


@pytest.mark.parametrize(
    ("name", "owner", "attribute"),
    [
        ("no_vae", represent.Autoencoder, "__init__"),
        ("no_vae", cluster, "nearest"),
        ("no_vae", refine, "start_from_clusters"),
        ("no_clusters", cluster, "nearest"),
        ("no_critic", discriminate.Discriminator, "critic_gradient"),
        ("no_critic", Generator, "critic_logit"),
        ("no_head", discriminate.Discriminator, "head_gradient"),
        ("no_head", generator, "balanced_labels"),
        ("no_rejection", Generator, "critic_logit"),
    ],
)
def test_what_a_variant_lacks_is_never_run_and_the_whole_runs_it(
    name: str, owner: Any, attribute: str, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trap(*arguments: Any, **named: Any) -> None:
        raise AssertionError("a switched-off part ran")

    monkeypatch.setattr(owner, attribute, trap)
    with variants.VARIANTS[name].running():
        quick_fit(name, frame, monkeypatch).generator.draw(10, np.random.default_rng(0))
    with pytest.raises(AssertionError, match="a switched-off part ran"):
        quick_fit("whole", frame, monkeypatch).generator.draw(10, np.random.default_rng(0))


@pytest.mark.parametrize(("name", "listens"), [("whole", True), ("no_critic", False)])
def test_without_a_critic_the_adversarial_term_weighs_nothing(
    name: str, listens: bool, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    step = refine.Candidates.step

    def noted(self: refine.Candidates, adversarial: Any = None, strength: float = 0.0) -> tuple[float, float]:
        weights.append(strength)
        return step(self, adversarial, strength)

    monkeypatch.setattr(refine.Candidates, "step", noted)
    with variants.VARIANTS[name].running():
        quick_fit(name, frame, monkeypatch)
    assert len(weights) > 10
    assert (max(weights) > 0) == listens


def test_the_head_alone_steps_as_it_does_beside_the_critic() -> None:
    """Without noise the clip's division cancels, so at one step size both heads agree; the critic stays as it began."""
    schema, plan = EVERY_KIND, make_plan(EVERY_KIND, 400, epsilon=8.0, delta=DELTA)
    codes = np.random.default_rng(0).integers(0, 3, (400, len(schema.columns)))
    codes[:, -1] %= 2
    layout = Layout((3,) * (len(schema.columns) - 1), 2)
    counts, _ = statistics_of(codes, layout.features, 2)
    fake = torch.zeros(5, len(layout.widths), dtype=torch.int64)
    made = []
    for kind, portion in ((discriminate.Discriminator, plan.head_portion), (variants.HeadAlone, 1.0)):
        divided = dataclasses.replace(plan, head_portion=portion)
        table = door(every_kind(400, 0), schema, divided)
        table.recode([lambda cells: cells % 3] * (len(schema.columns) - 1) + [lambda cells: cells], target=7)
        network = kind(layout, counts, plan, np.random.default_rng(0))  # one plan, and so one step size, for both
        start = network.head.weight.detach().clone()
        before = network.hidden.weight.detach().clone()
        for _ in range(3):
            network.step(table, divided, fake, rows=400.0)
        made.append((network, before))
    (both, moved), (alone, kept) = made
    assert not torch.equal(both.hidden.weight, moved)
    assert torch.equal(alone.hidden.weight, kept)
    assert (alone.head.weight - start).abs().max() > 1e-3
    torch.testing.assert_close(alone.head.weight - start, both.head.weight - start, rtol=1e-4, atol=1e-6)


def test_rows_keep_their_records_class_without_a_head() -> None:
    """Two records that share no value: the class of every row is told by any of its columns."""
    toy = toy_generator(records=2)
    logits = np.full(toy.logits.shape, -30.0)
    for start in toy.layout.starts[:-1]:
        logits[0, start], logits[1, start + 1] = 30.0, 30.0
    known = {f.name: getattr(toy, f.name) for f in dataclasses.fields(Generator) if f.init} | {"logits": logits}
    own = variants.OwnClasses(**known, classes=np.array([1, 0]))
    for codes in (own.draw_codes(2_500, np.random.default_rng(0)), own.draw_codes(50, np.random.default_rng(1))):
        assert (codes[:, -1] == 1 - codes[:, 0]).all()
        assert set(codes[:, 0]) == {0, 1}
    assert len(codes) == 50


def test_without_selection_the_pool_is_kept_as_it_is() -> None:
    """Of 20,000 rows 80 % have a value that the released shares give 10 %: only selection moves it (noise below .01)."""
    toy = toy_generator()
    shares = [np.full(len(s), 1 / len(s)) for s in toy.shares]
    shares[0] = np.array([0.1] + [0.9 / (len(shares[0]) - 1)] * (len(shares[0]) - 1))
    toy = dataclasses.replace(toy, shares=tuple(shares), critic=None)
    rng = np.random.default_rng(0)
    pool = np.stack([rng.integers(0, w, 20_000) for w in toy.layout.widths], axis=1)
    pool[:16_000, 0] = 0
    pool[16_000:, 0] = rng.integers(1, toy.layout.widths[0], 4_000)
    pool = rng.permutation(pool)

    def kept(name: str) -> float:
        with variants.VARIANTS[name].running():
            return float((pool[toy.select(pool, 10_000, np.random.default_rng(1)), 0] == 0).mean())

    assert kept("no_selection") == pytest.approx(0.8, abs=0.01)
    assert kept("no_choosing") == pytest.approx(0.1, abs=0.03)
    assert kept("whole") < 0.2
    assert kept("no_raking") < kept("no_selection") - 0.05  # choosing by pairs makes up for part of it


def test_differences_are_taken_seed_by_seed() -> None:
    line = {"table": "t", "epsilon": 2.0, "head_auc": 0.8, "fit_cpu_seconds": 3.0}
    results = [
        line | {"seed": 0, "variant": "whole", "auc": 0.70, "tvd2": 0.10, "what": "all"},
        line | {"seed": 0, "variant": "no_vae", "auc": 0.69, "tvd2": 0.12, "what": "less"},
        line | {"seed": 1, "variant": "whole", "auc": 0.80, "tvd2": 0.20, "what": "all"},
        line | {"seed": 1, "variant": "no_vae", "auc": 0.77, "tvd2": 0.22, "what": "less"},
        line | {"seed": 2, "variant": "no_vae", "auc": 0.10, "tvd2": 0.90, "what": "less"},  # no whole: left out
    ]
    lines = ablation.markdown(results).splitlines()
    assert lines[2] == "| t | 2 | whole | 2 | 0.7500 | 0.8000 | 0.1500 |  |  |  | 3 |"
    assert lines[3] == (
        "| t | 2 | no_vae | 2 | 0.7300 | 0.8000 | 0.1700 | -0.0200 ± 0.0141 | +0.0000 ± 0.0000 | +0.0200 ± 0.0000 | 3 |"
    )
    assert lines[-1] == "- `no_vae`: less"


def test_earlier_results_are_joined_and_the_later_file_wins(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    line = {"table": "t", "epsilon": 2.0, "variant": "whole"}
    pd.DataFrame([line | {"seed": 0, "auc": 0.6}, line | {"seed": 1, "auc": 0.7}]).to_csv(one, index=False)
    pd.DataFrame([line | {"seed": 1, "auc": 0.8}]).to_csv(two, index=False)
    assert [(r["seed"], r["auc"]) for r in ablation.read_results([one, two])] == [(0, 0.6), (1, 0.8)]


def test_the_heads_auc_is_the_share_of_pairs_in_order(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    made = quick_fit("whole", frame, monkeypatch).generator
    scores = made.class_log_probabilities(frame)[:, 1]
    truth = frame["default"].astype(str).to_numpy() == str(demo_schema().classes[1])
    gaps = scores[truth][:, None] - scores[~truth]
    assert ablation.head_auc(made, frame) == pytest.approx(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def test_an_unknown_variant_is_named_with_those_there_are() -> None:
    with pytest.raises(SystemExit, match="--variants no_magic: choose from whole, no_pairs"):
        ablation.chosen_variants(["no_magic"])
    assert [v.name for v in ablation.chosen_variants(["no_vae"])] == ["whole", "no_vae"]


@pytest.mark.nightly
def test_the_quick_size_runs_from_table_to_picture_and_goes_on_from_its_file(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two variants in small; keeps the benchmark alive, judges nothing. A second call runs nothing again."""
    frame.to_parquet(tmp_path / "loans.parquet")
    (tmp_path / "loans.schema.json").write_text(demo_schema().model_dump_json(exclude_none=True))
    out, plot = tmp_path / "ablation.csv", tmp_path / "ablation.png"
    command = ["--quick", "--data", str(tmp_path), "--out", str(out), "--plot", str(plot)]
    assert ablation.main(command) == 0
    results = pd.read_csv(out)
    assert list(results["variant"]) == ["whole", "no_pairs"]
    assert results[["auc", "head_auc", "tvd2"]].gt(0).all(axis=None)
    assert results["joint_epsilon"].between(1.96, 2.0).all()
    assert plot.read_bytes().startswith(b"\x89PNG")
    first = capsys.readouterr().out
    assert sum(line.startswith("loans epsilon 2 seed 0 ") for line in first.splitlines()) == 2
    monkeypatch.setattr(ablation, "fit", None)
    assert ablation.main([*command, "--read", str(out)]) == 0
    table = capsys.readouterr().out
    assert first.endswith(table)
