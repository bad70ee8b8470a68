"""Rows in groups by a column, for comparing how a model treats them.

Categories and short integers are groups of their own; other numbers are cut into quarters of the rows at hand, or into equal
parts of their public bounds. A group of fewer than `LEAST_ROWS` rows says nothing alone: all such groups are joined into one,
with a word; if even that is too small, it is shown and takes no part in any difference.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from distill.data.schema import Column
from distill.errors import ConfigError
from server_train.models.features import category_codes, levels, number_values

LEAST_ROWS = 30
LEAST_OF_CLASS = 10  # rows of a class in a group before its true or false positive rate is compared
MOST_VALUES = 12  # distinct numbers that are groups of their own
PARTS = 4
JOINED, MISSING = "(small groups joined)", "(missing)"
NumberBins = Literal["quantiles", "bounds"]


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which group each row is in.

    Attributes:
        column: By which.
        names: Of the groups that have rows.
        codes: Position in `names` of each row, (rows,).
        joined: Groups that were too small to stand alone; "(small groups joined)" holds them if there are several.
    """

    column: str
    names: tuple[str, ...]
    codes: np.ndarray
    joined: tuple[str, ...]


def group_by_column(column: Column, values: "pd.Series[Any]", *, bins: NumberBins = "quantiles") -> Grouping:
    """Groups by a column of the schema. Raises DataError where its values do not fit."""
    if column.kind == "categorical":
        names = [level or MISSING for level in levels(column)]
        return _settled(column.name, names, category_codes(column, values))
    numbers = number_values(column, values)
    low, high = float(column.min or 0.0), float(column.max or 0.0)
    edges = np.linspace(low, high, PARTS + 1)[1:-1] if bins == "bounds" else None
    return _by_number(column.name, numbers, edges)


def group_by_text(name: str, texts: Sequence[str]) -> Grouping:
    """Groups by a column that the schema does not name, by its texts; many different numbers are cut into quarters."""
    numbers = pd.to_numeric(pd.Series(list(texts), dtype=object), errors="coerce").to_numpy(float)
    distinct = pd.unique(np.asarray(texts, dtype=object))
    if len(distinct) > MOST_VALUES and all(np.isfinite(numbers) | (np.asarray(texts, dtype=object) == "")):
        return _by_number(name, numbers, None)
    if len(distinct) > 100:
        raise ConfigError(f"column {name!r} has more than 100 different texts: it does not tell groups apart.")
    codes, found = pd.factorize(np.asarray(texts, dtype=object), sort=True)
    return _settled(name, [text or MISSING for text in found], codes)


def _by_number(name: str, numbers: np.ndarray, edges: np.ndarray | None) -> Grouping:
    """Groups by the values if they are few, else between edges; without edges, quarters of the rows."""
    known = numbers[~np.isnan(numbers)]
    distinct = np.unique(known)
    if len(distinct) <= MOST_VALUES and edges is None:
        names, codes = [f"{v:g}" for v in distinct], np.searchsorted(distinct, numbers)
    else:
        if edges is None:
            edges = np.unique(np.quantile(known, np.arange(1, PARTS) / PARTS)) if len(known) else np.empty(0)
        ends = ["", *(f"{e:.6g}" for e in edges), ""]
        names = [_range(a, b) for a, b in itertools.pairwise(ends)]
        codes = np.searchsorted(edges, numbers, side="right")
    codes = np.where(np.isnan(numbers), len(names), codes)
    return _settled(name, [*names, MISSING], codes)


def _range(low: str, high: str) -> str:
    if not low:
        return f"below {high}" if high else "all"
    return f"{low} to below {high}" if high else f"{low} and above"


def _settled(column: str, names: Sequence[str], codes: np.ndarray) -> Grouping:
    """Join what is too small and drop what is empty."""
    rows = np.bincount(codes, minlength=len(names))
    small = [i for i, n in enumerate(rows) if 0 < n < LEAST_ROWS]
    moved = np.arange(len(names))
    if len(small) > 1:
        moved[small] = len(names)
        names = [*names, JOINED]
    codes = moved[codes]
    kept, codes = np.unique(codes, return_inverse=True)
    return Grouping(
        column=column,
        names=tuple(names[i] for i in kept),
        codes=codes,
        joined=tuple(names[i] for i in small),
    )
