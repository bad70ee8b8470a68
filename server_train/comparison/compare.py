"""One comparison, start to end: deal the rows, distil, run the baselines, and write everything into one folder.

The only module here that knows the order. Settings and rows are checked before anything long begins; every finished
part is kept, so the same call goes on where an interrupted one stopped, and a second call has nothing left to do.

For public or own data: rows are read without noise for testing, for references and for baselines, and the report
tells each client's exact row count and class shares. Nothing that it writes is a private release but the bundles.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from distill.common import files
from distill.common.metadata import versions
from distill.errors import ConfigError
from distill.exchange.levels import Level
from distill.privacy.budget import require_budget
from server_train.comparison.deal.institutions import Budget, institution
from server_train.comparison.deal.partition_file import save_partition
from server_train.comparison.deal.tables import Dealt, Source, deal, read_tables
from server_train.comparison.record.cache import Parts, part_key
from server_train.comparison.record.results import ClientRows, Comparison, Deal, Record, Run, reach_of
from server_train.comparison.report import outputs
from server_train.comparison.runs import references
from server_train.comparison.runs.baselines import Baseline, Conditions
from server_train.comparison.runs.distilled import distilled_run, fit_client
from server_train.comparison.runs.federated import federated_run
from server_train.comparison.runs.private import PrivateConditions, private_name, private_run, require_runs
from server_train.comparison.runs.repetition import Repetition
from server_train.comparison.runs.scaling import Prepared, prepare
from server_train.federated.engine.clock import Clock, measure_seconds_per_row
from server_train.federated.local.mlp import Mlp
from server_train.models.features import class_codes
from server_train.training.network import TrainingSettings

Progress = Callable[[str, int, int], None]  # part, steps done, steps in all


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a comparison is asked for.

    Attributes:
        source: The rows.
        out: Folder for everything that is made.
        budget: Of each client's release.
        levels: Sizes of the bundles, one distilled run each; the first is what baselines are held against first.
        baselines: To compare with.
        conditions: That all baselines share.
        private: Run every baseline that can a second time, under the clients' budget; None: none.
        seeds: One repetition each.
        fresh: Do every part again.
    """

    source: Source
    out: Path
    budget: Budget
    baselines: tuple[Baseline, ...]
    levels: tuple[Level, ...] = ("default",)
    conditions: Conditions = field(default_factory=Conditions)
    private: PrivateConditions | None = None
    seeds: tuple[int, ...] = (0,)
    fresh: bool = False

    def __post_init__(self) -> None:
        """Refuse, before any work, what cannot work."""
        require_budget(self.budget.epsilon, self.budget.delta)
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"{self.out} is a file; name a folder.")
        if not self.levels or len(set(self.levels)) < len(self.levels):
            raise ConfigError("name at least one size of bundles, each once.")
        if not self.baselines:
            raise ConfigError("name at least one strategy to compare with.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError("seeds must be different whole numbers of at least 0.")
        labels = [b.label for b in self.baselines]
        if len(set(labels)) < len(labels):
            raise ConfigError("two strategies have the same name in tables; rename your class.")


class Speed(Record):
    """How long a row of training takes on this machine, measured once for a comparison's folder."""

    seconds_per_row: float


def silent(part: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def compare(request: Request, progress: Progress = silent) -> Comparison:
    """Run everything that is not there yet and write the report.

    Raises:
        ConfigError, SchemaError, DataError: a setting or a table cannot be used; told before anything long begins.
        BudgetError: no client has enough rows for a release.
    """
    tables = read_tables(request.source)
    repetitions = {seed: deal(tables, seed) for seed in request.seeds}
    with files.wrapped("make the folder", request.out, ConfigError):
        request.out.mkdir(parents=True, exist_ok=True)
    for seed, dealt in repetitions.items():
        if dealt.partition is not None:
            save_partition(dealt.partition, request.out / f"partition-seed-{seed}.json")
        for client in dealt.clients:
            institution(dealt, client, request.out)
    work = _Work(request, Parts(request.out / "runs", fresh=request.fresh), progress)
    made = [work.repetition(seed, dealt) for seed, dealt in repetitions.items()]
    found = _comparison(request, repetitions, [run for runs, _ in made for run in runs], made[0][1].sizes)
    outputs.outputs(found, request.out)
    return found


@dataclass
class _Work:
    """Makes runs, or finds them finished."""

    request: Request
    parts: Parts
    progress: Progress

    def repetition(self, seed: int, dealt: Dealt) -> tuple[list[Run], Mlp]:
        """All runs of one seed (references, distillation, baselines), and the network of all of them."""
        prepared = prepare(dealt)
        model = Mlp([prepared.test_x.shape[1], *TrainingSettings().hidden, len(dealt.schema.classes)])
        conditions = dataclasses.replace(self.request.conditions, clock=self._clock(model, seed))
        runs = [*self._references(seed, dealt), *self._distilled(seed, dealt, conditions.clock)]
        for baseline in self.request.baselines:
            runs.append(self._baseline(seed, baseline, dealt, prepared, model, conditions))
        for baseline in private_baselines(self.request)[0]:
            runs.append(self._private(seed, baseline, dealt, model, conditions))
        return runs, model

    def _clock(self, model: Mlp, seed: int) -> Clock:
        """The clock with this machine's speed and this repetition's drop-outs."""
        key = part_key(kind="speed", sizes=model.sizes, batch_size=self.request.conditions.local.batch_size)
        speed = self.parts.find("speed", key, Speed)
        if speed is None:
            batch_size = self.request.conditions.local.batch_size or 256
            speed = Speed(seconds_per_row=measure_seconds_per_row(model, batch_size=batch_size))
            self.parts.keep("speed", key, speed)
        return dataclasses.replace(self.request.conditions.clock, seconds_per_row=speed.seconds_per_row, seed=seed)

    def _references(self, seed: int, dealt: Dealt) -> list[Run]:
        """The model of all rows, and each client's own."""

        def make(name: str) -> Callable[[], Run | None]:
            advance = self._advance(seed, name)
            if name == "central":
                return lambda: references.central(dealt, seed=seed, progress=advance)
            return lambda: references.alone(dealt, name.removesuffix(" alone"), seed=seed, progress=advance)

        names = ["central", *(f"{client} alone" for client in dealt.clients)]
        runs = [
            self._part(seed, name, {"kind": "reference", "name": name, "rows": dealt.digest}, make(name))
            for name in names
        ]
        return [run for run in runs if run is not None]

    def _distilled(self, seed: int, dealt: Dealt, clock: Clock) -> list[Run]:
        """One run a bundle size, all from one fit a client."""
        request, shared = self.request, self._shared(seed, dealt)
        fits, runs = [], []
        for client in dealt.clients:
            advance = self._advance(seed, f"fit {client}")
            fits.append(fit_client(shared, client, request.levels, progress=advance))
        for level in request.levels:
            advance = self._advance(seed, f"hub, {level}")
            runs.append(distilled_run(shared, fits, level, clock=clock, progress=advance))
        return runs

    def _baseline(
        self, seed: int, baseline: Baseline, dealt: Dealt, prepared: Prepared, model: Mlp, conditions: Conditions
    ) -> Run:
        """One strategy without privacy."""
        advance = self._advance(seed, baseline.label)
        run = self._part(
            seed,
            baseline.label,
            self._decides("federated", baseline, dealt),
            lambda: federated_run(baseline, dealt, prepared, model, conditions, seed=seed, progress=advance),
        )
        assert run is not None
        return run

    def _private(self, seed: int, baseline: Baseline, dealt: Dealt, model: Mlp, conditions: Conditions) -> Run:
        """One strategy under the clients' budget."""
        request, name = self.request, private_name(baseline)
        assert request.private is not None
        private, advance, shared = request.private, self._advance(seed, name), self._shared(seed, dealt)
        decides = self._decides("private", baseline.without_rate(), dealt) | {
            "private": _plain(vars(private)),
            "budget": _plain(vars(request.budget)),
        }
        run = self._part(
            seed,
            name,
            decides,
            lambda: private_run(shared, baseline, model, conditions, private, progress=advance),
        )
        assert run is not None
        return run

    def _decides(self, kind: str, baseline: Baseline, dealt: Dealt) -> dict[str, Any]:
        """What decides a baseline's result besides the seed."""
        return {
            "kind": kind,
            "strategy": baseline.name,
            "options": dict(baseline.options),
            "source": baseline.source,
            "rows": dealt.digest,
            "conditions": _plain(vars(self.request.conditions)),
        }

    def _part(self, seed: int, name: str, decides: dict[str, Any], make: Callable[[], Run | None]) -> Run | None:
        """A run from an earlier call, or made and kept now."""
        key = part_key(seed=seed, **decides)
        run = self.parts.find(f"{name} {seed}", key, Run)
        if run is None:
            run = make()
            if run is not None:
                self.parts.keep(f"{name} {seed}", key, run)
            self._advance(seed, name)(1, 1)  # training that halted early is done as well
        return run

    def _shared(self, seed: int, dealt: Dealt) -> Repetition:
        """What all runs of one seed share."""
        return Repetition(seed=seed, dealt=dealt, budget=self.request.budget, out=self.request.out, parts=self.parts)

    def _advance(self, seed: int, name: str) -> Callable[[int, int], None]:
        """Progress of one part; the seed is named where there are several."""
        label = name if len(self.request.seeds) == 1 else f"{name} (seed {seed})"
        return lambda done, total: self.progress(label, done, total)


def private_baselines(request: Request) -> tuple[list[Baseline], list[str]]:
    """Those that run a second time under the budget, and why the others do not."""
    able, notes = [], []
    for baseline in request.baselines if request.private is not None else ():
        try:
            require_runs(baseline)
        except ConfigError as error:
            notes.append(f"{baseline.label} has no private run: {error}")
        else:
            able.append(baseline)
    return able, notes


def _comparison(request: Request, repetitions: dict[int, Dealt], runs: list[Run], sizes: tuple[int, ...]) -> Comparison:
    """All that was found, in one value."""
    distilled = [r for r in runs if r.kind == "distilled"]
    schema = next(iter(repetitions.values())).schema
    reaches = [reach_of(b, d) for b in runs if b.kind == "federated" for d in distilled if d.seed == b.seed]
    return Comparison(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        table=schema.name,
        target=schema.require_classes("`compare`"),
        classes=tuple(str(c) for c in schema.classes),
        architecture=sizes,
        parameters=Mlp(sizes).size,
        settings={**_settings(request), "unit": schema.unit or "row"},
        deals=tuple(_deal(seed, dealt) for seed, dealt in repetitions.items()),
        runs=tuple(runs),
        reaches=tuple(reaches),
        notes=(*_notes(runs, several=len(repetitions) > 1), *private_baselines(request)[1]),
    )


def _notes(runs: list[Run], *, several: bool) -> tuple[str, ...]:
    """What runs have to say, each text once with the names of all runs that say it."""
    names: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            names.setdefault(note, []).append(run.name + (f" (seed {run.seed})" if several else ""))
    return tuple(f"{'; '.join(said)}: {note}" for note, said in names.items())


def _settings(request: Request) -> dict[str, Any]:
    """What was asked for, for the reader."""
    conditions = request.conditions
    return {
        "epsilon": request.budget.epsilon,
        "delta": request.budget.delta,
        "rehearsal": request.budget.rehearsal is not None,
        "rounds": conditions.rounds,
        "participation": conditions.participation,
        "local": _plain(vars(conditions.local)),
        "compression": str(conditions.compression),
        "tiers": [tier.name for tier in conditions.clock.tiers],
        "drop_out": [tier.drop_out for tier in conditions.clock.tiers],
        "seeds": list(request.seeds),
        "private": None if request.private is None else _plain(vars(request.private)),
    }


def _deal(seed: int, dealt: Dealt) -> Deal:
    """Who holds what."""
    clients = []
    for name, frame in dealt.clients.items():
        counts = np.bincount(class_codes(dealt.schema, frame), minlength=len(dealt.schema.classes))
        clients.append(ClientRows(client=name, rows=len(frame), shares=tuple((counts / counts.sum()).tolist())))
    return Deal(seed=seed, words=dealt.words, digest=dealt.digest, test_rows=len(dealt.test), clients=tuple(clients))


def _plain(value: Any) -> Any:
    """Settings as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
