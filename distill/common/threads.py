"""How many threads torch uses: one, for networks as small as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch use one thread inside the block.

    Steps of a small network are too short to share: on two idle cores one thread is as fast as two, on two busy ones
    many times faster. It also makes sums, and so weights, independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
