"""A trained model in its user's hands: files and frames are scored and judged alike, wherever the model lies."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distill.data.tables import canonical_table, write_table
from distill.errors import ConfigError, DataError, ModelError
from distill.exchange.prior import Cost
from server_train.evaluation.assessment import Question, assess
from server_train.evaluation.decisions import Costs
from server_train.hub.trained_model import TrainedModel, evaluate, load_model
from server_train.models.cards import Readings
from server_train.models.folder import read_folder
from server_train.models.model import Model, save_model
from server_train.registry.registry import Registry
from tests.fakes.model_kinds import SCHEMAS, TARGETS, model_of, rows_of, taught

NAMES = {
    "two classes": ["score"],
    "three classes": ["probability_0", "probability_1", "probability_2"],
    "number": ["prediction"],
}


@pytest.fixture(scope="module")
def models() -> dict[str, TrainedModel]:
    return {task: TrainedModel(model_of(task, "logistic")) for task in TARGETS}


@pytest.mark.parametrize("task", TARGETS)
def test_a_frame_is_scored_as_its_file_and_keeps_its_index(models, task, tmp_path):
    model, rows = models[task], rows_of(300, 4)
    write_table(rows, tmp_path / "rows.csv")
    index = [f"customer {i}" for i in range(len(rows))]
    of_frame = model.predict(rows.set_axis(index, axis=0))
    assert list(of_frame.columns) == NAMES[task]
    assert list(of_frame.index) == index
    for place in (tmp_path / "rows.csv", str(tmp_path / "rows.csv")):
        pd.testing.assert_frame_equal(model.predict(place), of_frame.reset_index(drop=True))
    clean = canonical_table(rows, model.schema, role="predict")
    if task == "number":
        np.testing.assert_array_equal(of_frame["prediction"], model.model.predict_number(clean))
    else:
        np.testing.assert_array_equal(of_frame, model.model.predict(clean)[:, -len(NAMES[task]) :])


def test_a_frame_is_left_as_it_is_and_further_columns_are_ignored(models):
    rows = rows_of(50, 4)
    more = rows.assign(note="x")
    before = more.copy(deep=True)
    pd.testing.assert_frame_equal(models["two classes"].predict(more), models["two classes"].predict(rows))
    pd.testing.assert_frame_equal(more, before)


def test_a_frame_that_does_not_fit_is_refused_by_its_columns(models):
    with pytest.raises(DataError, match=r"the data frame: column\(s\) missing: 'age'"):
        models["two classes"].predict(rows_of(5, 4).drop(columns="age"))


def test_a_model_is_loaded_from_a_folder_a_card_and_a_registry(models, tmp_path):
    rows, wanted = rows_of(100, 4), models["two classes"].predict(rows_of(100, 4))
    (tmp_path / "model").mkdir()
    cost = Cost(epsilon=2.0, delta=1e-5)
    privacy = Readings(disjoint=cost, overlapping=cost)
    known = models["two classes"].card.model_copy(update={"privacy": privacy})
    card = save_model(Model(known, models["two classes"].model.scorer), tmp_path / "model")
    registry = Registry(str(tmp_path / "models.db"))
    registry.add(card, read_folder(tmp_path / "model"), {"rows": 1, "settings": {}})
    registry.promote(1)
    places: list[Path | str] = [str(tmp_path / "model"), tmp_path / "model" / "model.json"]
    places += [tmp_path / "models.db", str(tmp_path / "models.db@1")]
    for place in places:
        loaded = load_model(place)
        pd.testing.assert_frame_equal(loaded.predict(rows), wanted)
        assert loaded.identity == {"weights_sha256": card.weights_sha256, "created": card.created}
        assert loaded.rehearsal is False
    with pytest.raises(ModelError, match="no model at"):
        load_model(tmp_path / "nowhere")


def test_a_model_is_judged_on_a_frame_as_on_its_file(models, tmp_path):
    rows = taught("two classes", 500, 7)[0]
    write_table(rows.assign(branch="a"), tmp_path / "rows.parquet")
    costs = Costs(false_positive=1, false_negative=4)
    wanted = assess(
        models["two classes"].model, tmp_path / "rows.parquet", Question(by=("region", "branch"), costs=costs)
    )
    words = {"by": ("region", "branch"), "costs": (1.0, 4.0)}
    found = [
        evaluate(models["two classes"], data, **words)
        for data in (rows.assign(branch="a"), str(tmp_path / "rows.parquet"))
    ]
    assert [f.as_dict() for f in found] == [wanted.as_dict()] * 2
    assert wanted.slices[1].groups[0]["group"] == "a"


def test_a_question_that_does_not_fit_is_refused(models):
    rows = taught("number", 50, 7)[0]
    with pytest.raises(ConfigError, match="is a number"):
        evaluate(models["number"], rows, threshold=0.5)
    with pytest.raises(DataError, match=r"the data frame: .*shoe_size"):
        evaluate(models["number"], rows, by=("shoe_size",))


def test_a_private_evaluation_asks_with_the_threshold_among_the_edges(models):
    (block,) = models["two classes"].private_scorer(0.37).blocks(12)
    assert {0.37, 0.5} <= set(block.edges)
    assert models["two classes"].schema == SCHEMAS["two classes"]
