"""The order of the stages: from a private table and a plan to a generator. The only module that knows all stages."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from distill.common.compute import single_thread
from distill.data.bins import ColumnBins
from distill.privacy.private_table import PrivateTable
from distill.synthesis.effort import Effort
from distill.synthesis.generator.draws import draw_normal, streams
from distill.synthesis.generator.generator import Generator, critic_of
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.generator.prior_guidance import GlobalTerm, global_term
from distill.synthesis.planning.plan import Plan
from distill.synthesis.stages import cluster, discriminate, encode, refine, relate, represent, select
from distill.synthesis.statistics.counts import ClassCounts, PairCounts

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all

REFINE_EVERY = 2  # discriminator steps a candidate step
ADVERSARIAL_STRENGTH = 1.0


@dataclass(frozen=True)
class Distilled:
    """What the stages leave behind; all of it released or post-processed."""

    generator: Generator
    counts: ClassCounts
    pairs: PairCounts
    cluster_shares: np.ndarray


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def distil(
    table: PrivateTable,
    plan: Plan,
    rng: np.random.Generator,
    progress: Progress = silent,
    prior: Generator | None = None,
    effort: Effort = Effort(),
) -> Distilled:
    """Run stages 1 to 6 on a private table, within a reserved plan, on torch's default device (see `distill.common.compute`).

    Args:
        table: The door to the rows; its reservation must hold the plan's events.
        plan: What to read and with how much noise.
        rng: Modelling randomness only (initial values, samples); privacy noise belongs to the table.
        progress: Called with stage, done, total.
        prior: The hub's joint model of an earlier cycle, if there is one; public, and read before the rows.
        effort: How hard the optimisers work.
    """
    with single_thread():
        return _stages(table, plan, rng, progress, prior, effort)


def _stages(
    table: PrivateTable,
    plan: Plan,
    rng: np.random.Generator,
    progress: Progress,
    prior: Generator | None,
    effort: Effort,
) -> Distilled:
    """Stages 1 to 6, in their order."""
    draws = streams(rng, ("relate", "represent", "cluster", "refine", "select"))
    progress("encode", 0, 2)
    bins = encode.find_bins(table, plan)
    *features, target = _class_last(table)
    table.recode([b.coarse for b in bins], target=target)
    progress("encode", 1, 2)
    term = None if prior is None else global_term(prior, bins, draws["relate"])
    counts = encode.count_classes(table, plan, bins, target, term)
    progress("encode", 2, 2)
    pairs = relate.count_pairs(table, plan, bins, features, counts, term)
    progress("relate", 1, 1)
    layout = Layout(tuple(bins[i].n_bins for i in features), len(counts.classes))
    autoencoder = _represent(table, plan, layout, counts, pairs, draws["represent"], progress, effort)
    candidates, shares = _cluster(table, plan, layout, counts, autoencoder, draws["cluster"], progress, effort)
    candidates.aim_at(counts, pairs)
    critic = _refine(table, plan, layout, counts, candidates, term, draws["refine"], progress, effort)
    drawn = _generator(table, bins, counts, candidates, critic)
    progress("select", 0, 1)
    calibrated = select.calibrate(drawn, counts, pairs, draws["select"], effort.trial_rows)
    progress("select", 1, 1)
    return Distilled(calibrated, counts, pairs, shares)


def _class_last(table: PrivateTable) -> list[int]:
    """Column positions in the order of a one-hot row: features, then the class (without a target one past the columns)."""
    columns, place = len(table.schema.columns), table.schema.target_place
    target = columns if place is None else place
    return [i for i in range(columns) if i != target] + [target]


def _represent(
    table: PrivateTable,
    plan: Plan,
    layout: Layout,
    counts: ClassCounts,
    pairs: PairCounts,
    rng: np.random.Generator,
    progress: Progress,
    effort: Effort,
) -> represent.Autoencoder:
    """Stage 3: an autoencoder warmed up on samples that fit the statistics, then trained on the rows by DP-SGD."""
    first = refine.Candidates(
        layout, *refine.start_from_classes(layout, counts, effort.first_candidates, rng), learning_rate=0.05
    )
    first.aim_at(counts, pairs)
    steps = plan.event(represent.EVENT).count
    for i in range(effort.first_steps):
        first.step()
        if i % 20 == 0:
            progress("represent", i, effort.first_steps + steps)
    autoencoder = represent.Autoencoder(layout, rng)
    autoencoder.warm_up(first.draw(10_000, rng), steps=effort.warm_up_steps)
    for i in range(steps):
        autoencoder.step(table, plan, rows=counts.total)
        progress("represent", effort.first_steps + i + 1, effort.first_steps + steps)
    return autoencoder


def _cluster(
    table: PrivateTable,
    plan: Plan,
    layout: Layout,
    counts: ClassCounts,
    autoencoder: represent.Autoencoder,
    rng: np.random.Generator,
    progress: Progress,
    effort: Effort,
) -> tuple[refine.Candidates, np.ndarray]:
    """Stage 4: cluster private samples, weigh the clusters by a noisy histogram, and start candidates from dense cores."""
    logits = autoencoder.decode(draw_normal((effort.private_samples, represent.LATENT), rng))
    latents = autoencoder.latent_mean(layout.draw(logits, rng))
    centres, members, dense = cluster.find_clusters(latents)
    progress("cluster", 1, 2)
    shares = cluster.count_clusters(table, plan, centres, autoencoder.encoder(), layout, _class_last(table))
    progress("cluster", 2, 2)
    start = refine.start_from_clusters(
        layout, counts, autoencoder.decode(latents), members, dense, shares, plan.candidates, rng
    )
    return refine.Candidates(layout, *start, learning_rate=0.05), shares


def _refine(
    table: PrivateTable,
    plan: Plan,
    layout: Layout,
    counts: ClassCounts,
    candidates: refine.Candidates,
    term: GlobalTerm | None,
    rng: np.random.Generator,
    progress: Progress,
    effort: Effort,
) -> discriminate.Discriminator:
    """Stage 5: discriminator and candidates take turns; then the candidates settle on the statistics."""
    for _ in range(effort.settle_before):
        candidates.step()
    start = None if term is None else _head_start(counts, term, candidates.draw(effort.head_trial_rows, rng))
    critic = discriminate.Discriminator(layout, counts, plan, rng, start)
    steps = plan.event(discriminate.EVENT).count
    for i in range(steps):
        critic.step(table, plan, candidates.draw(effort.adversarial_rows, rng), rows=counts.total)
        if i % REFINE_EVERY == 1:
            rows = candidates.straight_through(effort.adversarial_rows, rng)
            fooled = torch.nn.functional.softplus(-critic.score(rows)).mean()
            candidates.step(fooled, ADVERSARIAL_STRENGTH)
        progress("refine", i + 1, steps)
    candidates.slow_down()
    for _ in range(effort.settle_after):
        candidates.step()
    return critic


def _head_start(counts: ClassCounts, term: GlobalTerm, rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where the class head starts: between its own start and the hub's head, nearer to the one that misses class counts less.

    `rows` (codes) stand for the table. The own start was made from those very counts and has followed their noise, by about its
    variance a cell, which is added to what it misses (the idea of Mallows' Cp, 1973).
    """
    own_weight, own_bias = (part.numpy(force=True) for part in discriminate.head_start(counts))
    weight, bias = term.head(counts.prior)
    codes = rows.numpy(force=True)
    own_missed = 1 + discriminate.missed_counts((own_weight, own_bias), codes, counts)
    portion = own_missed / (own_missed + discriminate.missed_counts((weight, bias), codes, counts))
    return portion * weight + (1 - portion) * own_weight, portion * bias + (1 - portion) * own_bias


def _generator(
    table: PrivateTable,
    bins: list[ColumnBins],
    counts: ClassCounts,
    candidates: refine.Candidates,
    critic: discriminate.Discriminator,
) -> Generator:
    """Gather what was learnt into one drawable object."""
    columns = len(critic.layout.widths)
    return Generator(
        schema=table.schema,
        bins=tuple(bins),
        logits=candidates.logits.numpy(force=True),
        weights=candidates.weights.numpy(force=True),
        head=critic.averaged_head(),
        critic=critic_of(
            critic.hidden.weight.detach().cpu(),
            critic.hidden.bias.detach().cpu(),
            critic.out.weight.detach().cpu(),
            critic.out.bias.detach().cpu(),
            columns,
        ),
        shares=tuple(counts.shares),
        class_prior=counts.prior,
        noisy_rows=round(counts.total),
        count_noise=counts.stddev,
    )
