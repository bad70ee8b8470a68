"""Thrift's compact protocol, read and written with its types, so that a Parquet footer or page header can be forged.

A struct is a dict: field number -> (type, value). A list is (type of its items, items). The reader is for our own files
only; `distill.exchange.parquet_guard` is the one that meets strangers.
Format: https://github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
Struct = dict[int, tuple[int, Any]]


def read(data: bytes, place: int = 0) -> tuple[Struct, int]:
    """The struct at `place`, and where it ends."""
    out: Struct = {}
    number = 0
    while head := data[place]:
        place += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, place = _zigzag(data, place)
        if kind in (TRUE, FALSE):
            out[number] = (kind, None)
        else:
            value, place = _value(data, place, kind)
            out[number] = (kind, value)
    return out, place + 1


def write(struct: Struct) -> bytes:
    """The bytes of a struct, fields in order; always with full field numbers, which every reader takes."""
    out = b""
    for number, (kind, value) in sorted(struct.items()):
        out += bytes([kind]) + varint(number << 1) + (b"" if kind in (TRUE, FALSE) else _written(kind, value))
    return out + b"\0"


def varint(value: int) -> bytes:
    """An unsigned number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _written(kind: int, value: Any) -> bytes:
    if kind in (I16, I32, I64):
        return varint(value << 1 if value >= 0 else (-value << 1) - 1)
    if kind == BINARY:
        return varint(len(value)) + bytes(value)
    if kind in (LIST, SET):
        inner, items = value
        head = bytes([len(items) << 4 | inner]) if len(items) < 15 else bytes([0xF0 | inner]) + varint(len(items))
        return head + b"".join(_written(inner, item) for item in items)
    if kind == STRUCT:
        return write(value)
    return bytes(value)  # a byte, a double, a truth value in a list


def _value(data: bytes, place: int, kind: int) -> tuple[Any, int]:
    if kind in (I16, I32, I64):
        return _zigzag(data, place)
    if kind == STRUCT:
        return read(data, place)
    if kind == BINARY:
        size, place = _varint(data, place)
        return data[place : place + size], place + size
    if kind in (LIST, SET):
        head, place = data[place], place + 1
        size = head >> 4
        if size == 15:
            size, place = _varint(data, place)
        items = []
        for _ in range(size):
            item, place = _value(data, place, head & 15)
            items.append(item)
        return (head & 15, items), place
    size = 8 if kind == DOUBLE else 1
    return data[place : place + size], place + size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[place] & 0x7F) << shift
        shift += 7
        place += 1
        if data[place - 1] < 0x80:
            return value, place


def _zigzag(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place
