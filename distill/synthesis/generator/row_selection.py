"""Choosing rows whose pair counts lie nearer to a target than those of rows drawn by chance.

Rows drawn one by one from a perfect model still miss its two-way shares by sampling noise (on 12,000 rows of 31 columns about
as much as the privacy noise at epsilon 2). Out of a larger pool, rows are taken in small batches, each time those that fill
what is still missing most.
Source: the idea of herding, Welling 2009, doi:10.1145/1553374.1553517, on the moments of pairs of one-hot values.
"""

import numpy as np
import torch
from torch import Tensor

from distill.synthesis.generator.one_hot import Layout

BATCHES = 500  # about so many a call; a batch has at least LEAST_BATCH rows
LEAST_BATCH = 64


def choose_rows(codes: Tensor, layout: Layout, target: Tensor, n: int) -> np.ndarray:
    """Indices of `n` rows whose shares of value pairs come close to `target`.

    Args:
        codes: The pool in random order, (m, columns) codes, m >= n.
        layout: Where the columns of `codes`, its first ones, sit in a one-hot row.
        target: Wanted shares of rows with both of two values, symmetric, (width, width); one-way shares on the diagonal.
        n: Rows wanted, at least 1.

    Returns:
        Distinct indices into the pool, (n,), in the order they were taken.
    """
    batch = max(LEAST_BATCH, -(-n // BATCHES))
    missing = torch.zeros_like(target)
    chosen: list[Tensor] = []
    offered = 0
    for taken in range(0, n, batch):
        now = min(batch, n - taken)
        until = round((taken + now) * len(codes) / n)
        rows = layout.one_hot(codes[offered:until])
        missing += target * now
        best = ((rows @ missing) * rows).sum(1).topk(now).indices
        missing -= rows[best].T @ rows[best]
        chosen.append(best + offered)
        offered = until
    return torch.cat(chosen).numpy()
