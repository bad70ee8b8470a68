"""Cards and files of models that nobody trained, for the registry."""

from server_train.models.cards import InstitutionCard, TrainingCard
from server_train.models.model import ModelCard
from tests.fakes.hubs import BINARY

FILES = {"model.json": b"{}", "model.safetensors": b"weights", "report.html": b"<p>"}


def institution(name="alder", **changes):
    fields = {
        "institution": name,
        "file": f"{name}.distill",
        "bytes": 1000,
        "sha256": "a" * 64,
        "public_key": "b" * 64,
        "dataset": "d" * 32,
        "ledger_head": "c" * 64,
        "created": "2026-01-01",
        "software": "distill 0.1.0",
        "rehearsal": False,
        "epsilon": 2.0,
        "delta": 1e-5,
        "unit": "row",
        "relation": "add or remove one unit",
        "noisy_rows": 500.5,
        "class_prior": [0.8, 0.2],
        "label_balance": 0.64,
        "head_information": 80.0,
        "row_share": 1.0,
        "head_share": 1.0,
        "pooled_rows": 900,
    }
    return InstitutionCard(**{**fields, **changes})


def card(*, schema=BINARY, auc=0.75, members=None, **changes):
    """A card with all that the registry and the report read."""
    held_out = {"rows": 90, "classes": ["0", "1"], "roc_auc": auc, "average_precision": 0.5, "ks": 0.4}
    held_out |= {"brier": 0.1, "log_loss": 0.3, "accuracy": 0.8, "per_class_auc": [auc, auc]}
    training = {"rows": 900, "held_out_rows": 90, "epochs": 2, "best_epoch": 2, "seconds": 1.0, "inputs": 8}
    training |= {"parameters": 100, "settings": {"seed": 0}, "class_prior": [0.8, 0.2], "loss_floor": 0.3, "notes": []}
    training |= {"curve": [[1, 0.6, 0.5], [2, 0.4, 0.41]], "held_out": held_out}
    reading = {"epsilon": 2.0, "delta": 1e-5}
    fields = {
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {"distill": "0.1.0", "numpy": "2"},
        "schema": schema,
        "schema_digest": schema.digest(),
        "preprocessing": {},
        "hidden": (16, 8),
        "training": TrainingCard(**training),
        "institutions": [institution()] if members is None else members,
        "privacy": {"disjoint": reading, "overlapping": reading, "units": ["row"], "relations": ["add or remove"]},
        "weights_sha256": "e" * 64,
    }
    return ModelCard(**{**fields, **changes})


def register(registry, *, schema=BINARY, files=FILES, rows=900, **changes):
    return registry.add(card(schema=schema, **changes), files, {"rows": rows, "settings": {"seed": 0, "steps": 5}})
