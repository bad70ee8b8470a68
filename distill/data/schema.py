"""The public schema of a table: everything the pipeline knows before a budget is spent.

Bounds, categories and nullability come from a data dictionary. A schema drafted from the data carries
`from_data: true` marks, and `Schema.require_confirmed` refuses it until a person has confirmed every one.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from distill.errors import SchemaError

Task = Literal["classes", "number"]  # what a target asks for; no target, no task
Category = Annotated[StrictInt | StrictStr, Field(union_mode="left_to_right")]
MAX_COLUMNS = 100
MAX_CATEGORIES = 1000
MAX_CLASSES = 50
MAX_TARGET_BINS = 64  # of a target that is a number
MAX_INTEGER = 2**53  # beyond it a float no longer holds every whole number
OTHER = "(other)"  # what categories outside the list become where a column sets `other`
_WORDS = {  # pydantic's kinds of errors that deserve plainer words
    "missing": "is missing",
    "extra_forbidden": "is not a known setting of a column",
    "model_type": "must be a JSON object",
    "tuple_type": "must be a list",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
    "literal_error": "must be continuous, integer or categorical",
}


class Column(BaseModel):
    """One column.

    Attributes:
        name: As in the table's header.
        kind: `continuous`, `integer` or `categorical`.
        min, max: Public bounds of a number, in the column's own unit; values outside are clipped.
        categories: Public list of the values of a categorical column (strings or integers).
        nullable: Whether a value may be missing.
        other: Whether categories outside the list are allowed (they become "other").
        from_data: Set by a draft: bounds or categories were read from private rows and are not confirmed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    name: str = Field(min_length=1)
    kind: Literal["continuous", "integer", "categorical"]
    min: float | None = None
    max: float | None = None
    categories: tuple[Category, ...] | None = None
    nullable: bool = False
    other: bool = False
    from_data: bool = False
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "Column":
        if self.name != self.name.strip():
            raise ValueError(f"column {self.name!r}: names must not begin or end with a space")
        (self._check_categories if self.kind == "categorical" else self._check_bounds)()
        return self

    def _check_bounds(self) -> None:
        if self.categories is not None or self.other:
            raise ValueError(
                f"column {self.name!r} is {self.kind}: `categories` and `other` belong to categorical columns"
            )
        if self.min is None or self.max is None:
            raise ValueError(f"column {self.name!r} is {self.kind} and needs public `min` and `max`")
        if not (abs(self.min) < float("inf") and abs(self.max) < float("inf")):
            raise ValueError(f"column {self.name!r}: `min` and `max` must be finite numbers")
        if not self.min < self.max:
            raise ValueError(f"column {self.name!r}: min {self.min:g} must be below max {self.max:g}")
        if self.max - self.min == float("inf"):
            raise ValueError(f"column {self.name!r}: `min` and `max` are too far apart; choose bounds below 1e300")
        if self.kind == "integer" and not (self.min.is_integer() and self.max.is_integer()):
            raise ValueError(f"column {self.name!r} is integer: `min` and `max` must be whole numbers")
        if self.kind == "integer" and max(abs(self.min), abs(self.max)) > MAX_INTEGER:
            raise ValueError(
                f"column {self.name!r} is integer: `min` and `max` must stay within 2**53; make it continuous"
            )

    def _check_categories(self) -> None:
        if self.min is not None or self.max is not None:
            raise ValueError(f"column {self.name!r} is categorical: `min` and `max` belong to numbers")
        if not self.categories:
            raise ValueError(f"column {self.name!r} is categorical and needs a public list of `categories`")
        texts = [str(c) for c in self.categories]
        if any(not t or t != t.strip() for t in texts):
            raise ValueError(
                f"column {self.name!r}: a category is empty, or begins or ends with a space; cells are read without "
                "outer spaces, and an empty one is missing (`nullable: true`)"
            )
        if OTHER in texts:
            raise ValueError(f"column {self.name!r}: {OTHER!r} is reserved for unlisted categories; set `other: true`")
        twice = sorted({t for t in texts if texts.count(t) > 1}) if len(set(texts)) < len(texts) else []
        if twice:
            raise ValueError(f"column {self.name!r}: categories listed twice: {', '.join(twice[:5])}")
        if len(self.categories) > MAX_CATEGORIES:
            raise ValueError(
                f"column {self.name!r} has {len(self.categories)} categories, more than {MAX_CATEGORIES}: "
                "group the rare ones and set `other: true`"
            )


ROW = "row"  # what a ledger says where no column names a unit


class Schema(BaseModel):
    """A table's public description; unknown top-level fields (source, licence, row count) are ignored.

    Attributes:
        name: Of the table.
        target: The column to predict, not nullable: categorical with 2 to 50 categories (its classes), or a number. None:
            nothing is predicted, rows are all that is wanted.
        columns: In the order of the table.
        unit: A column that names the person or company a row belongs to; never released. None: a row is a unit.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(min_length=1)
    target: str | None = None
    columns: tuple[Column, ...]
    unit: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Schema":
        names = [c.name for c in self.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"columns listed twice: {', '.join(twice)}")
        if not 2 <= len(names) <= MAX_COLUMNS:
            raise ValueError(f"{len(names)} columns; between 2 and {MAX_COLUMNS} are supported")
        if self.target is not None and self.target not in names:
            raise ValueError(f"target {self.target!r} is not one of the columns")
        if self.unit is not None and self.unit in names:
            raise ValueError(
                f"unit column {self.unit!r} must not be in `columns`: it is an identifier and is never released"
            )
        if self.unit == ROW:
            raise ValueError(
                f"the unit column cannot be called {ROW!r}: in a ledger that word says that each row is a unit"
            )
        if self.target is not None:
            self._check_target(self.column(self.target))
        return self

    def _check_target(self, target: Column) -> None:
        if target.nullable or target.other:
            raise ValueError(
                f"target {target.name!r} must be neither `nullable` nor `other`: drop unlabelled rows first"
            )
        if target.kind != "categorical":
            return
        classes = len(target.categories or ())
        if not 2 <= classes <= MAX_CLASSES:
            raise ValueError(f"target {target.name!r} has {classes} class(es); between 2 and {MAX_CLASSES} are needed")

    def column(self, name: str) -> Column:
        """The column called `name`; KeyError if there is none."""
        return next(c for c in self.columns if c.name == name)

    def has(self, name: str) -> bool:
        """Whether it names this column, the unit's among them."""
        return name == self.unit or any(c.name == name for c in self.columns)

    @property
    def counted_unit(self) -> str:
        """Whose privacy a release of this table counts, as ledgers and bundles name it: the unit column, or each row."""
        return self.unit or ROW

    @property
    def task(self) -> Task | None:
        """What is predicted: one of several classes, a number, or nothing (None)."""
        if self.target is None:
            return None
        return "classes" if self.column(self.target).kind == "categorical" else "number"

    @property
    def target_place(self) -> int | None:
        """Position of the target among the columns; None where there is no target."""
        return None if self.target is None else [c.name for c in self.columns].index(self.target)

    @property
    def classes(self) -> tuple[int | str, ...]:
        """The target's categories in order; empty where the target is a number or there is none."""
        return () if self.target is None else self.column(self.target).categories or ()

    @property
    def features(self) -> tuple[Column, ...]:
        """All columns but the target, in the order of the table."""
        return tuple(c for c in self.columns if c.name != self.target)

    def digest(self) -> str:
        """SHA-256 (hex) of what two tables must share to be pooled: names, kinds, bounds, categories, target, unit."""
        shared = self.model_dump(
            mode="json", exclude={"name": True, "columns": {"__all__": {"description", "from_data"}}}
        )
        return hashlib.sha256(json.dumps(shared, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def require_classes(self, doing: str) -> str:
        """The target's name; SchemaError unless it has classes. `doing` is what needs them, as a subject ("`compare`")."""
        if self.target is None or self.task != "classes":
            found = "names no target" if self.task is None else f"predicts a number ({self.target!r})"
            raise SchemaError(
                f"schema {self.name!r} {found}, and {doing} works on classes only: name a categorical target, for "
                "instance the number cut into a few ranges."
            )
        return self.target

    def require_confirmed(self) -> None:
        """Raise SchemaError if any bound or category still carries the mark of a draft."""
        open_columns = [c.name for c in self.columns if c.from_data]
        if open_columns:
            raise SchemaError(
                f"schema {self.name!r}: bounds or categories of {len(open_columns)} column(s) were drafted from the "
                f"data and are not confirmed: {', '.join(open_columns[:8])}{' ...' if len(open_columns) > 8 else ''}. "
                "Replace them by values from public knowledge (a data dictionary) and delete their `from_data` marks."
            )


def parse_schema(text: str | bytes, *, where: str) -> Schema:
    """Read a schema from JSON text; `where` names it in errors. Raises SchemaError."""
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(f"{where} is not valid JSON ({error}).") from None
    try:
        return Schema.model_validate(raw)
    except ValidationError as error:
        problems = list(dict.fromkeys(_problem(e, raw) for e in error.errors()))
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise SchemaError(f"{where}: {'; '.join(problems[:5])}{more}.") from None


def load_schema(path: Path) -> Schema:
    """Read and check a schema file (JSON). Raises SchemaError naming the file, the place and the mend."""
    if path.is_dir():
        raise SchemaError(f"{path} is a directory; name the schema's JSON file.")
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise SchemaError(
            f"no schema at {path}. `distill schema draft DATA` writes a first draft to confirm."
        ) from None
    except OSError as error:
        raise SchemaError(f"cannot read the schema {path}: {error.strerror}.") from None
    return parse_schema(text, where=f"schema {path}")


def _problem(error: ErrorDetails, raw: object) -> str:
    """One pydantic problem in plain words: the place by name, then what is wrong."""
    message = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    place = [str(part) for part in error["loc"] if part not in ("int", "str", "constrained-int", "constrained-str")]
    if place[:1] != ["columns"] or len(place) < 2:
        return f"`{place[0]}` {message}" if place else message
    if error["type"] == "value_error":
        return str(message)  # our own words, which name the column
    column = raw["columns"][int(place[1])] if isinstance(raw, dict) else None
    name = column.get("name") if isinstance(column, dict) else None
    shown = f"column {name!r}" if isinstance(name, str) else f"column number {int(place[1]) + 1}"
    if place[2:3] == ["categories"]:
        return f"{shown}: `categories` must be a list of texts or whole numbers"
    return f"{shown}: `{place[2]}` {message}" if len(place) > 2 else f"{shown} {message}"
