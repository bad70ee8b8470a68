"""What a Parquet file from a stranger claims to hold, read without the Parquet library.

The library trusts a footer: it reserves memory by it, and on a malformed one its accessors end the whole process. So
the footer is read here first (Thrift compact protocol, a few dozen lines, every length checked), and only a file of
plain fixed-width columns without inner packing, metadata or encryption reaches the library. Problems are ValueErrors.

Formats: https://github.com/apache/parquet-format, https://github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_FOOTER = 4 << 20
MAX_DEPTH = 12
PHYSICAL = {"int16": 1, "int64": 2, "double": 5}  # our types -> INT32, INT64, DOUBLE
Struct = dict[int, Any]
_MAGIC = b"PAR1"
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12


def check_footer(data: bytes, columns: Sequence[tuple[str, str]], *, max_rows: int) -> int:
    """The number of rows of a Parquet file whose footer is in order.

    Args:
        data: The whole file.
        columns: (name, type) in order; types are the keys of PHYSICAL.
        max_rows: More are refused.

    Raises:
        ValueError: The file claims anything else than these columns, plainly stored inside the file.
    """
    footer, start = _footer(data)
    if 5 in footer or 8 in footer or 9 in footer:
        raise ValueError("the samples carry metadata or are encrypted")
    _check_schema(_list(footer, 2), columns)
    groups = [_struct(g) for g in _list(footer, 4)]
    rows = [_int(group, 3) for group in groups]
    if min(rows, default=1) < 1 or sum(rows) != _int(footer, 3):
        raise ValueError("the samples do not say how many rows they hold")
    if sum(rows) > max_rows:
        raise ValueError(
            f"the samples hold more than {max_rows} rows of {len(columns)} columns, the most for their size"
        )
    for group in groups:
        chunks = _list(group, 1)
        if len(chunks) != len(columns):
            raise ValueError("the samples' columns are not those of the schema")
        for chunk, (_, kind) in zip(chunks, columns, strict=True):
            _check_chunk(_struct(chunk), kind, rows=_int(group, 3), end=start)
    return sum(rows)


def _footer(data: bytes) -> tuple[Struct, int]:
    """The file's metadata and where it starts."""
    size = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - size
    if len(data) < 12 or data[:4] != _MAGIC or data[-4:] != _MAGIC or not start >= 4 or size > MAX_FOOTER:
        raise ValueError("the samples are not a readable Parquet file")
    reader = _Reader(data[start:-8])
    footer = reader.struct(0)
    if reader.place != size:
        raise ValueError("the samples are not a readable Parquet file")
    return footer, start


def _check_schema(elements: list[Any], columns: Sequence[tuple[str, str]]) -> None:
    """One root and these leaves, each required or optional."""
    leaves = [_struct(e) for e in elements[1:]]
    if not elements or _struct(elements[0]).get(5) != len(leaves) or len(leaves) != len(columns):
        raise ValueError("the samples' columns are not those of the schema")
    for leaf, (name, kind) in zip(leaves, columns, strict=True):
        if leaf.get(4) != name.encode() or leaf.get(5, 0) != 0:
            raise ValueError("the samples' columns are not those of the schema")
        if leaf.get(1) != PHYSICAL[kind] or leaf.get(3) not in (0, 1):
            raise ValueError(f"column {name!r} is not stored as {kind} in the samples")


def _check_chunk(chunk: Struct, kind: str, *, rows: int, end: int) -> None:
    """A column's part of a row group lies in this file before `end`, unpacked, and holds a value a row."""
    meta = _struct(chunk.get(3))
    if 1 in chunk or 8 in chunk or 9 in chunk or 8 in meta:
        raise ValueError("the samples carry metadata, are encrypted or lie in another file")
    if _int(meta, 4) != 0:
        raise ValueError("the samples are packed inside, so their size cannot be checked beforehand")
    first = min(_int(meta, 9), _int(meta, 11 if 11 in meta else 9))  # a dictionary page comes before the data
    if _int(meta, 1) != PHYSICAL[kind] or _int(meta, 5) != rows or not first >= 4:
        raise ValueError("a column of the samples does not hold one value a row")
    if not 0 <= _int(meta, 7) <= end - first or not 0 <= _int(meta, 6) <= _int(meta, 7):
        raise ValueError("a column of the samples reaches beyond its file")


def _int(struct: Struct, field: int) -> int:
    value = struct.get(field)
    if type(value) is not int:
        raise ValueError("the samples' footer lacks a number")
    return value


def _list(struct: Struct, field: int) -> list[Any]:
    value = struct.get(field, [])
    if not isinstance(value, list):
        raise ValueError("the samples' footer lacks a list")
    return value


def _struct(value: Any) -> Struct:
    if not isinstance(value, dict):
        raise ValueError("the samples' footer lacks a record")
    return value


@dataclass
class _Reader:
    """Thrift compact protocol -> numbers, bytes, lists and dicts by field number."""

    data: bytes
    place: int = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > len(self.data) - self.place:
            raise ValueError("the samples' footer is cut short")
        self.place += size
        return self.data[self.place - size : self.place]

    def varint(self) -> int:
        """An unsigned number of at most 64 bits."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 63:
                raise ValueError("the samples' footer holds too large a number")
        if value >> 64:
            raise ValueError("the samples' footer holds too large a number")
        return value

    def zigzag(self) -> int:
        """A signed number."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int) -> Struct:
        """Fields up to the stop byte; field numbers must grow, so none is there twice."""
        if depth > MAX_DEPTH:
            raise ValueError("the samples' footer is nested too deeply")
        out: Struct = {}
        field = 0
        while head := self.take(1)[0]:
            number = field + (head >> 4) if head >> 4 else self.zigzag()
            if number <= field:
                raise ValueError("the samples' footer repeats a field")
            field = number
            kind = head & 0x0F
            out[field] = kind == _TRUE if kind in (_TRUE, _FALSE) else self.value(kind, depth)
        return out

    def value(self, kind: int, depth: int) -> Any:
        """A value of a type other than a field's truth value."""
        readers: dict[int, Callable[[], Any]] = {
            _BYTE: lambda: self.take(1)[0],
            _I16: self.zigzag,
            _I32: self.zigzag,
            _I64: self.zigzag,
            _DOUBLE: lambda: self.take(8),
            _BINARY: lambda: self.take(self.varint()),
            _LIST: lambda: self.items(depth + 1),
            _SET: lambda: self.items(depth + 1),
            _STRUCT: lambda: self.struct(depth + 1),
        }
        if kind not in readers:
            raise ValueError("the samples' footer holds a type that does not belong there")
        return readers[kind]()

    def items(self, depth: int) -> list[Any]:
        """A list; its stated length cannot exceed the bytes that are left."""
        head = self.take(1)[0]
        size = head >> 4 if head >> 4 != 0x0F else self.varint()
        if size > len(self.data) - self.place or depth > MAX_DEPTH:
            raise ValueError("the samples' footer is cut short")
        kind = head & 0x0F
        if kind in (_TRUE, _FALSE):
            return [self.take(1)[0] == _TRUE for _ in range(size)]
        return [self.value(kind, depth) for _ in range(size)]
