"""One label a row, drawn from its probabilities so that rows which are alike balance each other's luck.

Drawn row by row, labels carry luck that a model trained on them pays for: of a thousand rows with a chance of .06 some 60 are
positive, give or take 8. Here rows are drawn in small batches, and what a cell of a column (a category, a sixteenth of a number's
values) or a group of rows with alike chances has had too much of becomes a little less likely in the next ones. Each row's
label still follows its own probability, and a class that a row cannot have it does not get; the sums over cells, which is what a
model learns from, come several times nearer to their expectations. Related: balanced sampling (Deville & Tille 2004,
doi:10.1093/biomet/91.4.893); signs that keep running sums small (Alweiss, Liu & Sawhney, arXiv:2006.14009).
"""

from typing import Any

import numpy as np
import pandas as pd

from distill.data.bins import ColumnBins
from distill.data.schema import Schema
from distill.synthesis.statistics.class_odds import log_normalise
from server_train.pooling.institutions.cells import find_cells
from server_train.pooling.institutions.generators import stacked

BATCH = 16  # rows that are drawn before the sums are looked at again
LEVELS = 64  # of a class's chance, in which rows are alike
PULL = 0.3  # log-odds that a label loses for each row its cells have too many of; times BATCH below 8, or sums swing


def draw_labels(
    schema: Schema, bins: ColumnBins | None, soft: np.ndarray, frame: pd.DataFrame, rng: np.random.Generator
) -> "np.ndarray | pd.Series[Any]":
    """Labels in the schema's own values; a number from inside its bin.

    Args:
        schema: Of the rows; it names a target.
        bins: Of a target that is a number; None: it has classes.
        soft: Class, or bin, probabilities, (rows, classes).
        frame: The rows, in random order; their own labels are not looked at.
        rng: Draws.
    """
    codes = balanced_classes(soft, find_cells(schema, frame).of(frame), rng)
    if bins is not None:
        return stacked(bins.grid.column, [bins.draw(codes, rng)])
    whole = all(isinstance(c, int) for c in schema.classes)
    return np.asarray(np.array(schema.classes, dtype=np.int64 if whole else object)[codes])


def balanced_classes(soft: np.ndarray, cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class for each row, int64, (rows,), whose sums over cells are near their expectations.

    Args:
        soft: Class probabilities, (rows, classes).
        cells: Of each row, as `union_head.Cells.of` gives them, (rows, features); there may be no features.
        rng: Draws.
    """
    rows, classes = soft.shape
    each = np.arange(classes)
    with np.errstate(divide="ignore"):
        logs = np.log(soft.astype(np.float64))
    levels, luck = _levels(soft), rng.random((rows, 1))
    by_cell, by_level = np.zeros((int(cells.max(initial=0)) + 1, classes)), np.zeros((LEVELS, classes))
    codes = np.empty(rows, dtype=np.int64)
    for start in range(0, rows, BATCH):
        batch = slice(start, start + BATCH)
        surplus = by_level[levels[batch], each]
        if cells.shape[1]:
            surplus = (surplus + by_cell[cells[batch]].mean(axis=1)) / 2
        chances = np.exp(log_normalise(logs[batch] - PULL * surplus))
        drawn = (chances.cumsum(axis=1) < luck[batch]).sum(axis=1).clip(max=classes - 1)
        gap = (drawn[:, None] == each) - soft[batch]
        np.add.at(by_level, (levels[batch], each), gap)
        np.add.at(by_cell, cells[batch], gap[:, None])
        codes[batch] = drawn
    return codes


def _levels(soft: np.ndarray) -> np.ndarray:
    """For each class the level of each row's chance, of about equally many rows each, (rows, classes)."""
    steps = np.arange(1, LEVELS) / LEVELS
    return np.stack([np.searchsorted(np.quantile(p, steps), p) for p in soft.T], axis=1)
