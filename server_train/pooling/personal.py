"""Personalised models: one an institution, for its own customers at its own class frequencies.

An institution's part of the pool is drawn with its own weights from the components that all share (see `representation`), and
labelled by all class heads together. Its model learns from that part alone, with the labels shifted from the global class
frequencies to its own. Post-processing: no budget.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from distill.synthesis.statistics.class_odds import match_prior
from server_train.pooling.labelling.label_draw import draw_labels
from server_train.pooling.pool import Pool

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
    frame[pool.schema.target] = draw_labels(pool.schema, pool.bins, soft, frame, rng)
    return replace(
        pool, frame=frame, soft_labels=soft.astype(np.float32), origin=pool.origin[own], prior=prior, notes=()
    )


def personal_pools(pool: Pool, seed: int) -> dict[str, Pool]:
    """For each institution what its model learns from, by its name; none for one whose part of the pool is too small."""
    rngs = np.random.default_rng(seed).spawn(len(pool.members))
    parts = {
        m.institution: personal_pool(pool, i, rng) for i, (m, rng) in enumerate(zip(pool.members, rngs, strict=True))
    }
    return {name: part for name, part in parts.items() if part is not None}


def personal_notes(institutions: Sequence[str], folders: Mapping[str, str]) -> list[str]:
    """What a reader should know: which institutions have a model, where, and which have none."""
    made = ", ".join(f"{FOLDER}/{folder} ({name})" for name, folder in folders.items())
    absent = ", ".join(name for name in institutions if name not in folders)
    return ([f"Personalised models: {made}."] if made else []) + (
        [f"No personalised model, since too few of the pooled rows are theirs: {absent}."] if absent else []
    )


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
