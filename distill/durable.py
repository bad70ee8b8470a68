"""Writing a file so that it is there in full or not at all, and says plainly when it cannot be written."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from distill.errors import DistillError

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
    """Rename `temporary` to `path`; without `overwrite` an existing file stays and FileExistsError is raised."""
    if overwrite:
        os.replace(temporary, path)
    else:
        try:
            os.link(temporary, path)  # unlike a rename, a link never replaces what another process just wrote
        except FileExistsError:
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
