"""The global model: what scores rows, what its inputs mean, and where it came from; saved without pickle.

A model is a network, a logistic regression (a network without hidden layers) or boosted trees. It is two files in one folder:
`model.safetensors` (the weights) and `model.json` (kind, schema, preprocessing, calibration, training settings, versions, the bundles
it was trained on, and the digest of the weights). Loading checks every one of them and answers with a ModelError that says
what is wrong. A loaded model gives exactly the scores of the saved one. `model.onnx` beside them is the same model for other
systems (see `onnx_graph`), and it loads as well.
"""

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_serializer, field_validator
from torch import Tensor, nn
from torch.nn import functional

from distill.common.checks import require
from distill.common.tensors import decode_tensors, encode_tensors
from distill.data.schema import Column, Schema
from distill.errors import ModelError
from server_train.models.calibration import Calibration, class_probabilities
from server_train.models.cards import InstitutionCard, Readings, TrainingCard
from server_train.models.features import Encoder, Inputs, NumberCurve
from server_train.models.number_target import TargetBins, bin_labels, bin_means
from server_train.models.onnx_scorer import OnnxScorer, read_onnx
from server_train.models.trees import TreeScorer, trees_from

Kind = Literal["mlp", "logistic", "boosting"]

MODEL_FORMAT = 2
CARD, WEIGHTS, ONNX = "model.json", "model.safetensors", "model.onnx"
LARGEST_FILE = 256 * 2**20
PREDICT_ROWS = 65_536


class Network(nn.Module):
    """A multi-layer perceptron; its first layer reads dense numbers and looks up one vector a categorical column.

    Without hidden layers that one layer gives the scores: a logistic regression.
    """

    def __init__(
        self, *, n_dense: int, n_codes: int, hidden: tuple[int, ...], classes: int, dropout: float = 0.0
    ) -> None:
        """All weights are zero until `initialise` or `load_state_dict`."""
        super().__init__()
        self.n_codes, self.dropout = n_codes, dropout
        sizes = [*hidden, classes]
        self.dense = nn.Parameter(torch.zeros(n_dense, sizes[0]))
        self.table = nn.Parameter(torch.zeros(n_codes, sizes[0]))
        self.bias = nn.Parameter(torch.zeros(sizes[0]))
        self.weights = nn.ParameterList([torch.zeros(a, b) for a, b in itertools.pairwise(sizes)])
        self.biases = nn.ParameterList([torch.zeros(b) for b in sizes[1:]])

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, *, inputs: int, prior: Tensor) -> None:
        """He initialisation from `generator` for `inputs` active inputs; the last bias starts at the log of `prior`."""
        for weight, fan_in in [(self.dense, inputs), (self.table, inputs), *((w, w.shape[0]) for w in self.weights)]:
            if weight.numel():
                weight.normal_(0.0, (2.0 / max(fan_in, 1)) ** 0.5, generator=generator)
        self.weights[-1].mul_(0.3)
        self.biases[-1].copy_(prior.clamp_min(1e-6).log())

    def forward(
        self,
        dense: Tensor,
        codes: Tensor,
        generator: torch.Generator | None = None,
        part: tuple[slice, int] | None = None,
    ) -> Tensor:
        """Logits, shape (rows, classes); with `generator` hidden units are dropped at random, as in training.

        `part`: which rows these are of how many, where several processes share a batch; together they drop what one would.
        """
        own, rows = part or (slice(None), len(dense))
        x = dense @ self.dense + self.bias
        if codes.shape[1]:
            x = x + functional.embedding_bag(codes, self.table, mode="sum")
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = functional.relu(x)
            if generator is not None and self.dropout:
                keep = torch.rand((rows, x.shape[1]), generator=generator)[own] >= self.dropout
                x = x * keep.to(x.device) / (1.0 - self.dropout)
            x = x @ weight + bias
        return x


class ModelCard(BaseModel):
    """What `model.json` holds.

    Attributes:
        created: UTC time.
        kind: What scores the rows.
        versions: Of this software and the libraries that matter for the scores.
        schema_: The public schema that all institutions share (`schema` in the file).
        preprocessing: Curve of each number, from the synthetic pool and the public bounds; trees need none.
        target_bins: Of a target that is a number: what the outputs stand for.
        hidden: Widths of the hidden layers; none but for a network.
        calibration: How scores become probabilities; None: by softmax alone.
        training: Settings, rows, epochs, and how well the held-out synthetic rows are predicted.
        institutions: For each bundle who signed it, its budget, its weights and their terms, its bytes.
        privacy: Both readings of the budgets across institutions; None (`{}` in the file): there are none.
        rehearsal: At least one bundle was a rehearsal: NOT PRIVATE.
        weights_sha256: Digest of `model.safetensors`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    format: Literal["distill-model"] = "distill-model"
    format_version: int = MODEL_FORMAT
    kind: Kind = "mlp"
    created: str
    versions: dict[str, str]
    schema_: Schema = Field(alias="schema")
    schema_digest: str
    preprocessing: dict[str, NumberCurve]
    target_bins: TargetBins | None = None
    hidden: tuple[int, ...] = Field(default=(), max_length=16)
    calibration: Calibration | None = None
    training: TrainingCard
    institutions: list[InstitutionCard] = []
    privacy: Readings | None = None
    rehearsal: bool = False
    weights_sha256: str = ""

    @field_validator("privacy", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return value or None

    @field_serializer("privacy")
    def _empty_if_none(self, value: Readings | None) -> dict[str, JsonValue]:
        return value.model_dump(mode="json") if value is not None else {}

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the outputs stand for, in words: classes, or ranges of a target that is a number."""
        if self.schema_.task == "number" and self.target_bins is not None:
            return tuple(bin_labels(self.target_bins.on(_target(self.schema_))))
        return tuple(str(c) for c in self.schema_.classes)


class Scorer(Protocol):
    """What gives a model its scores."""

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Class probabilities of rows in public values, float64, shape (rows, classes). Raises DataError."""

    def tensors(self) -> dict[str, np.ndarray]:
        """What `model.safetensors` holds."""


@dataclass(frozen=True)
class NetworkScorer:
    """A network, or a logistic regression."""

    encoder: Encoder
    network: Network
    calibration: Calibration | None = None

    @property
    def inputs_read(self) -> int:
        """Numbers that are read of a row: dense ones, and one a category."""
        return self.encoder.n_dense + self.encoder.n_codes

    @property
    def parameters(self) -> int:
        """Weights."""
        return sum(p.numel() for p in self.network.parameters())

    def scores(self, frame: pd.DataFrame) -> np.ndarray:
        """Raw scores of the classes, float64, shape (rows, classes)."""
        return raw_scores(self.network, self.encoder.encode(frame))

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Class probabilities."""
        return class_probabilities(self.scores(frame), self.calibration)

    def tensors(self) -> dict[str, np.ndarray]:
        """Its weights, by name."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.network.state_dict().items()}


@dataclass(frozen=True)
class Model:
    """A trained scorer and all that is known of it."""

    card: ModelCard
    scorer: Scorer

    @property
    def schema(self) -> Schema:
        """The public schema of the rows it scores."""
        return self.card.schema_

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of each class (in the order of `card.outputs`) for each row, float64, shape (rows, classes).

        Raises:
            DataError: a feature column is absent or holds what the schema forbids.
        """
        parts = [
            self.scorer.probabilities(frame.iloc[start : start + PREDICT_ROWS])
            for start in range(0, len(frame), PREDICT_ROWS)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.card.outputs)))

    def predict_number(self, frame: pd.DataFrame) -> np.ndarray:
        """Expected value of a target that is a number for each row, float64, shape (rows,). Raises like `predict`."""
        assert self.card.target_bins is not None
        return np.asarray(self.predict(frame) @ bin_means(self.card.target_bins.on(_target(self.schema))))


@torch.no_grad()
def raw_scores(network: Network, inputs: Inputs) -> np.ndarray:
    """Scores of the classes of encoded rows, float64, shape (rows, classes)."""
    scores = network(torch.from_numpy(inputs.dense), torch.from_numpy(inputs.codes))
    return np.asarray(scores.double().numpy())


def probabilities(network: Network, inputs: Inputs) -> np.ndarray:
    """Class probabilities of encoded rows as the network gives them, float64, shape (rows, classes)."""
    return class_probabilities(raw_scores(network, inputs), None)


def save_model(model: Model, folder: Path) -> ModelCard:
    """Write both files into the existing `folder`; returns the card with the digest of the weights."""
    weights = encode_tensors(model.scorer.tensors())
    card = model.card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CARD).write_text(
        json.dumps(card.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    return card


def load_model(path: Path) -> Model:
    """Read a model from its folder, its `model.json` or its `model.onnx`.

    Raises:
        ModelError: a file is missing, damaged, from a newer version, or the two do not belong together.
        ConfigError: it is an ONNX file, and the packages that run it are not installed.
    """
    if path.suffix == ".onnx" and not path.is_dir():
        session, text = read_onnx(path, _read(path))
        card = _card_of(text, path)
        return Model(card, OnnxScorer(session, path, card.schema_, len(card.outputs)))
    folder = path.parent if path.name == CARD and not path.is_dir() else path
    card = _card_of(_read(folder / CARD), folder / CARD)
    weights = _read(folder / WEIGHTS)
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise ModelError(
            f"{folder / WEIGHTS} is not the file that {CARD} describes (its digest differs). "
            "Train or copy the model again."
        )
    try:
        return Model(card, _scorer(card, decode_tensors(weights)))
    except ValueError as error:
        raise ModelError(f"the model in {folder} is damaged: weights and {CARD} do not fit together.") from error


def _scorer(card: ModelCard, tensors: dict[str, np.ndarray]) -> TreeScorer | NetworkScorer:
    """What the card describes, from its tensors. Raises ValueError where they do not fit."""
    classes = len(card.outputs)
    if card.kind == "boosting":
        means = None if card.target_bins is None else bin_means(card.target_bins.on(_target(card.schema_)))
        inputs, trees = trees_from(card.schema_, tensors, 1 if means is not None or classes == 2 else classes)
        return TreeScorer(inputs, trees, classes, card.calibration, means)
    encoder = Encoder(card.schema_, card.preprocessing)
    with torch.device("meta"):  # shapes alone: what a hostile card asks for is never allocated
        network = network_for(encoder, card.hidden, classes=classes)
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: array.shape for name, array in tensors.items() if array.dtype == np.float32}
    require(found == wanted and len(tensors) == len(wanted), "the weights have other shapes than the layers")
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()}, assign=True)
    return NetworkScorer(encoder, network.eval(), card.calibration)


def network_for(encoder: Encoder, hidden: tuple[int, ...], *, classes: int, dropout: float = 0.0) -> Network:
    """A network whose inputs are what `encoder` makes, with one output a class."""
    return Network(n_dense=encoder.n_dense, n_codes=encoder.n_codes, hidden=hidden, classes=classes, dropout=dropout)


def _card_of(text: bytes | str, path: Path) -> ModelCard:
    """The card that `text` holds, checked; `path` names it in errors. Raises ModelError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is not valid JSON. Train or copy the model again.") from None
    if not isinstance(content, dict) or content.get("format") != "distill-model":
        raise ModelError(f"{path} does not describe a model of this software.")
    version = content.get("format_version")
    if isinstance(version, int) and version > MODEL_FORMAT:
        raise ModelError(
            f"{path} has format version {version}; this software reads up to {MODEL_FORMAT}. Install a newer version."
        )
    try:
        card = ModelCard.model_validate(content)
    except ValidationError as error:
        places = ", ".join(sorted({".".join(str(p) for p in e["loc"][:3]) for e in error.errors()})[:5])
        raise ModelError(f"{path} is damaged (see {places}). Train or copy the model again.") from None
    if (card.schema_.task == "number") != (card.target_bins is not None) or _outputs(card) < 1:
        raise ModelError(f"{path} is damaged: its target and `target_bins` disagree. Train or copy the model again.")
    if card.schema_.digest() != card.schema_digest or not all(0 < width <= 65_536 for width in card.hidden):
        raise ModelError(
            f"{path} is damaged: its schema digest or layer widths are wrong. Train or copy the model again."
        )
    if bool(card.hidden) != (card.kind == "mlp") or (
        card.calibration and len(card.calibration.offsets) != _outputs(card)
    ):
        raise ModelError(
            f"{path} is damaged: its kind, layers and calibration disagree. Train or copy the model again."
        )
    return card


def _outputs(card: ModelCard) -> int:
    """How many outputs the card describes; 0 where there is no target, or its bins do not fit it."""
    try:
        return len(card.outputs)
    except ValueError:
        return 0


def _target(schema: Schema) -> Column:
    assert schema.target is not None
    return schema.column(schema.target)


def _read(path: Path) -> bytes:
    """The bytes of a model file. Raises ModelError."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(
                f"{path} is larger than {LARGEST_FILE // 2**20} MiB, more than any model of this software."
            )
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(
            f"no model at {path.parent}: {path.name} is missing. Name a folder that train-global wrote."
        ) from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}.") from None
