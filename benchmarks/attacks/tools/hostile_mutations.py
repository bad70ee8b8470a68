"""(not a benchmark) Random changes to a good bundle: by whoever carries it, and by its owner, who signs them.

Each takes a generator and a house (`tests/assets/forge.py`) and gives the bytes of a bundle. The owner's changes know the
structure: they get past the signature, and mostly past the digests, to the reader of manifests, Parquet and safetensors.
"""

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from distill.common.canonical_json import canonical
from distill.exchange.bundle import SAMPLES
from tests.assets import thrift
from tests.assets.attacks_contents import with_footer, with_page
from tests.assets.forge import House, contents, parts_of, sealed, signed, signed_anew, tensor_file, with_file, with_text

Rng = np.random.Generator
Mutation = Callable[[Rng, House], bytes]
HEADERS = {b"PK\x03\x04": 30, b"PK\x01\x02": 46, b"PK\x05\x06": 22}  # zip's headers and their sizes
SIZES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS = (*SIZES, -1, -(2**63), 2**53 + 1, 2**63 - 1, 2**64, 2**70)
DEEP: Any = []
for _ in range(100):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    0.5,
    1e-300,
    1e300,
    True,
    False,
    None,
    "",
    "x" * 1_000,
    "\x1b[2J",
    "\u0430ge",
    "0" * 64,
    [],
    {},
    [[]] * 1_000,
    DEEP,
)


# --- what a carrier can do ----------------------------------------------------------------------------------------------


def bits(rng: Rng, house: House) -> bytes:
    """A few bits flipped."""
    return _flipped(rng, house.data)


def splices(rng: Rng, house: House) -> bytes:
    """Bytes removed, put in and replaced in up to four places."""
    return _spliced(rng, house.data)


def lengths(rng: Rng, house: House) -> bytes:
    """A field of a zip header set to a size that is often forgotten."""
    data = bytearray(house.data)
    starts = [(i, size) for magic, size in HEADERS.items() for i in _places(house.data, magic)]
    start, size = starts[rng.integers(len(starts))]
    width = int(rng.choice([2, 4]))
    place = start + 4 + int(rng.integers((size - 4) // 2)) * 2
    value = int(rng.choice(SIZES)) & (1 << 8 * width) - 1
    data[place : place + width] = value.to_bytes(width, "little")
    return bytes(data)


def shuffles(rng: Rng, house: House) -> bytes:
    """Members and tail of several good bundles, dealt anew."""
    pieces = [piece for data in (house.data, house.elsewhere, house.strange) for piece in _pieces(data)]
    count = int(rng.integers(1, len(_pieces(house.data)) + 2))
    own = _pieces(house.data)
    picked = [pieces[rng.integers(len(pieces))] if rng.random() < 0.3 else own[i % len(own)] for i in range(count)]
    return b"".join(picked)


# --- what the owner of the key can do -------------------------------------------------------------------------------------


def containers(rng: Rng, house: House) -> bytes:
    """Headers and packed bytes changed, and signed."""
    parts = parts_of(house.data)
    place = int(rng.integers(len(parts)))
    part = parts[place]
    changes: dict[str, Callable[[], Any]] = {
        "name": lambda: _spliced(rng, part.name),
        "data": lambda: _spliced(rng, part.data),
        "crc": lambda: int(rng.integers(1 << 32)),
        "size": lambda: int(rng.choice(SIZES)),
        "flags": lambda: 1 << int(rng.integers(16)),
        "method": lambda: int(rng.choice([0, 1, 9, 12, 14, 93, 99])),
        "extra": lambda: rng.bytes(int(rng.integers(1, 40))),
        "behind": lambda: rng.bytes(int(rng.integers(1, 40))),
        "mode": lambda: int(rng.integers(1 << 16)),
        "listed": lambda: {"size": int(rng.choice(SIZES)), "mode": int(rng.choice([0o100644, 0o120777]))},
    }
    field = str(rng.choice(list(changes)))
    parts[place] = replace(part, **{field: changes[field]()})
    return sealed(parts, house.key)


def manifest_text(rng: Rng, house: House) -> bytes:
    """The manifest's text spliced, and signed."""
    return with_text(house.data, house.key, _spliced(rng, canonical(contents(house.data)[0])))


def manifests(rng: Rng, house: House) -> bytes:
    """Values of the manifest replaced, removed, doubled and moved, and signed."""
    manifest, files = contents(house.data)
    return signed(_grafted(rng, manifest), files, house.key, fresh=bool(rng.random() < 0.8))


def ledgers(rng: Rng, house: House) -> bytes:
    """The ledger's entries changed and signed anew, the manifest's events with them."""
    manifest, files = contents(house.data)
    entries = manifest["ledger"]["entries"]
    place = int(rng.integers(len(entries)))
    entries[place]["body"] = _grafted(rng, entries[place]["body"])
    if rng.random() < 0.2:
        entries[place] = _grafted(rng, entries[place])
    bodies = [e.get("body") for e in entries if isinstance(e, dict) and e.get("kind") in ("reserve", "plan")]
    told = [b["events"] for b in bodies if isinstance(b, dict) and isinstance(b.get("events"), list)]
    manifest["privacy"]["events"] = [event for events in told for event in events]
    if all(isinstance(e, dict) and isinstance(e.get("sequence"), int) for e in entries):
        with contextlib.suppress(KeyError, IndexError, ValueError):  # no chain can be made of some
            manifest["ledger"] = signed_anew(manifest["ledger"], house.key)
    return signed(manifest, files, house.key)


def parquet_bytes(rng: Rng, house: House) -> bytes:
    """The samples' file flipped or spliced, digests put right."""
    content = contents(house.data)[1][SAMPLES]
    return with_file(house.data, house.key, SAMPLES, _damaged(rng, content))


def parquet_footers(rng: Rng, house: House) -> bytes:
    """Fields of the samples' footer changed, in good Thrift."""
    return with_footer(house, lambda footer: _twisted(rng, footer))


def parquet_pages(rng: Rng, house: House) -> bytes:
    """Fields of the samples' first page header changed, in good Thrift, the rest moved to fit."""
    return with_page(house, lambda header: _twisted(rng, header))


def tensor_bytes(rng: Rng, house: House) -> bytes:
    """A tensor file flipped or spliced, or of another header length, digests put right."""
    name, content = _tensors(rng, house)
    if rng.random() < 0.2:
        size = int(rng.choice(NUMBERS)) % 2**64
        return with_file(house.data, house.key, name, size.to_bytes(8, "little") + content[8:])
    return with_file(house.data, house.key, name, _damaged(rng, content))


def tensor_headers(rng: Rng, house: House) -> bytes:
    """Values of a tensor file's header replaced, removed, doubled and moved."""
    name, content = _tensors(rng, house)
    size = int.from_bytes(content[:8], "little")
    header = _grafted(rng, json.loads(content[8 : 8 + size]))
    return with_file(house.data, house.key, name, tensor_file(header, content[8 + size :]))


CARRIER: dict[str, Mutation] = {m.__name__: m for m in (bits, splices, lengths, shuffles)}
OWNER: dict[str, Mutation] = {
    m.__name__: m
    for m in (
        containers,
        manifest_text,
        manifests,
        ledgers,
        parquet_bytes,
        parquet_footers,
        parquet_pages,
        tensor_bytes,
        tensor_headers,
    )
}


# --- tools ------------------------------------------------------------------------------------------------------------------


def _damaged(rng: Rng, data: bytes) -> bytes:
    return _flipped(rng, data) if rng.random() < 0.5 else _spliced(rng, data)


def _flipped(rng: Rng, data: bytes) -> bytes:
    out = bytearray(data)
    for place in rng.integers(8 * len(out), size=rng.geometric(0.4)):
        out[place // 8] ^= 1 << place % 8
    return bytes(out)


def _spliced(rng: Rng, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place, gone, new = (int(n) for n in (rng.integers(len(out) + 1), rng.integers(20), rng.integers(20)))
        from_elsewhere = rng.random() < 0.5 and len(data) > new
        start = int(rng.integers(len(data) - new)) if from_elsewhere else 0
        out[place : place + gone] = data[start : start + new] if from_elsewhere else rng.bytes(new)
    return bytes(out)


def _places(data: bytes, magic: bytes) -> list[int]:
    return [i for i in range(len(data)) if data.startswith(magic, i)]


def _pieces(data: bytes) -> list[bytes]:
    """The members' bytes, the signature's with all that follows as the last."""
    starts = _places(data, b"PK\x03\x04")
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def _tensors(rng: Rng, house: House) -> tuple[str, bytes]:
    files = {name: content for name, content in contents(house.data)[1].items() if name != SAMPLES}
    name = str(rng.choice(sorted(files)))
    return name, files[name]


def _grafted(rng: Rng, tree: Any) -> Any:
    """A copy of JSON with up to three of its values changed; a number may also move by a little."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.integers(1, 4)):
        slots = [(node, key) for node in _nodes(tree) for key in (node if isinstance(node, dict) else range(len(node)))]
        if not slots:
            break
        node, key = slots[rng.integers(len(slots))]
        other, its = slots[rng.integers(len(slots))]
        old = node[key]
        match rng.integers(5):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[str(rng.choice(["more", "schema", "epsilon", "__proto__", "\x1b"]))] = copy.deepcopy(old)
            case 1:
                node.insert(key, copy.deepcopy(old))
            case 2:
                node[key] = copy.deepcopy(other[its])
            case 3 if isinstance(old, int | float) and not isinstance(old, bool):
                node[key] = [old + 1, old - 1, old * 2, old / 2, old * (1 + 1e-7), -old][rng.integers(6)]
            case _:
                node[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    return tree


def _nodes(tree: Any) -> list[Any]:
    """All dicts and lists of a tree."""
    if not isinstance(tree, dict | list):
        return []
    inner = tree.values() if isinstance(tree, dict) else tree
    return [tree, *(node for value in inner for node in _nodes(value))]


def _twisted(rng: Rng, struct: thrift.Struct) -> None:
    """Change up to three fields of a Thrift struct, inner ones too, keeping its form."""
    for _ in range(rng.integers(1, 4)):
        structs = _structs(struct)
        chosen = structs[rng.integers(len(structs))]
        if not chosen:
            continue
        number = int(rng.choice(list(chosen)))
        kind, value = chosen[number]
        if rng.random() < 0.15:
            del chosen[number]
        elif rng.random() < 0.1:
            chosen[int(rng.integers(1, 20))] = (kind, value)
        elif kind in (thrift.I16, thrift.I32, thrift.I64):
            near = [value + 1, value - 1, value * 2, 0]
            wild = [n for n in NUMBERS if -(2**63) <= n < 2**63]
            chosen[number] = (kind, int(rng.choice(near if rng.random() < 0.6 else wild)))
        elif kind == thrift.BINARY:
            chosen[number] = (kind, _spliced(rng, value))
        elif kind == thrift.LIST and value[1]:
            inner, items = value
            place = int(rng.integers(len(items)))
            changed = items[:place] + items[place + 1 :] if rng.random() < 0.5 else [*items, items[place]]
            chosen[number] = (kind, (inner, changed))


def _structs(value: Any) -> list[thrift.Struct]:
    """A struct and all structs inside."""
    out = [value]
    for kind, inner in value.values():
        if kind == thrift.STRUCT:
            out += _structs(inner)
        elif kind == thrift.LIST and inner[0] == thrift.STRUCT:
            out += [s for item in inner[1] for s in _structs(item)]
    return out
