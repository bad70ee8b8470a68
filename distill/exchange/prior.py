"""The global prior: the hub's joint model of all institutions, signed, on its way back to them for their next release.

A container like a bundle's (`bundle_zip`): `prior.json`, `joint.safetensors` and a signature over all of it; never a pickle.
It is post-processing of bundles that their institutions paid for, so it costs no budget, neither to make nor to use. To a fit it
is public: it is read before the private rows, and no noise, rate or number of steps depends on it.

What is fitted with it depends on the releases it was made from. So it says what these cost in both readings (customers at one
institution only, or at all of them), a bundle that was fitted with it repeats that, and a hub adds the two up.

`read_prior` trusts nothing. It checks, in order: the file; the container, byte by byte; the signature, and that it is the hub's;
the format version and the manifest; sizes (before unpacking) and digests; the schema; whether it is a rehearsal; every tensor.
"""

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.common import files
from distill.common.canonical_json import canonical, parse_canonical
from distill.common.checks import require
from distill.common.keys import SigningKey
from distill.common.metadata import software, today
from distill.common.signed_zip import Container, open_container, pack
from distill.common.tensors import decode_tensors, encode_tensors
from distill.data.schema import MAX_TARGET_BINS, Schema
from distill.errors import (
    BundleTamperedError,
    PriorError,
    PriorMismatchError,
    PriorTamperedError,
    PriorVersionError,
    RehearsalPriorError,
    UntrustedPriorError,
)
from distill.exchange.generator_codec import (
    bin_tensors,
    class_count,
    class_head_tensors,
    read_bins,
    read_class_head,
    record_probabilities,
    shaped,
)
from distill.ledger.entries.bodies import Hash, Line, Time, Total, first_problem
from distill.ledger.entries.entry import require_public_hex
from distill.synthesis.generator.generator import Generator

FORMAT_VERSION = 1
KIND = "distill global prior"
MANIFEST, TENSORS = "prior.json", "joint.safetensors"
MAX_FILE = 64 << 20
MAX_UNPACKED = {MANIFEST: 8 << 20, TENSORS: 64 << 20}
NAMES = {
    *("bin_pieces", "bin_starts", "bin_masses", "bin_of_piece", "class_weight", "class_weight_step", "class_bias"),
    *("probabilities", "weights", "shares"),
}
MAX_RECORDS = 5_000
MAX_BUNDLES = 10_000
STEPS = 65_535  # a record's probabilities are multiples of one over this
USE = "global_prior"  # where a bundle's settings name the prior it was fitted with
MEND = "Have the hub send it again, and do not use this one."


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cost(_Model):
    """A budget."""

    epsilon: Total
    delta: Total

    def plus(self, other: "Cost") -> "Cost":
        """This and another one, by basic composition, which holds whatever one release made of the other."""
        return Cost(epsilon=self.epsilon + other.epsilon, delta=self.delta + other.delta)


class Member(_Model):
    """The tensors' file, unpacked."""

    sha256: Hash
    size: int = Field(ge=0)


class PriorManifest(_Model):
    """Everything about a global prior but its tensors. Every field is public.

    Attributes:
        schema_: The public schema (`schema` in JSON), and its digest.
        rehearsal: At least one bundle was a rehearsal: NOT PRIVATE.
        bundles: SHA-256 of each bundle it was made from.
        disjoint: What these and all that they were fitted with cost a customer of one institution, at worst.
        overlapping: What they cost a customer of all institutions.
        noisy_rows: Of all institutions together, as released.
        class_prior: Global class shares.
        public_key: The hub's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    kind: Literal["distill global prior"] = "distill global prior"
    format_version: Literal[1] = 1
    software: Line
    created: Time
    schema_: Schema = Field(alias="schema")
    schema_digest: Hash
    rehearsal: bool
    bundles: Annotated[tuple[Hash, ...], Field(min_length=1, max_length=MAX_BUNDLES)]
    disjoint: Cost
    overlapping: Cost
    noisy_rows: int = Field(ge=0, le=10**12)
    class_prior: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(max_length=MAX_TARGET_BINS)]
    public_key: Hash
    tensors: Member

    def to_bytes(self) -> bytes:
        """The manifest as the file holds it."""
        return canonical(self.model_dump(mode="json", by_alias=True))


class PriorUse(_Model):
    """What a bundle says of the global prior that it was fitted with.

    Attributes:
        sha256: Of the prior's file.
        disjoint, overlapping: As the prior states them.
    """

    sha256: Hash
    disjoint: Cost
    overlapping: Cost


@dataclass(frozen=True, kw_only=True)
class GlobalPrior:
    """A global prior that was checked: what it says of itself, the joint model, SHA-256 of the file."""

    manifest: PriorManifest
    generator: Generator
    digest: str

    @property
    def use(self) -> PriorUse:
        """What a bundle that is fitted with it says."""
        stated = self.manifest
        return PriorUse(sha256=self.digest, disjoint=stated.disjoint, overlapping=stated.overlapping)

    def require_for(self, schema: Schema, *, rehearsal: bool) -> None:
        """Refuse another schema, and a private release with a prior that is not. Raises PriorMismatchError, RehearsalPriorError."""
        _require_use(self.manifest, schema, rehearsal, "the global prior")


def write_prior(
    path: Path,
    generator: Generator,
    *,
    bundles: Sequence[str],
    disjoint: Cost,
    overlapping: Cost,
    rehearsal: bool,
    key: SigningKey,
) -> str:
    """Write a signed global prior, whole or not at all, and return its SHA-256; a file at `path` is replaced.

    The finished bytes are read back by all the checks of `read_prior` first.

    Args:
        path: Where it goes.
        generator: The joint model; its critic does not travel.
        bundles: SHA-256 of each bundle it was made from.
        disjoint, overlapping, rehearsal: See `PriorManifest`.
        key: The hub's.

    Raises:
        PriorError: The model does not fit the format, or the file cannot be written.
    """
    tensors = encode_tensors(_tensors(generator))
    member = {"sha256": hashlib.sha256(tensors).hexdigest(), "size": len(tensors)}
    try:
        manifest = PriorManifest.model_validate(
            {
                "software": software(),
                "created": today(),
                "schema": generator.schema,
                "schema_digest": generator.schema.digest(),
                "rehearsal": rehearsal,
                "bundles": tuple(sorted(bundles)),
                "disjoint": disjoint,
                "overlapping": overlapping,
                "noisy_rows": int(generator.noisy_rows),
                "class_prior": tuple(float(share) for share in generator.class_prior),
                "public_key": key.public_hex,
                "tensors": member,
            }
        )
    except ValidationError as error:
        raise PriorError(f"cannot make a global prior ({first_problem(error)}).") from None
    data = pack({MANIFEST: manifest.to_bytes(), TENSORS: tensors}, key)
    parse_prior(data, path=path, hub_key=key.public_hex, schema=generator.schema, rehearsal=rehearsal)
    with files.wrapped("write the global prior", path, PriorError):
        files.write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def read_prior(path: Path, *, hub_key: str, schema: Schema, rehearsal: bool) -> GlobalPrior:
    """Read a global prior after checking all of it (the module's text lists the checks).

    Args:
        path: The file.
        hub_key: The hub's public key (hex), received by another way than the file.
        schema: The institution's.
        rehearsal: Whether it is for a rehearsal, which alone may use one that is not private.

    Raises:
        PriorError: There is no such file, or it is no global prior; its subclasses say what is wrong with one.
    """
    return parse_prior(_read_file(path), path=path, hub_key=hub_key, schema=schema, rehearsal=rehearsal)


def parse_prior(data: bytes, *, path: Path, hub_key: str, schema: Schema, rehearsal: bool) -> GlobalPrior:
    """`read_prior` for bytes that are in memory already; `path` names them in errors."""
    require_public_hex(hub_key)
    if not data.startswith(b"PK\x03\x04"):
        raise PriorError(f"{path} is not a global prior{': it is empty' if not data else ''}. Name a file of the hub.")
    try:
        container = open_container(data)
        require(container.signature_holds(), "the signature does not match the contents")
        _require_signer(container, hub_key, path)
        manifest = _manifest(container, path)
        _require_use(manifest, schema, rehearsal, path)
        generator = _generator(manifest, decode_tensors(_tensor_file(container, manifest)))
    except PriorError:
        raise
    except Exception as error:  # whatever a stranger's bytes set off, the reader gets one of our errors
        known = isinstance(error, BundleTamperedError | ValueError)
        reason = str(error) if known else f"it cannot be read ({type(error).__name__})"
        raise PriorTamperedError(f"{path}: {reason}. {MEND}") from None
    return GlobalPrior(manifest=manifest, generator=generator, digest=hashlib.sha256(data).hexdigest())


def prior_use(settings: Mapping[str, Any]) -> PriorUse | None:
    """What a bundle's settings say of the global prior it was fitted with; None: with none. Raises ValueError."""
    if USE not in settings:
        return None
    try:
        return PriorUse.model_validate(settings[USE])
    except ValidationError as error:
        raise ValueError(f"what it says of a global prior is wrong ({first_problem(error)})") from None


def _require_signer(container: Container, hub_key: str, path: Path) -> None:
    if container.public_key != hub_key:
        raise UntrustedPriorError(
            f"{path} is signed by key {container.public_key}, and the hub's is {hub_key}. Anybody can sign a file: ask the hub "
            "which key is its own, by another way than the file came."
        )


def _manifest(container: Container, path: Path) -> PriorManifest:
    """The manifest, which agrees with its container. Raises PriorVersionError, ValueError."""
    require(tuple(container.members) == (MANIFEST, TENSORS), "its members are not those of a global prior")
    contents = container.members[MANIFEST].unpack(MAX_UNPACKED[MANIFEST])
    raw = parse_canonical(contents)
    require(isinstance(raw, dict) and raw.get("kind") == KIND, "it does not say that it is a global prior")
    version = raw.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise PriorVersionError(
            f"{path} was written by a newer version of distill (format {version}; this one reads {FORMAT_VERSION}). Update distill."
        )
    try:
        manifest = PriorManifest.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"the manifest is wrong ({first_problem(error)})") from None
    require(manifest.to_bytes() == contents, "the manifest holds something that this format does not")
    require(manifest.public_key == container.public_key, "the manifest names another key than the one that signed")
    require(manifest.schema_.digest() == manifest.schema_digest, "the schema has another digest than the manifest says")
    require(
        manifest.disjoint.epsilon <= manifest.overlapping.epsilon, "its two readings of epsilon contradict each other"
    )
    return manifest


def _require_use(manifest: PriorManifest, schema: Schema, rehearsal: bool, name: Path | str) -> None:
    """It is for this schema, and may be used for this kind of release."""
    if manifest.schema_digest != schema.digest():
        raise PriorMismatchError(
            f"{name} describes the schema {manifest.schema_.name!r} with digest {manifest.schema_digest[:16]}..., and {schema.name!r} "
            f"here has {schema.digest()[:16]}...: a global prior is of use for the very schema of its bundles only."
        )
    if manifest.rehearsal and not rehearsal:
        raise RehearsalPriorError(
            f"{name} was made from a REHEARSAL and is NOT PRIVATE, so no release may depend on it. Ask the hub for one that is made "
            "from real releases, or try it out with --rehearsal SEED."
        )


def _tensor_file(container: Container, manifest: PriorManifest) -> bytes:
    """The tensors' bytes, of the size and digest that the manifest says."""
    member = container.members[TENSORS]
    require(member.size == manifest.tensors.size, f"{TENSORS} has another size than the manifest says")
    contents = member.unpack(MAX_UNPACKED[TENSORS])
    digest = hashlib.sha256(contents).hexdigest()
    require(digest == manifest.tensors.sha256, f"{TENSORS} has another SHA-256 than the manifest says")
    return contents


def _tensors(generator: Generator) -> dict[str, np.ndarray]:
    """The joint model as it travels."""
    probabilities = record_probabilities(generator)
    return {
        **bin_tensors(generator.bins),
        **class_head_tensors(generator.head),
        "probabilities": np.rint(probabilities * STEPS).astype(np.uint16),
        "weights": (generator.weights / generator.weights.sum()).astype(np.float32),
        "shares": np.concatenate(generator.shares).astype(np.float32),
    }


def _generator(manifest: PriorManifest, tensors: dict[str, np.ndarray]) -> Generator:
    """The joint model from its tensors, every shape and range checked. Raises ValueError."""
    unlike = sorted(set(tensors) ^ NAMES)
    require(not unlike, f"tensors are missing or unknown: {', '.join(unlike)}")
    bins = read_bins(manifest.schema_, tensors)
    widths = [b.n_bins for b in bins if b.grid.column.name != manifest.schema_.target]
    classes, width = class_count(manifest.schema_, bins), sum(widths)
    prior = np.asarray(manifest.class_prior)
    require(prior.shape == (classes,) and abs(prior.sum() - 1) <= 1e-6, "the class shares are not one for each class")
    stored = tensors["probabilities"]
    require(stored.dtype == np.uint16 and stored.ndim == 2, "probabilities are not 16-bit rows")
    require(0 < len(stored) <= MAX_RECORDS and stored.shape[1] == width, "probabilities do not fit the bins")
    weights = shaped(tensors, "weights", (len(stored),), "f").astype(np.float64)
    shares = shaped(tensors, "shares", (width,), "f").astype(np.float64)
    require(bool((weights >= 0).all()) and weights.sum() > 0, "weights are not shares")
    require(bool((shares >= 0).all() and (shares <= 1 + 1e-3).all()), "shares are not shares")
    return Generator(
        schema=manifest.schema_,
        bins=tuple(bins),
        logits=np.log(np.maximum(stored, 0.25) / STEPS).astype(np.float32),
        weights=weights / weights.sum(),
        head=read_class_head(tensors, classes, width),
        critic=None,
        shares=tuple(np.split(shares, np.cumsum(widths)[:-1])),
        class_prior=prior,
        noisy_rows=manifest.noisy_rows,
    )


def _read_file(path: Path) -> bytes:
    """The bytes of an ordinary file of a prior's size. Raises PriorError."""
    with files.wrapped("read the global prior", path, PriorError):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe in its place must not hang us
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PriorError(f"{path} is not a file; name a global prior.")
            data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise PriorError(f"{path} is larger than a global prior may be ({MAX_FILE >> 20} MiB).")
    return data
