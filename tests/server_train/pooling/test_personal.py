"""Personalised models: each learns from its own part of the pool, at its own class frequencies, under a name that is safe."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_train.pooling.institutions.institution import Institution
from server_train.pooling.personal import LEAST_ROWS, folder_names, personal_pool
from server_train.pooling.pool import draw_pool
from tests.fakes.hubs import BINARY, TableGenerator, skewed, table


@pytest.fixture(scope="module")
def pool():
    tables = {
        "north": table(3000, BINARY, 1),
        "south": skewed(table(3000, BINARY, 2), BINARY, 0.3),
        "tiny": table(60, BINARY, 3),
    }
    institutions = [Institution(name=name, generator=TableGenerator(BINARY, frame)) for name, frame in tables.items()]
    return draw_pool(BINARY, institutions, rows=6000, rng=np.random.default_rng(0))


@pytest.mark.parametrize("number", [0, 1])
def test_a_personal_pool_is_the_institutions_own_rows_at_its_own_class_frequencies(pool, number):
    own = personal_pool(pool, number, np.random.default_rng(0))
    assert own is not None
    where = pool.origin == number
    features = [c for c in pool.frame if c != BINARY.target]
    assert own.frame[features].equals(pool.frame[where][features].reset_index(drop=True))
    prior = np.asarray(pool.members[number].class_prior)
    np.testing.assert_allclose(own.soft_labels.mean(axis=0), prior, atol=1e-3)
    np.testing.assert_allclose(own.prior, prior)
    drawn = (own.frame[BINARY.target] == 1).mean()
    assert drawn == pytest.approx(prior[1], abs=5 * 0.5 / np.sqrt(len(own)))
    order = np.argsort(pool.soft_labels[where][:, 1], kind="stable")
    assert (np.diff(own.soft_labels[order, 1]) >= -1e-6).all()  # shifted, never reordered


def test_an_institution_with_too_few_rows_gets_no_model(pool):
    assert 0 < (pool.origin == 2).sum() < LEAST_ROWS
    assert personal_pool(pool, 2, np.random.default_rng(0)) is None


def test_labels_that_are_certain_stay_so(pool):
    """Where no head is usable, soft labels are 0 and 1: no prior moves them."""
    its = pool.origin == 1
    codes = np.zeros(len(pool), dtype=int)
    codes[np.flatnonzero(its)[: round(pool.members[1].class_prior[1] * its.sum())]] = 1
    own = personal_pool(replace(pool, soft_labels=np.eye(2, dtype=np.float32)[codes]), 1, np.random.default_rng(0))
    assert own is not None
    assert (own.frame[BINARY.target].to_numpy() == codes[its]).all()


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["North Bank", "Süd & Co."], ["north-bank", "s-d-co"]),
        (["../../etc", "/root", "."], ["etc", "root", "institution"]),
        (["A", "a", "a-2"], ["a", "a-2", "a-2-2"]),
        (["con", "LPT1.x"], ["institution-con", "institution-lpt1.x"]),
        (["..hidden", "\x00\n"], ["hidden", "institution"]),
    ],
)
def test_folder_names_by_hand(names, folders):
    assert folder_names(names) == folders


@given(st.lists(st.text(max_size=100), max_size=6))
def test_folder_names_are_safe_and_no_two_are_alike(names):
    folders = folder_names(names)
    assert len(set(folders)) == len(folders) == len(names)
    for folder in folders:
        assert folder.isascii()
        assert 0 < len(folder) <= 80
        assert not set(folder) - set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        assert folder[0] not in ".-"
        assert folder[-1] not in ".-"
