import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_train.pooling.weighing.contribution import (
    Statement,
    contributions,
    global_prior,
    head_shares,
    label_balance,
)
from server_train.pooling.weighing.evidence import clean_prior, information_matrix, smoothed_prior

counts_of_classes = st.lists(st.lists(st.floats(0, 1e6), min_size=3, max_size=3), min_size=1, max_size=6)


def of(counts):
    """Contributions of institutions with the given class counts."""
    counts = [np.asarray(c, dtype=float) for c in counts]
    return contributions(
        [
            stated(c.sum(), clean_prior(c), c.sum() * (1 - np.square(clean_prior(c)).sum()), name=f"i{k}")
            for k, c in enumerate(counts)
        ]
    )


def stated(rows, prior, information, name="i"):
    return Statement(institution=name, noisy_rows=rows, class_prior=np.asarray(prior), head_information=information)


@given(counts_of_classes)
def test_row_shares_sum_to_one_and_so_do_head_shares_if_any_head_is_usable(counts):
    members = of(counts)
    assert sum(m.row_share for m in members) == pytest.approx(1)
    heads = sum(m.head_share for m in members)
    assert heads == pytest.approx(1) or all(m.head_share == 0 for m in members)
    assert all(0 <= m.row_share <= 1 and 0 <= m.head_share <= 1 + 1e-9 for m in members)
    assert global_prior(members).sum() == pytest.approx(1)


def test_an_institution_with_one_class_has_rows_but_no_head():
    one_class, mixed = of([[5000, 0], [1000, 1000]])
    assert one_class.head_share == 0
    assert mixed.head_share == pytest.approx(1)
    assert one_class.row_share > mixed.row_share


def test_an_institution_with_a_handful_of_the_second_class_counts_as_one_class():
    few, _ = of([[5000, 4], [1000, 1000]])
    assert few.head_share == 0


def test_a_head_that_states_no_information_is_not_used():
    members = contributions([stated(1000, [0.5, 0.5], information) for information in (0.0, 500.0)])
    assert [m.head_share for m in members] == [0, pytest.approx(1)]


def test_for_two_classes_head_shares_follow_n_p_one_minus_p():
    """Large counts, so that the noise term vanishes: 1e8 * .25 against 2e8 * .16."""
    one, two = of([[5e7, 5e7], [1.6e8, 0.4e8]])
    assert one.head_share == pytest.approx(0.25 / (0.25 + 0.32), rel=1e-4)
    assert two.head_share == pytest.approx(0.32 / (0.25 + 0.32), rel=1e-4)


def test_the_information_matrix_is_that_of_a_multinomial():
    prior, rows = np.array([0.5, 0.3, 0.2]), 1000
    assert information_matrix(rows * prior) == pytest.approx(rows * (np.diag(prior) - np.outer(prior, prior)))


def test_heads_that_know_different_classes_share_by_what_each_adds():
    left = information_matrix(np.array([100.0, 100.0, 0.0]))
    right = information_matrix(np.array([0.0, 100.0, 100.0]))
    assert head_shares([left, right]) == pytest.approx([0.5, 0.5])


def test_label_balance_is_one_for_equal_classes_and_zero_for_one_class():
    assert label_balance(np.full(4, 0.25)) == pytest.approx(1)
    assert label_balance(np.array([1.0, 0, 0])) == 0
    assert label_balance(np.array([0.9, 0.1])) == pytest.approx(4 * 0.9 * 0.1)


def test_noisy_class_frequencies_are_made_usable():
    assert clean_prior([1.05, -0.05]) == pytest.approx([1, 0])
    assert clean_prior([0.0, 0.0]) == pytest.approx([0.5, 0.5])
    assert clean_prior([float("nan"), 0.4]) == pytest.approx([0, 1])
    assert (smoothed_prior(1000, np.array([1.0, 0.0])) > 0).all()


def test_a_negative_noisy_row_count_weighs_next_to_nothing():
    low, high = contributions([stated(-7, [0.5, 0.5], 0), stated(999, [0.5, 0.5], 250)])
    assert low.row_share == pytest.approx(0.001)
    assert high.row_share == pytest.approx(0.999)
