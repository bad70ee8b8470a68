"""`distill evaluate`: how good a model is on an institution's own real rows; the figures stay there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import JsonOption, reporting

if TYPE_CHECKING:
    from rich.console import Group

    from server_train.evaluation import Evaluation


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or its model.json.", metavar="MODEL")],
    data: Annotated[Path, typer.Argument(help="Real rows with the target, CSV or Parquet.", metavar="DATA")],
    as_json: JsonOption = False,
) -> None:
    """Score a model on real rows and print the figures, locally. Publishing one is a release of its own."""
    with reporting(as_json) as report:
        from distill.tables import read_table
        from server_train.evaluation import RELEASE_WORD, evaluate_scores
        from server_train.features import class_codes
        from server_train.model import load_model

        loaded = load_model(model)
        frame = read_table(data, loaded.schema, role="evaluate")
        result = evaluate_scores(class_codes(loaded.schema, frame), loaded.predict(frame), loaded.schema.classes)
        report({**result.as_dict(), "rehearsal": loaded.card.rehearsal, "word": RELEASE_WORD}, _shown(result))


def _shown(result: "Evaluation") -> "Group":
    """The figures as a small table, and the word on publishing them."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from server_train.evaluation import RELEASE_WORD

    macro = len(result.classes) > 2
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("on real rows" + (", macro one-versus-rest" if macro else ""))
    table.add_column("value", justify="right")
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
