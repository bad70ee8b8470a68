"""README and tutorial, pasted into a shell as a reader would, print what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETS_UP = ("make ", "python3.11 -m venv", ".venv/bin/pip")  # blocks that begin so make an environment: CI runs them


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def steps(block: str) -> list[tuple[str, str]]:
    """Commands of a console block with what each prints; a here-document belongs to its command."""
    found: list[tuple[list[str], list[str]]] = []
    end = ""
    for line in block.splitlines():
        if end:
            found[-1][0].append(line)
            end = "" if line == end else end
        elif line.startswith("$ "):
            found.append(([line[2:]], []))
            marker = re.search(r"<<'(\w+)'", line)
            end = marker[1] if marker else ""
        else:
            found[-1][1].append(line)
    return [("\n".join(command), "\n".join(said)) for command, said in found]


def matches(said: str, expected: str) -> bool:
    """Whether what was printed is what is written, where `...` stands for anything."""
    pattern = "".join(".*" if part == "..." else re.escape(part) for part in re.split(r"(\.\.\.)", expected.strip()))
    return re.fullmatch(pattern, said.strip(), flags=re.S) is not None


@pytest.fixture
def shell(tmp_path_factory: pytest.TempPathFactory):
    """Run a command in one folder, with `distill` and `python` on the PATH: these very sources."""
    folder = tmp_path_factory.mktemp("reader")
    tools = tmp_path_factory.mktemp("bin")
    for name, words in {"distill": "-c 'from cli.app import main; main()' ", "python": ""}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (tools / name).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    more = {"PATH": path, "PYTHONPATH": str(ROOT), "DISTILL_STATE": str(folder / "known"), "COLUMNS": "120"}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**os.environ, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    run.folder = folder  # type: ignore[attr-defined]
    return run


@pytest.mark.slow
def test_the_tutorial_prints_what_it_says(shell) -> None:
    ran = 0
    for block in blocks(ROOT / "docs" / "tutorial.md", "console"):
        for command, expected in steps(block):
            done = shell(command)
            assert matches(done.stdout, expected), f"$ {command}\n{done.stdout}\n--- but it says:\n{expected}"
            refused = expected.startswith("error:")
            assert done.returncode == (2 if refused else 0), f"$ {command}\n{done.stdout}"
            ran += 1
    assert ran > 15


@pytest.mark.slow
def test_the_readme_takes_ones_own_table_to_a_bundle(shell) -> None:
    rows = "".join(f"{i % 97 * 31.5},{'city' if i % 3 else 'land'},{int(i % 7 < 2)}\n" for i in range(1200))
    (shell.folder / "loans.csv").write_text("income,region,default\n" + rows)
    pasted = [b for b in blocks(ROOT / "README.md", "") if not b.startswith(SETS_UP)]
    assert len(pasted) == 1
    for line in pasted[0].splitlines():
        command = line.partition(" # ")[0].partition("   #")[0]
        done = shell(command.replace("  //", ""))
        assert done.returncode == 0, f"$ {line}\n{done.stdout}"
        if "schema draft" in command:  # the reader replaces every drafted bound by public knowledge
            schema = shell.folder / "loans.schema.json"
            schema.write_text(re.sub(r'\n *"from_data": true,', "", schema.read_text()))
    assert list((shell.folder / "bank").glob("*.distill"))


def test_the_comparison_would_notice_other_words() -> None:
    assert matches("a 17 b\nc", "a ... b\n...")
    assert not matches("a 17 c", "a ... b")
    assert not matches("", "error: ...")
    assert steps("$ cat <<'END'\nx\nEND\n$ ls\ny\n") == [("cat <<'END'\nx\nEND", ""), ("ls", "y")]
