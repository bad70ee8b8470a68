"""Per-record clipping for networks of linear layers, without per-record gradients in memory, in whole numbers.

For a linear layer the gradient of one record is an outer product (output gradient x input), so its norm is a product of
two norms, and the clipped sum is one matrix product. What each record adds is cut towards zero to multiples of a power of
two, which never makes it longer, and the sum of such multiples is exact: one record more moves the sum by what that
record adds, not by a rounding of the whole.

Source: arXiv:1510.01799 (the norm trick).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.privacy.row_vectors import Dense, OneHot

ROWS_AT_ONCE = 1024
INSIDE = 1 - 2.0**-40  # of the clip norm: room for the rounding of a norm in float64
FINEST_BITS, MOST_BITS = (
    36,
    44,
)  # steps of 2**-36 of the clip norm; coarser ones where there is much noise, see `lattice_bits`
MOST_ROWS = 1 << 24  # in a sample: sums of so many in such steps fit 64 bits with room


@dataclass(frozen=True, eq=False)
class Factor:
    """One linear layer in a pass over records: what goes in, and the gradient of each record's loss in what comes out.

    Attributes:
        inputs: (n, in).
        outputs: (n, out), float64.
    """

    inputs: Dense | OneHot
    outputs: np.ndarray


def lattice_bits(stddev: float) -> int:
    """Steps of the lattice are 2**-bits of the clip norm, where noise of `stddev` clip norms is added. Both are public.

    Noise grows with the most rows of a unit, and so may sums: steps grow with it, so that both fit 64 bits.
    """
    return min(FINEST_BITS, MOST_BITS - int(np.ceil(np.log2(stddev))))


def clipped_sum(factors: Sequence[Factor], *, clip: float, length: float, bits: int) -> np.ndarray:
    """Sum over records of each record's clipped gradient, in whole steps of 2**-bits.

    A gradient of `clip` or more in L2 is scaled to `length`, a shorter one by the same factor as one of just `clip`.
    Guarantee: adding or removing one record moves the result by at most `length`, in exact arithmetic. A record whose
    gradient is not finite counts as zero.

    Args:
        factors: Every linear layer that took part, each once, of at most 2**16 records.
        clip: Norm of one record's gradient, over all layers' weights and biases together, from which it is scaled down.
        length: What the clip norm becomes, at most 1.
        bits: See `lattice_bits`.

    Returns:
        Flat, int64: weight (out, in) then bias (out,) of each layer, in the order of `factors`.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found here
        squares = sum(np.square(f.outputs).sum(axis=1) * (f.inputs.squares + 1) for f in factors)
    usable = np.isfinite(squares)
    scale = np.where(usable, INSIDE * length / np.maximum(np.sqrt(np.where(usable, squares, 1.0)), clip), 0.0)[:, None]
    parts = []
    for factor in factors:
        outputs = factor.outputs if usable.all() else np.where(usable[:, None], factor.outputs, 0.0)
        weight, bias = factor.inputs.summed(outputs * scale, bits)
        parts += [weight.ravel(), bias]
    return np.concatenate(parts)
