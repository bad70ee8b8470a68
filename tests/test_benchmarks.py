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
from distill.schema import load_schema
from distill.tables import check_table, read_table

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


yardstick, utility, scale = loaded("yardstick"), loaded("utility"), loaded("scale")


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


# ---- scale ----------------------------------------------------------------------------------------------------------


def test_the_made_up_table_fits_its_schema_however_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "CHUNK", 700)
    scale.make_table(tmp_path / "table", 2_000, 30)
    schema = load_schema(tmp_path / "table" / "schema.json")
    rows = read_table(tmp_path / "table" / "table.parquet", schema)  # raises if a value does not fit
    assert (len(rows), len(schema.columns)) == (2_000, 30)
    assert not check_table(tmp_path / "table" / "table.parquet", schema) or rows["f01"].max() == 1_000_000
    assert {c.kind for c in schema.columns} == {"continuous", "integer", "categorical"}
    assert 0.2 < (rows["label"].astype(str) == "1").mean() < 0.6
    assert abs(rows["f00"].corr(rows["f02"])) > 0.3  # columns go together, so that there is something to learn


def test_every_second_of_a_fit_is_given_to_one_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0])
    monkeypatch.setattr(scale.time, "process_time", lambda: next(now))
    clock = scale.StageClock()
    clock("size", 0, 1)  # 1 s of reading
    clock("size", 1, 1)  # 2 s
    clock("encode", 0, 2)  # 3 s of planning, which count as size
    clock("encode", 2, 2)  # 4 s
    clock("relate", 1, 1)  # 5 s: told at its end only
    clock("select", 1, 1)  # 6 s
    told = clock.finish()  # 7 s of writing
    assert {stage: seconds for stage, seconds in told.items() if seconds} == {
        "read": 1,
        "size": 5,
        "encode": 4,
        "relate": 5,
        "select": 6,
        "write": 7,
    }


@pytest.mark.slow
def test_the_quick_size_of_the_scale_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["--quick", "--out", str(tmp_path / "out"), "--scratch", str(tmp_path)]) == 0
    results = pd.read_csv(tmp_path / "out" / "scale.csv")
    assert list(results["rows"]) == list(scale.QUICK_SIZES)
    assert (results["peak_mb"] > 100).all()
    assert (results[["read", "encode", "represent", "refine"]] > 0).all(axis=None)
    assert results[list(scale.STAGES)].sum(axis=1).to_numpy() == pytest.approx(results["seconds"].to_numpy(), rel=0.01)
    assert (tmp_path / "out" / "scale.png").read_bytes().startswith(b"\x89PNG")
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(scale.QUICK_SIZES)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # the made-up tables are gone


def test_a_fit_that_fails_stops_the_scale_benchmark_with_its_words(tmp_path: Path) -> None:
    scale.make_table(tmp_path / "few", 60, 4)
    with pytest.raises(SystemExit, match=r"the fit in .* failed:\n(.*\n)*.*the noisy row count is below 200"):
        scale.measured_fit(tmp_path / "few", 100.0, 1e-5)  # the count is exact but for a few rows
