"""A bundle whose statistics do not bear each other out is found; an honest one never is."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distill.exchange.generator_codec import generator_of, parts_of
from distill.privacy.events import sampling_rate
from distill.synthesis.statistics.counts import ClassCounts, PairCounts
from server_train.pooling.weighing.self_consistency import fault_of
from tests.fakes.private_tables import EVERY_KIND, statistics_of, toy_generator

CLUSTERS = np.array([0.7, 0.3])
NOISE = 5.0  # stddev of one count, in rows


def bundle(level="full", rows=4000, seed=0):
    """What `read_bundle` gives for a release of `rows` rows."""
    rng, generator = np.random.default_rng(seed), toy_generator(EVERY_KIND)
    counts, pairs = statistics_of(generator.draw_codes(rows, rng), generator.layout.features, generator.layout.classes)
    noisy = [b + rng.normal(0, NOISE / rows, b.shape) for b in pairs.shares]
    counts, pairs = ClassCounts(counts.classes, counts.by_column, NOISE), PairCounts(pairs.pairs, noisy, NOISE / rows)
    generator = replace(
        generator, noisy_rows=rows, class_prior=counts.prior, count_noise=NOISE, shares=tuple(counts.shares)
    )
    parts, settings = parts_of(generator, counts, pairs, CLUSTERS, level, rng)
    events = [
        SimpleNamespace(name=name, cell_stddev=NOISE, mechanism="gaussian")
        for name in ("encode.classes", "relate.pairs")
    ]
    events.append(
        SimpleNamespace(
            name="discriminate", cell_stddev=1.0, mechanism="poisson_gaussian", sampling_rate=sampling_rate(rows)
        )
    )
    manifest = SimpleNamespace(
        generator=settings,
        class_prior=generator.class_prior.tolist(),
        noisy_rows=rows,
        level=level,
        privacy=SimpleNamespace(events=events),
    )
    tensors = {group: parts.get(group, {}) for group in ("statistics", "heads", "components")}
    return SimpleNamespace(path=Path("bank.distill"), schema=EVERY_KIND, tensors=tensors, manifest=manifest)


def fault(sent):
    return fault_of(sent, generator_of(sent))


@pytest.mark.parametrize("level", ["full", "default", "compact"])
@pytest.mark.parametrize("rows", [300, 4000, 100_000])
def test_an_honest_bundle_has_no_fault(level, rows):
    """Gaussian noise at 8 stddevs: a false alarm once in 1e12 runs."""
    assert fault(bundle(level, rows)) is None


def test_counts_that_were_scaled_do_not_add_up_to_the_rows():
    sent = bundle()
    sent.tensors["statistics"]["class_counts"] *= 3
    assert "add up to 1" in fault(sent)
    assert "and it states 4,000" in fault(sent)


def test_a_row_count_that_was_raised_does_not_fit_its_counts():
    sent = bundle("compact")
    sent.manifest.noisy_rows = 4_000_000
    assert "and it states 4,000,000" in fault(sent)


def test_a_claim_that_adds_up_but_was_not_planned_for_is_found():
    """All counts and the row count ten times as high, the noise as planned: only the ledger's sampling rate tells."""
    sent = bundle("compact")
    sent.tensors["statistics"]["class_counts"] *= 10
    sent.manifest.noisy_rows *= 10
    assert "it states 40,000 rows, and the sampling that its ledger planned" in fault(sent)
    sent.manifest.privacy.events[-1].sampling_rate = sampling_rate(40_000)
    assert fault(sent) is None


def test_a_first_row_count_with_much_noise_excuses_a_plan_for_other_rows():
    """Where a person may have many rows, the count that a plan starts from may be far off."""
    sent = bundle()
    sent.manifest.privacy.events[-1].sampling_rate = sampling_rate(16_000)
    assert "sampling" in fault(sent)
    sent.manifest.privacy.events.append(SimpleNamespace(name="size", cell_stddev=1500.0, mechanism="gaussian"))
    assert fault(sent) is None


@pytest.mark.parametrize("planned", [2600, 4000, 6100])
def test_the_rows_of_the_plan_need_not_be_quite_those_that_are_stated(planned):
    """The plan follows a row count with more noise than the one that is stated in the end."""
    sent = bundle()
    sent.manifest.privacy.events[-1].sampling_rate = sampling_rate(planned)
    assert fault(sent) is None


def test_classes_that_were_turned_round_in_one_place_only_do_not_fit():
    sent = bundle("compact")
    sent.manifest.class_prior.reverse()
    assert "add up to 4,0" in fault(sent) or "add up to 3,9" in fault(sent)


def test_one_column_that_was_scaled_is_named():
    sent = bundle()
    generator = generator_of(sent)
    width = generator.layout.features[0]
    sent.tensors["statistics"]["class_counts"][:, :width] *= 2
    assert repr(generator.feature_bins[0].grid.column.name) in fault(sent)


def test_pairs_that_were_scaled_do_not_fit_their_columns():
    sent = bundle()
    additions = sent.tensors["statistics"]["pair_additions"]
    sent.tensors["statistics"]["pair_additions"] = additions.astype(np.int32) * 20
    assert "together do not fit those by each alone" in fault(sent)


@pytest.mark.parametrize("stated", ["class_stddev", "pair_stddev"])
def test_a_noise_that_nobody_planned_is_found(stated):
    """Else a bundle could excuse any contradiction with the noise that it claims."""
    sent = bundle()
    sent.manifest.generator[stated] *= 50
    assert "its ledger planned another" in fault(sent)


def test_a_generator_without_statistics_has_nothing_to_compare():
    assert fault_of(SimpleNamespace(), object()) is None
