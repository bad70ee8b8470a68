"""A trained model in the hands of its user: it scores tables, and is judged on rows, in public or privately.

`load_model` finds it in a folder or in a registry. What it answers are pandas frames and figures; what the numbers mean
is on its card.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from distill.data.schema import Schema
from distill.data.sources import Source
from distill.data.tables import read_table
from server_train.evaluation.assessment import Assessment, Question, assess
from server_train.evaluation.decisions import Costs
from server_train.evaluation.groups import NumberBins
from server_train.evaluation.private_scorer import ModelScorer
from server_train.models import model as folders
from server_train.models.model import Model, ModelCard
from server_train.registry.lookup import model_at


@dataclass(frozen=True)
class TrainedModel:
    """A model that scores tables.

    Attributes:
        model: What gives the scores.
    """

    model: Model

    @property
    def card(self) -> ModelCard:
        """What `model.json` says: kind, schema, training, the institutions and their budgets."""
        return self.model.card

    @property
    def schema(self) -> Schema:
        """The public schema of the rows that it scores."""
        return self.model.schema

    @property
    def rehearsal(self) -> bool:
        """Whether a bundle behind it was a rehearsal: NOT PRIVATE."""
        return self.card.rehearsal

    @property
    def identity(self) -> dict[str, str]:
        """What names it in a published evaluation."""
        return {"weights_sha256": self.card.weights_sha256, "created": self.card.created}

    def predict(self, data: "Source | str") -> pd.DataFrame:
        """Score a table, row by row.

        Args:
            data: Path of a CSV or Parquet file, or a pandas frame. The target may be absent; columns that the schema
                does not name are ignored.

        Returns:
            Of two classes `score`, the probability of the last one; of more, `probability_CLASS` for each; of a target
            that is a number `prediction`, its expected value. In the order of the rows, with the frame's own index.

        Raises:
            DataError: The table cannot be read or does not fit the schema.
        """
        source = _source(data)
        frame = read_table(source, self.schema, role="predict")
        if self.schema.task == "number":
            scores = {"prediction": self.model.predict_number(frame)}
        else:
            found, classes = self.model.predict(frame), self.schema.classes
            two = len(classes) == 2
            scores = {"score": found[:, 1]} if two else {f"probability_{c}": found[:, i] for i, c in enumerate(classes)}
        return pd.DataFrame(scores, index=None if isinstance(source, Path) else source.index)

    def private_scorer(self, threshold: float = 0.5) -> ModelScorer:
        """Return the model as a private evaluation asks it; `threshold` is an edge of its bins.

        Raises:
            ModelError: The card is damaged.
        """
        return ModelScorer(self.model, thresholds=[threshold])


def load_model(place: Path | str) -> TrainedModel:
    """Load a model that `train_global` made.

    Args:
        place: Its folder, its model.json or model.onnx; or a registry: `models.db` (its current version), `models.db@3`
            (version 3).

    Raises:
        ModelError: A file is missing, damaged or from a newer version.
        ConfigError, RegistryError: There is no such version in the registry.
    """
    with model_at(Path(place)) as found:
        return TrainedModel(folders.load_model(found))


def evaluate(
    model: TrainedModel,
    data: "Source | str",
    *,
    by: tuple[str, ...] = (),
    number_bins: NumberBins = "quantiles",
    threshold: float | None = None,
    costs: tuple[float, float] | None = None,
) -> Assessment:
    """Judge a model on real rows. The figures are exact, so they are NOT PRIVATE: they stay where the rows are.

    `distill.Project.evaluate` releases figures that may be published.

    Args:
        model: The model, as `load_model` gives it.
        data: Path of a CSV or Parquet file, or a pandas frame; with the target.
        by: Columns whose groups are compared; they need not be in the schema.
        number_bins: How numbers among them are cut: quarters of these rows, or of the public bounds.
        threshold: Of two classes: from which score on a row is taken for the last; None: by the costs, else 0.5.
        costs: Of two classes: of a false positive and of a false negative.

    Raises:
        ConfigError: The question does not fit the model's target.
        DataError: The table cannot be read, does not fit the schema, has no rows or lacks a column to compare by.
    """
    weighed = None if costs is None else Costs(false_positive=costs[0], false_negative=costs[1])
    question = Question(by=tuple(by), number_bins=number_bins, threshold=threshold, costs=weighed)
    return assess(model.model, _source(data), question)


def _source(data: "Source | str") -> Source:
    """A path that was given as text, as a path."""
    return Path(data) if isinstance(data, str) else data
