"""All institutions' class heads as one labeller of rows.

Institution i has learnt its class head p_i(y | x) where classes have its own frequencies pi_i. The evidence
log p_i(y | x) - log pi_i(y) is free of those frequencies; evidence of all heads is averaged by information (see `contribution`), the
global frequencies pi are put back, the result is corrected towards what institutions say of their own rows (see
`union_head`), and an intercept makes the mean label frequency equal pi.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from distill.data.schema import Schema
from distill.synthesis.statistics.class_odds import log_normalise, match_prior, prior_shift
from server_train.pooling.institutions.cells import Cells, find_cells
from server_train.pooling.institutions.generators import head_logs
from server_train.pooling.labelling.correction import FIT_ROWS, Correct, fit_correction
from server_train.pooling.weighing.contribution import Contribution, global_prior
from server_train.pooling.weighing.evidence import evidence, pseudo_inverse, smoothed_prior
from server_train.pooling.weighing.weights import Contributor

CHUNK = 50_000  # rows that are labelled at once


def heads_connect(members: Sequence[Contribution]) -> bool:
    """Whether the heads together inform about every contrast between classes that occur."""
    present = np.flatnonzero(global_prior(members) > 0)
    total = np.sum([m.matrix for m in members], axis=0)[np.ix_(present, present)]
    scale = np.abs(total).max(initial=0.0)
    return bool(scale > 0 and np.linalg.matrix_rank(total / scale, tol=1e-9, hermitian=True) >= len(present) - 1)


def combine_heads(heads: Sequence[tuple[np.ndarray, Contribution]], *, prior: np.ndarray) -> np.ndarray:
    """One class head for all institutions together, at the class frequencies `prior`.

    Each head's evidence e_i = log p_i(y | x) - log pi_i(y) is averaged by information,
    e = (sum_i L_i)^+ sum_i L_i e_i, and the result is log-normalised log prior(y) + e. For two classes this is the
    average of prior-free log-odds weighted by n_i p_i (1 - p_i). A class that an institution lacks has no weight there,
    so others' evidence on it stands alone.

    Args:
        heads: Log-probabilities of each head on the same rows, shape (rows, classes), and what its institution counts for.
        prior: Class frequencies of the result, above zero, shape (classes,).

    Returns:
        Log-probabilities, shape (rows, classes).
    """
    matrices = [member.matrix for _, member in heads]
    weighted = [
        evidence(logs, member.counted_rows, np.asarray(member.class_prior)) @ matrix
        for (logs, member), matrix in zip(heads, matrices, strict=True)
    ]
    together = np.sum(weighted, axis=0) @ pseudo_inverse(np.sum(matrices, axis=0))
    return log_normalise(np.log(prior) + together)


@dataclass(frozen=True)
class Labeller:
    """One class head for all rows: all institutions' heads, the correction of their union, and an intercept.

    Attributes:
        heads: The institutions whose class head is used.
        prior: Class frequencies that the heads are put on.
        cells: Of the rows, for `correct`.
        correct: See `correction`; None: it did not hold on rows that were held out.
        shift: Of each class: makes the mean label frequency of the rows it was fitted to the global one.
    """

    heads: Sequence[Contributor]
    prior: np.ndarray
    cells: Cells
    correct: Correct | None
    shift: np.ndarray

    def probabilities(self, frame: pd.DataFrame, logs: np.ndarray | None = None) -> np.ndarray:
        """Class probabilities of any rows, (rows, classes); `logs`: the corrected word of the heads, if known."""
        if logs is None:
            logs = _together(frame, self.heads, self.prior)
            logs = _corrected(logs, frame, self.cells, self.correct)
        return np.asarray(np.exp(log_normalise(logs + self.shift)))


def fit_labeller(
    schema: Schema,
    frame: pd.DataFrame,
    origin: np.ndarray,
    contributors: Sequence[Contributor],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Labeller, np.ndarray]:
    """A labeller whose correction is fitted to the first `FIT_ROWS` rows and whose intercept to all, and its `logs` of them.

    Args:
        schema: Shared by all institutions.
        frame: Drawn rows in random order.
        origin: Institution of each row.
        contributors: All institutions, in the order of `origin`.
        progress: Called with (rows labelled so far, rows) now and then.
    """
    members = [c.contribution for c in contributors]
    total = sum(m.weight * m.counted_rows for m in members)
    prior = smoothed_prior(total, global_prior(members))
    heads = [c for c in contributors if c.contribution.head_share > 0]
    together = _together(frame, heads, prior, progress)
    first = frame.iloc[:FIT_ROWS]
    cells = find_cells(schema, first)
    correct = fit_correction(
        cells.of(first),
        cells.widths,
        together[:FIT_ROWS],
        _own_labels(first, origin[:FIT_ROWS], contributors),
        origin[:FIT_ROWS],
        rows=total,
        noise=float(np.sqrt(sum((c.contribution.weight * c.labeller.count_noise) ** 2 for c in contributors))),
    )
    logs = _corrected(together, frame, cells, correct)
    return Labeller(heads, prior, cells, correct, prior_shift(logs, global_prior(members))), logs


def _together(
    frame: pd.DataFrame,
    heads: Sequence[Contributor],
    prior: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """What all heads say together of every row: log-probabilities, (rows, classes)."""
    parts = []
    for part in _chunks(len(frame)):
        rows = frame.iloc[part].reset_index(drop=True)
        logs = [(head_logs(h.institution.name, h.labeller, rows, len(prior)), h.contribution) for h in heads]
        parts.append(combine_heads(logs, prior=prior))
        if progress:
            progress(part.stop, len(frame))
    return np.concatenate(parts)


def _corrected(logs: np.ndarray, frame: pd.DataFrame, cells: Cells, correct: Correct | None) -> np.ndarray:
    """What all heads say, corrected part by part."""
    if correct is None:
        return logs
    return np.concatenate([correct(cells.of(frame.iloc[part]), logs[part]) for part in _chunks(len(frame))])


def _own_labels(frame: pd.DataFrame, origin: np.ndarray, contributors: Sequence[Contributor]) -> np.ndarray:
    """Class probabilities of every row from its own institution's head, matched to that institution's frequencies."""
    soft = np.zeros((len(frame), len(contributors[0].contribution.class_prior)))
    for number, one in enumerate(contributors):
        where = np.flatnonzero(origin == number)
        if len(where):
            rows = frame.iloc[where].reset_index(drop=True)
            logs = head_logs(one.institution.name, one.labeller, rows, soft.shape[1])
            soft[where] = np.exp(match_prior(logs, np.asarray(one.contribution.class_prior)))
    return soft


def _chunks(rows: int) -> list[slice]:
    """Neighbouring runs of at most `CHUNK` rows."""
    return [slice(start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK)]
