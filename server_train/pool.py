"""One training set from all institutions: rows from every generator, labels from all class heads together.

Institution i describes its features p_i(x) and its class head p_i(y | x), learnt where classes have its own
frequencies pi_i. The evidence log p_i(y | x) - log pi_i(y) is free of those frequencies; evidence of all heads is
averaged by information (see `contribution`), the global frequencies pi are put back, and the result is corrected towards what
institutions say of their own rows (see `union_head`). Rows are drawn in proportion to noisy row counts, from components that
are fitted to all institutions at once where pairs travelled (see `representation`), labelled by that head, and an intercept
makes the mean label frequency equal pi.
A target that is a number is pooled by its common bins (see `number_bins`); without a target the rows are pooled as drawn.
Everything here is post-processing of the bundles: any number of rows, any seed, no budget.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from distill.bins import ColumnBins
from distill.class_chances import log_normalise, match_prior
from distill.errors import BundleError, DistillError
from distill.schema import Column, Schema
from server_train.contribution import (
    Contribution,
    contributions,
    global_prior,
    head_matrix,
    pseudo_inverse,
    smoothed_prior,
)
from server_train.features import class_codes
from server_train.number_bins import as_binned, on_common_bins, target_codes
from server_train.representation import Joint, Site, joint_or_plain
from server_train.union_head import FIT_ROWS, find_cells, fit_correction

EVIDENCE_LIMIT = 10.0  # natural-log units; what one head may say about one class of one row
LOWEST_LOG = -30.0
CHUNK = 50_000  # rows a generator is asked for, or labels, at once

T = TypeVar("T")


class Generator(Protocol):
    """What the pool needs of one institution's generator (`distill.generator.Generator` has it)."""

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


@dataclass(frozen=True)
class Pool:
    """The pooled training set.

    Attributes:
        schema: Shared by all institutions.
        frame: Rows in public values with drawn labels, in random order.
        soft_labels: Probability of each class for each row, float32, shape (rows, classes). The classes of a target that is
            a number are its common bins; without a target there is one.
        origin: For each row the index of the institution it was drawn from.
        members: The institutions' weights, in the order of `origin`.
        prior: Global class frequencies.
        notes: What a reader should know, in plain words.
        bins: Common bins of a target that is a number; None for any other.
        joint: The joint components; None where they could not be fitted.
    """

    schema: Schema
    frame: pd.DataFrame
    soft_labels: np.ndarray
    origin: np.ndarray
    members: tuple[Contribution, ...]
    prior: np.ndarray
    notes: tuple[str, ...]
    bins: ColumnBins | None = None
    joint: Joint | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)


def default_rows(noisy_rows: Iterable[float]) -> int:
    """Rows to pool when nobody says: four times what the institutions hold, between 20,000 and 200,000."""
    return int(max(20_000, min(200_000, 4 * sum(noisy_rows))))


def draw_pool(
    schema: Schema,
    generators: Sequence[tuple[str, Generator]],
    *,
    rows: int,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
    sites: Sequence[Site | None] = (),
) -> Pool:
    """Draw `rows` rows from all generators and label them from the class heads.

    A row's label is what all heads say of it together, corrected towards what the head of its own institution says where
    that says more than noise. The first has less noise; the second is right about what sets an institution's customers
    apart (labels of its own rows at its own frequencies: the union of all is the pooled table).

    Args:
        schema: Shared by all institutions.
        generators: Institution name and generator, in a fixed order.
        rows: How many rows; at least one an institution.
        rng: Source of every draw.
        progress: Called with (rows labelled so far, rows) now and then.
        sites: What the joint components are fitted to, in the same order, None where no pairs travelled; empty: rows are
            drawn from each generator as it came.

    Raises:
        BundleError: a generator fails, or gives rows or probabilities that cannot be right.
    """
    bins, classes, came = None, len(schema.classes), generators
    if schema.task == "number":
        names = [name for name, _ in generators]
        binned = as_binned([g for _, g in generators])
        bins, spoken = guarded(", ".join(names), "its target's bins", lambda: on_common_bins(schema, binned))
        generators, classes = list(zip(names, spoken, strict=True)), bins.n_bins
    members = weigh(generators, classes=classes if schema.task else 1)
    counts = allocate(rows, np.array([m.row_share for m in members]))
    *streams, fitting = rng.spawn(len(members) + 1)
    drawers, joint, notes = _drawers(came, members, sites, fitting)
    drawn = [
        _draw(schema, name, drawer, int(count), stream)
        for (name, _), drawer, count, stream in zip(came, drawers, counts, streams, strict=True)
    ]
    order = rng.permutation(int(counts.sum()))
    frame = stack(schema, drawn).iloc[order].reset_index(drop=True)
    origin = np.repeat(np.arange(len(members)), counts)[order]
    prior = global_prior(members)
    if schema.task is None:
        return Pool(
            schema, frame, np.ones((len(frame), 1), np.float32), origin, members, prior, tuple(notes), joint=joint
        )
    if not heads_connect(members):
        notes += [_NO_HEADS]
        soft = np.eye(classes)[_codes(schema, bins, frame)]
    else:
        soft, corrected = _soft_labels(schema, frame, origin, generators, members, progress)
        notes += [] if corrected else [_NO_CORRECTION]
        frame[schema.target] = draw_labels(schema, bins, soft, rng)
        notes += [_FEW.format(m.institution) for m in members if m.head_share == 0]
    return Pool(schema, frame, soft.astype(np.float32), origin, members, prior, tuple(notes), bins, joint)


_NO_HEADS = (
    "No combination of class heads tells all classes apart (most institutions hold one class only), so the pooled rows "
    "keep the labels they were drawn with. What tells institutions apart then looks like what tells classes apart: "
    "trust the model only after an evaluation on real rows that hold several classes."
)
_PLAIN = (
    "The rows of {} are drawn from its bundle as it came: its pair statistics did not travel, or the components fitted to all "
    "institutions lie farther from them."
)
_NO_CORRECTION = (
    "Correcting the averaged class heads towards what institutions say of their own rows made them agree less on rows that "
    "were held out, so they are used as they are."
)
_FEW = "{} holds (nearly) one class only: its class head is not used; its rows still shape the features."


def weigh(generators: Sequence[tuple[str, Generator]], *, classes: int) -> tuple[Contribution, ...]:
    """Weights of all institutions from what their generators state. Raises BundleError on nonsense."""
    for name, generator in generators:
        prior = np.asarray(generator.class_prior, dtype=float)
        if prior.shape != (classes,) or not np.isfinite(prior).all() or not np.isfinite(generator.noisy_rows):
            raise BundleError(f"the bundle of {name!r} states class frequencies or a row count that make no sense.")
    return contributions(
        [name for name, _ in generators],
        [float(g.noisy_rows) for _, g in generators],
        [np.asarray(g.class_prior, dtype=float) for _, g in generators],
        [float(g.head_information) for _, g in generators],
    )


def allocate(total: int, shares: np.ndarray) -> np.ndarray:
    """Split `total` rows by `shares` (summing to one) into whole numbers that sum to it exactly: largest remainders."""
    exact = total * shares
    counts = np.floor(exact).astype(int)
    largest = np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]
    counts[largest] += 1
    return np.asarray(counts)


def heads_connect(members: Sequence[Contribution]) -> bool:
    """Whether the heads together inform about every contrast between classes that occur."""
    present = np.flatnonzero(global_prior(members) > 0)
    total = np.sum([_matrix(m) for m in members], axis=0)[np.ix_(present, present)]
    scale = np.abs(total).max(initial=0.0)
    return bool(scale > 0 and np.linalg.matrix_rank(total / scale, tol=1e-9, hermitian=True) >= len(present) - 1)


def combine_heads(
    log_probabilities: Sequence[np.ndarray], members: Sequence[Contribution], *, prior: np.ndarray
) -> np.ndarray:
    """One class head for all institutions together, at the class frequencies `prior`.

    Each head's evidence e_i = log p_i(y | x) - log pi_i(y) is averaged by information,
    e = (sum_i L_i)^+ sum_i L_i e_i, and the result is log-normalised log prior(y) + e. For two classes this is the
    average of prior-free log-odds weighted by n_i p_i (1 - p_i). A class that an institution lacks has no weight there,
    so others' evidence on it stands alone.

    Args:
        log_probabilities: Of each head on the same rows, shape (rows, classes) each.
        members: The weights, in the same order.
        prior: Class frequencies of the result, above zero, shape (classes,).

    Returns:
        Log-probabilities, shape (rows, classes).
    """
    matrices = [_matrix(m) for m in members]
    weighted = [
        _evidence(logs, m) @ matrix for logs, m, matrix in zip(log_probabilities, members, matrices, strict=True)
    ]
    evidence = np.sum(weighted, axis=0) @ pseudo_inverse(np.sum(matrices, axis=0))
    return log_normalise(np.log(prior) + evidence)


def stack(schema: Schema, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames on top of each other, column by column, in the public types that one table of all rows would have."""
    return pd.DataFrame({c.name: _stacked(c, [f[c.name] for f in frames]) for c in schema.columns})


def _stacked(column: Column, parts: Sequence["pd.Series[Any]"]) -> "pd.Series[Any] | np.ndarray":
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


def _matrix(member: Contribution) -> np.ndarray:
    return head_matrix(member.noisy_rows, np.asarray(member.class_prior), member.head_information)


def _evidence(logs: np.ndarray, member: Contribution) -> np.ndarray:
    """What a head says beyond its institution's class frequencies, limited on both sides."""
    own = np.log(smoothed_prior(member.noisy_rows, np.asarray(member.class_prior)))
    return np.asarray(np.clip(np.maximum(logs, LOWEST_LOG) - own, -EVIDENCE_LIMIT, EVIDENCE_LIMIT))


def _drawers(
    generators: Sequence[tuple[str, Generator]],
    members: Sequence[Contribution],
    sites: Sequence[Site | None],
    rng: np.random.Generator,
) -> tuple[list[Generator], Joint | None, list[str]]:
    """Whom each institution's rows are drawn from, the joint components, and notes on whom they do not serve."""
    came = [g for _, g in generators]
    if not sites:
        return came, None, []
    rows = np.array([m.row_share for m in members])
    names = ", ".join(name for name, _ in generators)
    trust = np.array([float(getattr(m, "weight", 1.0)) for m in members])
    better, joint = guarded(names, "fitting all statistics", lambda: joint_or_plain(sites, rows, trust, rng))
    plain = [name for (name, _), drawer in zip(generators, better, strict=True) if drawer is None]
    notes = [_PLAIN.format(name) for name in plain] if len(generators) > 1 else []
    return [drawer or own for drawer, own in zip(better, came, strict=True)], joint, notes


def _soft_labels(
    schema: Schema,
    frame: pd.DataFrame,
    origin: np.ndarray,
    generators: Sequence[tuple[str, Generator]],
    members: Sequence[Contribution],
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, bool]:
    """Class probabilities of every row by all heads together, matched to the global frequencies; whether they were corrected."""
    prior = smoothed_prior(sum(m.noisy_rows for m in members), global_prior(members))
    used = [(g, m) for g, m in zip(generators, members, strict=True) if m.head_share > 0]
    parts = []
    for part in _chunks(len(frame)):
        rows = frame.iloc[part].reset_index(drop=True)
        logs = [_head(name, generator, rows, len(prior)) for (name, generator), _ in used]
        parts.append(combine_heads(logs, [m for _, m in used], prior=prior))
        if progress:
            progress(part.stop, len(frame))
    together = np.concatenate(parts)
    first = frame.iloc[:FIT_ROWS]
    cells = find_cells(schema, first)
    correct = fit_correction(
        cells.of(first),
        cells.widths,
        together[:FIT_ROWS],
        _own_labels(first, origin[:FIT_ROWS], generators, members),
        origin[:FIT_ROWS],
        rows=sum(m.noisy_rows for m in members),
        noise=float(np.sqrt(sum(g.count_noise**2 for _, g in generators))),
    )
    if correct is not None:
        for part in _chunks(len(frame)):
            together[part] = correct(cells.of(frame.iloc[part]), together[part])
    return np.asarray(np.exp(match_prior(together, global_prior(members)))), correct is not None


def _chunks(rows: int) -> list[slice]:
    """Neighbouring runs of at most `CHUNK` rows."""
    return [slice(start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK)]


def _own_labels(
    frame: pd.DataFrame,
    origin: np.ndarray,
    generators: Sequence[tuple[str, Generator]],
    members: Sequence[Contribution],
) -> np.ndarray:
    """Class probabilities of every row from its own institution's head, matched to that institution's frequencies."""
    soft = np.zeros((len(frame), len(members[0].class_prior)))
    for number, ((name, generator), member) in enumerate(zip(generators, members, strict=True)):
        where = np.flatnonzero(origin == number)
        if len(where):
            logs = _head(name, generator, frame.iloc[where].reset_index(drop=True), soft.shape[1])
            soft[where] = np.exp(match_prior(logs, np.asarray(member.class_prior)))
    return soft


def _codes(schema: Schema, bins: ColumnBins | None, frame: pd.DataFrame) -> np.ndarray:
    """Class, or common bin, that each row was drawn with."""
    return class_codes(schema, frame) if bins is None else target_codes(bins, frame[schema.target])


def draw_labels(
    schema: Schema, bins: ColumnBins | None, soft: np.ndarray, rng: np.random.Generator
) -> "np.ndarray | pd.Series[Any]":
    """One label a row, drawn from its probabilities, in the schema's own values; a number from inside its bin."""
    codes = (soft.cumsum(axis=1) < rng.random((len(soft), 1))).sum(axis=1).clip(max=soft.shape[1] - 1)
    if bins is not None:
        return _stacked(bins.grid.column, [bins.draw(codes, rng)])
    whole = all(isinstance(c, int) for c in schema.classes)
    return np.asarray(np.array(schema.classes, dtype=np.int64 if whole else object)[codes])


def _draw(schema: Schema, name: str, generator: Generator, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of one institution, checked: all columns there, as many rows as asked for, nothing infinite."""
    frame = guarded(name, "drawing rows", lambda: generator.draw(rows, rng)) if rows else _empty(schema)
    absent = [c.name for c in schema.columns if c.name not in frame.columns]
    if absent or len(frame) != rows:
        what = f"without the column(s) {', '.join(absent[:5])}" if absent else f"{len(frame)} rows instead of {rows}"
        raise BundleError(f"the bundle of {name!r} is broken: its generator drew {what}. Ask for a new bundle.")
    return frame


def _empty(schema: Schema) -> pd.DataFrame:
    return pd.DataFrame({c.name: np.empty(0, object if c.kind == "categorical" else float) for c in schema.columns})


def _head(name: str, generator: Generator, rows: pd.DataFrame, classes: int) -> np.ndarray:
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
