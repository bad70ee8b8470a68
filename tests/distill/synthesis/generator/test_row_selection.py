"""Herding: distinct rows, whose pair shares are nearer to the target than those of rows taken as they come."""

import numpy as np
import pytest
import torch

from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.generator.row_selection import choose_rows

WIDTHS = (3, 4, 5)
STARTS = torch.tensor([0, 3, 7])
LAYOUT = Layout(WIDTHS, 2)


def pool_of(rows: int, seed: int) -> torch.Tensor:
    """Independent random codes."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.integers(0, w, rows) for w in WIDTHS], axis=1))


def shares_of(codes: torch.Tensor) -> torch.Tensor:
    """Share of rows with each two values, counted one by one."""
    shares = torch.zeros(sum(WIDTHS), sum(WIDTHS))
    for row in (codes + STARTS).tolist():
        for a in row:
            for b in row:
                shares[a, b] += 1 / len(codes)
    return shares


def test_herded_rows_are_nearer_to_the_target_than_the_first_ones(seed):
    target = shares_of(pool_of(40_000, seed + 1000))
    pool = pool_of(4000, seed)
    chosen = choose_rows(pool, LAYOUT, target, 2000)
    assert len(set(chosen.tolist())) == 2000

    def gap(codes: torch.Tensor) -> float:
        return float((shares_of(codes) - target).abs().mean())

    assert gap(pool[chosen]) < 0.5 * gap(pool[:2000])


def test_a_target_unlike_the_pool_pulls_the_choice(seed):
    pool = pool_of(4000, seed)
    wanted = pool[(pool[:, 0] == 0) & (pool[:, 1] < 2)]
    chosen = pool[choose_rows(pool, LAYOUT, shares_of(wanted), 1000)]
    alike = ((chosen[:, 0] == 0) & (chosen[:, 1] < 2)).float().mean()
    assert alike > 2 * ((pool[:, 0] == 0) & (pool[:, 1] < 2)).float().mean()


@pytest.mark.parametrize(("pool", "wanted"), [(1, 1), (64, 64), (65, 64), (1000, 999), (130, 1)])
def test_as_many_rows_as_wanted_also_where_the_pool_is_hardly_larger(pool, wanted):
    codes = pool_of(pool, 0)
    chosen = choose_rows(codes, LAYOUT, shares_of(codes), wanted)
    assert len(set(chosen.tolist())) == wanted
