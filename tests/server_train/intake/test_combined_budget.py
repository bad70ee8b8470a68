"""What budgets of several institutions add up to, by hand: the worst one, the sum, and what a prior cost once."""

from types import SimpleNamespace

import pytest

from distill.exchange.prior import Cost
from server_train.intake.combined_budget import costs, readings


def received(epsilon, delta, prior=None):
    """What the hub keeps of one bundle, as far as budgets go."""
    privacy = SimpleNamespace(epsilon=epsilon, delta=delta, unit="one row", relation="add or remove one")
    return SimpleNamespace(manifest=SimpleNamespace(privacy=privacy), prior=prior)


def prior(digest, disjoint, overlapping):
    return SimpleNamespace(
        sha256=digest,
        disjoint=Cost(epsilon=disjoint, delta=1e-6),
        overlapping=Cost(epsilon=overlapping, delta=3e-6),
    )


def test_the_worst_of_disjoint_and_the_sum_of_overlapping():
    """Epsilon and delta each on their own: the worst epsilon and the worst delta may be of two institutions."""
    disjoint, overlapping = costs([received(1.0, 1e-5), received(2.0, 1e-6), received(0.5, 1e-6)])
    assert (disjoint.epsilon, disjoint.delta) == (2.0, 1e-5)
    assert overlapping.epsilon == pytest.approx(3.5)
    assert overlapping.delta == pytest.approx(1.2e-5)


def test_what_a_prior_cost_is_added_to_both_once():
    """Two institutions used the same prior, a third another one: each prior counts once, in its own reading."""
    one, other = prior("a" * 64, 1.0, 3.0), prior("b" * 64, 0.5, 0.7)
    disjoint, overlapping = costs([received(1, 1e-5, one), received(2, 1e-5, one), received(1, 1e-5, other)])
    assert disjoint.epsilon == pytest.approx(2 + 1.0 + 0.5)
    assert disjoint.delta == pytest.approx(1e-5 + 2e-6)
    assert overlapping.epsilon == pytest.approx(4 + 3.0 + 0.7)
    assert overlapping.delta == pytest.approx(3e-5 + 6e-6)


def test_units_and_relations_are_named_once_each():
    said = readings([received(1, 1e-5), received(2, 1e-5)])
    assert said.units == ["one row"]
    assert said.relations == ["add or remove one"]
    assert said.overlapping.epsilon == pytest.approx(3)
