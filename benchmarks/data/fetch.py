"""(not a benchmark) Public tables from the UCI Machine Learning Repository, as Parquet with their public schemas.

    python -m benchmarks.data.fetch            into data/ in this repository; what is there already is left alone

The repository's CSV of each data set is turned into the table that the results here were measured on: named columns, the
code book's words for its codes, nulls for what was not recorded, the target as 0 and 1, no record numbers. What is pinned is
the SHA-256 of the *converted* table's content (its lines as CSV, sorted), not of the file that is fetched: the publisher may
pack or order the same records anew, but another record, column or value is refused. The schemas in `schemas/` are written from
the public data dictionaries. Licences of all three: CC BY 4.0.
"""

import argparse
import hashlib
import io
import json
import shutil
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = Path(__file__).with_name("schemas")
ADDRESS = "https://archive.ics.uci.edu/static/public/{number}/data.csv"
Open = Callable[[str], bytes]  # address -> content


class FetchError(Exception):
    """A table could not be fetched, or is not the one that the results were measured on; the text says which and why."""


@dataclass(frozen=True)
class Source:
    """One public table.

    Attributes:
        number: Of the data set in the repository.
        convert: The repository's rows as this table's, given the names of its columns in their order.
        sha256: Of the converted table's content, see `fingerprint`.
    """

    number: int
    convert: Callable[[pd.DataFrame, Sequence[str]], pd.DataFrame]
    sha256: str


def adult(raw: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """`?` and empty cells are nulls; the test half writes its labels with a full stop."""
    frame = _named(raw, names)
    texts = frame.select_dtypes(include=object).columns
    frame[texts] = frame[texts].apply(lambda column: column.str.strip().replace({"?": None, "": None}))
    return frame.assign(income=frame["income"].str.rstrip(".").map({"<=50K": 0, ">50K": 1}))


def taiwan_credit(raw: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Codes become the code book's words; those that it does not explain stay as unknown_N."""
    frame = _named(raw.drop(columns=[c for c in raw if str(c).strip().upper() == "ID"]), names)
    words = {
        "SEX": {1: "male", 2: "female"},
        "EDUCATION": {1: "graduate_school", 2: "university", 3: "high_school", 4: "others"},
        "MARRIAGE": {1: "married", 2: "single", 3: "others"},
    }
    return frame.assign(**{name: _spelt(frame[name], known) for name, known in words.items()})


def taiwan_bankruptcy(raw: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The published columns in the schema's order (the target comes first in the file); names without outer spaces."""
    frame = raw.rename(columns=lambda name: " ".join(str(name).split()))
    by_name = {" ".join(name.split()): name for name in names}
    return _named(frame[[name for name in by_name if name in frame]], names)


SOURCES: dict[str, Source] = {
    "adult": Source(2, adult, "5b8f0b54a0a782150817761fd9c118041fa339cba3b0bf012b18308ba65da9b5"),
    "taiwan_credit": Source(350, taiwan_credit, "fe01c5cee7a2d149b1340c3fd00b585e32fc65f3f5d8bee54f9ad8523f61aa26"),
    "taiwan_bankruptcy": Source(
        572, taiwan_bankruptcy, "f852ab28a88617f60b053496e81fc02df4b287971658f678336b4a81e5ae1925"
    ),
}


def _named(raw: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The columns under this table's names, by position."""
    if raw.shape[1] != len(names):
        raise FetchError(f"it has {raw.shape[1]} columns where {len(names)} were published")
    return raw.set_axis(list(names), axis=1)


def _spelt(codes: "pd.Series[int]", words: Mapping[int, str]) -> "pd.Series[str]":
    return codes.map(lambda code: words.get(int(code), f"unknown_{int(code)}")).astype(object)


def fingerprint(frame: pd.DataFrame) -> str:
    """SHA-256 of the table's header and its sorted lines as CSV; the order of the rows does not matter."""
    header, *lines = frame.to_csv(index=False, lineterminator="\n").splitlines()
    return hashlib.sha256("\n".join([header, *sorted(lines)]).encode()).hexdigest()


def fetch(folder: Path, open_address: Open | None = None, names: Sequence[str] = tuple(SOURCES)) -> list[str]:
    """Put the tables called `names` and their schemas into `folder`; returns those that were not there yet.

    Raises:
        FetchError: an address does not answer, or its table's content is not the pinned one. Nothing of it is written.
    """
    new = []
    for name in names:
        out = folder / f"{name}.parquet"
        if out.is_file():
            continue
        frame = fetched(name, open_address or over_the_net)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SCHEMAS / f"{name}.schema.json", folder / f"{name}.schema.json")
        frame.to_parquet(out.with_suffix(".part"), index=False)
        out.with_suffix(".part").replace(out)
        new.append(name)
    return new


def fetched(name: str, open_address: Open) -> pd.DataFrame:
    """One table, checked against its pinned content."""
    source = SOURCES[name]
    address = ADDRESS.format(number=source.number)
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    try:
        raw = pd.read_csv(io.BytesIO(open_address(address)), skipinitialspace=True, keep_default_na=True)
        frame = source.convert(raw, [column["name"] for column in schema["columns"]])
    except (OSError, ValueError, KeyError, FetchError) as failure:
        raise FetchError(
            f"{name} from {address}: {failure}. Try again later, or put {name}.parquet there yourself"
        ) from None
    found = fingerprint(frame)
    if found != source.sha256:
        raise FetchError(
            f"{name} from {address} is not the table that the results were measured on: its content has the SHA-256 {found}, "
            f"pinned is {source.sha256}. The publisher changed it, or it was damaged on the way"
        )
    return frame


def over_the_net(address: str) -> bytes:
    """The content at an address."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        content: bytes = answer.read()
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=ROOT / "data", help="folder (default: data/ in this repository)")
    options = p.parse_args(arguments)
    try:
        for name in fetch(options.out):
            print(f"{options.out / name}.parquet")
    except FetchError as failure:
        sys.exit(f"error: {failure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
