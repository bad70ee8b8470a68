"""The bundle: the one file that leaves an institution.

A zip of `manifest.json`, `samples.parquet`, up to three safetensors files and a signature over all of it; never a pickle.
Everything inside is post-processing of what the ledger paid for. `read_bundle` trusts nothing: it checks, in order, with
an error class for each (`errors` lists them),

 1. the file: its kind and size;
 2. the container: every byte is where the format puts it, names and counts are right (`bundle_zip`);
 3. the signature over all members, and the signer if a key is given;
 4. the format version, so that a file from the future is told from a forged one, and the manifest's form;
 5. that exactly the known members are there, their sizes (before unpacking), and their SHA-256;
 6. what the manifest claims: schema digest, class prior, epsilon recomputed from the events, the ledger's signed entries;
 7. samples and tensors, value by value, against the schema.

Without a key from outside, a bundle only vouches for itself: compare `manifest.public_key` with what the institution
says its key is.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.common import files as durable
from distill.common.keys import SigningKey, public_hex_of
from distill.common.metadata import software, today
from distill.common.signed_zip import Container, open_container, pack
from distill.data.schema import Schema
from distill.errors import (
    BundleClaimError,
    BundleDigestError,
    BundleError,
    BundleManifestError,
    BundleMemberError,
    BundleSamplesError,
    BundleSignatureError,
    BundleTamperedError,
    BundleTensorError,
    BundleVersionError,
)
from distill.exchange.levels import Level
from distill.exchange.manifest import Manifest, Privacy, check_manifest, make_manifest, read_manifest
from distill.ledger.entries.entry import require_public_hex
from distill.ledger.proof import LedgerProof, Proven

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from distill.synthesis.generator.generator import Generator

__all__ = ["CHECKS", "Bundle", "LedgerProof", "Manifest", "Privacy", "parse_bundle", "read_bundle", "write_bundle"]

MANIFEST, SAMPLES = "manifest.json", "samples.parquet"
GROUPS = ("statistics", "heads", "components")
MEMBERS = (MANIFEST, SAMPLES, *(f"{group}.safetensors" for group in GROUPS))  # all but the manifest only where needed
MAX_FILE = 256 << 20
MAX_UNPACKED = {MANIFEST: 8 << 20, SAMPLES: 512 << 20} | {f"{group}.safetensors": 64 << 20 for group in GROUPS}
DAMAGED = "The bundle was altered or damaged: have the institution send it again."
MADE_SO = "Whoever signed the bundle made it so: do not use it, and ask the institution for one that is made anew."
CHECKS = (
    "every byte is where the format puts it; members, sizes and names are the known ones",
    "the signature covers all of it",
    "the SHA-256 of every member is the one in the manifest",
    "the schema's digest matches",
    "epsilon is at least what the events cost by PLD, and RDP does not contradict it",
    "the ledger's entries, each signed by who may, reserved and planned exactly these events, within the grant",
    "the chain of the ledger leads through these entries to its head",
    "every sample and tensor has the right type, is finite and fits the schema",
)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was checked.

    Attributes:
        manifest: What was released, by whom, at what cost.
        proven: What the ledger's entries in it say, checked.
        samples: Refined rows in public terms (`tables.to_public`).
        tensors: Group (`statistics`, `heads`, `components`) -> name -> array.
        path: The file, as far as there is one.
        digest: SHA-256 of the file.
        size: Of the file in bytes.
    """

    manifest: Manifest
    proven: Proven
    samples: "pd.DataFrame"
    tensors: dict[str, dict[str, "np.ndarray"]]
    path: Path
    digest: str
    size: int

    @property
    def schema(self) -> Schema:
        """The public schema of the samples."""
        return self.manifest.schema_

    def generator(self) -> "Generator":
        """Return what draws rows: any number of them, at no further cost to privacy.

        Raises:
            BundleError: A tensor is missing, or its shape or values do not fit the schema.
        """
        from distill.exchange.generator_codec import generator_of  # heavy: torch

        return generator_of(self)


def write_bundle(
    path: Path,
    *,
    institution: str,
    dataset: str,
    schema: Schema,
    privacy: Privacy | Mapping[str, Any],
    noisy_rows: int,
    class_prior: Sequence[float],
    generator: Mapping[str, Any],
    ledger: LedgerProof,
    samples: "pd.DataFrame",
    tensors: Mapping[str, Mapping[str, "np.ndarray"]],
    key: SigningKey,
    rehearsal: bool = False,
    level: Level = "full",
    derived_from: str | None = None,
    created: str | None = None,
) -> str:
    """Write a signed bundle to exactly `path`, fsync it, and return its SHA-256.

    The finished bytes are read back by all the checks of `read_bundle` before they are written, so a bundle that a hub
    would refuse never exists. A file that cannot be written in full is removed.

    Args:
        path: The pipeline passes a temporary name in the target's folder.
        institution, dataset, schema, noisy_rows, class_prior, generator, rehearsal, level, derived_from: See `Manifest`.
        privacy: Epsilon, delta, unit and all events, as the ledger has them.
        ledger: Of the release (`Reservation.proof`).
        samples: Rows, canonical or in public terms; none: the member is left out.
        tensors: Group -> name -> finite array; the groups are `statistics`, `heads`, `components`; empty ones are left out.
        key: The one that opened the ledger.
        created: UTC, ISO: the day of the release's reservation (`Reservation.day`); None: today.

    Raises:
        BundleError: Something does not fit the format or the schema, or the file cannot be written.
    """
    try:
        files = _files(schema, samples, tensors)
        manifest = make_manifest(
            software=software(),
            created=created or today(),
            institution=institution,
            dataset=dataset,
            schema_=schema,
            schema_digest=schema.digest(),
            rehearsal=rehearsal,
            level=level,
            derived_from=derived_from,
            privacy=privacy,
            noisy_rows=int(noisy_rows),
            class_prior=[float(share) for share in class_prior],
            generator=dict(generator),
            ledger=ledger,
            public_key=key.public_hex,
            members={n: {"sha256": hashlib.sha256(c).hexdigest(), "size": len(c)} for n, c in files.items()},
        )
        data = pack({MANIFEST: manifest.to_bytes(), **files}, key)
    except ValueError as error:
        raise BundleError(f"cannot make a bundle: {error}.") from None
    parse_bundle(data, path=path, public_hex=key.public_hex)
    with durable.wrapped("write the bundle", path, BundleError):
        durable.write_exactly(path, data)
        durable.sync_folder(path.parent)
    return hashlib.sha256(data).hexdigest()


def read_bundle(path: Path | str, *, key: SigningKey | Path | str | None = None) -> Bundle:
    """Read a bundle after checking all of it (the module's text lists the checks).

    Args:
        path: The file.
        key: The institution's public key, from outside: its `.pub` file, its 64 hex digits, or the signing key that it
            belongs to. None: the bundle may be signed by anyone.

    Raises:
        KeyFileError: `key` is no public key.
        BundleError: There is no such file, or it is not a bundle.
        BundleTamperedError: Bytes, digests, signature, signer or contents disagree; the subclass says which.
        BundleVersionError: It was written by a newer version.
    """
    public_hex = None if key is None else public_hex_of(key)
    path = Path(path)
    return parse_bundle(_read_file(path), path=path, public_hex=public_hex)


def parse_bundle(data: bytes, *, path: Path, public_hex: str | None = None) -> Bundle:
    """`read_bundle` for bytes that are in memory already; `path` names them in errors."""
    if public_hex is not None:
        require_public_hex(public_hex)
    if not data.startswith(b"PK\x03\x04"):
        raise BundleError(f"{path} is not a bundle{': it is empty' if not data else ''}. Name a file that `fit` wrote.")
    mend = DAMAGED
    try:
        container = open_container(data)
        _check_signature(container, public_hex)
        mend = MADE_SO
        with _failing_as(BundleManifestError):
            manifest = read_manifest(_unpacked(container, MANIFEST))
        files = _checked_files(container, manifest)
        with _failing_as(BundleClaimError):
            proven = check_manifest(manifest)
        samples, tensors = _decoded(files, manifest.schema_)
    except BundleVersionError as error:
        raise BundleVersionError(f"{path} {error}.") from None
    except Exception as error:  # whatever a stranger's bytes set off, the reader gets one of our errors
        if not isinstance(error, BundleTamperedError):
            error = BundleTamperedError(f"it cannot be read ({type(error).__name__})")
        raise type(error)(f"{path}: {error}. {mend}") from None
    digest = hashlib.sha256(data).hexdigest()
    return Bundle(
        manifest=manifest, proven=proven, samples=samples, tensors=tensors, path=path, digest=digest, size=len(data)
    )


@contextmanager
def _failing_as(kind: type[BundleTamperedError]) -> Iterator[None]:
    """What a check refuses with a ValueError in a few words becomes an error of this kind."""
    try:
        yield
    except ValueError as error:
        raise kind(str(error)) from None


def _check_signature(container: Container, public_hex: str | None) -> None:
    """The signature holds, and the signer is the expected one."""
    if not container.signature_holds():
        raise BundleSignatureError("the signature does not match the contents")
    if public_hex is not None and container.public_key != public_hex:
        raise BundleSignatureError(f"it is signed by key {container.public_key}, and {public_hex} was expected")


def _checked_files(container: Container, manifest: Manifest) -> dict[str, bytes]:
    """Unpack the members, which are known ones in their order, with the sizes and digests of the manifest."""
    if manifest.public_key != container.public_key:
        raise BundleSignatureError("the manifest names another key than the one that signed")
    unknown = sorted(set(container.members) - set(MEMBERS))
    missing = sorted(set(manifest.members) - set(container.members))
    if unknown or missing or tuple(container.members) != tuple(m for m in MEMBERS if m in container.members):
        raise BundleMemberError(f"its members are not those of a bundle (unknown: {unknown}, missing: {missing})")
    if set(manifest.members) != set(container.members) - {MANIFEST}:
        raise BundleMemberError("the manifest does not list the members that are there")
    files = {}
    for name, member in manifest.members.items():
        size = container.members[name].size
        if size != member.size:
            raise BundleDigestError(f"{name} has {size} bytes, and the manifest says {member.size}")
        files[name] = _unpacked(container, name)
        digest = hashlib.sha256(files[name]).hexdigest()
        if digest != member.sha256:
            raise BundleDigestError(f"{name} has SHA-256 {digest}, and the manifest says {member.sha256}")
    return files


def _unpacked(container: Container, name: str) -> bytes:
    if name not in container.members:
        raise BundleMemberError(f"{name} is missing")
    return container.members[name].unpack(MAX_UNPACKED[name])


def _files(
    schema: Schema, samples: "pd.DataFrame", tensors: Mapping[str, Mapping[str, "np.ndarray"]]
) -> dict[str, bytes]:
    """Samples and tensors as files; what is empty is left out."""
    from distill.common.tensors import encode_tensors
    from distill.exchange.samples import encode_samples

    if not set(tensors) <= set(GROUPS):
        raise ValueError(f"tensors come in the groups {', '.join(GROUPS)}, not {', '.join(sorted(tensors))}")
    rows = {SAMPLES: encode_samples(samples, schema)}
    encoded = {f"{group}.safetensors": encode_tensors(tensors[group]) for group in GROUPS if tensors.get(group)}
    return encoded if samples.empty else rows | encoded


def _decoded(files: Mapping[str, bytes], schema: Schema) -> "tuple[pd.DataFrame, dict[str, dict[str, np.ndarray]]]":
    """Samples and tensors from files."""
    from distill.common.tensors import decode_tensors
    from distill.exchange.samples import decode_samples, no_samples

    places = {group: f"{group}.safetensors" for group in GROUPS}
    with _failing_as(BundleTensorError):
        tensors = {group: decode_tensors(files[place]) if place in files else {} for group, place in places.items()}
    with _failing_as(BundleSamplesError):
        return decode_samples(files[SAMPLES], schema) if SAMPLES in files else no_samples(schema), tensors


def _read_file(path: Path) -> bytes:
    """The bytes of an ordinary file of a bundle's size. Raises BundleError."""
    if path.is_dir():
        raise BundleError(f"{path} is a directory; name a bundle.")
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe in its place must not hang us
    except FileNotFoundError:
        raise BundleError(f"no bundle at {path}. Check the path.") from None
    except OSError as error:
        raise BundleError(f"cannot read the bundle {durable.problem(error, path)}.") from None
    with durable.wrapped("read the bundle", path, BundleError), os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BundleError(f"{path} is not a file; name a bundle.")
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise BundleError(f"{path} is larger than a bundle may be ({MAX_FILE >> 20} MiB).")
    return data
