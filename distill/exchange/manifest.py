"""The bundle's manifest: what was released, by whom, at what cost, and the checks that need nothing else."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.common.canonical_json import canonical, parse_canonical
from distill.common.checks import within
from distill.data.schema import MAX_CATEGORIES, MAX_COLUMNS, MAX_TARGET_BINS, Schema
from distill.errors import BundleVersionError
from distill.exchange.levels import Level
from distill.ledger.entries.bodies import Delta, Epsilon, Events, Hash, Line, Time, first_problem
from distill.ledger.proof import LedgerProof, Proven, check_proof
from distill.ledger.verification import audited_epsilon

FORMAT_VERSION = 3  # 3: pair statistics as they were released; 2: the chain of the ledger
OLD_FORMATS = (1, 2)
MAX_NOISY_ROWS = 10**12


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Privacy(_Model):
    """What the release costs each unit.

    Attributes:
        epsilon, delta: Of the whole release.
        unit: Whose privacy is counted.
        relation: Which tables count as neighbours.
        accountant: What computed epsilon.
        events: Every read of the private table, to recompute epsilon from.
    """

    epsilon: Epsilon
    delta: Delta
    unit: Line
    relation: Literal["add or remove one unit"] = "add or remove one unit"
    accountant: Literal["pld"] = "pld"
    events: Events

    @property
    def rows_per_unit(self) -> int:
        """Most rows of one unit that were read; its guarantee is for all of them together."""
        return max(e.rows_per_unit for e in self.events)


class Member(_Model):
    """One file of the bundle, unpacked."""

    sha256: Hash
    size: int = Field(ge=0)


class Manifest(_Model):
    """Everything about a bundle but its samples and tensors. Every field is public.

    Attributes:
        format_version: Of the bundle.
        software: That wrote it.
        created: UTC, ISO: the day of the reservation.
        institution: Name, as it wants to be shown.
        dataset: Random id of the data set; ties the bundle to the institution's ledger.
        schema_: The public schema (`schema` in JSON).
        schema_digest: `Schema.digest`, which bundles that are pooled share.
        rehearsal: Made with repeatable noise: NOT PRIVATE.
        level: How much of the release travels.
        derived_from: SHA-256 of the committed bundle that this one was shrunk from, without another read; None: this is
            the committed one.
        privacy: Cost and events.
        noisy_rows: Released number of rows, at most `privacy.rows_per_unit` a unit.
        class_prior: Released share of each class, in the schema's order; of each bin of a target that is a number; a
            single 1 without a target.
        generator: Settings of the generator that reads the tensors.
        ledger: Proof that the release was reserved and planned.
        public_key: That signed the bundle and the ledger.
        members: SHA-256 and size of each other file.
    """

    format_version: Literal[3] = 3
    software: Line
    created: Time
    institution: Line
    dataset: Line
    schema_: Schema = Field(alias="schema")
    schema_digest: Hash
    rehearsal: bool
    level: Level
    derived_from: Hash | None
    privacy: Privacy
    noisy_rows: int = Field(ge=0, le=MAX_NOISY_ROWS)
    class_prior: list[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]]
    generator: dict[str, Any]
    ledger: LedgerProof
    public_key: Hash
    members: dict[str, Member]

    def to_bytes(self) -> bytes:
        """The manifest as the bundle holds it."""
        return canonical(self.model_dump(mode="json", by_alias=True))


def read_manifest(data: bytes) -> Manifest:
    """The manifest from its bytes; only its form is checked. Raises BundleVersionError, ValueError."""
    raw = parse_canonical(data)
    if not isinstance(raw, dict):
        raise ValueError("the manifest is not an object")
    version = raw.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise BundleVersionError(
            f"was written by a newer version of distill (format {version}; this one reads {FORMAT_VERSION}); update distill"
        )
    if type(version) is int and version in OLD_FORMATS:
        raise BundleVersionError(
            f"is of format {version}, from before the first published version; have the institution fit again"
        )
    _check_breadth(raw.get("schema"))
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"the manifest is wrong ({first_problem(error)})") from None
    if manifest.to_bytes() != data:
        raise ValueError("the manifest holds something that this format does not")
    return manifest


def check_manifest(manifest: Manifest) -> Proven:
    """The manifest agrees with itself: schema digest, class prior, cost, ledger proof. Returns what the ledger proves.

    Raises ValueError.
    """
    schema, privacy = manifest.schema_, manifest.privacy
    if schema.digest() != manifest.schema_digest:
        raise ValueError(f"the schema's digest is {schema.digest()}, and the manifest says {manifest.schema_digest}")
    prior = manifest.class_prior
    fewest, most = {"classes": (len(schema.classes),) * 2, "number": (1, MAX_TARGET_BINS), None: (1, 1)}[schema.task]
    if not fewest <= len(prior) <= most or abs(math.fsum(prior) - 1) > 1e-6:
        raise ValueError("the class prior is not one share for each class, adding up to 1")
    if privacy.unit != schema.counted_unit:
        raise ValueError(f"its unit is {privacy.unit!r}, and its schema counts by {schema.counted_unit!r}")
    if len({e.rows_per_unit for e in privacy.events}) > 1 or (schema.unit is None and privacy.rows_per_unit > 1):
        raise ValueError(
            "its events do not protect the same number of rows of a unit, or a row that is a unit has several"
        )
    proof = check_proof(manifest.ledger, manifest.public_key)
    stated = {
        "data set": (manifest.dataset, proof.dataset),
        "unit": (privacy.unit, proof.unit),
        "rehearsal mark": (manifest.rehearsal, proof.rehearsal),
        "delta": (privacy.delta, proof.delta),
    }
    for what, (here, there) in stated.items():
        if here != there:
            raise ValueError(f"its {what} is {here!r}, and the ledger proof says {there!r}")
    if privacy.events != proof.events:
        raise ValueError("its events are not those that the ledger proof reserved and planned")
    if not within(privacy.epsilon, proof.epsilon):
        raise ValueError(f"it states epsilon {privacy.epsilon:.6g}, and the ledger reserved {proof.epsilon:.6g}")
    audited_epsilon(privacy.events, privacy.delta, stated=min(privacy.epsilon, proof.epsilon_release))
    return proof


def make_manifest(**fields: Any) -> Manifest:
    """A manifest from its fields, checked like one that is read. Raises ValueError."""
    try:
        generator = parse_canonical(canonical(fields["generator"]))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("the generator's settings are not plain JSON with finite numbers") from None
    try:
        return read_manifest(Manifest(**fields | {"generator": generator}).to_bytes())
    except ValidationError as error:
        raise ValueError(f"the manifest is wrong ({first_problem(error)})") from None


def _check_breadth(schema: Any) -> None:
    """Counts that the schema's own checks are not made for are refused before they run."""
    columns = schema.get("columns") if isinstance(schema, dict) else None
    if not isinstance(columns, list) or len(columns) > MAX_COLUMNS:
        raise ValueError(f"the schema does not list its columns, at most {MAX_COLUMNS}")
    for column in columns:
        categories = column.get("categories") if isinstance(column, dict) else None
        if isinstance(categories, list) and len(categories) > MAX_CATEGORIES:
            raise ValueError(f"the schema lists more than {MAX_CATEGORIES} categories for a column")
