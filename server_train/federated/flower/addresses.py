"""Addresses as words, `host:port`, certificates as files, and what can be told of them before anything is started."""

import os
import socket
import time
from pathlib import Path

from distill.common import files
from distill.errors import ConfigError

BETWEEN_TRIES = 0.2  # seconds


def parse_address(words: str) -> tuple[str, int]:
    """`host:port` or `[::1]:port` as host and port. Raises ConfigError."""
    host, colon, port = words.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigError(f"{words!r} is no address. Write host:port, as in 0.0.0.0:8080 or hub.example.org:8080.")
    return host, int(port)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError where the port is taken or the host is not this machine."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({_why(error)}). Choose another port, and 0.0.0.0 or an address of this machine."
        ) from None


def wait_for(host: str, port: int, seconds: float) -> None:
    """Return as soon as somebody listens there. Raises ConfigError where nobody does within `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=max(1.0, end - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() >= end:
                raise ConfigError(
                    f"no server answers at {host}:{port} within {seconds:g} seconds ({_why(error)}). "
                    "Start the server first, and check address and firewall."
                ) from None
        time.sleep(BETWEEN_TRIES)


def read_pem(path: Path) -> bytes:
    """A certificate or key. Raises ConfigError."""
    with files.wrapped("read", path, ConfigError):
        data = path.read_bytes()
    if b"-----BEGIN" not in data:
        raise ConfigError(f"{path} is no PEM file. Name a certificate or key that begins with -----BEGIN.")
    return data


def _why(error: OSError) -> str:
    """The system's own words."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or type(error).__name__
