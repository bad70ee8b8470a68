"""`distill evaluate`: how good a model is on an institution's own real rows; the figures stay there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import MODEL_HELP, JsonOption, reporting

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

    from server_train.evaluation import Evaluation, NumberEvaluation
    from server_train.model import Model


def evaluate(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP, metavar="MODEL")],
    data: Annotated[Path, typer.Argument(help="Real rows with the target, CSV or Parquet.", metavar="DATA")],
    as_json: JsonOption = False,
) -> None:
    """Score a model on real rows and print the figures, locally. Publishing one is a release of its own."""
    with reporting(as_json) as report:
        from distill.tables import read_table
        from server_train.evaluation import RELEASE_WORD
        from server_train.model import load_model
        from server_train.model_place import model_at

        with model_at(model) as place:
            loaded = load_model(place)
        result = _judged(loaded, read_table(data, loaded.schema, role="evaluate"))
        report({**result.as_dict(), "rehearsal": loaded.card.rehearsal, "word": RELEASE_WORD}, _shown(result))


def _judged(model: "Model", frame: "pd.DataFrame") -> "Evaluation | NumberEvaluation":
    """The figures that fit the task."""
    from server_train.evaluation import evaluate_numbers, evaluate_scores
    from server_train.features import class_codes, target_numbers

    if model.schema.task == "number":
        return evaluate_numbers(target_numbers(model.schema, frame), model.predict_number(frame))
    return evaluate_scores(class_codes(model.schema, frame), model.predict(frame), model.schema.classes)


def _shown(result: "Evaluation | NumberEvaluation") -> "Group":
    """The figures as a small table, and the word on publishing them."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from server_train.evaluation import RELEASE_WORD, NumberEvaluation

    macro = not isinstance(result, NumberEvaluation) and len(result.classes) > 2
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("on real rows" + (", macro one-versus-rest" if macro else ""))
    table.add_column("value", justify="right")
    if isinstance(result, NumberEvaluation):
        table.add_row("R2", "needs rows of two values" if result.r2 is None else f"{result.r2:.4f}")
        table.add_row("RMSE", f"{result.rmse:,.6g}")
        table.add_row("MAE", f"{result.mae:,.6g}")
        table.add_row("rows", f"{result.rows:,}")
        return Group(table, Text(RELEASE_WORD))
    figures = {
        "ROC-AUC": result.roc_auc,
        "average precision": result.average_precision,
        "KS": result.ks,
        "Brier": result.brier,
        "accuracy": result.accuracy,
        "log loss": result.log_loss,
    }
    for name, value in figures.items():
        table.add_row(name, "needs rows of two classes" if value is None else f"{value:.4f}")
    if macro:
        for name, auc in zip(result.classes, result.per_class_auc, strict=True):
            table.add_row(f"ROC-AUC of {name}", "no rows" if auc is None else f"{auc:.4f}")
    table.add_row("rows", f"{result.rows:,}")
    return Group(table, Text(RELEASE_WORD))
