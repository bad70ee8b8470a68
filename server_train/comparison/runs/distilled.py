"""Distillation as one run of a comparison: every client fits one bundle, the hub trains on them, the model is judged.

A bundle once made is kept and found again: an interrupted comparison never spends a client's budget twice on the same
bundle. Each client fits once, at the largest level; smaller bundles are made of that one, which costs no budget.

A client whose rows are too few to plan a release is left out of the distilled model, and the run says so.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from distill.errors import BudgetError, ConfigError
from distill.exchange.bundle import read_bundle
from distill.exchange.levels import LEVELS, Level
from distill.project import Project
from distill.releases.fit import FitRequest
from distill.releases.fit import fit as distill_table
from distill.releases.shrink import shrink_bundle
from server_train.comparison.deal.institutions import books, grant_another, institution
from server_train.comparison.deal.tables import digest_of
from server_train.comparison.record.cache import part_key, slug
from server_train.comparison.record.results import Point, Record, Run, Traffic
from server_train.comparison.runs.repetition import Repetition
from server_train.evaluation.metrics import evaluate_scores
from server_train.federated.engine.clock import Clock
from server_train.hub.job import train_global
from server_train.hub.outputs import Outputs
from server_train.hub.request import TrainingRequest
from server_train.intake.admission import Admission
from server_train.models.features import class_codes
from server_train.models.model import CARD, WEIGHTS, load_model
from server_train.training.network import TrainingSettings

LARGEST: Level = "full"
NAME = "distillation"
Progress = Callable[[int, int], None]  # steps done, steps in all
STAGES = 7  # of a fit, for its progress


class Bundle(Record):
    """One client's bundle at one level.

    Attributes:
        path: Relative to the comparison's folder, which may move.
        sha256, bytes: Of the file.
        seconds: Processor time of making it from the largest one.
    """

    path: str
    sha256: str
    bytes: int
    seconds: float = 0.0


class Fit(Record):
    """What one client's fit gave.

    Attributes:
        client: Its name.
        rows: That it holds; the release tells only a noisy count.
        epsilon: Of the release; None where the client was left out.
        seconds: Processor time of the fit on this machine, which other work there does not lengthen.
        bundles: By level; empty where the client was left out.
        left_out: Why.
    """

    client: str
    rows: int
    epsilon: float | None
    seconds: float
    bundles: dict[str, Bundle]
    left_out: str = ""

    def there(self, out: Path) -> "Fit | None":
        """With the bundles that are still there; None where the largest, of which the others are made, is not."""
        paths = {level: (out / b.path, b.bytes) for level, b in self.bundles.items()}
        kept = {level for level, (path, size) in paths.items() if path.is_file() and path.stat().st_size == size}
        if self.bundles and LARGEST not in kept:
            return None
        return self.model_copy(update={"bundles": {level: self.bundles[level] for level in kept}})


def parse_levels(words: Sequence[str]) -> tuple[Level, ...]:
    """Levels from words, each once. Raises ConfigError for a word that is none."""
    wrong = [word for word in words if word not in LEVELS]
    if wrong:
        raise ConfigError(f"no size {wrong[0]!r}. Choose {', '.join(LEVELS)}.")
    return tuple(dict.fromkeys(level for word in words for level in LEVELS if level == word))


def fit_client(repetition: Repetition, client: str, levels: Sequence[Level], *, progress: Progress) -> Fit:
    """The client's bundles, from an earlier run or made now.

    Args:
        repetition: Rows, budget, seed and places.
        client: Name of the client.
        levels: Levels of the bundles that are wanted.
        progress: Called while the fit is made.

    Raises:
        DistillError: the release failed for another reason than too few rows.
    """
    frame = repetition.dealt.clients[client]
    key = part_key(
        kind="fit",
        client=client,
        rows=digest_of(frame, repetition.dealt.schema),
        institutions=len(repetition.dealt.clients),
        seed=repetition.seed,
        **vars(repetition.budget),
    )
    name = f"fit {client}"
    found = repetition.parts.find(name, key, Fit)
    made = found.there(repetition.out) if found is not None else None
    if made is None:
        project = institution(repetition.dealt, client, repetition.out)
        request = FitRequest(
            data=project.data,
            schema=repetition.dealt.schema,
            name=client,
            dataset=project.dataset,
            out=project.folder / f"{slug(client)}-{key}.distill",
            epsilon=repetition.budget.epsilon,
            delta=repetition.budget.delta,
            purpose=f"comparison, repetition {repetition.seed}",
            level=LARGEST,
            institutions=len(repetition.dealt.clients),
            rehearsal=repetition.budget.rehearsal_of(repetition.seed, list(repetition.dealt.clients).index(client)),
            overwrite=True,
        )
        made = _release(request, project, repetition, progress)
        repetition.parts.keep(name, key, made)
        progress(1, 1)  # one that was left out is done as well
    missing = [level for level in levels if made.bundles and level not in made.bundles]
    if missing:
        made = _shrunk(made, missing, institution(repetition.dealt, client, repetition.out), repetition.out)
        repetition.parts.keep(name, key, made)
    return made


def distilled_run(
    repetition: Repetition, fits: Sequence[Fit], level: Level, *, clock: Clock, progress: Progress
) -> Run:
    """The run of one level: train at the hub, judge the model, count bytes and simulated time.

    Args:
        repetition: Rows, budget, seed and places; the seed draws the pool and trains.
        fits: Fits of all clients, in their order.
        level: Which of a fit's bundles.
        clock: Clock of simulated time.
        progress: Called during the training.

    Raises:
        BudgetError: no client could fit at all.
    """
    used = [f for f in fits if f.bundles]
    if not used:
        raise BudgetError("no client has enough rows to distil; deal to fewer clients, or raise epsilon.")
    digests = [f.bundles[level].sha256 for f in used]
    left_out = [f.client for f in fits if not f.bundles]
    key = part_key(
        kind="hub", level=level, bundles=digests, rows=repetition.dealt.digest, seed=repetition.seed, left_out=left_out
    )
    name = name_of(level)
    found = repetition.parts.find(f"{name} {repetition.seed}", key, Run)
    folder = Path("models") / f"{slug(name)}-{key}"
    if found is None or not (repetition.out / folder / CARD).is_file():
        found = _trained(repetition, used, level, folder, progress=progress)
        repetition.parts.keep(f"{name} {repetition.seed}", key, found)
    return _timed(found, fits, level, clock)


def name_of(level: Level) -> str:
    """As tables and figures show a level's run."""
    return NAME if level == "default" else f"{NAME}, {level}"


def _release(request: FitRequest, project: Project, repetition: Repetition, progress: Progress) -> Fit:
    """One release; too few rows for a plan is a result, not an error."""
    ledger, key = grant_another(project, repetition.budget, "comparison: distillation")
    stages: dict[str, float] = {}

    def advance(stage: str, done: int, total: int) -> None:
        stages[stage] = done / max(1, total)
        progress(round(100 * sum(stages.values())), 100 * STAGES)

    receipt, left_out, began = None, "", time.thread_time()
    try:
        receipt = distill_table(request, ledger, key, progress=advance)
    except BudgetError as error:
        left_out = str(error)
    return Fit(
        client=request.name,
        rows=len(repetition.dealt.clients[request.name]),
        epsilon=receipt.epsilon if receipt else None,
        seconds=time.thread_time() - began,
        bundles={LARGEST: _bundle(receipt.bundle, repetition.out, receipt.digest)} if receipt else {},
        left_out=left_out,
    )


def _shrunk(fit: Fit, levels: Sequence[Level], project: Project, out: Path) -> Fit:
    """The fit with smaller bundles of the same release beside the largest one."""
    ledger, key = books(project)
    largest = out / fit.bundles[LARGEST].path
    bundles = dict(fit.bundles)
    for level in levels:
        began = time.thread_time()
        path = largest.with_suffix(f".{level}.distill")
        digest = shrink_bundle(read_bundle(largest), level, path, ledger=ledger, key=key, overwrite=True)
        bundles[level] = _bundle(path, out, digest, time.thread_time() - began)
    return fit.model_copy(update={"bundles": bundles})


def _bundle(path: Path, out: Path, digest: str, seconds: float = 0.0) -> Bundle:
    return Bundle(path=str(path.relative_to(out)), sha256=digest, bytes=path.stat().st_size, seconds=seconds)


def _trained(repetition: Repetition, used: Sequence[Fit], level: Level, folder: Path, *, progress: Progress) -> Run:
    """Train at the hub and judge; the point's `seconds` is still the hub's own."""
    dealt, budget, out = repetition.dealt, repetition.budget, repetition.out
    began, began_here = time.thread_time(), time.perf_counter()
    done = {"verify": 0.0, "pool": 0.0, "train": 0.0}

    def advance(stage: str, steps: int, total: int) -> None:
        done[stage] = steps / max(1, total)
        progress(round(100 * sum(done.values())), 300)

    request = TrainingRequest(
        bundles=tuple(out / f.bundles[level].path for f in used),
        settings=TrainingSettings(seed=repetition.seed),
        admission=Admission(
            allow_unknown_signers=True,  # they were all made here
            allow_rehearsal=budget.rehearsal is not None,
        ),
    )
    train_global(request, Outputs(folder=out / folder), progress=advance)
    seconds = time.thread_time() - began
    model = load_model(out / folder)
    judged = evaluate_scores(class_codes(dealt.schema, dealt.test), model.predict(dealt.test), dealt.schema.classes)
    model_bytes = sum((out / folder / file).stat().st_size for file in (WEIGHTS, CARD))
    traffic = [Traffic(client=f.client, rows=f.rows, up=f.bundles[level].bytes, down=0) for f in used]
    point = Point(
        round=1,
        seconds=seconds,
        up=sum(t.up for t in traffic),
        down=0,
        participants=len(used),
        roc_auc=judged.roc_auc or 0.0,
        accuracy=judged.accuracy,
        log_loss=judged.log_loss,
    )
    return Run(
        kind="distilled",
        name=name_of(level),
        seed=repetition.seed,
        epsilon=max(f.epsilon or 0.0 for f in used),
        delta=budget.delta,
        rehearsal=budget.rehearsal is not None,
        points=(point,),
        traffic=tuple(traffic),
        seconds=time.perf_counter() - began_here,
        settings={"level": level, "epsilon asked": budget.epsilon, "model": str(folder), "model bytes": model_bytes},
    )


def _timed(run: Run, fits: Sequence[Fit], level: Level, clock: Clock) -> Run:
    """The run with simulated time: the slowest client's fit and upload, then the hub's training."""
    sent: Mapping[str, Traffic] = {t.client: t for t in run.traffic}
    ready = [
        (f.seconds + f.bundles[level].seconds) / clock.tier(i).speed + clock.upload_seconds(i, sent[f.client].up)
        for i, f in enumerate(fits)
        if f.client in sent
    ]
    point = run.final.model_copy(update={"seconds": max(ready) + run.final.seconds})
    notes = tuple(f"{f.client} was left out: {f.left_out}" for f in fits if f.left_out)
    return run.model_copy(update={"points": (point,), "notes": notes})
