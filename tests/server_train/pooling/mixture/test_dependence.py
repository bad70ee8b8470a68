"""Which pairs depend: excesses by hand and under noise, the threshold where nothing depends and where all do, and one liar."""

import numpy as np
import pytest

from distill.synthesis.statistics.counts import PairCounts
from server_train.pooling.mixture import dependence
from server_train.pooling.mixture.dependence import BELIEVED, dependent_pairs, excess

EVEN = [np.full(4, 0.25), np.full(4, 0.25)]
TIED = np.eye(4) / 4  # of two columns that are one


def pairs(block: np.ndarray, noise: float, seed: int) -> PairCounts:
    released = block + np.random.default_rng(seed).normal(0, noise, block.shape)
    return PairCounts([(0, 1)], [block], noise, released=[released])


def test_the_excess_is_about_standard_normal_where_columns_are_independent():
    """2,000 seeded blocks: a mean within .1 of 0, a spread within .1 of 1."""
    found = [excess(pairs(np.full((4, 4), 1 / 16), 0.01, s), EVEN)[0, 1] for s in range(2000)]
    assert abs(np.mean(found)) < 0.1
    assert abs(np.std(found) - 1) < 0.1


def test_the_excess_of_tied_columns_by_hand():
    """Without noise in the draw: 12 cells are 1/16 off and 4 are 3/16 off; (12 + 36) / 256 / .05**2 = 75 of 16 expected."""
    exact = PairCounts([(0, 1)], [TIED], 0.05, released=[TIED])
    assert excess(exact, EVEN)[0, 1] == pytest.approx((75 - 16) / np.sqrt(32))


def many(rng: np.random.Generator, independent: int, dependent: int, strength: float) -> list[dict]:
    """Excesses of five institutions for so many pairs of each sort."""
    centre = np.repeat([0.0, strength], [independent, dependent])
    return [dict(zip(numbered(len(centre)), rng.normal(centre), strict=True)) for _ in range(5)]


def trusted(said: list[dict], trust: float = 1.0) -> list[tuple[dict, float]]:
    """What institutions say, each with the same trust."""
    return [(one, trust) for one in said]


def numbered(n: int) -> list[tuple[int, int]]:
    return [(0, k + 1) for k in range(n)]


def test_where_nothing_depends_little_passes_and_where_all_does_all_does():
    rng = np.random.default_rng(0)
    none = dependent_pairs(trusted(many(rng, 400, 0, 0)))
    assert len(none) < 8
    assert len(dependent_pairs(trusted(many(rng, 0, 400, 1.0)))) > 395


def test_what_depends_faintly_passes_among_many_of_its_kind_only():
    """One standard deviation at each of five institutions: kept where most pairs are so, lost where next to none is."""
    rng = np.random.default_rng(1)
    wide = dependent_pairs(trusted(many(rng, 50, 350, 1.0)))
    sparse = dependent_pairs(trusted(many(rng, 350, 50, 1.0)))
    assert len(wide & set(numbered(400)[50:])) > 340
    weak, false = len(sparse & set(numbered(400)[350:])), len(sparse & set(numbered(400)[:350]))
    assert weak < 45
    assert false < 2 * weak  # as many as real ones, by design, give or take luck


def test_institutions_together_see_what_none_sees_alone():
    strength = 2.0
    rng = np.random.default_rng(2)
    said = many(rng, 200, 40, strength)
    together = dependent_pairs(trusted(said))
    alone = dependent_pairs(trusted(said[:1]))
    real = set(numbered(240)[200:])
    assert len(together & real) == 40
    assert len(alone & real) < 40


def test_nobody_speaks_for_all():
    """One of five claims that everything, or nothing, depends: it moves a pair by no more than it is believed."""
    rng = np.random.default_rng(3)
    said = many(rng, 300, 60, 3.0)
    honest = dependent_pairs(trusted(said))
    for claim in (1e9, -1e9):
        liar = dict.fromkeys(said[0], claim)
        found = dependent_pairs(trusted([*said[:4], liar]))
        assert len(found & honest & set(numbered(360)[300:])) > 50
    assert dependent_pairs([*trusted(said), (dict.fromkeys(said[0], 1e9), 0.0)]) == honest


def test_pairs_that_one_institution_alone_measured_count(monkeypatch):
    assert dependent_pairs(trusted([{(0, 1): 4.0}, {(0, 2): -1.0}])) == {(0, 1)}
    assert dependent_pairs(trusted([{(0, 1): BELIEVED[1] + 100}])) == {(0, 1)}
    monkeypatch.setattr(dependence, "FALSE", 0.0)
    assert dependent_pairs(trusted([{(0, 1): 4.0, (0, 2): -1.0}])) == frozenset()


def test_nothing_measured_is_nothing_dependent():
    assert dependent_pairs([]) == frozenset()
    assert dependent_pairs(trusted([{}])) == frozenset()
