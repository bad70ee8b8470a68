"""Staging: what is being written is never taken for left behind, and what a dead run left is."""

import pytest

from distill import durable


def sweep_at_once(path, patch):
    """Another process sweeps right after the next folder for `path` was made, before it could be locked."""
    real, swept = durable.locked, []

    def locked(folder):
        if not swept:
            swept.append(folder)
            durable.sweep(path)
        return real(folder)

    patch.setattr(durable, "locked", locked)
    return swept


def test_a_folder_swept_before_its_lock_is_made_anew(tmp_path, monkeypatch):
    place = tmp_path / "models.db"
    swept = sweep_at_once(place, monkeypatch)
    with durable.staged_folder(place) as folder:
        (folder / "whole").write_text("whole")
        assert folder != swept[0] and not swept[0].exists()
        durable.sweep(place)
        assert (folder / "whole").read_text() == "whole"
    assert list(tmp_path.iterdir()) == []


def test_without_its_parent_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError), durable.staged_folder(tmp_path / "none" / "models.db"):
        pytest.fail("it was made")
    assert list(tmp_path.iterdir()) == []
