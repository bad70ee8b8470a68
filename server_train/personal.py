"""Personalised models: one an institution, for its own customers at its own class frequencies.

An institution's part of the pool is drawn with its own weights from the components that all share (see `representation`), and
labelled by all class heads together. Its model learns from that part alone, with the labels shifted from the global class
frequencies to its own. Post-processing: no budget.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from distill.class_chances import match_prior
from server_train.pool import Pool, draw_labels
from server_train.training import Trained, TrainingSettings, train

FOLDER = "personal"
LEAST_ROWS = 500  # of the pool; fewer teach a network nothing
LONGEST_NAME = 60
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}  # on Windows
LOWEST = 1e-9


def personal_pool(pool: Pool, number: int, rng: np.random.Generator) -> Pool | None:
    """Institution `number`'s part of the pool, labelled at its own class frequencies; None: too few rows.

    Args:
        pool: Of all institutions; its schema names a target.
        number: Position among the members.
        rng: Draws the labels.
    """
    own = np.flatnonzero(pool.origin == number)
    if len(own) < LEAST_ROWS:
        return None
    prior = np.asarray(pool.members[number].class_prior)
    logs = np.log(np.maximum(pool.soft_labels[own].astype(np.float64), LOWEST))
    soft = np.exp(match_prior(logs, prior))
    frame = pool.frame.iloc[own].reset_index(drop=True)
    frame[pool.schema.target] = draw_labels(pool.schema, pool.bins, soft, rng)
    return replace(
        pool, frame=frame, soft_labels=soft.astype(np.float32), origin=pool.origin[own], prior=prior, notes=()
    )


def train_personal(
    pool: Pool, settings: TrainingSettings, progress: Callable[[int, int], None]
) -> list[tuple[Pool, Trained] | None]:
    """For each institution what its model learns from, and the training; None where its part of the pool is too small.

    Args:
        pool: Of all institutions.
        settings: As of the global model; the seed also draws the labels.
        progress: Called with (institutions done, institutions).
    """
    out: list[tuple[Pool, Trained] | None] = []
    for number, rng in enumerate(np.random.default_rng(settings.seed).spawn(len(pool.members))):
        progress(number, len(pool.members))
        part = personal_pool(pool, number, rng)
        out.append(part and (part, train(part.schema, part.frame, part.soft_labels, settings)))
    progress(len(pool.members), len(pool.members))
    return out


def folder_names(institutions: Sequence[str]) -> list[str]:
    """A file name for each institution that every system takes: letters, digits, dots and dashes, no two alike.

    Names come from bundles: nothing in them may lead out of the folder or hide there.
    """
    names: list[str] = []
    for institution in institutions:
        plain = re.sub(r"[^a-z0-9.]+", "-", institution.lower()).strip("-.")[:LONGEST_NAME].strip("-.")
        if not plain or plain.split(".")[0] in RESERVED:
            plain = f"institution-{plain}".strip("-")
        name, count = plain, 1
        while name in names:
            count += 1
            name = f"{plain}-{count}"
        names.append(name)
    return names
