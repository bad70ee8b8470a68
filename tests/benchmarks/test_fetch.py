"""The benchmark's public tables: converted as published, pinned by content, fetched where there is no data at hand."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.data import fetch
from benchmarks.quality import utility


def test_the_fetched_table_is_the_pinned_one_or_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = "age,job,income\n39, ? ,<=50K\n50, Sales,>50K.\n"
    schema = {"columns": [{"name": name} for name in ("age", "work", "income")]}
    (tmp_path / "adult.schema.json").write_text(json.dumps(schema))
    wanted = pd.DataFrame({"age": [50, 39], "work": ["Sales", None], "income": [1, 0]})
    monkeypatch.setattr(fetch, "SCHEMAS", tmp_path)
    monkeypatch.setitem(fetch.SOURCES, "adult", fetch.Source(2, fetch.adult, fetch.fingerprint(wanted)))
    asked = []

    def open_address(address: str) -> bytes:
        asked.append(address)
        return published.encode()

    out = tmp_path / "data"
    assert fetch.fetch(out, open_address, ["adult"]) == ["adult"]
    assert fetch.fetch(out, open_address, ["adult"]) == []
    assert asked == ["https://archive.ics.uci.edu/static/public/2/data.csv"]
    assert pd.read_parquet(out / "adult.parquet").to_dict("list") == {
        "age": [39, 50],
        "work": [None, "Sales"],
        "income": [0, 1],
    }
    for changed, words in (
        (published.replace("50,", "51,"), "is not the table that the results were measured on"),
        ("<html>gone</html>", "has 1 columns where 3 were published"),
    ):
        with pytest.raises(fetch.FetchError, match=words):
            fetch.fetch(tmp_path / "other", lambda address, text=changed: text.encode(), ["adult"])  # type: ignore[misc]
    assert not (tmp_path / "other" / "adult.parquet").exists()


def test_the_published_codes_and_names_become_those_of_the_schemas() -> None:
    credit = pd.DataFrame(
        [[1, 20000, 2, 2, 3, 24], [2, 10000, 1, 6, 0, 50]], columns=["ID", "X1", "X2", "X3", "X4", "X5"]
    )
    named = fetch.taiwan_credit(credit, ["LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE"])
    assert named.to_dict("list") == {
        "LIMIT_BAL": [20000, 10000],
        "SEX": ["female", "male"],
        "EDUCATION": ["university", "unknown_6"],
        "MARRIAGE": ["others", "unknown_0"],
        "AGE": [24, 50],
    }
    ratios = pd.DataFrame([[1, 0.5, 0.25]], columns=["Bankrupt?", " ROA  (C)", " Debt"])
    ordered = fetch.taiwan_bankruptcy(ratios, ["ROA (C)", "Debt", "Bankrupt?"])
    assert ordered.to_dict("list") == {"ROA (C)": [0.5], "Debt": [0.25], "Bankrupt?": [1]}


def test_without_data_at_hand_the_public_tables_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(folder: Path) -> None:
        raise fetch.FetchError("adult from there: no answer")

    monkeypatch.setattr(utility, "DATA_FOLDERS", (tmp_path / "data", tmp_path / "shared"))
    monkeypatch.setattr(fetch, "fetch", unreachable)
    with pytest.raises(SystemExit, match="adult from there: no answer, or name a folder with --data"):
        list(utility.tables(None, None, 100, quick=False))
