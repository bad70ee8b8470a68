"""The server's side on Flower: who has joined, how a message reaches a client, and the life of the server itself.

`FlowerTransport` is a transport for the engine like any other. Every newcomer is asked who it is and gets the seat of its
number, or hears why not. A client that vanishes leaves its seat; one that joins again takes it, hears the terms and goes on
with an empty memory. Flower does not authenticate clients on this transport: whoever reaches the port may claim a free seat.
"""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from distill.errors import ConfigError, DataError
from server_train.federated.engine.transport import NotSent
from server_train.federated.flower.addresses import listen, parse_address
from server_train.federated.flower.library import (
    ClientProxy,
    FitIns,
    GetPropertiesIns,
    GrpcBridgeClosed,
    History,
    Parameters,
    ReconnectIns,
    Server,
    ServerConfig,
    SimpleClientManager,
    start_server,
)
from server_train.federated.messages.protocol import Hello, Kind, reason_in

HELLO_SECONDS = 30.0
GOODBYE_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
Result = TypeVar("Result")
Note = Callable[[str], None]


@dataclass
class _Seat:
    """A client that is here.

    Attributes:
        proxy: Flower's line to it.
        briefed: Whether it has heard the terms.
        busy: Held while a message is under way.
    """

    proxy: ClientProxy
    briefed: bool = False
    busy: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Traffic:
    """Payload bytes of one client's set-up: from the server and to it."""

    down: int = 0
    up: int = 0


class FlowerTransport:
    """Seats for a fixed number of clients.

    Attributes:
        setup: Set-up bytes of each client.
    """

    def __init__(self, clients: int, schema: str, note: Note = lambda text: None) -> None:
        """`schema` is the digest that every client must have; `note` hears who comes and goes, from any thread."""
        self.setup = tuple(Traffic() for _ in range(clients))
        self._schema, self._note = schema, note
        self._seats: dict[int, _Seat] = {}
        self._changed = threading.Condition()
        self._terms: Sequence[bytes] = ()
        self._over = False

    @property
    def clients(self) -> int:
        """How many clients there are, here or not."""
        return len(self.setup)

    def begin(self, payloads: Mapping[int, bytes]) -> None:
        """Nothing: the wall clock runs every exchange in a thread of its own."""

    def exchange(self, client: int, payload: bytes) -> tuple[bytes, int]:
        """Let `client` train; see `Transport.exchange`."""
        seat = self._seat(client)
        if not seat.briefed:
            self._brief(client)
        return self._ask(client, Kind.TRAIN, [payload])

    def gather(self, seconds: float) -> None:
        """Wait until all are here. Raises ConfigError where some are still missing after `seconds`."""
        with self._changed:
            if self._changed.wait_for(lambda: len(self._seats) == self.clients, timeout=seconds):
                return
            missing = [str(client) for client in range(self.clients) if client not in self._seats]
        raise ConfigError(
            f"{len(missing)} of {self.clients} clients did not join within {seconds:g} seconds: {', '.join(missing)}. "
            "Start them, or wait longer."
        )

    def sketches(self) -> list[bytes]:
        """Every client's sketch of its rows. Raises DataError where one fails or leaves."""
        return self._all(self._sketch)

    def agree(self, terms: Sequence[bytes]) -> None:
        """Tell all clients the terms, and later those that join again. Raises DataError where one fails or leaves."""
        self._terms = tuple(terms)
        self._all(self._brief)

    def finish(self, seconds: float) -> None:
        """The run is over: wait for clients that are still at work, at most so long, and mind no goodbyes."""
        self._over = True
        end = time.monotonic() + seconds
        for seat in list(self._seats.values()):
            if seat.busy.acquire(timeout=max(0.0, end - time.monotonic())):
                seat.busy.release()

    def leave(self, proxy: ClientProxy) -> None:
        """Somebody's connection has ended."""
        with self._changed:
            gone = [number for number, seat in self._seats.items() if seat.proxy is proxy]
            for number in gone:
                del self._seats[number]
                if not self._over:
                    self._note(f"client {number} has left")
            self._changed.notify_all()

    def admit(self, proxy: ClientProxy) -> None:
        """Give a newcomer its seat, or tell it why not and send it away."""
        try:
            properties = proxy.get_properties(GetPropertiesIns({}), timeout=HELLO_SECONDS, group_id=None).properties
            hello = Hello.from_properties(properties)
            objection = hello.objection(clients=self.clients, schema=self._schema) or self._take(hello.number, proxy)
            if objection is None:
                self._note(f"client {hello.number} has joined")
                return
            self._note(f"a client was refused: {objection}")
            refused = FitIns(Parameters([objection.encode()], Kind.REFUSED), {})
            proxy.fit(refused, timeout=HELLO_SECONDS, group_id=None)
            proxy.reconnect(ReconnectIns(None), timeout=HELLO_SECONDS, group_id=None)
        except GrpcBridgeClosed:
            self._note("somebody connected and left without a word")

    def _take(self, number: int, proxy: ClientProxy) -> str | None:
        """Take the seat of a number; the objection where it is taken."""
        with self._changed:
            if number in self._seats:
                return f"there is a client {number} already; give each client a number of its own."
            self._seats[number] = _Seat(proxy)
            self._changed.notify_all()
            return None

    def _all(self, ask: Callable[[int], Result]) -> list[Result]:
        """Ask all clients side by side, before the first round."""
        try:
            with ThreadPoolExecutor(self.clients) as pool:
                return list(pool.map(ask, range(self.clients)))
        except ConnectionError as error:
            raise DataError(f"the set-up failed: {error}. Start the run again.") from None

    def _sketch(self, client: int) -> bytes:
        body, _ = self._ask(client, Kind.SKETCH, [])
        self.setup[client].up += len(body)
        return body

    def _brief(self, client: int) -> None:
        self._ask(client, Kind.TERMS, self._terms)
        self._seat(client).briefed = True
        self.setup[client].down += sum(map(len, self._terms))

    def _seat(self, client: int) -> _Seat:
        seat = self._seats.get(client)
        if seat is None:
            raise NotSent(f"client {client} has left")
        return seat

    def _ask(self, client: int, kind: Kind, parts: Sequence[bytes]) -> tuple[bytes, int]:
        """One message and its answer: the content, and the rows of work it took.

        Raises:
            ConnectionError: the client vanished.
            DataError: it failed, or its answer is none.
        """
        seat = self._seat(client)
        if not seat.busy.acquire(blocking=kind != Kind.TRAIN):  # the set-up waits, a round does not
            raise NotSent(f"client {client} is still at work on an earlier message")
        try:
            found = seat.proxy.fit(FitIns(Parameters(list(parts), kind), {}), timeout=None, group_id=None)
        except GrpcBridgeClosed:
            self.leave(seat.proxy)
            raise ConnectionError(f"client {client} vanished") from None
        finally:
            seat.busy.release()
        body, kind_found = found.parameters.tensors, found.parameters.tensor_type
        if len(body) != 1 or kind_found not in (Kind.REPLY, Kind.FAILED):
            raise DataError(f"client {client} gave an answer of an unknown form")
        if kind_found == Kind.FAILED:
            reason = reason_in(body[0])
            raise DataError(reason if reason.startswith(f"client {client}") else f"client {client}: {reason}")
        return body[0], max(found.num_examples, 0)


class _Lobby(SimpleClientManager):
    """Flower's list of connections; the transport hears of all that come and go."""

    def __init__(self, transport: FlowerTransport) -> None:
        super().__init__()
        self._transport = transport

    def register(self, client: ClientProxy) -> bool:
        """Somebody has connected; the connection speaks only after this has returned."""
        accepted = super().register(client)
        threading.Thread(target=self._transport.admit, args=(client,), daemon=True).start()
        return accepted

    def unregister(self, client: ClientProxy) -> None:
        """Somebody's connection has ended."""
        super().unregister(client)
        self._transport.leave(client)


class _Host(Server):
    """A Flower server whose whole run is `body`; what it returned or raised is kept for the caller."""

    def __init__(self, transport: FlowerTransport, body: Callable[[], object], handlers: dict[int, object]) -> None:
        super().__init__(client_manager=_Lobby(transport))
        self._transport, self._body, self._handlers = transport, body, handlers
        self.error: BaseException | None = None

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run, with the signal handlers from before Flower set its own; Flower dismisses the clients afterwards."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        began = time.monotonic()
        try:
            self._body()
        except BaseException as error:
            self.error = error
        self._transport.finish(GOODBYE_SECONDS)
        return History(), time.monotonic() - began


def host(
    transport: FlowerTransport,
    address: str,
    body: Callable[[], Result],
    *,
    certificate: bytes | None = None,
    key: bytes | None = None,
) -> Result:
    """Listen at `address`, run `body`, send all clients home; in the main thread only.

    Args:
        transport: That `body` uses.
        address: host:port to listen at.
        body: Runs while the server is up.
        certificate, key: PEM of the server, for TLS; None: the connection is not encrypted.

    Raises:
        ConfigError: the port cannot be listened at, or the certificate cannot be used.
    """
    bind_host, port = parse_address(address)
    listen(bind_host, port).close()  # says in clear words what Flower would not
    results: list[Result] = []
    handlers: dict[int, object] = {number: signal.getsignal(number) for number in _SIGNALS}
    server = _Host(transport, lambda: results.append(body()), handlers)
    tls = None if certificate is None or key is None else (certificate, certificate, key)
    try:
        start_server(
            server_address=f"[{bind_host}]:{port}" if ":" in bind_host else f"{bind_host}:{port}",
            server=server,
            config=ServerConfig(num_rounds=1, round_timeout=GOODBYE_SECONDS),
            certificates=tls,
        )
    except (SystemExit, RuntimeError):
        if server.error is None:
            raise ConfigError(
                f"cannot serve at {address}. Check that the port is free, and that the certificate belongs to the key."
            ) from None
    if server.error is not None:
        raise server.error
    return results[0]
