"""Fewer soft records that say nearly the same: how a bundle becomes small without another look at the table.

A mixture of 1000 soft records is thinned to a few hundred representatives, which then settle on the shares and pair shares
of the whole mixture. Post-processing of a released generator: costs no budget.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from distill.common.compute import single_thread
from distill.synthesis.generator.generator import Generator

SETTLE_STEPS = 300
LEARNING_RATE = 0.03


def thin(generator: Generator, records: int, rng: np.random.Generator) -> Generator:
    """A generator of at most `records` soft records of equal weight, without a critic.

    Args:
        generator: The whole mixture, of K records.
        records: Wanted number, at least 1.
        rng: Start of the systematic choice of records by weight.

    Returns:
        A new generator; where it has no more than `records` anyway, only the critic is left out.
    """
    bare = replace(generator, critic=None)
    if len(generator.weights) <= records:
        return bare
    with single_thread():
        logits = _settled(generator, records, rng)
    return replace(bare, logits=logits, weights=np.full(records, 1.0 / records))


def _settled(generator: Generator, records: int, rng: np.random.Generator) -> np.ndarray:
    """Logits of the representatives, (records, feature_width)."""
    layout = generator.layout
    points = (np.arange(records) + rng.random()) / records
    chosen = np.searchsorted(np.cumsum(generator.weights), points).clip(max=len(generator.weights) - 1)
    logits = torch.from_numpy(generator.logits[chosen].astype(np.float32)).requires_grad_()
    whole = layout.softmax(torch.from_numpy(generator.logits.astype(np.float32)))
    together, mask = (
        _pair_shares(whole, torch.from_numpy(generator.weights.astype(np.float32))),
        _between(layout.features),
    )
    weights = torch.full((records,), 1.0 / records)
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE, betas=(0.9, 0.99))
    for _ in range(SETTLE_STEPS):
        optimizer.zero_grad()
        ((_pair_shares(layout.softmax(logits), weights) - together).square() * mask).sum().mul(1e6).backward()
        optimizer.step()
    return np.asarray(logits.detach().numpy())


def _pair_shares(probabilities: Tensor, weights: Tensor) -> Tensor:
    """Share of rows in each pair of bins, (width, width)."""
    return probabilities.T @ (probabilities * weights.unsqueeze(1))


def _between(widths: tuple[int, ...]) -> Tensor:
    """1 for bins of two different columns (these blocks hold the one-way shares as their margins), else 0."""
    column = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
    if len(widths) == 1:  # a single column: its own shares stand on the diagonal of its block
        return torch.ones(widths[0], widths[0])
    return (column.unsqueeze(0) != column.unsqueeze(1)).float()
