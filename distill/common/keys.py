"""Ed25519 keys: what signs ledger entries and bundles, and what checks the signatures.

A private key is a PEM file (PKCS #8) that only its owner may read; beside it lies the public key (`.pub`, PEM), which
may travel. Losing the private key means that no more entries can be added to the ledgers it opened; the old ones still
verify.
"""

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from distill.common import files
from distill.errors import KeyFileError

PASSPHRASE_VARIABLE = "DISTILL_KEY_PASSPHRASE"
_MAX_BYTES = 16 * 1024  # a PEM key is a few hundred bytes


class SigningKey:
    """A private Ed25519 key. It prints as its public half and cannot be pickled or copied by accident."""

    __slots__ = ("_private", "public_hex")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """Wrap `private`; use `generate_key` or `load_signing_key` instead of calling this."""
        self._private = private
        self.public_hex: str = private.public_key().public_bytes_raw().hex()

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `data` (RFC 8032)."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        """The public half only."""
        return f"SigningKey(public_hex={self.public_hex!r})"

    def __reduce__(self) -> str | tuple[object, ...]:
        """A private key does not leave its process."""
        raise TypeError("a signing key cannot be pickled or copied; load it from its file where it is needed")


def generate_key(path: Path, *, passphrase: bytes | None = None, overwrite: bool = False) -> SigningKey:
    """Make a new key pair: the private half at `path` (mode 0600), the public half at `path` with suffix `.pub`.

    Args:
        path: Where the private key goes; missing folders are made.
        passphrase: Encrypts the private key when given; must not be empty.
        overwrite: Replace an existing pair. Ledgers that the old key opened take no more entries then.

    Raises:
        KeyFileError: a file is in the way, or the folder cannot be written; nothing is half-written.
    """
    public_path = _public_path(path)
    if passphrase is not None and not passphrase:
        raise KeyFileError(f"the passphrase for {path} is empty. Give a real one, or none at all.")
    for file in (path, public_path):
        if file.is_dir():
            raise KeyFileError(f"{file} is a directory; name a file for the key.")
        if file.exists() and not overwrite:
            raise KeyFileError(f"{file} already exists and is kept. Choose another path, or ask to overwrite it.")
    private = Ed25519PrivateKey.generate()
    cipher = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
    with files.wrapped("write the key", path, KeyFileError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, pem, mode=0o600, overwrite=overwrite)
    with files.wrapped("write the public key", public_path, KeyFileError):
        try:
            files.write_whole(public_path, _public_pem(private.public_key()), overwrite=overwrite)
        except OSError:
            if not overwrite:  # half a pair helps nobody; an overwritten key is kept, or both would be lost
                path.unlink(missing_ok=True)
            raise
    return SigningKey(private)


def load_signing_key(path: Path, *, passphrase: bytes | None = None) -> SigningKey:
    """Read a private key.

    Raises:
        KeyFileError: the file is missing, unreadable, open to other users, not an Ed25519 private key, or the
            passphrase is missing or wrong.
    """
    pem = _read(path, private=True)
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except TypeError:
        if passphrase is None:
            raise KeyFileError(f"the key {path} is protected by a passphrase: set {PASSPHRASE_VARIABLE}.") from None
        raise KeyFileError(f"the key {path} has no passphrase, one was given: unset {PASSPHRASE_VARIABLE}.") from None
    except (ValueError, UnsupportedAlgorithm):
        if b"ENCRYPTED" in pem:
            raise KeyFileError(f"the passphrase does not open the key {path} (or the file is damaged).") from None
        raise KeyFileError(f"{path} is not a private key in PEM form. `distill keys new` makes one.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds another kind of key; Ed25519 is needed. `distill keys new` makes one.")
    return SigningKey(key)


def load_public_key(path: Path) -> str:
    """Read a public key (PEM) and return its 32 raw bytes as hex. Raises KeyFileError."""
    try:
        key = serialization.load_pem_public_key(_read(path, private=False))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path} is not a public key in PEM form: name the `.pub` file beside the key.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} holds another kind of public key; Ed25519 is needed.")
    return key.public_bytes_raw().hex()


def signing_key_of(key: SigningKey | Path | str) -> SigningKey:
    """Return the key itself, or read the file that is named; one with a passphrase opens with DISTILL_KEY_PASSPHRASE.

    Raises:
        KeyFileError: See `load_signing_key`.
    """
    if isinstance(key, SigningKey):
        return key
    return load_signing_key(Path(key), passphrase=passphrase_from_environment())


def public_hex_of(key: SigningKey | Path | str) -> str:
    """Return a public key as hex: of a signing key, of 64 hex digits as they are, or of the `.pub` file that is named.

    Raises:
        KeyFileError: See `load_public_key`.
    """
    if isinstance(key, SigningKey):
        return key.public_hex
    return key if isinstance(key, str) and is_public_hex(key) else load_public_key(Path(key))


def write_public_key(path: Path, public_hex: str, *, overwrite: bool = False) -> None:
    """Write a public key as PEM, over another file only if told to. Raises KeyFileError."""
    pem = _public_pem(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)))
    with files.wrapped("write the public key", path, KeyFileError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, pem, overwrite=overwrite)


def verify_signature(public_hex: str, signature: bytes, data: bytes) -> bool:
    """Whether the owner of `public_hex` made `signature` over `data`; False for malformed keys and signatures."""
    if not is_public_hex(public_hex):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_public_hex(text: str) -> bool:
    """Whether `text` is spelled like a public key: 64 lowercase hex digits."""
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def passphrase_from_environment() -> bytes | None:
    """The passphrase in the environment variable DISTILL_KEY_PASSPHRASE, or None if it is unset or empty."""
    return os.environ.get(PASSPHRASE_VARIABLE, "").encode() or None


def public_path_of(path: Path) -> Path:
    """Where the public half of the key at `path` lies."""
    return _public_path(path)


def _public_path(path: Path) -> Path:
    """`path` with suffix `.pub`; a private key must not have that suffix itself."""
    if path.suffix == ".pub":
        raise KeyFileError(
            f"{path}: `.pub` names the public half. Give the private key another suffix, such as `.pem`."
        )
    return path.with_suffix(".pub")


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path, *, private: bool) -> bytes:
    """The bytes of a key file; type, size and (of a private key) permissions are checked on the open file."""
    what = "signing key" if private else "public key"
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe in its place must not hang us
    except FileNotFoundError:
        raise KeyFileError(f"no {what} at {path}. `distill keys new` makes a pair.") from None
    except OSError as error:
        raise KeyFileError(f"cannot read the {what} {path}: {error.strerror}.") from None
    with files.wrapped(f"read the {what}", path, KeyFileError), os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not a file; name the {what}.")
        if private and os.name == "posix" and status.st_mode & 0o077:
            raise KeyFileError(
                f"the signing key {path} can be read or changed by other users "
                f"(mode {stat.S_IMODE(status.st_mode):04o}). Close it with `chmod 600 {path}`; "
                "if it may have been copied, make a new key."
            )
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise KeyFileError(f"{path} is too large to be a {what}.")
    return data
