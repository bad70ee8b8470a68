"""One class head for the union of all institutions' tables.

Averaged evidence of all heads (`heads.combine_heads`) weighs each institution by one number and assumes that institutions differ
in class frequencies alone. It is corrected in two steps, each one number a class and *cell* (a category, or a sixteenth of a
number's values), fitted to what institutions say of rows drawn from their own generators.

*Within*: beside the shared numbers each institution has a constant of its own (a fixed effect, Mundlak 1978, doi:10.2307/1913646),
so that only differences between rows of one institution count: an institution speaks of a cell by as many rows as it has
there, and one with a single class hardly at all.

*Between*: without those constants. Where institutions differ in their customers (one has all with little schooling, say), what
sets those apart is a constant to each head and gone from its evidence; it shows between institutions alone, where it is also
most easily mistaken for noise. So a correction of column c must earn its keep by the penalty

    noise * sqrt(cells_c * (classes - 1)) * ||correction_c||,

a group lasso (Yuan & Lin 2006, doi:10.1111/j.1467-9868.2005.00532.x) whose threshold is about what the released counts' own
noise, all institutions together, does to the column's gradient: a column that noise alone explains stays (nearly) as it was.
Post-processing of the bundles.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from distill.common.compute import single_thread
from distill.synthesis.statistics.class_odds import log_normalise, match_prior

FIT_ROWS = 20_000  # rows that a correction is fitted to, at most
HELD_OUT = 5  # every so many rows judge it
ROUNDS = 150  # of the optimiser, at most
SPREAD = 1.0  # log-odds that the within step may well move a cell by
SMOOTH = 1e-3  # a norm below this counts as zero; keeps its gradient finite
TIE = 1e-4  # natural-log units a row: less is rounding, not disagreement

Correct = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fit_correction(
    cells: np.ndarray,
    widths: tuple[int, ...],
    together: np.ndarray,
    own: np.ndarray,
    origin: np.ndarray,
    *,
    rows: float,
    noise: float,
) -> Correct | None:
    """What all heads say together, corrected towards what institutions say of their own rows.

    Args:
        cells: Of rows in random order, as `Cells.of` gives them; the first `FIT_ROWS` are used.
        widths: Cells of each feature.
        together: Log-probabilities of all heads together, (rows, classes).
        own: Class probabilities of each row by its own institution's head, (rows, classes).
        origin: Institution of each row, from 0, (rows,).
        rows: Noisy rows of all institutions: how many the drawn ones stand for.
        noise: Stddev of the noise on a class count summed over institutions, in rows.

    Returns:
        Maps (cells, log-probabilities of all heads together) of any rows to corrected log-probabilities. None: on rows that
        were held out, the correction agrees worse with the institutions than none.
    """
    held = np.arange(len(cells[:FIT_ROWS])) % HELD_OUT == 0
    judged, fitted = ([a[:FIT_ROWS][which] for a in (cells, together, own, origin)] for which in (held, ~held))
    with single_thread():
        weight, bias = _optimise(fitted, widths, rows=rows, noise=noise)

    def correct(places: np.ndarray, logs: np.ndarray) -> np.ndarray:
        return log_normalise(logs + weight[places].sum(axis=1) + bias)

    before, after = _cross_entropy(judged[1], judged[2]), _cross_entropy(correct(judged[0], judged[1]), judged[2])
    return correct if after < before + TIE else None


def _optimise(
    fitted: list[np.ndarray], widths: tuple[int, ...], *, rows: float, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Both steps: weight (all cells, classes) and bias (classes,)."""
    cells, base, aims, origin, matched = (torch.from_numpy(a) for a in (*fitted, _matched(*fitted[1:])))
    base, aims, matched = base.float(), aims.float(), matched.float()
    scales = [noise / rows * (width * max(base.shape[1] - 1, 1)) ** 0.5 for width in widths]

    def ridge(weight: Tensor) -> Tensor:
        return weight.square().sum() / (2 * SPREAD**2 * rows)

    def lasso(weight: Tensor) -> Tensor:
        norms = [(part.square().sum() + SMOOTH**2).sqrt() for part in weight.split(widths)]
        return torch.stack([scale * norm for scale, norm in zip(scales, norms, strict=True)]).sum()

    within, _ = _least(cells, matched, aims, origin, sum(widths), ridge)
    base = base + torch.nn.functional.embedding_bag(cells, within, mode="sum")
    between, bias = _least(cells, base, aims, torch.zeros_like(origin), sum(widths), lasso)
    return (within + between).double().numpy(), bias[0].double().numpy()


def _matched(together: np.ndarray, own: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """What all heads say together, at each institution's own class frequencies: where the within step starts from."""
    out = together.copy()
    for institution in np.unique(origin):
        its = origin == institution
        out[its] = match_prior(together[its], own[its].mean(axis=0))
    return out


def _least(
    cells: Tensor, base: Tensor, aims: Tensor, origin: Tensor, width: int, penalty: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Weight (width, classes) and a constant for each origin (origins, classes) of the least penalised cross-entropy."""
    weight = torch.zeros(width, base.shape[1], requires_grad=True)
    bias = torch.zeros(int(origin.max()) + 1, base.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        scores = base + torch.nn.functional.embedding_bag(cells, weight, mode="sum") + bias[origin]
        total = penalty(weight) - (aims * scores.log_softmax(1)).sum(1).mean()
        total.backward()
        return total

    optimiser.step(loss)
    return weight.detach(), bias.detach()


def _cross_entropy(logs: np.ndarray, aims: np.ndarray) -> float:
    """Mean over rows, in natural-log units."""
    return float(-(aims * log_normalise(logs)).sum(axis=1).mean())
