"""What this process tries to write, start, send or unpickle, seen by an audit hook.

A hook cannot be taken off, so it is switched. Libraries in C pass it by: whoever watches also looks into the folders, or
sets the limit on file sizes to nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = ("mkdir", "rename", "remove", "rmdir", "link", "symlink", "truncate", "chmod", "chown", "utime", "setxattr")
_STARTING = ("exec", "fork", "forkpty", "posix_spawn", "system")
_EVENTS = {f"os.{name}" for name in (*_CHANGING, *_STARTING)} | {
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
}
_attempts: list[str] = []
_watching = False
_hooked = False


@contextmanager
def watched() -> Iterator[list[str]]:
    """The attempts made inside, in words; the list grows as they happen."""
    global _watching, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _attempts.clear()
    _watching = True
    try:
        yield _attempts
    finally:
        _watching = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching:
        return
    if event in _EVENTS:
        _attempts.append(f"{event} {arguments[:2]!r}")
    elif event == "open" and isinstance(flags := arguments[2], int) and flags & _WRITING:
        _attempts.append(f"open {arguments[0]!r} for writing")
