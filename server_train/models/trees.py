"""Boosted trees as plain arrays: what they read, how they score, and the checks that files of strangers need.

A number enters as it is (inside its public bounds, missing as NaN), a category as its *place*: categories are put in a row by what
the synthetic pool says of their rows, so that a plain threshold splits them (for two classes no other order does better: Fisher 1958,
doi:10.1080/01621459.1958.10501479; for more they are ordered along the first principal component of their class shares, Coppersmith
et al. 1999, doi:10.1023/A:1009869804967). So a tree is thresholds alone, in every format the same.
"""

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from distill.common.checks import require
from distill.data.schema import Schema
from server_train.models.calibration import Calibration, class_probabilities
from server_train.models.features import category_codes, levels, number_values
from server_train.models.number_target import hats

MAX_NODES = 4_000_000
MAX_DEPTH = 64
CELLS = 100_000  # rows times trees that are walked at once
LEAF = -1

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Trees:
    """Regression trees whose values add up. Nodes of a tree lie together, each before its children.

    Attributes:
        feature: Column of the inputs that a node asks, `LEAF` for a leaf; int32, (nodes,).
        threshold: A row with a value up to it goes left; float64, (nodes,).
        missing_left: Whether a missing value goes left; uint8, (nodes,).
        left, right: Children; a leaf names itself; int32, (nodes,).
        value: Of a leaf; float64, (nodes,).
        roots: First node of each tree, ascending from 0; int32, (trees,).
        output: To which output a tree adds; int32, (trees,).
        baseline: What each output starts from; float64, (outputs,).
    """

    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    output: np.ndarray
    baseline: np.ndarray

    def check(self, inputs: int, outputs: int) -> None:
        """Raise ValueError unless these are trees of so many inputs and outputs that end."""
        nodes, trees = len(self.feature), len(self.roots)
        for field in fields(self):
            values, wanted = getattr(self, field.name), _DTYPES[field.name]
            length = {"roots": trees, "output": trees, "baseline": outputs}.get(field.name, nodes)
            require(
                values.dtype == wanted and values.shape == (length,), f"{field.name} has another form than trees have"
            )
            require(bool(np.isfinite(values).all()), f"{field.name} is not finite")
        require(nodes <= MAX_NODES and (nodes > 0) == (trees > 0), "too many nodes, or nodes without trees")
        require(
            _within(self.feature, LEAF, inputs) and _within(self.output, 0, outputs),
            "a tree reads or adds out of range",
        )
        if not trees:
            return
        require(
            self.roots[0] == 0 and bool((np.diff(self.roots) > 0).all()) and self.roots[-1] < nodes,
            "roots do not ascend",
        )
        self._check_children(nodes)

    def _check_children(self, nodes: int) -> None:
        """Children come after their parent and in the same tree, so that every walk ends; none is longer than `MAX_DEPTH`."""
        here = np.arange(nodes)
        tree = np.searchsorted(self.roots, here, side="right")
        inner = self.feature != LEAF
        for child in (self.left, self.right):
            require(bool((child[~inner] == here[~inner]).all()), "a leaf has children")
            require(bool(((child > here) & (child < nodes))[inner].all()), "a child does not come after its parent")
            require(bool((tree[child] == tree).all()), "a child is in another tree")
        at = self.roots
        for _ in range(MAX_DEPTH):
            at = at[inner[at]]
            at = np.unique(np.concatenate([self.left[at], self.right[at]]))
        require(not inner[at].any(), "a tree is too deep")

    def sums(self, x: np.ndarray) -> np.ndarray:
        """Baseline plus the values of all trees, float64, shape (rows, outputs), of inputs (rows, columns)."""
        out = np.tile(self.baseline, (len(x), 1))
        if not len(self.roots):
            return out
        step = max(1, CELLS // len(self.roots))
        belongs = np.eye(len(self.baseline))[self.output]  # (trees, outputs)
        for start in range(0, len(x), step):
            out[start : start + step] += self.value[self._leaves(x[start : start + step])] @ belongs
        return out

    def _leaves(self, x: np.ndarray) -> np.ndarray:
        """The leaf of each row in each tree, shape (rows, trees)."""
        at = np.tile(self.roots, len(x))
        walking = np.arange(len(at))  # cells of `at` that have not come to a leaf
        flat, width = x.ravel(), x.shape[1]
        while True:
            node = at[walking]
            feature = self.feature[node]
            inner = feature != LEAF
            walking, node, feature = walking[inner], node[inner], feature[inner]
            if not len(walking):
                return at.reshape(len(x), -1)
            value = flat[walking // len(self.roots) * width + feature]
            left = (value <= self.threshold[node]) | (np.isnan(value) & (self.missing_left[node] != 0))
            at[walking] = np.where(left, self.left[node], self.right[node])


_DTYPES = {
    "feature": np.dtype(np.int32),
    "threshold": np.dtype(np.float64),
    "missing_left": np.dtype(np.uint8),
    "left": np.dtype(np.int32),
    "right": np.dtype(np.int32),
    "value": np.dtype(np.float64),
    "roots": np.dtype(np.int32),
    "output": np.dtype(np.int32),
    "baseline": np.dtype(np.float64),
}


@dataclass(frozen=True, eq=False)
class TreeInputs:
    """Rows as trees read them.

    Attributes:
        schema: Of the rows.
        places: Of each category of each categorical feature ("other" and "missing" among them), in the order of the
            schema; float64, (categories of all columns,).
    """

    schema: Schema
    places: np.ndarray

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Shape (rows, features), float64, NaN for a missing number. Raises DataError as `features` does."""
        parts, start = [], 0
        for column in self.schema.features:
            if column.kind != "categorical":
                parts.append(number_values(column, frame[column.name]))
            else:
                stop = start + len(levels(column))
                parts.append(self.places[start:stop][category_codes(column, frame[column.name])])
                start = stop
        return np.column_stack(parts)


def category_places(schema: Schema, frame: pd.DataFrame, aims: np.ndarray) -> np.ndarray:
    """Places for `TreeInputs`: 0, 1, 2 ... in each column, in the order of what `aims` (rows, outputs) are on its rows.

    A category without rows stands where the mean of all rows is.
    """
    aims = aims - aims.mean(axis=0)
    parts = [np.zeros(0)]
    for column in (c for c in schema.features if c.kind == "categorical"):
        codes, width = category_codes(column, frame[column.name]), len(levels(column))
        counts = np.bincount(codes, minlength=width)
        sums = np.stack([np.bincount(codes, aim, minlength=width) for aim in aims.T], axis=1)
        means = sums / np.maximum(counts, 1)[:, None]
        _, _, directions = np.linalg.svd(means * np.sqrt(counts)[:, None], full_matrices=False)
        order = np.argsort(means @ directions[0], kind="stable")
        parts.append(np.argsort(order, kind="stable").astype(float))
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class TreeScorer:
    """A boosted model.

    Attributes:
        inputs: How rows are read.
        trees: One output for two classes (log-odds of the second) or a number, else one a class.
        classes: Classes, or bins of a target that is a number.
        calibration: Of classes.
        means: Of a target that is a number: mean of each of its bins; the trees give the number itself.
    """

    inputs: TreeInputs
    trees: Trees
    classes: int
    calibration: Calibration | None = None
    means: np.ndarray | None = None

    @property
    def inputs_read(self) -> int:
        """Numbers that are read of a row: one a column."""
        return len(self.inputs.schema.features)

    @property
    def parameters(self) -> int:
        """Nodes."""
        return len(self.trees.feature)

    def scores(self, frame: pd.DataFrame) -> np.ndarray:
        """Raw scores of the classes, shape (rows, classes); of a number its expected value, shape (rows, 1)."""
        sums = self.trees.sums(self.inputs.encode(frame))
        return two_sided(sums) if self.means is None and self.classes == 2 else sums

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Class probabilities; of a number those of the two bins around it, weighed so that their mean is the number."""
        scores = self.scores(frame)
        return class_probabilities(scores, self.calibration) if self.means is None else hats(scores, self.means)

    def tensors(self) -> Tensors:
        """All arrays, by name."""
        return {"places": self.inputs.places, **{f.name: getattr(self.trees, f.name) for f in fields(self.trees)}}


def two_sided(log_odds: np.ndarray) -> np.ndarray:
    """Scores of two classes from the log-odds of the second, shape (rows, 2)."""
    return np.column_stack([np.zeros(len(log_odds)), log_odds[:, 0]])


def trees_from(schema: Schema, tensors: Tensors, outputs: int) -> tuple[TreeInputs, Trees]:
    """What `TreeScorer.tensors` gave, checked. Raises ValueError."""
    require(set(tensors) == {"places", *_DTYPES}, "the tensors are not those of trees")
    places = tensors["places"]
    width = sum(len(levels(c)) for c in schema.features if c.kind == "categorical")
    require(places.dtype == np.float64 and places.shape == (width,), "places are not those of the schema's categories")
    require(bool(np.isfinite(places).all()), "places are not finite")
    trees = Trees(**{name: tensors[name] for name in _DTYPES})
    trees.check(len(schema.features), outputs)
    return TreeInputs(schema, places), trees


def _within(values: np.ndarray, low: int, stop: int) -> bool:
    return bool(((values >= low) & (values < stop)).all())
