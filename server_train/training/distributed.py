"""Several processes that train one model, as `torchrun` starts them; or one process alone.

Each process takes its share of every batch, and gradients are added up by torch's DistributedDataParallel, so that N processes do
the same steps as one, up to rounding. They talk over gloo (main memory) and, on GPUs, nccl; nothing is pickled.
Where one process fails all stop: those that wait for it notice that its connection is gone, or run into the time limit.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill.errors import ConfigError, DistillError, ModelError

CPU = torch.device("cpu")
ONE_BUCKET_MB = 256  # all gradients of the network travel together
TEXT_BYTES = 4096


class PeerError(ModelError):
    """Another process of this training failed, and says itself why."""


@dataclass(frozen=True)
class Group:
    """The processes of one training, seen from one of them.

    Attributes:
        rank, size: Which process this is, of how many; process 0 writes the model.
        local_rank, local_size: The same among those on this machine.
        device: Where this process computes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = CPU

    def share(self, rows: int) -> slice:
        """This process's part of `rows` rows: neighbouring ones, parts differ by one row at most."""
        return slice(self.rank * rows // self.size, (self.rank + 1) * rows // self.size)

    def total(self, *values: float | Tensor) -> Tensor:
        """Each value (a number or a vector) added up over all processes, float64, one after the other."""
        vector = torch.cat([torch.as_tensor(v, dtype=torch.float64).reshape(-1) for v in values])
        if self.size > 1:
            with _lost():
                dist.all_reduce(vector)
        return vector

    def from_local_first(self, text: str) -> str:
        """The text that the first process on this machine gives."""
        if self.size == 1:
            return text
        data = text.encode()
        if len(data) > TEXT_BYTES:
            raise ConfigError(f"{text[:80]}... is too long a path. Choose a shorter one.")
        mine = torch.tensor(list(data.ljust(TEXT_BYTES, b"\0")), dtype=torch.uint8)
        texts = [torch.empty_like(mine) for _ in range(self.size)]
        with _lost():
            dist.all_gather(texts, mine)
        return bytes(texts[self.rank - self.local_rank].tolist()).rstrip(b"\0").decode()

    @contextmanager
    def together(self) -> Iterator[None]:
        """A step that every process does by itself. Where it fails in some, the first of them raises its error, all others PeerError."""
        failure: DistillError | OSError | None = None
        try:
            yield
        except (DistillError, OSError) as error:
            failure = error
        failed = self.total(torch.nn.functional.one_hot(torch.tensor(self.rank), self.size) * (failure is not None))
        first = int(failed.argmax())
        if failure is not None and first == self.rank:
            raise failure
        if failed[first] > 0:
            raise PeerError(f"process {self.rank} stopped because process {first} failed.")

    def shared(self, network: nn.Module) -> nn.Module:
        """The network as all processes train it: each backward pass ends with the mean of all processes' gradients."""
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.numel() > 0)  # an empty one never gets the gradient that is waited for
        if self.size == 1:
            return network
        places = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=places, bucket_cap_mb=ONE_BUCKET_MB)

    @contextmanager
    def noticing_loss(self) -> Iterator[None]:
        """Turn a lost connection to another process inside the block into PeerError."""
        if self.size == 1:
            yield
        else:
            with _lost():
                yield


ALONE = Group()


@contextmanager
def joined(*, device: str = "auto", timeout: float = 600.0) -> Iterator[Group]:
    """The group that this process belongs to, by the environment that `torchrun` sets; without one it is alone.

    Args:
        device: `cpu`, `cuda`, or `auto`: a GPU where each process on this machine has one of its own.
        timeout: Seconds that the other processes are waited for, at most.

    Raises:
        ConfigError: `cuda` is asked for and there are too few GPUs, or the environment is no such one.
        PeerError: the other processes cannot be reached.
    """
    try:
        rank, size, local_rank, local_size = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
        )
    except ValueError:
        raise ConfigError("RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be whole numbers.") from None
    group = Group(rank, size, local_rank, local_size, _device(device, local_rank, local_size))
    if size == 1:
        yield group
        return
    backend = "cpu:gloo,cuda:nccl" if group.device.type == "cuda" else "gloo"
    with _lost():
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        yield group
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int, local_size: int) -> torch.device:
    """The device of one of `local_size` processes on this machine."""
    there = torch.cuda.device_count() if name != "cpu" else 0
    if name == "cuda" and there < local_size:
        raise ConfigError(f"{local_size} processes want a GPU each, and torch finds {there}. Use --device cpu.")
    return torch.device("cuda", local_rank) if there >= local_size else torch.device("cpu")


@contextmanager
def _lost() -> Iterator[None]:
    """A RuntimeError inside the block is a lost connection."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(
            "lost the other processes of this training: one of them failed, or cannot be reached. See what it says."
        ) from error
