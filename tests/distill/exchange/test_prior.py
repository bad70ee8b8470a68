"""The hub's signed prior: it comes back as it went, and whatever else is offered in its place is refused by name."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.common.canonical_json import canonical, parse_canonical
from distill.common.keys import SigningKey, generate_key
from distill.common.signed_zip import open_container, pack
from distill.common.tensors import encode_tensors
from distill.data.schema import Schema
from distill.errors import (
    PriorError,
    PriorMismatchError,
    PriorTamperedError,
    PriorVersionError,
    RehearsalPriorError,
    UntrustedPriorError,
)
from distill.exchange import prior as global_prior
from distill.exchange.generator_codec import record_probabilities
from distill.exchange.prior import Cost, GlobalPrior, parse_prior, prior_use, read_prior, write_prior
from distill.synthesis.generator.generator import Generator
from tests.fakes.private_tables import EVERY_KIND, schema_of, toy_generator

DISJOINT, OVERLAPPING = Cost(epsilon=2.0, delta=1e-5), Cost(epsilon=5.0, delta=3e-5)
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return generate_key(tmp_path_factory.mktemp("hub") / "hub.pem")


def written(path: Path, key: SigningKey, generator: Generator | None = None, *, rehearsal: bool = False) -> Path:
    write_prior(
        path,
        generator or toy_generator(),
        bundles=["a" * 64, "b" * 64],
        disjoint=DISJOINT,
        overlapping=OVERLAPPING,
        rehearsal=rehearsal,
        key=key,
    )
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    return written(tmp_path_factory.mktemp("prior") / "hub.prior", key)


def read(path: Path, key: SigningKey, schema: Schema = EVERY_KIND, *, rehearsal: bool = False) -> GlobalPrior:
    return read_prior(path, hub_key=key.public_hex, schema=schema, rehearsal=rehearsal)


def parse(data: bytes, key: SigningKey) -> GlobalPrior:
    return parse_prior(data, path=Path("p"), hub_key=key.public_hex, schema=EVERY_KIND, rehearsal=False)


def forged(file: Path, key: SigningKey, *, tensors: Any = None, manifest: Any = None) -> bytes:
    """The file with other tensors (or bytes for them) or another manifest, in agreement with each other and signed by the hub."""
    container = open_container(file.read_bytes())
    stated = parse_canonical(container.members["prior.json"].unpack(1 << 24))
    body = container.members["joint.safetensors"].unpack(1 << 24)
    if tensors is not None:
        body = tensors(global_prior.decode_tensors(body))
        body = body if isinstance(body, bytes) else encode_tensors(body)
        stated["tensors"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
    if manifest is not None:
        manifest(stated)
    return pack({"prior.json": canonical(stated), "joint.safetensors": body}, key)


@pytest.mark.parametrize(
    "schema", [EVERY_KIND, schema_of({"name": "x", "kind": "continuous", "min": 0, "max": 1}, classes=("a", "b", "c"))]
)
def test_a_joint_model_comes_back_as_it_went(tmp_path, key, schema):
    before = toy_generator(schema)
    path = written(tmp_path / "hub.prior", key, before)
    prior = read(path, key, schema)
    after = prior.generator
    assert prior.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (after.schema, after.noisy_rows, after.layout) == (schema, before.noisy_rows, before.layout)
    np.testing.assert_allclose(record_probabilities(after), record_probabilities(before), atol=1e-4)
    np.testing.assert_allclose(after.weights, before.weights, atol=1e-6)
    np.testing.assert_allclose(after.class_prior, before.class_prior)
    np.testing.assert_allclose(after.head[0], before.head[0], atol=np.abs(before.head[0]).max() / 127)
    np.testing.assert_allclose(np.concatenate(after.shares), np.concatenate(before.shares), atol=1e-6)
    for one, two in zip(before.bins, after.bins, strict=True):
        np.testing.assert_array_equal(one.starts, two.starts)
        np.testing.assert_array_equal(one.bin_of_piece, two.bin_of_piece)
    assert len(after.draw(100, np.random.default_rng(0))) == 100


def test_it_says_what_it_was_made_from_and_what_that_cost(file, key):
    prior = read(file, key)
    assert prior.manifest.bundles == ("a" * 64, "b" * 64)
    assert (prior.manifest.disjoint, prior.manifest.overlapping) == (DISJOINT, OVERLAPPING)
    assert prior.manifest.public_key == key.public_hex
    assert prior_use({"global_prior": prior.use.model_dump(mode="json")}) == prior.use
    assert (prior.use.sha256, prior.use.disjoint, prior.use.overlapping) == (prior.digest, DISJOINT, OVERLAPPING)


def test_a_bundle_without_a_prior_says_so_and_nonsense_is_refused():
    assert prior_use({"critic_power": 1.0}) is None
    for wrong in ({}, "x", {"sha256": "f" * 64, "disjoint": {"epsilon": -1.0, "delta": 0}, "overlapping": {}}):
        with pytest.raises(ValueError, match="global prior"):
            prior_use({"global_prior": wrong})


def test_every_changed_byte_is_noticed(file, key):
    data = file.read_bytes()
    for place in [*range(0, len(data), len(data) // 150), len(data) - 1]:
        with pytest.raises(PriorError):
            parse(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], key)


@pytest.mark.parametrize("cut", [1, 30, 500])
def test_a_file_that_is_cut_or_goes_on_is_refused(file, key, cut):
    data = file.read_bytes()
    for wrong in (data[:-cut], data + bytes(cut)):
        with pytest.raises(PriorTamperedError, match="p: "):
            parse(wrong, key)


def test_another_signer_is_not_the_hub(file, tmp_path):
    stranger = generate_key(tmp_path / "other.pem")
    with pytest.raises(UntrustedPriorError, match=f"{stranger.public_hex}. Anybody can sign"):
        read(file, stranger)


def test_another_schema_is_refused(file, key):
    other = EVERY_KIND.model_copy(update={"name": "others", "target": None})
    with pytest.raises(PriorMismatchError, match="'others' here has"):
        read(file, key, other)


def test_a_rehearsals_prior_is_for_rehearsals(tmp_path, key):
    path = written(tmp_path / "r.prior", key, rehearsal=True)
    with pytest.raises(RehearsalPriorError, match="NOT PRIVATE"):
        read(path, key)
    with pytest.raises(RehearsalPriorError, match="NOT PRIVATE"):
        read(path, key, rehearsal=True).require_for(EVERY_KIND, rehearsal=False)
    assert read(path, key, rehearsal=True).manifest.rehearsal


def test_a_newer_format_is_told_from_a_forged_one(file, key):
    with pytest.raises(PriorVersionError, match="Update distill"):
        parse(forged(file, key, manifest=lambda m: m.update(format_version=2)), key)


def sets(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Tensors], Tensors]:
    def changed(tensors: Tensors) -> Tensors:
        tensors[name] = np.asarray(change(tensors[name]))
        return tensors

    return changed


def not_finite(tensors: Tensors) -> bytes:
    """`weights` as safetensors with a NaN in them, which our own writer refuses."""
    data = encode_tensors(tensors)
    size = struct.unpack_from("<Q", data)[0]
    begin = 8 + size + json.loads(data[8 : 8 + size])["weights"]["data_offsets"][0]
    return data[:begin] + struct.pack("<f", float("nan")) + data[begin + 4 :]


HOSTILE_TENSORS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "a tensor is missing": (lambda t: {k: v for k, v in t.items() if k != "weights"}, "missing or unknown: weights"),
    "an unknown tensor": (lambda t: {**t, "seed": np.zeros(1)}, "missing or unknown: seed"),
    "not finite": (not_finite, "not finite"),
    "not safetensors": (lambda t: b"\x00" * 40, "tensors"),
    "floats as records": (sets("probabilities", lambda v: v.astype(np.float32)), "16-bit"),
    "flat records": (sets("probabilities", np.ravel), "16-bit"),
    "no record": (sets("probabilities", lambda v: v[:0]), "do not fit the bins"),
    "narrow records": (sets("probabilities", lambda v: v[:, 1:]), "do not fit the bins"),
    "too many records": (sets("probabilities", lambda v: np.repeat(v, 200, axis=0)), "do not fit the bins"),
    "more weights than records": (sets("weights", lambda v: np.append(v, np.float32(0))), "weights has shape"),
    "negative weights": (sets("weights", lambda v: -v), "weights are not shares"),
    "no weight": (sets("weights", lambda v: 0 * v), "weights are not shares"),
    "negative shares": (sets("shares", lambda v: v - 1), "shares are not shares"),
    "large shares": (sets("shares", lambda v: v + 2), "shares are not shares"),
    "bins out of order": (sets("bin_starts", lambda v: v[::-1].copy()), "out of order"),
    "bins beyond the grid": (sets("bin_starts", lambda v: v + np.uint32(1 << 20)), "out of order"),
    "bins with gaps": (sets("bin_of_piece", lambda v: 2 * v), "not"),
    "a head of other width": (sets("class_weight", lambda v: v[:, 1:]), "class_weight has shape"),
    "a head of floats": (sets("class_weight", lambda v: v.astype(np.float32)), "class_weight has type"),
}


@pytest.mark.parametrize("attack", HOSTILE_TENSORS)
def test_a_hostile_tensor_is_refused_though_the_hub_signed_it(file, key, attack):
    change, words = HOSTILE_TENSORS[attack]
    with pytest.raises(PriorTamperedError, match=words):
        parse(forged(file, key, tensors=change), key)


HOSTILE_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another kind of file": (lambda m: m.update(kind="bundle"), "global prior"),
    "an unknown field": (lambda m: m.update(more=1), "manifest is wrong"),
    "no bundle": (lambda m: m.update(bundles=[]), "manifest is wrong"),
    "negative epsilon": (lambda m: m["disjoint"].update(epsilon=-1.0), "manifest is wrong"),
    "readings in contradiction": (lambda m: m["disjoint"].update(epsilon=9.0), "contradict"),
    "another schema digest": (lambda m: m.update(schema_digest="0" * 64), "another digest"),
    "another key": (lambda m: m.update(public_key="0" * 64), "another key"),
    "another tensors' digest": (lambda m: m["tensors"].update(sha256="0" * 64), "another SHA-256"),
    "another tensors' size": (lambda m: m["tensors"].update(size=7), "another size"),
    "classes that are not there": (lambda m: m.update(class_prior=[0.2, 0.3, 0.5]), "one for each class"),
    "shares that add up to more": (lambda m: m.update(class_prior=[0.9, 0.9]), "one for each class"),
}


@pytest.mark.parametrize("attack", HOSTILE_MANIFESTS)
def test_a_hostile_manifest_is_refused_though_the_hub_signed_it(file, key, attack):
    change, words = HOSTILE_MANIFESTS[attack]
    with pytest.raises(PriorTamperedError, match=words):
        parse(forged(file, key, manifest=change), key)


def test_members_are_exactly_the_known_ones(file, key):
    container = open_container(file.read_bytes())
    manifest, tensors = (container.members[n].unpack(1 << 24) for n in ("prior.json", "joint.safetensors"))
    for members in (
        {"prior.json": manifest},
        {"prior.json": manifest, "joint.safetensors": tensors, "more.json": b"{}"},
        {"joint.safetensors": tensors, "prior.json": manifest},
        {"manifest.json": manifest, "joint.safetensors": tensors},
    ):
        with pytest.raises(PriorTamperedError, match="members"):
            parse(pack(members, key), key)


def test_a_bomb_is_not_unpacked(file, key):
    with pytest.raises(PriorTamperedError, match="times its packed size"):
        parse(forged(file, key, tensors=lambda t: bytes(8 << 20)), key)


def test_what_is_no_prior_is_refused_with_the_mend(tmp_path, key):
    with pytest.raises(PriorError, match="cannot read the global prior"):
        read(tmp_path / "absent", key)
    with pytest.raises(PriorError, match=r"not a file|directory"):
        read(tmp_path, key)
    for content, words in ((b"", "it is empty"), (b"hello", "Name a file of the hub")):
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(PriorError, match=words):
            read(tmp_path / "f", key)
    with (tmp_path / "large").open("wb") as large:
        large.truncate(global_prior.MAX_FILE + 1)
    with pytest.raises(PriorError, match="larger than"):
        read(tmp_path / "large", key)


def test_a_model_that_would_be_refused_is_not_written(tmp_path, key):
    wrong = replace(toy_generator(), class_prior=np.array([0.5, 0.6]))
    with pytest.raises(PriorError):
        written(tmp_path / "hub.prior", key, wrong)
    assert list(tmp_path.iterdir()) == []
