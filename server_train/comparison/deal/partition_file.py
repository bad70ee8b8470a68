"""A deal from words, and the file that makes one repeatable.

A saved file gives the same deal on any release of numpy. It is for simulations on public data only: it carries a digest
of columns that can be guessed when their values are few.
"""

import reprlib
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.common import checks, files
from distill.common.canonical_json import parse_canonical
from distill.errors import ConfigError
from server_train.comparison.deal.partition import (
    FORMAT,
    MIN_ROWS,
    VERSION,
    Kind,
    Partition,
    column_of,
    feature_skew,
    iid,
    label_dirichlet,
    quantity_dirichlet,
    to_bytes,
)

SUFFIX = ".json"
MAX_ROWS = 2**31  # of a table; far above what a simulation deals
MAX_BYTES = 2**30  # of a saved partition
WORDS = "iid, dirichlet:ALPHA, quantity:ALPHA, by:COLUMN, or the path of a saved partition (.json)"


def parse_partition(
    text: str, *, frame: pd.DataFrame, target: str, clients: int | None, seed: int = 0, min_rows: int = MIN_ROWS
) -> Partition:
    """The deal that a command line names, tied to its table.

    Args:
        text: `iid`, `dirichlet:0.5`, `quantity:0.5`, `by:COLUMN`, or the path of a saved partition (`.json`).
        frame: The table that is dealt, shape (rows, n_columns).
        target: Name of its target column.
        clients: Number of clients; for a saved partition None, or the number that it must have.
        seed: Of the draw; a saved partition states its own.
        min_rows: The least each client gets under `dirichlet` and `quantity`.

    Raises:
        ConfigError: `text` is none of the words, the deal cannot be made, or the saved one is not for this table.
    """
    kind, colon, detail = text.partition(":")
    if not (text == "iid" or (colon and kind in get_args(Kind) and kind != "iid")):
        if Path(text).suffix != SUFFIX:
            raise ConfigError(f"partition {text!r} is not known; write {WORDS}.")
        return _loaded_for(Path(text), frame, target, clients)
    if clients is None:
        raise ConfigError(f"partition {text!r} needs a number of clients.")
    if kind == "iid":
        made = iid(len(frame), clients, seed)
    elif kind == "by":
        made = feature_skew(column_of(frame, detail), clients)
    elif kind == "dirichlet":
        made = label_dirichlet(column_of(frame, target), clients, _read_alpha(text, detail), seed, min_rows)
    else:
        made = quantity_dirichlet(len(frame), clients, _read_alpha(text, detail), seed, min_rows)
    return made.tied_to(frame, target)


def save_partition(partition: Partition, path: Path) -> None:
    """Write a tied partition as compact JSON, in full or not at all; an existing file is replaced.

    Each client's positions are written as steps from the one before (the first from -1).

    Raises:
        ConfigError: The partition is tied to no table, `path` does not end in .json, or it cannot be written.
    """
    if partition.table is None:
        raise ConfigError(f"the partition {partition.words} is tied to no table; call `tied_to` before saving it.")
    if path.suffix != SUFFIX:
        raise ConfigError(f"cannot write the partition {path}: its name must end in {SUFFIX}.")
    with files.wrapped("write the partition", path, ConfigError):
        files.write_whole(path, to_bytes(partition))


def load_partition(path: Path) -> Partition:
    """Read a saved partition; `Partition.require_fits` then holds it against a table.

    Raises:
        ConfigError: The file cannot be read, is of a newer version, or is not as `save_partition` writes it.
    """
    with files.wrapped("read the partition", path, ConfigError):
        if path.is_dir():
            raise ConfigError(f"{path} is a directory; name the partition's {SUFFIX} file.")
        if not path.exists():
            raise ConfigError(f"no partition at {path}. Name a file that a comparison saved, or write {WORDS}.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"partition {path} is larger than {MAX_BYTES} bytes; it is not a saved partition.")
    return _from_bytes(data, f"partition {path}")


class _File(BaseModel):
    """What a saved partition holds, apart from its format and version."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Kind
    rows: int = Field(ge=1, le=MAX_ROWS)
    steps: list[Annotated[list[Annotated[int, Field(ge=1, le=MAX_ROWS)]], Field(min_length=1)]] = Field(min_length=1)
    seed: int | None = Field(ge=0)
    alpha: float | None
    min_rows: int | None
    column: str | None
    target: str
    table: str = Field(pattern=r"\A[0-9a-f]{64}\z")


def _from_bytes(data: bytes, where: str) -> Partition:
    """The partition of a file; `where` names it in errors."""
    mend = "Save it again with the software that made it, or deal anew"
    try:
        raw = parse_canonical(data)
    except ValueError as error:
        raise ConfigError(f"{where} is damaged or was edited: {error}. {mend}.") from None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise ConfigError(f"{where} is not a saved partition. {mend}.")
    version = raw.pop("version", None)
    if type(version) is not int or version != VERSION:
        found = reprlib.repr(version)
        raise ConfigError(
            f"{where} is of format version {found}; this software reads {VERSION}. Update it, or deal anew."
        )
    try:
        file = _File.model_validate(raw)
        positions = tuple(np.cumsum(np.array(steps, dtype=np.int64)) - 1 for steps in file.steps)
        return Partition(positions=positions, **file.model_dump(exclude={"steps"}))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_problem(error)}. {mend}.") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error} {mend}.") from None


def _problem(error: ValidationError) -> str:
    """The first of pydantic's problems: the place, then what is wrong."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if place[:1] == ["steps"] and len(place) > 1:  # clients count from 1 in every message
        place[1:2] = [f"client {int(place[1]) + 1}"]
    message = first["msg"]
    return f"{', '.join(place)!r}: {message[:1].lower()}{message[1:]}"  # quoted: a file may hold what no terminal should show


def _loaded_for(path: Path, frame: pd.DataFrame, target: str, clients: int | None) -> Partition:
    """A saved partition that fits the table and the number of clients that was asked for."""
    made = load_partition(path)
    try:
        made.require_fits(frame, target)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if clients not in (None, made.clients):
        raise ConfigError(
            f"{path}: the partition has {made.clients} clients, not {clients}. Leave the number of clients out, or deal anew."
        )
    return made


def _read_alpha(text: str, detail: str) -> float:
    """The number after the colon."""
    try:
        alpha = float(detail)
        checks.positive(alpha=alpha)
    except (ValueError, ConfigError):
        raise ConfigError(
            f"partition {text!r}: after the colon must come a finite number above 0, as in {text.partition(':')[0]}:0.5."
        ) from None
    return alpha
