"""A model as one ONNX graph, preprocessing and calibration included, so that another system needs nothing else.

One input a feature column, each of shape (rows, 1): numbers as double (NaN is missing), categories as text as the schema spells
them ("" is missing). Outputs: `probabilities` (rows, classes), and for a target that is a number `prediction` (rows, 1), its expected
value. Numbers are clipped to the schema's bounds and unlisted categories become "other" or missing, as in Python. What the schema forbids
is never guessed at: a missing or infinite number gives NaN, an unknown category an error of the runtime. Doubles, because
a float does not hold every amount in cents, and a threshold must cut where it was learnt.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distill.common import files as durable
from distill.data.schema import Column, Schema
from distill.errors import ConfigError, ModelError
from server_train.models.calibration import Calibration
from server_train.models.features import EXTREME, UNIFORM_SPREAD, NumberCurve, levels
from server_train.models.model import CARD, ONNX, WEIGHTS, Model, NetworkScorer, load_model
from server_train.models.number_target import bin_means, hat_edges
from server_train.models.onnx_scorer import CARD_KEY, DOMAINS, onnx_packages
from server_train.models.trees import LEAF, Trees, TreeScorer

IR_VERSION = 8


def write_onnx(model: Model, path: Path) -> None:
    """Write `model` as an ONNX file, whole or not at all.

    Raises:
        ConfigError: The packages are not installed, or the file cannot be written.
        ModelError: The model was itself read from an ONNX file.
    """
    data = onnx_bytes(model)
    with durable.wrapped("write the model", path, ConfigError):
        durable.write_whole(path, data)


def with_onnx(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """A model's files by name, and `model.onnx` made from them. Raises as `load_model` and `write_onnx` do."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (CARD, WEIGHTS):
            (Path(folder) / name).write_bytes(files[name])
        return {**files, ONNX: onnx_bytes(load_model(Path(folder)))}


def onnx_bytes(model: Model) -> bytes:
    """`model` as the bytes of an ONNX file. Raises as `write_onnx` does."""
    onnx, _ = onnx_packages()
    schema, scorer = model.schema, model.scorer
    g = _Graph(onnx, {c.name for c in schema.features})
    if isinstance(scorer, NetworkScorer):
        scores = _network(g, scorer)
    elif isinstance(scorer, TreeScorer):
        scores = _trees(g, scorer)
    else:
        raise ModelError("a model that was read from an ONNX file is one already: copy the file.")
    if isinstance(scorer, TreeScorer) and scorer.means is not None:
        chances = _hats(g, scores, scorer.means)
    else:
        chances = g.op("Softmax", _calibrated(g, scores, scorer.calibration), axis=1)
    outputs = [g.output("probabilities", len(model.card.outputs), "Add", chances, _poison(g))]
    if model.card.target_bins is not None:
        means = bin_means(model.card.target_bins.on(schema.column(str(schema.target))))
        outputs.append(g.output("prediction", 1, "MatMul", outputs[0].name, g.const(means[:, None])))
    return _finished(g, model, outputs)


@dataclass
class _Graph:
    """Nodes and constants under names that no column has; `poison` holds what must be zero in a row of the schema."""

    onnx: Any
    taken: set[str]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    poison: list[str] = field(default_factory=list)

    def free(self, name: str) -> str:
        """`name`, with underscores behind it until nothing else is called so."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def const(self, values: Any) -> str:
        """A constant."""
        name = self.free(f"constant_{len(self.constants)}")
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node; returns the name of its output."""
        name = self.free(f"{kind}_{len(self.nodes)}")
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def output(self, name: str, width: int, kind: str, *inputs: str) -> Any:
        """A last node: an output of the graph, double, (rows, width)."""
        name = self.free(name)
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name]))
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.DOUBLE, ["rows", width])

    def cast(self, value: str, kind: str) -> str:
        """`value` as FLOAT, DOUBLE or INT64."""
        return self.op("Cast", value, to=getattr(self.onnx.TensorProto, kind))

    def beside(self, values: list[str]) -> str:
        """Columns side by side."""
        return self.op("Concat", *values, axis=1)


def _network(g: _Graph, scorer: NetworkScorer) -> str:
    """Scores of a network, double, (rows, classes)."""
    encoder, weights = scorer.encoder, scorer.tensors()
    parts = []
    if encoder.numbers:
        dense = [part for c in encoder.numbers for part in _curved(g, c, encoder.curves[c.name])]
        parts.append(g.op("MatMul", g.cast(g.beside(dense), "FLOAT"), g.const(weights["dense"])))
    if encoder.categoricals:
        codes = g.beside([_code(g, c, start, encoder.n_codes) for c, start in _starts(encoder.schema)])
        vectors = g.op("Gather", g.const(weights["table"]), codes, axis=0)  # (rows, columns, width)
        parts.append(g.op("ReduceSum", vectors, g.const(np.array([1])), keepdims=0))
    x = parts[0] if len(parts) == 1 else g.op("Add", *parts)
    x = g.op("Add", x, g.const(weights["bias"]))
    for i in range(len(scorer.network.weights)):
        x = g.op("MatMul", g.op("Relu", x), g.const(weights[f"weights.{i}"]))
        x = g.op("Add", x, g.const(weights[f"biases.{i}"]))
    return g.cast(x, "DOUBLE")


def _trees(g: _Graph, scorer: TreeScorer) -> str:
    """Scores of trees, double, (rows, classes), or the number itself, (rows, 1)."""
    schema, trees = scorer.inputs.schema, scorer.inputs
    codes = {c.name: start for c, start in _starts(schema)}
    places = g.const(trees.places) if codes else ""
    columns = []
    for column in schema.features:
        if column.kind == "categorical":
            code = _code(g, column, codes[column.name], len(trees.places))
            columns.append(g.op("Gather", places, code, axis=0))
        else:
            value, absent = _number(g, column)
            columns.append(g.op("Where", absent, g.const(np.nan), value))
    width = len(scorer.trees.baseline)
    sums = g.const(np.zeros((1, width)))
    if len(scorer.trees.roots):
        attributes = _tree_attributes(g, scorer.trees)
        sums = g.cast(g.op("TreeEnsembleRegressor", g.beside(columns), domain="ai.onnx.ml", **attributes), "DOUBLE")
    scores = g.op("Add", sums, g.const(scorer.trees.baseline))
    if scorer.means is None and width == 1:  # the log-odds of the second class; the first has none
        return g.op("MatMul", scores, g.const(np.array([[0.0, 1.0]])))
    return scores


def _tree_attributes(g: _Graph, trees: Trees) -> dict[str, Any]:
    """The arrays as the operator wants them; nodes are numbered from each tree's root."""
    here = np.arange(len(trees.feature))
    tree = np.searchsorted(trees.roots, here, side="right") - 1
    leaf = trees.feature == LEAF
    from_root = here - trees.roots[tree]
    tensor = g.onnx.numpy_helper.from_array
    return {
        "n_targets": len(trees.baseline),
        "aggregate_function": "SUM",
        "post_transform": "NONE",
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": from_root.tolist(),
        "nodes_featureids": np.where(leaf, 0, trees.feature).tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values_as_tensor": tensor(trees.threshold, "thresholds"),
        "nodes_truenodeids": np.where(leaf, 0, trees.left - trees.roots[tree]).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, trees.right - trees.roots[tree]).tolist(),
        "nodes_missing_value_tracks_true": trees.missing_left.astype(int).tolist(),
        "target_treeids": tree[leaf].tolist(),
        "target_nodeids": from_root[leaf].tolist(),
        "target_ids": trees.output[tree][leaf].tolist(),
        "target_weights_as_tensor": tensor(trees.value[leaf], "values"),
    }


def _number(g: _Graph, column: Column) -> tuple[str, str]:
    """(the number inside its bounds, the lower one where it is missing; whether it is missing), each (rows, 1)."""
    absent = g.op("IsNaN", column.name)
    known = g.op("Where", absent, g.const(float(column.min or 0.0)), column.name)
    # Nothing for what the schema allows; NaN for infinity, and for a missing value where there must be one.
    g.poison.append(g.op("Mul", known if column.nullable else column.name, g.const(0.0)))
    return g.op("Clip", known, g.const(float(column.min or 0.0)), g.const(float(column.max or 0.0))), absent


def _curved(g: _Graph, column: Column, curve: NumberCurve) -> list[str]:
    """What `Encoder.number_features` gives, as double columns."""
    value, absent = _number(g, column)
    knots, ranks = np.array(curve.knots), np.array(curve.ranks)
    inside = g.op("Clip", value, g.const(knots[0]), g.const(knots[-1]))
    place = (
        g.op("ReduceSum", _passed(g, inside, knots[1:-1]), g.const(np.array([1])), keepdims=1) if len(knots) > 2 else ""
    )
    start, base, slope = (
        g.op("Gather", g.const(part), place, axis=0) if place else g.const(part[:1])
        for part in (knots[:-1], ranks[:-1], np.diff(ranks) / np.diff(knots))
    )
    rank = g.op("Add", base, g.op("Mul", slope, g.op("Sub", inside, start)))
    rank = g.op("Div", g.op("Sub", rank, g.const(0.5)), g.const(float(UNIFORM_SPREAD)))
    scaled = g.op("Div", g.op("Sub", value, g.const(curve.mean)), g.const(curve.spread))
    scaled = g.op("Clip", scaled, g.const(-EXTREME), g.const(EXTREME))
    parts = [g.op("Where", absent, g.const(0.0), part) for part in (rank, scaled)]
    return [*parts, g.cast(absent, "DOUBLE")] if column.nullable else parts


def _passed(g: _Graph, value: str, knots: np.ndarray) -> str:
    """Which knots a value has reached, int64, (rows, knots)."""
    return g.cast(g.op("GreaterOrEqual", value, g.const(knots[None])), "INT64")


def _code(g: _Graph, column: Column, start: int, stop: int) -> str:
    """Place of a category among those of all columns, int64, (rows, 1); `stop` or more, which no table has, where it is forbidden."""
    allowed = levels(column)
    named = len(column.categories or ())
    keys = list(allowed) if column.nullable else [*allowed, ""]
    values = [start + i for i in range(len(allowed))] + ([] if column.nullable else [stop])
    unknown = start + named if column.other or column.nullable else stop
    return g.op(
        "LabelEncoder", column.name, domain="ai.onnx.ml", keys_strings=keys, values_int64s=values, default_int64=unknown
    )


def _starts(schema: Schema) -> list[tuple[Column, int]]:
    """Each categorical feature with the place of its first category among those of all."""
    out, start = [], 0
    for column in (c for c in schema.features if c.kind == "categorical"):
        out.append((column, start))
        start += len(levels(column))
    return out


def _poison(g: _Graph) -> str:
    """What is added last: 0 in a row that the schema allows, NaN in every row with a number that it forbids; (rows, 1)."""
    if not g.poison:
        return g.const(0.0)
    return g.op("ReduceSum", g.beside(g.poison), g.const(np.array([1])), keepdims=1)


def _calibrated(g: _Graph, scores: str, calibration: Calibration | None) -> str:
    if calibration is None:
        return scores
    return g.op("Add", g.op("Mul", scores, g.const(calibration.slope)), g.const(np.array(calibration.offsets)))


def _hats(g: _Graph, numbers: str, means: np.ndarray) -> str:
    """What `number_bins.hats` gives."""
    before, after = hat_edges(means)
    inside = g.op("Clip", numbers, g.const(means[0]), g.const(means[-1]))
    rising = g.op("Div", g.op("Sub", inside, g.const(before)), g.const(means - before))
    falling = g.op("Div", g.op("Sub", g.const(after), inside), g.const(after - means))
    return g.op("Clip", g.op("Min", rising, falling), g.const(0.0), g.const(1.0))


def _finished(g: _Graph, model: Model, outputs: list[Any]) -> bytes:
    """The graph with its inputs and metadata, checked by the library."""
    helper, types = g.onnx.helper, g.onnx.TensorProto
    inputs = [
        helper.make_tensor_value_info(c.name, types.STRING if c.kind == "categorical" else types.DOUBLE, ["rows", 1])
        for c in model.schema.features
    ]
    graph = helper.make_graph(g.nodes, "distill", inputs, outputs, initializer=g.constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in DOMAINS.items()]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="distill")
    card = model.card
    helper.set_model_props(
        made,
        {
            CARD_KEY: json.dumps(card.model_dump(mode="json", by_alias=True), ensure_ascii=False),
            "distill.kind": card.kind,
            "distill.schema_digest": card.schema_digest,
            "distill.classes": json.dumps(list(card.outputs), ensure_ascii=False),
            "distill.rehearsal": json.dumps(card.rehearsal),
        },
    )
    g.onnx.checker.check_model(made)
    return bytes(made.SerializeToString())
