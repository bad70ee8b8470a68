"""The global term of a fit: what the hub's joint model of all institutions says, in this institution's own bins.

Another institution's rows may follow other laws. So the hub's word is never taken as it is: an own noisy statistic is moved
towards it by no more than the statistic's own noise explains (James & Stein 1961), once the hub's table has this institution's
own margins. Where institutions are alike most of the noise goes; where one is unlike the others its own counts stand.

That is the precision-weighted mean of the two, with the distance that noise does not explain as the hub's variance, or, seen
from the candidates that are fitted to it, a penalty on the distance to the hub's statistics whose strength (lambda_g) is
measured, table by table, and not tuned. Everything here is post-processing: no private row is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from distill.bins import ColumnBins
from distill.class_chances import match_prior
from distill.generator import Generator, encode_rows
from distill.layout import Layout

ROWS = 50_000  # drawn from the joint model: their sampling noise is far below the noise of a release
MARGIN_ROUNDS = 30
SMOOTHING = 0.01  # portion of independence mixed in, so that no cell is impossible
HEAD_STEPS = 60
HEAD_PENALTY = 1e-5  # on squared log-odds, for values that no drawn row has


@dataclass(frozen=True)
class GlobalTerm:
    """Rows of the joint model in an institution's own coarse bins.

    Attributes:
        layout: One-hot layout of the institution's bins.
        codes: (rows, features).
        chances: Chance of each class for each row, (rows, classes), by the joint model's class head.
    """

    layout: Layout
    codes: np.ndarray
    chances: np.ndarray

    def class_shares(self, feature: int) -> np.ndarray:
        """Share of the joint model's rows in each class and bin of a feature, (classes, bins)."""
        width = self.layout.features[feature]
        return np.stack([np.bincount(self.codes[:, feature], c, width) for c in self.chances.T]) / len(self.codes)

    def pair_shares(self, first: int, second: int) -> np.ndarray:
        """Share of the joint model's rows in each two bins, (bins of first, bins of second)."""
        shape = (self.layout.features[first], self.layout.features[second])
        joint = self.codes[:, first] * shape[1] + self.codes[:, second]
        return np.bincount(joint, minlength=shape[0] * shape[1]).reshape(shape) / len(self.codes)

    def head(self, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The joint model's class head on own one-hot features, at class frequencies `prior`; weight and bias.

        A softmax regression of the head's chances on the own bins, so it is as good as own bins allow.
        """
        rows = self.layout.one_hot(torch.from_numpy(self.codes))
        chances = torch.from_numpy(self.chances.astype(np.float32))
        weight = torch.zeros(self.layout.classes, self.layout.feature_width, requires_grad=True)
        bias = torch.zeros(self.layout.classes, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=HEAD_STEPS, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(rows @ weight.T + bias, chances)
            value = value + HEAD_PENALTY * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        shift = np.log(np.maximum(prior, 1e-6)) - np.log(np.maximum(self.chances.mean(axis=0), 1e-6))
        return weight.detach().numpy(), bias.detach().numpy() + shift.astype(np.float32)


def global_term(prior: Generator, bins: Sequence[ColumnBins], rng: np.random.Generator, rows: int = ROWS) -> GlobalTerm:
    """Draw from the hub's joint model and look at the rows through an institution's bins (one a column, in table order)."""
    frame = prior.draw(rows, rng)
    features = [b for b in bins if b.grid.column.name != prior.schema.target]
    codes = encode_rows(frame, features)
    if prior.schema.task == "classes":
        chances = np.exp(match_prior(prior.class_log_probabilities(frame), prior.class_prior))
    elif prior.schema.task == "number":
        assert prior.schema.target_place is not None
        target = bins[prior.schema.target_place]
        chances = np.eye(target.n_bins)[encode_rows(frame, [target])[:, 0]]
    else:
        chances = np.ones((rows, 1))
    return GlobalTerm(Layout(tuple(b.n_bins for b in features), chances.shape[1]), codes, chances)


def with_margins(table: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """`table`, (m, k), scaled to the sums `down` (m,) of its rows and `across` (k,) of its columns; odds ratios stay.

    Source: iterative proportional fitting, Deming & Stephan 1940, doi:10.1214/aoms/1177731829.
    """
    total = down.sum()
    table = (1 - SMOOTHING) * table / table.sum() + SMOOTHING * np.outer(down, across) / (total * across.sum())
    for _ in range(MARGIN_ROUNDS):
        table = table * (across / total / np.maximum(table.sum(axis=0), 1e-12))
        table = table * (down / total / np.maximum(table.sum(axis=1), 1e-12))[:, None]
    return np.asarray(table * total)


def nearer(table: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whichever of two guesses is nearer to a noisy table."""
    return one if np.square(table - one).sum() <= np.square(table - other).sum() else other
