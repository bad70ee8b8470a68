"""One graph, preprocessing included: other systems get our scores, and files of strangers are refused."""

import sys

import numpy as np
import pandas as pd
import pytest

from distill.data.schema import Schema
from distill.errors import ConfigError, DataError, ModelError
from server_train.models.model import ONNX, load_model
from server_train.models.onnx_export import onnx_bytes, with_onnx, write_onnx
from server_train.models.onnx_scorer import CARD_KEY, input_values
from tests.fakes.model_kinds import SCHEMAS, model_of, rows_of, saved

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
KINDS = ("mlp", "logistic", "boosting")


@pytest.fixture(scope="module")
def models():
    return {(task, kind): model_of(task, kind) for task in SCHEMAS for kind in KINDS}


def written(model, folder):
    """The folder's model.onnx, read again."""
    write_onnx(saved(model, folder), folder / ONNX)
    return load_model(folder / ONNX)


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(onnx_bytes(model), options, providers=["CPUExecutionProvider"])


def fed(model, frame):
    """Rows as another system would hand them over, without any help of ours."""
    feeds = {}
    for column in model.schema.features:
        values = frame[column.name]
        if column.kind == "categorical":
            feeds[column.name] = np.array([["" if pd.isna(v) else str(v)] for v in values], dtype=object)
        else:
            feeds[column.name] = values.to_numpy(dtype=np.float64, na_value=np.nan)[:, None]
    return feeds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", SCHEMAS)
def test_the_graph_alone_gives_the_models_scores(models, task, kind, tmp_path):
    model, rows = models[task, kind], rows_of(3000, 8)
    loaded = written(model, tmp_path)
    assert loaded.card == load_model(tmp_path).card
    assert loaded.predict(rows) == pytest.approx(model.predict(rows), abs=1e-5)
    outputs = session_of(model).run(None, fed(model, rows))
    assert outputs[0] == pytest.approx(model.predict(rows), abs=1e-5)
    if task == "number":
        assert outputs[1][:, 0] == pytest.approx(model.predict_number(rows), rel=1e-5)
        assert loaded.predict_number(rows) == pytest.approx(model.predict_number(rows), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_values_at_and_beyond_the_bounds_and_on_every_knot_agree(models, kind):
    model = models["two classes", kind]
    base = rows_of(60, 2)
    curves = models["two classes", "mlp"].card.preprocessing
    for name in ("income", "balance"):
        knots = np.array([-1e12, *curves[name].knots, 1e12])
        rows = pd.concat([base.head(1)] * len(knots), ignore_index=True).assign(**{name: knots})
        got = session_of(model).run(None, fed(model, rows))[0]
        assert got == pytest.approx(model.predict(rows), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_schema_forbids_is_never_guessed_at(models, kind):
    """Python refuses the row; the graph answers NaN, or not at all."""
    model = models["three classes", kind]
    session, rows = session_of(model), rows_of(3, 2)
    for name, value in [("balance", np.nan), ("balance", np.inf), ("income", -np.inf)]:
        spoilt = rows.assign(**{name: [value, rows[name].fillna(1.0)[1], 2.0]})
        with pytest.raises(DataError):
            model.predict(spoilt)
        assert np.isnan(session.run(None, fed(model, spoilt))[0]).all(axis=1).tolist() == [True, False, False]
    for name, value in [("grade", 4), ("grade", None), ("job", None)]:
        spoilt = rows.assign(**{name: pd.Series([value, *rows[name][1:]], dtype=object)})
        with pytest.raises(DataError):
            model.predict(spoilt)
        with pytest.raises(Exception, match="out of data bounds"):
            session.run(None, fed(model, spoilt))


@pytest.mark.parametrize("kind", KINDS)
def test_unlisted_categories_become_other_or_missing(models, kind):
    model = models["two classes", kind]
    rows = rows_of(2, 2).assign(job=["pilot", "(other)"], region=["west", None])
    got = session_of(model).run(None, fed(model, rows))[0]
    assert got == pytest.approx(model.predict(rows), abs=1e-5)
    known = rows.assign(job=["(other)", "(other)"], region=[None, None])
    assert model.predict(rows) == pytest.approx(model.predict(known), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", ["numbers", "categories"])
def test_tables_of_one_kind_of_column_and_awkward_names_work(kind, features, tmp_path):
    """Columns that are called as the graph calls its own values."""
    from server_train.models.model import Model, ModelCard
    from server_train.training.fit import ModelChoice, fit_model
    from server_train.training.network import TrainingSettings

    rng = np.random.default_rng(0)
    if features == "numbers":
        columns = [{"name": n, "kind": "continuous", "min": 0, "max": 1} for n in ("probabilities", "constant_0")]
        frame = pd.DataFrame(rng.random((400, 2)), columns=["probabilities", "constant_0"])
    else:
        columns = [{"name": n, "kind": "categorical", "categories": ["a", "b"]} for n in ("Add_0", "prediction")]
        values = rng.choice(np.array(["a", "b"], dtype=object), (400, 2))
        frame = pd.DataFrame(values, columns=["Add_0", "prediction"])
    target = {"name": "y", "kind": "categorical", "categories": [0, 1]}
    schema = Schema.model_validate({"name": "awkward", "target": "y", "columns": [*columns, target]})
    soft = rng.dirichlet([1, 1], 400).astype(np.float32)
    settings = TrainingSettings(steps=10, hidden=(4,))
    got = fit_model(schema, frame, soft, settings, ModelChoice(kind=kind))
    card = ModelCard(
        kind=kind,
        created="",
        versions={},
        schema=schema,
        schema_digest=schema.digest(),
        preprocessing=got.encoder.curves if got.encoder else {},
        hidden=(4,) if kind == "mlp" else (),
        calibration=got.scorer.calibration,
        training={},
    )
    model = Model(card, got.scorer)
    assert written(model, tmp_path).predict(frame) == pytest.approx(model.predict(frame), abs=1e-5)


def test_the_metadata_says_what_the_model_is(models):
    model = models["two classes", "boosting"]
    found = session_of(model).get_modelmeta().custom_metadata_map
    assert found["distill.kind"] == "boosting"
    assert found["distill.classes"] == '["no", "yes"]'
    assert found["distill.rehearsal"] == "false"
    assert found["distill.schema_digest"] == model.schema.digest()


def test_files_of_a_model_are_given_its_graph(models, tmp_path):
    """What an export from the registry does for a version that was trained without."""
    model = saved(models["two classes", "boosting"], tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    more = with_onnx(files)
    assert {name: more[name] for name in files} == files
    assert more[ONNX] == onnx_bytes(model)


def test_a_model_read_from_onnx_is_not_saved_again(models, tmp_path):
    loaded = written(models["two classes", "logistic"], tmp_path)
    with pytest.raises(ModelError, match="copy the file"):
        onnx_bytes(loaded)
    with pytest.raises(ModelError, match="cannot be saved in another form"):
        saved(loaded, tmp_path)


def test_without_the_packages_the_mend_is_named(models, tmp_path, monkeypatch):
    write_onnx(models["two classes", "logistic"], tmp_path / ONNX)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'distill\[onnx\]'"):
        load_model(tmp_path / ONNX)
    with pytest.raises(ConfigError, match=r"pip install 'distill\[onnx\]'"):
        write_onnx(models["two classes", "logistic"], tmp_path / "other.onnx")


@pytest.fixture(scope="module")
def good(models):
    return onnx_bytes(models["two classes", "logistic"])


def first(graph, kind):
    return next(n for n in graph.node if n.op_type == kind)


def swap_card(model, old, new):
    prop = next(p for p in model.metadata_props if p.key == CARD_KEY)
    assert old in prop.value
    prop.value = prop.value.replace(old, new)


def grow(model):
    """A graph that doubles what it computes thirty times."""
    value = first(model.graph, "Concat").output[0]
    for i in range(30):
        model.graph.node.append(onnx.helper.make_node("Concat", [value, value], [f"more_{i}"], axis=1))
        value = f"more_{i}"


def unknown_size(model):
    """Rows turned into columns: how many there are is not known beforehand."""
    shape = onnx.numpy_helper.from_array(np.array([1, 0, 2]), "axes")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["balance", "axes"], ["sum"], keepdims=0))


def more_inputs(model):
    """One that the schema knows nothing of, and nothing reads."""
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.DOUBLE, ["rows", 1]))


def outside(model):
    constant = model.graph.initializer[0]
    constant.data_location = onnx.TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="../../etc/passwd")


def subgraph(model):
    inner = onnx.helper.make_graph([], "inner", [], [])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("body", inner))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: m.metadata_props.pop(), "distill.card|distill"),
        (lambda m: setattr(first(m.graph, "MatMul"), "op_type", "Loop"), "operators of other kinds .Loop"),
        (lambda m: setattr(first(m.graph, "MatMul"), "domain", "evil"), "operators of other kinds .MatMul"),
        (lambda m: m.opset_import.add(domain="evil", version=1), "other operator sets"),
        (outside, "something outside itself"),
        (subgraph, "graphs inside its graph"),
        (grow, "too large, or of a size that cannot be told"),
        (unknown_size, "too large, or of a size that cannot be told"),
        (lambda m: setattr(m.graph.input[0], "name", "other"), "not a readable|cannot be|can be run"),
        (more_inputs, "inputs or outputs are not those of its schema"),
        (lambda m: swap_card(m, '"nurse"', '"purse"'), "schema digest"),
        (lambda m: swap_card(m, '"distill-model"', '"other"'), "does not describe a model"),
    ],
)
def test_graphs_of_strangers_are_refused(good, tmp_path, spoil, words):
    model = onnx.load_from_string(good)
    if words == "distill.card|distill":
        kept = [p for p in model.metadata_props if p.key != CARD_KEY]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
    else:
        spoil(model)
    path = tmp_path / ONNX
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=words):
        load_model(path)


def test_what_is_no_onnx_at_all_is_refused(tmp_path):
    path = tmp_path / ONNX
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ModelError, match=r"model\.onnx is not"):
        load_model(path)
    with pytest.raises(ModelError, match="no model at"):
        load_model(tmp_path / "absent.onnx")


def test_a_graph_that_gives_no_probabilities_is_refused(good, tmp_path):
    model = onnx.load_from_string(good)
    first(model.graph, "Softmax").op_type = "Relu"
    del first(model.graph, "Relu").attribute[:]
    path = tmp_path / ONNX
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="no probabilities"):
        load_model(path).predict(rows_of(50, 1))


def test_inputs_are_texts_and_doubles():
    rows = rows_of(50, 1)
    schema = SCHEMAS["number"]
    assert set(input_values(schema, "region", rows)) <= {"north", "south", "east", ""}
    assert input_values(schema, "years", rows).dtype == np.float64
