"""The virtual clock: seconds of transfers and work by hand, tiers from words, drop-outs repeatable."""

import itertools
from dataclasses import replace

import pytest

from distill.errors import ConfigError
from server_train.federated.engine.clock import HIGH, LOW, MEDIUM, Clock, Tier, measure_seconds_per_row, parse_tiers
from server_train.federated.local.mlp import Mlp

PLAIN = Tier(name="plain", speed=0.5, down=1000.0, up=100.0, latency=0.25)


def test_transfers_and_work_take_what_they_take_by_hand() -> None:
    clock = Clock(tiers=(PLAIN,), seconds_per_row=0.01)
    assert clock.download_seconds(0, 500) == 0.75  # 0.25 + 500 / 1000
    assert clock.upload_seconds(0, 500) == 5.25  # 0.25 + 500 / 100
    assert clock.compute_seconds(0, 100) == 2.0  # 100 rows of 0.01 seconds at half speed


def test_the_slow_line_needs_a_tenth_of_a_second_for_a_small_model() -> None:
    """8,897 weights are 35,588 bytes: 28.5 ms down at 10 Mbit/s, 285 ms up at 1 Mbit/s, 50 ms latency each."""
    clock = Clock(tiers=(LOW,))
    assert clock.download_seconds(0, 4 * 8897) == pytest.approx(0.05 + 0.0284704)
    assert clock.upload_seconds(0, 4 * 8897) == pytest.approx(0.05 + 0.284704)


def test_tiers_are_dealt_in_turn() -> None:
    clock = Clock(tiers=parse_tiers("high, medium,low"))
    assert [clock.tier(client) for client in range(5)] == [HIGH, MEDIUM, LOW, HIGH, MEDIUM]


def test_each_tier_is_slower_than_the_one_before() -> None:
    for faster, slower in itertools.pairwise((HIGH, MEDIUM, LOW)):
        assert faster.speed > slower.speed
        assert faster.down > slower.down
        assert faster.up > slower.up
        assert faster.latency < slower.latency
        assert faster.drop_out < slower.drop_out


@pytest.mark.parametrize("words", ["fast", "", "high,,low", "high;low"])
def test_an_unknown_tier_is_refused_with_the_known_ones(words: str) -> None:
    with pytest.raises(ConfigError, match=r"no tier .* Name high, medium, low"):
        parse_tiers(words)


@pytest.mark.parametrize(
    ("field", "value"),
    [("speed", 0.0), ("down", -1.0), ("up", float("nan")), ("latency", -0.1), ("drop_out", 1.1), ("drop_out", -0.1)],
)
def test_a_tier_that_cannot_be_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(PLAIN, **{field: value})


def test_a_clock_needs_tiers_and_time() -> None:
    with pytest.raises(ConfigError, match="at least one tier"):
        Clock(tiers=())
    with pytest.raises(ConfigError, match="seconds_per_row"):
        Clock(seconds_per_row=0.0)


def first(clock: Clock, client: int, n: int) -> list[bool]:
    return list(itertools.islice(clock.drop_outs(client), n))


def test_drop_outs_come_at_the_stated_rate_and_repeat_with_the_seed(seed: int) -> None:
    clock = Clock(tiers=(replace(PLAIN, drop_out=0.3),), seed=seed)
    fates = first(clock, 0, 10_000)
    assert 0.3 - 0.03 < sum(fates) / len(fates) < 0.3 + 0.03  # 6.5 standard errors
    assert first(clock, 0, 100) == fates[:100]
    assert first(clock, 1, 100) != fates[:100]
    assert first(replace(clock, seed=seed + 1), 0, 100) != fates[:100]


def test_chances_of_zero_and_one_are_certain() -> None:
    assert not any(first(Clock(tiers=(PLAIN,)), 0, 100))
    assert all(first(Clock(tiers=(replace(PLAIN, drop_out=1.0),)), 0, 100))


def test_a_measured_row_takes_a_plausible_time_and_a_larger_model_longer() -> None:
    small = measure_seconds_per_row(Mlp([10, 4, 2]), steps=20)
    large = measure_seconds_per_row(Mlp([400, 200, 2]), steps=20)
    assert 1e-9 < small < large < 0.1
