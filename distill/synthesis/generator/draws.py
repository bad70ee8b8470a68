"""Modelling randomness: what is drawn for the sake of a model and protects nobody.

It comes from numpy generators whose seed has at least 128 bits, one a stage. Reads of private rows take no generator (`cells` and
`record_gradients` hold none), so its state tells nothing about rows; noise and samples that privacy rests on come from
`mechanisms` alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def streams(rng: np.random.Generator, names: Sequence[str]) -> dict[str, np.random.Generator]:
    """A generator for each name, so that what one stage draws does not move another's draws."""
    return dict(zip(names, rng.spawn(len(names)), strict=True))


def draw_by_weight(weights: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    """`n` positions drawn with replacement, each by its weight (k,); int64, (n,)."""
    edges = np.cumsum(weights.numpy(force=True).astype(np.float64))
    chosen = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
    return torch.as_tensor(np.minimum(chosen, len(edges) - 1), device=weights.device)


def draw_normal(shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Standard normal numbers, float32."""
    return torch.as_tensor(rng.standard_normal(tuple(shape), dtype=np.float32))
