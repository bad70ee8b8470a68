"""What `hub.train_global` answers: a model with all that was written, or pooled rows alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server_train.models.cards import InstitutionCard, Readings
from server_train.models.folder import REPORT
from server_train.models.model import ONNX, ModelCard
from server_train.registry.version import Version


@dataclass(frozen=True)
class GlobalResult:
    """What `train_global` made.

    Attributes:
        folder: Holds model.safetensors, model.json and report.html.
        card: What model.json says.
        pool_path: The exported pool, if one was asked for.
        personal: Folder of each institution's personalised model, where one was asked for and trained.
        version: What the registry keeps of it; None: there is no registry.
        prior_path: The global prior, if one was asked for.
    """

    folder: Path
    card: ModelCard
    pool_path: Path | None
    personal: dict[str, Path] = field(default_factory=dict)
    version: Version | None = None
    prior_path: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        training, privacy = self.card.training, self.card.privacy
        name, value = training.held_out.headline
        return {
            "model": str(self.folder),
            "report": str(self.folder / REPORT),
            "onnx": str(self.folder / ONNX) if (self.folder / ONNX).exists() else None,
            "pool": str(self.pool_path) if self.pool_path else None,
            "personal": {name: str(folder) for name, folder in self.personal.items()},
            "global_prior": str(self.prior_path) if self.prior_path else None,
            "version": self.version.number if self.version else None,
            "version_digest": self.version.digest if self.version else None,
            "schema": self.card.schema_.name,
            "kind": self.card.kind,
            "rows": training.rows,
            "epochs": training.epochs,
            **({f"synthetic_{name}": value} if name else {}),
            "seconds": training.seconds,
            "bytes_received": sum(i.bytes for i in self.card.institutions),
            "privacy": privacy.model_dump(mode="json") if privacy else {},
            "rehearsal": self.card.rehearsal,
            "institutions": [i.model_dump(mode="json") for i in self.card.institutions],
            "notes": training.notes,
        }


@dataclass(frozen=True)
class PoolResult:
    """What `train_global` made of bundles whose schema names no target: pooled rows and no model.

    Attributes:
        pool_path: The pooled rows.
        schema: Name of the schema.
        rows: How many.
        institutions: Each one's row in the table of contributions.
        privacy: Both readings of the budgets across institutions.
        rehearsal: At least one bundle was a rehearsal: NOT PRIVATE.
        notes: What a reader should know, in plain words.
        prior_path: The global prior, if one was asked for.
    """

    pool_path: Path
    schema: str
    rows: int
    institutions: list[InstitutionCard]
    privacy: Readings
    rehearsal: bool
    notes: tuple[str, ...]
    prior_path: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "model": None,
            "pool": str(self.pool_path),
            "global_prior": str(self.prior_path) if self.prior_path else None,
            "schema": self.schema,
            "rows": self.rows,
            "bytes_received": sum(i.bytes for i in self.institutions),
            "privacy": self.privacy.model_dump(mode="json"),
            "rehearsal": self.rehearsal,
            "institutions": [i.model_dump(mode="json") for i in self.institutions],
            "notes": list(self.notes),
        }
