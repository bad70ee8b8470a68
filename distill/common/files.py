"""Writing a file so that it is there in full or not at all, and says plainly when it cannot be written.

A file grows under a temporary name beside its place and is renamed when it is whole. The writer of a `staged` file or folder holds
a lock on it, which ends with the process however it ends, so what a dead run left can be told from what is being written, and
`sweep` removes it.
"""

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from distill.errors import DistillError

try:
    import fcntl
except ImportError:  # not on this system: nothing is locked, and so nothing is ever taken for left behind
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)
_MENDS = {
    errno.ENOSPC: "Free some space or choose another folder",
    errno.EDQUOT: "Free some space or choose another folder",
    errno.EFBIG: "Raise the limit on file sizes or choose another folder",
    errno.EACCES: "Check the folder's permissions or choose another folder",
    errno.EPERM: "Check the folder's permissions or choose another folder",
    errno.EROFS: "Choose a folder that can be written",
    errno.ENOENT: "Create the folder first",
    errno.ENOTDIR: "One part of the path is a file, not a folder",
    errno.EEXIST: "Choose another name or move the existing file away",
    errno.EISDIR: "Name a file, not a directory",
}


def problem(error: OSError, path: Path) -> str:
    """An operating-system error in one line: the path, what happened and the mend."""
    mend = _MENDS.get(error.errno or 0, "Check the path")
    return f"{path}: {error.strerror or error}. {mend}"


@contextlib.contextmanager
def wrapped(what: str, path: Path, kind: type[DistillError]) -> Iterator[None]:
    """Turn an OSError inside the block into `kind`: 'cannot `what` `path`: reason. mend.'"""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot {what} {problem(error, path)}.") from None


def date(path: Path, day: str) -> None:
    """Date a file by a day (ISO): the moment of writing would travel with a copy, and tell how long its making took."""
    moment = datetime.fromisoformat(day).timestamp()
    os.utime(path, (moment, moment))


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut (a no-op where folders cannot be opened)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            os.fsync(handle)
    finally:
        os.close(handle)


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that nobody else uses, for a file that is renamed to `path` when it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def place_of(temporary: Path) -> Path | None:
    """The place for which a name was made by `temporary_beside`; None: by somebody else."""
    found = _TEMPORARY.fullmatch(temporary.name)
    return temporary.with_name(found[1]) if found else None


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A new, empty file of a temporary name beside `path`, locked until the block ends. Raises OSError.

    Fill it with `write_exactly`; the block moves it into place or removes it. A process that dies leaves it unlocked.
    """
    while True:
        temporary = temporary_beside(path)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            _locked(handle, wait=True)
            if os.fstat(handle).st_nlink:  # else it was taken for left behind before it had its lock
                yield temporary
                return
        finally:
            os.close(handle)


@contextlib.contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder of a temporary name beside `path`, locked until the block ends. Raises OSError.

    The block moves it, or what it puts in, into place; what is left of it afterwards is removed.
    """
    while True:
        temporary = temporary_beside(path)
        temporary.mkdir()
        with contextlib.ExitStack() as held:
            with contextlib.suppress(FileNotFoundError):  # taken for left behind before it was opened
                held.enter_context(locked(temporary))
            if temporary.exists():  # else it was taken for left behind before it had its lock
                try:
                    yield temporary
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)  # the first error is the one to tell
                return


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have an existing folder to oneself, among all who ask for it this way. Raises OSError."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _locked(handle, wait=True)
        yield
    finally:
        os.close(handle)


def sweep(path: Path) -> None:
    """Remove what dead runs left beside `path`: files and folders staged for it. What cannot be removed stays."""
    for temporary in sorted(path.parent.glob(f".{glob.escape(path.name)}.*.tmp")):
        with left_behind(temporary) as dead, contextlib.suppress(OSError):
            if dead and place_of(temporary) == path:
                if temporary.is_dir():
                    shutil.rmtree(temporary)
                else:
                    temporary.unlink()


@contextlib.contextmanager
def left_behind(temporary: Path) -> Iterator[bool]:
    """Whether `temporary` was staged by a process that is gone; if so, nobody else takes it while the block runs."""
    try:
        handle = os.open(temporary, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        yield False
        return
    try:
        # Its name is looked at again: whoever held the lock until now may have moved the file into place.
        yield (
            _locked(handle, wait=False) and temporary.exists() and os.path.samestat(os.fstat(handle), temporary.stat())
        )
    finally:
        os.close(handle)


def _locked(handle: int, *, wait: bool) -> bool:
    """Lock an open file until it is closed; False: another process has it, or locks are not to be had there."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def write_exactly(path: Path, data: bytes, *, mode: int = 0o644, exclusive: bool = False) -> None:
    """Write and fsync `data` at `path`; a failure removes what was written. Raises OSError.

    With `exclusive` the file must not exist yet, so that its mode is `mode` from the first byte on.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if exclusive else os.O_TRUNC)
    handle = os.open(path, flags, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        if path.is_file():  # never a device that somebody named
            path.unlink(missing_ok=True)
        raise


def put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Rename `temporary` to `path`; without `overwrite` an existing file stays and FileExistsError is raised.

    May be repeated where it was interrupted: a `path` that is this very file already is in its place.
    """
    if overwrite:
        os.replace(temporary, path)
    else:
        try:
            os.link(temporary, path)  # unlike a rename, a link never replaces what another process just wrote
        except FileExistsError:
            if not path.samefile(temporary):
                raise
        except OSError:  # a file system without links: the check and the rename are two steps there
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(temporary, path)
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes, *, mode: int = 0o644, overwrite: bool = True) -> None:
    """Write `data` under a temporary name, fsync and rename it to `path`. Raises OSError and leaves nothing then."""
    temporary = temporary_beside(path)
    try:
        write_exactly(temporary, data, mode=mode, exclusive=True)
        put_in_place(temporary, path, overwrite=overwrite)
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
