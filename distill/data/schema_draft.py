"""A first draft of a schema, read from the data: a convenience with a warning attached.

Bounds and categories read from private rows say something about them, so every column of a draft carries
`from_data: true`, and `fit` refuses it until a person has replaced them by public knowledge (a data dictionary) and
removed the marks. Drafted bounds are rounded outwards to the leading digit of their range, so that the draft does not
name an extreme record. The draft is for the operator's eyes: it is not a release.
"""

import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from distill.common import files
from distill.data.columns import MISSING, as_numbers, listed, plain_array, whole_text
from distill.data.schema import MAX_CLASSES, parse_schema
from distill.data.sources import open_table
from distill.errors import DataError, SchemaError

LARGEST, FINEST = 1e300, -12  # of drafted bounds: their magnitude, and the last decimal that is looked at
MOST_TEXTS = 200  # a text column with more distinct values is taken for an identifier or free text
UNCONFIRMED = (
    "DRAFT FROM THE DATA. Its bounds and categories were read from private rows. Replace each by what is publicly "
    "known (a data dictionary, a form, a law), then delete the column's `from_data` mark; `distill fit` refuses marks."
)


@dataclass(frozen=True)
class Draft:
    """A drafted schema and what a person should know about it.

    Attributes:
        schema: JSON object as in a schema file; `parse_schema` accepts it, `Schema.require_confirmed` does not.
        notes: What the draft left out or guessed, in plain words without values.
    """

    schema: dict[str, Any]
    notes: tuple[str, ...]

    def text(self) -> str:
        """The schema file's text."""
        return json.dumps(self.schema, indent=1, ensure_ascii=False) + "\n"


@dataclass
class _Seen:
    """What one column showed so far."""

    name: str
    low: float = math.inf
    high: float = -math.inf
    numeric: bool = True
    whole: bool = True
    missing: bool = False
    texts: set[str] = field(default_factory=set)

    def add(self, array: Any, *, typed: bool) -> None:
        """Take one batch of the column."""
        from pyarrow import types

        array = plain_array(array)
        if types.is_nested(array.type) or types.is_temporal(array.type) or types.is_binary(array.type):
            raise DataError(
                f"column {self.name!r} has a type that no schema can describe (nested, a date or binary). "
                "Write it as numbers or texts, or drop it."
            )
        self._add_texts(array)
        is_text = types.is_string(array.type) or types.is_large_string(array.type)
        # In a typed file, digits stored as text are codes, and true and false are no numbers.
        self.numeric = self.numeric and not (types.is_boolean(array.type) or (typed and is_text))
        if self.numeric:
            self._add_numbers(array)

    def _add_texts(self, array: Any) -> None:
        """Note distinct values, up to one more than can be listed, and whether any is missing."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self.missing = self.missing or array.null_count > 0
        if len(self.texts) > MOST_TEXTS:
            is_text = str(array.type) in ("string", "large_string")
            absent = is_text and pc.any(pc.is_in(pc.utf8_trim_whitespace(array), pa.array(MISSING, array.type))).as_py()
            self.missing = self.missing or bool(absent)
            return
        for value in pc.unique(array).to_pylist():
            text = whole_text(str(value).lower() if isinstance(value, bool) else str(value).strip())
            if value is None or text in MISSING:
                self.missing = True
            elif len(self.texts) <= MOST_TEXTS:
                self.texts.add(text)

    def _add_numbers(self, array: Any) -> None:
        """Widen the bounds; a batch that is not all numbers makes the column a text."""
        x = as_numbers(array)
        if x is None or np.isinf(x).any():
            self.numeric = False
            return
        x = x[~np.isnan(x)]
        if x.size:
            self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
            self.whole = self.whole and bool((x == np.rint(x)).all()) and float(np.abs(x).max()) < 2**52


def draft_schema(path: Path, *, target: str | None = None, no_target: bool = False) -> Draft:
    """Draft a schema for a CSV or Parquet table.

    Args:
        path: The table.
        target: The column to predict; a number of more than 50 values, or with fractions, is predicted as a number. Without
            it, the last column that has classes.
        no_target: Nothing is to be predicted, whatever columns there are.

    Raises:
        DataError: The table cannot be read, or has no rows to draft from.
        SchemaError: `target` is not a column or cannot be a target, or none can.
    """
    columns = _look(path)
    if not any(seen.texts for seen in columns):
        raise DataError(f"{path} has no values to draft from; write the schema by hand.")
    notes: list[str] = []
    chosen = None if no_target else _target(columns, target, path, notes)
    described = [_describe(seen, is_target=seen is chosen, notes=notes) for seen in columns]
    schema = {
        "name": path.stem,
        "target": chosen.name if chosen is not None else None,
        "comment": UNCONFIRMED,
        "columns": [column for column in described if column is not None],
    }
    parse_schema(json.dumps(schema), where=f"the draft for {path}")
    return Draft(schema, tuple(notes))


def write_draft(draft: Draft, path: Path, *, overwrite: bool = False) -> None:
    """Write a draft to a schema file; an existing one, perhaps already confirmed, stays unless `overwrite`."""
    if path.exists() and not overwrite:
        raise SchemaError(f"{path} is there already and is kept; `distill schema draft --force` replaces it.")
    with files.wrapped("write", path, SchemaError):
        files.write_whole(path, draft.text().encode("utf-8"), overwrite=overwrite)


def _look(path: Path) -> list[_Seen]:
    """One pass over the table."""
    with open_table(path) as table:
        twice = sorted({name for name in table.names if table.names.count(name) > 1})
        if twice or "" in table.names:
            problem = f"column(s) there more than once: {listed(twice)}" if twice else "a column has no name"
            raise DataError(f"{path}: {problem}. Give every column its own name in the header.")
        columns = [_Seen(name) for name in table.names]
        for batch in table.columns:
            for seen, array in zip(columns, batch, strict=True):
                seen.add(array, typed=table.typed)
    return columns


def _target(columns: list[_Seen], name: str | None, path: Path, notes: list[str]) -> _Seen:
    """The column to predict."""
    possible = [seen for seen in columns if _can_be_target(seen)]
    if name is None:
        if not possible:
            raise SchemaError(
                f"{path}: no column has between 2 and {MAX_CLASSES} classes. Name the target: --target COLUMN (it may be "
                "a number), or say --no-target."
            )
        notes.append(f"took {possible[-1].name!r} for the target; --target COLUMN names another.")
        return possible[-1]
    chosen = next((seen for seen in columns if seen.name == name), None)
    if chosen is None:
        raise SchemaError(f"{path} has no column {name!r} to be the target; it has {listed(s.name for s in columns)}.")
    if chosen not in possible and not (chosen.numeric and len(chosen.texts) > 1):
        raise SchemaError(
            f"column {name!r} cannot be the target: it needs 2 to {MAX_CLASSES} classes, texts or whole numbers, or must "
            "be a number. Group its values into classes first."
        )
    if chosen in possible and chosen.numeric and len(chosen.texts) > 2:
        notes.append(
            f"target {name!r} is described by its classes; to predict it as a number, write its kind, `min` and `max`."
        )
    if chosen.missing:
        notes.append(f"target {name!r} has missing values: drop those rows before you fit.")
    return chosen


def _can_be_target(seen: _Seen) -> bool:
    return 2 <= len(seen.texts) <= MAX_CLASSES and (seen.whole or not seen.numeric)


def _describe(seen: _Seen, *, is_target: bool, notes: list[str]) -> dict[str, Any] | None:
    """The column as a schema file has it; None where it cannot be described."""
    base: dict[str, Any] = {"name": seen.name, "from_data": True}
    nullable = seen.missing and not is_target
    if not seen.texts:
        notes.append(f"column {seen.name!r} has no values: describe it yourself, or drop it from the table.")
        return base | {"kind": "continuous", "min": 0.0, "max": 1.0, "nullable": True}
    as_classes = is_target and _can_be_target(seen)
    if as_classes or not seen.numeric or (seen.whole and len(seen.texts) <= 2):
        if len(seen.texts) > MOST_TEXTS:
            notes.append(
                f"left out {seen.name!r}: more than {MOST_TEXTS} different texts. Drop it from the table, group its "
                "values, or name it as the schema's `unit` if it identifies a person."
            )
            return None
        return base | {"kind": "categorical", "categories": _sorted(seen), "nullable": nullable}
    low, high = outward(seen.low, seen.high)
    kind = "integer" if seen.whole else "continuous"
    bounds: dict[str, Any] = {"min": int(low), "max": int(high)} if seen.whole else {"min": low, "max": high}
    return base | {"kind": kind} | bounds | {"nullable": nullable}


def _sorted(seen: _Seen) -> list[int] | list[str]:
    """The categories in a stable order: integers where all are numbers, else texts."""
    if seen.numeric and seen.whole:
        return sorted({int(float(text)) for text in seen.texts})
    return sorted(seen.texts)


def outward(low: float, high: float) -> tuple[float, float]:
    """Bounds rounded outwards to the leading digit of their range; equal ones are widened by that of the value."""
    low, high = (max(-LARGEST, min(LARGEST, bound)) for bound in (low, high))
    spread = high - low if high > low else max(abs(low), 1.0)
    digit = max(math.floor(math.log10(spread)), FINEST, math.floor(math.log10(max(abs(low), abs(high), 1.0))) - 14)
    unit = Fraction(10) ** digit
    bottom, top = math.floor(Fraction(low) / unit), math.ceil(Fraction(high) / unit)
    return float(bottom * unit), float((top + (top == bottom)) * unit)
