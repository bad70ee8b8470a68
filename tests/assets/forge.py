"""An institution gone bad: a small good bundle, its key, and ways to sign, pack and lie as only its owner can.

Attacks are written with these (`attacks_*.py`), and so are the fuzzer's changes (`benchmarks/attacks/hostile_bundles.py`). Keys
are made anew each time and never kept.
"""

import hashlib
import json
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distill.common import signed_zip
from distill.common.canonical_json import canonical
from distill.common.keys import SigningKey, generate_key
from distill.common.signed_zip import open_container, pack
from distill.data.schema import Schema
from distill.data.tables import OTHER
from distill.errors import BundleError
from distill.exchange.bundle import MANIFEST, write_bundle
from distill.ledger import create_ledger
from distill.ledger.entries import entry as ledger_entry
from distill.privacy.events import Event

DATASET = "0123456789abcdef0123456789abcdef"
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0)
REST = (Event(name="encode", mechanism="gaussian", noise_multiplier=10.0, blocks=5, round=1),)
SCHEMA = Schema.model_validate(
    {
        "name": "credit",
        "target": "default",
        "columns": [
            {"name": "age", "kind": "integer", "min": 18, "max": 100},
            {"name": "income", "kind": "continuous", "min": 0, "max": 1e6, "nullable": True},
            {"name": "job", "kind": "categorical", "categories": ["clerk", "nurse"], "nullable": True, "other": True},
            {"name": "cards", "kind": "integer", "min": 0, "max": 9, "nullable": True},
            {"name": "grade", "kind": "categorical", "categories": [1, 2, 3]},
            {"name": "default", "kind": "categorical", "categories": [0, 1]},
        ],
    }
)
FRAME = pd.DataFrame(
    {
        "age": np.array([18, 44, 100], dtype="int64"),
        "income": [0.0, np.nan, 123.456789],
        "job": np.array(["nurse", None, OTHER], dtype=object),
        "cards": pd.array([None, 9, 0], dtype="Int64"),
        "grade": np.array([3, 1, 2], dtype="int64"),
        "default": np.array([0, 1, 0], dtype="int64"),
    }
)
TENSORS = {
    "statistics": {"counts": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "heads": {"weight": np.full((2, 2), 0.5), "bias": np.array(0.25)},
    "components": {"codes": np.array([1, 2, 3], dtype=np.uint8), "none": np.zeros((0, 4))},
}


# --- what is right ----------------------------------------------------------------------------------------------------


def release_fields(folder: Path, key: SigningKey, *, dataset: str = DATASET, rehearsal: bool = False) -> dict[str, Any]:
    """What a release hands to `write_bundle`, paid for by a new ledger in `folder`."""
    ledger = create_ledger(
        folder / f"{key.public_hex[:8]}-{dataset[:8]}-{rehearsal}.db", dataset=dataset, unit="row", key=key
    )
    ledger.grant(epsilon=2.0, delta=1e-4, reason="first year", actor="officer", key=key)
    reservation = ledger.reserve(
        epsilon=1.5, delta=1e-5, purpose="p", actor="operator", events=[SIZE], key=key, rehearsal=rehearsal
    )
    reservation.plan(REST)
    return {
        "institution": "First Bank",
        "dataset": dataset,
        "schema": SCHEMA,
        "privacy": {"epsilon": 1.5, "delta": 1e-5, "unit": "row", "events": list(reservation.events)},
        "noisy_rows": 1234,
        "class_prior": [0.75, 0.25],
        "generator": {"bins": [[0, 1.5]], "name": "soft"},
        "ledger": reservation.proof(),
        "samples": FRAME,
        "tensors": TENSORS,
        "key": key,
        "rehearsal": rehearsal,
    }


@dataclass(frozen=True, kw_only=True)
class House:
    """Keys and good bundles that attacks start from.

    Attributes:
        key: The institution's.
        stranger: Somebody else's.
        data: A good bundle.
        rehearsal: A good bundle that is a rehearsal.
        elsewhere: A good bundle of the same key from the ledger of another data set.
        strange: A good bundle of the stranger's.
    """

    key: SigningKey
    stranger: SigningKey
    data: bytes
    rehearsal: bytes
    elsewhere: bytes
    strange: bytes


def make_house() -> House:
    """A house with new keys."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key, stranger = generate_key(folder / "a.pem"), generate_key(folder / "b.pem")

        def bundle(key: SigningKey, **options: Any) -> bytes:
            path = folder / "b.distill"
            write_bundle(path, **release_fields(folder, key, **options))
            return path.read_bytes()

        return House(
            key=key,
            stranger=stranger,
            data=bundle(key),
            rehearsal=bundle(key, rehearsal=True),
            elsewhere=bundle(key, dataset="f" * 32),
            strange=bundle(stranger),
        )


def contents(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Manifest (as plain JSON) and the other files of a good bundle."""
    files = {name: member.unpack(1 << 30) for name, member in open_container(data).members.items()}
    return json.loads(files.pop(MANIFEST)), files


# --- lies under a good signature --------------------------------------------------------------------------------------


def signed(manifest: dict[str, Any], files: Mapping[str, bytes], key: SigningKey, *, fresh: bool = True) -> bytes:
    """A bundle around any contents, signed like a real one; `fresh` puts the manifest's digests right."""
    if fresh:
        members = {n: {"sha256": hashlib.sha256(c).hexdigest(), "size": len(c)} for n, c in files.items()}
        manifest = manifest | {"members": members}
    return pack({MANIFEST: canonical(manifest), **files}, key)


def edited(data: bytes, key: SigningKey, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """A good bundle with its manifest changed in place by `edit`."""
    manifest, files = contents(data)
    edit(manifest)
    return signed(manifest, files, key)


def with_text(data: bytes, key: SigningKey, text: bytes) -> bytes:
    """A good bundle with these bytes as its manifest."""
    return pack({MANIFEST: text, **contents(data)[1]}, key)


def with_file(data: bytes, key: SigningKey, name: str, content: bytes) -> bytes:
    """A good bundle with one file replaced or added."""
    manifest, files = contents(data)
    return signed(manifest, files | {name: content}, key)


def signed_anew(ledger: dict[str, Any], key: SigningKey) -> dict[str, Any]:
    """A proof whose entries were changed: each is put into the chain at its place, hashed, and signed by `key`."""
    chain, changed = list(ledger["chain"]), []
    for raw in ledger["entries"]:
        fields = {n: v for n, v in raw.items() if n not in ledger_entry._PLACED} | {"public_key": key.public_hex}
        chain[fields["sequence"] - 1 : fields["sequence"]] = [ledger_entry._content(fields)]
        changed.append(fields)
    hashes = [ledger_entry.NO_HASH, *ledger_entry.chain_of(chain)]
    entries = []
    for fields in changed:
        previous, digest = hashes[fields["sequence"] - 1], hashes[min(fields["sequence"], len(chain))]
        signature = key.sign(ledger_entry._ENTRY_DOMAIN + digest.encode()).hex()
        entries.append(fields | {"previous": previous, "hash": digest, "signature": signature})
    return ledger | {"chain": chain, "head": hashes[-1], "entries": entries}


def tensor_file(header: Any, body: bytes = b"") -> bytes:
    """Safetensors with any header, given as JSON or as bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


# --- a zip writer without scruples --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Part:
    """One member, with whatever headers an enemy likes; the defaults are those of the format.

    Attributes:
        name, data: As they lie in the file.
        crc, size: Of the contents, as both headers say.
        version, flags, method, time, date, extra: Fields of both headers.
        mode: Unix mode in the central directory.
        behind: Bytes between this member and the next.
        listed: What the central directory says differently, by attribute.
    """

    name: bytes
    data: bytes
    crc: int
    size: int
    version: int = 20
    flags: int = 0
    method: int = 8
    time: int = 0
    date: int = 0x21
    extra: bytes = b""
    mode: int = 0o100644
    behind: bytes = b""
    listed: "Mapping[str, Any] | None" = None

    def local(self) -> bytes:
        """Header and data, and what lies behind them."""
        fields = (self.version, self.flags, self.method, self.time, self.date, self.crc, len(self.data), self.size)
        head = signed_zip._LOCAL.pack(b"PK\x03\x04", *fields, len(self.name), len(self.extra))
        return head + self.name + self.extra + self.data + self.behind

    def central(self, offset: int) -> bytes:
        """Line of the central directory."""
        p = replace(self, **(self.listed or {}))
        fields = (p.version, p.flags, p.method, p.time, p.date, p.crc, len(p.data), p.size, len(p.name), len(p.extra))
        head = signed_zip._CENTRAL.pack(b"PK\x01\x02", 20 | 3 << 8, *fields, 0, 0, 0, p.mode << 16, offset)
        return head + p.name + p.extra


def part(name: str | bytes, contents: bytes, **fields: Any) -> Part:
    """A member as the format packs it, except for `fields`."""
    packed = signed_zip._deflated("x", contents)
    raw = name if isinstance(name, bytes) else name.encode()
    plain = Part(name=raw, data=packed.data, crc=packed.crc, size=packed.size)
    return replace(plain, **fields)


def parts_of(data: bytes) -> list[Part]:
    """The members of a good bundle, without the signature."""
    return [
        Part(name=m.name.encode(), data=m.data, crc=m.crc, size=m.size, method=m.method)
        for m in open_container(data).members.values()
    ]


def seal_of(message: bytes, key: SigningKey) -> bytes:
    """Contents of the signature member over `message`."""
    kind = signed_zip._SIGNATURE_KIND
    return canonical({"kind": kind, "public_key": key.public_hex, "signature": key.sign(message).hex()})


def sealed(parts: Sequence[Part], key: SigningKey, *, seal: Part | None = None, **end: Any) -> bytes:
    """A container of these members, properly signed (or with another `seal`); `end` goes to `ended`."""
    message = b"".join(p.local() for p in parts)
    return ended([*parts, seal or stored(seal_of(message, key))], **end)


def stored(contents: bytes) -> Part:
    """The signature member, as the format stores it."""
    return Part(name=b"signature", data=contents, crc=zlib.crc32(contents), size=len(contents), method=0)


def ended(parts: Sequence[Part], *, count: int | None = None, comment: bytes = b"") -> bytes:
    """Members, central directory and end record, which may state another count and carry a comment."""
    body = central = b""
    for p in parts:
        central += p.central(len(body))
        body += p.local()
    number = len(parts) if count is None else count
    end = signed_zip._END.pack(b"PK\x05\x06", 0, 0, number, number, len(central), len(body), len(comment))
    return body + central + end + comment


# --- the list of attacks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One hostile bundle.

    Attributes:
        name: Of the file, without suffix.
        what: The attack in a line.
        expected: Exactly the class of the refusal.
        make: Makes the bytes.
    """

    name: str
    what: str
    expected: type[BundleError]
    make: Callable[[House], bytes]


ATTACKS: dict[str, Attack] = {}


def attack(expected: type[BundleError]) -> Callable[[Callable[[House], bytes]], Callable[[House], bytes]]:
    """Put a function on the list; its name is the file's, its docstring the attack in a line."""

    def listed(make: Callable[[House], bytes]) -> Callable[[House], bytes]:
        name, what = make.__name__, (make.__doc__ or "").rstrip(".")
        if not what or name in ATTACKS:
            raise ValueError(f"attack {name} has no docstring or is there twice")
        ATTACKS[name] = Attack(name=name, what=what, expected=expected, make=make)
        return make

    return listed
