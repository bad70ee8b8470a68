"""Pools on disk for tests: drawn from two stand-ins for institutions, with the card that the hub would give them."""

from pathlib import Path

import numpy as np

from distill.data.schema import Schema
from distill.exchange.prior import Cost
from server_train.models.cards import InstitutionCard, Readings
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.pool import Drawer
from server_train.pooling.pool_file import PoolCard, StoredPool
from server_train.pooling.streaming import draw_pool_file
from tests.fakes.hubs import TableGenerator, skewed, table

NO_COST = Readings(disjoint=Cost(epsilon=0.0, delta=0.0), overlapping=Cost(epsilon=0.0, delta=0.0))


def banks(schema: Schema, rows: int = 6000) -> list[Institution]:
    """One institution like all, one with few of the later classes."""
    parts = [table(rows, schema, 1), skewed(table(rows, schema, 2), schema, 0.3)]
    return [
        Institution(name=name, generator=TableGenerator(schema, part))
        for name, part in zip(("Alder", "Birch"), parts, strict=True)
    ]


def card_of(drawer: Drawer) -> PoolCard:
    """What the hub would say of a pool, with made-up institutions."""
    return PoolCard(
        schema=drawer.schema,
        rows=int(drawer.counts.sum()),
        class_prior=tuple(drawer.prior.tolist()),
        notes=drawer.notes,
        institutions=[
            InstitutionCard(
                institution=member.institution,
                file=f"{member.institution}.distill",
                bytes=12_345,
                sha256="a" * 64,
                public_key="b" * 64,
                dataset="c" * 32,
                ledger_head="d" * 64,
                created="2026-01-01T00:00:00+00:00",
                software="distill 0.1.0",
                rehearsal=False,
                epsilon=2.0,
                delta=1e-5,
                unit="row",
                relation="add or remove one unit",
                noisy_rows=member.noisy_rows,
                class_prior=list(member.class_prior),
                label_balance=member.label_balance,
                head_information=member.head_information,
                row_share=member.row_share,
                head_share=member.head_share,
                pooled_rows=int(count),
            )
            for member, count in zip(drawer.members, drawer.counts, strict=True)
        ],
        privacy=Readings(
            disjoint=Cost(epsilon=2.0, delta=1e-5),
            overlapping=Cost(epsilon=4.0, delta=2e-5),
            units=["row"],
            relations=["add or remove one unit"],
        ),
    )


def stored_pool(path: Path, schema: Schema, rows: int, seed: int = 0) -> StoredPool:
    """A pool of two institutions at `path`."""
    return draw_pool_file(path, schema, banks(schema), rows=rows, rng=np.random.default_rng(seed), card=card_of)
