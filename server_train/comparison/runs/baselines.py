"""Which federated baselines a comparison runs, and under which conditions: words checked before any work."""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from distill.errors import ConfigError
from server_train.federated.engine import run
from server_train.federated.engine.clock import Clock
from server_train.federated.local.client import LocalSettings
from server_train.federated.messages.compression import Compression
from server_train.federated.strategies.base import Strategy
from server_train.federated.strategies.catalogue import STRATEGIES, make_strategy

RATE = "learning_rate"
TITLES = {
    "fedsgd": "FedSGD",
    "qfedavg": "q-FedAvg",
    "scaffold": "SCAFFOLD",
    "moon": "MOON",
    "contribution": "contribution-weighted",
}  # as their papers write them; others by the name of their class


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A strategy by name, with the options that differ from its own defaults, as words.

    `learning_rate` may be among the options: of the clients' steps, in place of the one that all baselines share. It is for
    plain SGD; runs under a budget have their own.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def make(self) -> Strategy:
        """A fresh strategy. Raises ConfigError."""
        return make_strategy(self.name, self.without_rate().options)

    def without_rate(self) -> "Baseline":
        """The same with the clients' shared learning rate."""
        return replace(self, options={k: v for k, v in self.options.items() if k != RATE})

    def local(self, shared: LocalSettings) -> LocalSettings:
        """How its clients train. Raises ConfigError."""
        if RATE not in self.options:
            return shared
        try:
            return replace(shared, learning_rate=float(self.options[RATE]))
        except ValueError:
            raise ConfigError(f"{self.name}.{RATE} is a number, not {self.options[RATE]!r}.") from None

    @property
    def label(self) -> str:
        """As tables and figures show it."""
        shown = ", ".join(f"{option} {value}" for option, value in sorted(self.options.items()))
        title = TITLES.get(self.name) or type(self.make()).__name__
        return title + (f" ({shown})" if shown else "")

    @property
    def source(self) -> str:
        """Digest of the code of a strategy of one's own, so that a change to it is another run; else nothing."""
        if self.name in STRATEGIES:
            return ""
        return hashlib.sha256(inspect.getsource(type(self.make())).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What all baselines share.

    Attributes:
        rounds: Of each.
        participation: Share of the clients asked in a round.
        local: Training at a client.
        compression: Of uploads, and of downloads where it can hold whole weights.
        deadline: Simulated seconds after which a round ends, whoever is missing; None: it waits for all.
        clock: Simulated machines and lines.
    """

    rounds: int = 100
    participation: float = 1.0
    local: LocalSettings = field(default_factory=lambda: LocalSettings(learning_rate=0.1))
    compression: Compression = field(default_factory=Compression)
    deadline: float | None = None
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Refuse what the engine refuses, before any work."""
        self.run_settings(0)

    def run_settings(self, seed: int) -> run.RunSettings:
        """As the engine takes them."""
        return run.RunSettings(
            rounds=self.rounds,
            participation=self.participation,
            seed=seed,
            deadline=self.deadline,
            download=Compression() if self.compression.method == "topk" else self.compression,
        )


def chosen(names: Sequence[str], options: Sequence[str]) -> tuple[Baseline, ...]:
    """Baselines from words: names (`all` for every published one) and options such as `fedprox.mu=0.1`.

    Raises:
        ConfigError: no such strategy or option, an option of a strategy that is not chosen, or a value that does not fit.
    """
    wanted = [n for name in names for n in (STRATEGIES if name == "all" else [name])]
    wanted = list(dict.fromkeys(wanted))
    given: dict[str, dict[str, str]] = {name: {} for name in wanted}
    for word in options:
        left, equals, value = word.partition("=")
        name, dot, option = left.rpartition(".")
        if not (equals and dot and option):
            raise ConfigError(f"option {word!r} must be written STRATEGY.OPTION=VALUE, as in fedprox.mu=0.1.")
        if name not in given:
            raise ConfigError(f"option {word!r}: {name!r} is not among the chosen strategies ({', '.join(wanted)}).")
        given[name][option] = value
    out = tuple(Baseline(name=name, options=given[name]) for name in wanted)
    for baseline in out:
        baseline.make()  # refuses what cannot run
        baseline.local(LocalSettings())
    return out
