"""`distill evaluate`: how good a model is on an institution's own real rows; the figures stay there, or are paid for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.shared.output import MODEL_HELP, JsonOption, ProjectOption, Report, RowsPerUnitOption, reporting

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from server_train.evaluation.assessment import Assessment, Question
    from server_train.evaluation.decisions import Costs
    from server_train.evaluation.fairness import Slice
    from server_train.models.model import Model

INTERRUPTED = "If a release was reserved already (--dp-epsilon), its reservation stands and counts as spent: see `distill ledger show`."


def evaluate(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP, metavar="MODEL")],
    data: Annotated[Path, typer.Argument(help="Real rows with the target, CSV or Parquet.", metavar="DATA")],
    by: Annotated[
        list[str] | None,
        typer.Option(help="Compare the groups of this column; may be repeated, and need not be in the schema."),
    ] = None,
    number_bins: Annotated[
        Literal["quantiles", "bounds"],
        typer.Option(help="How --by cuts numbers: quarters of these rows, or of the public bounds."),
    ] = "quantiles",
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from which a row is taken for the last of two classes; else by the costs."),
    ] = None,
    cost_false_positive: Annotated[
        float | None, typer.Option(help="What it costs to take a row for the last class wrongly, in any unit.")
    ] = None,
    cost_false_negative: Annotated[
        float | None, typer.Option(help="What it costs to miss a row of the last class, in the same unit.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("-o", "--report", help="Also write the report, HTML.", metavar="FILE.html")
    ] = None,
    dp_epsilon: Annotated[
        float | None,
        typer.Option(
            help="Release noisy figures that may be published instead, at this charge to the project's ledger."
        ),
    ] = None,
    dp_delta: Annotated[
        float | None,
        typer.Option(help="With --dp-epsilon: allows Gaussian noise; else Laplace noise, which needs none."),
    ] = None,
    dp_out: Annotated[
        Path | None,
        typer.Option(help="The released figures, signed; else evaluation.dp.json in the project.", metavar="FILE.json"),
    ] = None,
    max_rows_per_unit: RowsPerUnitOption = 1,
    purpose: Annotated[str | None, typer.Option(help="With --dp-epsilon: why, in one line, for the ledger.")] = None,
    rehearsal: Annotated[
        int | None,
        typer.Option(
            help="With --dp-epsilon: seed of a repeatable run that is NOT PRIVATE and must stay here.",
            min=0,
            metavar="SEED",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace released figures that are there already.")
    ] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Score a model on real rows and print the figures, locally. They are not private: publishing one is a release of its own.

    With --dp-epsilon nothing of that is computed: one noisy table of scores and classes is charged to the ledger and released.
    """
    with reporting(as_json, interrupted=INTERRUPTED) as report:
        from server_train.evaluation.assessment import Question
        from server_train.models.model import load_model
        from server_train.registry.lookup import model_at

        with model_at(model) as place:
            loaded = load_model(place)
        costs = _costs(cost_false_positive, cost_false_negative)
        question = Question(by=tuple(by or ()), number_bins=number_bins, threshold=threshold, costs=costs)
        question.require_fit(loaded)
        if dp_epsilon is None:
            _refuse_unless_charged(dp_delta, dp_out, purpose, rehearsal, overwrite, max_rows_per_unit > 1)
            _evaluate_here(loaded, data, question, page, report)
            return
        from cli.evaluation.evaluate_private import Asked, evaluate_privately

        _refuse_groups(question)
        asked = Asked(
            data=data,
            epsilon=dp_epsilon,
            delta=dp_delta,
            threshold=question.decided_at,
            costs=None if costs is None else (costs.false_positive, costs.false_negative),
            out=dp_out,
            page=page,
            purpose=purpose,
            rows_per_unit=max_rows_per_unit,
            rehearsal=rehearsal,
            overwrite=overwrite,
            project=project,
        )
        evaluate_privately(loaded, asked, report)


def _evaluate_here(model: "Model", data: Path, question: "Question", page: Path | None, report: Report) -> None:
    """All figures without noise, for the eyes of this house."""
    from distill.common import files
    from distill.errors import ConfigError
    from server_train.evaluation.assessment import assess
    from server_train.reports.evaluation_report import render_evaluation

    if page is not None and page.resolve() == data.resolve():
        raise ConfigError(f"{page} is the table itself; name another file for the report.")
    found = assess(model, data, question)
    if page is not None:
        with files.wrapped("write the report", page, ConfigError):
            files.write_whole(page, render_evaluation(found, model.card).encode("utf-8"))
    report(found.as_dict() | ({} if page is None else {"report": str(page)}), _shown(found, page))


def _costs(false_positive: float | None, false_negative: float | None) -> "Costs | None":
    """Both costs or none."""
    from distill.errors import ConfigError
    from server_train.evaluation.decisions import Costs

    if false_positive is None and false_negative is None:
        return None
    if false_positive is None or false_negative is None:
        raise ConfigError("give both --cost-false-positive and --cost-false-negative: only their ratio decides.")
    return Costs(false_positive=false_positive, false_negative=false_negative)


def _refuse_unless_charged(*settings: Any) -> None:
    """Settings of a charged release mean nothing without one."""
    from distill.errors import ConfigError

    if any(setting is not None and setting is not False for setting in settings):
        raise ConfigError(
            "--dp-delta, --dp-out, --purpose, --rehearsal, --overwrite and --max-rows-per-unit belong to a charged release: "
            "add --dp-epsilon, or leave them out."
        )


def _refuse_groups(question: "Question") -> None:
    from distill.errors import ConfigError

    if question.by:
        raise ConfigError(
            "--by cannot be combined with --dp-epsilon: the released table does not tell groups apart. Compare groups without "
            "--dp-epsilon, for this house only."
        )


def _shown(found: "Assessment", page: Path | None) -> "Group":
    """The figures as small tables, and the word on publishing them."""
    from rich.console import Group
    from rich.text import Text

    from server_train.evaluation.metrics import RELEASE_WORD

    parts: list[Any] = [_figures(found)]
    parts += [_decisions(found)] if found.decisions else []
    parts += [part for s in found.slices for part in (_slice(s), *(Text(f"  {note}") for note in s.notes))]
    parts += [Text(f"report: {page}")] if page is not None else []
    parts += (
        [Text("The model is made from a rehearsal: NOT PRIVATE, it must not leave the house.")]
        if found.rehearsal
        else []
    )
    return Group(*parts, Text(RELEASE_WORD))


def _figures(found: "Assessment") -> "Table":
    """The figures of the whole table."""
    from server_train.evaluation.metrics import NumberEvaluation

    result = found.figures
    macro = len(found.classes) > 2
    table = _table("on real rows" + (", macro one-versus-rest" if macro else ""), "value")
    if isinstance(result, NumberEvaluation):
        table.add_row("R2", "needs rows of two values" if result.r2 is None else f"{result.r2:.4f}")
        table.add_row("RMSE", f"{result.rmse:,.6g}")
        table.add_row("MAE", f"{result.mae:,.6g}")
        table.add_row("rows", f"{result.rows:,}")
        return table
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
    for name, calibration in found.calibration.items():
        of = f" of {name}" if macro else ""
        table.add_row(f"calibration error (ECE){of}", f"{calibration.expected_calibration_error:.4f}")
        table.add_row(
            f"calibration slope, intercept{of}", f"{_four(calibration.slope)}, {_four(calibration.intercept)}"
        )
    if macro:
        for name, auc in zip(result.classes, result.per_class_auc, strict=True):
            table.add_row(f"ROC-AUC of {name}", "no rows" if auc is None else f"{auc:.4f}")
    table.add_row("rows", f"{result.rows:,}")
    return table


def _decisions(found: "Assessment") -> "Table":
    """The confusion matrix and rates at each threshold."""
    names = {"in_force": "in force", "by_costs": "c_fp / (c_fp + c_fn)", "cheapest_here": "cheapest on these rows"}
    heads = ("at", "TP", "FP", "FN", "TN", "selected", "TPR", "FPR", "cost a row")
    table = _table("threshold", *heads)
    for name, d in found.decisions.items():
        if name == "by_costs" and d.threshold == found.decisions["in_force"].threshold:
            continue  # the costs decided it
        counts = [f"{n:,}" for n in (d.true_positives, d.false_positives, d.false_negatives, d.true_negatives)]
        rates = [_four(r) for r in (d.selection_rate, d.true_positive_rate, d.false_positive_rate)]
        cost = "" if d.cost_a_row is None else f"{d.cost_a_row:.5g}"
        table.add_row(names[name], f"{d.threshold:.4f}", *counts, *rates, cost)
    return table


def _slice(found: "Slice") -> "Table":
    """One line a group, and the differences below."""
    first = found.groups[0]
    shown = [k for k, v in first.items() if k not in ("group", "compared", "positives") and not isinstance(v, dict)]
    table = _table(f"by {found.column}", *(name.replace("_", " ") for name in shown))
    for g in found.groups:
        values = [f"{g[k]:,}" if isinstance(g[k], int) else _four(g[k]) for k in shown]
        table.add_row(g["group"] + ("" if g["compared"] else " *"), *values)
    flat = [(k, v) for k, v in found.differences.items() if not isinstance(v, dict)]
    nested = [(f"{c}: {k}", v) for c, d in found.differences.items() if isinstance(d, dict) for k, v in d.items()]
    table.caption = "\n".join(f"{name.replace('_', ' ')}: {_four(value)}" for name, value in [*flat, *nested])
    table.caption_justify = "left"
    return table


def _table(*heads: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(heads[0])
    for head in heads[1:]:
        table.add_column(head, justify="right")
    return table


def _four(value: float | None) -> str:
    """Four digits, or a dash for what the rows cannot give."""
    return "-" if value is None else f"{value:.4f}" if abs(value) < 100 else f"{value:,.6g}"
