"""The auditor's module: by itself, against the library, closed forms and brute force, and as a program on its own."""

import ast
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill.errors import ConfigError
from distill.privacy import accountant
from distill.privacy.events import Event, epsilon_of

SOURCE = Path(accountant.__file__)
DELTA = 1e-5


def event(mechanism: str, noise: float, *, rate: float = 1.0, count: int = 1, round: int = 0) -> dict[str, Any]:
    """An event as the ledger's JSON holds it."""
    name = f"{mechanism}.{noise}.{rate}.{count}"
    stored = Event.model_validate(
        {"name": name, "mechanism": mechanism, "noise_multiplier": noise, "sampling_rate": rate, "count": count}
        | {"round": round}
    )
    return json.loads(stored.model_dump_json())


def fit(noise: float = 6.0) -> list[dict[str, Any]]:
    """A small release with a mechanism of each kind."""
    return [
        event("laplace", 50.0),
        event("gaussian", noise, round=1),
        event("poisson_gaussian", 2.0, rate=0.05, count=200, round=1),
    ]


def library(events: list[dict[str, Any]], accountant: Any) -> Any:
    """An accountant of the library that was given all events one by one."""
    for e in events:
        plain = GaussianDpEvent(e["noise_multiplier"])
        made = {
            "laplace": LaplaceDpEvent(e["noise_multiplier"]),
            "gaussian": plain,
            "poisson_gaussian": PoissonSampledDpEvent(e["sampling_rate"], plain),
        }
        accountant.compose(made[e["mechanism"]], e["count"])
    return accountant


def test_the_module_needs_the_standard_library_and_the_accounting_library_only():
    found = set()
    for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            found.add((node.module or "").partition(".")[0])
    assert "dp_accounting" in found
    assert found - {"dp_accounting"} <= sys.stdlib_module_names


# ---- epsilon --------------------------------------------------------------------------------------------------------


def test_pld_is_the_librarys():
    joint = library(fit()[1:], PLDAccountant(value_discretization_interval=1e-4)).get_epsilon(DELTA)
    assert accountant.epsilon(fit(), DELTA) == pytest.approx(0.02 + joint, rel=1e-3)


@settings(max_examples=15, deadline=None)
@example(noise=7.0, scale=1.0, steps=(14.5, 0.5, 279), delta=1e-9)  # the best order lies between 10 and 11
@given(
    noise=st.floats(0.4, 50.0),
    scale=st.floats(0.5, 100.0),
    steps=st.tuples(st.floats(0.3, 20.0), st.floats(0.001, 0.9), st.integers(1, 1000)),
    delta=st.sampled_from([1e-9, 1e-5, 1e-3]),
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_the_search_over_renyi_orders_finds_the_best_of_all(noise, scale, steps, delta):
    """The library tries each of its 156 orders."""
    events = [
        event("gaussian", noise),
        event("laplace", scale),
        event("poisson_gaussian", steps[0], rate=steps[1], count=steps[2]),
    ]
    with accountant._quietly():
        best = library(events, RdpAccountant()).get_epsilon(delta)
    assert accountant.epsilon(events, delta, "rdp") == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("name", ["pld", "rdp"])
def test_the_package_and_the_module_say_the_same(name):
    models = [Event.model_validate(e) for e in fit()]
    assert epsilon_of(models, DELTA, accountant=name) == accountant.epsilon(fit(), DELTA, name)


def test_the_same_numbers_are_composed_once_whatever_they_are_called(monkeypatch):
    first = accountant.epsilon(fit(6.125), DELTA)
    monkeypatch.setattr(PLDAccountant, "get_epsilon", lambda *_: pytest.fail("composed again"))
    renamed = [e | {"name": "other", "purpose": "other", "blocks": 9} for e in fit(6.125)]
    assert accountant.epsilon(renamed, DELTA) == first


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 7.0},
        {"count": 100},
        {"sampling_rate": 0.04},
        {"mechanism": "gaussian"},
        {"round": 0, "mechanism": "laplace"},
    ],
    ids=str,
)
def test_every_number_that_counts_changes_the_result(change):
    events = fit()
    assert accountant.epsilon([*events[:2], events[2] | change], DELTA) != accountant.epsilon(events, DELTA)
    assert accountant.epsilon(events, 2 * DELTA) < accountant.epsilon(events, DELTA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mechanism": "exponential"},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"count": 0},
        {"count": -3},
        {"count": 1.5},
    ],
    ids=str,
)
def test_an_event_that_makes_no_sense_is_refused(wrong):
    for ask in (lambda e: accountant.epsilon(e, DELTA), lambda e: accountant.renyi(e, 2.0)):
        with pytest.raises(ValueError, match="is not a mechanism with its noise"):
            ask([event("poisson_gaussian", 2.0, rate=0.5) | wrong])


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_a_delta_outside_its_range_is_refused(delta):
    with pytest.raises(ValueError, match=r"delta must be within \(0, 1\)"):
        accountant.epsilon(fit(), delta)
    with pytest.raises(ConfigError, match="delta must be"):
        epsilon_of([Event.model_validate(e) for e in fit()], delta)


# ---- Renyi DP at one order ------------------------------------------------------------------------------------------


def renyi_divergence(log_p: np.ndarray, log_q: np.ndarray, order: float, step: float) -> float:
    """Of two densities on a grid; the trapezoid rule is exact to many digits for smooth tails."""
    return (scipy.special.logsumexp(order * log_p + (1 - order) * log_q) + math.log(step)) / (order - 1)


@pytest.mark.parametrize("order", [1.5, 2, 7.3, 32])
def test_renyi_of_a_gaussian_and_of_laplace_are_the_closed_forms(order):
    """arXiv:1702.07476, corollary 3 and proposition 6."""
    assert accountant.renyi([event("gaussian", 3.0, count=4)], order) == pytest.approx(4 * order / (2 * 9))
    inner = order / (2 * order - 1) * math.exp((order - 1) / 2) + (order - 1) / (2 * order - 1) * math.exp(-order / 2)
    assert accountant.renyi([event("laplace", 2.0)], order) == pytest.approx(math.log(inner) / (order - 1))


@pytest.mark.parametrize("order", [1.5, 2, 4, 7.3])
@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (2.0, 0.5), (0.7, 0.02)])
def test_renyi_of_a_sampled_gaussian_covers_both_directions(order, noise, rate):
    x, step = np.linspace(-100, 100, 200_001, retstep=True)
    without, joined = scipy.stats.norm.logpdf(x, 0, noise), scipy.stats.norm.logpdf(x, 1, noise)
    with_unit = np.logaddexp(math.log1p(-rate) + without, math.log(rate) + joined)
    added = renyi_divergence(with_unit, without, order, step)
    removed = renyi_divergence(without, with_unit, order, step)
    got = accountant.renyi([event("poisson_gaussian", noise, rate=rate)], order)
    assert max(added, removed) * (1 - 1e-9) <= got
    if order == 1.5:  # where the library's series does not converge, order 2 stands in
        assert got <= accountant.renyi([event("poisson_gaussian", noise, rate=rate)], 2)
    else:  # the library's series for fractional orders overstates a little
        assert got <= max(added, removed) * (1 + 1e-5)


def test_renyi_adds_up_over_events_and_rounds():
    assert accountant.renyi(fit(), 8) == pytest.approx(sum(accountant.renyi([e], 8) for e in fit()), rel=1e-12)
    later = [e | {"round": 5} for e in fit()]
    assert accountant.renyi(later, 8) == accountant.renyi(fit(), 8)
    assert accountant.renyi([], 8) == 0


def test_an_order_whose_series_fails_is_bounded_by_the_next_whole_one(capfd):
    steps = [event("poisson_gaussian", 100.0, rate=0.5)]
    with accountant._quietly():
        assert library(steps, RdpAccountant(orders=[2.5])).rdp[0] == math.inf  # the library gives up this order
    assert accountant.renyi(steps, 2.5) == accountant.renyi(steps, 3) < math.inf
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("order", [1.0, 0.5, -2.0, math.inf, math.nan])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(ValueError, match="order must be above 1"):
        accountant.renyi(fit(), order)


# ---- to epsilon and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1.25, 2, 16, 64])
def test_no_renyi_costs_no_epsilon(order):
    assert accountant.epsilon_from_renyi(order, 0.0, DELTA) == 0


@pytest.mark.parametrize(("order", "rdp", "delta"), [(2, 0.5, 1e-5), (16, 1.0, 1e-9), (1.5, 3.0, 1e-3)])
def test_the_conversion_is_proposition_12(order, rdp, delta):
    by_hand = rdp + math.log((order - 1) / order) - (math.log(delta) + math.log(order)) / (order - 1)
    assert accountant.epsilon_from_renyi(order, rdp, delta) == pytest.approx(by_hand, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(order=st.sampled_from(accountant.GRANT_ORDERS), epsilon=st.floats(0.05, 50), delta=st.floats(1e-12, 1e-5))
def test_what_fits_a_grant_is_the_largest_that_converts_to_no_more(order, epsilon, delta):
    try:
        most = accountant.renyi_within(order, epsilon, delta)
    except ValueError:
        assert accountant.epsilon_from_renyi(order, 1e-6, delta) > epsilon
    else:
        assert accountant.epsilon_from_renyi(order, most, delta) <= epsilon
        assert accountant.epsilon_from_renyi(order, most * (1 + 1e-9) + 1e-9, delta) > epsilon


def test_a_grant_that_no_release_fits_is_refused():
    with pytest.raises(ValueError, match="at Renyi order 2 nothing fits epsilon 1 at delta 1e-05"):
        accountant.renyi_within(2, 1.0, 1e-5)
    with pytest.raises(ValueError, match="nothing fits"):
        accountant.renyi_within(1.005, 1e4, 1e-5)  # the conversion is not defined so near to 1


def test_something_fits_every_grant_that_can_be_made():
    for epsilon in (0.01, 0.1, 1.0, 1000.0):
        for delta in (1e-15, 1e-9, 9e-3):
            assert accountant.renyi_within(accountant.best_order(epsilon, delta), epsilon, delta) > 0


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 2.0, 8.0, 50.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-3])
def test_the_best_order_lets_most_gaussian_releases_in(epsilon, delta):
    def admitted(order: float) -> int:
        """Releases of a millionth of a unit of precision that fit at an order."""
        one = accountant.renyi([event("gaussian", 1000.0)], order)
        try:
            return int(accountant.renyi_within(order, epsilon, delta) / one)
        except ValueError:
            return 0

    best = accountant.best_order(epsilon, delta)
    assert best in accountant.GRANT_ORDERS
    assert admitted(best) == max(map(admitted, accountant.GRANT_ORDERS)) > 0
    # No order between those of the list would let many more in.
    finer = [1 + 1.02**k / 20 for k in range(600)]
    assert admitted(best) >= 0.9 * max(map(admitted, finer))


# ---- as a program ---------------------------------------------------------------------------------------------------


def entries(stated: float, **change: Any) -> list[dict[str, Any]]:
    """What an export holds of one release."""
    first, rest = fit()[:1], fit()[1:]
    reserve = {"release": "ab", "epsilon": 5.0, "delta": DELTA, "epsilon_release": 0.02, "events": first}
    return [
        {"kind": "open", "body": {"format": 1}},
        {"kind": "grant", "body": {"epsilon": 9.0, "delta": 1e-4, "reason": "test"}},
        {"kind": "reserve", "body": reserve},
        {"kind": "plan", "body": {"release": "ab", "epsilon_release": stated, "events": rest} | change},
        {"kind": "commit", "body": {"release": "ab", "epsilon_release": stated, "bundle": "0" * 64}},
    ]


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1 + 1e-8, 0), (0.999, 1), (1.001, 1)])
def test_a_copy_without_the_package_checks_an_export(tmp_path, factor, code):
    shutil.copy(SOURCE, tmp_path)
    (tmp_path / "distill.py").write_text("raise ImportError('the copy must stand alone')\n")
    truth = accountant.epsilon(fit(), DELTA)
    (tmp_path / "export.json").write_text(json.dumps({"entries": entries(truth * factor)}))
    done = subprocess.run(
        [sys.executable, "accountant.py", "export.json"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    verdict = "agrees" if code == 0 else "DOES NOT AGREE"
    rdp = accountant.epsilon(fit(), DELTA, "rdp")
    assert done.stdout == f"ab  stated {truth * factor:.9g} of 5  PLD {truth:.9g}  RDP {rdp:.9g}  {verdict}\n"


def test_more_than_was_reserved_does_not_agree():
    dear = [event("gaussian", 0.5, round=1)]
    cost = accountant.epsilon([*fit()[:1], *dear], DELTA)
    assert cost > 5
    assert [agrees for _, agrees in accountant.check_export(entries(cost, events=dear))] == [False]


def test_accountants_that_contradict_each_other_do_not_agree(monkeypatch):
    truth = accountant.epsilon(fit(), DELTA)
    monkeypatch.setattr(accountant, "_rdp_epsilon", lambda *_: truth / 2)
    accountant._joint_epsilon.cache_clear()
    assert [agrees for _, agrees in accountant.check_export(entries(truth))] == [False]
    accountant._joint_epsilon.cache_clear()


@pytest.mark.parametrize("content", [None, "[]", "{", '{"entries": [{"kind": "open"}]}', '{"entries": 5}'])
def test_what_is_no_export_ends_with_two(tmp_path, capsys, content):
    path = tmp_path / "export.json"
    if content is not None:
        path.write_text(content)
    assert accountant.main([str(path)]) == 2
    assert "usage: accountant.py export.json" in capsys.readouterr().err
    assert accountant.main([]) == 2
