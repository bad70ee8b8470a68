"""Keys: made safely, kept private, refused in plain words when something is wrong with them."""

import copy
import os
import pickle
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from distill.common import files
from distill.common.keys import (
    SigningKey,
    generate_key,
    load_public_key,
    load_signing_key,
    passphrase_from_environment,
    public_hex_of,
    public_path_of,
    signing_key_of,
    verify_signature,
)
from distill.errors import KeyFileError

# RFC 8032, section 7.1, test 3.
RFC_SECRET = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"
RFC_PUBLIC = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
RFC_SIGNATURE = (
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "operator.pem"


def test_signatures_are_ed25519_as_in_the_rfc():
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(RFC_SECRET)))
    assert key.public_hex == RFC_PUBLIC
    assert key.sign(bytes.fromhex("af82")).hex() == RFC_SIGNATURE
    assert verify_signature(RFC_PUBLIC, bytes.fromhex(RFC_SIGNATURE), bytes.fromhex("af82"))


def test_a_new_key_can_be_loaded_and_its_signature_checked_with_the_public_half(path):
    made = generate_key(path)
    loaded = load_signing_key(path)
    public = load_public_key(path.with_suffix(".pub"))
    assert made.public_hex == loaded.public_hex == public
    assert verify_signature(public, loaded.sign(b"entry"), b"entry")
    assert not verify_signature(public, loaded.sign(b"entry"), b"another entry")


def test_a_private_key_is_for_its_owner_only_and_nothing_else_is_left_behind(path):
    old = os.umask(0)
    try:
        generate_key(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == ["operator.pem", "operator.pub"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o666, 0o777])
def test_a_key_that_others_can_reach_is_refused_with_the_mend(path, mode):
    generate_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600 {path}"):
        load_signing_key(path)
    path.chmod(0o400)
    load_signing_key(path)


def test_existing_keys_are_kept_unless_asked(path):
    first = generate_key(path)
    with pytest.raises(KeyFileError, match="already exists and is kept"):
        generate_key(path)
    assert load_signing_key(path).public_hex == first.public_hex
    second = generate_key(path, overwrite=True)
    assert load_signing_key(path).public_hex == second.public_hex != first.public_hex
    assert load_public_key(path.with_suffix(".pub")) == second.public_hex


def test_a_lone_public_half_is_not_overwritten_either(path):
    path.parent.mkdir()
    path.with_suffix(".pub").write_text("precious")
    with pytest.raises(KeyFileError, match="already exists"):
        generate_key(path)
    assert not path.exists()


def test_a_passphrase_protects_the_key(path):
    made = generate_key(path, passphrase=b"open sesame")
    assert load_signing_key(path, passphrase=b"open sesame").public_hex == made.public_hex
    with pytest.raises(KeyFileError, match="passphrase does not open"):
        load_signing_key(path, passphrase=b"guess")
    with pytest.raises(KeyFileError, match="protected by a passphrase: set DISTILL_KEY_PASSPHRASE"):
        load_signing_key(path)


def test_a_passphrase_for_a_key_without_one_is_refused(path):
    generate_key(path)
    with pytest.raises(KeyFileError, match="has no passphrase"):
        load_signing_key(path, passphrase=b"open sesame")
    with pytest.raises(KeyFileError, match="is empty"):
        generate_key(path.with_name("other.pem"), passphrase=b"")


def test_the_passphrase_can_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("DISTILL_KEY_PASSPHRASE", raising=False)
    assert passphrase_from_environment() is None
    monkeypatch.setenv("DISTILL_KEY_PASSPHRASE", "open sesame")
    assert passphrase_from_environment() == b"open sesame"


def test_a_missing_key_is_told_with_the_mend(path):
    with pytest.raises(KeyFileError, match=f"no signing key at {path}.*distill keys new"):
        load_signing_key(path)
    with pytest.raises(KeyFileError, match="no public key at"):
        load_public_key(path)


def test_a_directory_a_pipe_and_a_huge_file_are_not_keys(tmp_path):
    with pytest.raises(KeyFileError, match=r"not a file|directory"):
        load_signing_key(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="is not a file"):
        load_signing_key(tmp_path / "pipe")
    large = tmp_path / "large.pem"
    large.write_bytes(b"-" * 100_000)
    large.chmod(0o600)
    with pytest.raises(KeyFileError, match="too large"):
        load_signing_key(large)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 50, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_rubbish_is_not_a_key(tmp_path, content):
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a private key in PEM form"):
        load_signing_key(file)
    with pytest.raises(KeyFileError, match="not a public key in PEM form"):
        load_public_key(file)


def test_a_key_of_another_kind_is_refused(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "ec.pem", tmp_path / "ec.pub"
    pem = serialization.Encoding.PEM
    private.write_bytes(other.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeyFileError, match="another kind of key; Ed25519 is needed"):
        load_signing_key(private)
    with pytest.raises(KeyFileError, match="another kind of public key"):
        load_public_key(public)


def test_the_public_half_does_not_pass_for_the_private_one(path):
    generate_key(path)
    public = path.with_suffix(".pub")
    public.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a private key"):
        load_signing_key(public)
    with pytest.raises(KeyFileError, match=r"\.pub.*names the public half"):
        generate_key(path.with_suffix(".pub"))


@pytest.mark.parametrize("wrong", ["", "zz" * 32, RFC_PUBLIC[:-2], RFC_PUBLIC.upper(), "0x" + RFC_PUBLIC[2:]])
def test_a_malformed_public_key_or_signature_verifies_nothing(wrong):
    assert not verify_signature(wrong, bytes.fromhex(RFC_SIGNATURE), bytes.fromhex("af82"))
    assert not verify_signature(RFC_PUBLIC, b"short", bytes.fromhex("af82"))


def test_any_flipped_bit_of_a_signature_is_noticed():
    signature = bytearray.fromhex(RFC_SIGNATURE)
    for bit in range(8 * len(signature)):
        signature[bit // 8] ^= 1 << bit % 8
        assert not verify_signature(RFC_PUBLIC, bytes(signature), bytes.fromhex("af82"))
        signature[bit // 8] ^= 1 << bit % 8


def test_a_key_does_not_leave_its_process_or_its_secret_the_printer(path):
    key = generate_key(path)
    assert key.public_hex in repr(key)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            leak(key)


def test_a_full_disk_leaves_no_half_pair(path, monkeypatch):
    written = []
    original = files.write_exactly

    def full_at_second(file, data, **options):
        written.append(file)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        original(file, data, **options)

    monkeypatch.setattr(files, "write_exactly", full_at_second)
    with pytest.raises(KeyFileError, match=r"operator\.pub: No space left on device\. Free some space"):
        generate_key(path)
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KeyFileError, match="cannot write the key"):
        generate_key(tmp_path / "file" / "key.pem")


def test_a_key_may_be_named_by_itself_its_file_or_its_digits(path, monkeypatch):
    key = generate_key(path, passphrase=b"secret")
    monkeypatch.setenv("DISTILL_KEY_PASSPHRASE", "secret")
    public = public_path_of(path)
    assert signing_key_of(key) is key
    assert {signing_key_of(named).public_hex for named in (path, str(path))} == {key.public_hex}
    assert {public_hex_of(named) for named in (key, public, str(public), key.public_hex)} == {key.public_hex}
    with pytest.raises(KeyFileError, match="no public key at"):
        public_hex_of(key.public_hex[:-1])
    with pytest.raises(KeyFileError, match="is not a public key in PEM form"):
        public_hex_of(path)
    with pytest.raises(KeyFileError, match="no signing key at"):
        signing_key_of("nowhere.pem")
