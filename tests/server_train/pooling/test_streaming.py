import numpy as np
import pandas as pd
import pytest

from distill.errors import BundleError
from server_train.pooling import streaming
from server_train.pooling.pool import draw_pool
from server_train.pooling.streaming import draw_pool_file
from tests.fakes.hubs import BINARY, TERNARY
from tests.fakes.pools import banks, card_of, stored_pool


def test_a_pool_that_fits_into_the_first_part_is_that_drawn_in_memory(tmp_path):
    stored = stored_pool(tmp_path / "p.parquet", BINARY, 3000)
    memory = draw_pool(BINARY, banks(BINARY), rows=3000, rng=np.random.default_rng(0))
    frame, soft = stored.rows(0, 3000)
    pd.testing.assert_frame_equal(frame, memory.frame)
    assert (soft == memory.soft_labels).all()
    assert stored.card.notes == memory.notes
    assert stored.card.class_prior == tuple(memory.prior)
    assert [i.pooled_rows for i in stored.card.institutions] == memory.counts.tolist()


@pytest.mark.parametrize("schema", [BINARY, TERNARY], ids=["two classes", "three classes"])
def test_a_pool_drawn_in_parts_agrees_with_one_in_memory(tmp_path, monkeypatch, schema):
    """Same institutions and seed: class frequencies within .01, and soft labels of like rows within .03 on average.

    The intercept follows the first 4,000 rows alone: their mean soft label has a spread of .3 / sqrt(4000) = .005 at most.
    """
    monkeypatch.setattr(streaming, "FIRST_ROWS", 4000)
    monkeypatch.setattr(streaming, "GROUP_ROWS", 1500)
    stored = stored_pool(tmp_path / "p.parquet", schema, 12_000)
    memory = draw_pool(schema, banks(schema), rows=12_000, rng=np.random.default_rng(0))
    frame, soft = stored.rows(0, 12_000)
    assert stored.starts == (0, 4000, 5500, 7000, 8500, 10_000, 11_500, 12_000)
    assert soft.mean(axis=0) == pytest.approx(memory.prior, abs=0.01)
    assert memory.soft_labels.mean(axis=0) == pytest.approx(memory.prior, abs=1e-3)
    for name in ("grade", "region"):
        for value in frame[name].dropna().unique():
            ours, theirs = soft[frame[name] == value], memory.soft_labels[(memory.frame[name] == value).to_numpy()]
            assert ours.mean(axis=0) == pytest.approx(theirs.mean(axis=0), abs=0.03), (name, value)


def test_every_part_is_a_sample_of_the_whole(tmp_path, monkeypatch):
    """Each institution gives the rows it owes in all, and about its share to every part (six standard deviations)."""
    monkeypatch.setattr(streaming, "FIRST_ROWS", 4000)
    monkeypatch.setattr(streaming, "GROUP_ROWS", 2000)
    parts = []
    take = streaming._take
    monkeypatch.setattr(streaming, "_take", lambda *a: parts.append(take(*a)) or parts[-1])
    stored = stored_pool(tmp_path / "p.parquet", BINARY, 10_000)
    owed = np.array([i.pooled_rows for i in stored.card.institutions])
    assert sum(parts).tolist() == owed.tolist()
    share = owed[0] / owed.sum()
    for part in parts:
        spread = (part.sum() * share * (1 - share)) ** 0.5
        assert abs(part[0] - part.sum() * share) < 6 * spread


def test_labels_are_drawn_from_the_soft_ones_in_later_parts_too(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "FIRST_ROWS", 2000)
    monkeypatch.setattr(streaming, "GROUP_ROWS", 8000)
    stored = stored_pool(tmp_path / "p.parquet", BINARY, 10_000)
    frame, soft = stored.group(1)
    high = soft[:, 1] > 0.5
    assert frame.loc[high, "default"].mean() == pytest.approx(soft[high, 1].mean(), abs=0.06)
    assert frame.loc[~high, "default"].mean() == pytest.approx(soft[~high, 1].mean(), abs=0.06)


def test_a_generator_that_breaks_later_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "FIRST_ROWS", 1000)
    monkeypatch.setattr(streaming, "GROUP_ROWS", 1000)
    institutions = banks(BINARY)
    calls = []
    draw = institutions[0].generator.draw

    def breaks(n, rng):
        calls.append(n)
        return {}["nothing"] if len(calls) > 2 else draw(n, rng)

    monkeypatch.setattr(institutions[0].generator, "draw", breaks)
    with pytest.raises(BundleError, match=r"'Alder'.*drawing rows failed"):
        draw_pool_file(tmp_path / "p", BINARY, institutions, rows=5000, rng=np.random.default_rng(0), card=card_of)
    assert list(tmp_path.iterdir()) == []
