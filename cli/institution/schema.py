"""`distill schema`: draft a public schema from a table, and check a schema or a table against one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.shared.output import JsonOption, ProjectOption, Report, project_at, reporting, task_in_words

if TYPE_CHECKING:
    from distill.data.schema import Schema

EXIT_UNFIT = 2

app = typer.Typer(help="Draft and check the public schema of a table.", no_args_is_help=True)


@app.command()
def draft(
    file: Annotated[Path, typer.Argument(help="The private table, CSV or Parquet.", metavar="FILE")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the draft goes; else on stdout.", metavar="OUT")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column to predict; else the last one that has classes.", metavar="COLUMN")
    ] = None,
    no_target: Annotated[bool, typer.Option("--no-target", help="Nothing is to be predicted.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a first draft of a schema, every bound and category marked as taken from the data.

    The draft says something about private rows: confirm it from public knowledge before it leaves your hands.
    """
    with reporting(as_json) as report:
        from distill.data.schema_draft import UNCONFIRMED, draft_schema, write_draft
        from distill.errors import ConfigError

        if no_target and target is not None:
            raise ConfigError("--target and --no-target contradict each other; give one of them.")
        drafted = draft_schema(file, target=target, no_target=no_target)
        if out is not None:
            write_draft(drafted, out, overwrite=force)
        for note in (*drafted.notes, UNCONFIRMED):
            report.note(note)
        columns = len(drafted.schema["columns"])
        chosen = "no target" if drafted.schema["target"] is None else f"target {drafted.schema['target']!r}"
        written = f"wrote {out}: {columns} columns to confirm, {chosen}"
        report(
            {"out": out, "notes": drafted.notes, "warning": UNCONFIRMED, "schema": drafted.schema},
            drafted.text().rstrip() if out is None else written,
        )


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A table (CSV, Parquet) or a schema (JSON).", metavar="FILE")],
    schema: Annotated[
        Path | None, typer.Option(help="Schema of the table; else the project's.", metavar="FILE")
    ] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say whether a table fits its schema, or whether a schema is sound; for the operator's eyes."""
    with reporting(as_json) as report:
        from distill.data.schema import load_schema

        if file.suffix.lower() == ".json":
            _check_schema(file, load_schema(file), report)
        else:
            path = schema if schema is not None else project_at(project).schema
            _check_table(file, load_schema(path), report)


def _check_schema(file: Path, schema: "Schema", report: Report) -> None:
    """Say what a schema describes and whether it is confirmed; a draft exits with 2."""
    open_columns = [column.name for column in schema.columns if column.from_data]
    features = f"{len(schema.columns)} columns, {task_in_words(schema)}"
    state = f"{len(open_columns)} column(s) not confirmed: {', '.join(open_columns)}" if open_columns else "confirmed"
    payload: dict[str, Any] = {
        "schema": file,
        "confirmed": not open_columns,
        "digest": schema.digest(),
        "columns": len(schema.columns),
        "target": schema.target,
        "task": schema.task,
        "unconfirmed": open_columns,
    }
    report(payload, f"{file} is a sound schema: {features}; {state}.")
    if open_columns:
        raise typer.Exit(EXIT_UNFIT)


def _check_table(file: Path, schema: "Schema", report: Report) -> None:
    """Say what does not fit, column by column; exit code 2 if a fit would refuse the table."""
    from distill.data.tables import check_table

    findings = check_table(file, schema)
    errors = [finding for finding in findings if finding.severity == "error"]
    lines = [f"{finding.severity}: {finding.message}" for finding in findings]
    verdict = f"does not fit schema {schema.name!r}" if errors else f"fits schema {schema.name!r}"
    report(
        {
            "table": file,
            "fits": not errors,
            "findings": [{"column": f.column, "severity": f.severity, "message": f.message} for f in findings],
        },
        "\n".join([*lines, f"{file} {verdict}."]),
    )
    if errors:
        raise typer.Exit(EXIT_UNFIT)
