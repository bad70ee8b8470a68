"""The bundle's container: a plain zip file of which every single byte is accounted for.

Members are packed in a fixed order with fixed dates. The last member, `signature`, signs all bytes before it; what
follows (its own header, the central directory, the end record) must be exactly what the headers imply. So any changed,
added or missing byte is noticed, and any zip tool can still open the file. This layout is the same in every version of
the format.

Reading is for an enemy: names, counts and sizes are checked before anything is unpacked, and unpacking stops at the
stated size. Problems are BundleTamperedErrors in a few words; the caller adds the file.
"""

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from distill.common.canonical_json import canonical, parse_canonical
from distill.common.keys import SigningKey, verify_signature
from distill.errors import BundleBombError, BundleLayoutError, BundleMemberError, BundleSignatureError

MAX_MEMBERS = 16
MAX_RATIO = 200  # unpacked to packed, for members of more than a megabyte
SIGNATURE = "signature"
_NAME = re.compile(r"[a-z][a-z_]{0,30}(\.[a-z]{1,15})?")
_STORED, _DEFLATED = 0, 8
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_VERSION, _FLAGS, _TIME, _DATE = 20, 0, 0, 0x21  # 1 January 1980, the earliest a zip can say
_MADE_BY, _MODE = 20 | 3 << 8, 0o100644 << 16  # Unix, an ordinary file
_SIGNATURE_KIND = "distill bundle signature 1, Ed25519 over all bytes before this member"


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One member as it lies in the file."""

    name: str
    method: int
    crc: int
    size: int
    data: bytes

    def local_header(self) -> bytes:
        """What precedes the data."""
        sizes = (self.crc, len(self.data), self.size)
        name = self.name.encode("ascii")
        head = (b"PK\x03\x04", _VERSION, _FLAGS, self.method, _TIME, _DATE)
        return _LOCAL.pack(*head, *sizes, len(name), 0) + name

    def central_header(self, offset: int) -> bytes:
        """The member's line in the central directory."""
        sizes = (self.crc, len(self.data), self.size)
        name = self.name.encode("ascii")
        head = (b"PK\x01\x02", _MADE_BY, _VERSION, _FLAGS, self.method, _TIME, _DATE)
        return _CENTRAL.pack(*head, *sizes, len(name), 0, 0, 0, 0, _MODE, offset) + name

    def unpack(self, limit: int) -> bytes:
        """The contents. Raises BundleBombError, before unpacking, if they are larger than `limit` or packed too well."""
        if self.size > limit:
            raise BundleBombError(f"{self.name} says it unpacks to {self.size} bytes, over the limit of {limit}")
        if self.size > 1 << 20 and self.size > MAX_RATIO * len(self.data):
            raise BundleBombError(f"{self.name} says it unpacks to more than {MAX_RATIO} times its packed size")
        contents = self._inflated() if self.method == _DEFLATED else self.data
        if len(contents) != self.size or zlib.crc32(contents) != self.crc:
            raise BundleBombError(f"{self.name} does not unpack to what its header says")
        return contents

    def _inflated(self) -> bytes:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            contents = unpacker.decompress(self.data, self.size + 1)  # one byte more would show that it goes on
        except zlib.error:
            raise BundleBombError(f"{self.name} is not packed properly") from None
        if not unpacker.eof or unpacker.unused_data or unpacker.unconsumed_tail:
            raise BundleBombError(f"{self.name} does not end where its header says")
        return contents


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container whose layout holds; nothing is unpacked yet and the signature is not checked yet."""

    members: dict[str, Packed]
    public_key: str
    signature: bytes
    signed: bytes

    def signature_holds(self) -> bool:
        """Whether the owner of `public_key` signed exactly these members."""
        return verify_signature(self.public_key, self.signature, self.signed)


def pack(members: Mapping[str, bytes], key: SigningKey) -> bytes:
    """The bytes of a container with these members, in this order, and the signature as the last."""
    packed = [_deflated(name, contents) for name, contents in members.items()]
    signed = b"".join(p.local_header() + p.data for p in packed)
    seal = {"kind": _SIGNATURE_KIND, "public_key": key.public_hex, "signature": key.sign(signed).hex()}
    contents = canonical(seal)
    last = Packed(name=SIGNATURE, method=_STORED, crc=zlib.crc32(contents), size=len(contents), data=contents)
    return signed + _tail([*packed, last])


def open_container(data: bytes) -> Container:
    """Read the layout of `data`; unpacks nothing but the small signature.

    Raises:
        BundleLayoutError, BundleMemberError, BundleBombError, BundleSignatureError: In a few words, what is wrong.
    """
    packed: list[Packed] = []
    offset = 0
    while not packed or packed[-1].name != SIGNATURE:
        start = offset
        member, offset = _member_at(data, offset)
        if any(member.name == p.name for p in packed):
            raise BundleMemberError(f"member {member.name} is there twice")
        packed.append(member)
        if len(packed) > MAX_MEMBERS:
            raise BundleMemberError(f"it holds more than {MAX_MEMBERS} members")
    if data[start:] != _tail(packed):
        raise BundleLayoutError("the bytes after the last member are not what the members imply")
    if packed[-1].method != _STORED:  # else whoever carries the file could pack its end in another way
        raise BundleLayoutError("the signature is packed, which this software does not do")
    public_key, signature = _seal(packed[-1].unpack(1024))
    return Container(
        members={p.name: p for p in packed[:-1]}, public_key=public_key, signature=signature, signed=data[:start]
    )


def _seal(contents: bytes) -> tuple[str, bytes]:
    """Public key and signature from the contents of the last member."""
    wrong = BundleSignatureError("the signature is not in the form of a signature")
    try:
        seal = parse_canonical(contents)
    except ValueError:
        raise wrong from None
    fields = {"kind", "public_key", "signature"}
    if not isinstance(seal, dict) or set(seal) != fields or not all(isinstance(v, str) for v in seal.values()):
        raise wrong
    if seal["kind"] != _SIGNATURE_KIND or not re.fullmatch(r"[0-9a-f]{128}", seal["signature"]):
        raise wrong
    return seal["public_key"], bytes.fromhex(seal["signature"])


def _member_at(data: bytes, offset: int) -> tuple[Packed, int]:
    """The member whose header starts at `offset`, and where it ends."""
    if offset + _LOCAL.size > len(data):
        raise BundleLayoutError("it is cut short")
    magic, *fixed, crc, packed_size, size, name_size, extra = _LOCAL.unpack_from(data, offset)
    method = fixed[2]
    if magic != b"PK\x03\x04":
        raise BundleLayoutError("it holds something that is not a member, or the signature is missing")
    if [*fixed, extra] != [_VERSION, _FLAGS, method, _TIME, _DATE, 0] or method not in (_STORED, _DEFLATED):
        raise BundleLayoutError("a member's header is not one that this software writes")
    begin = offset + _LOCAL.size + name_size
    end = begin + packed_size
    if end > len(data):
        raise BundleLayoutError("it is cut short")
    name = data[offset + _LOCAL.size : begin].decode("latin-1")
    if not _NAME.fullmatch(name):
        raise BundleMemberError("a member's name is not a plain file name")
    return Packed(name=name, method=method, crc=crc, size=size, data=data[begin:end]), end


def _deflated(name: str, contents: bytes) -> Packed:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    data = packer.compress(contents) + packer.flush()
    return Packed(name=name, method=_DEFLATED, crc=zlib.crc32(contents), size=len(contents), data=data)


def _tail(packed: list[Packed]) -> bytes:
    """Everything from the last member's header to the end of the file."""
    offsets, offset = [], 0
    for member in packed:
        offsets.append(offset)
        offset += len(member.local_header()) + len(member.data)
    central = b"".join(member.central_header(at) for member, at in zip(packed, offsets, strict=True))
    count = len(packed)
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, len(central), offset, 0)
    return packed[-1].local_header() + packed[-1].data + central + end
