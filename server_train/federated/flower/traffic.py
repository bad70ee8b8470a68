"""Bytes on the wire: a TCP proxy that counts what passes in both directions and looks at none of it.

It stands in front of a server and counts what every layer adds: the transport's own messages, HTTP/2 and TLS. What TCP and
IP add below it (40 bytes a packet of up to about 1,460 bytes, and acknowledgements) is not seen.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from server_train.federated.flower.addresses import listen

CHUNK = 1 << 16


@dataclass
class Counts:
    """Bytes of one connection.

    Attributes:
        up: From the client to the server.
        down: From the server to the client.
    """

    up: int = 0
    down: int = 0

    def add(self, direction: str, chunk: bytes) -> None:
        """Count a piece that goes `up` or `down`."""
        if direction == "up":
            self.up += len(chunk)
        else:
            self.down += len(chunk)


class CountingProxy:
    """Passes every connection on to one server.

    Attributes:
        port: Where it listens.
        connections: Counts of each, in the order in which they came.
    """

    def __init__(
        self,
        server: tuple[str, int],
        host: str = "127.0.0.1",
        port: int = 0,
        new_counts: Callable[[], Counts] = Counts,
    ) -> None:
        """Listen at once; port 0: any free one. Raises ConfigError where that cannot be."""
        self._server, self._listener, self._new_counts = server, listen(host, port), new_counts
        self.port = int(self._listener.getsockname()[1])
        self.connections: list[Counts] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def total(self) -> Counts:
        """Of all connections."""
        return Counts(sum(c.up for c in self.connections), sum(c.down for c in self.connections))

    def close(self) -> None:
        """Take no more connections, and wait a little for those that end."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts; closing alone does not
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def __enter__(self) -> "CountingProxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            counts = self._new_counts()
            self.connections.append(counts)
            thread = threading.Thread(target=_carry, args=(client, server, counts), daemon=True)
            self._threads.append(thread)
            thread.start()


def _carry(client: socket.socket, server: socket.socket, counts: Counts) -> None:
    """Both directions, until both have ended."""
    with client, server:
        down = threading.Thread(target=_pump, args=(server, client, counts, "down"), daemon=True)
        down.start()
        _pump(client, server, counts, "up")
        down.join()


def _pump(source: socket.socket, target: socket.socket, counts: Counts, direction: str) -> None:
    """One direction, until its sender ends it or the receiver is gone."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK):
            counts.add(direction, chunk)
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
