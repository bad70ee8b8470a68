"""The reference of commands is what the commands themselves say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"


def test_the_page_is_what_the_commands_say() -> None:
    ran = subprocess.run(
        [sys.executable, str(FOLDER / "make_commands.py")],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    page = (FOLDER / "commands.md").read_text(encoding="utf-8")
    assert page == ran.stdout, "make it anew: python docs/reference/make_commands.py > docs/reference/commands.md"
    for command in ("distill fit", "distill train-global", "distill ledger grant"):
        assert f"## {command}\n" in page


def test_every_setting_of_a_project_is_explained() -> None:
    from distill import project

    page = (FOLDER / "project.md").read_text(encoding="utf-8")
    for setting in (*project._TEXTS, *project._OPTIONAL_PATHS, "budget.epsilon", "budget.delta"):
        assert f"`{setting}`" in page, f"docs/reference/project.md does not explain {setting}"
