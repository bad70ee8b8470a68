import csv
import io
import json

import pytest

from distill.errors import ConfigError
from server_train.comparison.record.results import Comparison
from server_train.comparison.record.summary import lines, reach_lines
from server_train.comparison.report import outputs as write
from server_train.comparison.report.figures import figures, readable_ratio, readable_time
from server_train.comparison.report.outputs import outputs
from server_train.comparison.report.page import headline, render
from tests.fakes.comparisons import comparison, run

RUNS = [
    run("central", "central, pooled rows", [0.9]),
    run("alone", "a alone", [0.6]),
    run("distilled", "distillation", [0.8], first=1),
    run("distilled", "distillation, compact", [0.7], first=1, sent=100),
    run("federated", "FedAvg", [0.5, 0.75, 0.85]),
    run("federated", "Cost$ly {x}", [0.5, 0.6, 0.7]),
]


FOUND = comparison(RUNS)
FIGURES = ("auc_by_bytes", "auc_by_round", "auc_by_time", "bytes_to_reach", "bytes_per_client")


@pytest.fixture(scope="module")
def page():
    return render(FOUND, figures(FOUND))


def table(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_every_file_is_written_and_says_what_the_json_says(tmp_path):
    outputs(FOUND, tmp_path)
    saved = Comparison.model_validate_json((tmp_path / "comparison.json").read_text())
    assert saved == FOUND
    for name in FIGURES:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    rounds = table(tmp_path / "rounds.csv")
    assert len(rounds) == sum(len(r.points) for r in saved.runs)
    fedavg = [r for r in rounds if r["run"] == "FedAvg"]
    points = next(r for r in saved.runs if r.name == "FedAvg").points
    assert [float(r["roc_auc"]) for r in fedavg] == [p.roc_auc for p in points]
    assert [int(r["bytes_up"]) for r in fedavg] == [p.up for p in points]
    summary = {r["run"]: r for r in table(tmp_path / "runs.csv")}
    assert summary["FedAvg"]["epsilon"] == "none"
    assert float(summary["distillation"]["epsilon"]) == 2.0
    assert float(summary["FedAvg"]["bytes_per_client"]) == 4000
    reach = {(r["baseline"], r["distilled"]): r for r in table(tmp_path / "reach.csv")}
    assert float(reach["FedAvg", "distillation"]["round"]) == 2
    assert reach["Cost$ly {x}", "distillation"]["round"] == "never"
    assert float(reach["Cost$ly {x}", "distillation, compact"]["round"]) == 2
    clients = [r for r in table(tmp_path / "clients.csv") if r["run"] == "FedAvg"]
    assert [(r["client"], r["bytes_up"]) for r in clients] == [("a", "2000"), ("b", "2000")]


def test_a_folder_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "figures", lambda _: {})
    monkeypatch.setattr(write, "render", lambda *_: "")
    (tmp_path / "runs.csv").mkdir()
    with pytest.raises(ConfigError, match=r"cannot write .*runs\.csv"):
        outputs(FOUND, tmp_path)


def test_the_report_stands_alone_and_escapes_names(page):
    assert "one client &lt;was&gt; left out" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/svg+xml;base64,") == len(FIGURES)
    assert "never in 2 rounds" in page
    assert "Not a release" in page


def test_the_same_comparison_gives_the_same_page(page):
    assert render(FOUND, figures(FOUND)) == page


def test_the_headline_names_the_best_and_the_cheapest():
    said = headline(lines(FOUND), reach_lines(FOUND))
    assert (said["distilled"].name, said["best"].name, said["central"].roc_auc.mean) == ("distillation", "FedAvg", 0.9)
    assert (said["cheapest"].baseline, said["cheapest"].client_bytes) == ("FedAvg", 4000)
    poor = comparison([RUNS[0], RUNS[2], run("federated", "FedAvg", [0.5, 0.6])])
    assert headline(lines(poor), reach_lines(poor))["cheapest"] is None
    assert "no baseline reaches" in render(poor, {name: next(iter(figures(poor).values())) for name in FIGURES})


def test_repetitions_are_shown_with_their_spread():
    found = comparison([*RUNS, *(r.model_copy(update={"seed": 1}) for r in RUNS)])
    page = render(found, figures(found))
    assert "over 2 repetitions" in page
    assert "0.8500 ± 0.0000" in page


def test_numbers_read_well():
    assert [readable_time(s) for s in (0.05, 1, 2.5, 90, 7200)] == ["50 ms", "1 s", "2.5 s", "90 s", "7,200 s"]
    assert [readable_ratio(v) for v in (0.0834, 2, 12.4, 1234)] == ["0.083", "2.0", "12", "1,200"]


def test_json_holds_no_number_that_json_lacks():
    json.loads(comparison(RUNS).model_dump_json(), parse_constant=lambda word: pytest.fail(word))
