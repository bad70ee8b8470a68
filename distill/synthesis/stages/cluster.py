"""Stage 4, cluster: dense regions of the latent space, found on private samples and weighed by one noisy histogram.

Clustering the encoded real rows would be a new, unbounded access. So rows drawn from the autoencoder (private already) are
clustered, and the real rows are only counted over the finished clusters: one histogram, sensitivity 1 (add or remove one row).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.privacy.cells import Nearest, nearest
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Layer
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.planning.plan import Plan
from distill.synthesis.statistics.simplex import project_to_simplex

EVENT = "cluster"
MIN_PORTION = 0.01  # of the samples, for a region to count as dense


def find_clusters(latents: Tensor) -> tuple[np.ndarray, Tensor, Tensor]:
    """Density-cluster the latents (n, latent) of private samples.

    Returns:
        Centres (n_clusters, latent), cluster of each sample (n,), whether it is in a dense core (n,).

    Source: HDBSCAN, Campello et al. 2013, doi:10.1007/978-3-642-37456-2_14, as in scikit-learn.
    """
    from sklearn.cluster import HDBSCAN

    points = latents.numpy(force=True).astype(np.float64)
    finder = HDBSCAN(min_cluster_size=max(5, int(MIN_PORTION * len(points))), min_samples=5, copy=True)
    labels = finder.fit_predict(points)
    dense = (labels >= 0) & (finder.probabilities_ > 0.5)
    if not dense.any():  # one diffuse cloud: the whole of it is one cluster
        labels, dense = np.zeros(len(points), dtype=np.int64), np.ones(len(points), dtype=bool)
    found = np.unique(labels[dense])
    centres = np.stack([points[dense & (labels == c)].mean(axis=0) for c in found])
    return centres, torch.as_tensor(nearest(points, centres)), torch.as_tensor(dense)


def count_clusters(
    table: PrivateTable,
    plan: Plan,
    centres: np.ndarray,
    encoder: tuple[Layer, ...],
    layout: Layout,
    order: Sequence[int],
) -> np.ndarray:
    """Release how many real rows lie nearest to each centre; noisy shares, (n_clusters,).

    Args:
        table, plan: The rows and what was planned (event `cluster`).
        centres: (n_clusters, latent).
        encoder: Hidden layer and output of the network that gives a row its latent mean.
        layout, order: Of a one-hot row, and the position of each of its columns in the table.
    """
    event = plan.event(EVENT)
    cells = Nearest(tuple(order), layout.starts, encoder, centres)
    (counts,) = table.noisy_counts(EVENT, [cells], [event.cell_stddev])
    return project_to_simplex(counts.astype(np.float64))
