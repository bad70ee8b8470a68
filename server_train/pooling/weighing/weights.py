"""Weights of all institutions: what each states, and what the others' rows and heads say of it.

The shares follow from `contribution`, the judgement from `review` and `coherence`; this module asks the generators. Of a target that is
a number, heads speak of common bins, which are found with rows that may in turn count for less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill.data.bins import ColumnBins
from distill.data.schema import Schema
from distill.errors import BundleError, OutweighedError
from distill.synthesis.statistics.class_odds import match_prior
from server_train.models.number_target import as_binned, on_common_bins
from server_train.pooling.institutions.cells import find_cells
from server_train.pooling.institutions.generators import Generator, draw_rows, guarded, head_logs, stack
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.weighing.contribution import Contribution, Statement, contributions, counted_rows, reweigh
from server_train.pooling.weighing.evidence import class_precision, clean_prior, counted_matrix, evidence
from server_train.pooling.weighing.peer_review import FEWEST, Account, Review, review

REVIEW_ROWS = 2000  # of each institution, by which institutions are compared


@dataclass(frozen=True, kw_only=True, eq=False)
class Contributor:
    """One institution of a pool, with what it counts for.

    Attributes:
        institution: The institution.
        labeller: The generator that labels for it: its own, or, of a target that is a number, its own on the common bins.
        contribution: What it counts for.
    """

    institution: Institution
    labeller: Generator
    contribution: Contribution


def weigh_all(
    schema: Schema, institutions: Sequence[Institution], rng: np.random.Generator, *, robust: bool
) -> tuple[tuple[Contributor, ...], ColumnBins | None]:
    """Return what all institutions count for, and the common bins of a target that is a number."""
    if schema.task != "number":
        classes = len(schema.classes) if schema.task else 1
        members = weigh(schema, institutions, classes=classes, rng=rng, robust=robust)
        return _contributors(institutions, institutions, members), None
    names = ", ".join(i.name for i in institutions)
    binned = as_binned([i.generator for i in institutions])

    def spoken_by(rows: np.ndarray) -> tuple[ColumnBins, list[Institution]]:
        bins, spoken = guarded(names, "its target's bins", lambda: on_common_bins(schema, binned, rows))
        return bins, [replace(i, generator=g) for i, g in zip(institutions, spoken, strict=True)]

    bins, spoken = spoken_by(counted_rows([float(g.noisy_rows) for g in binned]))
    members = weigh(schema, spoken, classes=bins.n_bins, rng=rng, robust=robust)
    if min(m.weight for m in members) < 1:  # the bins themselves were found with rows that count for less
        bins, spoken = spoken_by(np.array([m.weight * m.counted_rows for m in members]))
        generators = [i.generator for i in spoken]
        members = reweigh((m, g.class_prior, g.head_information) for m, g in zip(members, generators, strict=True))
    return _contributors(institutions, spoken, members), bins


def _contributors(
    institutions: Sequence[Institution], spoken: Sequence[Institution], members: Sequence[Contribution]
) -> tuple[Contributor, ...]:
    """Put together what belongs to one institution: itself, itself as it labels, and what it counts for."""
    return tuple(
        Contributor(institution=institution, labeller=labels.generator, contribution=member)
        for institution, labels, member in zip(institutions, spoken, members, strict=True)
    )


def weigh(
    schema: Schema,
    institutions: Sequence[Institution],
    *,
    classes: int,
    rng: np.random.Generator,
    robust: bool = True,
) -> tuple[Contribution, ...]:
    """Return shares and weights of all institutions, from what they state and from what the others' rows say of each.

    Args:
        schema: The schema that all institutions share.
        institutions: All of them, in a fixed order; one with a fault has weight 0 and judges nobody.
        classes: How many classes the generators' heads tell apart.
        rng: Draws the rows on which institutions are compared.
        robust: Whether they are, which takes three at least; otherwise all weights are 1.

    Raises:
        BundleError: a generator states nonsense, or fails.
        OutweighedError: no institution is left that counts for anything.
    """
    for institution in institutions:
        stated = institution.generator
        prior = np.asarray(stated.class_prior, dtype=float)
        if prior.shape != (classes,) or not np.isfinite(prior).all() or not np.isfinite(stated.noisy_rows):
            raise BundleError(
                f"the bundle of {institution.name!r} states class frequencies or a row count that make no sense."
            )
    sound = [place for place, i in enumerate(institutions) if i.fault is None]
    reviews: dict[int, Review] = {}
    if robust and len(sound) >= FEWEST:
        accounts, widths = _accounts(schema, [institutions[place] for place in sound], rng)
        reviews = dict(zip(sound, review(accounts, widths, rng), strict=True))
    members = contributions(
        [
            Statement(
                institution=i.name,
                noisy_rows=float(i.generator.noisy_rows),
                class_prior=np.asarray(i.generator.class_prior, dtype=float),
                head_information=float(i.generator.head_information),
                review=reviews.get(place),
                fault=i.fault,
            )
            for place, i in enumerate(institutions)
        ],
        capped=robust,
    )
    if not any(m.weight > 0 for m in members):
        raise OutweighedError(f"no institution is left that counts for anything. {' '.join(weight_notes(members))}")
    return members


def _accounts(
    schema: Schema, institutions: Sequence[Institution], rng: np.random.Generator
) -> tuple[list[Account], tuple[int, ...]]:
    """What institutions are compared by: rows of each, with what every head says of them; and the cells of each feature."""
    frames = [
        draw_rows(schema, i.name, i.generator, REVIEW_ROWS, stream)
        for i, stream in zip(institutions, rng.spawn(len(institutions)), strict=True)
    ]
    cells = find_cells(schema, stack(schema, frames))
    rows = counted_rows([float(i.generator.noisy_rows) for i in institutions])
    priors = [clean_prior(i.generator.class_prior) for i in institutions]
    accounts = []
    for j, frame in enumerate(frames):
        logs = [head_logs(i.name, i.generator, frame, len(priors[j])) for i in institutions]
        stated = institutions[j].generator
        noisy_rows = max(float(stated.noisy_rows), 1.0)
        accounts.append(
            Account(
                cells=cells.of(frame),
                own=np.exp(match_prior(logs[j], priors[j])),
                evidence=np.stack([evidence(log, n, prior) for log, n, prior in zip(logs, rows, priors, strict=True)]),
                prior=priors[j],
                precision=class_precision(rows[j], priors[j]),
                information=counted_matrix(noisy_rows, rows[j], priors[j], float(stated.head_information)),
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
