"""The whole accounting of a release, from its stored events alone: read this file to know what every epsilon means.

It needs only the standard library and `dp_accounting`, and works when copied out of the package. As a program it
recomputes what `distill ledger export` wrote, and exits with 1 if a release does not cost what is stated:

    python accountant.py export.json

An event is a dict as the ledger stores it; what counts of it is `mechanism` (`laplace`, `gaussian` or `poisson_gaussian`),
`noise_multiplier` (noise over sensitivity), `sampling_rate`, `count` and `round`. Neighbours: add or remove one unit.
"""

import functools
import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

COARSE, FINE = 1e-3, 1e-4  # discretisation of the privacy loss; pessimistic, so a coarser grid only overstates epsilon
FINE_BELOW = 0.5  # epsilon under which the coarse grid would waste several percent
WHOLE_ORDERS = (*range(2, 64), 128, 256, 512, 1024)  # Renyi orders that are tried, and tenths below 11
GRANT_ORDERS = (1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096)
LEAST_DELTA = (
    1e-10  # below, rounding in the Fourier transforms of PLD is as large as delta, and epsilon comes out too small
)
AGREES = 1e-6  # relative: a recomputed epsilon may differ so much between machines

Accountant = Literal["pld", "rdp"]
Read = tuple[str, float, float, int]  # mechanism, noise multiplier, sampling rate, count


def epsilon(events: Iterable[Mapping[str, Any]], delta: float, accountant: Accountant = "pld") -> float:
    """Total epsilon of a release at `delta`: the joint epsilon of each round, added over rounds.

    A later round's parameters may follow an earlier round's answers, so rounds add up (basic composition, Dwork & Roth 2014,
    theorem 3.16); within a round they were fixed beforehand and compose jointly (privacy loss distributions, arXiv:2106.08567;
    or Renyi DP, arXiv:1702.07476). Delta is spent in the one round that holds Gaussian events; PLD
    is then asked at 1e-10 or more.    Raises ValueError.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be within (0, 1), not {delta!r}.")
    rounds: dict[int, list[Read]] = {}
    for event in events:
        rounds.setdefault(int(event["round"]), []).append(_read(event))
    noisy = [number for number, reads in rounds.items() if any(r[0] != "laplace" for r in reads)]
    if len(noisy) > 1:
        raise ValueError(f"rounds {noisy} all hold Gaussian events; delta can be spent in one round only.")
    if noisy and accountant == "pld" and delta < LEAST_DELTA:
        raise ValueError(
            f"epsilon of Gaussian events cannot be computed reliably at delta {delta:g}, below {LEAST_DELTA:g}."
        )
    return sum(_joint_epsilon(tuple(reads), delta, accountant) for _, reads in sorted(rounds.items()))


def renyi(events: Iterable[Mapping[str, Any]], order: float) -> float:
    """Renyi DP of all events together at a fixed `order` above 1; rounds add up, however a later one was chosen.

    That Renyi DP at one fixed order adds up even then: arXiv:2008.11193. Where the series for a fractional order does not
    converge, the next whole order stands in (Renyi DP grows with the order).
    """
    if not (1 < order < math.inf):
        raise ValueError(f"a Renyi order must be above 1, not {order!r}.")
    return min(_renyi(tuple(map(_read, events)), float(order), float(math.ceil(order))))


def epsilon_from_renyi(order: float, rdp: float, delta: float) -> float:
    """Epsilon at `delta` of what is `rdp`-Renyi-DP at `order`; 0 for an `rdp` of 0. Source: arXiv:2004.00010, proposition 12."""
    from dp_accounting.rdp import compute_epsilon

    return float(compute_epsilon([order], [rdp], delta)[0])


def renyi_within(order: float, epsilon: float, delta: float) -> float:
    """The largest Renyi DP at `order` that is worth at most (`epsilon`, `delta`). Raises ValueError if none is."""
    most = _convert(order, epsilon, delta) * (1 - 1e-12)  # rounding must not let more through
    if not (most > 0 and epsilon_from_renyi(order, most, delta) <= epsilon):
        raise ValueError(f"at Renyi order {order:g} nothing fits epsilon {epsilon:g} at delta {delta:g}.")
    return most


def _convert(order: float, epsilon: float, delta: float) -> float:
    """Proposition 12 solved for the Renyi DP; negative where even none would not fit."""
    return epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)


def best_order(epsilon: float, delta: float) -> float:
    """The order at which most plain Gaussian releases fit (each costs Renyi DP in proportion to the order).

    Something fits at it whenever epsilon is at least 0.01 and delta at least 1e-15.
    """
    return float(max(GRANT_ORDERS, key=lambda order: _convert(order, epsilon, delta) / order))


def contradict(events: Iterable[Mapping[str, Any]], pld: float, rdp: float) -> bool:
    """Whether the two accountants contradict each other: RDP is below PLD by more than the grid of PLD explains.

    Rounding a privacy loss to the grid adds at most interval**2 / 4 of variance a step; six deviations of that are allowed.
    """
    steps = sum(event["count"] for event in events if event["mechanism"] != "laplace")
    return not rdp >= pld * 0.999 - 3 * COARSE * math.sqrt(steps) - 1e-6


def _read(event: Mapping[str, Any]) -> Read:
    """The numbers of an event that count. Raises ValueError if they make no sense."""
    read = (event["mechanism"], float(event["noise_multiplier"]), float(event["sampling_rate"]), int(event["count"]))
    known = read[0] in ("laplace", "gaussian", "poisson_gaussian")
    if not (known and 0 < read[1] < math.inf and 0 < read[2] <= 1 and read[3] >= 1 and read[3] == event["count"]):
        raise ValueError(f"{read} is not a mechanism with its noise, sampling rate and count.")
    return read


@functools.lru_cache(maxsize=1 << 16)
def _joint_epsilon(reads: tuple[Read, ...], delta: float, accountant: Accountant) -> float:
    """Epsilon of reads composed together; exact and free of delta where all are Laplace."""
    if all(mechanism == "laplace" for mechanism, *_ in reads):
        return sum(count / multiplier for _, multiplier, _, count in reads)
    if accountant == "rdp":
        return _rdp_epsilon(reads, delta)
    small = _joint_epsilon(reads, delta, "rdp") < FINE_BELOW  # quick, and never below what the fine grid gives
    coarse = 0.0 if small else float(_pld(reads, COARSE).get_epsilon(delta))
    return coarse if coarse >= FINE_BELOW else float(_pld(reads, FINE).get_epsilon(delta))


@functools.lru_cache(maxsize=8)  # one composition serves every delta of a curve
def _pld(reads: tuple[Read, ...], interval: float) -> Any:
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=interval)
    for event, count in _merged(reads):
        accountant.compose(event, count)
    return accountant


def _rdp_epsilon(reads: tuple[Read, ...], delta: float) -> float:
    """The least epsilon over the orders. Any order gives a valid one, so a search that missed the best would overstate.

    It does not miss: (order - 1) times the epsilon of proposition 12 is convex in the order, so epsilon falls, then rises.
    """

    def at(order: float, *more: float) -> float:
        rdp = _renyi(reads, order, *more)
        return min(epsilon_from_renyi(o, r, delta) for o, r in zip((order, *more), rdp, strict=True))

    low, high = 0, len(WHOLE_ORDERS) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if at(WHOLE_ORDERS[middle]) <= at(WHOLE_ORDERS[middle + 1]) else (middle + 1, high)
    best = WHOLE_ORDERS[low]
    return at(best, *(order for order in (best + tenth / 10 for tenth in range(-9, 10)) if order < 11))


@functools.lru_cache(maxsize=1 << 16)
def _renyi(reads: tuple[Read, ...], *orders: float) -> tuple[float, ...]:
    """Renyi DP at each order, add or remove one unit; infinite where the library's series does not converge."""
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders=orders)
    with _quietly():
        for event, count in _merged(reads):
            accountant.compose(event, count)
    return tuple(map(float, accountant.rdp))


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the library from telling the terminal of each order whose series it gives up."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _merged(reads: Iterable[Read]) -> list[tuple[Any, int]]:
    """The library's events; all plain Gaussians become one, which composes to exactly the same loss.

    A sample that every unit joins for certain is no sample: such steps are plain Gaussians too.
    Gaussians with multipliers s_i compose to one with s = (sum 1/s_i**2)**-0.5: arXiv:1905.02383, corollary 3.3.
    """
    from dp_accounting import GaussianDpEvent, LaplaceDpEvent, PoissonSampledDpEvent

    merged: list[tuple[Any, int]] = []
    precision = 0.0
    for mechanism, multiplier, rate, count in reads:
        if mechanism == "laplace":
            merged.append((LaplaceDpEvent(multiplier), count))
        elif mechanism == "gaussian" or rate == 1:
            precision += count / multiplier**2
        else:
            merged.append((PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier)), count))
    return [*merged, (GaussianDpEvent(precision**-0.5), 1)] if precision else merged


def check_export(entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """One line a release, and whether it costs what its newest entry states."""
    releases: dict[str, dict[str, Any]] = {}
    for body in (entry["body"] for entry in entries):
        if "release" in body:
            books = releases.setdefault(body["release"], {"events": []})
            books["events"] += body.get("events", [])
            books |= {key: body[key] for key in ("epsilon", "delta", "epsilon_release") if key in body}
    for release, books in releases.items():
        stated, reserved = books["epsilon_release"], books["epsilon"]
        pld, rdp = (epsilon(books["events"], books["delta"], accountant) for accountant in ("pld", "rdp"))
        agrees = abs(pld - stated) <= AGREES * stated and stated <= reserved * (1 + AGREES)
        agrees = agrees and not contradict(books["events"], pld, rdp)
        verdict = "agrees" if agrees else "DOES NOT AGREE"
        yield f"{release}  stated {stated:.9g} of {reserved:g}  PLD {pld:.9g}  RDP {rdp:.9g}  {verdict}", agrees


def main(arguments: Sequence[str]) -> int:
    """Check an export and print one line a release; 0 if all agree, 1 if one does not, 2 if there is nothing to read."""
    try:
        with open(arguments[0], encoding="utf-8") as file:
            checked = list(check_export(json.load(file)["entries"]))
    except (IndexError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"usage: accountant.py export.json  ({type(error).__name__}: {error})", file=sys.stderr)
        return 2
    for line, _ in checked:
        print(line)
    return 0 if all(agrees for _, agrees in checked) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
