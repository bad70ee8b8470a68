"""One ledger entry: how it is hashed and signed, and how a reader checks it.

An entry is public: purposes, budgets and noise scales, never a count or a value of the private table. Its *content* is
everything but its place in the chain; its hash covers the content's digest and the hash of the entry before, and the
signature is over the hash. So a list of content digests, 32 bytes an entry, proves a whole chain without showing it; a random
salt in each content keeps digests from being guessed.
"""

import hashlib
import secrets
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from distill.common.canonical_json import canonical
from distill.common.keys import SigningKey, is_public_hex, verify_signature
from distill.common.metadata import software, today
from distill.errors import ConfigError
from distill.ledger.entries.bodies import BODIES, Body, Hash, Kind, Line, Salt, Signature, Time, first_problem

RELATION = "add or remove one unit"
NO_HASH = "0" * 64  # `previous` of the first entry
MAX_ENTRY_BYTES = 1 << 20
_CHAIN_DOMAIN = b"distill ledger chain 2\n"
_ENTRY_DOMAIN = b"distill ledger entry 2\n"  # one key signs entries, heads and bundles: no signature fits two of them
_HEAD_DOMAIN = b"distill ledger head 2\n"
_PLACED = {"previous", "hash", "signature"}  # what is not content


class Entry(BaseModel):
    """One signed entry of the ledger.

    Attributes:
        sequence: 1, 2, 3 ... without gaps.
        previous: Hash of the entry before; zeros for the first.
        time: UTC, ISO: the day; of all entries of a release that of its reservation, so that nothing tells how long reading
            took. For people: the order is that of `sequence`, whatever a clock did.
        actor: Who acted.
        kind: What the entry does; `bodies` has one model a kind.
        software: That wrote the entry, with its version.
        dataset: Random id of the data set.
        unit: Whose privacy is counted: a row, or an entity.
        relation: Which tables count as neighbours.
        salt: Random, 128 bits: the digest of an entry that is not shown tells nothing of it, and a ledger that is written anew
            with the same words has another chain. None, and not written down, in entries from before there was one.
        body: What this kind of entry says; `details` is the checked form.
        hash: SHA-256 over the hash before and the content's digest (`chained`).
        public_key: Of the signer.
        signature: Ed25519 over the hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int = Field(ge=1)
    previous: Hash
    time: Time
    actor: Line
    kind: Kind
    software: Line
    dataset: Line
    unit: Line
    relation: Literal["add or remove one unit"]
    salt: Salt | None = None
    body: dict[str, Any]
    hash: Hash
    public_key: Hash
    signature: Signature

    @model_serializer(mode="wrap")
    def _without_no_salt(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialise(self)
        if self.salt is None:
            written.pop("salt", None)
        return written

    @cached_property
    def details(self) -> Body:
        """The body as its own model. Raises ValueError if it is not what an entry of this kind holds."""
        raw = canonical(self.body)
        body = BODIES[self.kind].model_validate_json(raw, strict=True)
        if canonical(body.model_dump(mode="json")) != raw:
            raise ValueError("the body leaves out or adds something")
        return body

    @cached_property
    def content(self) -> str:
        """SHA-256 (hex) of the canonical JSON of everything but the place in the chain and the signature."""
        return _content(self.model_dump(mode="json", exclude=_PLACED))

    def to_bytes(self) -> bytes:
        """The entry as the ledger stores it."""
        return canonical(self.model_dump(mode="json"))


def chained(previous: str, content: str) -> str:
    """Hash of the entry with this content (hex digest) after the entry with hash `previous`."""
    return hashlib.sha256(_CHAIN_DOMAIN + bytes.fromhex(previous) + bytes.fromhex(content)).hexdigest()


def chain_of(contents: Iterable[str]) -> list[str]:
    """The hashes of a whole chain, from its first entry on."""
    hashes, previous = [], NO_HASH
    for content in contents:
        previous = chained(previous, content)
        hashes.append(previous)
    return hashes


def new_salt() -> str:
    """Salt for an entry, hex."""
    return secrets.token_hex(16)


def sign_entry(
    kind: Kind,
    body: Body,
    *,
    after: Entry | None,
    actor: str,
    dataset: str,
    unit: str,
    key: SigningKey,
    day: str | None = None,
) -> Entry:
    """The next entry after `after`, hashed and signed; `day` None: today.

    Raises ConfigError if a text is not one printable line.
    """
    fields: dict[str, Any] = {
        "sequence": 1 if after is None else after.sequence + 1,
        "time": day or today(),
        "actor": actor,
        "kind": kind,
        "software": software(),
        "dataset": dataset,
        "unit": unit,
        "relation": RELATION,
        "salt": new_salt(),
        "body": body.model_dump(mode="json"),
        "public_key": key.public_hex,
    }
    previous = NO_HASH if after is None else after.hash
    digest = chained(previous, _content(fields))
    signature = key.sign(_ENTRY_DOMAIN + digest.encode()).hex()
    try:
        entry = Entry(**fields, previous=previous, hash=digest, signature=signature)
    except ValidationError as error:
        raise ConfigError(f"the ledger cannot record this: {first_problem(error)}.") from None
    if len(entry.to_bytes()) > MAX_ENTRY_BYTES:
        raise ConfigError("the ledger cannot record this: the entry is larger than 1 MiB.")
    return entry


def read_entry(data: bytes) -> Entry:
    """An entry from its stored bytes, with hash and signature checked against the key it names.

    Raises:
        ValueError: in a few words, what is wrong.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise ValueError("it is larger than an entry can be")
    try:
        entry = Entry.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise ValueError(f"it is not an entry ({first_problem(error)})") from None
    if entry.to_bytes() != data:
        raise ValueError("it is not in canonical form (order, spacing, a repeated key or another spelling of a number)")
    if chained(entry.previous, entry.content) != entry.hash:
        raise ValueError("its contents do not match its hash")
    if not verify_signature(entry.public_key, bytes.fromhex(entry.signature), _ENTRY_DOMAIN + entry.hash.encode()):
        raise ValueError("its signature does not match its hash and key")
    try:
        _ = entry.details
    except ValidationError as error:
        raise ValueError(f"its body is wrong ({first_problem(error)})") from None
    return entry


def sign_head(entry: Entry, key: SigningKey) -> str:
    """The seal on the end of the chain, without which cutting off the last entries would go unseen; hex."""
    return key.sign(_head_message(entry)).hex()


def head_is_sealed(entry: Entry, seal: str) -> bool:
    """Whether `seal`, by the signer of `entry`, says that `entry` is the last one."""
    spelt = len(seal) == 128 and all(c in "0123456789abcdef" for c in seal)
    return spelt and verify_signature(entry.public_key, bytes.fromhex(seal), _head_message(entry))


def require_public_hex(public_hex: str) -> None:
    """Raise ConfigError unless `public_hex` is 64 hex digits."""
    if not is_public_hex(public_hex):
        raise ConfigError("a public key is 64 lowercase hex digits; `distill keys new` prints it.")


def _head_message(entry: Entry) -> bytes:
    return _HEAD_DOMAIN + canonical({"dataset": entry.dataset, "sequence": entry.sequence, "hash": entry.hash})


def _content(fields: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(fields)).hexdigest()
