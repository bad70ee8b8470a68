"""Where the networks and candidates of a fit are optimised: on a GPU where there is one, else on the processor.

The rows stay in main memory, and so does privacy noise: only batches that are already paid for, and what was released, go
to the device. A stage says nothing about devices: inside `used` every new tensor is made on the chosen one, numpy arrays
enter by `torch.as_tensor` and leave by `.numpy(force=True)`. The same seed draws other numbers on another device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from distill.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]


def choose_device(name: Device) -> torch.device:
    """The device of that name; `auto` is `cuda` where it is there, else `cpu`.

    Raises:
        ConfigError: `cuda` is asked for and not there.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        build = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no usable GPU"
        raise ConfigError(
            f"device cuda was asked for, but {build}. Use --device cpu, or auto, or mend the installation."
        )
    return torch.device("cuda" if there and name != "cpu" else "cpu")


@contextmanager
def used(device: torch.device) -> Iterator[None]:
    """Make new tensors on `device` inside the block."""
    if device.type == "cpu":  # the default, without the cost of looking at every call
        yield
        return
    with device:
        yield


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
