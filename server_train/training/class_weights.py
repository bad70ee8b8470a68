"""How much more one class counts than another while a model is trained.

A weight multiplies the soft label of its class, which is the same as weighting the class's term of the loss. Trained so, a model
believes in class frequencies that are multiplied likewise; calibration takes that back (see `calibration`).

Learners that take one label a row get each row once a class, weighted by the class's probability: the weighted loss is then the
cross-entropy to the soft labels, exactly.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from distill.data.schema import Schema
from distill.errors import ConfigError

ClassWeights = Mapping[str, float] | Literal["balanced"] | None  # None: all classes alike
LARGEST = 1e6
LARGEST_FILE = 2**20


def read_class_weights(words: Sequence[str] | None) -> ClassWeights:
    """What a person typed: `none`, `balanced`, one JSON file (an object of class and weight), or NAME=WEIGHT each.

    Raises:
        ConfigError: The words are none of these.
    """
    if not words or list(words) == ["none"]:
        return None
    if list(words) == ["balanced"]:
        return "balanced"
    if len(words) == 1 and "=" not in words[0]:
        return _from_file(Path(words[0]))
    pairs = [word.rpartition("=") for word in words]
    wrong = [word for word, (name, _, weight) in zip(words, pairs, strict=True) if not name or not _is_number(weight)]
    if wrong:
        raise ConfigError(
            f"--class-weights {wrong[0]}: write none, balanced, a JSON file, or NAME=WEIGHT for each class."
        )
    return {name: float(weight) for name, _, weight in pairs}


def weigh_classes(schema: Schema, soft_labels: np.ndarray, weights: ClassWeights) -> tuple[np.ndarray, np.ndarray]:
    """Soft labels times class weights, and the weights.

    `balanced` makes all classes weigh alike in sum. The labels of a row then no longer sum to one; all together
    still weigh as much as their rows.

    Args:
        schema: Of the rows; its target has classes unless `weights` is None.
        soft_labels: Class probabilities, shape (rows, classes).
        weights: See `ClassWeights`; a class that is not named weighs 1.

    Raises:
        ConfigError: A name is no class, a weight is out of range, or the target is a number.
    """
    if weights is None:
        return soft_labels, np.ones(soft_labels.shape[1])
    factors = class_factors(schema, soft_labels.mean(axis=0, dtype=float), weights)
    return (soft_labels * factors).astype(soft_labels.dtype), factors


def class_factors(schema: Schema, shares: np.ndarray, weights: ClassWeights) -> np.ndarray:
    """What `weigh_classes` multiplies soft labels by whose mean is `shares`, (classes,). Raises like it."""
    if weights is None:
        return np.ones(len(shares))
    schema.require_classes("`--class-weights`")
    # A class that never occurs weighs 1: it changes nothing.
    even = np.where(shares > 0, 1 / np.maximum(shares, 1 / LARGEST), 1.0)
    factors = even if weights == "balanced" else _named(schema, weights)
    return np.asarray(factors / (shares @ factors))


def _named(schema: Schema, weights: Mapping[str, float]) -> np.ndarray:
    """One weight a class, 1 where none is named."""
    classes = [str(c) for c in schema.classes]
    unknown = [name for name in weights if name not in classes]
    if unknown:
        raise ConfigError(
            f"--class-weights: {unknown[0]!r} is no class of {schema.target!r}; it has {', '.join(classes)}."
        )
    if not all(1 / LARGEST <= weight <= LARGEST for weight in weights.values()):
        raise ConfigError(f"--class-weights: weights must be between {1 / LARGEST:g} and {LARGEST:g}.")
    return np.array([float(weights.get(name, 1.0)) for name in classes])


def _from_file(path: Path) -> dict[str, float]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(
                f"--class-weights {path}: a file of class weights is no larger than {LARGEST_FILE:,} bytes."
            )
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"--class-weights {path}: {error.strerror}. Write none, balanced, a JSON file, or NAME=WEIGHT for each class."
        ) from None
    except (ValueError, RecursionError):
        raise ConfigError(f"--class-weights {path} is not valid JSON.") from None
    if not isinstance(content, dict) or not all(isinstance(w, int | float) and w is not True for w in content.values()):
        raise ConfigError(f'--class-weights {path} must hold one JSON object, for instance {{"yes": 5, "no": 1}}.')
    return {name: float(weight) for name, weight in content.items()}


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


LEAST_CHANCE = 1e-6  # a class less likely than this does not get its copy of a row


def hard_labels(soft: np.ndarray, rng: np.random.Generator, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and weights that stand for soft labels: about `limit` at most, every class at least once.

    Each row comes once a class; where that is too many, as often as fits, with labels drawn from its own; where even
    once is too many, rows are drawn too.

    Args:
        soft: Class probabilities times class weights, at least 0, shape (rows, classes).
        rng: Source of what is drawn.
        limit: Of labelled rows.
    """
    classes = soft.shape[1]
    rows = np.arange(len(soft))
    if len(rows) * classes > limit:
        times = max(1, limit // len(rows))
        rows = np.repeat(rows if len(rows) <= limit else np.sort(rng.permutation(len(rows))[:limit]), times)
        totals = soft[rows].sum(axis=1)
        labels = (
            (soft[rows].cumsum(axis=1) < (rng.random(len(rows)) * totals)[:, None]).sum(axis=1).clip(max=classes - 1)
        )
        weights = totals / times
    else:
        kept = soft > LEAST_CHANCE
        rows, labels = np.nonzero(kept)
        weights = soft[kept]
    absent = np.setdiff1d(np.arange(classes), labels)
    return (
        np.append(rows, np.zeros(len(absent), dtype=np.int64)),
        np.append(labels, absent),
        np.append(weights, np.full(len(absent), LEAST_CHANCE)).astype(float),
    )
