"""Epsilon by the two accountants, against closed forms and against each other."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import brentq
from scipy.special import log_ndtr

from distill.errors import ConfigError
from distill.privacy.events import Event, epsilon_of

# Exact delta of one Gaussian release with sensitivity 1: arXiv:1805.06530v2, Theorem 8 (two of them worked out to 50
# digits with mpmath). `exact_delta` below is that formula in doubles.
GOLDEN = [(1.0, 1.0, 0.12693673750664395), (1.0, 4.0, 4.7122412007931e-05)]


def gaussian(noise_multiplier: float, *, name: str = "g", count: int = 1, round: int = 0) -> Event:
    return Event(name=name, mechanism="gaussian", noise_multiplier=noise_multiplier, count=count, round=round)


def laplace(scale: float, *, name: str = "l", round: int = 0, count: int = 1) -> Event:
    return Event(name=name, mechanism="laplace", noise_multiplier=scale, round=round, count=count)


def sgd(noise: float, rate: float, count: int, *, name: str = "s", round: int = 0) -> Event:
    return Event(
        name=name, mechanism="poisson_gaussian", noise_multiplier=noise, sampling_rate=rate, count=count, round=round
    )


def exact_delta(stddev: float, epsilon: float) -> float:
    """Theorem 8 of arXiv:1805.06530v2 for sensitivity 1."""

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    half = 1 / (2 * stddev)
    return phi(half - epsilon * stddev) - math.exp(epsilon) * phi(-half - epsilon * stddev)


@pytest.mark.parametrize(("stddev", "epsilon", "delta"), GOLDEN)
def test_the_closed_form_used_here_matches_the_golden_values(stddev, epsilon, delta):
    assert exact_delta(stddev, epsilon) == pytest.approx(delta, rel=1e-9)


@pytest.mark.parametrize(("stddev", "epsilon", "delta"), GOLDEN)
def test_one_gaussian_costs_what_the_closed_form_says_and_never_less(stddev, epsilon, delta):
    assert exact_epsilon(stddev, delta) == pytest.approx(epsilon, rel=1e-9)
    assert epsilon * (1 - 1e-9) <= epsilon_of([gaussian(stddev)], delta) <= 1.001 * epsilon


def exact_epsilon(stddev: float, delta: float) -> float:
    """Where theorem 8 of arXiv:1805.06530v2 (sensitivity 1) meets `delta`, in logarithms; it has no closed inverse."""

    def excess(epsilon: float) -> float:
        first = log_ndtr(1 / (2 * stddev) - epsilon * stddev)
        second = epsilon + log_ndtr(-1 / (2 * stddev) - epsilon * stddev)
        return first + math.log(-math.expm1(second - first)) - math.log(delta)

    return brentq(excess, 0, 1 / (2 * stddev**2) + 9 / stddev, xtol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("stddev", [0.1, 0.3, 0.7, 1, 2, 5, 10, 20, 50, 100, 300])
@pytest.mark.parametrize("delta", [1e-9, 1e-7, 1e-5, 1e-3])
def test_one_gaussian_agrees_with_the_closed_form_within_a_thousandth(stddev, delta):
    truth = exact_epsilon(stddev, delta)
    assert truth * (1 - 1e-9) <= epsilon_of([gaussian(stddev)], delta) <= truth * 1.001


def test_several_gaussians_cost_what_one_with_their_joint_precision_costs():
    several = [gaussian(3.0, name="a"), gaussian(4.0, name="b", count=2), gaussian(5.0, name="c")]
    joint = (1 / 9 + 2 / 16 + 1 / 25) ** -0.5
    assert epsilon_of(several, 1e-5) == pytest.approx(epsilon_of([gaussian(joint)], 1e-5), rel=1e-12)


def test_steps_on_a_sample_that_everybody_joins_are_plain_gaussians():
    for accountant in ("pld", "rdp"):
        sampled = epsilon_of([sgd(8.0, 1.0, 20), gaussian(5.0)], 1e-5, accountant=accountant)
        assert sampled == epsilon_of([gaussian(8.0, count=20), gaussian(5.0)], 1e-5, accountant=accountant)
    assert epsilon_of([sgd(8.0, 0.9, 20), gaussian(5.0)], 1e-5) < epsilon_of([sgd(8.0, 1.0, 20), gaussian(5.0)], 1e-5)


def test_blocks_are_described_by_the_multiplier_alone():
    """The multiplier is relative to the sensitivity sqrt(blocks), so blocks change the cell's noise, not the cost."""
    plain = Event(name="h", mechanism="gaussian", noise_multiplier=5.0)
    blocked = Event(name="h", mechanism="gaussian", noise_multiplier=5.0, blocks=16)
    assert epsilon_of([plain], 1e-5) == epsilon_of([blocked], 1e-5)
    assert blocked.cell_stddev == 20.0


def test_laplace_rounds_are_exact_and_free_of_delta():
    events = [laplace(50.0), laplace(10.0, name="m", round=1, count=3)]
    assert epsilon_of(events, 1e-9) == epsilon_of(events, 1e-3) == pytest.approx(0.02 + 0.3, rel=1e-15)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_rounds_are_added_up(accountant):
    size, rest = laplace(50.0), [gaussian(6.0, round=1), sgd(2.0, 0.05, 200, round=1)]
    alone = epsilon_of(rest, 1e-5, accountant=accountant)
    assert epsilon_of([size, *rest], 1e-5, accountant=accountant) == pytest.approx(0.02 + alone, rel=1e-12)


def test_events_of_one_round_cost_less_together_than_one_by_one():
    events = [gaussian(6.0), sgd(2.0, 0.05, 200)]
    together = epsilon_of(events, 1e-5)
    assert max(epsilon_of([e], 1e-5) for e in events) < together < sum(epsilon_of([e], 1e-5) for e in events)


def test_delta_can_be_spent_in_one_round_only():
    with pytest.raises(ConfigError, match="one round only"):
        epsilon_of([gaussian(6.0), gaussian(6.0, name="h", round=1)], 1e-5)


@pytest.mark.parametrize("delta", [0.0, -1e-5, math.nan, math.inf])
def test_a_delta_that_is_no_delta_is_refused(delta):
    with pytest.raises(ConfigError, match="delta"):
        epsilon_of([gaussian(1.0)], delta)


RELEASES = [
    [gaussian(6.0)],
    [laplace(20.0), gaussian(10.0)],
    [sgd(3.0, 0.05, 400)],
    [laplace(100.0), gaussian(8.0, round=1), gaussian(12.0, name="b", round=1), sgd(2.5, 0.04, 300, round=1)],
]


@pytest.mark.parametrize("events", RELEASES, ids=len)
@pytest.mark.parametrize("delta", [1e-7, 1e-5, 1e-3])
def test_the_exact_accountant_never_exceeds_the_renyi_accountant(events, delta):
    assert epsilon_of(events, delta) <= epsilon_of(events, delta, accountant="rdp")


@settings(max_examples=15, deadline=None)
@given(noise=st.floats(1.0, 20.0), rate=st.floats(0.01, 0.5), count=st.integers(1, 300), factor=st.floats(1.1, 3.0))
def test_more_noise_fewer_steps_and_rarer_sampling_never_cost_more(noise, rate, count, factor):
    cost = epsilon_of([sgd(noise, rate, count)], 1e-5) + 1e-6
    assert epsilon_of([sgd(noise * factor, rate, count)], 1e-5) <= cost
    assert epsilon_of([sgd(noise, rate / factor, count)], 1e-5) <= cost
    assert epsilon_of([sgd(noise, rate, max(1, int(count / factor)))], 1e-5) <= cost
    assert epsilon_of([sgd(noise, rate, count)], 1e-4) <= cost


@settings(max_examples=15, deadline=None)
@given(first=st.floats(2.0, 30.0), second=st.floats(2.0, 30.0))
def test_another_event_never_makes_a_release_cheaper(first, second):
    one = epsilon_of([gaussian(first, name="a")], 1e-5)
    assert epsilon_of([gaussian(first, name="a"), gaussian(second, name="b")], 1e-5) >= one


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"count": 0},
        {"round": -1},
        {"name": ""},
        {"mechanism": "exponential"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_an_event_with_a_senseless_number_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Event(**({"name": "e", "mechanism": "poisson_gaussian", "noise_multiplier": 1.0} | wrong))


# ---- units of several rows ------------------------------------------------------------------------------------------


def test_more_rows_a_unit_are_paid_with_noise_and_not_with_epsilon():
    one = Event(name="counts", mechanism="gaussian", noise_multiplier=2.0, blocks=9)
    five = one.model_copy(update={"rows_per_unit": 5})
    assert epsilon_of([one], 1e-5) == epsilon_of([five], 1e-5)
    assert five.cell_stddev == 5 * one.cell_stddev == 30


def test_an_event_of_one_row_a_unit_is_written_as_before_there_was_a_choice():
    """Ledgers and bundles of that time must read back to the same bytes."""
    event = Event(name="counts", mechanism="gaussian", noise_multiplier=2.0)
    then = {"name", "mechanism", "noise_multiplier", "sampling_rate", "count", "blocks", "round", "purpose"}
    assert set(event.model_dump(mode="json")) == set(json.loads(event.model_dump_json())) == then
    many = event.model_copy(update={"rows_per_unit": 4})
    assert set(many.model_dump(mode="json")) == {*then, "rows_per_unit"}
    for e in (event, many):
        assert Event.model_validate_json(e.model_dump_json(), strict=True) == e


@pytest.mark.parametrize("many", [0, -1, 10_001, 1.5])
def test_a_senseless_number_of_rows_a_unit_is_refused(many):
    with pytest.raises(ValidationError, match="rows_per_unit"):
        Event(name="counts", mechanism="gaussian", noise_multiplier=2.0, rows_per_unit=many)
