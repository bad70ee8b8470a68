"""How the numbers of all clients are scaled alike before the first round, agreed without sharing a row.

Either each client sends a sketch (65 quantiles, count, mean and spread of each number, and its class counts), the server
merges the sketches into one curve a number and sends the curves back. A sketch is computed without noise, and its outer
quantiles are values of single rows: it belongs to runs without privacy only. Or the curves come from the schema's public
bounds alone, and nothing of the rows is told.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from distill.data.schema import Column, Schema
from distill.errors import DataError
from server_train.federated.messages.codec import Message
from server_train.models.features import (
    KNOTS,
    UNIFORM_SPREAD,
    Inputs,
    NumberCurve,
    class_codes,
    curve_of_quantiles,
    number_values,
)

GRID = np.linspace(0.0, 1.0, KNOTS)


def one_hot(inputs: Inputs, n_codes: int) -> np.ndarray:
    """Dense features beside one column a category, float32, shape (rows, dense + categories)."""
    rows, columns = inputs.codes.shape
    out = np.zeros((rows, inputs.dense.shape[1] + n_codes), dtype=np.float32)
    out[:, : inputs.dense.shape[1]] = inputs.dense
    out[np.repeat(np.arange(rows), columns), inputs.dense.shape[1] + inputs.codes.ravel()] = 1.0
    return out


def sketch(schema: Schema, frame: pd.DataFrame) -> Message:
    """A client's message: quantiles (numbers, 65), known values, mean and spread (numbers,), class counts (classes,)."""
    numbers = [c for c in schema.features if c.kind != "categorical"]
    parts = [_sketch_of(c, number_values(c, frame[c.name])) for c in numbers]
    quantiles, counts, means, spreads = zip(*parts, strict=True) if parts else ([], [], [], [])
    return Message(
        {
            "quantiles": np.array(quantiles, dtype=np.float32).reshape(len(numbers), KNOTS),
            "known": np.array(counts, dtype=np.float32),
            "mean": np.array(means, dtype=np.float32),
            "spread": np.array(spreads, dtype=np.float32),
            "classes": np.bincount(class_codes(schema, frame), minlength=len(schema.classes)).astype(np.float32),
        }
    )


def check_sketch(schema: Schema, message: Message) -> None:
    """Refuse a message that is no sketch of rows of this schema. Raises DataError."""
    numbers = sum(c.kind != "categorical" for c in schema.features)
    shapes = {
        "quantiles": (numbers, KNOTS),
        "known": (numbers,),
        "mean": (numbers,),
        "spread": (numbers,),
        "classes": (len(schema.classes),),
    }
    tensors = message.tensors
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise DataError(
            "a sketch must hold the quantiles, counts, means and spreads of all numbers and the class counts"
        )
    counts = min(tensors[name].min(initial=0.0) for name in ("known", "spread", "classes"))
    if counts < 0 or (np.diff(tensors["quantiles"]) < 0).any():
        raise DataError("a sketch must hold counts and spreads of at least 0, and quantiles that ascend")


def merge(schema: Schema, sketches: Sequence[Message]) -> dict[str, NumberCurve]:
    """One curve a number: quantiles, mean and spread of the clients' mixture, by their known values."""
    numbers = [c for c in schema.features if c.kind != "categorical"]
    return {c.name: _merged(c, [_row(s, place) for s in sketches]) for place, c in enumerate(numbers)}


def class_shares(sketches: Sequence[Message]) -> np.ndarray:
    """Shares of the classes over all clients, one row added to each, shape (classes,)."""
    counts = np.sum([s.tensors["classes"] for s in sketches], axis=0, dtype=np.float64) + 1
    return np.asarray(counts / counts.sum())


def public_curves(schema: Schema) -> dict[str, NumberCurve]:
    """Curves from the public bounds alone: as if every number were spread evenly between them."""
    curves = {}
    for column in schema.features:
        if column.kind != "categorical":
            bounds = np.array([column.min, column.max], dtype=np.float64)
            spread = float(np.diff(bounds)[0] * UNIFORM_SPREAD)
            curves[column.name] = curve_of_quantiles(column, bounds, mean=float(bounds.mean()), spread=spread)
    return curves


def answer(curves: Mapping[str, NumberCurve]) -> Message:
    """The server's message: knots and ranks of all curves one after another, their lengths, means and spreads."""
    all_curves = list(curves.values())
    return Message(
        {
            "knots": np.array([k for c in all_curves for k in c.knots], dtype=np.float32),
            "ranks": np.array([r for c in all_curves for r in c.ranks], dtype=np.float32),
            "lengths": np.array([len(c.knots) for c in all_curves], dtype=np.int32),
            "mean": np.array([c.mean for c in all_curves], dtype=np.float32),
            "spread": np.array([c.spread for c in all_curves], dtype=np.float32),
        }
    )


def curves_of(schema: Schema, message: Message) -> dict[str, NumberCurve]:
    """The curves in a message that `answer` made, as every client reads them. Raises DataError."""
    numbers = [c for c in schema.features if c.kind != "categorical"]
    tensors = message.tensors
    lengths = np.atleast_1d(tensors.get("lengths", 0)).astype(np.int64)
    shapes = {"knots": (lengths.sum(),), "ranks": (lengths.sum(),), "mean": lengths.shape, "spread": lengths.shape}
    fits = lengths.shape == (len(numbers),) and lengths.min(initial=2) >= 2
    if not fits or any(name not in tensors or tensors[name].shape != shape for name, shape in shapes.items()):
        raise DataError("the curves of the numbers do not fit the schema")
    cuts = np.cumsum(lengths)[:-1]
    curves = {}
    try:
        knots, ranks = (np.split(tensors[name].astype(np.float64), cuts) for name in ("knots", "ranks"))
        for i, column in enumerate(numbers):
            place = np.unique(knots[i], return_index=True)[1]  # knots that float32 cannot tell apart become one
            if len(place) < 2:
                curves[column.name] = public_curves(schema)[column.name]
                continue
            curves[column.name] = NumberCurve(
                knots=tuple(knots[i][place].tolist()),
                ranks=tuple(ranks[i][place].tolist()),
                mean=float(tensors["mean"][i]),
                spread=float(tensors["spread"][i]),
            )
    except ValueError:  # ranks or a spread that cannot be
        raise DataError("the curves of the numbers cannot be read") from None
    return curves


def mixture_quantiles(quantiles: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Quantiles at 65 even ranks of a mixture whose parts are told by theirs.

    Args:
        quantiles: Of each part at even ranks, ascending, shape (65,) each.
        weights: Share of each part; at least one is positive.

    Returns:
        Shape (65,); a single part comes back as it is.
    """
    used = [(np.asarray(q, dtype=np.float64), w) for q, w in zip(quantiles, weights, strict=True) if w > 0]
    total = sum(w for _, w in used)
    points = np.unique(np.concatenate([q for q, _ in used]))
    # At a tie the distribution function jumps: its value from the right, and by symmetry from the left.
    above = sum(w * np.interp(points, q, GRID, left=0.0) for q, w in used) / total
    below = sum(w * (1.0 - np.interp(-points, -q[::-1], GRID, left=0.0)) for q, w in used) / total
    ranks = np.maximum.accumulate(np.column_stack([below, above]).ravel())  # they ascend but for rounding
    return np.asarray(np.interp(GRID, ranks, np.repeat(points, 2)))


def _sketch_of(column: Column, values: np.ndarray) -> tuple[np.ndarray, int, float, float]:
    """Quantiles, number of known values, mean and spread; the public bounds' where no value is known."""
    known = values[~np.isnan(values)]
    shown = known if len(known) else np.array([column.min or 0.0, column.max or 0.0], dtype=np.float64)
    return np.quantile(shown, GRID), len(known), float(shown.mean()), float(shown.std())


def _row(message: Message, place: int) -> tuple[np.ndarray, float, float, float]:
    """One number's part of a sketch, in float64."""
    quantiles, known, mean, spread = (
        message.tensors[name][place].astype(np.float64) for name in ("quantiles", "known", "mean", "spread")
    )
    return quantiles, float(known), float(mean), float(spread)


def _merged(column: Column, parts: Sequence[tuple[np.ndarray, float, float, float]]) -> NumberCurve:
    """The curve of one number over all clients; where none knows a value, that of the public bounds."""
    known = np.array([p[1] for p in parts])
    weights = known / known.sum() if known.any() else np.full(len(parts), 1.0 / len(parts))
    means, spreads = np.array([p[2] for p in parts]), np.array([p[3] for p in parts])
    mean = float(weights @ means)
    spread = float(np.sqrt(weights @ (spreads**2 + (means - mean) ** 2)))
    quantiles = np.clip(mixture_quantiles([p[0] for p in parts], weights.tolist()), column.min, column.max)
    return curve_of_quantiles(column, quantiles, mean=mean, spread=spread)
