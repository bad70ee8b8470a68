"""Stage 4: clusters of private samples, and one noisy histogram of real rows over them."""

import numpy as np
import pandas as pd
import pytest
import torch

from distill.privacy.noise import NoiseSource
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.stages import cluster
from tests.fakes.private_tables import NoNoise, category, door, plan_of, schema_of

CENTRES = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])


def blobs(sizes: tuple[int, ...], seed: int, *, stray: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    middles = torch.tensor(CENTRES, dtype=torch.float32)
    parts = [c + 0.5 * torch.randn(n, 2, generator=generator) for c, n in zip(middles, sizes, strict=True)]
    return torch.cat([*parts, 20 * torch.rand(stray, 2, generator=generator) - 6])


def test_planted_blobs_are_found_with_their_members(seed):
    points = blobs((300, 200, 100), seed, stray=5)
    centres, members, dense = cluster.find_clusters(points)
    assert len(centres) == 3
    found = np.linalg.norm(CENTRES[:, None] - centres, axis=2).argmin(axis=1)
    assert sorted(found.tolist()) == [0, 1, 2]
    assert np.linalg.norm(centres[found] - CENTRES, axis=1).max() < 0.3
    truth = np.repeat(np.arange(3), [300, 200, 100])
    assert (members[:600].numpy() == found[truth]).mean() > 0.99
    assert dense[:600].float().mean() > 0.5


@pytest.mark.parametrize(
    "points",
    [torch.rand(400, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(50, 4), torch.randn(400, 16)],
    ids=["cloud", "one point", "high-dimensional"],
)
def test_any_cloud_has_a_cluster_and_every_point_is_in_one(points):
    centres, members, dense = cluster.find_clusters(points)
    assert len(centres) >= 1
    assert np.isfinite(centres).all()
    assert members.shape == dense.shape == (len(points),)
    assert dense.any()
    assert int(members.max()) < len(centres)


def counted(source: NoiseSource, noise: float) -> tuple[np.ndarray, dict[str, int]]:
    """Rows whose latent is read from their codes: 400 near the first centre, 500 near the second, 100 at the third.

    The encoder hands the feature's segment on, whose ones are 1 / sqrt(2) long; its log-variances do not matter.
    """
    schema = schema_of(category("a", 0, 1, 2))
    frame = pd.DataFrame({"a": np.repeat([0, 1, 2], [400, 500, 100]), "label": np.arange(1000) % 2})
    plan = plan_of(schema, 1000, cell_stddev=noise)
    table = door(frame, schema, plan, source)
    table.recode([lambda leaves: leaves] * 2, target=1)
    layout = Layout((3,), 2)
    encoder = (
        (np.eye(3, layout.width), np.zeros(3)),
        (2**0.5 * np.vstack([CENTRES.T, np.full((2, 3), 99.0)]), np.array([1.0, 1.0, 0.0, 0.0])),
    )
    shares = cluster.count_clusters(table, plan, CENTRES, encoder, layout, [0, 1])
    return shares, table.reads


def test_real_rows_are_counted_over_the_clusters():
    shares, reads = counted(NoNoise(), 2.0)
    np.testing.assert_allclose(shares, [0.4, 0.5, 0.1])
    assert reads == {"cluster": 1}


@pytest.mark.parametrize("noise", [5.0, 2000.0])
def test_noisy_cluster_counts_are_shares(noise, seed):
    shares, _ = counted(NoiseSource(seed), noise)
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1)
    if noise == 5.0:
        np.testing.assert_allclose(shares, [0.4, 0.5, 0.1], atol=0.05)


def test_nearest_is_the_nearest_centre():
    points = np.array([[1.0, 1.0], [7.0, -3.0], [-2.0, 9.0]])
    assert cluster.nearest(points, CENTRES).tolist() == [0, 1, 2]
