"""The one door: unpaid reads see no row, paid ones are counted, and one unit moves an answer by no more than stated."""

import dataclasses
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.encoded_table import encode_frame
from distill.data.grids import base_grids
from distill.data.schema import Schema
from distill.data.tables import canonical_table
from distill.errors import ConfigError, UnpaidReadError
from distill.privacy import private_table
from distill.privacy.cells import Cross, Lookup
from distill.privacy.dpsgd import lattice_bits
from distill.privacy.events import Event
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Network
from tests.fakes.private_tables import (
    FALSE_ALARM,
    FORBIDDEN_CELLS,
    FORBIDDEN_NETWORK,
    NoNoise,
    OneByOne,
    OnlySamples,
    Paid,
    category,
    codes_seen,
    counting_network,
    integer,
    number,
    schema_of,
    times_seen,
)

SCHEMA = schema_of(integer("level", 0, 3), number("ratio", nullable=True))
UNITS = schema_of(integer("level", 0, 3), number("ratio", nullable=True), unit="customer")
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=50.0)
COUNTS = Event(name="counts", mechanism="gaussian", noise_multiplier=2.0, blocks=3)
STEPS = Event(name="steps", mechanism="poisson_gaussian", noise_multiplier=1.5, sampling_rate=0.25, count=2)
TWICE = COUNTS.model_copy(update={"count": 2})
CELL = COUNTS.cell_stddev
LEVEL = Cross((0,), (4,))


def rows(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ratio = np.where(rng.random(n) < 0.2, np.nan, rng.random(n))
    return pd.DataFrame({"level": rng.integers(0, 4, n), "ratio": ratio, "label": rng.integers(0, 2, n)})


def opened(
    frame: pd.DataFrame, *events: Event, noise: NoiseSource | None = None, schema: Schema = SCHEMA, target: int = 2
) -> PrivateTable:
    table = PrivateTable(
        encode_frame(canonical_table(frame, schema), schema), schema, Paid(list(events)), noise or NoNoise()
    )
    table.recode([lambda leaves: leaves.astype(np.uint16)] * len(schema.columns), target=target)
    return table


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda t: t.noisy_size("rows"), "no reserved event 'rows'"),
        (lambda t: t.noisy_size("counts"), "pays for a gaussian release, not laplace"),
        (lambda t: t.noisy_counts("cells", [FORBIDDEN_CELLS], [9.0]), "no reserved event 'cells' pays"),
        (lambda t: t.noisy_counts("size", [FORBIDDEN_CELLS], [9.0]), "pays for a laplace release, not gaussian"),
        (lambda t: t.noisy_counts("steps", [FORBIDDEN_CELLS], [9.0]), "pays for a poisson_gaussian release"),
        (lambda t: t.noisy_counts("counts", [FORBIDDEN_CELLS] * 3, [CELL * 0.999] * 3), "more noise than this"),
        (lambda t: t.noisy_counts("counts", [FORBIDDEN_CELLS] * 4, [CELL] * 4), "more noise than this read"),
        (lambda t: t.noisy_counts("counts", [FORBIDDEN_CELLS] * 2, [CELL * 9, 1.9]), "more noise than this read"),
        (lambda t: t.laplace_counts("cells", [FORBIDDEN_CELLS]), "no reserved event 'cells' pays"),
        (lambda t: t.laplace_counts("counts", [FORBIDDEN_CELLS]), "pays for a gaussian release, not laplace"),
        (lambda t: t.laplace_counts("size", [FORBIDDEN_CELLS] * 2), "planned for fewer blocks"),
        (lambda t: t.noisy_gradient("walk", [FORBIDDEN_NETWORK]), "no reserved event 'walk'"),
        (lambda t: t.noisy_gradient("counts", [FORBIDDEN_NETWORK]), "not poisson_gaussian"),
    ],
)
def test_an_unpaid_read_is_refused_before_any_row_is_looked_at(read, message):
    table = opened(rows(20), SIZE, COUNTS, STEPS)
    with pytest.raises(UnpaidReadError, match=message):
        read(table)
    assert table.reads == {}


def test_each_event_pays_for_as_many_reads_as_planned_and_they_are_counted():
    table = opened(rows(20), SIZE, COUNTS, STEPS)
    table.noisy_size("size")
    table.noisy_counts("counts", [LEVEL] * 3, [CELL] * 3)
    for _ in range(2):
        table.noisy_gradient("steps", [counting_network(4, starts=np.array([0]))])
    assert table.reads == {"size": 1, "counts": 1, "steps": 2}
    for read in (
        lambda: table.noisy_size("size"),
        lambda: table.noisy_counts("counts", [FORBIDDEN_CELLS], [CELL * 2]),
        lambda: table.noisy_gradient("steps", [FORBIDDEN_NETWORK]),
    ):
        with pytest.raises(UnpaidReadError, match="and all are used"):
            read()
    assert table.reads == {"size": 1, "counts": 1, "steps": 2}


def test_events_that_are_reserved_later_pay_from_then_on():
    paid = Paid([SIZE])
    table = PrivateTable(encode_frame(canonical_table(rows(20), SCHEMA), SCHEMA), SCHEMA, paid, NoNoise())
    with pytest.raises(UnpaidReadError):
        table.noisy_counts("counts", [FORBIDDEN_CELLS], [CELL])
    paid.events = [SIZE, COUNTS]
    assert table.noisy_counts("counts", [LEVEL], [CELL])[0].sum() == 20


@pytest.mark.parametrize("blocks", [1, 2, 3, 15, 29, 97, 1001])
def test_exactly_the_planned_noise_is_accepted_for_any_number_of_blocks(blocks):
    event = Event(name="many", mechanism="gaussian", noise_multiplier=1.2345, blocks=blocks)
    table = opened(rows(5), event)
    got = table.noisy_counts("many", [LEVEL] * blocks, [event.cell_stddev] * blocks)
    assert len(got) == blocks


def test_noise_may_be_divided_unevenly_among_blocks():
    stddevs = [CELL * 3, CELL * 0.75, CELL * 3]  # 1/9 + 16/9 + 1/9 of a cell's precision: less than 3
    assert len(opened(rows(5), COUNTS).noisy_counts("counts", [LEVEL] * 3, stddevs)) == 3


NUMBERED = schema_of(category("number", *range(30)))


@given(st.lists(st.tuples(st.integers(-2, 7), st.integers(-2, 7)), min_size=1, max_size=30), st.integers(1, 6))
def test_one_record_moves_each_block_by_at_most_one_in_one_cell(cells, size):
    """Whatever the tables say, cells outside the block and -1 included. Each row is the only one of its number."""
    labels = np.pad(np.array(cells), ((0, 30 - len(cells)), (0, 0)))
    asked = [Lookup((0,), (labels[:, j],), (size,)) for j in range(2)]

    def histograms(first: int) -> list[np.ndarray]:
        numbers = np.arange(first, len(cells))
        table = opened(pd.DataFrame({"number": numbers, "label": 0}), COUNTS, schema=NUMBERED, target=1)
        return table.noisy_counts("counts", asked, [CELL] * 2)

    for j, counts in enumerate(histograms(0)):
        assert counts.tolist() == [int((labels[: len(cells), j] == cell).sum()) for cell in range(size)]
    for more, fewer in zip(histograms(0), histograms(1), strict=True):
        assert more.shape == (size,)
        assert set((more - fewer).tolist()) <= {0, 1}
        assert (more - fewer).sum() <= 1


def test_counts_are_those_of_the_rows_plus_noise_of_the_stated_spread(seed):
    frame, cells = rows(300, seed), 8000
    event = Event(name="counts", mechanism="gaussian", noise_multiplier=6.0)
    table = opened(frame, event, noise=NoiseSource())
    (counts,) = table.noisy_counts("counts", [Cross((0,), (cells,))], [6.0])
    truth = np.bincount(frame["level"], minlength=cells)
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=cells)
    assert low < np.square((counts - truth) / 6.0).sum() < high


def noise_of(table: PrivateTable, width: int, clip: float, seen: np.ndarray) -> np.ndarray:
    """What is left of a noisy counting gradient of one-hot rows (their numbers of times: `seen`) in units of `clip`."""
    (got,) = table.noisy_gradient("steps", [counting_network(width, clip=clip, starts=np.array([0, 4]))])
    assert got.shape == (width + 1,)
    assert got.dtype == np.float64
    got[: len(seen)] += seen * 2**-0.5
    got[-1] += seen.sum() / 2
    return got / clip


def test_a_gradient_sum_gets_noise_of_multiplier_times_clip_norm():
    """On 60,000 weights, most of which no row has; every row is in the sample."""
    size, frame = 60_000, rows(50).assign(ratio=0.0)
    table = opened(frame, STEPS.model_copy(update={"sampling_rate": 1.0}), noise=NoiseSource())
    noise = noise_of(table, size - 1, 4.0, np.append(np.bincount(frame["level"], minlength=4), 50))
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=size)
    assert low < np.square(noise / 1.5).sum() < high


def test_a_gradient_sees_a_poisson_sample_at_the_events_rate():
    event = STEPS.model_copy(update={"count": 300})
    table = opened(rows(400), event, noise=OnlySamples())
    asked = [counting_network(4, starts=np.array([0]))]
    batches = [int(times_seen(table.noisy_gradient("steps", asked)[0], 1)[-1]) for _ in range(300)]
    low = scipy.stats.binom.ppf(FALSE_ALARM / 2, 300 * 400, 0.25)
    assert low <= sum(batches) <= scipy.stats.binom.isf(FALSE_ALARM / 2, 300 * 400, 0.25)
    spread = np.var(batches) / (400 * 0.25 * 0.75)  # 0 for batches of fixed size
    assert scipy.stats.chi2.ppf(FALSE_ALARM, 299) / 299 < spread < scipy.stats.chi2.isf(FALSE_ALARM, 299) / 299


def test_a_gradient_sees_coarse_codes_with_the_target_last():
    schema = Schema.model_validate({**SCHEMA.model_dump(), "columns": [SCHEMA.columns[2], *SCHEMA.columns[:2]]})
    frame = rows(30)[["label", "level", "ratio"]]
    paid = Paid([STEPS.model_copy(update={"count": 30})])
    table = PrivateTable(encode_frame(canonical_table(frame, schema), schema), schema, paid, OneByOne())
    table.recode([lambda x: x + 10, lambda x: x + 20, lambda x: np.full(len(x), 3)], target=0)
    expected = np.stack([frame["level"] + 20, np.full(30, 3), frame["label"] + 10], axis=1)
    np.testing.assert_array_equal(codes_seen(table, "steps", [24, 4, 12], 30), expected)


def test_the_class_of_a_loss_is_the_target():
    """At even chances the bias of a class gets half a one for each row of another class, minus half a one for its own."""
    frame = rows(40)
    (got,) = opened(frame, STEPS).noisy_gradient(
        "steps", [Network(((np.zeros((2, 4)), np.zeros(2)),), loss="classes", clip=4.0, starts=np.array([0]))]
    )
    ones = frame["label"].sum()
    np.testing.assert_allclose(got[-2:], [ones - 20, 20 - ones], atol=1e-6)
    own = np.bincount(frame["level"], np.where(frame["label"] == 0, -0.5, 0.5), minlength=4)
    np.testing.assert_allclose(got[:-2], np.concatenate([own, -own]), atol=1e-6)


def test_noise_of_a_gradient_is_asked_for_in_steps_of_the_lattice_and_the_answer_is_whole_steps():
    """The step follows from the planned noise alone, and each network's answer is in its own clip norm."""
    asked = []

    class Noted(NoNoise):
        def lattice_gaussian(self, size: int, *, stddev: float) -> np.ndarray:
            asked.append((size, stddev))
            return super().lattice_gaussian(size, stddev=stddev) + 3

    networks = [counting_network(4, clip=c, starts=np.array([0])) for c in (2.0, 0.5)]
    networks = [dataclasses.replace(n, share=share) for n, share in zip(networks, (0.25, 0.75), strict=True)]
    quiet, loud = (
        opened(rows(70), STEPS.model_copy(update={"noise_multiplier": m}), noise=Noted()) for m in (1.5, 2.0**14)
    )
    for table, multiplier in ((quiet, 1.5), (loud, 2.0**14)):
        bits = lattice_bits(multiplier)
        parts = table.noisy_gradient("steps", networks)
        assert asked.pop() == (10, multiplier * 2.0**bits)
        for part, network in zip(parts, networks, strict=True):
            steps = part * network.share**0.5 / network.clip * 2.0**bits
            np.testing.assert_allclose(steps, np.rint(steps), rtol=1e-14, atol=1e-3)
            assert steps[-1] == pytest.approx(
                3 - 70 * network.share**0.5 / max(network.clip, 2**0.5) * 2.0**bits, abs=70 * 2**16
            )
    assert lattice_bits(1.5) > lattice_bits(2.0**14)


def test_networks_whose_shares_add_up_to_more_than_one_are_refused_and_nothing_is_read():
    table = opened(rows(20), STEPS)
    half = dataclasses.replace(FORBIDDEN_NETWORK, share=0.5)
    for wrong in ([FORBIDDEN_NETWORK, dataclasses.replace(FORBIDDEN_NETWORK, share=0.01)], [half] * 3):
        with pytest.raises(ConfigError, match="shares of one clip norm add up to more than 1"):
            table.noisy_gradient("steps", wrong)
    assert table.reads == {}
    third = dataclasses.replace(counting_network(4, starts=np.array([0])), share=1 / 3)
    assert len(table.noisy_gradient("steps", [third] * 3)) == 3


def with_units(n: int, units: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return rows(n, seed).assign(
        customer=[f"c{k}" for k in np.append(np.arange(units), rng.integers(0, units, n - units))]
    )


def test_a_unit_counts_once_however_many_rows_it_has(seed):
    frame = with_units(200, 37, seed)
    once = opened(frame, SIZE, COUNTS, schema=UNITS)
    more = pd.concat([frame, frame[frame["customer"] == "c3"]] * 3, ignore_index=True)
    assert once.noisy_size("size") == 37
    assert opened(more, SIZE, schema=UNITS).noisy_size("size") == 37
    assert once.noisy_counts("counts", [LEVEL], [CELL])[0].sum() == 37


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_every_row_that_stands_for_a_unit_is_one_of_its_own(seed):
    frame = with_units(60, 12, seed % 1000)
    frame["level"] = frame["customer"].str[1:].astype(int) % 4
    table = opened(frame, COUNTS, noise=NoNoise(), schema=UNITS)
    (counts,) = table.noisy_counts("counts", [LEVEL], [CELL])
    np.testing.assert_array_equal(counts, np.bincount(np.arange(12) % 4))


def test_the_door_shows_no_rows():
    """Nothing public on the table grows with the rows."""
    table = opened(rows(777), SIZE, COUNTS, STEPS)
    public = {name: value for name, value in vars(table).items() if not name.startswith("_")}
    assert set(public) == {"schema", "grids", "reads"}
    assert "777" not in repr(public)


def test_without_a_target_gradients_see_one_class_behind_the_columns():
    schema = Schema.model_validate({"name": "t", "columns": [category("a", "u", "v"), category("b", "u", "v", "w")]})
    frame = pd.DataFrame({"a": ["u", "v"] * 10, "b": ["w", "u"] * 10})
    event = Event(name="g", mechanism="poisson_gaussian", noise_multiplier=1.0, sampling_rate=1.0, count=20)
    table = PrivateTable(encode_frame(canonical_table(frame, schema), schema), schema, Paid([event]), OneByOne())
    table.recode([lambda cells: cells] * 2, target=2)
    np.testing.assert_array_equal(codes_seen(table, "g", [2, 3, 1], 20), [[0, 2, 0], [1, 0, 0]] * 10)


# ---- the fast ways against brute force ------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 60), st.integers(1, 9), st.integers(0, 10**6))
def test_counting_and_recoding_in_pieces_is_what_one_pass_over_all_rows_gives(n, piece, seed):
    frame, rng = rows(n, seed), np.random.default_rng(seed)
    grids = base_grids(SCHEMA)
    maps = [rng.integers(0, 300 if i == 1 else 9, g.cells) for i, g in enumerate(grids)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_table, "CHUNK_ROWS", piece)
        patch.setattr(private_table, "ROWS_AT_ONCE", piece)
        table = PrivateTable(
            encode_frame(canonical_table(frame, SCHEMA), SCHEMA), SCHEMA, Paid([TWICE, STEPS]), NoNoise()
        )
        leaves = encode_frame(canonical_table(frame, SCHEMA), SCHEMA).codes
        asked = Lookup((1,), (np.arange(grids[1].cells) // 4096 - 2,), (9,))
        (before,) = table.noisy_counts("counts", [asked], [CELL])
        table.recode([lambda cells, m=m: m[cells] for m in maps], target=2)
        (after,) = table.noisy_counts("counts", [Cross((0, 1), (9, 300))], [CELL])
        (summed,) = table.noisy_gradient("steps", [counting_network(318, starts=np.array([0, 9, 309]))])
    expected = np.zeros(9, dtype=int)
    for leaf in leaves[1]:
        if 2 <= leaf // 4096 < 11:  # cells outside are not counted
            expected[leaf // 4096 - 2] += 1
    assert before.tolist() == expected.tolist()
    coarse = [m[c] for m, c in zip(maps, leaves, strict=True)]
    wanted = np.zeros(9 * 300, dtype=int)
    for one, other in zip(coarse[0], coarse[1], strict=True):
        wanted[one * 300 + other] += 1
    assert after.tolist() == wanted.tolist()
    each = [np.bincount(c, minlength=w) for c, w in zip(coarse, (9, 300, 9), strict=True)]
    np.testing.assert_array_equal(times_seen(summed, 3), np.concatenate([*each, [n]]))


def test_after_recoding_a_table_holds_one_byte_a_value_and_no_leaves():
    n = 200_000
    encoded = encode_frame(canonical_table(rows(n), SCHEMA), SCHEMA)  # three columns
    table = PrivateTable(encoded, SCHEMA, Paid([COUNTS]), NoiseSource())
    tracemalloc.start()
    table.recode([lambda cells: cells, lambda cells: cells // 512, lambda cells: cells], target=2)
    table.noisy_counts("counts", [Cross((1,), (129,))], [CELL])
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3 * n + 1e5  # the leaves were there before, and were let go
    assert peak < 3 * n + 3e6  # pieces of 131,072 rows, eight bytes a value, of one label and what it is made from


# ---- units of several rows ------------------------------------------------------------------------------------------


def several(event: Event, m: int) -> Event:
    return event.model_copy(update={"rows_per_unit": m})


def unit_table(
    frame: pd.DataFrame, m: int, *events: Event, noise: NoiseSource | None = None, schema: Schema = UNITS
) -> PrivateTable:
    paid = Paid([several(e, m) for e in events])
    table = PrivateTable(
        encode_frame(canonical_table(frame, schema), schema), schema, paid, noise or NoNoise(), rows_per_unit=m
    )
    table.recode([lambda cells: cells, lambda cells: np.minimum(cells // 8192, 8), lambda cells: cells], target=2)
    return table


@pytest.mark.parametrize("m", [1, 2, 3, 7])
def test_one_unit_of_equal_rows_moves_every_answer_by_exactly_the_stated_sensitivity(m):
    """Neighbours: the second table has one unit more, whose rows, more than m, are all alike. Nothing is noised."""
    base = with_units(80, 30, 0)
    outlier = base.head(1).assign(customer="outlier", level=3, ratio=1.0)
    tables = [base, pd.concat([base, *[outlier] * (m + 4)], ignore_index=True)]
    blocks = COUNTS.blocks
    sizes, counts, sums = [], [], []
    clip = 0.25
    # Rows of level 3 and bin 7, as the outlier's are, pull as hard as they can, and all others not at all.
    weight = np.zeros((1, 15))
    weight[0, [3, 4 + 7]] = -4000.0
    pulled = Network(((weight, np.array([3500.0])),), loss="real", clip=clip, starts=np.array([0, 4, 13]))

    for frame in tables:
        # Which rows the other units keep is chosen unit by unit; units of one row make both choices the same.
        single = (
            frame.drop_duplicates("customer")
            if frame is base
            else pd.concat([base.drop_duplicates("customer"), frame[80:]])
        )
        table = unit_table(single, m, SIZE, COUNTS, STEPS)
        sizes.append(table.noisy_size("size"))
        cell = COUNTS.cell_stddev * m
        counts.append(np.concatenate(table.noisy_counts("counts", [LEVEL] * blocks, [cell] * blocks)))
        sums += table.noisy_gradient("steps", [pulled])
    assert sizes[1] - sizes[0] == m  # L1
    assert np.linalg.norm(counts[1] - counts[0]) == pytest.approx(m * blocks**0.5)
    assert np.linalg.norm(sums[1] - sums[0]) == pytest.approx(m * clip, rel=1e-6)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 12))
def test_no_unit_whatever_its_rows_moves_the_counts_by_more(seed, m, more):
    base = with_units(40, 12, seed % 1000).drop_duplicates("customer")
    other = rows(more, seed + 1).assign(customer="one more")
    asked = [LEVEL, Cross((1,), (9,)), Cross((0, 2), (4, 2))]
    answers = [
        np.concatenate(unit_table(frame, m, COUNTS).noisy_counts("counts", asked, [CELL * m] * 3))
        for frame in (base, pd.concat([base, other], ignore_index=True))
    ]
    assert np.linalg.norm(answers[1] - answers[0]) <= m * 3**0.5 + 1e-9
    assert (answers[1] - answers[0]).sum() == 3 * min(m, more)


def test_noise_grows_with_the_rows_of_a_unit():
    size, m = 60_000, 5
    frame = with_units(50, 20, 0).assign(level=0, ratio=0.0)
    table = unit_table(
        frame, m, STEPS.model_copy(update={"sampling_rate": 1.0}), several(COUNTS, 1), noise=NoiseSource()
    )
    kept = frame["customer"].value_counts().clip(upper=m).sum()
    noise = noise_of(table, size - 1, 4.0, np.array([kept, 0, 0, 0, kept]))
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=size)
    assert low < np.square(noise / (1.5 * m)).sum() < high
    (counts,) = table.noisy_counts("counts", [Lookup((0,), (np.zeros(4, int),), (8000,))], [2.0 * m])
    low, high = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], df=7999)
    assert low < np.square(counts[1:] / (2.0 * m)).sum() < high
    one, many = (
        [unit_table(with_units(50, 20, 0), k, SIZE, noise=NoiseSource()).noisy_size("size") for _ in range(600)]
        for k in (1, m)
    )
    assert 3 < np.abs(np.array(many) - 50).mean() / np.abs(np.array(one) - 20).mean() < 8  # 5 expected; 6 deviations


def test_a_sample_holds_whole_units_each_on_its_own():
    """Rows of a unit join together or not at all, and a unit joins at the event's rate however many rows it has."""
    rounds, m = 2000, 3
    sizes = [1, 2, 3, 9, 1, 2]  # the 9 rows are reduced to 3
    schema = schema_of(integer("level", 0, 5), number("ratio", nullable=True), unit="customer")
    frame = pd.concat([rows(k, 0).assign(customer=f"c{u}", level=u) for u, k in enumerate(sizes)])
    table = unit_table(
        frame.sample(frac=1, random_state=0),
        m,
        STEPS.model_copy(update={"count": rounds}),
        noise=OnlySamples(),
        schema=schema,
    )
    asked = [counting_network(len(sizes), starts=np.array([0]))]
    joined = np.array([times_seen(table.noisy_gradient("steps", asked)[0], 1)[:-1] for _ in range(rounds)])
    kept = np.minimum(sizes, m)
    assert ((joined == 0) | (joined == kept)).all()
    here = joined > 0
    low, high = (scipy.stats.binom.ppf(p, rounds, 0.25) for p in (FALSE_ALARM / 12, 1 - FALSE_ALARM / 12))
    assert ((low <= here.sum(axis=0)) & (here.sum(axis=0) <= high)).all()
    both = (here.astype(int).T @ here.astype(int))[np.triu_indices(len(sizes), 1)]
    low, high = (scipy.stats.binom.ppf(p, rounds, 0.25**2) for p in (FALSE_ALARM / 30, 1 - FALSE_ALARM / 30))
    assert ((low <= both) & (both <= high)).all()


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.noisy_size("size"),
        lambda t: t.noisy_counts("counts", [FORBIDDEN_CELLS] * 3, [CELL * 99] * 3),
        lambda t: t.laplace_counts("size", [FORBIDDEN_CELLS]),
        lambda t: t.noisy_gradient("steps", [FORBIDDEN_NETWORK]),
    ],
)
def test_an_event_for_fewer_rows_a_unit_does_not_pay(read):
    frame = canonical_table(with_units(20, 9, 0), UNITS)
    paid = Paid([several(e, 2) for e in (SIZE, COUNTS, STEPS)])
    table = PrivateTable(encode_frame(frame, UNITS), UNITS, paid, NoNoise(), rows_per_unit=3)
    table.recode([lambda cells: cells % 4] * 3, target=2)
    with pytest.raises(UnpaidReadError, match="planned for fewer rows a unit than this table keeps"):
        read(table)
    assert table.reads == {}


def test_counts_need_the_noise_of_all_of_a_units_rows():
    table = unit_table(with_units(20, 9, 0), 3, COUNTS)
    with pytest.raises(UnpaidReadError, match="more noise than this read would add"):
        table.noisy_counts("counts", [FORBIDDEN_CELLS] * 3, [CELL * 2.99] * 3)
