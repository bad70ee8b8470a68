"""Independent columns: a noisy histogram of each column, the target like any other, and nothing else.

One Gaussian release of one histogram a column; sensitivity sqrt(columns), add or remove one row.
"""

import numpy as np
import own_bins
import pandas as pd
import peer

from distill.private_table import LabelOf, Rows
from distill.simplex import project_to_simplex
from distill.stages import encode


def fit(task: peer.Task) -> peer.Sample:
    opened = own_bins.open_table(task, "histograms", lambda schema: len(schema.columns))
    bins = encode.find_bins(opened.table, opened.plan)
    opened.table.recode([b.coarse for b in bins], target=opened.target)
    stddev = opened.plan.event("histograms").cell_stddev
    labels = [bin_of(i) for i in range(len(bins))]
    counts = opened.table.noisy_counts("histograms", labels, [b.n_bins for b in bins], [stddev] * len(bins))
    shares = [project_to_simplex(c.astype(np.float64)) for c in counts]
    rng = np.random.default_rng(task.seed)

    def sample(rows: int) -> pd.DataFrame:
        return own_bins.drawn(opened, bins, [rng.choice(len(s), rows, p=s / s.sum()) for s in shares], rng)

    return sample


def bin_of(column: int) -> LabelOf:
    """Every row's bin of one column."""

    def label(leaves: Rows, coarse: Rows) -> np.ndarray:
        del leaves
        return coarse[column].astype(np.int64)

    return label


if __name__ == "__main__":
    peer.leave(peer.run(fit, install=own_bins.INSTALL, private=True, notes=own_bins.NOTES))
