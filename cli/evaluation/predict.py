"""`distill predict`: class probabilities, or predicted numbers, for rows, in their order."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.shared.output import MODEL_HELP, JsonOption, reporting

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from distill.data.schema import Schema


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
        import pandas as pd

        from distill.data.sources import check_suffix
        from distill.data.tables import read_table, write_table
        from distill.errors import DataError
        from server_train.models.model import load_model
        from server_train.registry.lookup import model_at

        check_suffix(out)
        if out.resolve() == data.resolve():
            raise DataError(f"{out} is the table itself; name another file for the scores.")
        with model_at(model) as place:
            loaded = load_model(place)
        frame = read_table(data, loaded.schema, role="predict")
        if loaded.schema.task == "number":
            scores = pd.DataFrame({"prediction": loaded.predict_number(frame)})
        else:
            scores = scores_table(loaded.predict(frame), loaded.schema)
        write_table(scores, out)
        payload = {
            "out": str(out),
            "columns": list(scores.columns),
            "rows": len(scores),
            "rehearsal": loaded.card.rehearsal,
        }
        report(
            payload,
            f"Wrote {len(scores):,} rows of scores to {out}. They are about real people: treat them as private.",
        )


def scores_table(probabilities: "np.ndarray", schema: "Schema") -> "pd.DataFrame":
    """Two classes: `score`, the probability of the last one. More: `probability_CLASS` for each."""
    import pandas as pd

    if len(schema.classes) == 2:
        return pd.DataFrame({"score": probabilities[:, -1]})
    return pd.DataFrame({f"probability_{name}": probabilities[:, i] for i, name in enumerate(schema.classes)})
