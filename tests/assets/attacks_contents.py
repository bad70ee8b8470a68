"""Attacks inside properly signed files: Parquet that lies in its footer or its pages, rows that do not fit, tensors."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill.errors import BundleSamplesError, BundleTensorError
from distill.exchange.bundle import SAMPLES
from tests.assets import thrift
from tests.assets.forge import House, attack, contents, tensor_file, with_file

HEADS = "heads.safetensors"
CODED, WHOLE = pa.int16(), pa.int64()


def stored_samples(**changes: Any) -> pa.Table:
    """The good samples as the format stores them, with some columns replaced or added."""
    columns = {
        "age": pa.array([18, 44, 100], WHOLE),
        "income": pa.array([0.0, None, 123.456789], pa.float64()),
        "job": pa.array([1, None, 2], CODED),
        "cards": pa.array([None, 9, 0], WHOLE),
        "grade": pa.array([2, 0, 1], CODED),
        "default": pa.array([0, 1, 0], CODED),
    }
    return pa.table(columns | changes)


def parquet(table: pa.Table, **options: Any) -> bytes:
    """A Parquet file as the format has it, but for `options`."""
    sink = io.BytesIO()
    settings: dict[str, Any] = {"compression": "NONE", "store_schema": False, "write_statistics": False} | options
    pq.write_table(table, sink, **settings)
    return sink.getvalue()


def with_rows(house: House, **changes: Any) -> bytes:
    """The good bundle with some columns of its samples replaced."""
    return with_file(house.data, house.key, SAMPLES, parquet(stored_samples(**changes)))


# --- rows that do not fit the schema ----------------------------------------------------------------------------------


@attack(BundleSamplesError)
def number_not_a_number(house: House) -> bytes:
    """A number is NaN."""
    return with_rows(house, income=pa.array([float("nan"), 0, 0], pa.float64()))


@attack(BundleSamplesError)
def number_infinite(house: House) -> bytes:
    """A number is infinite."""
    return with_rows(house, income=pa.array([float("-inf"), 0, 0], pa.float64()))


@attack(BundleSamplesError)
def number_out_of_bounds(house: House) -> bytes:
    """A number lies outside the schema's bounds."""
    return with_rows(house, age=pa.array([18, 44, 101], WHOLE))


@attack(BundleSamplesError)
def number_huge(house: House) -> bytes:
    """A whole number of 63 bits."""
    return with_rows(house, cards=pa.array([2**63 - 1, -(2**63), 0], WHOLE))


@attack(BundleSamplesError)
def category_unknown(house: House) -> bytes:
    """A category that the schema does not have."""
    return with_rows(house, grade=pa.array([3, 0, 1], CODED))


@attack(BundleSamplesError)
def category_negative(house: House) -> bytes:
    """A category counted from the end."""
    return with_rows(house, job=pa.array([-1, 0, 1], CODED))


@attack(BundleSamplesError)
def missing_target(house: House) -> bytes:
    """A missing value in a column that must not have any."""
    return with_rows(house, default=pa.array([None, 0, 1], CODED))


@attack(BundleSamplesError)
def column_of_text(house: House) -> bytes:
    """A column of texts."""
    return with_rows(house, job=pa.array(["clerk", None, "nurse"]))


@attack(BundleSamplesError)
def column_of_lists(house: House) -> bytes:
    """A column of lists."""
    return with_rows(house, job=pa.array([[[1]], None, []], pa.list_(pa.list_(CODED))))


@attack(BundleSamplesError)
def column_added(house: House) -> bytes:
    """A column that the schema does not have."""
    return with_rows(house, names=pa.array([1, 2, 3], WHOLE))


# --- files that the Parquet library must not see, or does not survive ---------------------------------------------------


@attack(BundleSamplesError)
def parquet_of_nothing(house: House) -> bytes:
    """Samples of twelve bytes."""
    return with_file(house.data, house.key, SAMPLES, b"PAR1\0\0\0\0PAR1")


@attack(BundleSamplesError)
def parquet_packed_inside(house: House) -> bytes:
    """Pages packed by zstd, whose claims nobody has checked."""
    return with_file(house.data, house.key, SAMPLES, parquet(stored_samples(), compression="zstd"))


@attack(BundleSamplesError)
def parquet_with_metadata(house: House) -> bytes:
    """Metadata, as pandas writes it, that some readers obey."""
    return with_file(house.data, house.key, SAMPLES, parquet(stored_samples(), store_schema=True))


@attack(BundleSamplesError)
def parquet_encrypted(house: House) -> bytes:
    """An encrypted footer."""
    content = contents(house.data)[1][SAMPLES]
    return with_file(house.data, house.key, SAMPLES, b"PARE" + content[4:-4] + b"PARE")


@attack(BundleSamplesError)
def parquet_footer_too_long(house: House) -> bytes:
    """A footer of 4 GB, by its length."""
    content = contents(house.data)[1][SAMPLES]
    return with_file(house.data, house.key, SAMPLES, content[:-8] + b"\xff\xff\xff\xff" + content[-4:])


@attack(BundleSamplesError)
def parquet_footer_of_noise(house: House) -> bytes:
    """A footer of noise."""
    noise = np.random.default_rng(0).bytes(300)
    content = b"PAR1" + bytes(50) + noise + len(noise).to_bytes(4, "little") + b"PAR1"
    return with_file(house.data, house.key, SAMPLES, content)


@attack(BundleSamplesError)
def parquet_footer_nested(house: House) -> bytes:
    """A footer nested ten thousand deep."""
    footer = b"\x9c" + b"\x1c" * 10_000 + b"\0" * 10_001
    content = b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    return with_file(house.data, house.key, SAMPLES, content)


@attack(BundleSamplesError)
def parquet_many_rows(house: House) -> bytes:
    """A footer that claims 2**62 rows, each group and column in agreement."""

    def lie(footer: thrift.Struct) -> None:
        footer[3] = (thrift.I64, 1 << 62)
        for group in groups_of(footer):
            group[3] = (thrift.I64, 1 << 62)
            for meta in metas_of(group):
                meta[5] = (thrift.I64, 1 << 62)

    return with_footer(house, lie)


@attack(BundleSamplesError)
def parquet_negative_rows(house: House) -> bytes:
    """A footer of two groups, one of them with fewer than no rows."""

    def lie(footer: thrift.Struct) -> None:
        first = groups_of(footer)[0]
        groups_of(footer).append(first | {3: (thrift.I64, -3)})
        footer[3] = (thrift.I64, 0)

    return with_footer(house, lie)


@attack(BundleSamplesError)
def parquet_rows_without_pages(house: House) -> bytes:
    """A footer that claims six rows, where the pages hold three."""

    def lie(footer: thrift.Struct) -> None:
        footer[3] = (thrift.I64, 6)
        for group in groups_of(footer):
            group[3] = (thrift.I64, 6)
            for meta in metas_of(group):
                meta[5] = (thrift.I64, 6)

    return with_footer(house, lie)


@attack(BundleSamplesError)
def parquet_rows_from_nothing(house: House) -> bytes:
    """Eight million rows of a repeated value, in pages of a few bytes."""
    return repeated_rows(house, 8_000_000)


def repeated_rows(house: House, rows: int) -> bytes:
    """The good bundle with this many rows, all alike and in bounds, in pages of a few bytes."""
    runs = thrift.varint(rows << 1)
    levels = len(runs + b"\1").to_bytes(4, "little") + runs + b"\1"  # none is missing
    body, places = b"PAR1", []
    for value in (18, 0, 0, 0, 0, 0):
        places.append(len(body))
        dictionary = {1: (thrift.I32, 1), 2: (thrift.I32, 0)}
        body += page(2, value.to_bytes(8, "little"), {7: (thrift.STRUCT, dictionary)})
        coded = {n: (thrift.I32, v) for n, v in {1: rows, 2: 8, 3: 3, 4: 3}.items()}  # codes; run lengths for levels
        places.append(len(body))
        body += page(0, levels + b"\1" + runs + b"\0", {5: (thrift.STRUCT, coded)})
    places.append(len(body))

    def lie(footer: thrift.Struct) -> None:
        footer[3] = (thrift.I64, rows)
        for group in groups_of(footer):
            group[3] = (thrift.I64, rows)
            for i, meta in enumerate(metas_of(group)):
                start, data, end = places[2 * i : 2 * i + 3]
                fields = {5: rows, 6: end - start, 7: end - start, 9: data, 11: start}
                meta.update({n: (thrift.I64, v) for n, v in fields.items()})

    return with_footer(house, lie, body=body)


@attack(BundleSamplesError)
def parquet_beyond_its_end(house: House) -> bytes:
    """A column that begins behind the file's end."""

    def lie(footer: thrift.Struct) -> None:
        metas_of(groups_of(footer)[0])[1][9] = (thrift.I64, 1 << 40)

    return with_footer(house, lie)


@attack(BundleSamplesError)
def parquet_in_another_file(house: House) -> bytes:
    """A column that lies in /etc/passwd."""

    def lie(footer: thrift.Struct) -> None:
        chunks = groups_of(footer)[0][1][1][1]
        chunks[0] = {1: (thrift.BINARY, b"/etc/passwd"), **chunks[0]}

    return with_footer(house, lie)


@attack(BundleSamplesError)
def parquet_nested_schema(house: House) -> bytes:
    """A schema whose root has fewer children than there are, so that the rest belong to a column."""

    def lie(footer: thrift.Struct) -> None:
        elements = footer[2][1][1]
        elements[0][5] = (thrift.I32, 1)
        elements[1][5] = (thrift.I32, 5)

    return with_footer(house, lie)


@attack(BundleSamplesError)
def parquet_repeated_column(house: House) -> bytes:
    """A column with any number of values a row."""

    def lie(footer: thrift.Struct) -> None:
        footer[2][1][1][1][3] = (thrift.I32, 2)

    return with_footer(house, lie)


@attack(BundleSamplesError)
def page_of_two_gigabytes(house: House) -> bytes:
    """A page header that claims 2 GB."""
    return with_page(house, lambda header: header.update(dict.fromkeys((2, 3), (thrift.I32, (1 << 31) - 1))))


@attack(BundleSamplesError)
def page_of_many_values(house: House) -> bytes:
    """A dictionary page header that claims two thousand million values, for which a reader may reserve 16 GB."""
    return with_page(house, lambda header: header[7][1].update({1: (thrift.I32, (1 << 31) - 1)}))


@attack(BundleSamplesError)
def page_of_negative_size(house: House) -> bytes:
    """A page header of negative sizes."""
    return with_page(house, lambda header: header.update({2: (thrift.I32, -1), 3: (thrift.I32, -1)}))


@attack(BundleSamplesError)
def page_of_unknown_coding(house: House) -> bytes:
    """A dictionary page in a coding that does not exist."""
    return with_page(house, lambda header: header[7][1].update({2: (thrift.I32, 77)}))


@attack(BundleSamplesError)
def page_code_out_of_range(house: House) -> bytes:
    """A page whose values point behind their dictionary's end."""
    return with_page(house, lambda header: header[7][1].update({1: (thrift.I32, 0)}))


def groups_of(footer: thrift.Struct) -> list[thrift.Struct]:
    """Row groups."""
    groups: list[thrift.Struct] = footer[4][1][1]
    return groups


def metas_of(group: thrift.Struct) -> list[thrift.Struct]:
    """Metadata of a row group's columns."""
    return [chunk[3][1] for chunk in group[1][1][1]]


def with_footer(house: House, lie: Callable[[thrift.Struct], object], *, body: bytes | None = None) -> bytes:
    """The good bundle whose samples have another footer, and perhaps other pages."""
    content = contents(house.data)[1][SAMPLES]
    size = int.from_bytes(content[-8:-4], "little")
    footer, _ = thrift.read(content[-8 - size : -8])
    lie(footer)
    new = thrift.write(footer)
    pages = content[: -8 - size] if body is None else body
    return with_file(house.data, house.key, SAMPLES, pages + new + len(new).to_bytes(4, "little") + b"PAR1")


def with_page(house: House, lie: Callable[[thrift.Struct], object]) -> bytes:
    """The good bundle whose samples begin with another page header; all that lies behind moves."""
    content = contents(house.data)[1][SAMPLES]
    header, end = thrift.read(content, 4)
    lie(header)
    new = thrift.write(header)
    moved = len(new) - (end - 4)
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")

    def move(footer: thrift.Struct) -> None:
        for group in groups_of(footer):
            for place, meta in enumerate(metas_of(group)):
                grown = [n for n in (6, 7) if place == 0]
                shifted = [n for n in (9, 11) if n in meta and meta[n][1] > 4]
                meta.update({n: (thrift.I64, meta[n][1] + moved) for n in [*grown, *shifted]})

    return with_footer(house, move, body=content[:4] + new + content[end:start])


def page(kind: int, data: bytes, fields: thrift.Struct) -> bytes:
    """A page, plainly stored."""
    sizes = {1: (thrift.I32, kind), 2: (thrift.I32, len(data)), 3: (thrift.I32, len(data))}
    return thrift.write(sizes | fields) + data


# --- tensors ----------------------------------------------------------------------------------------------------------------


def described(**changes: Any) -> dict[str, Any]:
    """A header of one tensor of two doubles."""
    return {"w": {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]} | changes}


def with_tensors(house: House, header: Any, body: bytes = bytes(16)) -> bytes:
    """The good bundle with other tensors as its heads."""
    return with_file(house.data, house.key, HEADS, tensor_file(header, body))


@attack(BundleTensorError)
def tensors_header_too_long(house: House) -> bytes:
    """A header of 2**60 bytes, by its length."""
    return with_file(house.data, house.key, HEADS, (1 << 60).to_bytes(8, "little") + b"{}")


@attack(BundleTensorError)
def tensors_header_nested(house: House) -> bytes:
    """A header of lists a hundred thousand deep."""
    return with_tensors(house, b"[" * 100_000)


@attack(BundleTensorError)
def tensors_header_repeats(house: House) -> bytes:
    """A header that describes one tensor twice."""
    line = b'"w":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}'
    return with_tensors(house, b"{" + line + b"," + line + b"}")


@attack(BundleTensorError)
def tensors_with_metadata(house: House) -> bytes:
    """A header with metadata."""
    return with_tensors(house, described() | {"__metadata__": {"format": "pt"}})


@attack(BundleTensorError)
def tensors_overlapping(house: House) -> bytes:
    """Two tensors share their bytes, so that a small file becomes a large one."""
    return with_tensors(house, described() | {"v": described()["w"]})


@attack(BundleTensorError)
def tensors_with_a_gap(house: House) -> bytes:
    """Bytes that no tensor describes."""
    return with_tensors(house, described(data_offsets=[8, 24]), bytes(24))


@attack(BundleTensorError)
def tensors_with_a_rest(house: House) -> bytes:
    """Bytes behind the last tensor."""
    return with_tensors(house, described(), bytes(24))


@attack(BundleTensorError)
def tensors_beyond_the_end(house: House) -> bytes:
    """A tensor that ends behind the file."""
    return with_tensors(house, described(shape=[1 << 30], data_offsets=[0, 1 << 33]))


@attack(BundleTensorError)
def tensors_backwards(house: House) -> bytes:
    """A tensor that ends before it begins."""
    return with_tensors(house, described(shape=[-2], data_offsets=[16, 0]))


@attack(BundleTensorError)
def tensors_shape_overflows(house: House) -> bytes:
    """A shape whose product is 0 in 64 bits."""
    return with_tensors(house, described(shape=[1 << 32, 1 << 32], data_offsets=[0, 0]), b"")


@attack(BundleTensorError)
def tensors_of_objects(house: House) -> bytes:
    """A type that holds Python objects."""
    return with_tensors(house, described(dtype="O"))


@attack(BundleTensorError)
def tensors_of_strange_truth(house: House) -> bytes:
    """A truth value that is 7."""
    return with_tensors(house, described(dtype="BOOL", shape=[1], data_offsets=[0, 1]), b"\7")


@attack(BundleTensorError)
def tensors_not_a_number(house: House) -> bytes:
    """A tensor holds NaN."""
    return with_tensors(house, described(), np.array([1.0, np.nan]).tobytes())


@attack(BundleTensorError)
def tensors_infinite(house: House) -> bytes:
    """A tensor holds infinity."""
    return with_tensors(house, described(), np.array([1.0, np.inf]).tobytes())


@attack(BundleTensorError)
def tensors_too_many(house: House) -> bytes:
    """Three thousand tensors."""
    empty = {"dtype": "F64", "shape": [0], "data_offsets": [0, 0]}
    return with_tensors(house, {f"t{i}": empty for i in range(3_000)}, b"")


@attack(BundleTensorError)
def tensors_terminal_codes(house: House) -> bytes:
    """A tensor whose name clears the reader's screen."""
    return with_tensors(house, {"\x1b[2J": described()["w"]})
