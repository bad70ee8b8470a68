"""What the registry says of one trained model: what went in, how it was trained, how good it is, which files it is, in that order.

A version is written once, as canonical JSON, and its SHA-256 covers all of it: the digests of the model's files, and the digest of
the version before. So whoever knows the newest digest knows whether any older version or file was changed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from distill.common.canonical_json import canonical
from distill.errors import RegistryError
from server_train.models.model import ModelCard

NOT_METRICS = ("curves", "classes", "per_class_auc")  # what a table of figures does not show
MOST_FILES, LARGEST_FILE, LARGEST_VERSION = 2000, 256 << 20, 1 << 30
_NAME = re.compile(
    r"[\w(][\w .,()+&-]{0,199}"
)  # of a file or folder: nothing hidden, nothing that steps out of the folder
_DEEPEST = 4

Figure = float | int | str | None
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Input(BaseModel):
    """One bundle that went in: who, from which ledger, at what cost, with what weight; and every term its card carries beside."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    institution: str
    sha256: Digest
    public_key: str
    ledger_head: str
    row_share: float
    head_share: float


class FileEntry(_Frozen):
    """One file of a model: the SHA-256 and the size of its bytes."""

    sha256: Digest
    size: int = Field(ge=0)


class Reading(_Frozen):
    """Epsilon and delta across institutions, in one reading."""

    epsilon: float
    delta: float


class Record(_Frozen):
    """What a person compares versions by.

    Attributes:
        kind: Of model.
        schema_name, schema_digest, target, features: What it predicts, and from what.
        recipe: What makes it again from the same bundles: arguments of `train_global`.
        inputs: The bundles, in the order of the card.
        metrics: On held-out synthetic rows.
        disjoint, overlapping: Both readings of the budgets across institutions.
        rehearsal: At least one bundle was a rehearsal: NOT PRIVATE.
        software: Versions of this software and the libraries that matter for the scores.
    """

    kind: StrictStr
    schema_name: StrictStr
    schema_digest: Digest
    target: StrictStr
    features: list[str]
    recipe: dict[str, Any]
    inputs: list[Input]
    metrics: dict[str, Figure]
    disjoint: Reading
    overlapping: Reading
    rehearsal: StrictBool
    software: dict[str, str]


class Version(_Frozen):
    """One version as the registry keeps it.

    Attributes:
        number: 1, 2, 3, ... in the order of training.
        made, made_by: When (UTC, ISO) and by whom.
        record: What it is.
        files: Its files by name (a path inside the model's folder).
        previous: Digest of the version before; empty for the first.
    """

    number: StrictInt = Field(ge=1)
    made: str
    made_by: str
    record: Record
    files: dict[str, FileEntry]
    previous: str

    @property
    def body(self) -> bytes:
        """What its digest covers."""
        return canonical(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def headline(self) -> tuple[str, float | None]:
        """Name and value of the one figure that a table has room for."""
        name = next((n for n in ("roc_auc", "r2") if n in self.record.metrics), "")
        value = self.record.metrics.get(name)
        return name, float(value) if isinstance(value, int | float) else None


class Mark(_Frozen):
    """One change of what is current: a version was promoted, or the one promoted before it came back.

    Attributes:
        sequence: 1, 2, 3, ... in the registry.
        action: `promote`, or `rollback`.
        schema_digest: For which schema.
        version: Number of the version that is current from now on; `version_digest` is its digest.
        at, by, reason: When (UTC, ISO), by whom, and why.
        previous: Digest of the mark before; empty for the first.
    """

    sequence: StrictInt = Field(ge=1)
    action: Literal["promote", "rollback"]
    schema_digest: Digest
    version: StrictInt
    version_digest: Digest
    at: str
    by: str
    reason: str
    previous: str

    @property
    def body(self) -> bytes:
        """What its digest covers."""
        return canonical(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.body).hexdigest()


def record_of(card: ModelCard, recipe: Mapping[str, Any]) -> Record:
    """What the registry keeps of a card, beside the card itself."""
    facts = _plain(card.model_dump(mode="json", by_alias=True))
    held_out = facts["training"].get("held_out", {})
    return Record(
        kind=card.kind,
        schema_name=card.schema_.name,
        schema_digest=card.schema_digest,
        target=str(card.schema_.target),
        features=[c.name for c in card.schema_.features],
        recipe=_plain(dict(recipe)),
        inputs=[Input(**institution) for institution in facts["institutions"]],
        metrics={name: value for name, value in held_out.items() if name not in NOT_METRICS and _is_figure(value)},
        disjoint=Reading(**facts["privacy"]["disjoint"]),
        overlapping=Reading(**facts["privacy"]["overlapping"]),
        rehearsal=card.rehearsal,
        software=card.versions,
    )


def entries_of(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Digests and sizes of a model's files, by name. Raises RegistryError for what no registry takes."""
    if not files or len(files) > MOST_FILES or sum(map(len, files.values())) > LARGEST_VERSION:
        raise RegistryError(
            f"a version holds 1 to {MOST_FILES} files and at most {LARGEST_VERSION >> 20} MiB; this model has {len(files)} files."
        )
    for name, content in files.items():
        if not is_file_name(name) or len(content) > LARGEST_FILE:
            raise RegistryError(
                f"{name!r} cannot be kept: a file has a plain relative path and at most {LARGEST_FILE >> 20} MiB."
            )
    return {name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for name, data in files.items()}


def is_file_name(name: str) -> bool:
    """Whether a name is a plain path inside a model's folder: it cannot step out of it, nor hide in it."""
    parts = name.split("/")
    return len(parts) <= _DEEPEST and all(_NAME.fullmatch(part) and part == part.rstrip(" .") for part in parts)


def promoted(marks: Iterable[Mark]) -> dict[str, list[int]]:
    """By schema digest the promoted versions, each behind the one that a rollback from it returns to; the last is current.

    Raises RegistryError if a mark cannot follow those before it.
    """
    stacks: dict[str, list[int]] = {}
    for mark in marks:
        stack = stacks.setdefault(mark.schema_digest, [])
        if mark.action == "promote":
            stack.append(mark.version)
        elif stack[-2:-1] == [mark.version]:
            stack.pop()
        else:
            raise RegistryError(
                f"mark {mark.sequence} rolls back to version {mark.version}, which was not promoted before."
            )
    return stacks


def _plain(value: Any) -> Any:
    """A value as canonical JSON can hold it: numbers that JSON lacks become null."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | str) and not isinstance(value, bool))
