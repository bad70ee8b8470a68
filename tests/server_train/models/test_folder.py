"""A model's folder: whole at every moment or finished by the next run, and never mixed with another model."""

import os

import pytest

from distill.common import files as durable
from distill.errors import ConfigError
from server_train.models import folder as publishing
from server_train.models.folder import put, read_folder, settle, staged, write_folder

OLD = {
    "model.json": b"old",
    "model.safetensors": b"old weights",
    "model.onnx": b"old onnx",
    "personal/a/model.json": b"old",
}
NEW = {"model.json": b"new", "model.safetensors": b"new weights", "report.html": b"new"}


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "model"


def filled(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def dead(out, ending, files):
    """What a run leaves that died at this point: nobody has a lock on it."""
    folder = durable.temporary_beside(out).with_suffix(f".{ending}")
    folder.mkdir()
    filled(folder, files)
    return folder


def test_a_model_replaces_all_of_an_earlier_one_and_nothing_else(out):
    write_folder(OLD, out)
    (out / "mine.txt").write_bytes(b"keep")
    (out / "notes").mkdir()
    write_folder(NEW, out)
    assert read_folder(out) == {**NEW, "mine.txt": b"keep"}
    assert (out / "notes").is_dir()
    assert [p.name for p in out.parent.iterdir()] == ["model"]


def test_a_file_in_the_way_is_refused(out):
    out.write_bytes(b"a file")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        write_folder(NEW, out)


def test_what_was_not_ready_is_removed(out):
    write_folder(OLD, out)
    dead(out, "tmp", {"model.json": b"half"})
    assert not settle(out)
    assert read_folder(out) == OLD
    assert [p.name for p in out.parent.iterdir()] == ["model"]


def test_what_was_ready_is_put_in_place(out):
    write_folder(OLD, out)
    dead(out, "whole", NEW)
    assert settle(out)
    assert read_folder(out) == NEW
    assert [p.name for p in out.parent.iterdir()] == ["model"]
    assert not settle(out)


def test_what_was_half_moved_is_moved_to_the_end_and_nothing_of_it_removed(out):
    filled(out, {"report.html": b"new", "mine.txt": b"keep"})
    dead(out, "moving", {name: NEW[name] for name in ("model.json", "model.safetensors")})
    assert settle(out)
    assert read_folder(out) == {**NEW, "mine.txt": b"keep"}


def test_what_belongs_to_another_folder_or_to_a_live_run_is_left_alone(out):
    other = dead(out.with_name("other"), "whole", NEW)
    foreign = [out.with_name(name) for name in (".model.whole", ".model.0123456789abcdeg.tmp", "model.moving")]
    for folder in foreign:
        folder.mkdir()
    with staged(out) as live:
        assert not settle(out)
        assert live.is_dir()
        whole = live.rename(live.with_suffix(".whole"))
        assert not settle(out)
        assert whole.is_dir()
    assert other.is_dir()
    assert all(folder.is_dir() for folder in foreign)


def test_a_newer_model_is_not_mixed_with_what_a_dead_run_had_still_to_move(out):
    """A run waits for the folder while another one is killed in the middle of its moves."""
    filled(out, {"report.html": b"dead"})
    left = dead(out, "moving", {"model.json": b"dead", "model.safetensors": b"dead"})
    with staged(out) as folder:
        filled(folder, NEW)
        put(folder, out)
    assert not left.exists()
    assert not settle(out)
    assert read_folder(out) == NEW


@pytest.mark.parametrize("place", range(1, 12))
def test_a_put_that_is_interrupted_anywhere_is_finished(out, place, monkeypatch):
    """Interrupted once it went on by itself; killed for good, the next run finishes it. Without a card there is no model."""
    write_folder(OLD, out)
    seen = []

    def at(place, function):
        def inside(*arguments, **named):
            seen.append(function)
            card = out / "model.json"
            if card.exists() and card.read_bytes() == b"old":
                assert read_folder(out) == OLD, "an earlier model is whole as long as it has its card"
            if len(seen) >= place:
                raise Killed
            return function(*arguments, **named)

        return inside

    with monkeypatch.context() as patch, staged(out) as folder:
        filled(folder, NEW)
        for owner, name in ((os, "rename"), (os, "replace"), (os, "unlink"), (publishing.shutil, "rmtree")):
            patch.setattr(owner, name, at(place, getattr(owner, name)))
        try:
            put(folder, out)
        except Killed:
            killed = True
        else:
            killed = False
        patch.undo()
        ready = [p for p in out.parent.iterdir() if p.suffix in (".whole", ".moving")]
    assert killed == (place <= len(seen))
    assert settle(out) == bool(ready)
    assert read_folder(out) == (NEW if ready or not killed else OLD)
    assert [p.name for p in out.parent.iterdir()] == ["model"]


def test_two_runs_that_both_find_no_folder_do_not_mix(out, monkeypatch):
    with staged(out) as two:
        write_folder(NEW, out)
        filled(two, OLD)
        with monkeypatch.context() as patch:
            exists = publishing.Path.exists  # as if the second one had looked before the first one was there
            patch.setattr(publishing.Path, "exists", lambda path: path != out and exists(path))
            put(two, out)
    assert read_folder(out) == OLD
