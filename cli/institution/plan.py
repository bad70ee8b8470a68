"""`distill plan`: what a fit would read and what it would cost. Reads no private row."""

from pathlib import Path
from typing import Annotated

import typer

from cli.institution.plan_view import ShareOption
from cli.shared.output import JsonOption, ProjectOption, RowsPerUnitOption, project_at, reporting

ASSUMED_ROWS = 10_000


def plan(
    epsilon: Annotated[float | None, typer.Option(help="Budget of the release; else the project's.")] = None,
    delta: Annotated[float | None, typer.Option(help="Else the project's.")] = None,
    rows: Annotated[
        int, typer.Option(help="Assumed row count: a public guess. `fit` uses its own noisy count.", min=1)
    ] = ASSUMED_ROWS,
    max_rows_per_unit: RowsPerUnitOption = 1,
    schema: Annotated[Path | None, typer.Option(help="Schema; else the project's.")] = None,
    share: ShareOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show the budget: each mechanism, its share, noise, rate, steps and epsilon, alone and jointly; and why it is so."""
    with reporting(as_json) as report:
        from rich.console import Group

        from cli.institution.plan_view import choices_payload, choices_table, plan_payload, plan_table, read_shares
        from distill.data.schema import load_schema
        from distill.synthesis.planning.plan import make_plan

        given = {"schema": schema, "epsilon": epsilon, "delta": delta}
        if None in given.values():
            settings = project_at(project)
            given = {name: getattr(settings, name) if value is None else value for name, value in given.items()}
        described = load_schema(Path(str(given["schema"])))
        made = make_plan(
            described,
            rows,
            epsilon=_number(given["epsilon"]),
            delta=_number(given["delta"]),
            shares=read_shares(share),
            rows_per_unit=max_rows_per_unit,
        )
        report(
            plan_payload(made) | choices_payload(made, described) | {"assumed_rows": rows},
            None if as_json else Group(plan_table(made), choices_table(made, described)),
        )
        if not as_json:
            report.note(f"A preview for {rows:,} rows (--rows). No row was read and nothing was charged.")


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value
