"""The paper's example in its quick size: every file is there, and each number is the one that its comparison found."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from server_train.comparison.record.results import Comparison

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "paper"
MODULES = ("grid", "tables", "figures", "reproduce")
LABELS = ["FedAvg", "FedProx", "FedNova", "q-FedAvg", "FedAsync", "SCAFFOLD (learning_rate 0.02)", "MOON"]


@pytest.fixture(scope="module")
def paper() -> Iterator[dict[str, ModuleType]]:
    """The example's modules, which import each other by their plain names and are no package."""
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield {name: importlib.import_module(name) for name in MODULES}
        for name in MODULES:
            del sys.modules[name]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_splits_stand_from_even_to_uneven(paper: dict[str, ModuleType]) -> None:
    grid = paper["grid"]
    words = ["dirichlet:0.1", "iid", "dirichlet:10", "dirichlet:0.5"]
    settings = sorted((grid.Setting("t", 5, word) for word in words), key=grid.place)
    assert [grid.split_words(s.split) for s in settings] == ["IID", "Dirichlet 10", "Dirichlet 0.5", "Dirichlet 0.1"]


def test_a_folder_without_the_tables_says_what_belongs_there(paper: dict[str, ModuleType], tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"no loans\.parquet, loans\.schema\.json in .* put NAME\.parquet and NAME\.schema"
    ):
        paper["reproduce"].main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--tables", "loans"])
    with pytest.raises(SystemExit, match="with --data, or try --quick"):
        paper["reproduce"].main(["--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="holds no finished setting"):
        paper["figures"].main([str(tmp_path)])


@pytest.fixture(scope="module")
def quick(paper: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a quick run, and what it said on the way."""
    import contextlib
    import io

    out, said = tmp_path_factory.mktemp("paper"), io.StringIO()
    with contextlib.redirect_stdout(said):
        assert paper["reproduce"].main(["--quick", "--out", str(out)]) == 0
    return out, said.getvalue().splitlines()


@pytest.fixture(scope="module")
def comparison(quick: tuple[Path, list[str]]) -> Comparison:
    return Comparison.model_validate_json((quick[0] / "made_up" / "2-clients-iid" / "comparison.json").read_bytes())


@pytest.mark.slow
def test_every_file_is_there(quick: tuple[Path, list[str]]) -> None:
    out, said = quick
    for kind in ("scores", "bytes", "curves"):
        assert (out / f"made_up-{kind}.png").read_bytes().startswith(b"\x89PNG")
        assert str(out / f"made_up-{kind}.png") in said
    assert {"results.csv", "results.md", "rounds.csv"} <= {path.name for path in out.iterdir()}


@pytest.mark.slow
def test_all_methods_run_and_scaffold_has_a_learning_rate_of_its_own(comparison: Comparison) -> None:
    assert [run.name for run in comparison.runs if run.kind == "federated"] == LABELS
    assert [run.name for run in comparison.runs if run.kind == "distilled"] == ["distillation", "distillation, compact"]


@pytest.mark.slow
def test_results_are_the_numbers_of_the_comparison(quick: tuple[Path, list[str]], comparison: Comparison) -> None:
    found: dict[str, dict[str, Any]] = {r["method"]: r for r in rows(quick[0] / "results.csv") if r["method"]}
    runs = {run.name: run for run in comparison.runs if run.kind != "alone"}
    assert found.keys() == {*runs, "clients alone, mean"}
    for name, run in runs.items():
        row = found[name]
        assert [float(row[k]) for k in ("roc_auc", "accuracy", "log_loss")] == [
            run.final.roc_auc,
            run.final.accuracy,
            run.final.log_loss,
        ]
        assert row["epsilon"] == ("none" if run.epsilon is None else str(run.epsilon))
        spent = run.client_bytes(run.final) if run.traffic else None
        assert (float(row["bytes_per_client"]) if row["bytes_per_client"] else None) == spent
    for reach in (r for r in comparison.reaches if r.distilled == "distillation"):
        said = found[reach.baseline]["reach_bytes_per_client"]
        assert (float(said) if said else None) == reach.client_bytes
    curves = rows(quick[0] / "rounds.csv")
    for run in (run for run in runs.values() if run.traffic):
        mine = [r for r in curves if r["method"] == run.name]
        assert [(int(r["round"]), float(r["roc_auc"])) for r in mine] == [(p.round, p.roc_auc) for p in run.points]
        assert [float(r["bytes_per_client"]) for r in mine] == [run.client_bytes(p) for p in run.points]


@pytest.mark.slow
def test_a_deal_that_cannot_be_made_is_told_everywhere(quick: tuple[Path, list[str]]) -> None:
    out, said = quick
    kept = json.loads((out / "made_up" / "200-clients-dirichlet-0.1" / "outcome.json").read_text())
    reason = kept["refused"]
    assert "cannot give each of 200 clients 10" in reason
    assert f"  not possible: {reason}" in said
    (row,) = [r for r in rows(out / "results.csv") if not r["method"]]
    assert (row["clients"], row["split"], row["note"]) == ("200", "dirichlet:0.1", f"not possible: {reason}")
    assert f"### 200 clients, Dirichlet 0.1\n\nNot possible: {reason}" in (out / "results.md").read_text()


@pytest.mark.slow
def test_bars_and_curves_show_the_numbers_of_the_comparison(
    paper: dict[str, ModuleType], quick: tuple[Path, list[str]], comparison: Comparison
) -> None:
    figures, outcomes = paper["figures"], paper["grid"].read(quick[0])
    colours = figures.palette(outcomes)
    runs = [r for r in comparison.runs if r.kind != "alone"]
    upper = figures.scores(outcomes, colours).axes[0]
    tops = {round(bar.get_y() + bar.get_height(), 9) for bar in upper.patches}
    assert tops >= {round(run.final.roc_auc, 9) for run in runs}
    per_round = figures.curves(outcomes, colours).axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in per_round.lines}
    fedavg = next(run for run in runs if run.name == "FedAvg")
    assert drawn["FedAvg"] == [point.roc_auc for point in fedavg.points[1:]]
    spent = figures.bytes_spent(outcomes, colours).axes[0]
    heights = {round(bar.get_y() + bar.get_height(), 3) for bar in spent.patches}
    assert heights >= {round(run.client_bytes(run.final), 3) for run in runs if run.traffic}
