"""Where tables come from: CSV and Parquet files, read in batches and written whole or not at all, and pandas frames.

This module knows file formats and no schema. CSV cells come as text; cells of Parquet and of frames as their own types.
Every fault becomes a DataError that names the source, the fault and the mend, and quotes no cell: the header's names
are all that a caller learns besides the batches. A frame is only read, never changed or kept.
"""

import codecs
import contextlib
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from distill.common import files
from distill.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Source: TypeAlias = "Path | pd.DataFrame"  # a table's file, or its rows in memory

FRAME = "the data frame"  # what errors call rows in memory
CSV_SUFFIXES, PARQUET_SUFFIXES = (".csv",), (".parquet", ".pq")
BATCH_ROWS = 65_536
BLOCK_BYTES = 8 << 20  # a CSV batch; no single row may be longer
HEADER_BYTES = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Batches:
    """An open table.

    Attributes:
        names: The column names as the source has them, outer spaces removed; they may repeat.
        columns: Yields for each batch one pyarrow array a name, in the same order.
        typed: Whether the source tells numbers from texts (Parquet, frames); in CSV every cell is text.
    """

    names: tuple[str, ...]
    columns: Iterator[list[Any]]
    typed: bool


@contextmanager
def open_table(source: Source) -> Iterator[Batches]:
    """Open a CSV or Parquet file, or a frame, for reading in batches; a file is closed when the block ends.

    Raises:
        DataError: at once or while batches are drawn: the file is missing, empty, a directory, of an unknown kind,
            unreadable, damaged, not UTF-8, without a usable header, separated by something else than commas, ragged;
            the frame has no columns, or one of values of a kind that no table file has.
    """
    if not isinstance(source, Path):
        yield open_frame(source, FRAME)
        return
    suffix = check_file(source)
    reader = _open_csv(source) if suffix in CSV_SUFFIXES else _open_parquet(source)
    with files.wrapped("read", source, DataError), reader as batches:
        yield batches


def open_frame(frame: "pd.DataFrame", where: str) -> Batches:
    """Return a frame as an open table, without its index; `where` names it in errors.

    Raises:
        DataError: As `open_table` does; at once or while batches are drawn.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        kind = type(frame).__name__
        raise DataError(f"{where} is a {kind}; give a pandas DataFrame, or the path of a CSV or Parquet file.")
    if not len(frame.columns):
        raise DataError(f"{where} has no columns; give the whole table.")
    starts = range(0, len(frame), BATCH_ROWS)
    batches = (_arrays(frame.iloc[start : start + BATCH_ROWS], where) for start in starts)
    return Batches(tuple(str(name).strip() for name in frame.columns), batches, typed=True)


def name_of(source: Source) -> str:
    """Return what errors call a table: its path, or that it is a data frame."""
    return str(source) if isinstance(source, Path) else FRAME


def files_of(source: Source) -> tuple[Path, ...]:
    """Return the files that a table lies in, none for a frame: a release never replaces them."""
    return (source,) if isinstance(source, Path) else ()


def check_file(path: Path) -> str:
    """Refuse what cannot be a table without looking inside: a wrong suffix, no file, a directory, an empty file.

    Returns the suffix in lower case. Raises DataError.
    """
    suffix = check_suffix(path)
    if path.is_dir():
        raise DataError(f"{path} is a directory; name one CSV or Parquet file.")
    if not path.exists():
        raise DataError(f"no table at {path}. Check the path.")
    with files.wrapped("read", path, DataError):
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes); export the table again, with a header line.")
    return suffix


def check_suffix(path: Path) -> str:
    """The file's suffix in lower case; DataError if it is none that can be read or written."""
    suffix = path.suffix.lower()
    if suffix not in CSV_SUFFIXES + PARQUET_SUFFIXES:
        raise DataError(f"{path}: the suffix {suffix!r} is not known; tables are .csv or .parquet files.")
    return suffix


def write_table(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV or Parquet, by the suffix; it is there in full or not at all.

    Missing values are empty in CSV and null in Parquet; the index is not written. Raises DataError.
    """
    write_parts([frame], path)


def write_parts(parts: "Iterable[pd.DataFrame]", path: Path, types: "pa.Schema | None" = None) -> None:
    """Write a table that comes in parts of the same columns, as `write_table` does; `types`: of the columns in Parquet."""
    suffix = check_suffix(path)
    with files.wrapped("write", path, DataError), files.staged(path) as temporary:
        try:
            with temporary.open("wb") as file:
                if suffix in CSV_SUFFIXES:
                    _write_csv(parts, file)
                else:
                    _write_parquet(parts, file, types)
                file.flush()
                os.fsync(file.fileno())
            files.put_in_place(temporary, path, overwrite=True)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _write_csv(parts: "Iterable[pd.DataFrame]", file: Any) -> None:
    for number, frame in enumerate(parts):
        # Python's writer leaves a lone carriage return unquoted, which every reader takes for the end of a row.
        texts = (values.astype(str) for _, values in frame.select_dtypes(["object", "category", "string"]).items())
        unsafe = any(text.str.contains("\r", regex=False).any() for text in texts)
        quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if unsafe else csv.QUOTE_MINIMAL
        frame.to_csv(file, index=False, encoding="utf-8", lineterminator="\n", quoting=quoting, header=number == 0)


def _write_parquet(parts: "Iterable[pd.DataFrame]", file: Any, types: "pa.Schema | None") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        writer = None
        for frame in parts:
            table = pa.Table.from_pandas(frame, types, preserve_index=False)
            writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema, compression="zstd"))
            writer.write_table(table)


def _arrays(frame: "pd.DataFrame", where: str) -> list[Any]:
    """A frame's columns as pyarrow arrays; columns of mixed objects become text."""
    import pyarrow as pa

    out = []
    for position in range(frame.shape[1]):
        values = frame.iloc[:, position]
        if values.dtype == object:
            values = values.map(str, na_action="ignore")
        try:
            out.append(pa.array(values, from_pandas=True))
        except (pa.ArrowException, TypeError):
            raise DataError(
                f"{where}: column number {position + 1} holds values of a kind that no table file has."
            ) from None
    return out


@contextmanager
def _open_parquet(path: Path) -> Iterator[Batches]:
    """Parquet: the columns that pandas adds for its index are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def columns() -> Iterator[list[Any]]:
        with _damage(path):
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield [batch.column(i) for i in kept]

    @contextmanager
    def _damage(path: Path) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, EOFError):  # their texts may quote bytes of the file
            raise DataError(
                f"{path} is not a readable Parquet file: it is damaged, cut short, encrypted or of another format. "
                "Export it again."
            ) from None

    with path.open("rb") as raw:  # a missing or forbidden file is told apart from a damaged one
        with _damage(path):
            file = pq.ParquetFile(raw)
            names = file.schema_arrow.names
        kept = [i for i, name in enumerate(names) if not _PANDAS_INDEX.fullmatch(name)]
        if not kept:
            raise DataError(f"{path} has no columns; export the table again.")
        yield Batches(tuple(names[i].strip() for i in kept), columns(), typed=True)


@contextmanager
def _open_csv(path: Path) -> Iterator[Batches]:
    """CSV: the header is read here, the rows by pyarrow, every cell as text."""
    names, lines, body = _csv_header(path)
    yield Batches(names, _csv_columns(path, len(names), lines) if body else iter(()), typed=False)


def _csv_header(path: Path) -> tuple[tuple[str, ...], int, bool]:
    """The header's names, how many lines it takes (blank ones before it included), and whether anything follows."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        whole = not file.read(1)
    if head.startswith(_UTF16):
        raise _encoding_error(path, "UTF-16")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=whole)
    except UnicodeDecodeError:
        raise _encoding_error(path, "another encoding") from None
    source = io.StringIO(text, newline="")
    reader = csv.reader(source)
    try:
        row = next((cells for cells in reader if any(c.strip() for c in cells)), None)
    except csv.Error:
        row = None
    rest = source.read()
    if row is None or not (rest or whole):
        raise DataError(f"{path} has no header line; the first line must name the columns, separated by commas.")
    if len(row) == 1:
        _check_delimiter(path, row[0])
    return tuple(cell.strip() for cell in row), reader.line_num, bool(rest.strip()) or not whole


def _check_delimiter(path: Path, header: str) -> None:
    """One column where commas were expected, but another common separator in it: say so."""
    delimiter = max(_DELIMITERS, key=header.count)
    if delimiter in header:
        raise DataError(
            f"{path}: the header holds one column when split at commas; the file seems to be separated by "
            f"{_DELIMITERS[delimiter]} ({delimiter!r}). Save it with commas, and with points in decimal numbers."
        )


def _csv_columns(path: Path, width: int, header_lines: int) -> Iterator[list[Any]]:
    """The batches of a CSV file behind its header."""
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    ragged: list[str] = []

    def note(row: Any) -> str:
        place = f"row {row.number} (the header is row 1, blank lines not counted)" if row.number else "a row"
        ragged.append(f"{place} has {row.actual_columns} cells where the header has {row.expected_columns}")
        return "error"

    names = [f"c{i}" for i in range(width)]  # names of our own: the file's may repeat
    try:
        with pa_csv.open_csv(
            str(path),
            pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, skip_rows=header_lines, column_names=names),
            pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            pa_csv.ConvertOptions(column_types={name: pa.string() for name in names}),
        ) as reader:
            for batch in reader:
                yield batch.columns
    except pa.ArrowException as error:  # its text quotes the row, so it is only searched, never shown
        if ragged:
            raise DataError(
                f"{path}: {ragged[0]}. Put cells that hold commas or line breaks in double quotes, and check that the "
                "file was not cut short."
            ) from None
        if "UTF8" in str(error):
            raise _encoding_error(path, "another encoding") from None
        raise DataError(
            f"{path} cannot be parsed as CSV; look for a double quote that is never closed, or export it again."
        ) from None


def _encoding_error(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} is not UTF-8 but {found}; save it as UTF-8 (for instance `iconv -f WINDOWS-1252 -t UTF-8 IN > OUT`)."
    )
