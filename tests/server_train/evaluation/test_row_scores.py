"""A row's score is the same to the last bit whatever rows are scored with it, for every kind of model."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.common import exact
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.errors import ModelError
from server_train.evaluation.private_scorer import ModelScorer
from server_train.evaluation.row_scores import _whole_steps, row_probabilities
from server_train.models.calibration import class_probabilities
from server_train.models.features import fit_encoder
from server_train.models.model import ONNX, Model, NetworkScorer, load_model, network_for
from server_train.models.onnx_export import onnx_bytes, write_onnx
from server_train.models.trees import CELLS
from tests.fakes.model_kinds import COLUMNS, SCHEMAS, TARGETS, model_of, rows_of, saved, taught

KINDS = ("mlp", "logistic", "boosting")
FORMS = (*KINDS, *(f"{kind} from ONNX" for kind in KINDS))
SOME = 150  # rows; more than a curve has knots, so that both ways of `np.interp` are taken


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Every kind for every task; `... from ONNX` is read from the file of a model."""
    made = {(task, kind): model_of(task, kind) for task in SCHEMAS for kind in KINDS}

    def get(task, form):
        if (task, form) not in made:
            pytest.importorskip("onnx")
            pytest.importorskip("onnxruntime")
            folder = tmp_path_factory.mktemp("model")
            write_onnx(saved(made[task, form.removesuffix(" from ONNX")], folder), folder / ONNX)
            made[task, form] = load_model(folder / ONNX)
        return made[task, form]

    return get


def tables_with(rows):
    """(what, positions): the same rows alone, in tables of other sizes, in another order, behind one row more."""
    everything = np.arange(rows)
    yield from ((f"row {row} alone", everything[row : row + 1]) for row in range(30))
    yield from ((f"the first {size}", everything[:size]) for size in (2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 64, 127))
    yield "in another order", np.random.default_rng(0).permutation(rows)
    yield "one row more in front", np.append(rows - 1, everything[:-1])
    yield "a row many times", np.zeros(70, dtype=int)


def require_row_local(scores_of, frame):
    """`scores_of(frame)`, (rows, ...), has the same bits for a row in every table."""
    whole = np.asarray(scores_of(frame))
    for what, places in tables_with(len(frame)):
        found = np.asarray(scores_of(frame.iloc[places]))
        assert found.tobytes() == whole[places].tobytes(), f"{what}: another row moved a score"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", SCHEMAS)
def test_a_row_is_scored_the_same_whatever_stands_beside_it(models, task, form):
    """With `Model.predict` in the place of `row_probabilities` it fails on the machine where it was written: for networks of every
    task and most of the others, a row alone, or among three, has other last bits than in a longer table.
    """
    model = models(task, form)
    require_row_local(lambda frame: row_probabilities(model, frame), rows_of(SOME, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_the_pieces_makes_no_difference(models, kind, monkeypatch):
    model, rows = models("three classes", kind), rows_of(5000, 4)
    whole = row_probabilities(model, rows)
    monkeypatch.setattr("server_train.models.model.PREDICT_ROWS", 1100)
    monkeypatch.setattr("server_train.evaluation.row_scores.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("server_train.models.trees.CELLS", CELLS // 90)
    assert row_probabilities(model, rows).tobytes() == whole.tobytes()
    assert row_probabilities(model, rows.head(0)).shape == (0, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", ["two classes", "three classes"])
def test_what_is_counted_of_a_row_follows_from_it_alone(models, task, form):
    """Block by block whether it holds, and the score."""
    scorer = ModelScorer(models(task, form))
    frame = canonical_table(taught(task, SOME, 5)[0], SCHEMAS[task])

    def columns(rows):
        return np.stack([part.astype(float) for pair in scorer.scored(rows) for part in pair], axis=1)

    require_row_local(columns, frame)


@pytest.mark.parametrize("kind", ["mlp", "boosting"])
def test_what_a_model_reads_of_a_row_follows_from_it_alone(models, kind):
    scorer = models("two classes", kind).scorer

    def read(frame):
        if kind == "boosting":
            return scorer.inputs.encode(frame)
        inputs = scorer.encoder.encode(frame)
        return np.concatenate([inputs.dense, inputs.codes], axis=1)

    require_row_local(read, rows_of(SOME, 6))


@pytest.mark.parametrize("kept", ["numbers", "categories"])
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_tables_of_one_kind_of_column_are_scored(kept, hidden):
    columns = [c for c in COLUMNS if (c["kind"] == "categorical") == (kept == "categories")]
    schema = Schema.model_validate({"name": "some", "target": "y", "columns": [*columns, TARGETS["two classes"]]})
    rows = rows_of(SOME, 1)
    encoder = fit_encoder(schema, rows)
    network = network_for(encoder, hidden, classes=2)
    for values in network.parameters():
        torch.nn.init.normal_(values, generator=torch.Generator().manual_seed(0))
    model = Model(model_of("two classes", "logistic").card, NetworkScorer(encoder, network.eval()))
    require_row_local(lambda frame: row_probabilities(model, frame), rows)
    assert row_probabilities(model, rows) == pytest.approx(model.predict(rows), abs=1e-5, rel=0)


# Largest differences seen in 5,000 rows: networks 3e-7 (float32 against exact), trees 9e-15, ONNX 3e-16.
@pytest.mark.parametrize(("form", "most"), [(f, 1e-12 if f == "boosting" else 1e-6) for f in FORMS])
@pytest.mark.parametrize("task", SCHEMAS)
def test_the_scores_are_those_of_the_model(models, task, form, most):
    model, rows = models(task, form), rows_of(2000, 7)
    assert row_probabilities(model, rows) == pytest.approx(model.predict(rows), abs=most, rel=0)


def with_weights(model, **factors):
    """The model with some weights of its network multiplied, by their names."""
    network = copy.deepcopy(model.scorer.network)
    network.load_state_dict({name: v * factors.get(name, 1.0) for name, v in network.state_dict().items()})
    return Model(model.card, replace(model.scorer, network=network))


@pytest.mark.parametrize("factor", [1.0, 2.0**9, 1e4])
def test_scores_are_close_to_float64_also_beyond_the_limit_of_exact_products(models, factor):
    """First weights are multiplied and the next ones divided, so hidden values and weights are large and scores are not."""
    model, rows = models("two classes", "mlp"), rows_of(2000, 8)
    first = dict.fromkeys(("dense", "table", "bias", "biases.0"), factor)
    model = with_weights(model, **first, **{"weights.1": 1 / factor})
    inputs, network = model.scorer.encoder.encode(rows), copy.deepcopy(model.scorer.network).double()
    dense, codes = torch.from_numpy(inputs.dense).double(), torch.from_numpy(inputs.codes)
    with torch.no_grad():
        scores = network(dense, codes).numpy()
        hidden = dense @ network.dense + network.table[codes].sum(dim=1) + network.bias
    assert factor == 1.0 or (hidden.max() > exact.LIMIT and (factor < 1e3 or network.dense.max() > exact.LIMIT))
    wanted = class_probabilities(scores, model.scorer.calibration)
    assert row_probabilities(model, rows) == pytest.approx(wanted, abs=1e-9, rel=0)
    require_row_local(lambda frame: row_probabilities(model, frame), rows[:SOME])


def test_weights_without_measure_keep_rows_apart(models):
    """Of a stranger; the scores mean nothing, but follow from the row alone."""
    model = with_weights(models("two classes", "mlp"), **{"dense": 1e30, "weights.0": -1e25, "weights.1": 1e35})
    require_row_local(lambda frame: row_probabilities(model, frame), rows_of(SOME, 9))
    scorer = models("three classes", "boosting").scorer
    value = scorer.trees.value * np.where(np.arange(len(scorer.trees.value)) % 3, 1.0, 1e308)
    strange = replace(
        models("three classes", "boosting"), scorer=replace(scorer, trees=replace(scorer.trees, value=value))
    )
    require_row_local(lambda frame: row_probabilities(strange, frame), rows_of(SOME, 9))


def test_leaves_in_whole_steps_add_up_the_same_in_every_order(models):
    rng = np.random.default_rng(0)
    for size in (1e-3, 1.0, 700.0, 1e9):
        trees = models("two classes", "boosting").scorer.trees
        value = rng.normal(0, size, len(trees.value))
        steps = _whole_steps(replace(trees, value=value)).value
        assert steps == pytest.approx(value, abs=1e-11 * max(size, 1.0), rel=0)
        sums = [rng.permutation(steps)[: len(trees.roots)] for _ in range(50)]
        for chosen in sums:
            assert {float(np.add.reduce(rng.permutation(chosen))) for _ in range(20)} == {math.fsum(chosen)}


def test_a_graph_that_adds_up_rows_is_kept_from_it(models, tmp_path):
    """Of a stranger: each row's scores and the sum of all rows' scores, which `Model.predict` would follow."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(onnx_bytes(models("two classes", "logistic")))
    softmax = next(n for n in graph.graph.node if n.op_type == "Softmax")
    axis = onnx.numpy_helper.from_array(np.array([0]), "all rows")
    graph.graph.initializer.append(axis)
    places = list(graph.graph.node).index(softmax)
    together = onnx.helper.make_node("ReduceSum", [softmax.input[0], "all rows"], ["sum of rows"], keepdims=1)
    added = onnx.helper.make_node("Add", [softmax.input[0], "sum of rows"], ["together"])
    graph.graph.node.insert(places, added)
    graph.graph.node.insert(places, together)
    softmax.input[0] = "together"
    (tmp_path / ONNX).write_bytes(graph.SerializeToString())
    model, rows = load_model(tmp_path / ONNX), rows_of(SOME, 3)
    assert np.abs(model.predict(rows[:2])[:1] - model.predict(rows[:1])).max() > 0.01
    require_row_local(lambda frame: row_probabilities(model, frame), rows)


def test_a_graph_that_gives_two_rows_for_one_is_refused(models, tmp_path):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(onnx_bytes(models("two classes", "logistic")))
    last = graph.graph.node[-1]
    name = last.output[0]
    last.output[0] = "once"
    graph.graph.node.append(onnx.helper.make_node("Concat", ["once", "once"], [name], axis=0))
    (tmp_path / ONNX).write_bytes(graph.SerializeToString())
    model = load_model(tmp_path / ONNX)
    with pytest.raises(ModelError, match="cannot be run on rows of its own schema"):
        row_probabilities(model, rows_of(5, 3))


def test_a_kind_that_nobody_has_thought_through_is_refused(models):
    model = replace(models("two classes", "mlp"), scorer=object())
    with pytest.raises(TypeError, match="object has no row-local scores"):
        row_probabilities(model, rows_of(5, 3))
