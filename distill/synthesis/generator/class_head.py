"""A linear class head from rows that carry chances of classes instead of classes: softmax regression, without a penalty to tune."""

import numpy as np
import torch

from distill.synthesis.generator.one_hot import Layout

STEPS = 60  # of LBFGS
MOST_CELLS = 100_000_000  # of the one-hot rows, 400 MB: wide tables are fitted to fewer rows
PENALTY = 1e-5  # on squared log-odds: for values that no row has


def fit_head(layout: Layout, codes: np.ndarray, chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head that says of rows, as nearly as a linear one can, what `chances` say.

    Args:
        layout: One-hot layout of the features.
        codes: Feature codes, (rows, features), int64.
        chances: Chance of each class for each row, (rows, classes).

    The first rows are taken, as many as fit into memory.

    Returns:
        Weight (classes, feature_width) and bias (classes,) for unscaled one-hot features, float32.
    """
    taken = slice(max(1, MOST_CELLS // layout.feature_width))
    rows = layout.one_hot(torch.from_numpy(codes[taken]))
    wanted = torch.from_numpy(chances[taken].astype(np.float32))
    weight = torch.zeros(chances.shape[1], layout.feature_width, device="cpu", requires_grad=True)
    bias = torch.zeros(chances.shape[1], device="cpu", requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        misfit = torch.nn.functional.cross_entropy(rows @ weight.T + bias, wanted)
        value = misfit + PENALTY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach().numpy(), bias.detach().numpy()
