"""What the hub asks of each institution's generator, and how answers of a broken bundle are met.

Whatever a generator answers is checked before use, and whatever it makes the hub's code raise becomes a BundleError that names it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from distill.data.schema import Column, Schema
from distill.errors import BundleError, DistillError

T = TypeVar("T")


class Generator(Protocol):
    """What the pool needs of one institution's generator (`distill.synthesis.generator.generator.Generator` has it)."""

    @property
    def noisy_rows(self) -> int:
        """Released number of rows."""

    @property
    def class_prior(self) -> np.ndarray:
        """Released class shares, (classes,)."""

    @property
    def head_information(self) -> float:
        """On the scale of n * (1 - sum(p**2)) / 2; 0: the class head is unusable."""

    @property
    def count_noise(self) -> float:
        """Stddev of the noise on one released class count, in rows."""

    def draw(self, n: int, rng: np.random.Generator) -> pd.DataFrame:
        """`n` rows in public values, the target among them."""

    def class_log_probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Log-probability of each class for each row, shape (rows, classes)."""


def draw_rows(schema: Schema, name: str, generator: Generator, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of one institution, checked: all columns there, as many rows as asked for, nothing infinite."""
    frame = guarded(name, "drawing rows", lambda: generator.draw(rows, rng)) if rows else _empty(schema)
    absent = [c.name for c in schema.columns if c.name not in frame.columns]
    if absent or len(frame) != rows:
        what = f"without the column(s) {', '.join(absent[:5])}" if absent else f"{len(frame)} rows instead of {rows}"
        raise BundleError(f"the bundle of {name!r} is broken: its generator drew {what}. Ask for a new bundle.")
    return frame


def _empty(schema: Schema) -> pd.DataFrame:
    return pd.DataFrame({c.name: np.empty(0, object if c.kind == "categorical" else float) for c in schema.columns})


def head_logs(name: str, generator: Generator, rows: pd.DataFrame, classes: int) -> np.ndarray:
    """Log-probabilities of one institution's head, checked: one a row and class, none NaN or above zero."""
    logs = guarded(name, "its class head", lambda: np.asarray(generator.class_log_probabilities(rows), dtype=float))
    if logs.shape != (len(rows), classes) or np.isnan(logs).any() or (logs > 1e-6).any():
        raise BundleError(
            f"the bundle of {name!r} is broken: its class head gives no probabilities. Ask for a new bundle."
        )
    return logs


def guarded(name: str, what: str, call: Callable[[], T]) -> T:
    """Run code on a bundle's contents; whatever a broken bundle makes it raise becomes a BundleError that names it."""
    try:
        return call()
    except DistillError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"the bundle of {name!r} is broken: {what} failed ({type(error).__name__}). Ask for a new bundle."
        ) from error


def stack(schema: Schema, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames on top of each other, column by column, in the public types that one table of all rows would have."""
    return pd.DataFrame({c.name: stacked(c, [f[c.name] for f in frames]) for c in schema.columns})


def stacked(column: Column, parts: Sequence["pd.Series[Any]"]) -> "pd.Series[Any] | np.ndarray":
    """Values of one column from several tables, one after the other, in the type that one table would have."""
    if column.kind == "categorical":
        values = np.concatenate([p.astype(object).to_numpy() for p in parts])
        whole = all(isinstance(c, int) for c in column.categories or ()) and not column.other
        if not whole:
            return values
        return pd.Series(pd.array(values, dtype="Int64")) if pd.isna(values).any() else values.astype(np.int64)
    numbers = np.concatenate([p.to_numpy(dtype=np.float64, na_value=np.nan) for p in parts])
    if column.kind == "continuous":
        return numbers
    return pd.Series(numbers).astype("Int64") if np.isnan(numbers).any() else numbers.astype(np.int64)
