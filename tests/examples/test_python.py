"""The page on Python: each block of code runs, in the order of the page, on made-up tables."""

import re
from pathlib import Path
from typing import Any

import pytest

import distill
from distill.data import sources
from tests.end_to_end.small_banks import loans, make_bank, quicken

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks() -> list[tuple[int, str]]:
    """Each block of code of the page, and the line that it begins on."""
    text = PAGE.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in BLOCK.finditer(text)]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page takes for granted: a project with a grant, and another table of the same schema."""
    make_bank(tmp_path / "loans", loans(1500, seed=1))
    (tmp_path / "loans" / "loans.schema.json").rename(tmp_path / "loans.schema.json")
    text = (tmp_path / "loans" / "distill.toml").read_text()
    (tmp_path / "loans" / "distill.toml").write_text(text.replace('"loans.schema.json"', '"../loans.schema.json"'))
    sources.write_table(loans(1500, seed=2), tmp_path / "bank.csv")
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_of_the_page_runs(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quicken(monkeypatch)
    names: dict[str, Any] = {}
    for line, code in blocks():
        exec(compile("\n" * line + code, str(PAGE), "exec"), names)
    assert names["rows"].shape == (2_000, 4)
    assert list(names["scores"].columns) == ["income", "age", "region", "default", "score"]
    assert {path.name for path in prepared.iterdir()} >= {
        "model",
        "models.db",
        "hub.db",
        "small.distill",
        "figures.json",
    }
    spent = distill.Project.open("bank").ledger().summary().spent_epsilon
    assert spent == pytest.approx(2 + 1 + 1 + 1), (
        "two fits and two evaluations; the one that was refused is not charged"
    )
    assert "granted" in capsys.readouterr().out


def test_the_page_shows_every_name_of_the_doors() -> None:
    import server_train

    shown = "".join(code for _, code in blocks())
    wanted = [f"distill.{name}" for name in distill.__all__ if name != "__version__"]
    wanted += [f"server_train.{name}" for name in server_train.__all__]
    assert not [name for name in wanted if not re.search(rf"\b{re.escape(name)}\b", shown)]
