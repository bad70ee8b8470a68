"""`distill evaluate --dp-epsilon`: one charged, noisy table of scores and classes, and figures that may be published."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.shared.output import Report, project_at
from distill.project import EVALUATION_FILE

if TYPE_CHECKING:
    from rich.console import Group

    from distill.releases.evaluation import EvaluationReceipt
    from server_train.models.model import Model


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says of a charged evaluation."""

    data: Path
    epsilon: float
    delta: float | None
    threshold: float
    costs: tuple[float, float] | None
    out: Path | None
    page: Path | None
    purpose: str | None
    rows_per_unit: int
    rehearsal: int | None
    overwrite: bool
    project: Path


def evaluate_privately(model: "Model", asked: Asked, report: Report) -> None:
    """Release the table and print what follows from it; no other figure of the rows is computed."""
    from distill.common import files
    from distill.errors import ConfigError
    from distill.releases.placement import require_place
    from server_train.hub.trained_model import TrainedModel
    from server_train.reports.private_evaluation_report import render_private_evaluation

    project = project_at(asked.project)
    out = asked.out or project.folder / EVALUATION_FILE
    if asked.page is not None:
        require_place(asked.page, protected=(asked.data, project.ledger_file, out), overwrite=True)
    receipt = project.evaluate(
        TrainedModel(model),
        asked.data,
        epsilon=asked.epsilon,
        delta=asked.delta,
        out=out,
        threshold=asked.threshold,
        costs=asked.costs,
        purpose=asked.purpose,
        rows_per_unit=asked.rows_per_unit,
        rehearsal=asked.rehearsal,
        overwrite=asked.overwrite,
    )
    if asked.page is not None:
        with files.wrapped("write the report", asked.page, ConfigError):
            page = render_private_evaluation(receipt.document)
            files.write_whole(asked.page, page.encode("utf-8"))
    report(_payload(receipt), _shown(receipt))


def _payload(receipt: "EvaluationReceipt") -> dict[str, Any]:
    """A receipt as plain values; all of it follows from the release."""
    figures, privacy = receipt.document["figures"], receipt.document["privacy"]
    return {
        "figures": figures,
        "file": str(receipt.path),
        "digest": receipt.digest,
        "epsilon": receipt.plan.joint_epsilon,
        "epsilon_reserved": privacy["epsilon"],
        "delta": privacy["delta"],
        "noise": receipt.document["noise"],
        "bins": receipt.plan.bins,
        "noisy_size": receipt.plan.noisy_size,
        "reads": receipt.reads,
        "release": receipt.document["release"],
        "ledger_head": receipt.head,
        "rehearsal": receipt.document["rehearsal"],
        "linked": list(receipt.linked),
        "word": receipt.document["word"],
    }


def _shown(receipt: "EvaluationReceipt") -> "Group":
    """The figures with their intervals, and the privacy receipt."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    figures, privacy, noise = (receipt.document[name] for name in ("figures", "privacy", "noise"))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("with noise that the ledger paid for")
    for name in ("value", "these rows, 95 %", "such customers, 95 %"):
        table.add_column(name, justify="right")
    for name, found in _lines(figures):
        texts = ["too few rows for this noise", "", ""]
        if found is not None:
            ranges = [f"{found[key][0]:.4f} to {found[key][1]:.4f}" for key in ("interval", "interval_customers")]
            texts = [f"{found['value']:.4f}", *ranges]
        table.add_row(name, *texts)
    lines = [
        "privacy receipt" + ("  REHEARSAL, NOT PRIVATE" if receipt.document["rehearsal"] else ""),
        f"  spent      epsilon {receipt.plan.joint_epsilon:.4f} of {privacy['epsilon']:g} reserved, delta {privacy['delta']:g}",
        f"  noise      {noise['law']}, standard deviation {noise['stddev']:.3g} on each of the table's counts",
        f"  rows       about {figures['rows']:,} (noisy; the exact count was not released)",
        f"  result     {receipt.path}  (signed; SHA-256 {receipt.digest[:16]}..., also in the ledger)",
        f"  ledger     release {receipt.document['release'][:8]}, head {receipt.head[:16]}...",
        *([f"  linked     to {', '.join(receipt.linked)}: budgets add up"] if receipt.linked else []),
        receipt.document["word"],
    ]
    return Group(table, *(Text(line) for line in lines))


def _lines(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any] | None]]:
    """The figures that a person reads, by their names."""
    lines = [("ROC-AUC", figures["roc_auc"]), ("accuracy", figures["accuracy"]), ("Brier (binned)", figures["brier"])]
    lines += [(f"ROC-AUC of {name}", found) for name, found in figures.get("per_class_auc", {}).items()]
    if "at_threshold" not in figures:
        return lines
    at = figures["at_threshold"]
    names = {
        "selection_rate": "selection rate",
        "true_positive_rate": "true positive rate",
        "false_positive_rate": "false positive rate",
        "cost_a_row": "cost a row",
    }
    lines.append(("base rate", figures["base_rate"]))
    return [*lines, *((f"{text} at {at['threshold']:.4g}", at[name]) for name, text in names.items() if name in at)]
