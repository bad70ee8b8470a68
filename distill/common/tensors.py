"""Tensors as bytes, in the safetensors format, and back: checked in full, whoever wrote them."""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_TENSORS = 2_000
MAX_HEADER = 1 << 20
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "U16": "<u2",
    "U32": "<u4",
    "BOOL": "|b1",
}
_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}
Tensors = dict[str, np.ndarray]


def encode_tensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as safetensors. Raises ValueError for a type or value that a bundle does not hold."""
    from safetensors.numpy import save

    plain = {}
    for name, values in tensors.items():
        array = np.asarray(values)
        if array.dtype.newbyteorder("<") not in _NAMES:
            raise ValueError(f"tensor {name} has type {array.dtype}, which a bundle does not hold")
        plain[name] = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(array.shape)
        _require_finite(name, plain[name])
    return save(plain)


def decode_tensors(data: bytes) -> Tensors:
    """Named arrays from safetensors; the header is bounded and must describe the bytes without gap or overlap.

    Format: https://github.com/huggingface/safetensors#format. Raises ValueError.
    """
    header, body = _tensor_header(data)
    out: Tensors = {}
    for name, (dtype, shape, begin, end) in header.items():
        out[name] = np.frombuffer(body[begin:end], dtype=dtype).reshape(shape).copy()
        if dtype == np.dtype(bool) and np.frombuffer(body[begin:end], dtype=np.uint8).max(initial=0) > 1:
            raise ValueError(f"tensor {name} holds a truth value that is neither 0 nor 1")
        _require_finite(name, out[name])
    return out


def _tensor_header(data: bytes) -> tuple[dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]], bytes]:
    """Name -> (dtype, shape, begin, end), in the order of the bytes, and the bytes."""
    if len(data) < 8:
        raise ValueError("the tensors are cut short")
    size = struct.unpack_from("<Q", data)[0]
    if size > min(MAX_HEADER, len(data) - 8):
        raise ValueError("the tensors' header is larger than it may be")
    try:
        raw = json.loads(data[8 : 8 + size], object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise ValueError("the tensors' header is not valid JSON") from None
    if not isinstance(raw, dict) or len(raw) > MAX_TENSORS:
        raise ValueError("the tensors' header is not a list of tensors")
    body = data[8 + size :]
    header = {name: _tensor_entry(name, entry) for name, entry in raw.items()}
    ordered = dict(sorted(header.items(), key=lambda item: item[1][2:]))
    place = 0
    for name, (_, _, begin, end) in ordered.items():
        if begin != place:
            raise ValueError(f"tensor {name} does not begin where the one before it ends")
        place = end
    if place != len(body):
        raise ValueError("the tensors do not fill their file")
    return ordered, body


def _tensor_entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """One line of the header, checked. Sizes are Python integers, so nothing overflows."""
    if not name.isprintable() or len(name) > 200:
        raise ValueError("a tensor's name is not printable")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name} is described wrongly")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"tensor {name} has a type that a bundle does not hold")
    shape, offsets = entry["shape"], entry["data_offsets"]
    lists = isinstance(shape, list) and isinstance(offsets, list) and len(shape) <= 8 and len(offsets) == 2
    if not lists or not all(type(n) is int and 0 <= n < 1 << 40 for n in [*shape, *offsets]):
        raise ValueError(f"tensor {name} is described wrongly")
    dtype = np.dtype(DTYPES[entry["dtype"]])
    size = dtype.itemsize
    for n in shape:
        size *= n
    if offsets[1] - offsets[0] != size:
        raise ValueError(f"tensor {name} is not as long as its shape says")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a repeated name")
    return out


def _require_finite(name: str, values: np.ndarray) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"tensor {name} holds a value that is not finite")
