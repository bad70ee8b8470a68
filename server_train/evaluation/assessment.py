"""All that `distill evaluate` says of a model on real rows: figures, calibration, decisions, groups. Not private: see RELEASE_WORD."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from distill.data.sources import Source
from distill.data.tables import read_beside, read_table
from distill.errors import ConfigError
from server_train.evaluation.decisions import Costs, Decision, cheapest_threshold, confusion_matrix, decide
from server_train.evaluation.fairness import Slice, slice_many_classes, slice_numbers, slice_two_classes
from server_train.evaluation.groups import Grouping, NumberBins, group_by_column, group_by_text
from server_train.evaluation.metrics import (
    RELEASE_WORD,
    Evaluation,
    NumberEvaluation,
    evaluate_numbers,
    evaluate_scores,
)
from server_train.evaluation.reliability import Calibration, calibration_of
from server_train.models.features import class_codes, target_numbers
from server_train.models.model import Model


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an evaluation is asked, beside the usual figures.

    Attributes:
        by: Columns whose groups are compared.
        number_bins: How numbers among them are cut.
        threshold: Of two classes: from which score on a row is taken for the last; None: by the costs, else 0.5.
        costs: Of wrong decisions; two classes only.
    """

    by: tuple[str, ...] = ()
    number_bins: NumberBins = "quantiles"
    threshold: float | None = None
    costs: Costs | None = None

    @property
    def decided_at(self) -> float:
        """The threshold in force."""
        if self.threshold is not None:
            return self.threshold
        return 0.5 if self.costs is None else self.costs.threshold

    def require_fit(self, model: Model) -> None:
        """Raise ConfigError where the model's target has no use for a setting."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"the threshold is a chance, within 0 and 1, not {self.threshold:g}.")
        classes = len(model.schema.classes)
        if classes == 2 or (self.threshold is None and self.costs is None):
            return
        found = f"has {classes} classes" if classes else "is a number"
        raise ConfigError(
            f"a threshold and costs of false positives and negatives decide between two classes, and target "
            f"{model.schema.target!r} {found}: leave them out. With more classes the most probable one is taken, and the "
            "confusion matrix shows every kind of error."
        )


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Everything about one model on one table of real rows.

    Attributes:
        figures: Ranking, probabilities, accuracy; or of a number.
        truth, predicted: Class codes and probabilities, (rows,) and (rows, classes); or numbers, both (rows,). For plots.
        calibration: Of each class that has a score of its own, by name; empty for a number.
        decisions: At the threshold in force, and with costs at the cheapest one on these rows; two classes only.
        confusion: Rows by class and by class taken; empty for a number.
        slices: One a column.
        rehearsal: Whether the model is made from a rehearsal.
    """

    target: str
    question: Question
    figures: Evaluation | NumberEvaluation
    truth: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    calibration: dict[str, Calibration]
    decisions: dict[str, Decision]
    confusion: list[list[int]]
    slices: tuple[Slice, ...]
    rehearsal: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty for a number."""
        return self.figures.classes if isinstance(self.figures, Evaluation) else ()

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON; the rows themselves stay out."""
        return {
            **self.figures.as_dict(),
            "target": self.target,
            "calibration": {name: found.as_dict() for name, found in self.calibration.items()},
            "decisions": {name: found.as_dict() for name, found in self.decisions.items()},
            "confusion": self.confusion,
            "slices": [s.as_dict() for s in self.slices],
            "private": False,
            "rehearsal": self.rehearsal,
            "word": RELEASE_WORD,
        }


def assess(model: Model, data: Source, question: Question) -> Assessment:
    """Score a table of real rows and compute every figure.

    Raises:
        ConfigError: the question does not fit the model's target.
        DataError: the table cannot be read, does not fit the schema, has no rows or lacks a column to compare by.
    """
    question.require_fit(model)
    schema = model.schema
    beside = [name for name in question.by if not any(c.name == name for c in schema.columns)]
    frame = read_table(data, schema, role="evaluate", beside=beside)
    groupings = _groupings(model, data, frame, question, beside)
    if schema.task == "number":
        return _of_numbers(model, frame, question, groupings)
    labels, probabilities, classes = class_codes(schema, frame), model.predict(frame), schema.classes
    figures = evaluate_scores(labels, probabilities, classes)
    names = figures.classes
    two = len(names) == 2
    scored = {names[1]: 1} if two else {name: k for k, name in enumerate(names)}
    slices = tuple(
        slice_two_classes(g, labels, probabilities[:, 1], question.decided_at)
        if two
        else slice_many_classes(g, labels, probabilities, names)
        for g in groupings
    )
    taken = (probabilities[:, 1] >= question.decided_at).astype(int) if two else probabilities.argmax(axis=1)
    return Assessment(
        target=str(schema.target),
        question=question,
        figures=figures,
        truth=labels,
        predicted=probabilities,
        calibration={name: calibration_of(labels == k, probabilities[:, k]) for name, k in scored.items()},
        decisions=_decisions(labels, probabilities[:, 1], question) if two else {},
        confusion=confusion_matrix(labels, taken, len(names)),
        slices=slices,
        rehearsal=model.card.rehearsal,
    )


def _of_numbers(model: Model, frame: pd.DataFrame, question: Question, groupings: Sequence[Grouping]) -> Assessment:
    truth, predicted = target_numbers(model.schema, frame), model.predict_number(frame)
    return Assessment(
        target=str(model.schema.target),
        question=question,
        figures=evaluate_numbers(truth, predicted),
        truth=truth,
        predicted=predicted,
        calibration={},
        decisions={},
        confusion=[],
        slices=tuple(slice_numbers(g, truth, predicted) for g in groupings),
        rehearsal=model.card.rehearsal,
    )


def _decisions(truth: np.ndarray, scores: np.ndarray, question: Question) -> dict[str, Decision]:
    """At the threshold in force; with costs also at the one they call for and at the cheapest on these rows."""
    costs = question.costs
    found = {"in_force": decide(truth, scores, question.decided_at, costs)}
    if costs is not None:
        found["by_costs"] = decide(truth, scores, costs.threshold, costs)
        found["cheapest_here"] = decide(truth, scores, cheapest_threshold(truth, scores, costs), costs)
    return found


def _groupings(
    model: Model, data: Source, frame: pd.DataFrame, question: Question, beside: Sequence[str]
) -> list[Grouping]:
    """The groups of each column asked for, of the schema or beside it."""
    if model.schema.target in question.by:
        raise ConfigError(f"--by {model.schema.target} is the target itself: the figures above tell its classes apart.")
    texts = read_beside(data, beside) if beside else pd.DataFrame()
    return [
        group_by_text(name, texts[name].tolist())
        if name in beside
        else group_by_column(model.schema.column(name), frame[name], bins=question.number_bins)
        for name in dict.fromkeys(question.by)
    ]
