"""train-global, evaluate and predict on signed bundles, by the words a person types."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from cli.evaluation.evaluate import evaluate
from cli.evaluation.predict import predict
from cli.hub import models
from cli.hub.train_global import train_global
from distill.common.keys import generate_key
from distill.data.schema import Schema
from distill.exchange import generator_codec as generators
from distill.exchange.bundle import write_bundle
from distill.ledger import create_ledger
from distill.privacy.events import Event
from server_train.evaluation.private_scorer import KNOTS
from server_train.models.features import class_codes
from server_train.models.model import load_model

EVENTS = (
    Event(name="size", mechanism="laplace", noise_multiplier=50.0),
    Event(name="all", mechanism="gaussian", noise_multiplier=5.0, round=1),
)
ANYONE = "--allow-unknown-signers"
app = typer.Typer()
app.command("train-global")(train_global)
app.command()(evaluate)
app.command()(predict)
app.add_typer(models.app, name="models")


def schema(classes, top=100):
    return Schema.model_validate(
        {
            "name": "claims",
            "target": "fraud",
            "columns": [
                {"name": "amount", "kind": "continuous", "min": 0, "max": top, "nullable": True},
                {"name": "kind", "kind": "categorical", "categories": ["car", "home"]},
                {"name": "fraud", "kind": "categorical", "categories": classes},
            ],
        }
    )


BINARY, TERNARY = schema([0, 1]), schema(["no", "maybe", "yes"])


def table(rows, of=BINARY, seed=0):
    """The class follows the amount, one way for cars and the other way for homes."""
    rng = np.random.default_rng(seed)
    amount = rng.uniform(0, 100, rows).round(3)
    kind = rng.choice(np.array(["car", "home"], dtype=object), rows)
    level = np.where(kind == "car", amount, 100 - amount) / 100 + rng.normal(0, 0.1, rows)
    codes = (level * len(of.classes)).astype(int).clip(0, len(of.classes) - 1)
    classes = np.array(of.classes, dtype=int if isinstance(of.classes[0], int) else object)
    return pd.DataFrame(
        {"amount": np.where(rng.random(rows) < 0.05, np.nan, amount), "kind": kind, "fraud": classes[codes]}
    )


class SampleGenerator:
    """Resamples a bundle's samples; its head is a histogram of classes in ten bins of the amount for each kind."""

    def __init__(self, bundle):
        self.samples, self.noisy_rows = bundle.samples, bundle.manifest.noisy_rows
        self.class_prior = np.array(bundle.manifest.class_prior)
        self.head_information = self.noisy_rows * (1 - np.square(self.class_prior).sum())
        self.count_noise = 10.0
        self.counts = np.ones((22, len(self.class_prior)))
        np.add.at(self.counts, (self._cells(self.samples), class_codes(bundle.schema, self.samples)), 1)

    def _cells(self, frame):
        amount = frame["amount"].to_numpy(float, na_value=np.nan)
        bins = np.where(np.isnan(amount), 10, np.nan_to_num(amount) // 10.0001).astype(int)
        return bins + 11 * (frame["kind"] == "home").to_numpy()

    def draw(self, n, rng):
        return self.samples.iloc[rng.integers(len(self.samples), size=n)].reset_index(drop=True)

    def class_log_probabilities(self, frame):
        return np.log(self.counts / self.counts.sum(axis=1, keepdims=True))[self._cells(frame)]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Where commands keep what they remember if nobody names a project."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make_bundle(tmp_path, monkeypatch):
    """Write a signed bundle whose ledger really reserved and planned it."""
    monkeypatch.setattr(generators, "generator_of", SampleGenerator, raising=False)

    def make(name, of=BINARY, *, seed=0, rehearsal=False, rows=1500):
        home = tmp_path / "homes" / name
        home.mkdir(parents=True)
        key = generate_key(home / "key.pem")
        ledger = create_ledger(home / "ledger.db", dataset=f"{seed:032x}", unit="row", key=key)
        ledger.grant(epsilon=2, delta=1e-5, reason="test", actor="tester", key=key)
        reservation = ledger.reserve(
            epsilon=2, delta=1e-5, purpose="test", actor="tester", events=EVENTS[:1], key=key, rehearsal=rehearsal
        )
        reservation.plan(EVENTS[1:])
        samples = table(rows, of, seed)
        path = tmp_path / f"{name}.distill"
        write_bundle(
            path,
            institution=name,
            dataset=f"{seed:032x}",
            schema=of,
            privacy={"epsilon": 2.0, "delta": 1e-5, "unit": "row", "events": EVENTS},
            noisy_rows=rows,
            class_prior=(np.bincount(class_codes(of, samples), minlength=len(of.classes)) / rows).tolist(),
            generator={},
            ledger=reservation.proof(),
            samples=samples,
            tensors={},
            key=key,
            rehearsal=rehearsal,
        )
        return path

    return make


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def result_of(*words):
    """The JSON that a command printed."""
    ran = run(*words, "--json")
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)


def refusal(*words):
    """The one line with which a command refused."""
    ran = run(*words)
    assert ran.exit_code == 2, ran.stderr
    assert ran.stdout == ""
    return ran.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("of", [BINARY, TERNARY], ids=["two classes", "three classes"])
def test_from_bundles_to_scores_and_figures(make_bundle, tmp_path, of):
    make_bundle("north", of, seed=1)
    make_bundle("south", of, seed=2)
    made = result_of(
        "train-global", ANYONE, "--project", tmp_path, "--rows", 4000, "--export-pool", tmp_path / "pool.csv"
    )
    assert [i["institution"] for i in made["institutions"]] == ["north", "south"]
    assert made["model"] == str(tmp_path / "global-model")
    assert made["privacy"]["overlapping"]["epsilon"] == 4
    assert len(pd.read_csv(tmp_path / "pool.csv")) == 4000

    real = table(800, of, 77)
    real.to_parquet(tmp_path / "real.parquet")
    real.drop(columns="fraud").to_csv(tmp_path / "new.csv", index=False)
    figures = result_of("evaluate", made["model"], tmp_path / "real.parquet")
    assert figures["roc_auc"] > 0.9
    assert figures["rows"] == 800
    assert "release" in figures["word"]
    knots = load_model(Path(made["model"])).card.training.score_knots
    assert len(knots) == (1 if of is BINARY else 4)  # three classes: one each, and the most probable
    assert all(len(k) == KNOTS and k == sorted(k) for k in knots)

    result_of("predict", f"{made['model']}/model.json", tmp_path / "new.csv", "-o", tmp_path / "scores.csv")
    result_of("predict", made["model"], tmp_path / "real.parquet", "-o", tmp_path / "scores.parquet")
    scores, again = pd.read_csv(tmp_path / "scores.csv"), pd.read_parquet(tmp_path / "scores.parquet")
    names = ["score"] if of is BINARY else ["probability_no", "probability_maybe", "probability_yes"]
    assert list(scores.columns) == names
    assert scores.to_numpy() == pytest.approx(again.to_numpy())
    last = real["fraud"] == of.classes[-1]
    assert scores.loc[last, names[-1]].mean() > scores.loc[~last, names[-1]].mean() + 0.2


def test_people_see_institutions_readings_and_places(make_bundle, tmp_path):
    bundle = make_bundle("north")
    ran = run("train-global", ANYONE, bundle, "--out", tmp_path / "m", "--rows", 500)
    assert ran.exit_code == 0, ran.stderr
    for words in ("north", "if no customer is at two institutions", "report.html", "hub trust add"):
        assert words in ran.stdout
    table(200).to_csv(tmp_path / "real.csv", index=False)
    shown = run("evaluate", tmp_path / "m", tmp_path / "real.csv").stdout
    assert "ROC-AUC" in shown
    assert "Publishing one is a release" in shown


def test_only_trusted_signers_are_let_in(make_bundle, tmp_path):
    north, south = make_bundle("north", seed=1), make_bundle("south", seed=2)
    keys = [tmp_path / "homes" / name / "key.pub" for name in ("north", "south")]
    words = (north, south, "--out", tmp_path / "m", "--rows", 500, "--hub", tmp_path / "hub.db")
    message = refusal("train-global", *words, "--trust", keys[0])
    assert "south.distill" in message
    assert "distill hub trust add KEY.pub --name south" in message
    notes = result_of("train-global", *words, "--trust", keys[0], "--trust", keys[1])["notes"]
    assert notes[0].startswith("Of 2 institutions nobody can say which one is right")
    assert not any("Nobody vouched" in note for note in notes)


def test_a_rehearsal_is_refused_and_allowed_only_with_its_mark(make_bundle, tmp_path):
    bundle = make_bundle("north", rehearsal=True)
    assert "REHEARSAL and NOT PRIVATE" in refusal("train-global", ANYONE, bundle, "--out", tmp_path / "m")
    assert not (tmp_path / "m").exists()
    made = result_of("train-global", ANYONE, bundle, "--out", tmp_path / "m", "--rows", 500, "--allow-rehearsal")
    assert made["rehearsal"] is True
    assert "REHEARSAL, NOT PRIVATE" in (tmp_path / "m" / "report.html").read_text()


def test_bundles_of_different_schemas_are_refused(make_bundle, tmp_path):
    bundles = make_bundle("north", seed=1), make_bundle("south", schema([0, 1], top=200), seed=2)
    message = refusal("train-global", ANYONE, *bundles, "--out", tmp_path / "m")
    assert "'north'" in message
    assert "'south'" in message
    assert "amount" in message
    assert not (tmp_path / "m").exists()


def test_a_tampered_bundle_is_refused_and_nothing_is_written(make_bundle, tmp_path):
    bundle = make_bundle("north")
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    assert "altered or damaged" in refusal("train-global", ANYONE, bundle, "--out", tmp_path / "m")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["homes", "north.distill"]


def test_the_same_bundle_twice_counts_once_with_a_word(make_bundle, tmp_path):
    bundle = make_bundle("north")
    copy = tmp_path / "copy.distill"
    copy.write_bytes(bundle.read_bytes())
    made = result_of("train-global", ANYONE, bundle, copy, "--out", tmp_path / "m", "--rows", 500)
    assert len(made["institutions"]) == 1
    assert any("same bundle" in note for note in made["notes"])


def test_an_empty_folder_and_a_missing_model_are_said_plainly(tmp_path):
    assert "no bundle" in refusal("train-global", "--project", tmp_path)
    table(50).to_csv(tmp_path / "real.csv", index=False)
    assert "no model at" in refusal("evaluate", tmp_path, tmp_path / "real.csv")
    assert "no model at" in refusal("predict", tmp_path, tmp_path / "real.csv", "-o", tmp_path / "s.csv")


def test_data_that_does_not_fit_the_model_is_refused(make_bundle, tmp_path):
    run("train-global", ANYONE, make_bundle("north"), "--out", tmp_path / "m", "--rows", 500)
    model, data, scores = tmp_path / "m", tmp_path / "real.csv", tmp_path / "s.csv"
    assert "no table at" in refusal("evaluate", model, data)
    table(50).drop(columns="fraud").to_csv(data, index=False)
    assert "fraud" in refusal("evaluate", model, data)
    assert "is the table itself" in refusal("predict", model, data, "-o", data)
    assert "suffix" in refusal("predict", model, data, "-o", tmp_path / "s.xlsx")
    table(50).drop(columns="amount").to_csv(data, index=False)
    assert "amount" in refusal("predict", model, data, "-o", scores)
    assert not scores.exists()


@pytest.fixture
def two_versions(make_bundle, tmp_path):
    """A registry in the project's folder with two versions of one bundle's model."""
    bundle = make_bundle("north")
    for number, rows in enumerate((300, 400), start=1):
        assert result_of("train-global", ANYONE, bundle, "--rows", rows)["version"] == number
    return bundle


def test_every_run_is_a_version_that_is_listed_shown_and_compared(two_versions, tmp_path):
    listed = result_of("models", "list")["versions"]
    assert [(v["number"], v["schema"], v["rows"], v["current"]) for v in listed] == [
        (1, "claims", 300, False),
        (2, "claims", 400, False),
    ]
    assert listed[0]["institutions"] == ["north"]
    assert listed[0]["epsilon"] == {"disjoint": 2, "overlapping": 2}
    assert 0.5 < listed[0]["metric"]["roc_auc"] <= 1
    shown = result_of("models", "show", 2)
    assert shown["digest"] == listed[1]["digest"]
    assert shown["record"]["recipe"]["rows"] == 400
    assert shown["reproduce"] == "distill models reproduce 2 north.distill"
    assert result_of("models", "diff", 1, 2)["settings"] == {"rows": [300, 400]}
    verified = result_of("models", "verify", "--registry", tmp_path / "models.db")
    assert (verified["versions"], verified["newest_digest"]) == (2, listed[1]["digest"])


def test_people_see_versions_and_what_differs(two_versions):
    result_of("models", "promote", 2, "--reason", "better")
    for words, expected in {
        ("list",): ("claims", "* current", "400"),
        ("show", 2): ("version 2, current", "to make it again: distill models reproduce 2 north.distill", "better"),
        ("diff", 1, 2): ("rows", "300", "400", "roc_auc"),
        ("diff", 1, 1): ("are the same",),
        ("verify",): ("all is as it was recorded, 2 version(s)",),
    }.items():
        ran = run("models", *words)
        assert ran.exit_code == 0, ran.stderr
        for text in expected:
            assert text in ran.stdout, (words, text)


def test_the_registry_gives_its_current_model_or_the_one_that_is_named(two_versions, tmp_path):
    table(50).to_csv(tmp_path / "new.csv", index=False)

    def scores(model):
        result_of("predict", model, tmp_path / "new.csv", "-o", tmp_path / "scores.csv")
        return (tmp_path / "scores.csv").read_bytes()

    assert "no version is promoted yet" in refusal("predict", "models.db", "new.csv", "-o", "s.csv")
    assert result_of("models", "promote", 1)["version"] == 1
    result_of("models", "export", 1, "--out", tmp_path / "one")
    assert scores("models.db") == scores("models.db@1") == scores(tmp_path / "one")
    assert scores("models.db@2") == scores(tmp_path / "global-model") != scores("models.db")
    result_of("models", "promote", 2)
    assert scores("models.db") == scores("models.db@2")
    assert result_of("models", "rollback", "--reason", "worse")["version"] == 1
    assert result_of("evaluate", "models.db", "new.csv") == result_of("evaluate", "models.db@1", "new.csv")
    assert "nothing was promoted before version 1" in refusal("models", "rollback")
    assert [m["action"] for m in result_of("models", "show", 1)["marks"]] == ["promote", "rollback"]


def test_a_version_is_made_again_and_a_change_is_an_exit_code(two_versions, tmp_path, monkeypatch):
    made = result_of("models", "reproduce", 1, tmp_path, "--out", tmp_path / "again")
    assert made == {"version": 1, "reproduced": True, "same": ["model.safetensors"], "different": [], "software": {}}
    assert len(result_of("models", "list")["versions"]) == 2
    result_of("models", "export", 1, "--out", tmp_path / "one")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again")]
    assert weights[0] == weights[1]
    monkeypatch.setattr(
        "server_train.training.network.TrainingSettings.epochs", lambda *_: 2
    )  # another version of the software
    ran = run("models", "reproduce", 1, tmp_path)
    assert ran.exit_code == 2
    assert "NOT the same as version 1: model.safetensors" in ran.stdout


def test_wrong_numbers_and_a_missing_registry_are_told(two_versions, tmp_path):
    for words in (
        ("show", 3),
        ("diff", 1, 3),
        ("promote", 3),
        ("export", 3, "--out", "x"),
        ("reproduce", 3, two_versions),
    ):
        assert "no version 3; the registry holds versions 1 to 2" in refusal("models", *words)
    assert "no registry of models at" in refusal("models", "list", "--registry", tmp_path / "none.db")
    assert "needs 1 bundle(s) that are not there" in refusal("models", "reproduce", 1, tmp_path / "models.db")
    assert run("models", "show", "one").exit_code == 2
    assert run("models", "show", 0).exit_code == 2


@pytest.mark.parametrize("of", [BINARY, TERNARY], ids=["two classes", "three classes"])
@pytest.mark.parametrize("kind", ["mlp", "logistic", "boosting"])
def test_every_kind_is_predicted_from_its_folder_and_from_onnx_alike(make_bundle, tmp_path, kind, of):
    bundles = [make_bundle("alder", of, seed=1, rows=600), make_bundle("birch", of, seed=2, rows=600)]
    model = tmp_path / "model"
    asked = ["--out", model, "--rows", 1000, "--model", kind, "--onnx", "--class-weights", "balanced"]
    assert result_of("train-global", *bundles, ANYONE, *asked)["kind"] == kind
    table(200, of, seed=9).drop(columns="fraud").to_csv(tmp_path / "rows.csv", index=False)
    alone = tmp_path / "elsewhere.onnx"
    alone.write_bytes((model / "model.onnx").read_bytes())
    for name, place in [("folder.csv", model), ("onnx.parquet", alone)]:
        result_of("predict", place, tmp_path / "rows.csv", "-o", tmp_path / name)
    from_folder, from_onnx = pd.read_csv(tmp_path / "folder.csv"), pd.read_parquet(tmp_path / "onnx.parquet")
    assert list(from_folder) == list(from_onnx)
    assert from_onnx.to_numpy() == pytest.approx(from_folder.to_numpy(), abs=1e-5)
    table(200, of, seed=9).to_csv(tmp_path / "real.csv", index=False)
    figures = [result_of("evaluate", place, tmp_path / "real.csv")["roc_auc"] for place in (model, alone)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)


def test_class_weights_that_do_not_fit_are_refused(make_bundle, tmp_path):
    bundle, out = make_bundle("alder", rows=600), tmp_path / "model"
    said = refusal("train-global", bundle, ANYONE, "--out", out, "--rows", 500, "--class-weights", "maybe=2")
    assert "'maybe' is no class of 'fraud'; it has 0, 1" in said
    assert "write none, balanced" in refusal("train-global", bundle, ANYONE, "--out", out, "--class-weights", "x=")
    assert not out.exists()
