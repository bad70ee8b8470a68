"""Where an accountant may be a little wrong: small deltas, whole numbers in place of real ones, noise of few steps.

The laws of rounded noise are written out and their divergences added up term by term, so nothing here trusts an accountant.
"""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

from distill.privacy.accountant import LEAST_DELTA, epsilon, renyi
from distill.privacy.noise import FINE_BITS, MIN_COUNT_STDDEV

REACH = np.arange(-400, 401)


def gaussian_delta(stddev: float, eps: float) -> float:
    """Of the continuous Gaussian at sensitivity 1: arXiv:1805.06530, theorem 8."""
    tail = math.exp(eps + norm.logcdf(-1 / (2 * stddev) - eps * stddev))
    return float(norm.cdf(1 / (2 * stddev) - eps * stddev) - tail)


def divergence(law: np.ndarray, eps: float) -> float:
    """Hockey-stick divergence of a law on whole numbers from itself moved by one: the delta at `eps`."""
    return float(np.maximum(law[1:] - math.exp(eps) * law[:-1], 0).sum())


def on_whole_numbers(stddev: float) -> np.ndarray:
    """The discrete Gaussian, arXiv:2004.00010."""
    weights = np.exp(-np.square(REACH / stddev) / 2)
    return np.asarray(weights / weights.sum())


def rounded(stddev: float) -> np.ndarray:
    """The continuous Gaussian rounded to whole numbers; both tails by the smaller side, for their digits."""
    inner = np.minimum(np.abs(REACH + 0.5), np.abs(REACH - 0.5)) / stddev
    outer = np.maximum(np.abs(REACH + 0.5), np.abs(REACH - 0.5)) / stddev
    tails = np.exp(log_ndtr(-inner)) - np.exp(log_ndtr(-outer))
    return np.where(REACH == 0, norm.cdf(0.5 / stddev) - norm.cdf(-0.5 / stddev), tails)


@pytest.mark.parametrize("stddev", [MIN_COUNT_STDDEV, 2.5, 4.0, 9.0])
def test_rounded_noise_costs_no_more_than_it_is_charged(stddev: float):
    """At every epsilon at which delta is between 1e-10 and 1e-2."""
    for eps in np.linspace(0.05, 6, 60):
        charged = gaussian_delta(stddev, eps)
        if 1e-10 < charged < 1e-2:
            assert divergence(rounded(stddev), eps) <= charged * (1 + 1e-9)


def test_noise_on_whole_numbers_themselves_would_cost_more():
    """What the finer lattice is for: a ledger would have charged too little, by a tenth of delta and more at a stddev of 2."""
    worst = max(
        divergence(on_whole_numbers(2.0), eps) / gaussian_delta(2.0, eps)
        for eps in np.linspace(0.5, 3, 400)
        if gaussian_delta(2.0, eps) > 1e-6
    )
    assert 1.1 < worst < 2


def test_a_finer_lattice_costs_what_the_continuous_gaussian_costs():
    """The excess falls by four with each bit; at FINE_BITS nothing of it is left in float64."""
    excess = []
    for bits in (2, 3, 4, 5):
        fine, step = 2.0 * 2**bits, 2**bits
        support = np.arange(-40 * step, 40 * step + 1)
        weights = np.exp(-np.square(support / fine) / 2)
        law = weights / weights.sum()
        ratios = [
            np.maximum(law[step:] - math.exp(eps) * law[:-step], 0).sum() / gaussian_delta(2.0, eps) - 1
            for eps in np.linspace(0.5, 2.5, 200)
        ]
        excess.append(max(ratios))
    falls = [a / b for a, b in itertools.pairwise(excess)]
    assert all(3 < fall < 5 for fall in falls)
    assert excess[-1] * 4.0 ** (5 - FINE_BITS) < 1e-12


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0, 50.0])
def test_rounded_laplace_noise_has_no_more_renyi_divergence_than_it_is_charged(scale: float):
    """Noise on whole numbers themselves has more: the ledger's Renyi filter would have charged too little."""
    reach = np.arange(-round(60 * scale) - 2, round(60 * scale) + 3)
    inner, outer = (np.exp(-(np.abs(reach) + side) / scale) / 2 for side in (-0.5, 0.5))
    law = np.where(reach == 0, 1 - math.exp(-0.5 / scale), inner - outer)
    whole = np.exp(-np.abs(reach) / scale) * math.tanh(0.5 / scale)
    event = {"mechanism": "laplace", "noise_multiplier": scale, "sampling_rate": 1.0, "count": 1, "round": 0}
    for order in (1.25, 2.0, 4.0, 16.0):
        charged = renyi([event], order)
        found, on_whole = (
            math.log((p[:-1] * np.exp(order * np.log(p[1:] / p[:-1]))).sum()) / (order - 1) for p in (law, whole)
        )
        assert found <= charged * (1 + 1e-6)
        assert on_whole > found


@pytest.mark.parametrize("delta", [LEAST_DELTA, 1e-9, 1e-6])
def test_epsilon_is_never_below_the_closed_form_down_to_the_least_delta(delta: float):
    for stddev in (0.3, 0.7, 2.0, 8.0, 40.0):
        exact = brentq(lambda e, s=stddev: gaussian_delta(s, e) - delta, 0.0, 200.0, xtol=1e-13)
        for count in (1, 7, 300):
            multiplier = stddev * count**0.5
            event = {"mechanism": "gaussian", "noise_multiplier": multiplier, "sampling_rate": 1.0, "round": 1}
            assert epsilon([event | {"count": count}], delta) >= exact * (1 - 1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_epsilon_of_samples_is_steady_down_to_the_least_delta(rate: float):
    """Finer grids of the privacy loss change it by what the grid explains, not by what a Fourier transform rounds away."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    found = []
    for interval in (1e-3, 2e-4):
        accountant = PLDAccountant(value_discretization_interval=interval)
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(1.0)), 300)
        found.append([accountant.get_epsilon(delta) for delta in (1e-6, 1e-8, LEAST_DELTA)])
    coarse, fine = np.array(found)
    assert (np.diff(fine) > 0).all()
    assert (coarse >= fine * (1 - 1e-4)).all()
    assert (coarse - fine < 1e-3 * 300**0.5).all()
