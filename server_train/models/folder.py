"""A model's folder appears whole, or replaces an earlier model so that a killed run can be finished by the next one.

A new folder is one rename. Into an existing folder, which may hold files of other people, files move one by one: for that moment
there is no `model.json` in it, so no reader meets half of a model. What a run that was killed then left beside the folder says
how far it was, by the ending of its name, and `settle` goes on from there:

    .tmp      not ready; removed
    .whole    all files of the new model are in it; the earlier model's go now
    .moving   the earlier model's files are gone; the rest of the new ones moves now, `model.json` last
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from distill.common import files as durable
from distill.errors import ConfigError
from server_train.models.model import CARD, WEIGHTS

REPORT = "report.html"
OWNED = (
    CARD,
    WEIGHTS,
    "model.onnx",
    REPORT,
    "personal",
)  # what a model may leave in its folder; a new one takes all of it away
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside `out` to be filled and then given to `put`; otherwise it is removed at the end. Raises OSError."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with durable.staged_folder(out) as folder:
        yield folder


def put(folder: Path, out: Path) -> None:
    """Move a staged folder to `out`: as a whole if that is absent, else its files into it, in place of an earlier model's.

    What interrupts this, Ctrl-C too, is met by finishing it; where that cannot be, `settle` does. Raises OSError.
    """
    _sync(folder)
    if not out.exists():
        try:
            folder.rename(out)
        except OSError as error:  # another run was faster
            if error.errno not in _TAKEN:
                raise
        else:
            durable.sync_folder(out.parent)
            return
    whole = folder.with_suffix(".whole")
    folder.rename(whole)
    try:
        _replace(whole, out)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            _finish(out, whole)
        raise


def settle(out: Path) -> bool:
    """Finish, or clear away, what killed runs left beside `out`; whether a model was put in place. Raises OSError."""
    finished = False
    for ending in ("moving", "whole"):
        for left in _left(out, ending):
            with durable.left_behind(left) as dead:
                if dead:
                    _replace(left, out)
                    finished = True
    durable.sweep(out)
    return finished


def write_folder(files: Mapping[str, bytes], out: Path) -> None:
    """Write a model's files, by their names, as its folder `out`. Raises ConfigError if `out` is a file, OSError."""
    out = out.absolute()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder.")
    settle(out)
    with staged(out) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        put(folder, out)


def read_folder(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their relative paths. Raises OSError."""
    return {str(p.relative_to(folder).as_posix()): p.read_bytes() for p in _files(folder)}


def _replace(left: Path, out: Path) -> None:
    """From wherever it stands to the end. Its lock is the caller's; among runs for one `out` there is one at a time here."""
    out.mkdir(exist_ok=True)
    with durable.locked(out):
        if left.suffix == ".whole":
            for older in _left(out, "moving"):  # its run was killed while this one waited; this one replaces all of it
                shutil.rmtree(older)
            (out / CARD).unlink(missing_ok=True)
            for name in OWNED:
                _remove(out / name)
            durable.sync_folder(out)
            left = left.rename(left.with_suffix(".moving"))
        for file in sorted(_files(left), key=lambda path: path == left / CARD):
            place = out / file.relative_to(left)
            place.parent.mkdir(parents=True, exist_ok=True)
            if place != out / CARD:
                file.replace(place)
        if (left / CARD).exists():
            durable.sync_folder(out)
            (left / CARD).replace(out / CARD)
        durable.sync_folder(out)
        shutil.rmtree(left)


def _finish(out: Path, whole: Path) -> None:
    """Go on where `_replace` was interrupted."""
    for left in (whole, whole.with_suffix(".moving")):
        if left.exists():
            _replace(left, out)


def _left(out: Path, ending: str) -> list[Path]:
    """What runs for `out` renamed to this ending."""
    found = sorted(out.parent.glob(f".*.{ending}"))
    return [path for path in found if durable.place_of(path.with_suffix(".tmp")) == out]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; a link goes, not what it names."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Have all of a folder on the disk."""
    for file in _files(folder):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    for inner in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
        durable.sync_folder(inner)
