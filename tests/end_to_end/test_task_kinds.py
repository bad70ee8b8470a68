"""The whole job by command for every kind of task: a number as the target, no target at all, and a rare third class."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distill.exchange.generator_codec import generator_of
from tests.end_to_end.small_banks import DELTA, EPSILON, Bank, distill, make_bank, quicken, refusal, result_of

FEATURES: list[dict[str, Any]] = [
    {"name": "age", "kind": "integer", "min": 18, "max": 100},
    {"name": "score", "kind": "continuous", "min": 0, "max": 1, "nullable": True},
    {"name": "region", "kind": "categorical", "categories": ["north", "south"]},
]
AMOUNT = {"name": "amount", "kind": "continuous", "min": 0, "max": 10_000}
GRADE = {"name": "grade", "kind": "categorical", "categories": ["paid", "late", "lost"]}
NUMBER = {"name": "claims", "target": "amount", "columns": [*FEATURES, AMOUNT]}
NONE = {"name": "people", "columns": FEATURES}
RARE = {"name": "grades", "target": "grade", "columns": [*FEATURES, GRADE]}
ROWS = 4000


def claims(rows: int, seed: int, *, high: float = 0.0) -> pd.DataFrame:
    """Rows with all columns: the amount follows score and region (R2 of the law .9), 3 % of the grades are `lost`."""
    rng = np.random.default_rng(seed)
    score = rng.beta(2 + high, 2, rows)
    region = rng.choice(np.array(["north", "south"], dtype=object), rows)
    level = 1500 + 4000 * score + 1500 * (region == "south")
    late, lost = (score > 0.4) & (rng.random(rows) < 0.8), (score > 0.85) & (rng.random(rows) < 0.5)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows),
            "score": np.where(rng.random(rows) < 0.05, np.nan, score.round(4)),
            "region": region,
            "amount": (level + 350 * rng.normal(size=rows)).clip(0, 10_000).round(1),
            "grade": np.where(lost, "lost", np.where(late, "late", "paid")),
        }
    )


def table(schema: dict[str, Any], rows: int, seed: int, **more: float) -> pd.DataFrame:
    return claims(rows, seed, **more)[[c["name"] for c in schema["columns"]]]


def banks_of(root: Path, schema: dict[str, Any]) -> list[Bank]:
    """Two banks that see different people, after one short fit each."""
    made = [
        make_bank(root / name, table(schema, ROWS, seed, high=high), schema=schema)
        for seed, (name, high) in enumerate([("north", 0.0), ("south", 2.0)])
    ]
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        for bank in made:
            ran = bank.fit("--compress", "full")
            assert ran.exit_code == 0, ran.output
    return made


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Bank]]:
    root = tmp_path_factory.mktemp("numbers")
    return root, banks_of(root, NUMBER)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Bank]]:
    root = tmp_path_factory.mktemp("people")
    return root, banks_of(root, NONE)


@pytest.fixture(scope="module")
def grades(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Bank]]:
    root = tmp_path_factory.mktemp("grades")
    return root, banks_of(root, RARE)


def bundles(made: list[Bank]) -> list[Path]:
    return [bank.project.out for bank in made]


def test_a_number_is_fitted_within_its_grant_and_every_read_of_it_is_in_the_plan(numbers):
    for bank in numbers[1]:
        (release,) = bank.ledger.verify(bank.key.public_hex).releases
        assert 0.98 * EPSILON < release.epsilon_pld <= EPSILON
        events = {e.name: e for e in bank.bundle.manifest.privacy.events}
        # age, score and the amount, which counts as four blocks for half the noise
        assert events["encode.bins.1"].blocks == 1 + 1 + 4
        assert events["encode.classes"].blocks == len(FEATURES)


def test_the_bins_of_two_banks_differ_and_each_bundle_draws_amounts_like_its_own(numbers):
    made = [generator_of(bank.bundle) for bank in numbers[1]]
    assert not np.array_equal(made[0].bins[-1].starts, made[1].bins[-1].starts)
    for bank, generator in zip(numbers[1], made, strict=True):
        assert 6 <= len(generator.class_prior) <= 24
        assert generator.class_prior.max() < 0.3
        real = pd.read_csv(bank.project.data)["amount"]
        drawn = generator.draw(4000, np.random.default_rng(0))["amount"]
        np.testing.assert_allclose(drawn.quantile([0.1, 0.5, 0.9]), real.quantile([0.1, 0.5, 0.9]), atol=350)


def test_a_bundle_of_numbers_is_shown_and_exported(numbers, tmp_path):
    bundle = bundles(numbers[1])[0]
    assert "a number, shares of its bins" in distill("bundle", "inspect", bundle).stdout
    result_of("bundle", "export", bundle, "-o", tmp_path / "rows.csv", "--rows", 500)
    amounts = pd.read_csv(tmp_path / "rows.csv")["amount"]
    assert len(amounts) == 500
    assert amounts.between(0, 10_000).all()
    assert amounts.nunique() > 400


def test_a_model_of_numbers_is_trained_judged_and_used(numbers, tmp_path):
    out, pool = tmp_path / "model", tmp_path / "pool.parquet"
    made = result_of(
        "train-global",
        "--allow-unknown-signers",
        *bundles(numbers[1]),
        "--out",
        out,
        "--export-pool",
        pool,
        "--rows",
        8000,
        "--seed",
        1,
    )
    assert 0.2 < made["synthetic_r2"] < 1
    assert "synthetic_roc_auc" not in made
    assert pd.read_parquet(pool)["amount"].between(0, 10_000).all()
    test = table(NUMBER, 2000, 77)
    test.to_csv(tmp_path / "test.csv", index=False)
    test.drop(columns="amount").to_csv(tmp_path / "new.csv", index=False)
    figures = result_of("evaluate", out, tmp_path / "test.csv")
    assert figures["r2"] > 0.5  # the law itself: .9
    assert figures["rmse"] < 0.55 * test["amount"].std(ddof=0)
    assert figures["mae"] < figures["rmse"]
    shown = distill("evaluate", out, tmp_path / "test.csv").stdout
    assert "R2" in shown
    assert "ROC-AUC" not in shown
    result_of("predict", out, tmp_path / "new.csv", "-o", tmp_path / "scores.csv")
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(scores.columns) == ["prediction"]
    again = 1 - np.square(scores["prediction"] - test["amount"]).mean() / test["amount"].var(ddof=0)
    assert again == pytest.approx(figures["r2"], abs=1e-6)
    report = (out / "report.html").read_text()
    assert "R²" in report
    assert "ROC-AUC" not in report
    card = json.loads((out / "model.json").read_text())
    assert len(card["training"]["class_prior"]) == card["target_bins"]["bin_of_piece"][-1] + 1


def test_a_model_of_numbers_whose_bins_were_taken_out_is_refused(numbers, tmp_path):
    out = tmp_path / "model"
    result_of("train-global", "--allow-unknown-signers", bundles(numbers[1])[0], "--out", out, "--rows", 500)
    card = json.loads((out / "model.json").read_text())
    table(NUMBER, 50, 3).to_csv(tmp_path / "test.csv", index=False)
    (out / "model.json").write_text(json.dumps({**card, "target_bins": None}))
    assert "`target_bins` disagree" in refusal(distill("evaluate", out, tmp_path / "test.csv"))
    (out / "model.json").write_text(json.dumps({**card, "target_bins": {**card["target_bins"], "starts": [0]}}))
    assert "is damaged" in refusal(distill("evaluate", out, tmp_path / "test.csv"))


def test_comparing_on_a_number_is_refused_plainly(numbers, tmp_path):
    bank = numbers[1][0]
    ran = distill("compare", bank.project.data, "--schema", bank.project.schema, "--out", tmp_path / "out")
    assert "predicts a number ('amount'), and `compare` works on classes only" in refusal(ran)


def test_a_missing_amount_is_refused_as_a_row_to_drop(tmp_path):
    rows = table(NUMBER, 300, 0)
    rows.loc[3, "amount"] = np.nan
    bank = make_bank(tmp_path / "bank", rows, schema=NUMBER)
    assert "'amount' is continuous, but has missing values" in refusal(bank.fit())


def test_without_a_target_the_critic_has_the_whole_norm_and_the_rows_look_real(people, tmp_path):
    for bank in people[1]:
        manifest = bank.bundle.manifest
        assert manifest.class_prior == [1.0]
        assert {e.name: e.purpose for e in manifest.privacy.events}["discriminate"] == "DP-SGD steps of the critic"
        real, drawn = pd.read_csv(bank.project.data), generator_of(bank.bundle).draw(4000, np.random.default_rng(0))
        assert list(drawn.columns) == list(real.columns)
        assert drawn["score"].mean() == pytest.approx(real["score"].mean(), abs=0.05)
        assert (drawn["region"] == "south").mean() == pytest.approx(0.5, abs=0.05)
    assert "none: the bundle is for its rows" in distill("bundle", "inspect", bundles(people[1])[0]).stdout


def test_without_a_target_the_hub_pools_and_trains_nothing(people, tmp_path):
    made = bundles(people[1])
    refused = distill("train-global", "--allow-unknown-signers", *made, "--out", tmp_path / "model")
    assert refused.exit_code == 2
    assert "error: this schema names no target" in refused.stderr
    pool = tmp_path / "pool.csv"
    said = result_of(
        "train-global",
        "--allow-unknown-signers",
        *made,
        "--export-pool",
        pool,
        "--out",
        tmp_path / "model",
        "--rows",
        3000,
    )
    assert said["model"] is None
    assert said["privacy"]["overlapping"]["epsilon"] == pytest.approx(2 * EPSILON)
    rows = pd.read_csv(pool)
    assert len(rows) == 3000
    assert list(rows.columns) == [c["name"] for c in FEATURES]
    assert not (tmp_path / "model").exists()
    shown = distill("train-global", "--allow-unknown-signers", *made, "--export-pool", pool, "--rows", 500)
    assert shown.exit_code == 0, shown.output
    assert "no model was trained" in shown.stdout


def test_without_a_target_a_bundle_shrinks_and_is_exported(people, tmp_path):
    bank, small = people[1][0], tmp_path / "small.distill"
    words = ("--compress", "compact", "--project", bank.folder)
    result_of("bundle", "shrink", bank.project.out, "-o", small, *words)
    result_of("bundle", "export", small, "-o", tmp_path / "rows.csv", "--rows", 300)
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 300


def test_a_rare_third_class_reaches_the_hubs_model(grades, tmp_path):
    out, pool = tmp_path / "model", tmp_path / "pool.csv"
    result_of(
        "train-global",
        "--allow-unknown-signers",
        *bundles(grades[1]),
        "--out",
        out,
        "--export-pool",
        pool,
        "--rows",
        8000,
    )
    shares = pd.read_csv(pool)["grade"].value_counts(normalize=True)
    real = pd.concat([pd.read_csv(bank.project.data) for bank in grades[1]])["grade"].value_counts(normalize=True)
    assert real["lost"] < 0.08
    assert shares["lost"] == pytest.approx(real["lost"], rel=0.4)
    table(RARE, 3000, 78).to_csv(tmp_path / "test.csv", index=False)
    figures = result_of("evaluate", out, tmp_path / "test.csv")
    assert figures["classes"] == ["paid", "late", "lost"]
    assert figures["per_class_auc"][2] > 0.85
    result_of("predict", out, tmp_path / "test.csv", "-o", tmp_path / "scores.csv")
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(scores.columns) == ["probability_paid", "probability_late", "probability_lost"]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


def test_init_and_schema_check_say_what_is_predicted(tmp_path):
    for schema, words, task in ((NUMBER, "target 'amount' is a number", "number"), (NONE, "no target", None)):
        name = schema["name"]
        path, data = tmp_path / f"{name}.json", tmp_path / f"{name}.csv"
        path.write_text(json.dumps(schema))
        table(schema, 50, 0).to_csv(data, index=False)
        assert words in distill("schema", "check", path).stdout
        assert result_of("schema", "check", path)["task"] == task
        said = distill("init", tmp_path / name, "--data", data, "--schema", path).stdout
        assert words in said
        assert result_of("plan", "--schema", path, "--epsilon", EPSILON, "--delta", DELTA)["joint_epsilon"] <= EPSILON


@pytest.mark.parametrize("schema", [NUMBER, NONE, RARE], ids=["a number", "no target", "three classes"])
def test_a_next_cycle_serves_every_kind_of_task(schema, tmp_path, quick):
    """A rehearsal, the hub's prior of it, and a rehearsal with that: the same is read, and something else comes out."""
    assert distill("keys", "new", "--key", tmp_path / "hub.pem").exit_code == 0
    bank = make_bank(tmp_path / "bank", table(schema, ROWS, 0), schema=schema)
    assert bank.fit("--rehearsal", 1).exit_code == 0
    first = bank.bundle
    words = ("--allow-rehearsal", "--allow-unknown-signers", "--rows", 500, "--export-pool", tmp_path / "pool.csv")
    prior = ("--global-prior", tmp_path / "hub.prior")
    said = result_of(
        "train-global", bank.project.out, "--out", tmp_path / "m", *words, *prior, "--key", tmp_path / "hub.pem"
    )
    assert said["global_prior"] == str(tmp_path / "hub.prior")
    ran = bank.fit("--rehearsal", 1, "--overwrite", *prior, "--hub-key", tmp_path / "hub.pub")
    assert ran.exit_code == 0, ran.output
    second = bank.bundle
    assert second.manifest.privacy.events == first.manifest.privacy.events
    counts = [b.tensors["statistics"]["class_counts"] for b in (first, second)]
    assert counts[0].shape == counts[1].shape
    assert (counts[0] != counts[1]).any()
    rows = generator_of(second).draw(500, np.random.default_rng(0))
    assert list(rows.columns) == [c["name"] for c in schema["columns"]]
