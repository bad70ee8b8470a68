"""DP naive Bayes: noisy counts per (class, column, bin), from which columns are drawn independently within a class.

One Gaussian release of one (class x bin) histogram a feature; sensitivity sqrt(features), add or remove one row.
"""

import numpy as np
import own_bins
import pandas as pd
import peer

from distill.synthesis.stages import encode


def fit(task: peer.Task) -> peer.Sample:
    opened = own_bins.open_table(task, "encode.classes", lambda schema: len(schema.features))
    bins = encode.find_bins(opened.table, opened.plan)
    opened.table.recode([b.coarse for b in bins], target=opened.target)
    counts = encode.count_classes(opened.table, opened.plan, bins, opened.target)  # type: ignore[arg-type]
    rng = np.random.default_rng(task.seed)

    def sample(rows: int) -> pd.DataFrame:
        classes = rng.choice(len(counts.prior), rows, p=counts.prior)
        cells = [within_class(c, classes, rng) for c in counts.by_column]
        cells.insert(opened.target, classes)
        return own_bins.drawn(opened, bins, cells, rng)

    return sample


def within_class(counts: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bin for each row from its class's line of `counts`, shape (classes, bins)."""
    upper = np.cumsum(np.maximum(counts, 0.0), axis=1)
    at = rng.random(len(classes)) * upper[classes, -1]
    return np.minimum((at[:, None] >= upper[classes]).sum(axis=1), counts.shape[1] - 1)


if __name__ == "__main__":
    peer.leave(peer.run(fit, install=own_bins.INSTALL, private=True, notes=own_bins.NOTES))
