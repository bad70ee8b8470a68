"""Weights of all institutions: what each states, and what the others' rows and heads say of it.

The shares follow from `contribution`, the judgement from `review` and `coherence`; this module asks the generators. Of a target that is
a number, heads speak of common bins, which are found with rows that may in turn count for less.
"""

from collections.abc import Sequence

import numpy as np

from distill.data.bins import ColumnBins
from distill.data.schema import Schema
from distill.errors import BundleError, OutweighedError
from distill.synthesis.statistics.class_odds import match_prior
from server_train.models.number_target import as_binned, on_common_bins
from server_train.pooling.institutions.cells import find_cells
from server_train.pooling.institutions.generators import Generator, draw_rows, guarded, head_logs, stack
from server_train.pooling.weighing.contribution import Contribution, contributions, counted_rows, reweigh
from server_train.pooling.weighing.evidence import class_precision, clean_prior, counted_matrix, evidence
from server_train.pooling.weighing.peer_review import FEWEST, Account, Review, review

REVIEW_ROWS = 2000  # of each institution, by which institutions are compared


def weigh_all(
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
        raise OutweighedError(f"no institution is left that counts for anything. {' '.join(weight_notes(members))}")
    return members


def _accounts(
    schema: Schema, generators: Sequence[tuple[str, Generator]], rng: np.random.Generator
) -> tuple[list[Account], tuple[int, ...]]:
    """What institutions are compared by: rows of each, with what every head says of them; and the cells of each feature."""
    frames = [
        draw_rows(schema, name, g, REVIEW_ROWS, stream)
        for (name, g), stream in zip(generators, rng.spawn(len(generators)), strict=True)
    ]
    cells = find_cells(schema, stack(schema, frames))
    rows = counted_rows([float(g.noisy_rows) for _, g in generators])
    priors = [clean_prior(g.class_prior) for _, g in generators]
    accounts = []
    for j, frame in enumerate(frames):
        logs = [head_logs(name, g, frame, len(priors[j])) for name, g in generators]
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


_UNJUDGED = (
    "Of {} institutions nobody can say which one is right where they disagree, so none was judged by the others. A poisoned "
    "report would go unnoticed: pool only institutions that you trust, or at least three."
)


def weight_notes(members: Sequence[Contribution]) -> list[str]:
    """What a reader should know about the weights: who counts for less, and why; and where nobody was judged."""
    notes = [_UNJUDGED.format(len(members))] if 1 < len(members) < FEWEST else []
    for m in members:
        if m.reasons:
            counts = "is left out" if m.weight == 0 else f"counts for {m.weight:.0%} of its size"
            notes.append(
                f"{m.institution} {counts if m.weight < 1 else 'counts for less than its size'}: {'; '.join(m.reasons)}."
            )
    return notes
