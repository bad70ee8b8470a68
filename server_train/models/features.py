"""From rows in the schema's own words to numbers a network can read, and nothing learnt from a real row.

Numbers become two features: their rank among the rows of the synthetic pool (a piecewise linear curve that reaches to
the public bounds, so heavy tails and spikes do no harm) and their standardised value, both with mean 0 and spread
about 1. A nullable number adds a flag. A categorical column becomes one code: its public category, "other" or
"missing"; the network looks its weights up, which is the same as multiplying a one-hot row. The pool is synthetic,
so the curves are post-processing of the bundles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.data.schema import OTHER, Column, Schema
from distill.errors import DataError

KNOTS = 65
EXTREME = 6.0  # standardised values beyond this many spreads are pulled back
UNIFORM_SPREAD = 1.0 / np.sqrt(12.0)


class NumberCurve(BaseModel):
    """How one number is scaled: `ranks` at `knots` (increasing, both), and the pool's mean and spread."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    knots: tuple[float, ...] = Field(min_length=2)
    ranks: tuple[float, ...] = Field(min_length=2)
    mean: float
    spread: float = Field(gt=0)

    @model_validator(mode="after")
    def _increasing(self) -> "NumberCurve":
        if len(self.knots) != len(self.ranks):
            raise ValueError("`knots` and `ranks` must have the same length")
        if any(b <= a for a, b in zip(self.knots, self.knots[1:], strict=False)):
            raise ValueError("`knots` must increase")
        return self


@dataclass(frozen=True)
class Inputs:
    """Encoded rows.

    Attributes:
        dense: Scaled numbers and missing flags, float32, shape (rows, dense features).
        codes: For each categorical column an index into the table of all categories, int64, shape (rows, columns).
    """

    dense: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.dense)


class Encoder:
    """Turns rows of one schema into `Inputs`.

    Attributes:
        schema: The public schema.
        curves: A `NumberCurve` for each continuous and integer feature, by column name.
    """

    def __init__(self, schema: Schema, curves: Mapping[str, NumberCurve]) -> None:
        """Raises ValueError where a number of the schema has no curve."""
        self.schema = schema
        self.numbers = tuple(c for c in schema.features if c.kind != "categorical")
        self.categoricals = tuple(c for c in schema.features if c.kind == "categorical")
        missing = [c.name for c in self.numbers if c.name not in curves]
        if missing or len(curves) != len(self.numbers):
            raise ValueError(
                f"preprocessing and schema disagree on the numeric columns ({', '.join(missing) or 'extra'})"
            )
        self.curves = {c.name: curves[c.name] for c in self.numbers}
        self._levels = {c.name: levels(c) for c in self.categoricals}
        widths = [len(self._levels[c.name]) for c in self.categoricals]
        self._offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)

    @property
    def n_dense(self) -> int:
        """Number of dense features: two a number, one more where it is nullable."""
        return sum(3 if c.nullable else 2 for c in self.numbers)

    @property
    def n_codes(self) -> int:
        """Size of the table of all categories (with "other" and "missing" where the schema allows them)."""
        return int(self._offsets[-1])

    def encode(self, frame: pd.DataFrame) -> Inputs:
        """Encode the feature columns of `frame` (public values; the target is not looked at).

        Raises:
            DataError: a column is absent, or holds what the schema forbids.
        """
        absent = [c.name for c in self.schema.features if c.name not in frame.columns]
        if absent:
            raise DataError(
                f"columns missing: {', '.join(absent[:8])}. The model was trained on schema {self.schema.name!r}."
            )
        dense = [part for c in self.numbers for part in self.number_features(c, frame[c.name])]
        codes = [
            category_codes(c, frame[c.name]) + offset
            for c, offset in zip(self.categoricals, self._offsets[:-1], strict=True)
        ]
        rows = len(frame)
        return Inputs(
            dense=np.column_stack(dense).astype(np.float32) if dense else np.zeros((rows, 0), np.float32),
            codes=np.column_stack(codes) if codes else np.zeros((rows, 0), np.int64),
        )

    def number_features(self, column: Column, series: "pd.Series[Any]") -> list[np.ndarray]:
        """Rank, standardised value and, where nullable, the missing flag of one column."""
        values = number_values(column, series)
        curve = self.curves[column.name]
        absent = np.isnan(values)
        rank = (np.interp(values, curve.knots, curve.ranks) - 0.5) / UNIFORM_SPREAD
        scaled = np.clip((values - curve.mean) / curve.spread, -EXTREME, EXTREME)
        parts = [np.where(absent, 0.0, rank), np.where(absent, 0.0, scaled)]
        return [*parts, absent.astype(float)] if column.nullable else parts


def fit_encoder(schema: Schema, pool: pd.DataFrame) -> Encoder:
    """An encoder whose curves follow the synthetic `pool`; bounds and categories come from the public schema."""
    numbers = [c for c in schema.features if c.kind != "categorical"]
    return Encoder(schema, {c.name: _curve(c, number_values(c, pool[c.name])) for c in numbers})


def _curve(column: Column, values: np.ndarray) -> NumberCurve:
    """The curve of the synthetic values."""
    values = values[~np.isnan(values)]
    if not len(values):
        values = np.array([float(column.min or 0.0), float(column.max or 0.0)])
    quantiles = np.quantile(values, np.linspace(0.0, 1.0, KNOTS))
    return curve_of_quantiles(column, quantiles, mean=float(values.mean()), spread=float(values.std()))


def curve_of_quantiles(column: Column, quantiles: np.ndarray, *, mean: float, spread: float) -> NumberCurve:
    """A curve through evenly spaced `quantiles` (ascending), ties at their middle rank, stretched to the public bounds.

    A `spread` of zero is replaced by the width of the bounds.
    """
    low, high = float(column.min or 0.0), float(column.max or 0.0)
    knots, where = np.unique(quantiles, return_inverse=True)
    grid = np.linspace(0.0, 1.0, len(quantiles))
    ranks = np.bincount(where, weights=grid) / np.bincount(where)
    if low < knots[0]:
        knots, ranks = np.append(low, knots), np.append(0.0, ranks)
    if high > knots[-1]:
        knots, ranks = np.append(knots, high), np.append(ranks, 1.0)
    return NumberCurve(
        knots=tuple(knots.tolist()), ranks=tuple(ranks.tolist()), mean=mean, spread=spread or (high - low)
    )


def number_values(column: Column, series: "pd.Series[Any]") -> np.ndarray:
    """A numeric column as float64 inside its public bounds, NaN where missing. Raises DataError."""
    try:
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DataError(f"column {column.name!r} is {column.kind} in the schema but holds text.") from None
    if np.isinf(values).any():
        raise DataError(
            f"column {column.name!r} holds infinite values; the bounds are {column.min:g} to {column.max:g}."
        )
    if not column.nullable and np.isnan(values).any():
        raise DataError(f"column {column.name!r} has missing values, but the schema does not allow them.")
    return np.asarray(np.clip(values, column.min, column.max))


def levels(column: Column) -> tuple[str, ...]:
    """What a categorical column can hold: its categories, then "other" and "missing" where allowed (missing is "")."""
    named = tuple(str(c) for c in column.categories or ())
    return named + ((OTHER,) if column.other else ()) + (("",) if column.nullable else ())


def category_codes(column: Column, series: "pd.Series[Any]") -> np.ndarray:
    """Index of each value in `levels(column)`, int64; unknown ones become "other", else missing. Raises DataError."""
    index = {level: code for code, level in enumerate(levels(column)) if level}
    named = len(column.categories or ())
    unknown = named if column.other or column.nullable else -1
    absent = len(levels(column)) - 1 if column.nullable else -2
    where, uniques = pd.factorize(series.astype(object), use_na_sentinel=True)
    # The appended entry is what position -1 (a missing value) picks.
    table = np.array([*(index.get(_text(u), unknown) for u in uniques), absent], dtype=np.int64)
    codes = table[where]
    if (codes == -1).any():
        raise DataError(
            f"column {column.name!r} holds values outside its {named} public categories. "
            "Correct them, or set `other: true` in the schema."
        )
    if (codes == -2).any():
        raise DataError(f"column {column.name!r} has missing values, but the schema does not allow them.")
    return codes


def class_codes(schema: Schema, frame: pd.DataFrame) -> np.ndarray:
    """Index of each row's class, int64. Raises DataError where the target is absent, missing or unknown."""
    target = _target(schema, frame)
    return category_codes(target, frame[target.name])


def target_numbers(schema: Schema, frame: pd.DataFrame) -> np.ndarray:
    """A target that is a number, float64 inside its bounds. Raises DataError where it is absent, missing or no number."""
    target = _target(schema, frame)
    return number_values(target, frame[target.name])


def _target(schema: Schema, frame: pd.DataFrame) -> Column:
    if schema.target is None or schema.target not in frame.columns:
        raise DataError(f"the target column {schema.target!r} is missing.")
    return schema.column(schema.target)


def _text(value: object) -> str:
    """A category as text; 1.0 reads as "1" (a whole number beside missing values turns into a float in pandas)."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
