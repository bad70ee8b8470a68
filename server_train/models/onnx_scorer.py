"""Running a model from its ONNX file alone, which is read as if an enemy had written it.

Only the operators that `onnx_graph` writes may occur, no loops or functions, nothing outside the file; what the graph computes
for a row must be known beforehand and small. The rest of a model (schema, classes, where it came from) is in its metadata.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from distill.data.schema import Schema
from distill.errors import ConfigError, ModelError
from server_train.models.features import category_codes, levels, number_values

CARD_KEY = "distill.card"
DOMAINS = {"": 17, "ai.onnx.ml": 3}
OPERATORS = {
    *(
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Div",
        "Gather",
        "GreaterOrEqual",
        "IsNaN",
        "LabelEncoder",
        "MatMul",
        "Min",
        "Mul",
    ),
    *("ReduceSum", "Relu", "Softmax", "Sub", "TreeEnsembleRegressor", "Where"),
}
MOST_NODES = 20_000
LARGEST_ROW = 400_000  # numbers that one node may compute for one row
ROWS = 1_024  # that are scored at once


@dataclass(frozen=True, eq=False)
class OnnxScorer:
    """A graph at work; its first output is the probabilities."""

    session: Any
    path: Path
    schema: Schema
    classes: int

    def __post_init__(self) -> None:
        """Raise ModelError unless inputs and output are those of a model of this schema."""
        wanted = [(c.name, input_type(c.kind)) for c in self.schema.features]
        found = [(i.name, i.type) for i in self.session.get_inputs()]
        output = self.session.get_outputs()[0]
        if found != wanted or output.type != "tensor(double)" or output.shape[1:] != [self.classes]:
            raise ModelError(f"{self.path} is damaged: its inputs or outputs are not those of its schema.")

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Class probabilities. Raises DataError as `features` does, ModelError if the graph gives none."""
        feeds = {c.name: input_values(self.schema, c.name, frame)[:, None] for c in self.schema.features}
        output = [self.session.get_outputs()[0].name]
        parts = [
            self._run(output, {name: values[start : start + ROWS] for name, values in feeds.items()})
            for start in range(0, len(frame), ROWS)
        ]
        out = np.concatenate(parts) if parts else np.zeros((0, self.classes))
        if not (np.isfinite(out).all() and np.allclose(out.sum(axis=1), 1.0, atol=1e-4) and (out >= 0).all()):
            raise ModelError(f"{self.path} is damaged: what it gives are no probabilities.")
        return out

    def _run(self, output: list[str], feeds: dict[str, np.ndarray]) -> np.ndarray:
        try:
            return np.asarray(self.session.run(output, feeds)[0], dtype=float)
        except Exception:  # the runtime's own classes; its words may quote a value
            raise ModelError(f"{self.path} is damaged: it cannot be run on rows of its own schema.") from None

    def tensors(self) -> dict[str, np.ndarray]:
        """There are none beside the file. Raises ModelError."""
        raise ModelError(f"{self.path} cannot be saved in another form: keep the file, or the folder it was made from.")


def input_type(kind: str) -> str:
    """Type of a column's input: the text of a category ("" is missing), or a double (NaN is missing)."""
    return "tensor(string)" if kind == "categorical" else "tensor(double)"


def input_values(schema: Schema, name: str, frame: pd.DataFrame) -> np.ndarray:
    """One column as its input takes it, shape (rows,). Raises DataError."""
    column = schema.column(name)
    if column.kind != "categorical":
        return number_values(column, frame[name])
    return np.asarray(np.array(levels(column), dtype=object)[category_codes(column, frame[name])])


def onnx_packages() -> tuple[ModuleType, ModuleType]:
    """(onnx, onnxruntime). Raises ConfigError with the mend where they are not installed."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise ConfigError("ONNX needs two more packages: pip install 'distill[onnx]'.") from None
    return onnx, onnxruntime


def read_onnx(path: Path, data: bytes) -> tuple[Any, str]:
    """A session that runs the graph, and the text of the model's card.

    Raises:
        ConfigError: The packages are not installed.
        ModelError: This is no ONNX model of this software.
    """
    onnx, runtime = onnx_packages()
    try:
        model = onnx.load_from_string(data)
        problem = _problem(onnx, model)
    except Exception:  # whatever a hostile file makes the library raise
        raise ModelError(f"{path} is not a readable ONNX model.") from None
    if problem:
        raise ModelError(f"{path} is not an ONNX model of this software: {problem}.")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception:
        raise ModelError(f"{path} is not an ONNX model that can be run.") from None
    return session, next(p.value for p in model.metadata_props if p.key == CARD_KEY)


def _problem(onnx: Any, model: Any) -> str:
    """What is wrong with a model of a stranger; empty: nothing."""
    graph = model.graph
    if sum(p.key == CARD_KEY for p in model.metadata_props) != 1:
        return f"its metadata lacks {CARD_KEY}"
    if {o.domain: o.version for o in model.opset_import} != DOMAINS or model.functions or model.training_info:
        return "it has other operator sets, or functions of its own"
    unknown = sorted({n.op_type for n in graph.node if n.op_type not in OPERATORS or n.domain not in DOMAINS})
    if unknown or len(graph.node) > MOST_NODES:
        return f"it has operators of other kinds ({', '.join(unknown[:3])})" if unknown else "it is too large"
    if graph.sparse_initializer or any(t.external_data or t.data_location for t in _stored(graph)):
        return "it refers to something outside itself"
    if any(a.HasField("g") or a.graphs for n in graph.node for a in n.attribute):
        return "it holds graphs inside its graph"
    sizes = list(_row_sizes(onnx.shape_inference.infer_shapes(model, data_prop=True).graph))
    if len(sizes) < len(graph.node) or max(sizes, default=0) > LARGEST_ROW:
        return "what it computes for a row is too large, or of a size that cannot be told"
    return ""


def _stored(graph: Any) -> Iterator[Any]:
    """Every tensor in the file."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


def _row_sizes(graph: Any) -> Iterator[int]:
    """Numbers a row of everything that is computed, where they can be told; a row is the first dimension."""
    for value in (*graph.value_info, *graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim and all(d.HasField("dim_value") for d in shape.dim[1:]):
            yield int(np.prod([float(d.dim_value) for d in shape.dim[1:]]))
