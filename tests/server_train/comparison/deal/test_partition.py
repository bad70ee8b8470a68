import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import yardstick
from distill.common.canonical_json import canonical
from distill.data.demo import mixed_table
from distill.errors import ConfigError
from server_train.comparison.deal import partition_file as module
from server_train.comparison.deal.partition import (
    Partition,
    feature_skew,
    iid,
    label_dirichlet,
    quantity_dirichlet,
    summarise,
    to_bytes,
)
from server_train.comparison.deal.partition_file import load_partition, parse_partition, save_partition

FALSE_ALARM = 1e-6  # chance that correct code fails a statistical test on one fresh seed


@pytest.fixture(scope="module")
def frame():
    table = mixed_table(rows=2_000, rng=np.random.default_rng(0))
    return table.assign(number=np.arange(len(table)))


def listed(partition):
    return [part.tolist() for part in partition.positions]


def numbers(parts):
    """The marks of the rows in each of the yardstick's tables, in the order of the table."""
    return [sorted(part["number"]) for part in parts]


def is_a_deal(partition, rows, clients):
    """Each row with one client, each client with rows in order; by counting, not by the class's own check."""
    parts = listed(partition)
    return (
        sorted(row for part in parts for row in part) == list(range(rows))
        and len(parts) == clients
        and all(part and part == sorted(part) for part in parts)
    )


sizes = st.integers(1, 60).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(1, rows)))
seeds = st.integers(0, 2**32)


@given(sizes, seeds)
def test_an_even_deal_gives_every_row_to_one_client_in_sizes_that_differ_by_one(size, seed):
    made = iid(*size, seed)
    assert is_a_deal(made, *size)
    lengths = [len(part) for part in made.positions]
    assert max(lengths) - min(lengths) <= 1


@given(sizes, st.floats(0.5, 100), seeds)
def test_a_quantity_deal_gives_every_row_to_one_client(size, alpha, seed):
    rows, clients = 10 * size[0], min(size[1], 5)
    assert is_a_deal(quantity_dirichlet(rows, clients, alpha, seed, min_rows=1), rows, clients)


@given(st.lists(st.sampled_from("abc"), min_size=40, max_size=200), st.integers(1, 4), st.floats(0.5, 100), seeds)
def test_a_label_deal_gives_every_row_to_one_client(labels, clients, alpha, seed):
    assert is_a_deal(label_dirichlet(labels, clients, alpha, seed, min_rows=1), len(labels), clients)


@given(st.lists(st.one_of(st.none(), st.floats(), st.booleans()), min_size=1, max_size=60), st.integers(1, 8))
def test_a_skewed_deal_gives_every_row_to_one_client_whatever_the_column_holds(values, clients):
    clients = min(clients, len(values))
    assert is_a_deal(feature_skew(pd.Series(values, dtype=object), clients), len(values), clients)


@given(st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=2, max_size=60), st.integers(2, 5))
def test_numbers_rise_from_client_to_client_and_missing_ones_come_last(values, clients):
    column = pd.Series(values, dtype="Float64")
    made = feature_skew(column, min(clients, len(values)))
    filled = column.fillna(np.inf).to_numpy(dtype=float)
    for before, after in zip(made.positions, made.positions[1:], strict=False):
        assert filled[before].max() <= filled[after].min()


@pytest.mark.parametrize("clients", [1, 3, 7])
def test_the_even_deal_is_that_of_the_yardstick(frame, clients, seed):
    assert listed(iid(len(frame), clients, seed)) == numbers(
        yardstick.clients(frame, "default", clients, None, seed=seed)
    )


@pytest.mark.parametrize("alpha", [0.3, 0.5, 5.0])
@pytest.mark.parametrize("kind", ["int64", "category", "text"])
def test_the_label_deal_is_that_of_the_yardstick(frame, alpha, kind, seed):
    labels = frame["default"].astype(str)
    table = frame.assign(default=labels if kind == "text" else labels.astype(kind))
    made = label_dirichlet(table["default"], 4, alpha, seed, min_rows=100)
    assert listed(made) == numbers(yardstick.clients(table, "default", 4, alpha, seed=seed, min_rows=100))


def test_the_label_deal_is_that_of_the_yardstick_when_the_first_tries_are_refused(frame):
    """The first try is looked at too, so that this cannot become the easy case unseen."""
    first = label_dirichlet(frame["default"], 4, 0.1, 0, min_rows=1)
    assert min(map(len, first.positions)) < 200
    made = label_dirichlet(frame["default"], 4, 0.1, 0, min_rows=200)
    assert listed(made) == numbers(yardstick.clients(frame, "default", 4, 0.1, seed=0, min_rows=200))


@pytest.mark.parametrize("column", ["age", "default", "number"])
def test_the_skewed_deal_is_that_of_the_yardstick(frame, column):
    assert listed(feature_skew(frame[column], 6)) == numbers(yardstick.clients_by(frame, column, 6))


def test_the_skewed_deal_of_categories_and_missing_numbers_is_that_of_the_yardstick(frame):
    words = frame["age"].astype(int).map(lambda age: f"decade {age // 10}")
    holes = frame["age"].astype(float).where(frame["number"] % 3 > 0)
    table = frame.assign(words=words.astype("category"), holes=holes)
    for column in ("words", "holes"):
        assert listed(feature_skew(table[column], 6)) == numbers(yardstick.clients_by(table, column, 6))


@pytest.mark.parametrize("column", [pd.Series([9, 10, 8], dtype="category"), pd.Series([9, "a", 10])])
def test_what_is_not_a_column_of_numbers_is_in_order_of_its_text_as_in_the_yardstick(column):
    table = pd.DataFrame({"mixed": column, "number": range(3)})
    assert listed(feature_skew(column, 3)) == numbers(yardstick.clients_by(table, "mixed", 3))


def test_missing_categories_come_last_even_behind_texts_that_sort_after_nan():
    made = feature_skew(pd.Series(["zebra", None, "ant", None], dtype="category"), 4)
    assert listed(made) == [[2], [0], [1], [3]]


def test_whole_numbers_too_large_for_a_float_keep_their_order():
    column = pd.Series([2**53 + 1, 2**53, None], dtype="Int64")
    assert listed(feature_skew(column, 3)) == [[1], [0], [2]]


def test_a_quantity_deal_has_the_sizes_of_a_dirichlet_draw(seed):
    """Without refused tries a client's share is Beta(alpha, (k - 1) alpha): Kolmogorov-Smirnov over seeds."""
    shares = [
        len(quantity_dirichlet(20_000, 3, 2.0, s, 1).positions[0]) / 20_000 for s in range(seed * 500, seed * 500 + 500)
    ]
    assert scipy.stats.kstest(shares, scipy.stats.beta(2.0, 4.0).cdf).pvalue > FALSE_ALARM


def test_a_quantity_deal_keeps_the_class_mix_and_a_label_deal_does_not(seed):
    """Chi-square of the table client by class, on a table that is sorted by class; the label deal is one known draw."""
    labels = np.repeat([0, 1], 4_500)

    def chance(made):
        return scipy.stats.chi2_contingency([np.bincount(labels[p], minlength=2) for p in made.positions]).pvalue

    assert chance(quantity_dirichlet(9_000, 5, 1.0, seed, 200)) > FALSE_ALARM
    assert chance(label_dirichlet(labels, 5, 1.0, 0, 200)) < FALSE_ALARM


def test_a_seed_gives_one_deal_and_another_seed_another(frame):
    for make in (
        lambda seed: iid(2_000, 4, seed),
        lambda seed: label_dirichlet(frame["default"], 4, 1.0, seed),
        lambda seed: quantity_dirichlet(2_000, 4, 1.0, seed),
    ):
        assert listed(make(1)) == listed(make(1))
        assert make(1).digest() == make(1).digest()
        assert listed(make(1)) != listed(make(2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: iid(10, 0, 0), "clients must be a whole number of at least 1, not 0"),
        (lambda: iid(10, True, 0), "clients must be a whole number of at least 1, not True"),
        (lambda: iid(10, 2.0, 0), "clients must be a whole number of at least 1, not 2.0"),
        (lambda: iid(10, 11, 0), "11 clients cannot share 10 rows; lower"),
        (lambda: iid(0, 1, 0), "rows must be a whole number of at least 1, not 0"),
        (lambda: iid(10, 2, -1), "seed must be a whole number of at least 0, not -1"),
        (lambda: quantity_dirichlet(10, 2, 0.0, 0, 1), "alpha must be a finite number above 0, not 0.0"),
        (lambda: quantity_dirichlet(10, 2, float("nan"), 0, 1), "alpha must be a finite number above 0, not nan"),
        (lambda: quantity_dirichlet(10, 2, 1.0, 0, 0), "min_rows must be a whole number of at least 1, not 0"),
        (lambda: quantity_dirichlet(10, 3, 1.0, 0, 4), "10 rows cannot give each of 3 clients 4; lower min_rows"),
        (lambda: label_dirichlet(["a"] * 10, 3, 1.0, 0, 4), "10 rows cannot give each of 3 clients 4; lower min_rows"),
        (
            lambda: quantity_dirichlet(100, 5, 0.001, 3, 20),
            "quantity:0.001 with seed 3: no deal of 100 rows in 1000 tries gives each of 5 clients at least 20. Raise alpha",
        ),
        (
            lambda: label_dirichlet([0, 1] * 50, 5, 0.001, 3, 20),
            "dirichlet:0.001 with seed 3: no deal of 100 rows in 1000 tries gives each of 5 clients at least 20. Raise alpha",
        ),
        (lambda: label_dirichlet(["a", None, "b"], 1, 1.0, 0, 1), "1 rows have no label (the first at position 1)"),
        (lambda: label_dirichlet(pd.Series(["a", 1]), 1, 1.0, 0, 1), "labels must be all numbers or all texts"),
        (lambda: feature_skew([], 1), "1 clients cannot share 0 rows"),
    ],
)
def test_a_deal_that_cannot_be_made_says_what_to_change(make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value)


def of(*positions, rows=4, **settings):
    return Partition(**{"kind": "iid", "seed": 0, "rows": rows, "positions": positions} | settings)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: of([0, 1], [1, 2, 3]), "row position 1 is dealt more than once (to clients 1, 2)"),
        (lambda: of([0, 0, 1], [2, 3]), "row position 0 is dealt more than once (to clients 1, 1)"),
        (lambda: of([0, 1], [3]), "the clients hold 3 of 4 rows"),
        (lambda: of([0, 1], [2, 4]), "client 2: row positions must lie from 0 to 3"),
        (lambda: of([0, -1], [2, 3]), "client 1: row positions must lie from 0 to 3"),
        (lambda: of([0, 1, 2, 3], np.array([], dtype=int)), "client 2 has no rows"),
        (lambda: of([0.0, 1.0], [2, 3]), "client 1: its row positions must be a list of whole numbers"),
        (lambda: of([[0, 1]], [2, 3]), "client 1: its row positions must be a list of whole numbers"),
        (lambda: of(), "the clients hold 0 of 4 rows"),
        (lambda: of([0], rows=-1), "rows must be a whole number of at least 1"),
        (lambda: of([0, 1, 2, 3], kind="other"), "kind must be one of iid, dirichlet, quantity, by, not 'other'"),
        (lambda: of([0, 1, 2, 3], seed=None), "seed must be given for kind 'iid'"),
        (lambda: of([0, 1, 2, 3], kind="by"), "seed must not be given for kind 'by'"),
        (lambda: of([0, 1, 2, 3], alpha=1.0), "alpha must not be given for kind 'iid'"),
        (lambda: of([0, 1, 2, 3], column="age"), "column must not be given for kind 'iid'"),
        (lambda: of([0, 1, 2, 3], kind="quantity", min_rows=1), "alpha must be given for kind 'quantity'"),
        (lambda: of([0, 1, 2, 3], target="y"), "target and table must be given together"),
    ],
)
def test_what_is_no_partition_is_refused(make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value)


def test_positions_are_sorted_copies_that_cannot_be_changed():
    mine = np.array([3, 0])
    made = of(mine, [2, 1])
    assert listed(made) == [[0, 3], [1, 2]]
    with pytest.raises(ValueError, match="read-only"):
        made.positions[0][0] = 1
    mine[0] = 2
    assert listed(made) == [[0, 3], [1, 2]]


# Words of the command line.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("iid", lambda f: iid(len(f), 4, 7)),
        ("dirichlet:0.5", lambda f: label_dirichlet(f["default"], 4, 0.5, 7, 20)),
        ("quantity:2.0", lambda f: quantity_dirichlet(len(f), 4, 2.0, 7, 20)),
        ("by:age", lambda f: feature_skew(f["age"], 4)),
    ],
)
def test_words_name_a_deal_and_a_deal_names_its_words(frame, words, expected):
    made = parse_partition(words, frame=frame, target="default", clients=4, seed=7, min_rows=20)
    assert listed(made) == listed(expected(frame))
    assert (made.words, made.clients) == (words, 4)
    made.require_fits(frame, "default")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dirichlet", "partition 'dirichlet' is not known; write iid, dirichlet:ALPHA, quantity:ALPHA, by:COLUMN"),
        ("IID", "partition 'IID' is not known"),
        ("iid:0.5", "partition 'iid:0.5' is not known"),
        ("", "partition '' is not known"),
        ("dirichlet:", "after the colon must come a finite number above 0, as in dirichlet:0.5"),
        ("dirichlet:many", "after the colon must come a finite number above 0, as in dirichlet:0.5"),
        ("quantity:-1", "after the colon must come a finite number above 0, as in quantity:0.5"),
        ("quantity:inf", "after the colon must come a finite number above 0, as in quantity:0.5"),
        ("by:wealth", "column 'wealth' is not in the table; its columns are: "),
        ("by:nowhere.json", "column 'nowhere.json' is not in the table"),
        ("nowhere.json", "no partition at nowhere.json"),
        ("x" * 300 + ".json", "File name too long"),
    ],
)
def test_words_that_name_no_deal_are_refused(frame, words, message):
    with pytest.raises(ConfigError) as caught:
        parse_partition(words, frame=frame, target="default", clients=4)
    assert message in str(caught.value)


def test_a_deal_without_a_number_of_clients_is_refused(frame):
    with pytest.raises(ConfigError, match="partition 'iid' needs a number of clients"):
        parse_partition("iid", frame=frame, target="default", clients=None)


def test_a_column_that_is_there_twice_is_refused(frame):
    twice = pd.concat([frame, frame[["age"]]], axis=1)
    with pytest.raises(ConfigError, match="column 'age' is there more than once"):
        parse_partition("by:age", frame=twice, target="default", clients=4)


# The tie between a deal and its table.


@pytest.fixture(params=["iid", "dirichlet:0.5", "quantity:0.5", "by:age"])
def tied(request, frame):
    return parse_partition(request.param, frame=frame, target="default", clients=5)


def test_each_client_gets_its_rows_in_the_order_of_the_table(tied, frame):
    tables = tied.deal(frame)
    assert numbers(tables) == listed(tied)
    assert [table["number"].tolist() for table in tables] == listed(tied)
    assert all(table.index.equals(pd.RangeIndex(len(table))) for table in tables)


def test_another_table_is_refused(tied, frame):
    shorter, shuffled = frame.iloc[:-1], frame.sample(frac=1, random_state=0)
    relabelled = frame.assign(default=frame["default"].where(frame["number"] != 1_234, 1 - frame["default"]))
    for other, message in (
        (shorter, r"was made for a table of 2000 rows; this one has 1999\. Use the table as it was"),
        (shuffled, r"was made for another table: 'default'.* hold other values, or the rows are in another order"),
        (relabelled, r"was made for another table: 'default'.* hold other values, or the rows are in another order"),
    ):
        with pytest.raises(ConfigError, match=message):
            tied.require_fits(other, "default")
        with pytest.raises(ConfigError, match=message):
            tied.deal(other)


def test_another_target_or_a_table_without_it_is_refused(tied, frame):
    with pytest.raises(ConfigError, match="was made for the target 'default', not 'age'"):
        tied.require_fits(frame, "age")
    with pytest.raises(ConfigError, match="column 'default' is not in the table"):
        tied.deal(frame.drop(columns="default"))


def test_a_deal_by_column_is_tied_to_that_column_too(frame):
    """Ages change places within a class, so that the target alone cannot tell."""
    made = parse_partition("by:age", frame=frame, target="default", clients=5)
    first, second = frame.index[frame["default"] == 0][:2]
    swapped = frame.copy()
    swapped.loc[[first, second], "age"] = frame["age"].iloc[first] + np.array([1, 2])
    with pytest.raises(ConfigError, match="another table: 'default' and 'age' hold other values"):
        made.require_fits(swapped, "default")
    parse_partition("iid", frame=frame, target="default", clients=5).require_fits(swapped, "default")


def test_the_tie_holds_however_the_same_values_are_stored(tied, frame):
    labels, ages = frame["default"], frame["age"]
    for other in (
        frame.assign(default=labels.astype(float)),
        frame.assign(default=labels.astype(str).astype("category")),
        frame.assign(default=labels.astype("Int64"), age=ages.astype(float)),
        frame.set_index(frame.index + 5),
        frame.drop(columns="number"),
    ):
        tied.require_fits(other, "default")


def test_a_missing_value_is_no_text_that_looks_like_one(frame):
    """The digest tells None from the texts 'None' and 'nan'."""
    digests = set()
    for value in (None, "None", "nan"):
        table = frame.assign(words=pd.Series([value] + ["w"] * (len(frame) - 1), dtype=object))
        digests.add(parse_partition("by:words", frame=table, target="default", clients=2).table)
    assert len(digests) == 3


def test_an_untied_deal_fits_no_table_and_is_not_saved(frame, tmp_path):
    made = iid(len(frame), 3, 0)
    with pytest.raises(ConfigError, match="tied to no table"):
        made.require_fits(frame, "default")
    with pytest.raises(ConfigError, match="tied to no table"):
        save_partition(made, tmp_path / "p.json")
    with pytest.raises(ConfigError, match="made for a table of 2000 rows; this one has 10"):
        made.deal(frame.head(10))
    with pytest.raises(ConfigError, match="made for a table of 2000 rows; this one has 10"):
        made.tied_to(frame.head(10), "default")
    assert numbers(made.deal(frame)) == listed(made)


# The file.


def same(one, other):
    names = ("kind", "rows", "seed", "alpha", "min_rows", "column", "target", "table", "clients", "words")
    return listed(one) == listed(other) and all(getattr(one, n) == getattr(other, n) for n in names)


def test_a_saved_partition_reads_back_the_same_and_deals_the_same(tied, frame, tmp_path):
    path = tmp_path / "deal.json"
    save_partition(tied, path)
    back = load_partition(path)
    assert same(back, tied)
    assert back.digest() == tied.digest()
    for clients in (None, 5):
        assert same(parse_partition(str(path), frame=frame, target="default", clients=clients, seed=99), tied)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80))
def test_any_partition_survives_the_file(owners):
    """Read from the bytes, so that a thousand examples need no file."""
    owners = np.array(owners)
    positions = tuple(np.flatnonzero(owners == owner) for owner in np.unique(owners))
    made = Partition(kind="by", rows=len(owners), positions=positions).tied_to(pd.DataFrame({"y": owners}), "y")
    assert same(module._from_bytes(to_bytes(made), "it"), made)


def test_digests_differ_where_anything_does(tied, frame):
    others = [
        tied.tied_to(frame.assign(default=1 - frame["default"]), "default"),
        replace(tied, positions=tied.positions[::-1]),
        iid(len(frame), 5, 1).tied_to(frame, "default"),
    ]
    assert len({made.digest() for made in (tied, *others)}) == 4


@pytest.mark.parametrize("clients", [1, 5, 100, 1_000])
def test_the_file_of_fifty_thousand_rows_stays_small(tmp_path, clients):
    rows = 50_000
    save_partition(iid(rows, clients, 0).tied_to(pd.DataFrame({"y": np.zeros(rows)}), "y"), tmp_path / "p.json")
    assert (tmp_path / "p.json").stat().st_size < 300_000


def test_a_saved_partition_replaces_the_one_before_and_leaves_nothing_beside_it(frame, tmp_path):
    path = tmp_path / "p.json"
    for clients in (3, 4):
        save_partition(iid(len(frame), clients, 0).tied_to(frame, "default"), path)
    assert load_partition(path).clients == 4
    assert list(tmp_path.iterdir()) == [path]


def test_a_partition_that_cannot_be_written_says_why(frame, tmp_path):
    made = iid(len(frame), 3, 0).tied_to(frame, "default")
    with pytest.raises(ConfigError, match=r"its name must end in \.json"):
        save_partition(made, tmp_path / "p.txt")
    with pytest.raises(ConfigError, match=r"cannot write the partition .*Create the folder first"):
        save_partition(made, tmp_path / "nowhere" / "p.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ConfigError, match="cannot write the partition"):
        save_partition(made, tmp_path / "folder.json")
    with pytest.raises(ConfigError, match="is a directory"):
        load_partition(tmp_path / "folder.json")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.json"]


def test_a_saved_partition_for_another_table_or_number_of_clients_is_refused(tied, frame, tmp_path):
    path = tmp_path / "p.json"
    save_partition(tied, path)
    with pytest.raises(ConfigError, match=r"p\.json: the partition has 5 clients, not 6"):
        parse_partition(str(path), frame=frame, target="default", clients=6)
    with pytest.raises(ConfigError, match=r"p\.json: the partition .* was made for another table"):
        parse_partition(str(path), frame=frame.iloc[::-1], target="default", clients=5)


GOOD = {
    "format": "distill-partition",
    "version": 1,
    "kind": "dirichlet",
    "rows": 4,
    "steps": [[1, 3], [2, 1]],
    "seed": 0,
    "alpha": 0.5,
    "min_rows": 1,
    "column": None,
    "target": "y",
    "table": "0" * 64,
}


def test_the_layout_of_the_file_is_as_it_was(tmp_path):
    """A file written by an earlier release must stay readable: this one is written out by hand."""
    path = tmp_path / "p.json"
    path.write_bytes(canonical(GOOD))
    made = load_partition(path)
    assert listed(made) == [[0, 3], [1, 2]]
    save_partition(made, path)
    assert path.read_bytes() == canonical(GOOD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "is of format version 2; this software reads 1. Update it"),
        ({"version": True}, "is of format version True"),
        ({"version": None}, "is of format version None"),
        ({"format": "other"}, "is not a saved partition"),
        ({"extra": 1}, "'extra': extra inputs are not permitted"),
        ({"kind": "other"}, "'kind': input should be 'iid', 'dirichlet', 'quantity' or 'by'"),
        ({"rows": "4"}, "'rows': input should be a valid integer"),
        ({"rows": 4.0}, "'rows': input should be a valid integer"),
        ({"rows": 10**30}, "'rows': input should be"),
        ({"rows": 2**31}, "the clients hold 4 of 2147483648 rows"),
        ({"rows": 5}, "the clients hold 4 of 5 rows"),
        ({"rows": 3}, "client 1: row positions must lie from 0 to 2"),
        ({"seed": None}, "seed must be given for kind 'dirichlet'"),
        ({"seed": -1}, "'seed': input should be greater than or equal to 0"),
        ({"alpha": "0.5"}, "'alpha': input should be a valid number"),
        ({"alpha": 0.0}, "alpha must be a finite number above 0"),
        ({"min_rows": 0}, "min_rows must be a whole number of at least 1"),
        ({"column": "age"}, "column must not be given for kind 'dirichlet'"),
        ({"target": None}, "'target': input should be a valid string"),
        ({"table": "0" * 63}, "'table': string should match pattern"),
        ({"table": "0" * 64 + "\n"}, "'table': string should match pattern"),
        ({"steps": [[1, 3], [1, 2]]}, "row position 0 is dealt more than once (to clients 1, 2)"),
        ({"steps": [[1, 3], [2]]}, "the clients hold 3 of 4 rows"),
        ({"steps": [[1, 3], [2, 3]]}, "client 2: row positions must lie from 0 to 3"),
        ({"steps": [[1, 3], [2, 0]]}, "'steps, client 2, 1': input should be greater than or equal to 1"),
        ({"steps": [[1, 3], [2, -1]]}, "'steps, client 2, 1': input should be greater than or equal to 1"),
        ({"steps": [[1, 3], [2, 1.0]]}, "'steps, client 2, 1': input should be a valid integer"),
        ({"steps": [[1, 3], [2, True]]}, "'steps, client 2, 1': input should be a valid integer"),
        ({"steps": [[1, 3], [2, 10**40]]}, "'steps, client 2, 1': input should be"),
        ({"steps": [[1, 3], "2"]}, "'steps, client 2': input should be a valid list"),
        ({"steps": [[1, 1, 1, 1], []]}, "'steps, client 2': list should have at least 1 item"),
        ({"steps": []}, "'steps': list should have at least 1 item"),
    ],
)
def test_a_file_that_is_not_as_it_was_saved_is_refused(tmp_path, changes, words):
    path = tmp_path / "p.json"
    path.write_bytes(canonical(GOOD | changes))
    with pytest.raises(ConfigError) as caught:
        load_partition(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"format", "version"}))
def test_a_file_without_one_of_its_fields_is_refused(tmp_path, name):
    path = tmp_path / "p.json"
    path.write_bytes(canonical({key: value for key, value in GOOD.items() if key != name}))
    with pytest.raises(ConfigError, match=f"'{name}': field required"):
        load_partition(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is damaged or was edited: not valid JSON"),
        (b"[" * 100_000, "is damaged or was edited: not valid JSON"),
        (canonical(GOOD)[:-5], "is damaged or was edited: not valid JSON"),
        (b"\xff\xfe", "is damaged or was edited: not valid JSON"),
        (json.dumps(GOOD).encode(), "is damaged or was edited: not in canonical form"),
        (canonical(GOOD).replace(b'"rows":4', b'"rows":4,"rows":4'), "is damaged or was edited: not in canonical form"),
        (b"[1]", "is not a saved partition"),
        (b"null", "is not a saved partition"),
    ],
)
def test_a_file_that_is_no_partition_is_refused(tmp_path, data, words):
    path = tmp_path / "p.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_partition(path)
    assert words in str(caught.value)


def test_a_file_too_large_to_be_one_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    path = tmp_path / "p.json"
    path.write_bytes(canonical(GOOD))
    with pytest.raises(ConfigError, match="is larger than 100 bytes"):
        load_partition(path)


# What a report tells.


def test_a_summary_counts_rows_and_class_shares():
    labels = pd.Series(["no", "yes", "no", "yes", "perhaps"])
    one, two = summarise(of([0, 1, 2], [3, 4], rows=5), labels)
    assert (one.client, one.rows, two.client, two.rows) == (1, 3, 2, 2)
    assert one.shares == {"no": pytest.approx(2 / 3), "perhaps": 0.0, "yes": pytest.approx(1 / 3)}
    assert two.shares == {"no": 0.0, "perhaps": 0.5, "yes": 0.5}


@given(sizes, seeds)
def test_shares_weighted_by_rows_make_the_shares_of_the_table(size, seed):
    rows, clients = size
    labels = np.random.default_rng(seed).integers(0, 3, rows)
    members = summarise(iid(rows, clients, seed), labels)
    for value in np.unique(labels):
        assert sum(m.rows * m.shares[str(value)] for m in members) == pytest.approx((labels == value).sum())


def test_a_summary_of_other_rows_is_refused():
    with pytest.raises(ConfigError, match="was made for a table of 4 rows; this one has 3"):
        summarise(of([0, 1], [2, 3]), ["a", "b", "a"])
