"""`distill compare` by the words a person types: one real small comparison, and everything that is refused before it begins."""

import csv
import functools
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.app import app
from distill.data.demo import BANKS, bank_table, demo_schema
from distill.data.tables import write_table
from distill.synthesis.effort import Effort
from server_train.comparison.runs import distilled, federated, references
from server_train.hub import job
from server_train.training.network import TrainingSettings
from tests.fakes.private_tables import shorten_fits

ROUNDS = 3
OWN = """
from dataclasses import dataclass
from server_train.federated.strategies.fedavg import FedAvg

@dataclass(kw_only=True)
class HalfStep(FedAvg):
    server_rate: float = 0.5
"""


def distill(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def refusal(*words):
    """The one line with which a command refused."""
    ran = distill(*words)
    assert ran.exit_code == 2, ran.output
    assert ran.stderr.startswith("error: ")
    return ran.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A table of 1500 rows with its schema, and a strategy of one's own."""
    folder = tmp_path_factory.mktemp("compare")
    write_table(bank_table(BANKS[2], rows=1500, rng=np.random.default_rng(0)), folder / "table.csv")
    (folder / "schema.json").write_text(demo_schema().model_dump_json(exclude_none=True))
    (folder / "half_step.py").write_text(OWN)
    return folder


def words(place, *more):
    return (
        place / "table.csv",
        "--schema",
        place / "schema.json",
        "--out",
        place / "out",
        "--clients",
        2,
        "--rounds",
        ROUNDS,
        "--rehearsal",
        1,
        *("--strategy", "fedavg", "--strategy", "half_step:HalfStep"),
        *("--option", "fedavg.server_momentum=0.5"),
        "--json",
        *more,
    )


@pytest.fixture(scope="module")
def quick():
    """Few optimiser steps (planned and charged as few), on few samples, at clients and hub."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_fits(patch, effort=Effort(first_steps=5, warm_up_steps=5, private_samples=300), steps=4)
        patch.setattr(job, "default_rows", lambda _: 2000)
        for module in (distilled, references):
            patch.setattr(module, "TrainingSettings", functools.partial(TrainingSettings, steps=50))
        yield


@pytest.fixture(scope="module")
def said(place, quick):
    """What the first run printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ran = distill(*words(place))
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.count("\n") == 1
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def saved(place, said):
    return json.loads((place / "out" / "comparison.json").read_text())


def test_the_result_names_every_run_with_its_bytes_and_epsilon(said):
    runs = {r["run"]: r for r in said["runs"]}
    assert list(runs) == [
        "central, pooled rows",
        "clients alone, mean",
        "distillation",
        "distillation, compact",
        "FedAvg (server_momentum 0.5)",
        "HalfStep",
    ]
    assert runs["distillation"]["epsilon"] == pytest.approx(2.0, rel=0.02)
    assert runs["HalfStep"]["epsilon"] == "none"
    assert runs["distillation, compact"]["bytes_up_per_client"] < runs["distillation"]["bytes_up_per_client"]
    assert runs["HalfStep"]["rounds"] == ROUNDS
    assert all(0 < r["roc_auc"] <= 1 for r in said["runs"])
    assert len(said["reach"]) == 4
    assert said["rehearsal"] is True


def test_the_files_hold_what_the_json_says(place, said, saved):
    out = place / "out"
    for name in ("auc_by_bytes", "auc_by_round", "auc_by_time", "bytes_to_reach", "bytes_per_client"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "comparison.html").read_text()
    assert "REHEARSAL, NOT PRIVATE" in page
    assert "HalfStep" in page
    with (out / "rounds.csv").open() as file:
        federated = [r for r in csv.DictReader(file) if r["run"] == "HalfStep"]
    points = next(r for r in saved["runs"] if r["name"] == "HalfStep")["points"]
    assert [float(r["roc_auc"]) for r in federated] == [p["roc_auc"] for p in points]
    assert len(points) == ROUNDS + 1
    shown = next(r for r in said["runs"] if r["run"] == "HalfStep")
    assert shown["roc_auc"] == points[-1]["roc_auc"]
    assert shown["bytes_up_per_client"] == points[-1]["up"] / 2


def test_distillation_counts_its_bundles_and_nothing_else(place, saved):
    out = place / "out"
    run = next(r for r in saved["runs"] if r["name"] == "distillation, compact")
    bundles = sorted((out / "institutions").rglob("*.compact.distill"))
    assert [t["up"] for t in run["traffic"]] == [b.stat().st_size for b in bundles]
    assert {t["down"] for t in run["traffic"]} == {0}


def test_all_runs_train_the_same_number_of_weights(place, saved):
    run = next(r for r in saved["runs"] if r["name"] == "distillation")
    card = json.loads((place / "out" / run["settings"]["model"] / "model.json").read_text())
    assert card["training"]["parameters"] == saved["parameters"]
    assert saved["architecture"][1:] == [64, 32, 2]


def test_a_second_run_does_no_work_and_says_the_same(place, said, monkeypatch):
    for module, name in ((distilled, "distill_table"), (distilled, "train_global"), (references, "train")):
        monkeypatch.setattr(module, name, None)  # any work would fail
    monkeypatch.setattr(federated.run, "run", None)
    monkeypatch.chdir(place)
    ran = distill(*words(place))
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout) == said


def test_an_interrupted_run_goes_on_where_it_stopped(place, said, monkeypatch):
    """Interrupted in the second strategy, the first is not run again."""
    from server_train.comparison import compare

    made = []
    run = compare.federated_run

    def watched(baseline, *rest, **more):
        made.append(baseline.name)
        if len(made) == 2:
            raise KeyboardInterrupt
        return run(baseline, *rest, **more)

    monkeypatch.setattr(compare, "federated_run", watched)
    monkeypatch.chdir(place)
    longer = words(place, "--rounds", ROUNDS + 1)
    stopped = distill(*longer)
    assert stopped.exit_code == 130
    assert "the same command goes on" in json.loads(stopped.stderr)["error"]["message"]
    ran = distill(*longer)
    assert ran.exit_code == 0, ran.output
    assert made == ["fedavg", "half_step:HalfStep", "half_step:HalfStep"]
    assert {r["rounds"] for r in json.loads(ran.stdout)["runs"] if r["kind"] == "federated"} == {ROUNDS + 1}


def test_a_person_sees_one_table_and_where_the_report_is(place, said, monkeypatch):
    monkeypatch.chdir(place)
    ran = distill(*(w for w in words(place) if w != "--json"))
    assert ran.exit_code == 0, ran.output
    assert "distillation, compact" in ran.stdout
    assert ran.stdout.rstrip().endswith("comparison.html")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--strategy", "fedavgg"), "no strategy 'fedavgg'"),
        (("--option", "fedavg.mu=1"), "has no option 'mu'"),
        (("--rounds", 0), "rounds must be a finite number above 0"),
        (("--epsilon", 0), "epsilon"),
        (("--compression", "zip"), "no compression 'zip'"),
        (("--tiers", "fast"), "no tier 'fast'"),
        (("--dropout", 2), "drop_out is a chance"),
        (("--partition", "even"), "partition 'even' is not known"),
        (("--partition", "by:colour"), "column 'colour' is not in the table"),
        (("--clients", 5000), "cannot share"),
        (("--test-share", 1.5), "test_share"),
        (("--learning-rate", 0), "learning_rate"),
        (("--compress", "tiny"), "no size 'tiny'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_begins(place, tmp_path, more, message):
    assert message in refusal(
        place / "table.csv", "--schema", place / "schema.json", "--out", tmp_path / "out", "--clients", 2, *more
    )
    assert not (tmp_path / "out").exists()


def test_a_test_file_without_target_is_refused(place, tmp_path):
    held = bank_table(BANKS[2], rows=50, rng=np.random.default_rng(1)).drop(columns="default")
    write_table(held, tmp_path / "held.csv")
    line = refusal(place / "table.csv", "--schema", place / "schema.json", "--test", tmp_path / "held.csv")
    assert "missing: 'default'" in line


def test_a_table_whose_name_no_institution_can_have_is_refused_before_anything_long(place, tmp_path):
    (tmp_path / "clients").mkdir()
    write_table(bank_table(BANKS[2], rows=200, rng=np.random.default_rng(1)), tmp_path / "clients" / "+bank.csv")
    line = refusal(tmp_path / "clients", "--schema", place / "schema.json", "--out", tmp_path / "out")
    assert "must start with a letter or digit" in line
    assert not (tmp_path / "out" / "runs").exists()
