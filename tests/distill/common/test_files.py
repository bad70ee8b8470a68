"""Staging: what is being written is never taken for left behind, and what a dead run left is."""

import pytest

from distill.common import files


def sweep_at_once(path, patch):
    """Another process sweeps right after the next folder for `path` was made, before it could be locked."""
    real, swept = files.locked, []

    def locked(folder):
        if not swept:
            swept.append(folder)
            files.sweep(path)
        return real(folder)

    patch.setattr(files, "locked", locked)
    return swept


def test_a_folder_swept_before_its_lock_is_made_anew(tmp_path, monkeypatch):
    place = tmp_path / "models.db"
    swept = sweep_at_once(place, monkeypatch)
    with files.staged_folder(place) as folder:
        (folder / "whole").write_text("whole")
        assert folder != swept[0]
        assert not swept[0].exists()
        files.sweep(place)
        assert (folder / "whole").read_text() == "whole"
    assert list(tmp_path.iterdir()) == []


def test_without_its_parent_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError), files.staged_folder(tmp_path / "none" / "models.db"):
        pytest.fail("it was made")
    assert list(tmp_path.iterdir()) == []
