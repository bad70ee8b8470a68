"""Simulated time: how long work and transfers take at institutions with unlike machines and lines.

The engine moves a simpy clock on by what this module answers. Inputs are what a run measures anyway: bytes of each
message and rows of work. The server's own line and its arithmetic take no time: it is a data centre's, and adding up a
few replies is little beside training. A transfer costs its bytes over the line's rate and one latency; handshakes and lost
packets are left out. With given tiers, seconds a row and seed, every answer is repeatable.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simpy

from distill.common import checks
from distill.errors import ConfigError
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp

MEGABIT = 1e6 / 8  # bytes
TYPICAL_SECONDS_PER_ROW = 1.2e-6  # measured on one core: 110 inputs, layers of 64 and 32, batches of 64
STEPS_A_RUN = 5


@dataclass(frozen=True, kw_only=True)
class Tier:
    """What kind of machine and line an institution has.

    Attributes:
        name: As words name it.
        speed: Of its machine, relative to the one where the seconds a row were measured.
        down: Bytes a second towards the institution.
        up: Bytes a second from it.
        latency: Seconds a message is under way beside its bytes, one way.
        drop_out: Chance to vanish from one exchange after its download, in [0, 1].
    """

    name: str
    speed: float
    down: float
    up: float
    latency: float
    drop_out: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a tier without time or with a chance that is none."""
        checks.positive(speed=self.speed, down=self.down, up=self.up)
        if not 0 <= self.latency < float("inf"):
            raise ConfigError(f"latency must be at least 0 seconds, not {self.latency!r}.")
        if not 0 <= self.drop_out <= 1:
            raise ConfigError(f"drop_out is a chance in [0, 1], not {self.drop_out!r}.")


# Lines: `high` is an assumption, the usual port of a data centre, 1 Gbit/s both ways; `medium` is what the FCC calls
# broadband since 2024 (100/20 Mbit/s: 2024 Section 706 Report, FCC 24-27), a branch office; `low` is what it asked of
# subsidised rural lines (10/1 Mbit/s: 47 CFR 54.309, Connect America Phase II), a slow DSL line.
# Latencies, speeds and drop-outs are assumptions: machines halve in speed from tier to tier, lines get longer.
HIGH = Tier(name="high", speed=1.0, down=1000 * MEGABIT, up=1000 * MEGABIT, latency=0.005)
MEDIUM = Tier(name="medium", speed=0.5, down=100 * MEGABIT, up=20 * MEGABIT, latency=0.02, drop_out=0.01)
LOW = Tier(name="low", speed=0.25, down=10 * MEGABIT, up=1 * MEGABIT, latency=0.05, drop_out=0.05)
TIERS = {tier.name: tier for tier in (HIGH, MEDIUM, LOW)}


def parse_tiers(words: str) -> tuple[Tier, ...]:
    """`high,medium,low` as tiers. Raises ConfigError for a name that is not one of `TIERS`."""
    names = [word.strip() for word in words.split(",")]
    wrong = [name for name in names if name not in TIERS]
    if wrong:
        raise ConfigError(f"no tier {wrong[0]!r}. Name {', '.join(TIERS)}, separated by commas.")
    return tuple(TIERS[name] for name in names)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Seconds of every client's work and transfers, and when it drops out.

    Attributes:
        tiers: Dealt to the clients in turn, again from the first after the last.
        seconds_per_row: Of one row of work (a row whose gradient is computed) at speed 1.
        seed: Of the drop-outs; every client has its own stream, so its fate does not hang on the others'.
    """

    tiers: tuple[Tier, ...] = (HIGH,)
    seconds_per_row: float = TYPICAL_SECONDS_PER_ROW
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a clock that cannot run."""
        checks.positive(seconds_per_row=self.seconds_per_row)
        if not self.tiers:
            raise ConfigError("a clock needs at least one tier.")

    def environment(self) -> simpy.Environment:
        """Where the engine's processes run."""
        return simpy.Environment()

    def work(self, env: simpy.Environment, client: int, exchange: Callable[[], tuple[bytes, int]]) -> simpy.Event:
        """Let `client` do an exchange: an event with its reply, due when its rows of work would be done."""
        reply, rows = exchange()
        return env.timeout(self.compute_seconds(client, rows), reply)

    def tier(self, client: int) -> Tier:
        """What `client` has."""
        return self.tiers[client % len(self.tiers)]

    def download_seconds(self, client: int, size: int) -> float:
        """For a message of `size` bytes to reach `client`."""
        return self.tier(client).latency + size / self.tier(client).down

    def compute_seconds(self, client: int, rows: int) -> float:
        """For `rows` rows of work at `client`."""
        return rows * self.seconds_per_row / self.tier(client).speed

    def upload_seconds(self, client: int, size: int) -> float:
        """For a message of `size` bytes to come back from `client`."""
        return self.tier(client).latency + size / self.tier(client).up

    def drop_outs(self, client: int) -> Iterator[bool]:
        """Whether `client` drops out of its first exchange, its second, and so on without end."""
        rng = np.random.default_rng([self.seed, client])
        while True:
            yield bool(rng.random() < self.tier(client).drop_out)


def measure_seconds_per_row(model: Mlp, *, batch_size: int = 64, steps: int = 300) -> float:
    """Seconds that one row of a client's training takes here and now; hand the figure on to `Clock` to repeat a run.

    Args:
        model: What clients will train.
        batch_size: Rows a step.
        steps: About as many are timed, in short runs whose median shrugs off what else the machine does.
    """
    checks.positive(batch_size=batch_size, steps=steps)
    rng = np.random.default_rng(0)
    rows = STEPS_A_RUN * batch_size
    x = rng.random((rows, model.sizes[0])).astype(model.dtype)
    y = rng.integers(model.sizes[-1], size=rows)
    client = Client(0, x, y, model, LocalSettings(batch_size=batch_size, learning_rate=1e-3), rng)
    start = model.initial(rng)
    taken = []
    for _ in range(1 + -(-steps // STEPS_A_RUN)):
        began = time.perf_counter()
        client.train(start)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:]) / rows  # the first run warms up
