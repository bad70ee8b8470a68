"""What travels: named tensors and numbers, as bytes that can be counted.

One codec for every engine: safetensors, whose header is bounded and checked before anything is decoded. The payload is
the tensors' bytes plus the framing: 8 bytes of header length and the JSON header, about 80 bytes a tensor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from distill.common.tensors import decode_tensors, encode_tensors
from distill.errors import DataError

NUMBER = "number."  # a number travels as a float64 tensor without dimensions under this prefix


@dataclass(frozen=True)
class Message:
    """One direction of one exchange.

    Attributes:
        tensors: Named arrays of a fixed-width type.
        numbers: Named scalars: a row count, a loss, a number of steps.
    """

    tensors: Mapping[str, np.ndarray]
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors and numbers, without framing."""
        return sum(np.asarray(t).nbytes for t in self.tensors.values()) + 8 * len(self.numbers)


def encode(message: Message) -> bytes:
    """The message as bytes. Raises DataError where it holds a type that cannot travel, or NaN or infinity."""
    numbers = {NUMBER + name: np.asarray(value, dtype=np.float64) for name, value in message.numbers.items()}
    try:
        return encode_tensors({**message.tensors, **numbers})
    except ValueError as error:
        raise DataError(f"a message cannot be sent: {error}.") from None


def decode(data: bytes) -> Message:
    """The message from its bytes. Raises DataError where they are not one, or hold NaN or infinity."""
    try:
        arrays = decode_tensors(data)
    except ValueError as error:
        raise DataError(f"a message cannot be read: {error}.") from None
    numbers = {n.removeprefix(NUMBER): float(a) for n, a in arrays.items() if n.startswith(NUMBER) and a.shape == ()}
    return Message({n: a for n, a in arrays.items() if not n.startswith(NUMBER)}, numbers)


def framing_bytes(data: bytes) -> int:
    """How many bytes of an encoded message are not tensors: the header's length (8 bytes) and the header."""
    return 8 + int.from_bytes(data[:8], "little")
