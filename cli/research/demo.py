"""`distill demo`: the whole job on generated data, from three banks' tables to one model and a verified ledger."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.shared.output import JsonOption, progress_console, reporting

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from rich.console import Console, Group

    from distill.data.demo import DemoTables
    from distill.data.schema import Schema
    from distill.releases.fit import Receipt

EPSILON, DELTA = 2.0, 1e-5
DATA_SEED = 7


@dataclass(frozen=True)
class Bank:
    """One bank's part in the demo: its key, its receipt, its ledger's verdict and what its own real rows would teach."""

    name: str
    public_key: str
    receipt: "Receipt"
    recomputed: float
    auc_alone: float | None


def demo(
    out: Annotated[Path, typer.Option(help="New folder for everything the demo makes.", metavar="DIR")] = Path(
        "demo-out"
    ),
    epsilon: Annotated[float, typer.Option(help="Budget of each bank.")] = EPSILON,
    rows: Annotated[
        float, typer.Option(help="Portion of the usual table sizes; below 1 is quicker and worse.", min=0.05, max=10)
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Run everything on three generated banks: init, grant, fit, hub trust, train-global, verify, and one table of results."""
    with reporting(as_json, interrupted=f"What was made so far is in {out}.") as report:
        from distill.privacy.budget import require_budget

        require_budget(epsilon, DELTA)
        started = time.monotonic()
        result = run_demo(out, epsilon=epsilon, rows=rows, console=progress_console(quiet=as_json))
        result["seconds"] = round(time.monotonic() - started, 1)
        report(result, _table(result))


def run_demo(out: Path, *, epsilon: float, rows: float, console: "Console") -> dict[str, Any]:
    """Make the tables, fit each bank, train the global model and compare it with models on real rows.

    Raises:
        ConfigError: `out` is there already.
        DistillError: As the steps say.
    """
    import numpy as np

    from distill.data.demo import BANKS, HELD_OUT_ROWS, demo_tables
    from distill.errors import ConfigError
    from server_train.hub.job import train_global
    from server_train.hub.outputs import Outputs
    from server_train.hub.request import TrainingRequest
    from server_train.hub.results import GlobalResult
    from server_train.intake.admission import Admission
    from server_train.intake.store import HUB_FILE, HubStore
    from server_train.models.model import load_model
    from server_train.registry.registry import REGISTRY_FILE, Registry

    if out.exists():
        raise ConfigError(f"{out} exists already; name a new folder with --out or remove it.")
    sizes = {b.name: max(1000, round(b.rows * rows)) for b in BANKS}  # noise of scale 50 on fewer might refuse a fit
    tables = demo_tables(
        np.random.default_rng(DATA_SEED), rows=sizes, held_out_rows=max(2000, round(HELD_OUT_ROWS * min(rows, 1)))
    )
    _write_tables(tables, out)
    banks = []
    for name, frame in tables.banks.items():
        console.print(f"{name}: init, grant epsilon {epsilon:g}, fit, ledger verify")
        public_key, receipt, recomputed = _fit_bank(out / name, name, epsilon)
        console.print(
            f"  bundle of {receipt.size / 1000:,.0f} kB; ledger: epsilon {recomputed:.4f}, recomputed by two accountants"
        )
        banks.append(Bank(name, public_key, receipt, recomputed, _auc_of_real(tables.schema, frame, tables.held_out)))
    console.print("hub: trust the three banks' keys, train-global on their bundles")
    store = HubStore(out / "hub" / HUB_FILE)
    for bank in banks:
        store.add_key(bank.public_key, name=bank.name, by="demonstration")
    registry = Registry(out / "hub" / REGISTRY_FILE, by="demonstration")
    request = TrainingRequest(bundles=tuple(b.receipt.bundle for b in banks), admission=Admission(hub=store))
    hub = train_global(request, Outputs(folder=out / "hub" / "global-model", registry=registry))
    assert isinstance(hub, GlobalResult)
    scores = load_model(hub.folder).predict(tables.held_out)
    console.print("for comparison: a model on the pooled real rows, which no bank could share")
    import pandas as pd

    pooled = pd.concat(tables.banks.values(), ignore_index=True)
    return {
        "folder": str(out),
        "epsilon": epsilon,
        "delta": DELTA,
        "banks": [_bank_payload(b) for b in banks],
        "auc_global": _auc(tables.schema, tables.held_out, scores),
        "auc_central": _auc_of_real(tables.schema, pooled, tables.held_out),
        "model": str(hub.folder),
        "report": str(hub.folder / "report.html"),
    }


def _write_tables(tables: "DemoTables", out: Path) -> None:
    """One folder a bank with its table, the public schema, and the held-out table."""
    from distill.data.tables import write_table

    for name, frame in (*tables.banks.items(), ("hub", tables.held_out)):
        (out / name).mkdir(parents=True)
        write_table(frame, out / name / ("held_out.csv" if name == "hub" else "customers.csv"))
    (out / "schema.json").write_text(
        tables.schema.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8"
    )


def _fit_bank(folder: Path, name: str, epsilon: float) -> "tuple[str, Receipt, float]":
    """What one bank does: init, grant, fit; then its officer verifies the ledger and recomputes epsilon."""
    from distill.common.keys import load_signing_key
    from distill.data.demo import BANKS
    from distill.data.schema import load_schema
    from distill.project import Project
    from distill.releases.fit import FitRequest, fit

    project = Project.create(folder, data=folder / "customers.csv", schema=folder.parent / "schema.json", name=name)
    key, officer = load_signing_key(project.key), load_signing_key(project.officer)
    ledger = project.ledger()
    ledger.grant(
        epsilon=epsilon, delta=DELTA, reason="demonstration on generated data", actor="privacy officer", key=officer
    )
    request = FitRequest(
        data=project.data,
        schema=load_schema(project.schema),
        name=name,
        dataset=project.dataset,
        out=project.out,
        epsilon=epsilon,
        delta=DELTA,
        institutions=len(BANKS),
    )
    receipt = fit(request, ledger, key)
    verdict = ledger.verify(officer.public_hex, key.public_hex)
    return key.public_hex, receipt, verdict.releases[-1].epsilon_pld


def _auc_of_real(schema: "Schema", frame: "pd.DataFrame", held_out: "pd.DataFrame") -> float | None:
    """Held-out AUC of the hub's own architecture trained on real rows, without privacy."""
    import numpy as np

    from server_train.models.features import class_codes
    from server_train.models.model import probabilities
    from server_train.training.network import TrainingSettings, train

    labels = np.eye(len(schema.classes))[class_codes(schema, frame)]
    trained = train(schema, frame, labels, TrainingSettings())
    return _auc(schema, held_out, probabilities(trained.network, trained.encoder.encode(held_out)))


def _auc(schema: "Schema", frame: "pd.DataFrame", scores: "np.ndarray") -> float | None:
    from server_train.evaluation.metrics import evaluate_scores
    from server_train.models.features import class_codes

    return evaluate_scores(class_codes(schema, frame), scores, schema.classes).roc_auc


def _bank_payload(bank: Bank) -> dict[str, Any]:
    return {
        "name": bank.name,
        "noisy_rows": bank.receipt.noisy_rows,
        "auc_alone": bank.auc_alone,
        "bytes_sent": bank.receipt.size,
        "epsilon": bank.recomputed,
        "bundle": str(bank.receipt.bundle),
    }


def _table(result: dict[str, Any]) -> "Group":
    """The one table that the demo is for."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # fits 80 columns
    table.add_column("model")
    for name in ("AUC on real\nheld-out rows", "bytes sent", "epsilon"):
        table.add_column(name, justify="right")
    for bank in result["banks"]:
        table.add_row(f"{bank['name']} alone, on own real rows", f"{bank['auc_alone']:.4f}", "", "none")
    epsilons = [bank["epsilon"] for bank in result["banks"]]
    total = sum(bank["bytes_sent"] for bank in result["banks"])
    table.add_row(
        "global model, from three bundles", f"{result['auc_global']:.4f}", f"{total:,}", f"{max(epsilons):.4f} each"
    )
    for bank in result["banks"]:
        table.add_row(f"  of which {bank['name']}", "", f"{bank['bytes_sent']:,}", f"{bank['epsilon']:.4f}")
    table.add_row("central model, on pooled real rows", f"{result['auc_central']:.4f}", "", "none")
    lines = (
        f"epsilon at delta {result['delta']:g}, unit one row, add or remove one; a customer of all three banks: {sum(epsilons):.4f}",
        f"report: {result['report']}   took {result['seconds']:.0f} s",
    )
    return Group(table, *(Text(line) for line in lines))
