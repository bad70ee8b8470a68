"""Attacks on the container: bytes, headers, names, counts and sizes."""

import dataclasses
import zlib
from typing import Any

from distill.common.canonical_json import canonical
from distill.common.signed_zip import pack
from distill.errors import (
    BundleBombError,
    BundleDigestError,
    BundleError,
    BundleLayoutError,
    BundleMemberError,
    BundleSignatureError,
)
from distill.exchange.bundle import MANIFEST, SAMPLES
from tests.assets.forge import House, Part, attack, contents, ended, part, parts_of, seal_of, sealed, signed, stored


def changed(house: House, **fields: Any) -> bytes:
    """The good bundle with other headers around its samples, properly signed."""
    parts = parts_of(house.data)
    return sealed([dataclasses.replace(p, **fields) if p.name == SAMPLES.encode() else p for p in parts], house.key)


def added(house: House, *more: Part) -> bytes:
    """The good bundle with more members, properly signed."""
    return sealed([*parts_of(house.data), *more], house.key)


# --- headers: a link, a folder, a secret, a size that comes later -----------------------------------------------------


@attack(BundleLayoutError)
def symlink(house: House) -> bytes:
    """A member is a symbolic link by its mode, and points to /etc/passwd."""
    parts = [
        part(SAMPLES, b"/etc/passwd", mode=0o120777) if p.name == b"samples.parquet" else p
        for p in parts_of(house.data)
    ]
    return sealed(parts, house.key)


@attack(BundleLayoutError)
def directory(house: House) -> bytes:
    """A member is a directory by its mode."""
    return changed(house, mode=0o040755)


@attack(BundleLayoutError)
def set_user_id(house: House) -> bytes:
    """A member would run as its owner by its mode."""
    return changed(house, mode=0o104755)


@attack(BundleLayoutError)
def encrypted(house: House) -> bytes:
    """A member is encrypted by its flags."""
    return changed(house, flags=1)


@attack(BundleLayoutError)
def data_descriptor(house: House) -> bytes:
    """A member's sizes come after its data, by its flags."""
    return changed(house, flags=8)


@attack(BundleLayoutError)
def utf8_flag(house: House) -> bytes:
    """A member's name is UTF-8 by its flags, so readers may disagree on it."""
    return changed(house, flags=0x800)


@attack(BundleLayoutError)
def zip64(house: House) -> bytes:
    """A member's sizes stand in a zip64 extra field."""
    return changed(house, extra=b"\x01\x00\x10\x00" + (1 << 60).to_bytes(8, "little") * 2, version=45)


@attack(BundleLayoutError)
def later_zip_version(house: House) -> bytes:
    """A member needs a later version of zip."""
    return changed(house, version=63, listed={"version": 20})


@attack(BundleLayoutError)
def method_lzma(house: House) -> bytes:
    """A member is packed by a method that the format does not have."""
    return changed(house, method=14)


@attack(BundleLayoutError)
def packed_signature(house: House) -> bytes:
    """The signature is packed: the same contents in other bytes, without the key."""
    parts = parts_of(house.data)
    return sealed(parts, house.key, seal=part("signature", seal_of(b"".join(p.local() for p in parts), house.key)))


# --- bytes that do not belong, or are gone ----------------------------------------------------------------------------


@attack(BundleLayoutError)
def trailing_bytes(house: House) -> bytes:
    """Bytes after the end."""
    return house.data + b"#!/bin/sh\nexit 1\n"


@attack(BundleLayoutError)
def comment(house: House) -> bytes:
    """The zip carries a comment."""
    return sealed(parts_of(house.data), house.key, comment=b"hello")


@attack(BundleLayoutError)
def second_bundle(house: House) -> bytes:
    """Another good bundle hangs behind: a reader from the end sees that one."""
    return house.data + house.elsewhere


@attack(BundleError)
def prefix_bytes(house: House) -> bytes:
    """Bytes before the start: a script to a shell, a zip to a zip tool."""
    return b"#!/bin/sh\nexit 1\n" + house.data


@attack(BundleLayoutError)
def gap(house: House) -> bytes:
    """Bytes between two members, signed."""
    return changed(house, behind=bytes(16))


@attack(BundleLayoutError)
def cut_short(house: House) -> bytes:
    """The second half is missing."""
    return house.data[: len(house.data) // 2]


@attack(BundleLayoutError)
def end_record_cut(house: House) -> bytes:
    """The last byte is missing."""
    return house.data[:-1]


@attack(BundleLayoutError)
def unsigned(house: House) -> bytes:
    """There is no signature."""
    return ended(parts_of(house.data))


@attack(BundleLayoutError)
def listed_elsewhere(house: House) -> bytes:
    """The central directory gives a member another name than its own header."""
    return changed(house, listed={"name": b"../../evil.parq"})


@attack(BundleLayoutError)
def listed_size(house: House) -> bytes:
    """The central directory gives a member another size than its own header."""
    return changed(house, listed={"size": 1 << 31})


@attack(BundleLayoutError)
def listed_count(house: House) -> bytes:
    """The end record counts one member fewer than there are."""
    parts = parts_of(house.data)
    return sealed(parts, house.key, count=len(parts))


@attack(BundleLayoutError)
def ordinary_zip(house: House) -> bytes:
    """The right files in a zip of an ordinary tool's making."""
    dated = [dataclasses.replace(p, time=0x6C00, date=0x5975) for p in parts_of(house.data)]
    return sealed(dated, house.key)


# --- names and members --------------------------------------------------------------------------------------------------


@attack(BundleMemberError)
def absolute_path(house: House) -> bytes:
    """A member is called /etc/cron.d/evil."""
    return added(house, part("/etc/cron.d/evil", b"x"))


@attack(BundleMemberError)
def parent_path(house: House) -> bytes:
    """A member is called ../../evil."""
    return added(house, part("../../evil", b"x"))


@attack(BundleMemberError)
def backslash_path(house: House) -> bytes:
    r"""A member is called ..\\..\\evil."""
    return added(house, part(b"..\\..\\evil", b"x"))


@attack(BundleMemberError)
def drive_path(house: House) -> bytes:
    """A member is called c:evil."""
    return added(house, part("c:evil", b"x"))


@attack(BundleMemberError)
def nul_in_name(house: House) -> bytes:
    """A member's name goes on behind a zero byte."""
    return added(house, part(b"samples.parquet\0.exe", b"x"))


@attack(BundleMemberError)
def lookalike_name(house: House) -> bytes:
    """A member is called manifest.json with a Cyrillic a."""
    return added(house, part("m\u0430nifest.json", b"{}"))


@attack(BundleMemberError)
def empty_name(house: House) -> bytes:
    """A member has no name."""
    return added(house, part("", b"x"))


@attack(BundleMemberError)
def long_name(house: House) -> bytes:
    """A member's name has 5,000 letters."""
    return added(house, part("a" * 5_000, b"x"))


@attack(BundleMemberError)
def duplicate(house: House) -> bytes:
    """The samples are there twice, and readers may take either."""
    return added(house, part(SAMPLES, b"other"))


@attack(BundleMemberError)
def nested_zip(house: House) -> bytes:
    """A member is a zip itself."""
    return added(house, part("inner.zip", house.data))


@attack(BundleMemberError)
def unlisted(house: House) -> bytes:
    """A tensor file is there that the manifest does not list."""
    manifest, files = contents(house.data)
    del manifest["members"]["heads.safetensors"]
    return signed(manifest, files, house.key, fresh=False)


@attack(BundleMemberError)
def missing_member(house: House) -> bytes:
    """A file is gone that the manifest lists."""
    manifest, files = contents(house.data)
    del files["heads.safetensors"]
    return signed(manifest, files, house.key, fresh=False)


@attack(BundleMemberError)
def missing_manifest(house: House) -> bytes:
    """There is no manifest."""
    return pack(contents(house.data)[1], house.key)


@attack(BundleMemberError)
def other_order(house: House) -> bytes:
    """The members stand in another order."""
    manifest, files = contents(house.data)
    return signed(manifest, dict(reversed(files.items())), house.key)


@attack(BundleMemberError)
def many_members(house: House) -> bytes:
    """There are hundreds of members."""
    letters = "abcdefghijklmnopqrst"
    return sealed([part(f"{a}{b}", b"") for a in letters for b in letters[:10]], house.key)


# --- sizes ----------------------------------------------------------------------------------------------------------------


@attack(BundleBombError)
def bomb_by_ratio(house: House) -> bytes:
    """Eight megabytes of zeros in eight kilobytes."""
    manifest, files = contents(house.data)
    return signed(manifest, files | {"heads.safetensors": bytes(8 << 20)}, house.key)


@attack(BundleBombError)
def bomb_by_claim(house: House) -> bytes:
    """The samples say that they unpack to 4 GB, in the manifest too."""
    return _claiming(house, 4_000_000_000)


@attack(BundleBombError)
def bomb_in_the_manifest(house: House) -> bytes:
    """A manifest of nine megabytes of blanks."""
    return pack({MANIFEST: b" " * (9 << 20), **contents(house.data)[1]}, house.key)


@attack(BundleBombError)
def bomb_in_the_signature(house: House) -> bytes:
    """A signature of ten thousand bytes."""
    return sealed(parts_of(house.data), house.key, seal=stored(b"[" * 10_000))


@attack(BundleBombError)
def size_too_small(house: House) -> bytes:
    """The samples unpack to more than they say, in the manifest too."""
    return _claiming(house, 5)


@attack(BundleBombError)
def size_too_large(house: House) -> bytes:
    """The samples unpack to less than they say, in the manifest too."""
    return _claiming(house, 10_000)


@attack(BundleBombError)
def wrong_checksum(house: House) -> bytes:
    """The samples' CRC is that of other contents."""
    return changed(house, crc=zlib.crc32(b"other"))


@attack(BundleBombError)
def broken_packing(house: House) -> bytes:
    """The samples' packed bytes are no deflate stream."""
    return changed(house, data=b"\xff" * 100)


@attack(BundleBombError)
def two_streams(house: House) -> bytes:
    """Behind the samples' packed bytes hangs another stream."""
    [samples] = [p for p in parts_of(house.data) if p.name == SAMPLES.encode()]
    return changed(house, data=samples.data * 2)


def _claiming(house: House, size: int) -> bytes:
    """The good bundle whose samples say, in header and manifest, that they unpack to `size` bytes."""
    manifest, files = contents(house.data)
    manifest["members"][SAMPLES]["size"] = size
    parts = [part(MANIFEST, canonical(manifest))]
    parts += [part(n, c, **({"size": size} if n == SAMPLES else {})) for n, c in files.items()]
    return sealed(parts, house.key)


# --- signature and digests ------------------------------------------------------------------------------------------------


@attack(BundleSignatureError)
def altered_byte(house: House) -> bytes:
    """One bit of the samples is another."""
    place = house.data.index(SAMPLES.encode()) + len(SAMPLES) + 20
    return house.data[:place] + bytes([house.data[place] ^ 1]) + house.data[place + 1 :]


@attack(BundleSignatureError)
def transplanted_signature(house: House) -> bytes:
    """The signature is that of another good bundle of the same key."""
    other = b"".join(p.local() for p in parts_of(house.elsewhere))
    return sealed(parts_of(house.data), house.key, seal=stored(seal_of(other, house.key)))


@attack(BundleSignatureError)
def signed_by_a_stranger(house: House) -> bytes:
    """A stranger signed, and the manifest names the institution's key."""
    return sealed(parts_of(house.data), house.stranger)


@attack(BundleSignatureError)
def signature_without_form(house: House) -> bytes:
    """The signature is JSON of another form."""
    return sealed(parts_of(house.data), house.key, seal=stored(b'{"signature":"trust me"}'))


@attack(BundleDigestError)
def wrong_digest(house: House) -> bytes:
    """A tensor file was changed, and the manifest was not."""
    manifest, files = contents(house.data)
    files["heads.safetensors"] = files["heads.safetensors"][:-1] + b"\x3e"
    return signed(manifest, files, house.key, fresh=False)


@attack(BundleDigestError)
def wrong_size(house: House) -> bytes:
    """The manifest gives a file another size."""
    manifest, files = contents(house.data)
    manifest["members"][SAMPLES]["size"] += 1
    return signed(manifest, files, house.key, fresh=False)
