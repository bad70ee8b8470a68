"""Trees as arrays: equal to scikit-learn's, and files of strangers refused."""

from dataclasses import replace

import numpy as np
import pytest

from server_train.models.trees import LEAF, TreeInputs, TreeScorer, category_places, trees_from
from server_train.training.boosting import BoostingSettings, arrays_of, boost
from server_train.training.class_weights import hard_labels
from tests.fakes.model_kinds import SCHEMAS, fitted, rows_of, taught


def scikit_learns(task):
    """(scikit-learn's model, our inputs, encoded fresh rows) of a task, trained on drawn labels."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    frame, soft, _ = taught(task, 3000, 0)
    inputs = TreeInputs(SCHEMAS[task], category_places(SCHEMAS[task], frame, soft))
    kind = HistGradientBoostingRegressor if task == "number" else HistGradientBoostingClassifier
    target = frame["y"] if task == "number" else soft.argmax(axis=1)
    model = kind(max_iter=20, random_state=0, early_stopping=False).fit(inputs.encode(frame), target)
    return model, inputs, inputs.encode(rows_of(4000, 5))


@pytest.mark.parametrize("task", ["two classes", "three classes"])
def test_trees_give_scikit_learns_probabilities(task):
    model, inputs, x = scikit_learns(task)
    trees = arrays_of(SCHEMAS[task], model, 20)
    trees.check(x.shape[1], 1 if task == "two classes" else 3)
    scorer = TreeScorer(inputs, trees, len(SCHEMAS[task].classes))
    assert scorer.probabilities(rows_of(4000, 5)) == pytest.approx(model.predict_proba(x), abs=1e-12)


def test_trees_give_scikit_learns_numbers():
    model, _, x = scikit_learns("number")
    assert arrays_of(SCHEMAS["number"], model, 20).sums(x)[:, 0] == pytest.approx(model.predict(x), rel=1e-12)


def test_thresholds_cut_where_they_were_learnt():
    """On every threshold and just above it, where a rounded one would send rows the wrong way."""
    model, _, x = scikit_learns("two classes")
    trees = arrays_of(SCHEMAS["two classes"], model, 20)
    inner = np.flatnonzero(trees.feature != LEAF)
    rows = np.repeat(x[:1], 2 * len(inner), axis=0)
    rows[np.arange(len(inner)), trees.feature[inner]] = trees.threshold[inner]
    rows[len(inner) + np.arange(len(inner)), trees.feature[inner]] = np.nextafter(trees.threshold[inner], np.inf)
    assert trees.sums(rows)[:, 0] == pytest.approx(model.decision_function(rows), abs=1e-12)


def test_rows_are_walked_in_pieces(monkeypatch):
    model, _, x = scikit_learns("three classes")
    trees = arrays_of(SCHEMAS["three classes"], model, 20)
    whole = trees.sums(x[:300])
    monkeypatch.setattr("server_train.models.trees.CELLS", 7 * len(trees.roots))
    assert trees.sums(x[:300]) == pytest.approx(whole, abs=1e-12)  # sums of another shape may round otherwise


def test_categories_stand_in_the_order_of_what_is_said_of_them():
    task = "two classes"
    frame, _, _ = taught(task, 4000, 0)
    said = frame["job"].map({"clerk": 0.5, "nurse": 0.1, "farmer": 0.9, "(other)": 0.7}).to_numpy()
    places = category_places(SCHEMAS[task], frame, np.column_stack([1 - said, said]))
    job = places[4:9]  # after the three regions and "missing": clerk, nurse, farmer, smith (never seen), other
    order = [name for _, name in sorted(zip(job, ["clerk", "nurse", "farmer", "smith", "other"], strict=True))]
    assert sorted(job) == [0, 1, 2, 3, 4]
    seen = [name for name in order if name != "smith"]
    assert seen in (["nurse", "clerk", "other", "farmer"], ["farmer", "other", "clerk", "nurse"])
    assert order[2] == "smith"  # where the mean is: between .5 and .7


def test_held_out_rows_halt_and_choose_the_iteration_that_is_kept():
    """Random labels: there is nothing to learn, so the held-out loss rises."""
    task = "two classes"
    frame, _, _ = taught(task, 1200, 0)
    labels = np.eye(2)[np.random.default_rng(0).integers(0, 2, 1200)]
    settings = BoostingSettings(iterations=200, patience=4, least_rows=5)
    got = boost(SCHEMAS[task], (frame[:900], frame[900:]), (labels[:900], labels[900:]), settings, seed=0)
    assert got.kept + settings.patience == len(got.losses) < 200
    assert len(got.scorer.trees.roots) == got.kept
    held_out = [loss for _, loss in got.losses]
    assert got.kept == 0 or held_out[got.kept - 1] == min(held_out)


def test_soft_labels_become_weighted_rows():
    soft = np.array([[0.2, 0.8, 0.0], [1.5, 0.5, 0.0]])
    rows, labels, weights = hard_labels(soft, np.random.default_rng(0), 100)
    sums = np.zeros_like(soft)
    np.add.at(sums, (rows, labels), weights)
    assert sums == pytest.approx(soft, abs=1e-5)
    assert set(labels) == {0, 1, 2}  # a class that never occurs has one row of next to no weight


@pytest.mark.parametrize("limit", [4_000, 2_000, 500])
def test_many_soft_labels_are_drawn_and_keep_their_shares(limit):
    """Shares of 500 drawn labels and more: 8 stddevs of at most .0224 each, missed less than once in 1e14."""
    soft = np.tile([[0.1, 0.6, 0.3]], (2000, 1)) * 1.5
    rows, labels, weights = hard_labels(soft, np.random.default_rng(0), limit)
    assert len(rows) == limit
    shares = np.bincount(labels, weights) / weights.sum()
    assert shares == pytest.approx([0.1, 0.6, 0.3], abs=8 * (0.25 / limit) ** 0.5)


def good():
    return {name: values.copy() for name, values in fitted("two classes", "boosting")[0].scorer.tensors().items()}


def test_good_trees_are_read():
    tensors = good()
    inputs, trees = trees_from(SCHEMAS["two classes"], tensors, 1)
    assert len(trees.roots) == 12
    assert (inputs.places == tensors["places"]).all()


def inner_of(tensors):
    return int(np.flatnonzero(tensors["feature"] != LEAF)[0])


def put(name, value):
    """Change one entry of an inner node."""

    def spoil(tensors):
        tensors[name][inner_of(tensors)] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.pop("value"), "not those of trees"),
        (lambda t: t.update(more=np.zeros(1)), "not those of trees"),
        (lambda t: t.update(value=t["value"].astype(np.float32)), "value has another form"),
        (lambda t: t.update(left=t["left"][:-1]), "left has another form"),
        (lambda t: t.update(baseline=np.zeros(2)), "baseline has another form"),
        (put("threshold", np.inf), "threshold is not finite"),
        (put("feature", 7), "out of range"),
        (put("feature", -2), "out of range"),
        (lambda t: t["output"].__setitem__(0, 1), "out of range"),
        (put("left", 0), "does not come after its parent"),
        (put("right", 10**6), "does not come after its parent"),
        (lambda t: t["left"].__setitem__(0, len(t["left"]) - 1), "in another tree"),
        (lambda t: t["left"].__setitem__(int(np.flatnonzero(t["feature"] == LEAF)[0]), 0), "a leaf has children"),
        (lambda t: t["roots"].__setitem__(0, 1), "roots do not ascend"),
        (lambda t: t["roots"].__setitem__(-1, 10**6), "roots do not ascend"),
        (lambda t: t.update(places=t["places"][:-1]), "places are not those"),
        (lambda t: t["places"].__setitem__(0, np.nan), "places are not finite"),
    ],
)
def test_trees_of_strangers_are_refused(spoil, words):
    tensors = good()
    spoil(tensors)
    with pytest.raises(ValueError, match=words):
        trees_from(SCHEMAS["two classes"], tensors, 1)


def test_a_tree_that_is_too_deep_is_refused():
    """A chain of 70 inner nodes, each with a leaf at its left."""
    here = np.arange(141, dtype=np.int32)
    inner = (here % 2 == 0) & (here < 140)
    trees = fitted("two classes", "boosting")[0].scorer.trees
    chain = replace(
        trees,
        feature=np.where(inner, 0, LEAF).astype(np.int32),
        threshold=np.zeros(141),
        missing_left=np.zeros(141, np.uint8),
        left=np.where(inner, here + 1, here).astype(np.int32),
        right=np.where(inner, here + 2, here).astype(np.int32),
        value=np.zeros(141),
        roots=np.zeros(1, np.int32),
        output=np.zeros(1, np.int32),
    )
    with pytest.raises(ValueError, match="too deep"):
        chain.check(7, 1)
