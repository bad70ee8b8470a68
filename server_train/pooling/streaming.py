"""Drawing a pool of any size straight to disk, in memory that does not grow with its rows.

The rows are those of `pool.draw_pool`, part by part: each part takes from every institution as many rows as a random order of all
of them would put there (multivariate hypergeometric), so the parts in a row are one random order. The first part fits
the labeller: the correction as always to the first `FIT_ROWS` rows, the intercept to `FIRST_ROWS` rows instead of all, so
class frequencies of the labels may be off by about the spread of the soft labels over sqrt(FIRST_ROWS): .001 at most.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from distill.data.schema import Schema
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.pool import Drawer, plan_pool
from server_train.pooling.pool_file import GROUP_ROWS, PoolCard, StoredPool, open_pool, writing_pool

FIRST_ROWS = 4 * GROUP_ROWS


def draw_pool_file(
    path: Path,
    schema: Schema,
    institutions: Sequence[Institution],
    *,
    rows: int,
    rng: np.random.Generator,
    card: Callable[[Drawer], PoolCard],
    progress: Callable[[int, int], None] | None = None,
) -> StoredPool:
    """Draw and label `rows` rows of all generators into a file of the kind that `pool_file` describes.

    Args:
        path: The file; it is there in full at the end or not at all.
        schema: Shared by all institutions; it has a target.
        institutions: All of them, in a fixed order; one with a fault counts for nothing.
        rows: How many rows; at least one an institution.
        rng: Source of every draw.
        card: What the file's footer will say, given the members, class frequencies and notes.
        progress: Called with (rows written so far, rows) now and then.

    Raises:
        BundleError: as `draw_pool` does.
        DataError: the file cannot be written.
    """
    drawer = plan_pool(schema, institutions, rows, rng)
    left = drawer.counts.copy()
    taken = _take(left, FIRST_ROWS, rng)
    frame, origin = drawer.draw(taken, rng)
    drawer, logs = drawer.with_labeller(frame, origin)
    with writing_pool(path, card(drawer)) as writer:
        while True:
            writer.write(frame, drawer.label(frame, rng, logs))
            left -= taken
            if progress:
                progress(rows - int(left.sum()), rows)
            if not left.any():
                break
            taken, logs = _take(left, GROUP_ROWS, rng), None
            frame, _ = drawer.draw(taken, rng)
    return open_pool(path)


def _take(left: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """How many of the rows that are left of each institution come among the next `rows` of a random order."""
    if rows >= left.sum():
        return left.copy()
    return np.asarray(rng.multivariate_hypergeometric(left, rows, method="marginals"))
