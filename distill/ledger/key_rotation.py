"""A new key in the place of an old one, so that a crash anywhere leaves a key that the ledger knows.

The new pair is written under a `next` name first, then the ledger records the handover, signed by both keys, and only then
do the files change places, the private key last. A run that was cut short is taken up again where it stopped.
"""

from dataclasses import dataclass
from pathlib import Path

from distill.common import files
from distill.common.keys import SigningKey, generate_key, load_signing_key, public_path_of, write_public_key
from distill.errors import KeyFileError
from distill.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """What a rotation left.

    Attributes:
        public_hex: The new key.
        replaced: The old one.
        kept: Where the old private key lies now.
    """

    public_hex: str
    replaced: str
    kept: Path


def rotate_key(ledger: Ledger, path: Path, *, reason: str, actor: str, passphrase: bytes | None = None) -> Rotation:
    """Replace the key at `path` in the ledger and on the disk.

    Args:
        ledger: In which the key signs.
        path: The private key; the public one lies beside it.
        reason, actor: For the ledger.
        passphrase: Opens the old key and protects the new one.

    Raises:
        KeyFileError: A key cannot be read or written, or the old one may not sign in this ledger.
        ConfigError, LedgerError, LedgerTamperedError: As `Ledger.rotate`. The old key is then still in its place.
    """
    following = path.with_name(f"{path.stem}.next{path.suffix}")
    old = load_signing_key(path, passphrase=passphrase)
    if following.exists():
        new = load_signing_key(following, passphrase=passphrase)
    else:
        public_path_of(following).unlink(missing_ok=True)
        new = generate_key(following, passphrase=passphrase)
    if not _handed_over(ledger, old, new):
        ledger.rotate(new, reason=reason, actor=actor, key=old)
    kept = path.with_name(f"{path.stem}.retired-{old.public_hex[:8]}{path.suffix}")
    with files.wrapped("put the new key in place", path, KeyFileError):
        files.write_whole(kept, path.read_bytes(), mode=0o600)
        write_public_key(public_path_of(kept), old.public_hex, overwrite=True)
        write_public_key(public_path_of(path), new.public_hex, overwrite=True)
        files.put_in_place(following, path, overwrite=True)
        public_path_of(following).unlink(missing_ok=True)
    return Rotation(public_hex=new.public_hex, replaced=old.public_hex, kept=kept)


def _handed_over(ledger: Ledger, old: SigningKey, new: SigningKey) -> bool:
    """Whether the ledger holds the handover already."""
    return any(
        e.kind == "rotate" and e.public_key == old.public_hex and e.body["new_key"] == new.public_hex
        for e in ledger.entries()
    )
