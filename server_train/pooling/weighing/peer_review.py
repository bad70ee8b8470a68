"""What institutions say of each other: each one's report judged by all others, on rows of the judge's own.

Nobody can be asked whether a report is honest, so institutions are compared. A judge takes rows of its own generator with
labels of its own class head; nothing that the judged one sent can change those. Of all judges' votes on an institution
the *upper median* counts: the best value that at least half of the judges reach or exceed. While the honest are a majority,
it lies among honest votes (or above one), whoever is judged and whatever the others sent; so up to (n - 1) / 2 of n
institutions may lie, together or each in its own way (breakdown point of the median: Hampel 1971,
doi:10.1214/aoms/1177693054; voting by majority against colluders: Krum, arXiv:1703.02757).

Honest institutions differ too, in class frequencies and in their customers. So every term is measured against what the
others, without the judged one, reach among themselves, and against what little data and much noise explain.
Post-processing of the bundles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distill.synthesis.statistics.class_odds import log_normalise, match_prior

FEWEST = 3  # institutions; of two that disagree nobody can say which one is right
HALF_INFORMATION = 80.0  # at which half of what a class head says is noise: fitted to 45 honest heads at epsilon 2
LEAST_RELIABLE = 0.5  # correlation that two honest heads may expect; below it neither can judge the other
LEAST_EXPLAINED = 0.02  # natural-log units a row, by a judge's own head; below it there is next to nothing to explain
LEAST_APART = 0.15  # of a judge's mean words on two classes; one that hardly tells them apart sees nothing
GROUPS = 32  # clusters of all institutions' rows, in which diversity is counted


@dataclass(frozen=True)
class Account:
    """What is compared of one institution.

    Attributes:
        cells: Of rows drawn from its own generator, as `union_head.Cells.of` gives them, (rows, features).
        own: Class probabilities of those rows by its own head, (rows, classes).
        evidence: Prior-free evidence of all heads on those rows, (institutions, rows, classes).
        prior: Its class frequencies, (classes,).
        precision: Of what it knows about each class (see `contribution.class_precision`), (classes,).
        information: Matrix of its class head (see `contribution.head_matrix`), (classes, classes).
    """

    cells: np.ndarray
    own: np.ndarray
    evidence: np.ndarray
    prior: np.ndarray
    precision: np.ndarray
    information: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Review:
    """What the others' rows say of one institution. None: too little data to tell, or the others do not agree either.

    Attributes:
        diversity: Effective number of the groups of customers that its rows are spread over: exp of the Shannon entropy
            of their shares (Hill number of order 1, doi:10.2307/1934352), 1 to `GROUPS`.
        typical_diversity: Median of the others'.
        distance: Of its class-wise shares from the others', typical column: total variation beyond noise, 0 to 1.
        typical_distance: The same between the others.
        direction: Correlation of its head's prior-free evidence with the others', over what its noise lets expect, -1.5 to 1.5.
        typical_direction: The same between the others.
        effect: What its head adds to what the others' heads together explain of a judge's labels; a share, below 0 where it
            makes them worse.
        mislabelled: Share of its rows that would have to be of another class than it states for them to look as they do to
            the others' heads; 0 to 1. It tells of an institution with (nearly) one class, whose head says nothing.
    """

    diversity: float
    typical_diversity: float
    distance: float | None
    typical_distance: float | None
    direction: float | None
    typical_direction: float | None
    effect: float | None
    mislabelled: float | None


def review(accounts: Sequence[Account], widths: Sequence[int], rng: np.random.Generator) -> tuple[Review, ...]:
    """Judge every institution by all others; at least `FEWEST` of them.

    Args:
        accounts: One an institution.
        widths: Cells of each feature.
        rng: Starts the clusters that diversity is counted in.
    """
    diversity = _diversities([a.cells for a in accounts], int(sum(widths)), rng)
    distance = _votes(accounts, lambda i, j: _distance(accounts[i], accounts[j], widths))
    direction = _votes(accounts, lambda i, j: _direction(accounts, i, j))
    effect = _votes(accounts, lambda i, j: _effect(accounts, i, j))
    mislabelled = _votes(accounts, lambda i, j: _mislabelled(accounts, i, j))
    return tuple(
        Review(
            diversity=float(diversity[i]),
            typical_diversity=float(np.median(np.delete(diversity, i))),
            distance=_negated(upper_median(-distance[i])),
            typical_distance=_negated(_among_others(-distance, i)),
            direction=upper_median(direction[i]),
            typical_direction=_among_others(direction, i),
            effect=upper_median(effect[i]),
            mislabelled=_negated(upper_median(-mislabelled[i])),
        )
        for i in range(len(accounts))
    )


def upper_median(votes: np.ndarray) -> float | None:
    """The largest value that at least half of the votes (NaN: abstained) reach; None with fewer than two votes."""
    cast = np.sort(votes[~np.isnan(votes)])[::-1]
    return float(cast[(len(cast) + 1) // 2 - 1]) if len(cast) >= 2 else None


def _votes(accounts: Sequence[Account], vote: Callable[[int, int], float]) -> np.ndarray:
    """Vote of judge j on institution i at [i, j]; nobody judges itself (NaN)."""
    n = len(accounts)
    return np.array([[vote(i, j) if i != j else np.nan for j in range(n)] for i in range(n)])


def _among_others(votes: np.ndarray, i: int) -> float | None:
    """Median of what the others' upper medians would be without institution i: what is usual among them."""
    rest = np.delete(np.delete(votes, i, axis=0), i, axis=1)
    medians = [m for m in map(_single_median, rest) if m is not None]
    return float(np.median(medians)) if medians else None


def _single_median(votes: np.ndarray) -> float | None:
    """`upper_median`, or the only vote: of three institutions two are left."""
    cast = votes[~np.isnan(votes)]
    return float(cast[0]) if len(cast) == 1 else upper_median(votes)


def _negated(value: float | None) -> float | None:
    return None if value is None else max(-value, 0.0)


def _direction(accounts: Sequence[Account], i: int, j: int) -> float:
    """Correlation of two heads' evidence on rows of the judge j, over what their noise lets two honest ones expect."""
    one, other = accounts[i], accounts[j]
    expected = float(np.sqrt(_reliability(one) * _reliability(other)))
    shared = (one.precision > 0) & (other.precision > 0)
    if expected < LEAST_RELIABLE or shared.sum() < 2:
        return float("nan")
    first, second = (_centred(other.evidence[k][:, shared]) for k in (i, j))
    scale = np.sqrt(np.square(first).sum() * np.square(second).sum())
    correlation = float((first * second).sum() / scale) if scale > 0 else 0.0
    return float(np.clip(correlation / expected, -1.5, 1.5))


def _centred(evidence: np.ndarray) -> np.ndarray:
    """Without what is common to all classes of a row, and to all rows of a class."""
    evidence = evidence - evidence.mean(axis=1, keepdims=True)
    return np.asarray(evidence - evidence.mean(axis=0))


def _reliability(account: Account) -> float:
    """Share of the spread of a head's evidence that is not noise."""
    present = max(int((account.precision > 0).sum()), 1)
    information = float(np.trace(account.information)) / present
    return information / (information + HALF_INFORMATION)


def _effect(accounts: Sequence[Account], i: int, j: int) -> float:
    """What institution i adds to the share of the judge's labels that all heads but the judge's explain."""
    judge = accounts[j]
    if _reliability(judge) < LEAST_RELIABLE:
        return float("nan")
    without = [k for k in range(len(accounts)) if k not in (i, j)]
    known = -float((judge.own * np.log(np.maximum(judge.own, 1e-12))).sum(axis=1).mean())
    mean = judge.own.mean(axis=0)
    unknown = -float((mean * np.log(np.maximum(mean, 1e-12))).sum())
    if unknown - known < LEAST_EXPLAINED:
        return float("nan")
    gain = _loss(accounts, without, judge) - _loss(accounts, sorted([*without, i]), judge)
    return gain / (unknown - known)


def _loss(accounts: Sequence[Account], used: Sequence[int], judge: Account) -> float:
    """Cross-entropy of the judge's labels under the heads of `used` together, at the judge's class frequencies."""
    total = np.sum([accounts[k].information for k in used], axis=0)
    weighted = np.sum([judge.evidence[k] @ accounts[k].information for k in used], axis=0)
    evidence = weighted @ np.linalg.pinv(total, rcond=1e-9, hermitian=True)
    logs = match_prior(log_normalise(evidence), judge.own.mean(axis=0))
    return -float((judge.own * logs).sum(axis=1).mean())


def _mislabelled(accounts: Sequence[Account], i: int, j: int) -> float:
    """By how much the class frequencies that i states miss those that the judge's head sees in its rows.

    Institutions may differ in class frequencies alone (then a head's mean word on a class is the same everywhere, and the
    frequencies follow from it: arXiv:1802.03916; at equal class frequencies, where words differ most), or in their customers
    alone (then its mean word is the frequencies). The smaller gap counts.
    """
    judged, judge = accounts[i], accounts[j]
    if _reliability(judge) < LEAST_RELIABLE:
        return float("nan")
    words = np.exp(log_normalise(judge.evidence[j]))
    by_class = (judge.own.T @ words) / np.maximum(judge.own.sum(axis=0)[:, None], 1e-9)  # row: mean word on a class
    apart = max(float(np.abs(a - b).sum() / 2) for a in by_class for b in by_class)
    if apart < LEAST_APART:
        return float("nan")
    seen = judged.evidence[j]
    same_words = np.abs(np.exp(log_normalise(seen)).mean(axis=0) - judged.prior @ by_class).sum() / 2 / apart
    chances = np.exp(log_normalise(seen + np.log(np.maximum(judge.prior, 1e-9)))).mean(axis=0)
    same_chances = np.abs(chances - judged.prior).sum() / 2
    return float(min(same_words, same_chances, 1.0))


def _distance(one: Account, other: Account, widths: Sequence[int]) -> float:
    """Median over features of the total variation between two institutions' class-wise shares, beyond what noise explains."""
    known = [np.stack([_effective(a, k) for k in range(len(a.prior))]) for a in (one, other)]
    together = 1.0 / (1.0 / np.maximum(known[0], 1e-9) + 1.0 / np.maximum(known[1], 1e-9))
    if together.max() < 1:
        return float("nan")
    trust = together / together.sum()
    shares = [_class_shares(a, int(sum(widths))) for a in (one, other)]
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    variation = np.add.reduceat(np.abs(shares[0] - shares[1]), starts, axis=1) / 2  # (classes, features)
    # The mean of |N(0, s)| is .8 s; shares of m rows over k cells have a total standard deviation of at most sqrt(k / m).
    noise = 0.4 * np.sqrt(np.subtract(widths, 1) / np.maximum(together, 1e-9)[:, None])
    return float(np.median(trust @ np.maximum(variation - noise, 0.0)))


def _effective(account: Account, k: int) -> float:
    """Rows of class k that its shares are as good as: what noise leaves, seen through the rows that were drawn."""
    drawn = float(account.own[:, k].sum())
    if drawn <= 0 or account.precision[k] <= 0:
        return 0.0
    return float(1.0 / (1.0 / account.precision[k] + 1.0 / drawn))


def _class_shares(account: Account, width: int) -> np.ndarray:
    """Share of each cell among the rows of each class, (classes, all cells); a feature's cells sum to one."""
    out = np.zeros((account.own.shape[1], width))
    for cells in account.cells.T:
        for k, chance in enumerate(account.own.T):
            out[k] += np.bincount(cells, chance, minlength=width)
    return np.asarray(out / np.maximum(account.own.sum(axis=0)[:, None], 1e-9))


def _diversities(cells: Sequence[np.ndarray], width: int, rng: np.random.Generator) -> np.ndarray:
    """exp(entropy) of each institution's shares in clusters of all institutions' rows, (institutions,)."""
    from sklearn.cluster import MiniBatchKMeans

    rows = np.concatenate(cells)
    hot = np.zeros((len(rows), width), dtype=np.float32)
    np.put_along_axis(hot, rows, 1.0, axis=1)
    groups = min(GROUPS, len(np.unique(rows, axis=0)))
    found = MiniBatchKMeans(groups, random_state=int(rng.integers(2**31)), n_init=1, batch_size=1024).fit_predict(hot)
    ends = np.cumsum([len(c) for c in cells])[:-1]
    shares = [np.bincount(part, minlength=groups) / len(part) for part in np.split(found, ends)]
    return np.array([np.exp(-(s[s > 0] * np.log(s[s > 0])).sum()) for s in shares])
