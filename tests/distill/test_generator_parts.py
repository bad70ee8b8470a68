"""A generator as tensors and back: draws stay the same to rounding, and a tensor that does not fit is refused."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from private_fakes import EVERY_KIND, schema_of, statistics_of, toy_generator

from distill.errors import BundleError
from distill.generator import Generator
from distill.generator_parts import generator_of, parts_of
from distill.schema import Schema


def bundled(generator: Generator, rows: int = 5000) -> SimpleNamespace:
    """What `read_bundle` gives for a generator, as far as `generator_of` looks."""
    codes = generator.draw_codes(rows, np.random.default_rng(0))
    counts, pairs = statistics_of(codes, generator.layout.features, generator.layout.classes)
    tensors, settings = parts_of(generator, counts, pairs, np.array([0.7, 0.3]))
    manifest = SimpleNamespace(
        generator=settings, class_prior=generator.class_prior.tolist(), noisy_rows=generator.noisy_rows
    )
    return SimpleNamespace(path=Path("bank.distill"), schema=generator.schema, tensors=tensors, manifest=manifest)


def there_and_back(schema: Schema) -> tuple[Generator, Generator]:
    generator = toy_generator(schema)
    return generator, generator_of(bundled(generator))


@pytest.mark.parametrize(
    "schema",
    [EVERY_KIND, schema_of({"name": "x", "kind": "continuous", "min": 0, "max": 1}, classes=("a", "b", "c"))],
    ids=["every kind", "one feature"],
)
def test_a_generator_comes_back_nearly_the_same(schema):
    before, after = there_and_back(schema)
    assert after.schema == before.schema
    assert (after.noisy_rows, after.critic_power) == (before.noisy_rows, before.critic_power)
    assert after.layout == before.layout
    for one, two in zip(before.bins, after.bins, strict=True):
        np.testing.assert_array_equal(one.starts, two.starts)
        np.testing.assert_array_equal(one.bin_of_piece, two.bin_of_piece)
        np.testing.assert_allclose(one.masses, two.masses, rtol=1e-6)
    codes = before.draw_codes(2000, np.random.default_rng(1))
    np.testing.assert_allclose(after.class_logits(codes), before.class_logits(codes), atol=0.01)
    np.testing.assert_allclose(after.critic_logit(codes), before.critic_logit(codes), atol=0.01)
    np.testing.assert_allclose(after.class_prior, before.class_prior)
    np.testing.assert_allclose(after.weights, before.weights, rtol=1e-5)


def test_probabilities_survive_the_eight_bits():
    before, after = there_and_back(EVERY_KIND)
    starts = before.layout.starts[1:-1]
    for one, two in zip(*(np.split(g.logits, starts, axis=1) for g in (before, after)), strict=True):
        p, q = (np.exp(x - np.logaddexp.reduce(x, axis=1, keepdims=True)) for x in (one, two))
        assert np.abs(p - q).sum(axis=1).max() < 0.05
        assert np.abs(p - q).max() < 0.02


def test_draws_of_the_stored_generator_have_the_same_shares():
    before, after = there_and_back(EVERY_KIND)
    one, two = (g.draw_codes(20_000, np.random.default_rng(2)) for g in (before, after))
    for j, width in enumerate(before.layout.widths):
        p, q = (np.bincount(codes[:, j], minlength=width) / 20_000 for codes in (one, two))
        assert np.abs(p - q).sum() < 0.05


@pytest.mark.parametrize(
    "rows",
    [3000, 400_000],
)
def test_statistics_are_stored_within_a_quarter_of_their_noise(rows):
    """Also on large tables, where the noise is a tiny share of the rows."""
    generator = toy_generator()
    codes = generator.draw_codes(4000, np.random.default_rng(0))
    codes = np.tile(codes, (rows // 4000 or 1, 1))
    counts, pairs = statistics_of(codes, generator.layout.features, 2)
    tensors, settings = parts_of(generator, counts, pairs, np.ones(1))
    stored = tensors["statistics"]
    flat = np.concatenate([b.ravel() for b in pairs.shares])
    np.testing.assert_allclose(
        stored["pair_shares"] * (settings["pair_stddev"] / 4), flat, atol=settings["pair_stddev"] / 8 * 1.01
    )
    block = np.concatenate(counts.by_column, axis=1)
    np.testing.assert_allclose(stored["class_counts"] * (settings["class_stddev"] / 4), block, atol=0.26)


def test_every_tensor_is_of_a_type_that_a_bundle_holds():
    allowed = {np.dtype(t) for t in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "?")}
    for group in bundled(toy_generator()).tensors.values():
        for name, tensor in group.items():
            assert tensor.dtype in allowed, name
            assert np.isfinite(tensor.astype(float)).all(), name


def every_tensor() -> list[tuple[str, str]]:
    return [(group, name) for group, tensors in bundled(toy_generator(), 100).tensors.items() for name in tensors]


# Statistics that a reader needs only for the representation, not to draw: `generator_of` does not look at them.
UNREAD = {"class_counts", "pair_columns", "pair_shares", "cluster_shares"}
READ = [pair for pair in every_tensor() if pair[1] not in UNREAD]


@pytest.fixture(scope="module")
def sound() -> SimpleNamespace:
    return bundled(toy_generator(), 100)


def broken(sound: SimpleNamespace, group: str, name: str, value: np.ndarray | None) -> SimpleNamespace:
    tensors = {g: dict(t) for g, t in sound.tensors.items()}
    if value is None:
        del tensors[group][name]
    else:
        tensors[group][name] = value
    return SimpleNamespace(**{**vars(sound), "tensors": tensors})


@pytest.mark.parametrize(("group", "name"), READ)
def test_a_missing_tensor_is_refused_by_name(sound, group, name):
    with pytest.raises(BundleError, match=rf"bank\.distill: .*tensor '{name}' is missing.*Ask for a new bundle"):
        generator_of(broken(sound, group, name, None))


@pytest.mark.parametrize(("group", "name"), READ)
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[:-1],
        lambda a: np.concatenate([a, a[-1:]]),
        lambda a: a[:0],
        lambda a: a.reshape(-1)[0],
        lambda a: a[None],
        lambda a: a[..., None],
    ],
    ids=["short", "long", "empty", "scalar", "deeper", "wider"],
)
def test_a_tensor_of_another_shape_is_refused(sound, group, name, change):
    tensor = sound.tensors[group][name]
    with pytest.raises(BundleError, match="does not fit its schema"):
        generator_of(broken(sound, group, name, np.asarray(change(tensor))))


def set_at(place: Any, value: float):
    def change(array: np.ndarray) -> np.ndarray:
        out = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        out[place] = value
        return out

    return change


@pytest.mark.parametrize(
    ("group", "name", "change"),
    [
        ("components", "weights", set_at(0, -0.5)),
        ("components", "weights", lambda a: a * 0),
        ("components", "logits", lambda a: a.astype(np.int16)),
        ("components", "logits", lambda a: a.astype(np.float32)),
        ("statistics", "shares", set_at(3, -0.1)),
        ("statistics", "bin_starts", set_at(0, 5)),
        ("statistics", "bin_starts", set_at(1, 0)),
        ("statistics", "bin_starts", set_at(1, -4)),
        ("statistics", "bin_starts", set_at(-1, 9999)),
        ("statistics", "bin_starts", lambda a: a[::-1]),
        ("statistics", "bin_masses", set_at(2, -1.0)),
        ("statistics", "bin_of_piece", set_at(0, 60_000)),
        ("statistics", "bin_of_piece", lambda a: a * 0),
        ("statistics", "bin_of_piece", set_at(1, -1)),
        ("statistics", "bin_pieces", set_at(0, 0)),
        ("statistics", "bin_pieces", set_at(0, -3)),
        ("statistics", "bin_pieces", set_at(0, 10**9)),
        ("statistics", "bin_pieces", set_at(0, 2)),
    ],
)
def test_a_tensor_with_values_that_cannot_be_is_refused(sound, group, name, change):
    with pytest.raises(BundleError, match="does not fit its schema"):
        generator_of(broken(sound, group, name, change(sound.tensors[group][name])))


def test_bins_of_the_target_must_be_its_classes():
    """Else a drawn class would point at a bin that is not there."""
    sound = bundled(toy_generator(), 100)
    merged = sound.tensors["statistics"]["bin_of_piece"].copy()
    merged[-2:] = 0  # the target is the last column: both classes in one bin
    with pytest.raises(BundleError):
        generator_of(broken(sound, "statistics", "bin_of_piece", merged))
    swapped = sound.tensors["statistics"]["bin_of_piece"].copy()
    swapped[-2:] = [1, 0]
    with pytest.raises(BundleError):
        generator_of(broken(sound, "statistics", "bin_of_piece", swapped))


@pytest.mark.parametrize("power", [-0.1, 1.5, float("nan"), "much", None])
def test_a_senseless_setting_is_refused(sound, power):
    manifest = copy.copy(sound.manifest)
    manifest.generator = {**manifest.generator, "critic_power": power}
    with pytest.raises(BundleError, match="does not fit its schema"):
        generator_of(SimpleNamespace(**{**vars(sound), "manifest": manifest}))


def test_a_missing_setting_or_a_prior_of_other_classes_is_refused(sound):
    for field, value in (("generator", {}), ("class_prior", [0.2, 0.3, 0.5])):
        manifest = copy.copy(sound.manifest)
        setattr(manifest, field, value)
        with pytest.raises(BundleError):
            generator_of(SimpleNamespace(**{**vars(sound), "manifest": manifest}))


def test_tensors_of_another_schema_are_refused(sound):
    other = schema_of({"name": "x", "kind": "continuous", "min": 0, "max": 1})
    with pytest.raises(BundleError, match="does not fit its schema"):
        generator_of(SimpleNamespace(**{**vars(sound), "schema": other}))
