"""What every peer script shares: one command line, one JSON line of answers, and the public grid.

    python benchmarks/peers/NAME.py TRAIN.parquet SCHEMA.json --out OUT.parquet --epsilon 2 --delta 1e-5 --seed 0 --rows 1000

A peer fits the rows in TRAIN and writes synthetic ones to OUT. Its last line on stdout is one JSON object: `seconds` and
`cpu_seconds` (of fitting alone: no imports, no reading, no sampling), `sampling_seconds`, `peak_mb` (of the process),
`private` and `notes` (how this use departs from the tool's own or from ours). Exit code 3 means that the tool is not
installed. Needs numpy and pandas only, so that it runs in whatever environment has the tool.
"""

import argparse
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

NOT_INSTALLED = 3  # exit code
NUMBER_CELLS = 32  # cells of a number within its public bounds, of equal width
LOG_ABOVE = 4000.0  # bounds beyond it are cut into equal widths of sign(x) * log(1 + |x|) instead
GRID_NOTE = f"numbers in {NUMBER_CELLS} cells between the public bounds, equal in width (signed log beyond {LOG_ABOVE:g}), drawn uniformly"
Sample = Callable[[int], pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a peer is asked for.

    Attributes:
        train: The private rows.
        schema: The public schema, as in its file.
        epsilon, delta: The budget; a peer without privacy ignores it.
        seed: Of all of the peer's randomness that it lets us seed.
        rows: Synthetic rows wanted.
        quick: Fewest steps that still go the whole way; for tests, not for figures.
    """

    train: pd.DataFrame
    schema: dict[str, Any]
    epsilon: float
    delta: float
    seed: int
    rows: int
    quick: bool

    @property
    def columns(self) -> list[dict[str, Any]]:
        """The schema's columns, in the order of the table."""
        return list(self.schema["columns"])


def run(fit: Callable[[Task], Sample], *, install: str, private: bool, notes: Sequence[str]) -> int:
    """Parse the command line, time `fit`, write what its answer draws, print the JSON line; returns an exit code.

    `fit` must do its own imports of the tool, at its start; one that fails for want of a module names `install` as the mend.
    """
    options = _parser().parse_args()
    task = Task(
        train=pd.read_parquet(options.train),
        schema=json.loads(options.schema.read_text(encoding="utf-8")),
        epsilon=options.epsilon,
        delta=options.delta,
        seed=options.seed,
        rows=options.rows,
        quick=options.quick,
    )
    random.seed(task.seed)
    np.random.seed(task.seed)  # noqa: NPY002 - the tools draw from the global generator
    started, cpu = time.perf_counter(), _cpu()
    try:
        sample = fit(task)
    except ModuleNotFoundError as missing:
        print(f"not installed ({missing.name}): pip install {install}")
        return NOT_INSTALLED
    fitted, cpu = time.perf_counter(), _cpu() - cpu
    rows = sample(task.rows)
    drawn = time.perf_counter()
    rows[[c["name"] for c in task.columns]].to_parquet(options.out, index=False)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kibibytes elsewhere
    answers = {
        "seconds": round(fitted - started - imports.seconds, 3),
        "cpu_seconds": round(cpu - imports.cpu, 3),
        "sampling_seconds": round(drawn - fitted, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1),
        "private": private,
        "notes": list(notes),
    }
    print(json.dumps(answers))
    return 0


def leave(code: int) -> NoReturn:
    """End the process at once: while Python winds down, a library's own threads may abort it and spoil the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _cpu() -> float:
    """CPU seconds of this process and those it started and awaited."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _parser() -> argparse.ArgumentParser:
    """The command line of every peer."""
    p = argparse.ArgumentParser()
    p.add_argument("train", type=Path)
    p.add_argument("schema", type=Path)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--epsilon", type=float, default=2.0)
    p.add_argument("--delta", type=float, default=1e-5)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--rows", type=int, required=True)
    p.add_argument("--quick", action="store_true")
    return p


class Imports:
    """`with imports:` around a tool's imports takes their time out of the fit."""

    seconds = 0.0
    cpu = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter(), _cpu()

    def __exit__(self, *failure: object) -> None:
        self.seconds += time.perf_counter() - self._started[0]
        self.cpu += _cpu() - self._started[1]


imports = Imports()


class PublicGrid:
    """One column in cells that the public schema alone decides: categories, or intervals of a number.

    A short integer has a cell a value; another number NUMBER_CELLS between its public bounds, of equal width in itself or,
    beyond LOG_ABOVE, on a signed log scale (a linear grid there puts nearly all rows into one cell). Values outside are clipped. Then
    one cell for unlisted categories where the column allows them, and one for missing values where it may be missing.
    """

    def __init__(self, column: dict[str, Any]) -> None:
        self.column = column
        self.name: str = column["name"]
        self.categories: list[Any] | None = column.get("categories") if column["kind"] == "categorical" else None
        self.whole = column["kind"] == "integer"
        if self.categories is not None:
            self.values = len(self.categories) + bool(column.get("other"))
        else:
            self.low, self.high = float(column["min"]), float(column["max"])
            self.edges = self._edges()
            self.values = len(self.edges) - 1
        self.cells = self.values + bool(column.get("nullable"))

    def _edges(self) -> "np.ndarray[Any, Any]":
        """Borders of a number's cells: one more than cells; a whole number belongs to one cell alone."""
        high = self.high + self.whole
        if self.whole and self.high - self.low < NUMBER_CELLS:
            return np.arange(self.low, high + 1)
        if max(abs(self.low), abs(self.high)) <= LOG_ABOVE:
            edges = np.linspace(self.low, high, NUMBER_CELLS + 1)
        else:
            scaled = np.linspace(*(np.sign(x) * np.log1p(abs(x)) for x in (self.low, high)), NUMBER_CELLS + 1)
            edges = np.sign(scaled) * np.expm1(np.abs(scaled))
        edges[0], edges[-1] = self.low, high
        return np.unique(np.ceil(edges - 1e-9)) if self.whole else edges

    def encode(self, values: "pd.Series[Any]") -> "np.ndarray[Any, Any]":
        """The cell of each value, int64 of shape (n,)."""
        missing = values.isna().to_numpy()
        if missing.any() and self.cells == self.values:
            raise ValueError(f"column {self.name!r} has missing values, but its schema does not say `nullable`")
        if self.categories is None:
            x = np.clip(pd.to_numeric(values, errors="coerce").to_numpy(np.float64), self.low, self.high)
            cells = np.searchsorted(self.edges, np.where(missing, self.low, x), side="right") - 1
            return np.where(missing, self.values, np.clip(cells, 0, self.values - 1)).astype(np.int64)
        places = {str(category): i for i, category in enumerate(self.categories)}
        other = len(places) if self.column.get("other") else -1
        cells = values.map(lambda v: places.get(str(v), other), na_action="ignore")
        out = np.where(missing, self.values, cells.to_numpy(dtype=np.float64, na_value=self.values)).astype(np.int64)
        if (out < 0).any():
            raise ValueError(f"column {self.name!r} has a category that its schema does not list")
        return out

    def decode(self, cells: "np.ndarray[Any, Any]", rng: np.random.Generator) -> "pd.Series[Any]":
        """A value for each cell, uniform within the interval of a number."""
        cells = np.asarray(cells, dtype=np.int64)
        if self.categories is not None:
            labels = [*self.categories, *(["(other)"] if self.column.get("other") else []), None]
            public = pd.Series([labels[c] for c in cells], dtype=object)
            whole = all(isinstance(c, int) for c in self.categories) and not self.column.get("other")
            return public.astype("Int64" if public.isna().any() else "int64") if whole else public
        inside = np.minimum(cells, self.values - 1)
        drawn = self.edges[inside] + rng.random(len(cells)) * (self.edges[inside + 1] - self.edges[inside])
        x = np.clip(np.floor(drawn) if self.whole else drawn, self.low, self.high)
        return pd.Series(np.where(cells < self.values, x, np.nan))


def encode(task: Task) -> tuple[list[PublicGrid], dict[str, "np.ndarray[Any, Any]"]]:
    """Every column's public grid, and its rows' cells."""
    grids = [PublicGrid(column) for column in task.columns]
    return grids, {grid.name: grid.encode(task.train[grid.name]) for grid in grids}


def decode(grids: Sequence[PublicGrid], cells: dict[str, "np.ndarray[Any, Any]"], seed: int) -> pd.DataFrame:
    """Rows in the schema's own values from cells of each column."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({grid.name: grid.decode(cells[grid.name], rng) for grid in grids})


def in_schema(task: Task, rows: pd.DataFrame) -> pd.DataFrame:
    """What a tool drew, made to fit the schema: numbers clipped (and rounded), unlisted categories missing or the first."""
    out = {}
    for column in task.columns:
        values = rows[column["name"]].reset_index(drop=True)
        if column["kind"] == "categorical":
            known = {str(category): category for category in column["categories"]}
            if column.get("other"):
                known["(other)"] = "(other)"
            values = values.map(lambda v, known=known: known.get(_text(v))).astype(object)
            if not column.get("nullable"):
                values = values.where(values.notna(), next(iter(known.values())))
            if all(isinstance(category, int) for category in known.values()):
                values = values.astype("Int64" if values.isna().any() else "int64")
        else:
            values = pd.to_numeric(values, errors="coerce").astype("float64").clip(column["min"], column["max"])
            values = values.round() if column["kind"] == "integer" else values
            if not column.get("nullable"):
                values = values.fillna(column["min"])
        out[column["name"]] = values
    return pd.DataFrame(out)


def _text(value: Any) -> str:
    """A category as the schema writes it: 1.0 is 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
