"""Encoding one column at a time: numbers into their bounds, categories into codes, units into text.

An encoder takes a column in batches of pyarrow arrays, reports every way in which it differs from its public
description, gives each batch as a numpy array, and joins such batches to the column of the canonical frame (see
`distill.data.tables`). A report may raise; if it does not, the faulty values become missing, so that a check can go on.

Promise: no finding quotes a value of the table or a count of its rows.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from distill.data.schema import OTHER, Column

MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None")  # unless the schema lists it as a category
SHOWN = 8  # names in one message
_ABSENT, _UNKNOWN = -1, -2  # codes of missing and of unlisted categories
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_TRUTHS = {"true": ("True", "TRUE", "1"), "false": ("False", "FALSE", "0")}  # how a schema may list a boolean


@dataclass(frozen=True)
class Finding:
    """Where a table and its schema differ.

    Attributes:
        column: The column, or "" where it is about the table's columns as a whole.
        severity: `error` stops a fit; `note` says what reading does to such values.
        message: What, and the mend; it quotes no value.
    """

    column: str
    severity: Literal["error", "note"]
    message: str


Report = Callable[[Finding], None]


class Encoder(Protocol):
    """Checks and encodes a column batch by batch; keeps no batch."""

    def encode(self, array: Any) -> npt.NDArray[Any]:
        """One batch: float64 with NaN for missing, int16 codes with -1 for missing, or texts; shape (rows,)."""
        ...

    def join(self, batches: list[npt.NDArray[Any]]) -> Any:
        """The column of the canonical frame."""
        ...


def listed(names: Iterable[str]) -> str:
    """Up to SHOWN names, quoted."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:SHOWN]) + (f" and {len(quoted) - SHOWN} more" if len(quoted) > SHOWN else "")


class NumberEncoder:
    """Encodes a continuous or integer column to float64 inside its bounds."""

    def __init__(self, column: Column, report: Report) -> None:
        """Encode `column`, telling `report` what does not fit."""
        self._column, self._report = column, report

    def encode(self, array: Any) -> npt.NDArray[np.float64]:
        """One batch as float64; NaN is missing."""
        column = self._column
        array = plain_array(array)
        x = as_numbers(array)
        if x is None:
            self._not_numbers(array.type)
            return np.full(len(array), np.nan)
        if np.isinf(x).any():
            self._error("holds infinite values", "replace them by a bound, or leave them empty where it is nullable")
            x = np.where(np.isinf(x), np.nan, x)
        elif not column.nullable and np.isnan(x).any():
            self._error("has missing values", "fill them or drop those rows, or set `nullable: true` in the schema")
        if column.kind == "integer" and not (np.isnan(x) | (x == np.rint(x))).all():
            self._error("holds fractions", "round them, or make it `continuous` in the schema")
        inside = np.clip(x, column.min, column.max) + 0.0  # no negative zero
        if not (np.isnan(x) | (inside == x)).all():
            bounds = f"[{column.min:g}, {column.max:g}]"
            self._report(Finding(column.name, "note", f"column {column.name!r}: values outside {bounds} are clipped."))
        return np.asarray(inside)

    def join(self, batches: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """The whole column."""
        return np.concatenate(batches) if batches else np.empty(0)

    def _not_numbers(self, kind: Any) -> None:
        """Report text that is no number, or another type."""
        if _is_text(kind):
            mend = "drop units and thousands separators, write decimals with a point, leave missing values empty"
            self._error("holds text that is not a number", mend)
        else:
            self._error(f"has the type {_type_name(kind)}", "write it as numbers")

    def _error(self, what: str, mend: str) -> None:
        column = self._column
        message = f"column {column.name!r} is {column.kind}, but {what}: {mend}."
        self._report(Finding(column.name, "error", message))


class CategoryEncoder:
    """Encodes a categorical column to codes: the schema's categories, then OTHER; -1 is missing."""

    def __init__(self, column: Column, is_target: bool, report: Report) -> None:
        """Encode `column`, telling `report` what does not fit; a target has words of its own."""
        self._column, self._is_target, self._report = column, is_target, report
        texts = [str(c) for c in column.categories or ()]
        self._texts = [*texts, OTHER] if column.other else texts
        self._codes = {whole_text(text): code for code, text in enumerate(texts)} | {
            t: c for c, t in enumerate(self._texts)
        }

    def encode(self, array: Any) -> npt.NDArray[np.int16]:
        """One batch as codes."""
        from pyarrow import types

        column, array = self._column, plain_array(array)
        kind = array.type
        listable = (_is_text, types.is_integer, types.is_floating, types.is_decimal, types.is_null)
        if types.is_boolean(kind):
            array = array.cast("string")
        elif not any(fits(kind) for fits in listable):
            mend = "write its categories as texts or integers"
            self._error(f"column {column.name!r} is categorical, but has the type {_type_name(kind)}: {mend}.")
            return np.full(len(array), _ABSENT, dtype=np.int16)
        encoded = array.dictionary_encode()
        lookup = np.array([*map(self._code, encoded.dictionary.to_pylist()), _ABSENT], dtype=np.int16)
        codes = lookup[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        if (lookup[:-1] == _ABSENT).any() or encoded.indices.null_count:
            self._missing()
        if (lookup == _UNKNOWN).any():
            self._unknown()
            codes = np.where(codes == _UNKNOWN, len(self._texts) - 1 if column.other else _ABSENT, codes)
        return np.asarray(codes, dtype=np.int16)

    def join(self, batches: list[npt.NDArray[np.int16]]) -> "pd.Categorical[Any]":
        """The whole column."""
        codes = np.concatenate(batches) if batches else np.empty(0, dtype=np.int16)
        return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(pd.Index(self._texts, dtype=object)))

    def _code(self, value: object) -> int:
        """The code of one distinct value."""
        text = str(value).strip()
        for candidate in (text, whole_text(text), *_TRUTHS.get(text, ())):
            if candidate in self._codes:
                return self._codes[candidate]
        return _ABSENT if text in MISSING else _UNKNOWN

    def _missing(self) -> None:
        name = self._column.name
        if self._is_target:
            self._error(f"target {name!r} has missing values: a row without a label teaches nothing, drop those rows.")
        elif not self._column.nullable:
            mend = "fill them or drop those rows, or set `nullable: true` in the schema"
            self._error(f"column {name!r} has missing values, but the schema does not allow it: {mend}.")

    def _unknown(self) -> None:
        column = self._column
        if self._is_target:
            classes = listed(str(c) for c in column.categories or ())
            mend = "correct them, or list the class in the schema"
            self._error(f"target {column.name!r} holds values outside its classes {classes}: {mend}.")
        elif column.other or column.nullable:
            message = f"column {column.name!r}: categories outside the schema's list become"
            self._report(Finding(column.name, "note", f"{message} {OTHER if column.other else 'missing'}."))
        else:
            mend = "list them there, or set `other: true` (they become one) or `nullable: true` (they become missing)"
            self._error(f"column {column.name!r} holds categories that the schema does not list: {mend}.")

    def _error(self, message: str) -> None:
        self._report(Finding(self._column.name, "error", message))


class UnitEncoder:
    """Takes the unit column as text; every row must name its unit."""

    def __init__(self, name: str, report: Report) -> None:
        """Take the unit column `name`, telling `report` what does not fit."""
        self._name, self._report = name, report

    def encode(self, array: Any) -> npt.NDArray[np.object_]:
        """One batch as texts without outer spaces."""
        import pyarrow.compute as pc
        from pyarrow import types

        array = plain_array(array)
        if types.is_nested(array.type) or types.is_binary(array.type) or types.is_fixed_size_binary(array.type):
            self._error(f"has the type {_type_name(array.type)}: write its identifiers as texts or integers.")
            return np.full(len(array), "", dtype=object)
        texts = pc.utf8_trim_whitespace(array.cast("string"))
        if texts.null_count or pc.any(pc.equal(texts, "")).as_py():
            self._error("has missing values: every row must name its unit; drop the others.")
        return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=object)

    def join(self, batches: list[npt.NDArray[np.object_]]) -> npt.NDArray[np.object_]:
        """The whole column."""
        return np.concatenate(batches) if batches else np.empty(0, dtype=object)

    def _error(self, problem: str) -> None:
        self._report(Finding(self._name, "error", f"unit column {self._name!r} {problem}"))


def plain_array(array: Any) -> Any:
    """A batch without dictionary encoding or string views, in one piece."""
    import pyarrow as pa
    from pyarrow import types

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.string()) if str(array.type) == "string_view" else array


def texts_of(array: Any) -> npt.NDArray[np.object_]:
    """A batch as texts without outer spaces, "" for missing; what is no plain value counts as missing."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    array = plain_array(array)
    if types.is_nested(array.type) or types.is_binary(array.type) or types.is_fixed_size_binary(array.type):
        array = pa.nulls(len(array), pa.string())
    texts = pc.fill_null(pc.utf8_trim_whitespace(array.cast(pa.string())), "")
    return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=object)


def as_numbers(array: Any) -> npt.NDArray[np.float64] | None:
    """A plain array as float64, missing values and the texts of MISSING as NaN; None if it holds something else."""
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    if _is_text(kind):
        array = _parsed(array)
    elif types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        array = array.cast(pa.float64(), safe=False)
    else:
        return None
    return None if array is None else np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)


def _parsed(texts: Any) -> Any | None:
    """Texts as float64, missing texts as null; None if some text is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(texts)
    kept = pc.if_else(pc.is_in(trimmed, pa.array(MISSING, trimmed.type)), pa.scalar(None, trimmed.type), trimmed)
    try:
        return kept.cast(pa.float64())
    except pa.ArrowInvalid:  # its text quotes the cell
        unsigned = pc.replace_substring_regex(kept, r"^\+([0-9.])", r"\1")  # Arrow knows no plus sign
    try:
        return unsigned.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def whole_text(text: str) -> str:
    """`1.0` as `1`; any other text as it is."""
    match = _WHOLE.fullmatch(text)
    return match[1] if match else text


def _is_text(kind: Any) -> bool:
    """Whether an array's type is text."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _type_name(kind: Any) -> str:
    """A column type in one word; the fields of a nested type are left out."""
    from pyarrow import types

    return "nested (list, struct or map)" if types.is_nested(kind) else str(kind).split("[")[0]
