"""What MST and AIM share on top of the `mbi` package: budgets in zCDP, noise, and mirror descent on one thread.

`mbi` holds the graphical-model inference of both mechanisms (Domain, LinearMeasurement, MirrorDescent, sampling), but not
the mechanisms: these choose what is measured, and are written in `mst.py` and `aim.py` after their papers.
"""

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

INSTALL = "'mbi>=2,<3'"
Clique = tuple[str, ...]


def library() -> Any:
    """The `mbi` package in float64, on one thread where OMP_NUM_THREADS says so."""
    if os.environ.get("OMP_NUM_THREADS") == "1":
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mbi
    return mbi


def zcdp_of(epsilon: float, delta: float) -> float:
    """Largest rho for which rho-zCDP implies (epsilon, delta)-DP.

    Source: Canonne, Kamath & Steinke, arXiv:2004.00010, proposition 12 and corollary 13, minimised over the order.
    """
    low, high = 0.0, epsilon + 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta_of(middle, epsilon) <= delta else (low, middle)
    return low


def _delta_of(rho: float, epsilon: float) -> float:
    """Smallest delta such that rho-zCDP implies (epsilon, delta)-DP; 1 where nothing better is known."""
    if rho == 0:
        return 0.0
    orders = 1 + np.geomspace(1e-3, max(10.0, 4 * epsilon / rho), 4000)
    logs = (orders - 1) * (orders * rho - epsilon) + orders * np.log1p(-1 / orders) - np.log(orders - 1)
    return min(1.0, math.exp(min(0.0, float(logs.min()))))


def exponential(scores: "np.ndarray[Any, Any]", *, epsilon: float, sensitivity: float) -> int:
    """Index drawn by the exponential mechanism: probability proportional to exp(epsilon * score / (2 * sensitivity))."""
    logits = 0.5 * epsilon / sensitivity * np.asarray(scores, dtype=np.float64)
    weights = np.exp(logits - logits.max())
    return int(np.random.choice(len(weights), p=weights / weights.sum()))  # noqa: NPY002 - seeded by the runner


def counts(cells: dict[str, "np.ndarray[Any, Any]"], sizes: dict[str, int], clique: Clique) -> "np.ndarray[Any, Any]":
    """Contingency table of a set of columns, flat."""
    shape = [sizes[name] for name in clique]
    joint = np.ravel_multi_index([cells[name] for name in clique], shape)
    return np.bincount(joint, minlength=math.prod(shape)).astype(np.float64)


def noisy(values: "np.ndarray[Any, Any]", stddev: float) -> "np.ndarray[Any, Any]":
    """Counts plus Gaussian noise (L2 sensitivity 1: a row is in one cell; add or remove one row)."""
    return values + np.random.normal(0.0, stddev, values.shape)  # noqa: NPY002 - seeded by the runner


def fitted(
    mbi: Any,
    domain: Any,
    measurements: Sequence[Any],
    iterations: int,
    warm_start: Any = None,
    tol: float | None = None,
) -> Any:
    """The graphical model nearest to the measurements, by mirror descent; its total comes from the measurements too.

    With `tol`, the steps end early once 50 of them gain less than this share of the loss, twice running.
    """
    estimator = mbi.estimation.MirrorDescent()
    return estimator.estimate(domain, list(measurements), iters=iterations, warm_start=warm_start, tol=tol)
