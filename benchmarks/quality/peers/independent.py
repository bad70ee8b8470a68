"""Independent columns: a noisy histogram of each column, the target like any other, and nothing else.

One Gaussian release of one histogram a column; sensitivity sqrt(columns), add or remove one row.
"""

import numpy as np
import own_bins
import pandas as pd
import peer

from distill.privacy.cells import Cross
from distill.synthesis.stages import encode
from distill.synthesis.statistics.simplex import project_to_simplex


def fit(task: peer.Task) -> peer.Sample:
    opened = own_bins.open_table(task, "histograms", lambda schema: len(schema.columns))
    bins = encode.find_bins(opened.table, opened.plan)
    opened.table.recode([b.coarse for b in bins], target=opened.target)
    stddev = opened.plan.event("histograms").cell_stddev
    cells = [Cross((i,), (b.n_bins,)) for i, b in enumerate(bins)]
    counts = opened.table.noisy_counts("histograms", cells, [stddev] * len(bins))
    shares = [project_to_simplex(c.astype(np.float64)) for c in counts]
    rng = np.random.default_rng(task.seed)

    def sample(rows: int) -> pd.DataFrame:
        return own_bins.drawn(opened, bins, [rng.choice(len(s), rows, p=s / s.sum()) for s in shares], rng)

    return sample


if __name__ == "__main__":
    peer.leave(peer.run(fit, install=own_bins.INSTALL, private=True, notes=own_bins.NOTES))
