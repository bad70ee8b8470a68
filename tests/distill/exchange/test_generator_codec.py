"""A generator as tensors and back: draws stay the same to rounding, and a tensor that does not fit is refused."""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill.data.schema import Schema
from distill.errors import BundleError
from distill.exchange.generator_codec import generator_of, parts_of, statistics_of
from distill.exchange.levels import LEVELS, Level
from distill.synthesis.generator.generator import Generator
from distill.synthesis.generator.thinning import thin
from distill.synthesis.statistics.counts import ClassCounts, PairCounts
from distill.synthesis.statistics.denoising import denoise_pairs
from tests.fakes.private_tables import EVERY_KIND, schema_of, toy_generator
from tests.fakes.private_tables import statistics_of as exact_statistics

CLUSTERS = np.array([0.7, 0.3])


def toy_statistics(generator: Generator, rows: int) -> tuple[ClassCounts, PairCounts]:
    codes = generator.draw_codes(rows, np.random.default_rng(0))
    return exact_statistics(codes, generator.layout.features, generator.layout.classes)


def bundled(generator: Generator, rows: int = 5000, level: Level = "full") -> SimpleNamespace:
    """What `read_bundle` gives for a generator, as far as `generator_of` looks."""
    counts, pairs = toy_statistics(generator, rows)
    parts, settings = parts_of(generator, counts, pairs, CLUSTERS, level, np.random.default_rng(0))
    tensors = {group: parts.get(group, {}) for group in ("statistics", "heads", "components")}
    manifest = SimpleNamespace(
        generator=settings, class_prior=generator.class_prior.tolist(), noisy_rows=generator.noisy_rows, level=level
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
        for bin_ in range(one.n_bins):  # masses only divide their bin
            inside = one.bin_of_piece == bin_
            p, q = one.masses[inside], two.masses[inside]
            np.testing.assert_allclose(p / p.sum(), q / q.sum(), atol=0.01)
    codes = before.draw_codes(2000, np.random.default_rng(1))
    np.testing.assert_allclose(after.class_logits(codes), before.class_logits(codes), atol=0.05)
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


def with_statistics(generator: Generator, counts: ClassCounts, pairs: PairCounts, level: Level) -> SimpleNamespace:
    """A bundle with these statistics at a level."""
    parts, settings = parts_of(generator, counts, pairs, CLUSTERS, level, np.random.default_rng(0))
    sound = bundled(generator, 100)
    manifest = SimpleNamespace(**{**vars(sound.manifest), "generator": settings})
    return SimpleNamespace(**{**vars(sound), "tensors": {**sound.tensors, **parts}, "manifest": manifest})


@pytest.mark.parametrize("level", ["full", "default"])
@pytest.mark.parametrize("rows", [3000, 400_000])
def test_statistics_come_back_within_their_step(rows, level):
    """Also on large tables, where the noise is a tiny share of the rows."""
    generator = toy_generator()
    codes = np.tile(generator.draw_codes(4000, np.random.default_rng(0)), (rows // 4000 or 1, 1))
    counts, pairs = exact_statistics(codes, generator.layout.features, 2)
    again, pairs_again, clusters = statistics_of(with_statistics(generator, counts, pairs, level))
    for one, two in zip(counts.by_column, again.by_column, strict=True):
        np.testing.assert_allclose(two, one, atol=counts.stddev / 8 * 1.01)
    assert (again.stddev, pairs_again.stddev) == (counts.stddev, pairs.stddev)
    assert pairs_again.pairs == pairs.pairs
    for one, two in zip(pairs.shares, pairs_again.released, strict=True):
        np.testing.assert_allclose(two, one, atol=LEVELS[level].pair_step / 2 * pairs.stddev * 1.01)
    assert pairs_again.rounding == LEVELS[level].pair_step
    np.testing.assert_allclose(clusters, CLUSTERS, rtol=1e-6)


@pytest.mark.parametrize("level", ["full", "default"])
def test_pairs_travel_as_released_and_are_denoised_by_whoever_reads_them(level):
    """Noisy blocks of independent features: what travels is the noise itself, what is read is (nearly) nothing of it."""
    generator = toy_generator()
    counts, exact = exact_statistics(generator.draw_codes(4000, np.random.default_rng(0)), generator.layout.features, 2)
    rng, stddev, one_way = np.random.default_rng(1), 0.01, counts.shares
    independent = [np.outer(one_way[i], one_way[j]) for i, j in exact.pairs]
    noisy = [block + rng.normal(0, stddev, block.shape) for block in independent]
    at_home = denoise_pairs(exact.pairs, noisy, one_way, stddev)
    _, read, _ = statistics_of(with_statistics(generator, counts, at_home, level))
    step = LEVELS[level].pair_step * stddev
    for sent, received in zip(noisy, read.released, strict=True):
        np.testing.assert_allclose(received, sent, atol=step / 2 + 1e-3)  # the one-way counts are rounded too
    for home, here in zip(at_home.shares, read.shares, strict=True):
        np.testing.assert_allclose(here, home, atol=2 * step + 1e-3)
    left = [np.abs(here - block).mean() for here, block in zip(read.shares, independent, strict=True)]
    assert np.mean(left) < stddev / 5
    assert read.spread == pytest.approx(stddev * np.sqrt(1 + LEVELS[level].pair_step ** 2 / 12))


def test_each_level_is_smaller_than_the_one_above():
    generator = toy_generator(records=300)
    sizes = [
        sum(t.nbytes for group in bundled(generator, level=level).tensors.values() for t in group.values())
        for level in LEVELS
    ]
    assert sizes[0] > 1.5 * sizes[1] > 3 * sizes[2]


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_keeps_the_class_head_and_the_one_way_shares(level):
    generator = toy_generator(records=300)
    exact = toy_statistics(generator, 5000)[0].shares
    before, after = generator, generator_of(bundled(generator, level=level))
    codes = before.draw_codes(3000, np.random.default_rng(1))
    np.testing.assert_allclose(after.class_logits(codes), before.class_logits(codes), atol=0.05)
    assert (after.noisy_rows, after.layout) == (before.noisy_rows, before.layout)
    for one, two in zip(exact, after.shares, strict=True):
        np.testing.assert_allclose(two, one, atol=0.001)
    drawn = after.draw_codes(20_000, np.random.default_rng(2))
    for j, share in enumerate(exact):
        assert np.abs(np.bincount(drawn[:, j], minlength=len(share)) / 20_000 - share).sum() < 0.06


def test_the_default_level_keeps_pairs_and_the_compact_one_only_what_classes_say():
    """Total variation between drawn and real pair shares: near the full level's for default, larger for compact."""
    generator = toy_generator(records=300)
    _, pairs = toy_statistics(generator, 50_000)

    def distance(level: Level) -> float:
        drawn = generator_of(bundled(generator, level=level)).draw_codes(50_000, np.random.default_rng(3))
        _, found = exact_statistics(drawn, generator.layout.features, 2)
        return float(np.mean([np.abs(a - b).sum() / 2 for a, b in zip(pairs.shares, found.shares, strict=True)]))

    full, default, compact = (distance(level) for level in LEVELS)
    assert default < full + 0.02
    assert compact > default + 0.02


def test_without_a_critic_rows_are_selected_by_raking_alone():
    after = generator_of(bundled(toy_generator(), level="default"))
    assert after.critic is None
    assert len(after.draw(500, np.random.default_rng(0))) == 500


@pytest.mark.parametrize("schema", [EVERY_KIND, schema_of({"name": "x", "kind": "continuous", "min": 0, "max": 1})])
def test_thinned_records_keep_the_mixture(schema):
    """Half the records say the same of one column, and of pairs, as all of them to within a few percent."""
    whole = toy_generator(schema, records=200)
    few = thin(whole, 100, np.random.default_rng(0))
    assert few.logits.shape == (100, whole.layout.feature_width)
    assert few.critic is None
    assert thin(whole, 200, np.random.default_rng(0)).logits is whole.logits
    one, two = (g.draw_codes(50_000, np.random.default_rng(1)) for g in (replace(whole, critic=None), few))
    for j, width in enumerate(whole.layout.features):
        p, q = (np.bincount(codes[:, j], minlength=width) / 50_000 for codes in (one, two))
        assert np.abs(p - q).sum() / 2 < 0.03


def test_every_tensor_is_of_a_type_that_a_bundle_holds():
    allowed = {np.dtype(t) for t in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "?")}
    for group in bundled(toy_generator()).tensors.values():
        for name, tensor in group.items():
            assert tensor.dtype in allowed, name
            assert np.isfinite(tensor.astype(float)).all(), name


def every_tensor() -> list[tuple[str, str]]:
    return [(group, name) for group, tensors in bundled(toy_generator(), 100).tensors.items() for name in tensors]


# Statistics that a reader needs only for the representation, not to draw: `generator_of` does not look at them.
UNREAD = {"pair_columns", "pair_additions", "cluster_shares"}
READ = [pair for pair in every_tensor() if pair[1] not in UNREAD]
MARKS_ITS_GROUP = {"critic_hidden"}  # without it there is no critic, which is allowed


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


@pytest.mark.parametrize(("group", "name"), [p for p in READ if p[1] not in MARKS_ITS_GROUP])
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
        ("components", "weights", lambda a: (a * 100).astype(np.int32)),
        ("components", "probabilities", lambda a: a.astype(np.int16)),
        ("components", "probabilities", lambda a: a.astype(np.float32)),
        ("statistics", "class_counts", set_at((0, 1), -4)),
        ("statistics", "class_counts", lambda a: a * 0),
        ("statistics", "class_counts", lambda a: a.astype(np.float32)),
        ("heads", "class_weight", lambda a: a.astype(np.float32)),
        ("heads", "class_weight_step", lambda a: a.astype(np.int32)),
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


@pytest.mark.parametrize(
    ("name", "value"),
    [("critic_power", p) for p in (-0.1, 1.5, float("nan"), "much", None)]
    + [("probability_steps", p) for p in (0, 256, 2.5, "many", None, True)],
)
def test_a_senseless_setting_is_refused(sound, name, value):
    manifest = copy.copy(sound.manifest)
    manifest.generator = {**manifest.generator, name: value}
    with pytest.raises(BundleError, match="does not fit its schema"):
        generator_of(SimpleNamespace(**{**vars(sound), "manifest": manifest}))


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan"), None, "some"])
def test_a_compact_bundle_needs_its_noise_scale(value):
    sound = bundled(toy_generator(), level="compact")
    sound.manifest.generator = {**sound.manifest.generator, "class_stddev": value}
    with pytest.raises(BundleError, match="does not fit its schema"):
        generator_of(sound)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pair_columns", np.array([[0, 99]], np.int16)),
        ("pair_columns", np.array([[1, 0]], np.int16)),
        ("pair_columns", np.array([[-1, 0]], np.int16)),
        ("pair_columns", np.array([0, 1], np.int16)),
        ("pair_columns", np.array([[0, 1], [0, 1]], np.int16)),
        ("pair_additions", np.zeros(3, np.int8)),
        ("pair_additions", np.zeros(3, np.float32)),
        ("cluster_shares", np.zeros((2, 2), np.float32)),
    ],
)
def test_statistics_that_cannot_be_are_refused(sound, name, value):
    with pytest.raises(BundleError, match="does not fit its schema"):
        statistics_of(broken(sound, "statistics", name, value))


def test_pair_statistics_beyond_all_shares_are_refused(sound):
    """Blocks are decomposed when they are read, so what could overflow there must not get that far."""
    additions = sound.tensors["statistics"]["pair_additions"].astype(np.int64)
    additions[3] = 2**62
    with pytest.raises(BundleError, match="pair_additions are no shares"):
        statistics_of(broken(sound, "statistics", "pair_additions", additions))


@pytest.mark.parametrize("name", ["pair_stddev", "pair_step"])
@pytest.mark.parametrize("value", [0.0, 1e300, float("inf")])
def test_pair_statistics_need_a_noise_scale_and_a_step(sound, name, value):
    manifest = copy.copy(sound.manifest)
    manifest.generator = {**manifest.generator, name: value}
    with pytest.raises(BundleError, match="does not fit its schema"):
        statistics_of(SimpleNamespace(**{**vars(sound), "manifest": manifest}))


@pytest.mark.parametrize("name", ["class_stddev", "pair_stddev", "pair_step"])
@pytest.mark.parametrize("value", [float("nan"), -1.0, None])
def test_statistics_need_sound_noise_scales(sound, name, value):
    manifest = copy.copy(sound.manifest)
    manifest.generator = {**manifest.generator, name: value}
    with pytest.raises(BundleError, match="does not fit its schema"):
        statistics_of(SimpleNamespace(**{**vars(sound), "manifest": manifest}))


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
