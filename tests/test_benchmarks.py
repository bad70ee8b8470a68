"""The benchmark's own arithmetic: the yardstick is sane, the deals are deals, the table it prints is the one it got."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from distill.demo_tables import demo_schema, mixed_table

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCHEMA = demo_schema().model_dump(mode="json", exclude_none=True)


def loaded(name: str) -> ModuleType:
    """A module of the benchmarks folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


yardstick, utility = loaded("yardstick"), loaded("utility")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return mixed_table(rows=2_000, rng=np.random.default_rng(0))


def test_a_table_is_at_no_distance_from_itself(frame: pd.DataFrame) -> None:
    assert yardstick.marginal_errors(SCHEMA, frame, frame) == (0.0, 0.0)


def test_tables_without_a_value_in_common_are_at_distance_one() -> None:
    schema = {
        "target": "y",
        "columns": [
            {"name": "a", "kind": "categorical", "categories": ["u", "v"]},
            {"name": "y", "kind": "categorical", "categories": [0, 1]},
        ],
    }
    one = pd.DataFrame({"a": ["u"] * 4, "y": [0] * 4})
    other = pd.DataFrame({"a": ["v"] * 4, "y": [1] * 4})
    assert yardstick.marginal_errors(schema, one, other) == (1.0, 1.0)


def test_shuffling_each_column_keeps_one_way_and_breaks_two_way_marginals(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    shuffled = frame.apply(lambda column: column.iloc[rng.permutation(len(column))].reset_index(drop=True))
    one, two = yardstick.marginal_errors(SCHEMA, frame, shuffled)
    assert one == pytest.approx(0, abs=1e-12)
    assert two > 0.05


def test_real_rows_teach_and_shuffled_labels_do_not(frame: pd.DataFrame) -> None:
    train, test = yardstick.split(frame, "default")
    shuffled = train.assign(default=np.random.default_rng(0).permutation(train["default"]))
    with threadpool_limits(1):
        taught = yardstick.downstream(SCHEMA, train, test)
        fooled = yardstick.downstream(SCHEMA, shuffled, test)
    assert taught["auc"] > 0.70
    assert abs(fooled["auc"] - 0.5) < 0.15
    assert taught["auc"] == pytest.approx(np.mean([taught[f"{m}_auc"] for m in ("hgb", "lr", "mlp")]))


def test_rows_of_one_class_score_a_half(frame: pd.DataFrame) -> None:
    assert yardstick.downstream(SCHEMA, frame.assign(default=0), frame)["auc"] == 0.5


@pytest.mark.parametrize("alpha", [0.5, None])
def test_every_row_is_dealt_to_exactly_one_institution(frame: pd.DataFrame, alpha: float | None) -> None:
    marked = frame.assign(number=np.arange(len(frame)))
    parts = yardstick.clients(marked, "default", 3, alpha, min_rows=20)
    assert sorted(pd.concat(parts)["number"]) == list(range(len(frame)))
    by_age = yardstick.clients_by(marked, "age", 3)
    assert sorted(pd.concat(by_age)["number"]) == list(range(len(frame)))
    assert by_age[0]["age"].max() <= by_age[1]["age"].min()


def test_a_folder_without_tables_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"put NAME\.parquet and NAME\.schema\.json there"):
        list(utility.tables(tmp_path, None, 100, quick=False))


def test_tables_of_a_folder_are_read_with_their_schemas(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "loans.parquet")
    (tmp_path / "loans.schema.json").write_text(json.dumps(SCHEMA))
    ((name, rows, schema),) = utility.tables(tmp_path, ["loans"], 500, quick=False)
    assert (name, len(rows), schema) == ("loans", 500, SCHEMA)


def test_results_become_one_line_a_source_with_means_over_seeds() -> None:
    scores = {"hgb_auc": 0.8, "lr_auc": 0.7, "mlp_auc": 0.6, "tvd1": 0.1, "tvd2": 0.2}
    results: list[dict[str, Any]] = [
        {"table": "t", "seed": seed, "source": "samples", "auc": auc, **scores, "fit_seconds": 2.0}
        for seed, auc in ((0, 0.70), (1, 0.72))
    ]
    (line,) = utility.markdown(results).splitlines()[2:]
    assert line == "| t | samples | 2 | 0.7100 | 0.0141 | 0.8000 | 0.7000 | 0.6000 | 0.1000 | 0.2000 | 2.0 |  |  |"


def test_a_command_that_fails_stops_the_benchmark_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"`distill bundle verify .*` failed:\nerror: "):
        utility.distill("bundle", "verify", tmp_path / "none.distill")


@pytest.mark.slow
def test_the_quick_size_runs_from_table_to_score(frame: pd.DataFrame, tmp_path: Path) -> None:
    """The whole way in small: init, grant, fit, export, score; keeps the benchmark alive, judges nothing."""
    frame.to_parquet(tmp_path / "loans.parquet")
    (tmp_path / "loans.schema.json").write_text(json.dumps(SCHEMA))
    out = tmp_path / "results.csv"
    assert utility.main(["--quick", "--no-real", "--data", str(tmp_path), "--out", str(out)]) == 0
    (result,) = pd.read_csv(out).to_dict("records")
    assert result["source"] == "samples"
    assert 0 < result["auc"] < 1
    assert result["fit_seconds"] > 0
    assert result["bundle_kb"] > 0


def three_classes(rows: int, seed: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """A table whose third class is rare (4 %) and told by x; y is a number that follows x."""
    rng = np.random.default_rng(seed)
    x, c = rng.random(rows), rng.choice(["u", "v"], rows)
    grade = np.where((x > 0.92) & (rng.random(rows) < 0.5), "lost", np.where(x > 0.5, "late", "paid"))
    schema = {
        "target": "grade",
        "columns": [
            {"name": "x", "kind": "continuous", "min": 0, "max": 1},
            {"name": "c", "kind": "categorical", "categories": ["u", "v"]},
            {"name": "grade", "kind": "categorical", "categories": ["paid", "late", "lost"]},
        ],
    }
    return schema, pd.DataFrame({"x": x, "c": c, "grade": grade, "y": 3 * x + 0.1 * rng.normal(size=rows)})


def test_more_than_two_classes_are_judged_one_against_the_rest() -> None:
    schema, frame = three_classes(4000, 0)
    train, test = yardstick.split(frame, "grade")
    assert (test["grade"] == "lost").mean() == pytest.approx((frame["grade"] == "lost").mean(), abs=0.002)
    with threadpool_limits(1):
        taught = yardstick.evaluate(schema, train, train, test)
        rare = yardstick.downstream(schema, train[train["grade"] != "lost"], test)
        shuffled = train.assign(grade=np.random.default_rng(1).permutation(train["grade"]))
        fooled = yardstick.downstream(schema, shuffled, test)
    assert taught["auc"] > 0.95
    assert taught["tvd2"] == 0.0
    assert taught["positives"] == pytest.approx((train["grade"] == "lost").mean())
    assert taught["auc"] - 0.25 < rare["auc"] < taught["auc"] - 0.1  # one of three classes at .5
    assert rare["positives"] == 0
    assert fooled["auc"] == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="outside its classes"):
        yardstick.downstream(schema, train.assign(grade="other"), test)


def test_a_number_is_judged_by_r2_and_nothing_by_marginals_alone() -> None:
    schema, frame = three_classes(3000, 1)
    number = {"target": "y", "columns": [*schema["columns"][:2], {"name": "y", "kind": "continuous"}]}
    train, test = yardstick.split(frame, "y", by_class=False)
    with threadpool_limits(1):
        taught = yardstick.evaluate(number, train, train, test)
        fooled = yardstick.downstream_number(number, train.assign(y=train["y"].to_numpy()[::-1]), test)
    assert taught["r2"] > 0.95
    assert set(taught) == {"hgb_r2", "lr_r2", "mlp_r2", "r2", "tvd1", "tvd2"}
    assert fooled["r2"] < 0.1
    with pytest.raises(ValueError, match="the target has no classes"):
        yardstick.downstream(number, train, test)
    bare = {"target": None, "columns": schema["columns"][:2]}
    assert set(yardstick.evaluate(bare, train, train, test)) == {"tvd1", "tvd2"}
    assert len(yardstick.split(frame, None)[1]) == 600


def test_the_regression_benchmarks_law_and_figures_agree() -> None:
    """Its oracle explains what the law explains: no figure of the benchmark can honestly be above it."""
    regression = loaded("regression")
    rng = np.random.default_rng(0)
    train, test = regression.claims(3000, rng), regression.claims(3000, rng)
    oracle = regression.r2(test, np.exp(regression.law(test) + regression.NOISE**2 / 2))
    with threadpool_limits(1):
        learnt = regression.boosted(train, test)
    assert 0.4 < learnt < oracle < 0.85
    assert list(test.columns) == [c["name"] for c in regression.SCHEMA["columns"]]


@pytest.mark.slow
def test_the_regression_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    regression = loaded("regression")
    assert regression.main(["--quick"]) == 0
    said = capsys.readouterr().out
    figures = {line.split("|")[1].strip(): float(line.split("|")[2]) for line in said.splitlines()[3:]}
    assert len(figures) == 4
    assert 0.2 < figures["bundles, the hub's model"] < figures["oracle: the law itself"]
