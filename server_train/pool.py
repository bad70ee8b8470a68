"""One training set from all institutions: rows from every generator, labels from all class heads together.

Institution i describes its features p_i(x) and its class head p_i(y | x), learnt where classes have its own
frequencies pi_i. The evidence log p_i(y | x) - log pi_i(y) is free of those frequencies; evidence of all heads is
averaged by information (see `contribution`), the global frequencies pi are put back, and the result is corrected towards what
institutions say of their own rows (see `union_head`). Rows are drawn in proportion to noisy row counts, labelled by that
head, and an intercept makes the mean label frequency equal pi.
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
from distill.errors import BundleError, DistillError, OutweighedError
from distill.schema import Column, Schema
from server_train.contribution import (
    Contribution,
    class_precision,
    clean_prior,
    contributions,
    counted_matrix,
    counted_rows,
    global_prior,
    pseudo_inverse,
    reweigh,
    smoothed_prior,
)
from server_train.features import class_codes
from server_train.number_bins import as_binned, on_common_bins, target_codes
from server_train.review import FEWEST, Account, Review, review
from server_train.union_head import FIT_ROWS, find_cells, fit_correction

EVIDENCE_LIMIT = 10.0  # natural-log units; what one head may say about one class of one row
LOWEST_LOG = -30.0
CHUNK = 50_000  # rows a generator is asked for, or labels, at once
REVIEW_ROWS = 2000  # of each institution, by which institutions are compared

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
    """

    schema: Schema
    frame: pd.DataFrame
    soft_labels: np.ndarray
    origin: np.ndarray
    members: tuple[Contribution, ...]
    prior: np.ndarray
    notes: tuple[str, ...]
    bins: ColumnBins | None = None

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
    robust: bool = True,
    faults: Sequence[str | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
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
        robust: Whether institutions are judged by each other (see `weigh`).
        faults: Why a bundle contradicts itself, one entry a generator (see `coherence`); such a one counts for nothing.
        progress: Called with (rows labelled so far, rows) now and then.

    Raises:
        BundleError: a generator fails, or gives rows or probabilities that cannot be right.
        OutweighedError: no institution is left that counts for anything.
    """
    members, generators, bins = _weighed(schema, generators, rng.spawn(1)[0], robust=robust, faults=faults)
    classes = len(members[0].class_prior)
    counts = allocate(rows, np.array([m.row_share for m in members]))
    streams = rng.spawn(len(members))
    drawn = [
        _draw(schema, name, generator, int(count), stream)
        for (name, generator), count, stream in zip(generators, counts, streams, strict=True)
    ]
    order = rng.permutation(int(counts.sum()))
    frame = stack(schema, drawn).iloc[order].reset_index(drop=True)
    origin = np.repeat(np.arange(len(members)), counts)[order]
    prior = global_prior(members)
    notes = [] if heads_connect(members) or schema.task is None else [_NO_HEADS]
    if schema.task is None:
        words = tuple(_weight_notes(members))
        return Pool(schema, frame, np.ones((len(frame), 1), np.float32), origin, members, prior, words)
    if notes:
        soft = np.eye(classes)[_codes(schema, bins, frame)]
    else:
        soft, corrected = _soft_labels(schema, frame, origin, generators, members, progress)
        notes += [] if corrected else [_NO_CORRECTION]
        frame[schema.target] = _labels(schema, bins, soft, rng)
        notes += [_FEW.format(m.institution) for m in members if m.head_share == 0 and m.weight > 0]
    notes += _weight_notes(members)
    return Pool(schema, frame, soft.astype(np.float32), origin, members, prior, tuple(notes), bins)


_NO_HEADS = (
    "No combination of class heads tells all classes apart (most institutions hold one class only), so the pooled rows "
    "keep the labels they were drawn with. What tells institutions apart then looks like what tells classes apart: "
    "trust the model only after an evaluation on real rows that hold several classes."
)
_NO_CORRECTION = (
    "Correcting the averaged class heads towards what institutions say of their own rows made them agree less on rows that "
    "were held out, so they are used as they are."
)
_FEW = "{} holds (nearly) one class only: its class head is not used; its rows still shape the features."
_UNJUDGED = (
    "Of {} institutions nobody can say which one is right where they disagree, so none was judged by the others. A poisoned "
    "report would go unnoticed: pool only institutions that you trust, or at least three."
)


def _weight_notes(members: Sequence[Contribution]) -> list[str]:
    """What a reader should know about the weights: who counts for less, and why; and where nobody was judged."""
    notes = [_UNJUDGED.format(len(members))] if 1 < len(members) < FEWEST else []
    for m in members:
        if m.reasons:
            counts = "is left out" if m.weight == 0 else f"counts for {m.weight:.0%} of its size"
            notes.append(
                f"{m.institution} {counts if m.weight < 1 else 'counts for less than its size'}: {'; '.join(m.reasons)}."
            )
    return notes


def _weighed(
    schema: Schema,
    generators: Sequence[tuple[str, Generator]],
    rng: np.random.Generator,
    *,
    robust: bool,
    faults: Sequence[str | None] | None,
) -> tuple[tuple[Contribution, ...], Sequence[tuple[str, Generator]], ColumnBins | None]:
    """Weights of all institutions, their generators, and of a target that is a number the common bins that those speak of."""
    if schema.task != "number":
        classes = len(schema.classes) if schema.task else 1
        return weigh(schema, generators, classes=classes, rng=rng, robust=robust, faults=faults), generators, None
    names = [name for name, _ in generators]
    binned = as_binned([g for _, g in generators])

    def spoken_by(rows: np.ndarray) -> tuple[ColumnBins, list[tuple[str, Generator]]]:
        words = ", ".join(names)
        bins, spoken = guarded(words, "its target's bins", lambda: on_common_bins(schema, binned, rows))
        return bins, list(zip(names, spoken, strict=True))

    bins, spoken = spoken_by(counted_rows([float(g.noisy_rows) for g in binned]))
    members = weigh(schema, spoken, classes=bins.n_bins, rng=rng, robust=robust, faults=faults)
    weights = [m.weight for m in members]
    if min(weights) < 1:  # the bins themselves were found with rows that count for less
        bins, spoken = spoken_by(np.array([m.weight * m.counted_rows for m in members]))
        members = reweigh(members, [(g.class_prior, g.head_information) for _, g in spoken])
    return members, spoken, bins


def weigh(
    schema: Schema,
    generators: Sequence[tuple[str, Generator]],
    *,
    classes: int,
    rng: np.random.Generator,
    robust: bool = True,
    faults: Sequence[str | None] | None = None,
) -> tuple[Contribution, ...]:
    """Shares and weights of all institutions, from what they state and from what the others' rows say of each.

    Args:
        schema, generators: As for `draw_pool`.
        classes: How many the generators' heads tell apart.
        rng: Draws the rows on which institutions are compared.
        robust: Whether they are, which takes three at least; otherwise all weights are 1.
        faults: Why a bundle contradicts itself, one entry a generator; such a one has weight 0 and judges nobody.

    Raises:
        BundleError: a generator states nonsense, or fails.
        OutweighedError: no institution is left that counts for anything.
    """
    for name, generator in generators:
        prior = np.asarray(generator.class_prior, dtype=float)
        if prior.shape != (classes,) or not np.isfinite(prior).all() or not np.isfinite(generator.noisy_rows):
            raise BundleError(f"the bundle of {name!r} states class frequencies or a row count that make no sense.")
    sound = [i for i in range(len(generators)) if faults is None or faults[i] is None]
    reviews: list[Review | None] = [None] * len(generators)
    if robust and len(sound) >= FEWEST:
        accounts, widths = _accounts(schema, [generators[i] for i in sound], rng)
        for i, said in zip(sound, review(accounts, widths, rng), strict=True):
            reviews[i] = said
    members = contributions(
        [name for name, _ in generators],
        [float(g.noisy_rows) for _, g in generators],
        [np.asarray(g.class_prior, dtype=float) for _, g in generators],
        [float(g.head_information) for _, g in generators],
        reviews=reviews,
        faults=faults,
        capped=robust,
    )
    if not any(m.weight > 0 for m in members):
        raise OutweighedError(f"no institution is left that counts for anything. {' '.join(_weight_notes(members))}")
    return members


def _accounts(
    schema: Schema, generators: Sequence[tuple[str, Generator]], rng: np.random.Generator
) -> tuple[list[Account], tuple[int, ...]]:
    """What institutions are compared by: rows of each, with what every head says of them; and the cells of each feature."""
    frames = [
        _draw(schema, name, g, REVIEW_ROWS, stream)
        for (name, g), stream in zip(generators, rng.spawn(len(generators)), strict=True)
    ]
    cells = find_cells(schema, stack(schema, frames))
    rows = counted_rows([float(g.noisy_rows) for _, g in generators])
    priors = [clean_prior(g.class_prior) for _, g in generators]
    accounts = []
    for j, frame in enumerate(frames):
        logs = [_head(name, g, frame, len(priors[j])) for name, g in generators]
        stated = max(float(generators[j][1].noisy_rows), 1.0)
        accounts.append(
            Account(
                cells=cells.of(frame),
                own=np.exp(match_prior(logs[j], priors[j])),
                evidence=np.stack([evidence(log, n, prior) for log, n, prior in zip(logs, rows, priors, strict=True)]),
                prior=priors[j],
                precision=class_precision(rows[j], priors[j]),
                information=counted_matrix(stated, rows[j], priors[j], float(generators[j][1].head_information)),
            )
        )
    return accounts, cells.widths


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
    total = np.sum([m.matrix for m in members], axis=0)[np.ix_(present, present)]
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
    matrices = [m.matrix for m in members]
    weighted = [
        evidence(logs, m.counted_rows, np.asarray(m.class_prior)) @ matrix
        for logs, m, matrix in zip(log_probabilities, members, matrices, strict=True)
    ]
    together = np.sum(weighted, axis=0) @ pseudo_inverse(np.sum(matrices, axis=0))
    return log_normalise(np.log(prior) + together)


def evidence(logs: np.ndarray, rows: float, class_prior: np.ndarray) -> np.ndarray:
    """What a head says beyond its institution's class frequencies, limited on both sides; (rows, classes)."""
    own = np.log(smoothed_prior(rows, class_prior))
    return np.asarray(np.clip(np.maximum(logs, LOWEST_LOG) - own, -EVIDENCE_LIMIT, EVIDENCE_LIMIT))


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


def _soft_labels(
    schema: Schema,
    frame: pd.DataFrame,
    origin: np.ndarray,
    generators: Sequence[tuple[str, Generator]],
    members: Sequence[Contribution],
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, bool]:
    """Class probabilities of every row by all heads together, matched to the global frequencies; whether they were corrected."""
    total = sum(m.weight * m.counted_rows for m in members)
    prior = smoothed_prior(total, global_prior(members))
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
        rows=total,
        noise=float(
            np.sqrt(sum((m.weight * g.count_noise) ** 2 for (_, g), m in zip(generators, members, strict=True)))
        ),
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


def _labels(
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
