"""(not a benchmark) Killing a process at its n-th system call inside a window, by ptrace; Linux only.

The process itself opens and closes the window: it stops with SIGSTOP at its first and last moment. In between its parent stops it at
the entry of each system call. Killed there, the call is never made, so kills at the calls 1, 2, 3, ... and at the end of the
window are all the states that another process, or a power cut after a sync, can find.
"""

import ctypes
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

TRACEME, SYSCALL, SETOPTIONS = 0, 24, 0x4200
SYSGOOD, EXITKILL = 1, 0x100000
CALL_STOP = signal.SIGTRAP | 0x80  # a stop at a system call, told from other traps by SYSGOOD
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _LIBC is not None:
    _LIBC.ptrace.argtypes = [ctypes.c_long] * 4
    _LIBC.ptrace.restype = ctypes.c_long


def missing() -> str | None:
    """Why windows cannot be traced here; None: they can."""
    if _LIBC is None:
        return "ptrace is needed, and this is not Linux"
    pid = os.fork()
    if not pid:
        os._exit(1 if _LIBC.ptrace(TRACEME, 0, 0, 0) else 0)
    return "this system does not allow ptrace" if os.waitpid(pid, 0)[1] else None


def windowed(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a window; only in a process whose parent calls `kill_at`."""

    @functools.wraps(function)
    def inside(*arguments: Any, **named: Any) -> Any:
        _request(TRACEME, 0)
        _stop()
        try:
            return function(*arguments, **named)
        finally:
            _stop()

    return inside


def kill_at(pid: int, call: int) -> int | None:
    """Let a child run to its window and kill it at that system call of it, or at the window's end.

    Returns the number of calls begun by then; None: the child ended before its window, by itself.
    """
    opened = False
    entries, inside_a_call, pass_on = 0, False, 0
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return None
        stop = os.WSTOPSIG(status)
        pass_on = 0
        if stop == CALL_STOP:
            inside_a_call = not inside_a_call
            entries += inside_a_call
        elif stop != signal.SIGSTOP:
            pass_on = stop
        elif not opened:
            opened = True
            _request(SETOPTIONS, pid, data=SYSGOOD | EXITKILL)
        else:
            call = entries  # the end of the window
        if opened and entries >= call:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return entries
        _request(SYSCALL, pid, data=pass_on)


def _stop() -> None:
    """Stop this very thread, so that the parent sees it at a known place."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _request(what: int, pid: int, *, data: int = 0) -> None:
    assert _LIBC is not None
    if _LIBC.ptrace(what, pid, 0, data) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
