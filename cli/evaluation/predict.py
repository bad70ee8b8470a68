"""`distill predict`: class probabilities, or predicted numbers, for rows, in their order."""

from pathlib import Path
from typing import Annotated

import typer

from cli.shared.output import MODEL_HELP, JsonOption, reporting


def predict(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP, metavar="MODEL")],
    data: Annotated[
        Path, typer.Argument(help="Rows to score, CSV or Parquet; the target may be absent.", metavar="DATA")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the scores go, CSV or Parquet.", metavar="OUT")],
    as_json: JsonOption = False,
) -> None:
    """Write scores, row by row: `score` is the probability of the last of two classes; of more, one column each.

    Of a target that is a number: `prediction`, its expected value.
    """
    with reporting(as_json, interrupted="Nothing was written.") as report:
        from distill.data.sources import check_suffix, write_table
        from distill.errors import DataError
        from server_train.hub.trained_model import load_model

        check_suffix(out)
        if out.resolve() == data.resolve():
            raise DataError(f"{out} is the table itself; name another file for the scores.")
        loaded = load_model(model)
        scores = loaded.predict(data)
        write_table(scores, out)
        payload = {
            "out": str(out),
            "columns": list(scores.columns),
            "rows": len(scores),
            "rehearsal": loaded.rehearsal,
        }
        report(
            payload,
            f"Wrote {len(scores):,} rows of scores to {out}. They are about real people: treat them as private.",
        )
