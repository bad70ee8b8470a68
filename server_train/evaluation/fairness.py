"""How a model treats groups of rows: one line a group, and how far the groups are apart.

Demographic parity compares how often a group is selected, equal opportunity how often its rows of the selected class are
(arXiv:1610.02413); differences are the largest minus the smallest, the ratio is the smallest over the largest. Groups that
are too small take no part (see `server_train.evaluation.groups`). That groups differ does not say why, and that they are alike in one
of these does not say that they are in another: with unequal base rates they cannot be in all (arXiv:1609.05807).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from server_train.evaluation.decisions import decide, ratio
from server_train.evaluation.groups import LEAST_OF_CLASS, LEAST_ROWS, Grouping
from server_train.evaluation.metrics import evaluate_numbers, evaluate_scores


@dataclass(frozen=True)
class Slice:
    """The comparison of one column's groups, ready for JSON.

    Attributes:
        column: By which rows are grouped.
        groups: One line each; `compared` says whether it takes part in the differences.
        differences: How far groups are apart; None where fewer than two can be compared.
        notes: What was joined or left out.
    """

    column: str
    groups: tuple[dict[str, Any], ...]
    differences: dict[str, Any]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "column": self.column,
            "groups": list(self.groups),
            "differences": self.differences,
            "notes": list(self.notes),
        }


def slice_two_classes(grouping: Grouping, truth: np.ndarray, scores: np.ndarray, threshold: float) -> Slice:
    """Groups of a target of two classes: base rate, mean score, AUC, and the rates at a threshold."""
    lines = []
    for name, inside in _groups(grouping):
        found = decide(truth[inside], scores[inside], threshold)
        both = np.stack([1 - scores[inside], scores[inside]], axis=1)
        positives = found.true_positives + found.false_negatives
        lines.append(
            {
                **_head(name, inside),
                "base_rate": positives / found_rows(inside),
                "mean_score": float(scores[inside].mean()),
                "roc_auc": evaluate_scores(truth[inside], both, ["no", "yes"]).roc_auc,
                "selection_rate": found.selection_rate,
                "true_positive_rate": found.true_positive_rate,
                "false_positive_rate": found.false_positive_rate,
                "positives": positives,
            }
        )
    enough = [g for g in lines if g["compared"] and g["positives"] >= LEAST_OF_CLASS]
    others = [g for g in lines if g["compared"] and g["rows"] - g["positives"] >= LEAST_OF_CLASS]
    selected = [g["selection_rate"] for g in lines if g["compared"]]
    differences = {
        "demographic_parity_difference": _apart(selected),
        "demographic_parity_ratio": _quotient(selected),
        "equal_opportunity_difference": _apart([g["true_positive_rate"] for g in enough]),
        "false_positive_rate_difference": _apart([g["false_positive_rate"] for g in others]),
        "roc_auc_difference": _apart([g["roc_auc"] for g in lines if g in enough and g in others]),
    }
    return Slice(grouping.column, tuple(lines), differences, _notes(grouping, lines))


def slice_many_classes(
    grouping: Grouping, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Slice:
    """Groups of a target of three classes and more: each class against the rest, taken where it is the most probable."""
    predicted = probabilities.argmax(axis=1)
    lines = []
    for name, inside in _groups(grouping):
        figures = evaluate_scores(labels[inside], probabilities[inside], classes)
        true, taken = labels[inside], predicted[inside]
        rates = {c: float((taken == k).mean()) for k, c in enumerate(classes)}
        right = {
            c: ratio(int(((taken == k) & (true == k)).sum()), int((true == k).sum())) for k, c in enumerate(classes)
        }
        of_class = {c: int((true == k).sum()) for k, c in enumerate(classes)}
        lines.append(
            {
                **_head(name, inside),
                "accuracy": figures.accuracy,
                "roc_auc": figures.roc_auc,
                "rows_of_class": of_class,
                "selection_rate": rates,
                "true_positive_rate": right,
            }
        )
    compared = [g for g in lines if g["compared"]]
    differences: dict[str, Any] = {"accuracy_difference": _apart([g["accuracy"] for g in compared])}
    for c in classes:
        enough = [g for g in compared if g["rows_of_class"][c] >= LEAST_OF_CLASS]
        differences[c] = {
            "demographic_parity_difference": _apart([g["selection_rate"][c] for g in compared]),
            "demographic_parity_ratio": _quotient([g["selection_rate"][c] for g in compared]),
            "equal_opportunity_difference": _apart([g["true_positive_rate"][c] for g in enough]),
        }
    return Slice(grouping.column, tuple(lines), differences, _notes(grouping, lines))


def slice_numbers(grouping: Grouping, truth: np.ndarray, predicted: np.ndarray) -> Slice:
    """Groups of a target that is a number: what is predicted, what is true, and the errors."""
    lines = [
        {
            **_head(name, inside),
            "mean_truth": float(truth[inside].mean()),
            "mean_prediction": float(predicted[inside].mean()),
            "mean_error": float((predicted[inside] - truth[inside]).mean()),
            "rmse": (figures := evaluate_numbers(truth[inside], predicted[inside])).rmse,
            "mae": figures.mae,
        }
        for name, inside in _groups(grouping)
    ]
    compared = [g for g in lines if g["compared"]]
    names = ("mean_error", "rmse", "mae")
    differences = {f"{name}_difference": _apart([g[name] for g in compared]) for name in names}
    return Slice(grouping.column, tuple(lines), differences, _notes(grouping, lines))


def found_rows(inside: np.ndarray) -> int:
    """Rows of a group."""
    return int(inside.sum())


def _groups(grouping: Grouping) -> list[tuple[str, np.ndarray]]:
    """Each group's name and which rows it has."""
    return [(name, grouping.codes == i) for i, name in enumerate(grouping.names)]


def _head(name: str, inside: np.ndarray) -> dict[str, Any]:
    return {"group": name, "rows": found_rows(inside), "compared": found_rows(inside) >= LEAST_ROWS}


def _apart(values: Sequence[float | None]) -> float | None:
    """The largest minus the smallest of at least two."""
    known = [v for v in values if v is not None]
    return max(known) - min(known) if len(known) > 1 else None


def _quotient(values: Sequence[float]) -> float | None:
    """The smallest over the largest of at least two; None where nobody is selected."""
    return min(values) / max(values) if len(values) > 1 and max(values) > 0 else None


def _notes(grouping: Grouping, lines: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What a reader must know of small groups."""
    notes = []
    if len(grouping.joined) > 1:
        shown = ", ".join(grouping.joined[:8]) + (" and others" if len(grouping.joined) > 8 else "")
        notes.append(f"Groups of fewer than {LEAST_ROWS} rows were joined: {shown}.")
    notes += [
        f"{g['group']}: fewer than {LEAST_ROWS} rows; shown, and left out of the differences."
        for g in lines
        if not g["compared"]
    ]
    if any(g["compared"] and g.get("positives", LEAST_OF_CLASS) < LEAST_OF_CLASS for g in lines):
        notes.append(
            f"True positive rates and AUCs are compared between groups with at least {LEAST_OF_CLASS} rows of the class."
        )
    return tuple(notes)
