"""Modelling randomness: laws of its draws, and generators that do not touch each other."""

import numpy as np
import pytest
import scipy.stats
import torch

from distill.common.compute import used
from distill.synthesis.generator.draws import draw_by_weight, draw_normal, streams
from tests.fakes.private_tables import FALSE_ALARM


def test_positions_are_drawn_by_their_weight(seed):
    """Chi-square; weights need not add up to one, and what weighs nothing is never drawn."""
    weights = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.0, 4.0, 0.0])
    drawn = draw_by_weight(weights, 100_000, np.random.default_rng(seed))
    assert (drawn.shape, drawn.dtype) == ((100_000,), torch.int64)
    counts = np.bincount(drawn.numpy(), minlength=7)
    assert counts[weights.numpy() == 0].sum() == 0
    held = weights.numpy() > 0
    expected = weights.double().numpy()[held] / 7.5 * 100_000
    assert scipy.stats.chisquare(counts[held], expected).pvalue > FALSE_ALARM


@pytest.mark.parametrize("weights", [[3.0], [1e-30, 1e-30], [0.0, 1e30]])
def test_any_weights_give_positions_among_them(weights):
    drawn = draw_by_weight(torch.tensor(weights), 1000, np.random.default_rng(0))
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < len(weights)
    assert draw_by_weight(torch.tensor(weights), 0, np.random.default_rng(0)).shape == (0,)


def test_normal_numbers_are_normal_in_single_precision(seed):
    drawn = draw_normal((300, 200), np.random.default_rng(seed))
    assert (drawn.shape, drawn.dtype) == ((300, 200), torch.float32)
    assert scipy.stats.kstest(drawn.numpy().ravel().astype(float), "norm").pvalue > FALSE_ALARM


def test_what_one_stage_draws_does_not_move_anothers_draws():
    names = ("relate", "represent", "cluster")
    first, second = (streams(np.random.default_rng(3), names) for _ in range(2))
    first["relate"].random(1000)
    assert [first[n].random() for n in names[1:]] == [second[n].random() for n in names[1:]]
    assert len({second[n].random() for n in names}) == 3


def test_positions_stand_where_their_weights_do():
    """`meta` stands in for a GPU: drawing from a finished generator stays on the processor, whatever is in use."""
    weights = torch.ones(4)
    with used(torch.device("meta")):
        assert draw_by_weight(weights, 5, np.random.default_rng(0)).device.type == "cpu"
