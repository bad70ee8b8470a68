"""Joint components: common bins by hand, fits that come nearer to the truth than each institution alone, and the way back."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.exchange.generator_codec import parts_of
from distill.exchange.levels import LEVELS, Level
from distill.synthesis.statistics.counts import PairCounts
from server_train.pooling import pool as pool_module
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.institutions.site import site_of
from server_train.pooling.mixture import joint_mixture
from server_train.pooling.mixture.common_bins import Marginals, common_bins
from server_train.pooling.mixture.joint_mixture import Stake, fit_joint, joint_or_plain, pair_distance
from server_train.pooling.pool import draw_pool
from tests.fakes.joint import COARSE, OTHER, ROWS, SCHEMA, Site, bins_at, rows, site


@pytest.fixture(autouse=True)
def fewer_components(monkeypatch):
    """Four narrow features need no thousand of them."""
    monkeypatch.setattr(joint_mixture, "COMPONENTS", 200)


def two_sites(noise: float = 40.0) -> list[Site]:
    return [site(rows(ROWS, seed), edges, noise=noise, seed=10 + seed) for seed, edges in enumerate((COARSE, OTHER))]


def stakes(sites: list[Site], trust: tuple[float, ...] | None = None) -> list[Stake]:
    """All with as many rows, and believed in full if nothing else is said."""
    weights = trust or (1.0,) * len(sites)
    return [Stake(site=s, rows=1 / len(sites), trust=t) for s, t in zip(sites, weights, strict=True)]


def named(sites: list[Site], *names: str) -> list[Institution]:
    """Institutions whose pairs travelled."""
    return [Institution(name=name, generator=s.generator, site=s) for name, s in zip(names, sites, strict=True)]


def truth(of: Site, *, shift: float = 0.0) -> torch.Tensor:
    """Pair shares of very many rows, in the institution's own bins."""
    leaves, layout = rows(200_000, 99, shift=shift), of.generator.layout
    codes = np.stack([b.coarse(leaves[:, i]).astype(np.int64) for i, b in enumerate(of.generator.feature_bins)], axis=1)
    one_hot = layout.one_hot(torch.from_numpy(codes))
    return one_hot.T @ one_hot / len(codes)


def error(of: Site, together: torch.Tensor, true: torch.Tensor) -> float:
    """Mean absolute difference over the cells of all pairs, summed a pair."""
    starts, widths = of.generator.layout.starts, of.generator.layout.features
    gaps = [
        (together - true)[starts[i] : starts[i] + widths[i], starts[j] : starts[j] + widths[j]].abs().sum()
        for i, j in of.pairs.pairs
    ]
    return float(torch.stack(gaps).mean())


def released(of: Site) -> torch.Tensor:
    """Its pairs as released, in their places."""
    layout = of.generator.layout
    together, starts, widths = torch.zeros(layout.feature_width, layout.feature_width), layout.starts, layout.features
    for (i, j), block in zip(of.pairs.pairs, of.pairs.released, strict=True):
        together[starts[i] : starts[i] + widths[i], starts[j] : starts[j] + widths[j]] = torch.from_numpy(block)
    return together


def test_common_bins_are_the_cells_that_no_institution_cuts():
    """By hand: edges 0 20 40 60 80 and 0 30 50 70 90 make nine cells; categories and the missing bin stay as they are."""
    own = [bins_at(COARSE)[:-1], bins_at(OTHER)[:-1]]
    shares = [[np.full(b.n_bins, 1 / b.n_bins) for b in bins] for bins in own]
    common = common_bins([Marginals(b, s, 0.5) for b, s in zip(own, shares, strict=True)])
    assert common.features[0].starts.tolist() == [0, 20, 30, 40, 50, 60, 70, 80, 90]
    assert common.widths == (9, 8, 3, 11)
    assert common.own[0][:9].tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert common.own[1][:9].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert common.own[1][9 : 9 + 8].tolist() == [5, 5, 6, 6, 7, 7, 8, 8]
    assert common.own[0][-1] == sum(b.n_bins for b in own[0]) - 1  # the missing bin is the last one
    for places, within, bins in zip(common.own, common.within, own, strict=True):
        np.testing.assert_allclose(np.bincount(places, within), np.ones(sum(b.n_bins for b in bins)))


def test_values_that_no_institution_tells_apart_share_a_bin():
    """Two categories in one bin at both institutions need one number, not two."""
    (one,) = (b for b in bins_at({}) if b.grid.column.name == "c")
    merged = replace(one, bin_of_piece=np.array([0, 1, 0]))
    common = common_bins([Marginals([merged], [np.array([0.5, 0.5])], 0.5)] * 2)
    assert common.widths == (2,)
    assert common.features[0].bin_of_piece.tolist() == [0, 1, 0]


def test_the_joint_fit_is_nearer_to_the_truth_than_the_institutions_alone():
    """Records without pairs come to nearly the truth, nearer than the blocks that they are fitted to."""
    sites = two_sites()
    joint = fit_joint(stakes(sites), np.random.default_rng(0))
    for number, one in enumerate(sites):
        true = truth(one)
        before, after = (error(one, g.pair_shares, true) for g in (one.generator, joint.own(number)))
        assert before > 0.5
        assert after < 0.7 * error(one, released(one), true)
        assert pair_distance(one, joint.own(number).pair_shares) < 1.15


def test_the_fit_stops_at_the_noise_instead_of_learning_it(monkeypatch):
    """The floor is what holds it: with one far above, it stops far above; without one, it goes on and below."""

    def reached(floor: float) -> float:
        monkeypatch.setattr(joint_mixture, "NOISE_FLOOR", floor)
        sites = two_sites(noise=60.0)
        joint = fit_joint(stakes(sites), np.random.default_rng(0))
        return float(np.mean([pair_distance(s, joint.own(i).pair_shares) for i, s in enumerate(sites)]))

    high, held, free = reached(1.5), reached(1.0), reached(0.0)
    assert high > held + 0.1
    assert 0.85 < held < 1.15
    assert free < held - 0.02


def test_an_institution_keeps_what_sets_it_apart():
    """One has high x, the other low: its own weights, not one mixture for both."""
    sites = [
        site(rows(ROWS, 0, shift=4.0), COARSE, noise=20.0, seed=1),
        site(rows(ROWS, 1, shift=-1.0), OTHER, noise=20.0, seed=2),
    ]
    joint = fit_joint(stakes(sites), np.random.default_rng(0))
    for number, shift in enumerate((4.0, -1.0)):
        own = joint.own(number)
        assert error(sites[number], own.pair_shares, truth(sites[number], shift=shift)) < 0.12
    shares = [joint.own(0).pair_shares, joint.own(1).pair_shares]
    assert shares[0].shape != shares[1].shape
    np.testing.assert_allclose(joint.mixing.sum(axis=1), 1)


def test_rows_of_a_joint_institution_are_in_its_own_words():
    joint = fit_joint(stakes(two_sites()), np.random.default_rng(0))
    frame = joint.own(1).draw(2000, np.random.default_rng(0))
    assert list(frame) == [c.name for c in SCHEMA.columns]
    assert np.corrcoef(frame["x"], frame["y"])[0, 1] > 0.65  # .77 is what five bins leave of it
    assert (frame["z"].isna() == (frame["c"] == "c")).mean() > 0.9


def test_one_seed_repeats_the_fit():
    one, two = (fit_joint(stakes(two_sites()), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.logits, two.logits)
    np.testing.assert_array_equal(one.mixing, two.mixing)


def test_an_institution_that_is_not_believed_moves_nothing():
    """Its statistics are nonsense; with trust 0 the others' fit is as good as without it."""
    sites = two_sites()
    released = [np.roll(b, 2, axis=0) for b in sites[1].pairs.released]
    liar = replace(sites[1], pairs=replace(sites[1].pairs, released=released))
    drawn, joint = joint_or_plain(stakes([sites[0], liar], (1.0, 0.0)), np.random.default_rng(0))
    assert drawn == [None, None]  # nobody is left to fit it with
    assert joint is None
    drawn, joint = joint_or_plain(stakes([*sites, liar], (1.0, 1.0, 0.0)), np.random.default_rng(0))
    assert joint is not None
    assert len(joint.sites) == 2
    assert [d is None for d in drawn] == [False, False, True]


def test_who_cannot_be_fitted_keeps_its_own_records():
    """Pairs that contradict the class histograms: no components come near them, so the rows stay as they came."""
    sites = [site(rows(ROWS, s), COARSE, noise=20.0, seed=s, tied=True) for s in range(2)]
    drawn, _ = joint_or_plain(stakes(sites), np.random.default_rng(0))
    assert all(d is not None for d in drawn)
    far = replace(
        sites[0], counts=replace(sites[0].counts, by_column=[c[:, ::-1].copy() for c in sites[0].counts.by_column])
    )
    drawn, _ = joint_or_plain(stakes([far, sites[1]]), np.random.default_rng(0))
    assert [d is None for d in drawn] == [True, False]


def test_without_pairs_the_rows_are_drawn_as_before_and_the_notes_say_so():
    north, south = named(two_sites(), "north", "south")
    without = [replace(north, site=None), replace(south, site=None)]
    plain = draw_pool(SCHEMA, without, rows=500, rng=np.random.default_rng(0))
    pool = draw_pool(SCHEMA, [north, without[1]], rows=500, rng=np.random.default_rng(0))
    assert pool.joint is None
    assert plain.frame.drop(columns="label").equals(pool.frame.drop(columns="label"))
    about_rows = [note[:18] for note in pool.notes if note.startswith("The rows of")]
    assert about_rows == ["The rows of north ", "The rows of south "]


def test_the_pool_is_drawn_from_the_joint_components():
    institutions = named(two_sites(), "north", "south")
    pool = draw_pool(SCHEMA, institutions, rows=4000, rng=np.random.default_rng(0))
    without = [replace(i, site=None) for i in institutions]
    plain = draw_pool(SCHEMA, without, rows=4000, rng=np.random.default_rng(0))
    assert pool.joint is not None
    assert (
        np.corrcoef(pool.frame["x"], pool.frame["y"])[0, 1]
        > 0.6
        > np.corrcoef(plain.frame["x"], plain.frame["y"])[0, 1]
    )
    assert not [n for n in pool.notes if n.startswith("The rows of")]


@pytest.mark.parametrize("kept", [[(0, 1)], [(0, 3), (1, 2)], [(0, 1), (0, 3)]])
def test_a_few_chosen_pairs_are_enough(kept):
    """Wide tables measure some pairs only; what is measured is fitted, blocks apart from each other included."""

    def few(one: Site) -> Site:
        places = [one.pairs.pairs.index(pair) for pair in kept]
        parts = {
            name: [getattr(one.pairs, name)[p] for p in places] for name in ("shares", "aims", "signal", "released")
        }
        return replace(one, pairs=PairCounts(pairs=kept, stddev=one.pairs.stddev, **parts))

    sites = [few(s) for s in two_sites()]
    joint = fit_joint(stakes(sites), np.random.default_rng(0))
    for number, one in enumerate(sites):
        assert error(one, joint.own(number).pair_shares, truth(one)) < 0.25


@pytest.mark.parametrize("level", ["full", "default"])
def test_a_bundle_brings_its_pairs_as_released(level):
    one = two_sites()[0]
    read = site_of(bundle_of(one, level), one.generator)
    assert read is not None
    for sent, received in zip(one.pairs.released, read.pairs.released, strict=True):
        np.testing.assert_allclose(received, sent, atol=0.51 * LEVELS[level].pair_step * one.pairs.stddev + 2e-3)


def test_a_compact_bundle_or_another_generator_has_nothing_to_fit():
    one = two_sites()[0]
    assert site_of(bundle_of(one, "compact"), one.generator) is None
    assert site_of(bundle_of(one, "full"), object()) is None


def bundle_of(one: Site, level: Level) -> SimpleNamespace:
    """What `read_bundle` would give for it, as far as statistics go."""
    parts, settings = parts_of(one.generator, one.counts, one.pairs, np.array([1.0]), level, np.random.default_rng(0))
    return SimpleNamespace(schema=SCHEMA, tensors=parts, manifest=SimpleNamespace(generator=settings), path="x.distill")


def test_a_capped_claim_of_rows_pulls_no_harder_on_the_components(monkeypatch):
    """One of three claims a thousand times its rows: what counts of them is what its statistics are trusted by, too."""
    seen: list[list[float]] = []

    def watched(stakes, rng):
        seen.append([stake.trust for stake in stakes])
        return joint_or_plain(stakes, rng)

    monkeypatch.setattr(pool_module, "joint_or_plain", watched)
    sites = [*two_sites(), site(rows(ROWS, 5), COARSE, noise=40.0, seed=15)]
    *honest, third = named(sites, "north", "south", "liar")
    huge = replace(third, generator=replace(sites[2].generator, noisy_rows=ROWS * 1000))
    pool = draw_pool(SCHEMA, [*honest, huge], rows=300, rng=np.random.default_rng(0))
    liar = pool.members[2]
    assert liar.counted_rows <= 2 * ROWS * 1.1
    assert seen[0][:2] == [m.weight for m in pool.members[:2]]
    assert seen[0][2] == liar.weight * (liar.counted_rows / liar.noisy_rows) ** 2 < 1e-5


def test_noise_between_columns_that_do_not_depend_is_not_learnt():
    """Two institutions with columns drawn apart from each other: the joint components leave them so, their own pairs do not."""
    apart = [site(shuffled(seed), edges, noise=60.0, seed=30 + seed) for seed, edges in enumerate((COARSE, OTHER))]
    joint = fit_joint(stakes(apart), np.random.default_rng(0))
    assert len(joint.dependent) <= 2
    for number, one in enumerate(apart):
        layout, own = one.generator.layout, joint.own(number).pair_shares
        flat = torch.from_numpy(np.outer(*[np.concatenate(one.generator.shares)] * 2).astype(np.float32))
        assert error(one, own, flat) < 0.25 * error(one, released(one), flat)
        assert layout.feature_width == len(own)


def shuffled(seed: int) -> np.ndarray:
    """Rows whose columns know nothing of each other."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(column) for column in rows(ROWS, seed).T], axis=1)
