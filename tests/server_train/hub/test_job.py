import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from distill.data.tables import read_table
from distill.errors import BundleMismatchError, ConfigError, DataError
from server_train import __main__ as command
from server_train.evaluation.metrics import evaluate_scores
from server_train.hub import job
from server_train.hub.card import SHIFTED
from server_train.hub.outputs import Outputs
from server_train.hub.request import TrainingRequest
from server_train.intake import intake
from server_train.intake.admission import Admission
from server_train.models.features import class_codes
from server_train.models.model import load_model
from server_train.training.boosting import BoostingSettings
from server_train.training.fit import ModelChoice
from server_train.training.network import TrainingSettings
from tests.fakes.hubs import BINARY, TERNARY, class_chances, put_bundles, table

QUICK = TrainingSettings(steps=150)
BOOSTED = ModelChoice(kind="boosting", boosting=BoostingSettings(iterations=40))


def train_global(places, *, out, export_pool=None, prepare=None, onnx=False, progress=job.silent, **asked):
    """Train on what stand-ins sent, whoever signed it."""
    request = TrainingRequest(bundles=tuple(places), admission=Admission(allow_unknown_signers=True), **asked)
    outputs = Outputs(folder=out, export_pool=export_pool, prepare=prepare, onnx=onnx)
    return job.train_global(request, outputs, progress=progress)


@pytest.fixture
def bundles(monkeypatch, tmp_path):
    """A folder with three institutions' bundles: a large one, a skewed one, and one with a single class."""
    return put_bundles(monkeypatch, tmp_path, BINARY)


def test_bundles_become_a_model_a_card_and_a_report(bundles, tmp_path):
    stages = []
    result = train_global(
        [bundles],
        out=tmp_path / "model",
        rows=4000,
        settings=QUICK,
        progress=lambda stage, done, total: stages.append(stage),
    )
    assert sorted(p.name for p in result.folder.iterdir()) == ["model.json", "model.safetensors", "report.html"]
    assert list(dict.fromkeys(stages)) == ["verify", "pool", "train"]
    loaded, rows = load_model(tmp_path / "model"), table(3000, BINARY, 50)
    labels = class_codes(BINARY, rows)
    truth = evaluate_scores(labels, class_chances(rows, 2), BINARY.classes).roc_auc
    assert evaluate_scores(labels, loaded.predict(rows), BINARY.classes).roc_auc > truth - 0.02
    json.dumps(result.as_dict(), allow_nan=False)


def test_personalised_models_lie_beside_the_global_one_and_go_with_it(bundles, tmp_path):
    stages = []
    out = tmp_path / "model"
    result = train_global(
        [bundles],
        out=out,
        rows=4000,
        personalise=True,
        settings=QUICK,
        progress=lambda stage, done, total: stages.append(stage),
    )
    assert list(dict.fromkeys(stages)) == ["verify", "pool", "train", "personalise"]
    assert sorted(p.name for p in out.iterdir()) == ["model.json", "model.safetensors", "personal", "report.html"]
    assert {name: path.name for name, path in result.personal.items()} == {
        "Alder Bank": "alder-bank",
        "Birch <b>& Sons</b>": "birch-b-sons-b",
    }
    assert (
        "No personalised model, since too few of the pooled rows are theirs: Cedar $x$." in result.card.training.notes
    )
    said = result.as_dict()["personal"]
    for i, member in enumerate(result.card.institutions[:2]):
        own = load_model(Path(said[member.institution]))
        assert own.card.training.class_prior == pytest.approx(member.class_prior)
        assert own.card.training.rows == member.pooled_rows
        assert [m.pooled_rows > 0 for m in own.card.institutions] == [j == i for j in range(3)]
    assert any("personal/alder-bank (Alder Bank)" in note for note in result.card.training.notes)
    again = train_global([bundles], out=out, rows=500, personalise=True, settings=QUICK)
    assert not again.personal
    assert any(note.startswith("No personalised model") for note in again.card.training.notes)
    assert not (out / "personal").exists()  # those of the earlier model


def test_both_readings_of_the_budgets_are_stated(bundles, tmp_path):
    card = train_global([bundles], out=tmp_path / "model", rows=500, settings=QUICK).card
    assert card.privacy.disjoint.model_dump() == {"epsilon": 3.0, "delta": 1e-5}
    assert card.privacy.overlapping.model_dump() == {"epsilon": 6.0, "delta": pytest.approx(3e-5)}


def test_the_report_names_each_institution_and_escapes_what_they_call_themselves(bundles, tmp_path):
    result = train_global([bundles], out=tmp_path / "model", rows=500, settings=QUICK)
    html = (result.folder / "report.html").read_text()
    assert "Alder Bank" in html
    assert "Birch &lt;b&gt;&amp; Sons&lt;/b&gt;" in html
    assert "<b>& Sons" not in html
    assert "Cedar $x$" in html
    assert "class head is not used" in html
    assert "data:image/svg+xml;base64," in html
    for outside in ("http://", "https://", "<script", 'src="/', "@import"):
        assert outside not in html


def test_three_classes_work_from_bundle_to_report(monkeypatch, tmp_path):
    folder = put_bundles(monkeypatch, tmp_path, TERNARY)
    result = train_global(
        [folder], out=tmp_path / "model", rows=4000, settings=QUICK, export_pool=tmp_path / "pool.csv"
    )
    rows = table(2000, TERNARY, 50)
    scores = load_model(result.folder).predict(rows)
    assert evaluate_scores(class_codes(TERNARY, rows), scores, TERNARY.classes).roc_auc > 0.65
    assert "outcome = lost" in (result.folder / "report.html").read_text()
    assert len(read_table(tmp_path / "pool.csv", TERNARY)) == 4000


@pytest.mark.parametrize("name", ["pool.csv", "pool.parquet"])
def test_the_exported_pool_fits_the_schema_again(bundles, tmp_path, name):
    train_global([bundles], out=tmp_path / "model", rows=700, settings=QUICK, export_pool=tmp_path / name)
    pool = read_table(tmp_path / name, BINARY)
    assert len(pool) == 700
    assert pool["income"].isna().any()


def test_the_pool_may_lie_in_the_models_folder(bundles, tmp_path):
    for _ in range(2):
        train_global(
            [bundles], out=tmp_path / "m", rows=300, settings=QUICK, export_pool=tmp_path / "m" / "pool.parquet"
        )
        assert len(pd.read_parquet(tmp_path / "m" / "pool.parquet")) == 300


def test_the_same_seed_makes_the_same_weights(bundles, tmp_path):
    cards = [train_global([bundles], out=tmp_path / f"m{i}", rows=900, settings=QUICK).card for i in range(2)]
    assert cards[0].weights_sha256 == cards[1].weights_sha256


def test_a_new_model_replaces_the_old_one_and_leaves_other_files_alone(bundles, tmp_path):
    out = tmp_path / "model"
    old = train_global([bundles], out=out, rows=500, settings=QUICK).card
    (out / "mine.txt").write_text("keep")
    new = train_global([bundles], out=out, rows=900, settings=QUICK).card
    assert old.weights_sha256 != new.weights_sha256
    assert load_model(out).card == new
    assert (out / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("step", ["draw_pool", "fit_model", "save_model", "render_report"])
def test_a_failure_at_any_step_leaves_nothing_new_and_the_old_model_whole(bundles, tmp_path, monkeypatch, step):
    out = tmp_path / "model"
    old = train_global([bundles], out=out, rows=500, settings=QUICK).card

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, step, fail)
    with pytest.raises(KeyboardInterrupt):
        train_global([bundles], out=out, rows=900, settings=QUICK)
    with pytest.raises(KeyboardInterrupt):
        train_global([bundles], out=tmp_path / "fresh", rows=900, settings=QUICK)
    assert load_model(out).card == old
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "model"]


def test_a_schema_mismatch_writes_nothing(bundles, tmp_path):
    found = intake.read_bundle(bundles / "0.distill")
    found.manifest.schema_digest = "0" * 64
    with pytest.raises(BundleMismatchError):
        train_global([bundles], out=tmp_path / "model", settings=QUICK)
    assert not (tmp_path / "model").exists()


def test_targets_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        train_global([tmp_path], out=file)
    with pytest.raises(DataError, match="suffix"):
        train_global([tmp_path], out=tmp_path / "m", export_pool=tmp_path / "pool.xlsx")
    with pytest.raises(ConfigError, match="--export-pool"):
        train_global([tmp_path], out=tmp_path / "m", export_pool=tmp_path / "nowhere" / "pool.csv")
    with pytest.raises(ConfigError, match="rows must be at most"):
        train_global([tmp_path], out=tmp_path / "m", rows=10**9)


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_other_kinds_take_the_same_way_from_bundles_to_report(bundles, tmp_path, kind):
    steps = []
    result = train_global(
        [bundles],
        out=tmp_path / "model",
        rows=4000,
        settings=QUICK,
        choice=BOOSTED if kind == "boosting" else ModelChoice(kind="logistic"),
        progress=lambda stage, done, total: steps.append((stage, done <= total)),
    )
    assert all(within for _, within in steps)
    loaded, rows = load_model(tmp_path / "model"), table(3000, BINARY, 50)
    labels = class_codes(BINARY, rows)
    truth = evaluate_scores(labels, class_chances(rows, 2), BINARY.classes).roc_auc
    assert evaluate_scores(labels, loaded.predict(rows), BINARY.classes).roc_auc > truth - 0.02
    assert loaded.card.kind == kind
    assert loaded.card.training.settings["seed"] == 0
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["kind"] == kind
    report = (result.folder / "report.html").read_text()
    assert ("boosted trees" if kind == "boosting" else "logistic regression") in report


def test_onnx_is_written_when_asked_for_and_never_left_from_an_earlier_model(bundles, tmp_path):
    out, rows = tmp_path / "model", table(300, BINARY, 50)
    train_global([bundles], out=out, rows=900, settings=QUICK, choice=BOOSTED, onnx=True)
    assert load_model(out / "model.onnx").predict(rows) == pytest.approx(load_model(out).predict(rows), abs=1e-5)
    train_global([bundles], out=out, rows=900, settings=QUICK, onnx=True)
    assert load_model(out / "model.onnx").card == load_model(out).card
    train_global([bundles], out=out, rows=900, settings=QUICK)
    assert not (out / "model.onnx").exists()


def test_without_its_packages_onnx_is_refused_before_any_work(bundles, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(job, "receive", lambda *_, **__: pytest.fail("bundles were read"))
    with pytest.raises(ConfigError, match="two more packages"):
        train_global([bundles], out=tmp_path / "model", rows=900, onnx=True)


def test_scores_that_are_no_probabilities_are_said_to_be_none(bundles, tmp_path):
    weighted = ModelChoice(class_weights={"1": 5.0}, calibrate=False)
    card = train_global([bundles], out=tmp_path / "raw", rows=900, settings=QUICK, choice=weighted).card
    assert SHIFTED in card.training.notes
    assert card.training.class_weights[1] / card.training.class_weights[0] == pytest.approx(5.0)
    assert card.calibration is None
    calibrated = ModelChoice(class_weights={"1": 5.0})
    card = train_global([bundles], out=tmp_path / "calibrated", rows=900, settings=QUICK, choice=calibrated).card
    assert SHIFTED not in card.training.notes
    assert card.calibration.offsets[1] - card.calibration.offsets[0] < -1.0  # log 5 taken back


def test_a_pool_larger_than_memory_is_trained_on_from_disk(bundles, tmp_path, monkeypatch):
    """The same model card as from memory, but for what the way there shows: times, weights, losses, and which rows are held out."""
    memory = train_global([bundles], out=tmp_path / "memory", rows=3000, settings=QUICK).card
    monkeypatch.setattr(job, "IN_MEMORY", 2999)
    pool = tmp_path / "pool.parquet"
    result = train_global([bundles], out=tmp_path / "disk", rows=3000, settings=QUICK, export_pool=pool)
    assert result.card.institutions == memory.institutions
    assert result.card.training.class_prior == memory.training.class_prior
    assert result.card.training.notes == memory.training.notes
    for name in ("rows", "held_out_rows", "inputs", "parameters"):
        assert getattr(result.card.training, name) == getattr(memory.training, name)
    rows = table(3000, BINARY, 50)
    aucs = [
        evaluate_scores(class_codes(BINARY, rows), load_model(tmp_path / name).predict(rows), BINARY.classes).roc_auc
        for name in ("memory", "disk")
    ]
    assert aucs[0] == pytest.approx(aucs[1], abs=0.01)
    assert len(read_table(pool, BINARY, role="evaluate")) == 3000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "in", "memory", "pool.parquet"]


def test_a_prepared_pool_holds_all_that_a_model_needs_and_nothing_is_trained(bundles, tmp_path):
    result = train_global(
        [bundles], out=tmp_path / "model", rows=3000, settings=QUICK, prepare=tmp_path / "pool.parquet"
    )
    assert result.as_dict()["model"] is None
    assert "no model was trained" in result.notes[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "pool.parquet"]
    assert command.main(["--pool", str(tmp_path / "pool.parquet"), "--out", str(tmp_path / "model"), "--json"]) == 0
    trained = load_model(tmp_path / "model").card
    memory = train_global([bundles], out=tmp_path / "memory", rows=3000, settings=QUICK).card
    assert (trained.institutions, trained.privacy) == (memory.institutions, memory.privacy)
    assert trained.training.notes == memory.training.notes


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"prepare": "pool.csv"}, "name a .parquet file"),
        ({"prepare": "nowhere/pool.parquet"}, "name a .parquet file in a folder that exists"),
        ({"prepare": "pool.parquet", "export_pool": "rows.csv"}, "ask for one of them"),
    ],
)
def test_a_pool_that_cannot_be_prepared_is_refused_before_any_work(tmp_path, more, words):
    with pytest.raises(ConfigError, match=words):
        train_global([tmp_path], out=tmp_path / "m", **{name: tmp_path / place for name, place in more.items()})
