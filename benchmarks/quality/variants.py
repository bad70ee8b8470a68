"""(not a benchmark) The pipeline with one stage switched off: what each variant plans, and which functions it replaces.

A switched-off stage spends nothing: its events leave the plan, and one noise scale is solved anew, so that the others share its
budget in proportion. Everything else stays, the number of bins included. Code is switched off by replacing functions of the
packages while a variant runs, so nothing in them knows of it; a function that is gone or renamed stops the benchmark.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from distill.data.bins import ColumnBins
from distill.data.schema import Schema
from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Layer
from distill.synthesis import pipeline
from distill.synthesis.generator import generator
from distill.synthesis.generator.draws import draw_by_weight
from distill.synthesis.generator.generator import Generator
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.planning import plan as planning
from distill.synthesis.planning.plan import Plan, make_plan
from distill.synthesis.stages import cluster, discriminate, refine, represent, select
from distill.synthesis.statistics.counts import ClassCounts
from distill.synthesis.weights import set_gradients

Seam = tuple[Any, str, Any]  # owner, name, what stands there instead


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A pipeline without one of its stages.

    Attributes:
        name: On the command line and in results.
        what: What it does instead, for the reader of the results.
        without: First letters of the events that it does not plan.
        head_portion: Of the discriminator's squared clip norm for the class head; None: as planned.
        seams: What it replaces while it runs.
    """

    name: str
    what: str
    without: tuple[str, ...] = ()
    head_portion: float | None = None
    seams: tuple[Seam, ...] = ()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside the block the stage is off, for fitting and for drawing; nothing else should run meanwhile."""
        with ExitStack() as undo:
            for owner, name, instead in self.seams:
                undo.enter_context(patch.object(owner, name, instead))
            yield

    def plan(self, schema: Schema, noisy_size: int, *, epsilon: float, delta: float) -> Plan:
        """The plan of this variant: at or just under the same grant, without what is switched off."""
        whole = _plan_without(schema, noisy_size, (), epsilon, delta)
        plan = _plan_without(schema, noisy_size, self.without, epsilon, delta)
        return replace(
            plan,
            bins=whole.bins,
            pairs=plan.pairs if plan.has("relate.pairs") else 0,
            head_portion=plan.head_portion if self.head_portion is None else self.head_portion,
        )


@functools.lru_cache(maxsize=32)
def _plan_without(schema: Schema, noisy_size: int, without: tuple[str, ...], epsilon: float, delta: float) -> Plan:
    """`make_plan`, whose scale is solved for the events that are left."""
    every = planning._later_events

    def left(*arguments: Any, **named: Any) -> list[Any]:
        return [event for event in every(*arguments, **named) if not event.name.startswith(without)]

    with patch.object(planning, "_later_events", left):
        return make_plan(schema, noisy_size, epsilon=epsilon, delta=delta)


class NoAutoencoder:
    """Stands where the autoencoder does and knows nothing; what comes of it must not be looked at."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def decode(self, latents: Tensor) -> Tensor:
        """Logits of even chances, (n, width)."""
        return torch.zeros(len(latents), self.layout.width)

    def encoder(self) -> tuple[Layer, ...]:
        """No layers."""
        return ()

    def latent_mean(self, codes: Tensor) -> Tensor:
        """The origin for every row, (n, latent)."""
        return torch.zeros(len(codes), represent.LATENT)


def no_autoencoder(table: PrivateTable, plan: Plan, layout: Layout, *rest: Any) -> NoAutoencoder:
    """For `distillation._represent`."""
    return NoAutoencoder(layout)


def one_cluster(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For `cluster.find_clusters`: all samples in one cluster, none in a dense core."""
    none = torch.zeros(len(latents))
    return latents[:1], none.long(), none.bool()


def uncounted(table: PrivateTable, plan: Plan, centres: Sequence[Any], *rest: Any) -> np.ndarray:
    """For `cluster.count_clusters`: even shares, no row read."""
    return np.full(len(centres), 1 / len(centres))


def from_classes(
    layout: Layout,
    counts: ClassCounts,
    decoded: Tensor,
    members: Tensor,
    dense: Tensor,
    shares: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """For `refine.start_from_clusters`: the class histograms instead of what was decoded."""
    return refine.start_from_classes(layout, counts, n, rng)


class HeadAlone(discriminate.Discriminator):
    """The class head with the whole clip norm; the critic stays as it was initialised, and nobody listens to it."""

    def step(self, table: PrivateTable, plan: Plan, fake: Tensor, *, rows: float) -> None:
        """One DP-SGD step of the class head."""
        event = plan.event(discriminate.EVENT)
        (noisy,) = table.noisy_gradient(event.name, [self.head_gradient(1.0)])
        set_gradients([self.head], noisy / (rows * event.sampling_rate))
        self._head_optimizer.step()
        self._average(table.reads[event.name] > event.count // 2)


def no_critic(*parameters: Any) -> None:
    """For `distillation.critic_of`: selection goes by raking and pairs alone."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OwnClasses(Generator):
    """Rows keep the class of the soft record that they were drawn from.

    Attributes:
        classes: Of each soft record, (K,).
    """

    classes: np.ndarray

    def draw_codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` selected rows as coarse codes, (n, features + 1), the class last."""
        if n < generator.LEAST_BATCH:
            return self.draw_codes(generator.LEAST_BATCH, rng)[:n]
        parts = np.array_split(np.arange(n), -(-n // generator.MOST_TOGETHER))
        return np.concatenate([self._selected(len(part), rng) for part in parts])

    def _candidates(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` raw rows with their records' classes."""
        chosen = draw_by_weight(torch.from_numpy(self.weights), n, rng)
        codes = self.layout.draw(torch.from_numpy(self.logits.astype(np.float32))[chosen], rng).numpy()
        return np.concatenate([codes, self.classes[chosen.numpy()][:, None]], axis=1)


_gather = pipeline._generator


def with_own_classes(
    table: PrivateTable,
    bins: list[ColumnBins],
    counts: ClassCounts,
    candidates: refine.Candidates,
    critic: discriminate.Discriminator,
) -> OwnClasses:
    """For `distillation._generator`."""
    made = _gather(table, bins, counts, candidates, critic)
    known = {f.name: getattr(made, f.name) for f in fields(Generator) if f.init}
    return OwnClasses(**known, classes=candidates.classes.numpy(force=True))


def unraked(codes: np.ndarray, weight: np.ndarray, shares: Sequence[np.ndarray]) -> np.ndarray:
    """For `raking.rake_rows`: weights as they are, mean 1."""
    return np.asarray(weight / weight.mean())


def first_rows(codes: Tensor, layout: Layout, target: Tensor, n: int) -> np.ndarray:
    """For `generator.choose_rows`: the first `n` of a pool that is in random order."""
    return np.arange(n)


NO_CLUSTERS: tuple[Seam, ...] = (
    (cluster, "find_clusters", one_cluster),
    (cluster, "count_clusters", uncounted),
)
NO_REJECTION: Seam = (select, "STRENGTHS", (0.0,))
NO_RAKING: Seam = (generator, "rake_rows", unraked)
NO_CHOICE: Seam = (generator, "choose_rows", first_rows)

WHOLE = Variant(name="whole", what="every stage, as `distill fit` runs them")
VARIANTS = {
    v.name: v
    for v in (
        WHOLE,
        Variant(
            name="no_pairs",
            what="no pair is counted: candidates aim at the class counts alone",
            without=("relate.",),
        ),
        Variant(
            name="no_vae",
            what="candidates start from the class histograms; without latents there is no clustering either",
            without=(represent.EVENT, cluster.EVENT),
            seams=(
                (pipeline, "_represent", no_autoencoder),
                *NO_CLUSTERS,
                (refine, "start_from_clusters", from_classes),
            ),
        ),
        Variant(
            name="no_clusters",
            what="candidates start from decoded samples of the prior, with no cluster found or counted",
            without=(cluster.EVENT,),
            seams=NO_CLUSTERS,
        ),
        Variant(
            name="no_critic",
            what="no real/fake head: no adversarial term, no rejection; the class head has the whole clip norm",
            head_portion=1.0,
            seams=(
                (discriminate, "Discriminator", HeadAlone),
                (pipeline, "ADVERSARIAL_STRENGTH", 0.0),
                (pipeline, "critic_of", no_critic),
            ),
        ),
        Variant(
            name="no_head",
            what="no class head: rows keep their soft record's class, the critic has the whole clip norm; "
            "head AUC is that of naive Bayes on the class counts, from which the head would start",
            head_portion=0.0,
            seams=((pipeline, "_generator", with_own_classes),),
        ),
        Variant(name="no_rejection", what="the critic has no say in which rows are kept", seams=(NO_REJECTION,)),
        Variant(name="no_raking", what="kept rows are not weighed to the released one-way shares", seams=(NO_RAKING,)),
        Variant(name="no_choosing", what="rows are not chosen to agree on pairs", seams=(NO_CHOICE,)),
        Variant(
            name="no_selection",
            what="no rejection, no raking, no choosing by pairs, which make up for each other: rows as they are drawn",
            seams=(NO_REJECTION, NO_RAKING, NO_CHOICE),
        ),
    )
}
