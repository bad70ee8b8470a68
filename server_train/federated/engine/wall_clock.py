"""Real time: the engine's processes at the pace of the wall clock, with exchanges in threads.

On a real network nothing is simulated: an exchange takes as long as it takes, several run side by side, and a reply is
aggregated when it is there. The engine stays in its one thread; only `Transport.exchange` runs elsewhere.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import simpy
from simpy.core import Infinity
from simpy.events import NORMAL, EventPriority

from server_train.federated.engine.clock import Clock


class WallClock(Clock):
    """A clock that measures instead of answering: no tiers, no chance drop-outs."""

    def environment(self) -> simpy.Environment:
        """An environment in real seconds."""
        return WallEnvironment()

    def work(self, env: simpy.Environment, client: int, exchange: Callable[[], tuple[bytes, int]]) -> simpy.Event:
        """Begin the exchange in a thread: an event with its reply, when it is there, or with what it raised."""
        assert isinstance(env, WallEnvironment)
        return env.in_thread(lambda: exchange()[0])

    def download_seconds(self, client: int, size: int) -> float:
        """Nothing: transfers are part of the exchange."""
        return 0.0

    def upload_seconds(self, client: int, size: int) -> float:
        """Nothing: transfers are part of the exchange."""
        return 0.0

    def drop_outs(self, client: int) -> Iterator[bool]:
        """Never: clients drop out by themselves."""
        return itertools.repeat(False)


class WallEnvironment(simpy.Environment):
    """simpy's event loop in real seconds since its first event, in which threads may finish events."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self._began: float | None = None
        self._running = 0  # calls in threads whose events are open
        self._finished: queue.SimpleQueue[tuple[simpy.Event, Any, Exception | None]] = queue.SimpleQueue()
        super().__init__()

    def in_thread(self, call: Callable[[], Any]) -> simpy.Event:
        """Run `call` in a thread; the event holds what it returns or raises, and raises only where someone waits."""
        event = self.event()
        self._running += 1

        def run() -> None:
            try:
                self._finished.put((event, call(), None))
            except Exception as error:
                self._finished.put((event, None, error))

        threading.Thread(target=run, daemon=True).start()
        return event

    def schedule(self, event: simpy.Event, priority: EventPriority = NORMAL, delay: float = 0) -> None:
        """As simpy does, from the present second on."""
        self._began = time.monotonic() if self._began is None else self._began
        self._advance()
        super().schedule(event, priority, delay)

    def step(self) -> None:
        """Process the next event, once it is due; events of threads come in as they are finished."""
        while self._running and self.peek() > self._elapsed():
            self._let_finish(self.peek() - self._elapsed())
        time.sleep(max(self.peek() - self._elapsed(), 0.0) if self.peek() < Infinity else 0.0)
        super().step()

    def _let_finish(self, seconds: float) -> None:
        """Wait for a thread, at most so long, and trigger its event."""
        try:
            event, value, error = self._finished.get(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))
        except queue.Empty:
            return
        self._running -= 1
        if error is None:
            event.succeed(value)
        else:
            event.fail(error)
            event.defused = True  # after a deadline nobody waits for it any more

    def _elapsed(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _advance(self) -> None:
        """Bring simpy's time up to the clock's, but never past an event that is still to be processed."""
        self._now = max(self._now, min(self._elapsed(), self.peek()))
