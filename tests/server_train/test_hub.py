import functools
import json

import pandas as pd
import pytest
from hub_fakes import BINARY, TERNARY, class_chances, put_bundles, table

from distill.errors import BundleMismatchError, ConfigError, DataError
from distill.tables import read_table
from server_train import hub, intake
from server_train.evaluation import evaluate_scores
from server_train.features import class_codes
from server_train.model import load_model
from server_train.training import TrainingSettings

QUICK = TrainingSettings(steps=150)
train_global = functools.partial(hub.train_global, allow_unknown_signers=True)


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


def test_both_readings_of_the_budgets_are_stated(bundles, tmp_path):
    card = train_global([bundles], out=tmp_path / "model", rows=500, settings=QUICK).card
    assert card.privacy["disjoint"] == {"epsilon": 3.0, "delta": 1e-5}
    assert card.privacy["overlapping"] == {"epsilon": 6.0, "delta": pytest.approx(3e-5)}


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


@pytest.mark.parametrize("step", ["draw_pool", "train", "save_model", "render_report"])
def test_a_failure_at_any_step_leaves_nothing_new_and_the_old_model_whole(bundles, tmp_path, monkeypatch, step):
    out = tmp_path / "model"
    old = train_global([bundles], out=out, rows=500, settings=QUICK).card

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, step, fail)
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
