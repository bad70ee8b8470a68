"""Figures from a noisy table: exact where there is no noise, and intervals that hold what they promise."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import brier_score_loss, roc_auc_score

from distill.exchange import noisy_scores
from distill.exchange.noisy_scores import Block, NoisyBlock, auc, calibration, figures, roc_points
from tests.fakes.private_tables import FALSE_ALARM

EDGES = (0.1, 0.25, 0.5, 0.8)
MIDDLES = (0.05, 0.2, 0.4, 0.6, 0.9)
BLOCK = Block("1", EDGES, MIDDLES, (0.5,) * 5, (tuple(m**2 for m in MIDDLES), tuple((1 - m) ** 2 for m in MIDDLES)))
COUNTS = np.array([[400, 300, 200, 90, 10], [20, 50, 90, 80, 60]])


def noisy(counts: np.ndarray = COUNTS, scale: float = 1e-9, law: str = "laplace", block: Block = BLOCK) -> NoisyBlock:
    return NoisyBlock(block, counts, law, scale)


def rows_of(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that a table counts, each with its bin's middle as its score."""
    holds = np.repeat([0, 1], counts.sum(axis=1))
    return holds, np.repeat(np.tile(MIDDLES, 2), counts.ravel())


def test_without_noise_the_figures_are_those_of_the_binned_scores():
    holds, scores = rows_of(COUNTS)
    found = figures([noisy()], threshold=0.5, costs=(1.0, 4.0))
    assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(holds, scores))
    assert found["brier"]["value"] == pytest.approx(brier_score_loss(holds, scores))
    assert found["accuracy"]["value"] == pytest.approx(((scores >= 0.5) == holds).mean())
    assert found["base_rate"]["value"] == pytest.approx(holds.mean())
    at = found["at_threshold"]
    assert (at["true_positives"], at["false_positives"], at["false_negatives"], at["true_negatives"]) == (
        140,
        100,
        160,
        900,
    )
    assert at["true_positive_rate"]["value"] == pytest.approx(140 / 300)
    assert at["false_positive_rate"]["value"] == pytest.approx(0.1)
    assert at["cost_a_row"]["value"] == pytest.approx((100 + 4 * 160) / 1300)
    assert found["rows"] == 1300
    assert [line["observed"]["value"] for line in found["calibration"]] == pytest.approx(COUNTS[1] / COUNTS.sum(axis=0))


def test_rows_inside_a_bin_count_by_what_is_known_of_them():
    one = Block("1", (), (0.5,), (0.8,), ((0.25,), (0.25,)))
    assert auc(one)(np.array([[50], [50]])) == pytest.approx(0.8)


def test_three_classes_are_means_over_classes_and_accuracy_comes_from_the_last_table():
    names = ["a", "b", "c", "right"]
    blocks = [noisy(COUNTS, block=Block(n, EDGES, MIDDLES, BLOCK.wins, BLOCK.losses)) for n in names]
    found = figures(blocks, threshold=0.5)
    assert found["roc_auc"]["value"] == pytest.approx(float(auc(BLOCK)(COUNTS)))
    assert set(found["per_class_auc"]) == {"a", "b", "c"}
    assert found["accuracy"]["value"] == pytest.approx(300 / 1300)
    assert "at_threshold" not in found


@pytest.mark.parametrize("law", ["laplace", "gaussian"])
def test_intervals_hold_the_exact_figure_as_often_as_they_say(law, monkeypatch):
    """95 % intervals over 600 releases: 90 % or fewer would be a defect; by chance it is rarer than FALSE_ALARM."""
    monkeypatch.setattr(noisy_scores, "REDRAWS", 1000)
    rng, scale, releases = np.random.default_rng(3), 6.0, 600
    draw = rng.laplace if law == "laplace" else rng.normal
    exact = float(auc(BLOCK)(COUNTS))
    held = 0
    for _ in range(releases):
        table = NoisyBlock(BLOCK, COUNTS + np.rint(draw(0, scale, COUNTS.shape)).astype(int), law, scale)
        moved = auc(BLOCK)(table.redrawn["interval"]) - (value := float(auc(BLOCK)(table.counts)))
        low, high = value - np.quantile(moved, [0.975, 0.025])
        held += low <= exact <= high
    assert scipy.stats.binom.cdf(0.90 * releases, releases, 0.95) < FALSE_ALARM
    assert held > 0.90 * releases
    assert held < releases  # an interval that always holds would be too wide to say anything


def test_the_interval_of_customers_is_the_wider_one_and_the_intervals_are_those_of_the_redraws():
    table = noisy(COUNTS + 3, scale=6.0)
    found = figures([table], threshold=0.5)["accuracy"]
    widths = [found[name][1] - found[name][0] for name in ("interval", "interval_customers")]
    assert 0 < widths[0] < widths[1]
    right = lambda c: (c[..., 0, :3].sum(axis=-1) + c[..., 1, 3:].sum(axis=-1)) / c.sum(axis=(-2, -1))  # noqa: E731
    value = right(table.counts)
    expected = value - np.quantile(right(table.redrawn["interval"]) - value, [0.975, 0.025])
    assert found["interval"] == pytest.approx(expected)


def test_the_auc_interval_is_wider_where_more_is_taken_for_granted_inside_bins():
    sure = noisy(scale=1.0, block=Block("1", EDGES, MIDDLES, (0.7,) * 5, BLOCK.losses))
    plain = noisy(scale=1.0)
    width = {b: np.ptp(figures([b], threshold=0.5)["roc_auc"]["interval"]) for b in (sure, plain)}
    slack = float(auc(sure.block)(COUNTS) - auc(plain.block)(COUNTS)) / 2
    assert width[sure] == pytest.approx(width[plain] + 2 * slack, abs=0.002)


def test_figures_that_the_noise_drowns_are_not_told():
    few = np.array([[3000, 2000, 900, 90, 10], [1, 2, 0, 1, 2]])
    found = figures([noisy(few, scale=20.0)], threshold=0.5)
    assert found["roc_auc"] is None
    assert found["at_threshold"]["true_positive_rate"] is None
    assert found["accuracy"] is not None  # all rows together are many
    nothing = figures([noisy(np.zeros((2, 5), int), scale=20.0)], threshold=0.5)
    assert nothing["accuracy"] is None
    assert nothing["calibration"] == []


def test_bins_without_clear_rows_are_joined_to_the_right():
    counts = np.array([[400, 2, 200, 90, 10], [20, 1, 90, 80, 60]])
    lines = calibration(noisy(counts, scale=5.0))
    assert [(line["from"], line["to"]) for line in lines] == [(0.0, 0.1), (0.1, 0.5), (0.5, 0.8), (0.8, 1.0)]
    assert lines[1]["rows"] == 293


def test_the_noisy_curve_never_falls_and_ends_at_both_corners():
    wild = NoisyBlock(BLOCK, np.array([[400, -30, 200, 90, -5], [20, 50, -9, 80, 60]]), "laplace", 10.0)
    points = np.array(roc_points(wild))
    assert (np.diff(points, axis=0) >= 0).all()
    assert points.min() >= 0
    assert points.max() <= 1


def test_redraws_repeat_and_differ_between_blocks():
    twice = [noisy(scale=5.0).redrawn["interval"] for _ in range(2)]
    assert (twice[0] == twice[1]).all()
    other = Block("2", EDGES, MIDDLES, BLOCK.wins, BLOCK.losses)
    assert (noisy(scale=5.0, block=other).redrawn["interval"] != twice[0]).any()
