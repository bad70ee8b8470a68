"""`distill init`: the project file, the key and the empty ledger of one data set."""

from pathlib import Path
from typing import Annotated

import typer

from cli.shared.output import JsonOption, reporting, task_in_words


def init(
    data: Annotated[Path, typer.Option(help="The private table, CSV or Parquet.", metavar="FILE")],
    schema: Annotated[Path, typer.Option(help="Its public schema, JSON.", metavar="FILE")],
    folder: Annotated[Path, typer.Argument(help="Folder of the project; made if absent.", metavar="DIR")] = Path(),
    name: Annotated[str | None, typer.Option(help="Name of the institution; else the folder's.")] = None,
    officer: Annotated[
        Path | None,
        typer.Option(
            help="Public key of the privacy officer, who keeps the private half; else a pair is made here.",
            metavar="KEY.pub",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace distill.toml; ledger and key are kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Set up a project: distill.toml, and the keys of operator and privacy officer and an empty privacy ledger if absent."""
    with reporting(as_json) as report:
        from distill.data.schema import load_schema
        from distill.project import PROJECT_FILE, Project

        project = Project.create(folder, data=data, schema=schema, name=name, officer=officer, overwrite=force)
        paths = ("data", "schema", "key", "officer", "out")
        shown = {key: str(getattr(project, key)) for key in ("name", "dataset", *paths)}
        shown["ledger"] = str(project.ledger_file)
        described = load_schema(project.schema)
        drafted = any(column.from_data for column in described.columns)
        report(
            {
                "project": str(project.folder / PROJECT_FILE),
                **shown,
                "schema_confirmed": not drafted,
                "task": described.task,
            },
            f"The schema has {len(described.columns)} columns, {task_in_words(described)}.\n"
            + _next_steps(
                project.folder / PROJECT_FILE,
                project.epsilon,
                project.delta,
                drafted=drafted,
                away=not project.officer.exists(),
            ),
        )


def _next_steps(path: Path, epsilon: float, delta: float, *, drafted: bool, away: bool) -> str:
    """What there is now and what comes next."""
    confirm = ["  0. confirm the schema: replace drafted bounds by public ones and delete the `from_data` marks"]
    keys = "the operator's key, the officer's public key" if away else "the keys of operator and privacy officer"
    signed = " --key OFFICER.pem" if away else ""
    return "\n".join(
        [
            f"Wrote {path}, with {keys} and a privacy ledger beside it.",
            f"Next, in {path.parent}:",
            *(confirm if drafted else []),
            f'  1. distill ledger grant --epsilon {epsilon:g} --delta {delta:g} --reason "who allowed this, and why"{signed}',
            f"  2. distill plan --epsilon {epsilon:g}   (what each part of the budget buys; reads no row)",
            f"  3. distill fit --epsilon {epsilon:g}    (one signed bundle, to send to the hub)",
        ]
    )
