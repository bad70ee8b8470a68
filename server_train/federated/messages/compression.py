"""Smaller messages: weights' vectors as float16, as 8-bit numbers, or as their largest entries only.

What rounding leaves out of an upload is kept at the client and added to its next one (error feedback), so that it arrives
late instead of never; with it, rounding to the nearest is as good as random rounding and repeatable. Downloads carry
state, not differences: there it is rounding alone, and top-k makes no sense. A packed tensor travels under its name, `@`
and a part's name, so `@` is in no strategy's own names; the reader takes its length from the model and never from the
message, so nothing blows up.

Sources: error feedback arXiv:1901.09847; top-k with it arXiv:1809.07599 and arXiv:1712.01887 (without the latter's
momentum correction and warm-up); a scale for every block of numbers arXiv:1610.02132 (there with random rounding).
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.common import checks
from distill.errors import ConfigError, DataError
from server_train.federated.local.mlp import Vector
from server_train.federated.messages.codec import Message

METHODS = ("none", "float16", "int8", "topk")
BLOCK = 512  # 8-bit numbers under one scale
MAX_PACKED = 16  # packed tensors in one message: each restores a whole vector, however short it came
_MARK = "@"
_RESIDUAL = "residual of "  # + a tensor's name: a client's memory of what its uploads left out
_LARGEST_HALF = float(np.finfo(np.float16).max)
Parts = dict[str, np.ndarray]


@dataclass(frozen=True)
class Compression:
    """How a message's vectors are made smaller.

    Attributes:
        method: One of `METHODS`.
        share: Entries that `topk` keeps, in (0, 1]: six bytes each, eight above 65,536 weights, instead of four for all.
    """

    method: str = "none"
    share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no compression."""
        if self.method not in METHODS:
            raise ConfigError(f"no compression {self.method!r}. Choose none, float16, int8 or topk:SHARE.")
        checks.positive(share=self.share)
        checks.at_most(1.0, share=self.share)

    def __str__(self) -> str:
        """The words that `parse_compression` reads."""
        return f"topk:{self.share:g}" if self.method == "topk" else self.method

    def pack(self, message: Message, names: Collection[str], memory: dict[str, Any] | None = None) -> Message:
        """The message with the tensors `names` in a smaller form; tensors it does not hold are no matter.

        Args:
            message: With these tensors as flat float vectors of the weights' shape (size,).
            names: Which.
            memory: The sender's, for error feedback; without it, what rounding leaves out is lost.

        Raises:
            DataError: a value is not finite.
            ConfigError: one of them is not a flat float vector.
        """
        if self.method == "none":
            return message
        tensors: Parts = {}
        for name, tensor in message.tensors.items():
            if name not in names:
                tensors[name] = tensor
                continue
            _check_packable(name, tensor)
            value = tensor + (memory or {}).get(_RESIDUAL + name, 0.0)
            parts = self._parts(value)
            if memory is not None:
                memory[_RESIDUAL + name] = (value - _restored(parts, len(value))).astype(tensor.dtype)
            tensors.update({name + _MARK + part: array for part, array in parts.items()})
        return Message(tensors, message.numbers)

    def _parts(self, value: Vector) -> Parts:
        """What travels instead of `value`, shape (size,)."""
        if self.method == "float16":
            return {"float16": np.clip(value, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)}
        if self.method == "int8":
            return _quantised(value)
        kept = -int(-self.share * len(value) // 1)  # rounded up, so at least one
        index = np.sort(np.argpartition(np.abs(value), len(value) - kept)[len(value) - kept :])
        unsigned = np.uint16 if len(value) <= 1 << 16 else np.uint32
        return {"index": index.astype(unsigned), "value": value[index].astype(np.float32)}


def parse_compression(word: str) -> Compression:
    """`none`, `float16`, `int8` or `topk:0.1` (the share of entries kept). Raises ConfigError."""
    method, colon, share = word.partition(":")
    if (method == "topk") != bool(colon):
        raise ConfigError(f"no compression {word!r}. Choose none, float16, int8 or topk:SHARE, as in topk:0.1.")
    try:
        return Compression(method, float(share)) if colon else Compression(method)
    except ValueError:
        raise ConfigError(f"compression {word!r}: the share kept must be a number in (0, 1], as in topk:0.1.") from None


def unpack(message: Message, size: int) -> Message:
    """The message under its old names, packed tensors as float32 vectors of shape (size,); whoever packed it how.

    Raises:
        DataError: packed parts do not fit together or the model, or restore to numbers that are not finite.
    """
    tensors: Parts = {}
    packed: dict[str, Parts] = {}
    for name, tensor in message.tensors.items():
        base, mark, part = name.rpartition(_MARK)
        if mark:
            packed.setdefault(base, {})[part] = tensor
        else:
            tensors[name] = tensor
    if len(packed) > MAX_PACKED:
        raise DataError(f"a message holds {len(packed)} packed tensors; at most {MAX_PACKED} are read")
    for base, parts in packed.items():
        if base in tensors:
            raise DataError("a message holds a tensor both packed and plain")
        _check_parts(parts, size)
        tensors[base] = _restored(parts, size)
        if not np.isfinite(tensors[base]).all():
            raise DataError("a packed tensor restores to numbers that are not finite")
    return Message(tensors, message.numbers)


def _quantised(value: Vector) -> Parts:
    """The nearest multiples of a scale for each block: its largest entry over 127."""
    blocks = _blocked(value.astype(np.float64))
    scale = (np.abs(blocks).max(axis=1) / 127).astype(np.float32)
    # A block of zeros, or of numbers too small for a float32 scale, has scale 0 and becomes zeros.
    steps = np.divide(blocks, scale[:, None], out=np.zeros_like(blocks), where=scale[:, None] > 0)
    return {"int8": np.clip(np.rint(steps), -127, 127).astype(np.int8).ravel()[: len(value)], "scale": scale}


def _blocked(vector: np.ndarray) -> np.ndarray:
    """Rows of `BLOCK` numbers, the last filled up with zeros."""
    return np.pad(vector, (0, -len(vector) % BLOCK)).reshape(-1, BLOCK)


def _restored(parts: Parts, size: int) -> Vector:
    """The vector that checked parts stand for, float32, shape (size,)."""
    if "float16" in parts:
        return parts["float16"].astype(np.float32)
    if "int8" in parts:
        with np.errstate(over="ignore"):  # refused by the caller as not finite
            return np.asarray((_blocked(parts["int8"]) * parts["scale"][:, None]).ravel()[:size])
    vector = np.zeros(size, dtype=np.float32)
    vector[parts["index"]] = parts["value"]
    return vector


def _check_packable(name: str, tensor: np.ndarray) -> None:
    """A flat vector of finite floats."""
    if tensor.ndim != 1 or tensor.dtype.kind != "f":
        raise ConfigError(
            f"tensor {name!r} cannot be compressed: it is not a flat float vector. Leave it out of `compressible`."
        )
    if not np.isfinite(tensor).all():
        raise DataError(f"tensor {name!r} cannot be sent: it holds NaN or infinity.")


def _check_parts(parts: Parts, size: int) -> None:
    """Parts as `Compression` makes them for a model of `size` weights; anything else is refused."""
    kinds = {part: (array.dtype.str[1:], array.ndim) for part, array in parts.items()}
    if kinds == {"float16": ("f2", 1)}:
        fits = len(parts["float16"]) == size
    elif kinds == {"int8": ("i1", 1), "scale": ("f4", 1)}:
        fits = len(parts["int8"]) == size and len(parts["scale"]) == -(-size // BLOCK)
    elif kinds in ({"index": (code, 1), "value": ("f4", 1)} for code in ("u2", "u4")):
        index = parts["index"]
        fits = len(index) == len(parts["value"]) and bool((index < size).all() and (index[1:] > index[:-1]).all())
    else:
        raise DataError("a packed tensor's parts are not those of any compression")
    if not fits:
        raise DataError(f"a packed tensor's parts do not fit together, or not a model of {size} weights")
