"""How much each institution's bundle counts, in terms that a report can show one by one.

Two questions, two shares. *Rows*: how many of the pooled rows are drawn from an institution's generator; its share
of the noisy row counts. *Head*: how far its class head is believed; the information its rows hold about each contrast
between two classes, which is high for many balanced rows and zero for an institution that holds one class only.

For two classes the head's information is n * p * (1 - p), the precision of a log-odds. For more it is the matrix
n * (diag(p) - p p^T), the precision of a multinomial's log-probabilities; both follow from one formula below.

Both shares carry one *weight* in [0, 1]: what its worst term (see `review`) leaves of it, each on a ramp that is 1 over all that
honest institutions were seen to differ by and 0 for what teaches the model wrong. The least term decides, not a product: an
institution that is a little odd in every way is odd, not dishonest. Nobody counts for more than `MOST_TIMES` the typical
other institution, or for more than all others together, whatever size it claims. Everything here is post-processing of what the
bundles state.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from server_train.pooling.weighing.evidence import clean_prior, counted_matrix, pseudo_inverse
from server_train.pooling.weighing.peer_review import FEWEST, Review

MOST_TIMES = 10.0  # the others' median size that one institution may count for
# Each ramp: the value that leaves no weight, and the one from which on all of it is left. Of 65 honest institutions of two tables
# (dealt evenly, by label, by a column) the worst had .9 times the usual direction, an effect of -.04, a mislabelled share of .25, a
# distance of .15 (of .17 with 456 rows), and half the usual diversity. Flipped heads had -.9 times it; made-up rows a distance of .28 on.
# Since then 4 of 328 of five tables lost weight (.51 to .91), in deals by label where few heads can judge.
DIRECTION = (0.2, 0.6)  # over what is usual among the others
LEAST_USUAL = 0.35  # where the others agree by less among themselves, nobody is judged by direction
EFFECT = (-0.2, -0.08)  # share of what can be explained of the others' labels
MISLABELLED = (0.55, 0.35)  # share of rows
DISTANCE = (0.3, 0.18)  # total variation; wider where the others are far from each other as well
TIMES_USUAL = 3.0
LARGE = 3.0  # times the others' median size; who would count for more must be nearer to the others in proportion
DIVERSITY = (0.1, 1 / 3)  # over what is usual among the others


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """One institution's shares and the terms they come from. A term that could not be judged is None.

    Attributes:
        institution: Its name, as stated in the bundle.
        noisy_rows: Released row count (at least 1).
        counted_rows: As many of them as count.
        class_prior: Released class frequencies, made non-negative and summing to one.
        label_balance: 1 where all classes are equally frequent, 0 where there is one class only.
        head_information: What the generator states about its class head; 0: unusable.
        diversity: Effective number of groups of customers that its rows are spread over.
        agreement: 1 minus the distance of its class-wise shares from the others', beyond noise; in [0, 1].
        direction: Correlation of its class head with the others', over what noise lets expect; negative: it says the opposite.
        effect: What its class head adds to what the others' explain of each other's labels; a share, below 0: it harms.
        mislabelled: Share of its rows that, by the others' heads, are of another class than it states; 0 to 1.
        weight: In [0, 1]; both shares carry it.
        reasons: Why it counts for less than it could, in plain words; empty: it counts in full.
        row_share: Share of the pooled rows, in [0, 1]; sums to one over institutions.
        head_share: Share in the combined class head, in [0, 1]; sums to one, or is zero where no head is usable.
    """

    institution: str
    noisy_rows: float
    counted_rows: float
    class_prior: tuple[float, ...]
    label_balance: float
    head_information: float
    diversity: float | None
    agreement: float | None
    direction: float | None
    effect: float | None
    mislabelled: float | None
    weight: float
    reasons: tuple[str, ...]
    row_share: float
    head_share: float

    @property
    def matrix(self) -> np.ndarray:
        """The information of its class head as it counts, (classes, classes)."""
        return self.weight * counted_matrix(
            self.noisy_rows, self.counted_rows, np.asarray(self.class_prior), self.head_information
        )


def label_balance(class_prior: np.ndarray) -> float:
    """Gini diversity of the class frequencies, scaled to 1 for equal classes; for two classes 4 * p * (1 - p)."""
    classes = len(class_prior)
    return float((1.0 - np.square(class_prior).sum()) * classes / (classes - 1)) if classes > 1 else 0.0


def head_shares(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Each head's share of all information: trace(total^+ L_i) / rank; for two classes simply its part of the sum."""
    total = np.sum(matrices, axis=0)
    inverse = pseudo_inverse(total)
    shares = np.clip([float(np.trace(inverse @ matrix)) for matrix in matrices], 0.0, None)
    return np.asarray(shares / shares.sum() if shares.sum() > 0 else shares)


def counted_rows(noisy_rows: Sequence[float]) -> np.ndarray:
    """Rows of each institution as they count: from `FEWEST` on at most `MOST_TIMES` the others' median, and at most all others'.

    So a claim that nothing contradicts never outweighs all other institutions together.
    """
    rows = np.maximum(np.asarray(noisy_rows, dtype=float), 1.0)
    if len(rows) < FEWEST:
        return np.asarray(rows)
    usual = np.minimum(rows, MOST_TIMES * _others_median(rows))
    return np.asarray(np.minimum(usual, usual.sum() - usual))


def allowances(counted: np.ndarray) -> np.ndarray:
    """How far each institution may be from the others, as a share of what one of usual size may, in (0, 1].

    What is little harm from one that counts for little is much from one that counts for as much as several others, and the
    statistics of so many rows ought to have less noise, not more.
    """
    if len(counted) < FEWEST:
        return np.ones(len(counted))
    return np.asarray(np.minimum(1.0, LARGE * _others_median(counted) / counted))


def _others_median(rows: np.ndarray) -> np.ndarray:
    """For each institution the median of all others' rows."""
    return np.array([np.median(np.delete(rows, i)) for i in range(len(rows))])


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What one bundle states, and what is said of it.

    Attributes:
        institution: The institution's name.
        noisy_rows: Released row count.
        class_prior: Released class frequencies, (classes,).
        head_information: What the generator states about its class head; 0: unusable.
        review: What the others' rows say of it; None: it was not judged.
        fault: Why the bundle contradicts itself; it counts for nothing then. None: it does not.
    """

    institution: str
    noisy_rows: float
    class_prior: np.ndarray
    head_information: float
    review: Review | None = None
    fault: str | None = None


def contributions(statements: Sequence[Statement], *, capped: bool = True) -> tuple[Contribution, ...]:
    """Return the shares of all institutions; row shares sum to one, and so do head shares if any head is usable.

    Args:
        statements: One a bundle.
        capped: Whether claims of rows are limited (see `counted_rows`).
    """
    rows = np.maximum(np.array([s.noisy_rows for s in statements], dtype=float), 1.0)
    counted = _counted(rows, [s.fault is None for s in statements]) if capped else rows
    judged = [_weight(allowance, s) for allowance, s in zip(allowances(counted), statements, strict=True)]
    weights = np.array([weight for weight, _ in judged])
    if capped:  # the claim of one that is left out raises nobody else's limit
        counted = np.minimum(counted, _counted(rows, weights > 0))
    return _with_shares(
        _contribution(s, float(counts), weight, reasons)
        for s, counts, (weight, reasons) in zip(statements, counted, judged, strict=True)
    )


def _contribution(statement: Statement, counted: float, weight: float, reasons: tuple[str, ...]) -> Contribution:
    """One institution's terms, with shares of zero that are still to be worked out."""
    rows, prior, review = max(float(statement.noisy_rows), 1.0), clean_prior(statement.class_prior), statement.review
    return Contribution(
        institution=statement.institution,
        noisy_rows=rows,
        counted_rows=counted,
        class_prior=tuple(float(v) for v in prior),
        label_balance=label_balance(prior),
        head_information=float(statement.head_information),
        diversity=review.diversity if review else None,
        agreement=1.0 - review.distance if review and review.distance is not None else None,
        direction=review.direction if review else None,
        effect=review.effect if review else None,
        mislabelled=review.mislabelled if review else None,
        weight=float(weight),
        reasons=(*_capped(rows, counted), *reasons),
        row_share=0.0,
        head_share=0.0,
    )


def reweigh(stated: Iterable[tuple[Contribution, np.ndarray, float]]) -> tuple[Contribution, ...]:
    """Give institutions that now speak of other classes new shares; their weights stay.

    Args:
        stated: Of each institution its contribution so far, its class frequencies and its head information.
    """
    clean = [(m, clean_prior(prior), float(information)) for m, prior, information in stated]
    return _with_shares(
        replace(m, class_prior=tuple(prior.tolist()), label_balance=label_balance(prior), head_information=information)
        for m, prior, information in clean
    )


def _with_shares(members: Iterable[Contribution]) -> tuple[Contribution, ...]:
    """With each one's share of the rows and of the class head."""
    members = tuple(members)
    rows = np.array([m.weight * m.counted_rows for m in members])
    heads = head_shares([m.matrix for m in members])
    parts = rows / max(float(rows.sum()), 1e-12)
    return tuple(
        replace(m, row_share=float(row), head_share=float(head))
        for m, row, head in zip(members, parts, heads, strict=True)
    )


def _counted(rows: np.ndarray, used: Sequence[bool] | np.ndarray) -> np.ndarray:
    """`counted_rows` where only the claims of `used` institutions are compared; the others' stay as they are."""
    out, used = rows.copy(), np.asarray(used)
    out[used] = counted_rows(rows[used])
    return np.asarray(out)


def _capped(noisy: float, counted: float) -> tuple[str, ...]:
    """Why not all rows count that an institution claims; empty: they do."""
    if counted >= noisy:
        return ()
    return (
        f"it claims {noisy:,.0f} rows, of which {counted:,.0f} count: nobody counts for more than all others together, nor for "
        f"more than {MOST_TIMES:g} times what is usual among them",
    )


def _weight(allowance: float, statement: Statement) -> tuple[float, tuple[str, ...]]:
    """Return one institution's weight, and why it is below 1."""
    if statement.fault is not None:
        return 0.0, (f"its bundle contradicts itself: {statement.fault}",)
    terms = _terms(statement.review, allowance) if statement.review is not None else []
    return min([1.0, *(weight for weight, _ in terms)]), tuple(words for weight, words in terms if weight < 1)


def _terms(review: Review, allowance: float) -> list[tuple[float, str]]:
    """What each term that could be judged leaves of the weight, and the words for it; `allowance`: see `allowances`."""
    terms = []
    usual = review.typical_direction
    if review.direction is not None and usual is not None and usual >= LEAST_USUAL:
        how = "the opposite of" if review.direction < 0 else "something else than"
        words = f"its class head says {how} the others' (agreement {review.direction:.2f}; usual: {usual:.2f})"
        terms.append((_ramp(review.direction / min(usual, 1.0), *DIRECTION), words))
    if review.effect is not None:
        words = f"with its class head the others' explain {-review.effect:.0%} less of each other's labels"
        terms.append((_ramp(review.effect, *EFFECT), words))
    if review.mislabelled is not None:
        words = (
            f"to the others' class heads {review.mislabelled:.0%} of its rows look like another class than it states"
        )
        terms.append((_ramp(review.mislabelled, *MISLABELLED), words))
    if review.distance is not None:
        wider = allowance * max(1.0, TIMES_USUAL * (review.typical_distance or 0.0) / DISTANCE[1])
        words = f"its statistics are {review.distance:.2f} away from the others', in most columns (0: alike, 1: nothing in common)"
        words += "; one that counts for so many rows has to be nearer" if allowance < 1 else ""
        terms.append((_ramp(review.distance, wider * DISTANCE[0], wider * DISTANCE[1]), words))
    words = f"its rows are of {review.diversity:.1f} groups of customers; usual: {review.typical_diversity:.1f}"
    terms.append((_ramp(review.diversity / review.typical_diversity, *DIVERSITY), words))
    return terms


def _ramp(value: float, nothing: float, everything: float) -> float:
    """0 at `nothing` and beyond, 1 at `everything` and beyond, a straight line between."""
    return float(np.clip((value - nothing) / (everything - nothing), 0.0, 1.0))


def global_prior(members: Sequence[Contribution]) -> np.ndarray:
    """Class frequencies of all institutions together: each prior weighted by its share of the rows."""
    return np.asarray(sum(c.row_share * np.asarray(c.class_prior) for c in members))
