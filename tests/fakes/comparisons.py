"""Small tables and made-up runs for the tests of the comparison."""

from pathlib import Path

import numpy as np
import pandas as pd

from distill.data.demo import BANKS, bank_table, demo_schema
from distill.data.tables import canonical_table, write_table
from server_train.comparison.deal.tables import Dealt, Source, deal, read_tables
from server_train.comparison.record.results import ClientRows, Comparison, Deal, Point, Run, Traffic, reach_of

SCHEMA = demo_schema()


def rows(count: int, seed: int = 0, bank: int = 0) -> pd.DataFrame:
    """Public rows of one of the demo's banks."""
    return bank_table(BANKS[bank], rows=count, rng=np.random.default_rng(seed))


def canonical(count: int, seed: int = 0, bank: int = 0) -> pd.DataFrame:
    return canonical_table(rows(count, seed, bank), SCHEMA)


def write_schema(folder: Path) -> Path:
    path = folder / "schema.json"
    path.write_text(SCHEMA.model_dump_json(exclude_none=True), encoding="utf-8")
    return path


def table_source(folder: Path, count: int = 600, **changes: object) -> Source:
    """One table, to be dealt."""
    write_table(rows(count), folder / "table.parquet")
    return Source(place=folder / "table.parquet", schema=write_schema(folder), **changes)


def folder_source(folder: Path, counts: dict[str, int], **changes: object) -> Source:
    """A folder with one table a client."""
    (folder / "clients").mkdir()
    for i, (name, count) in enumerate(counts.items()):
        write_table(rows(count, seed=i, bank=i % 3), folder / "clients" / f"{name}.csv")
    return Source(place=folder / "clients", schema=write_schema(folder), **changes)


def dealt(folder: Path, **changes: object) -> Dealt:
    return deal(read_tables(table_source(folder, **changes)), 0)


def run(kind: str, name: str, aucs: list[float], *, seed: int = 0, sent: int = 1000, first: int = 0) -> Run:
    """A run of two clients that each send and get `sent` bytes a round."""
    points = tuple(
        Point(
            round=number,
            seconds=float(number),
            up=2 * sent * number,
            down=2 * sent * number,
            roc_auc=auc,
            accuracy=auc,
            log_loss=1 - auc,
        )
        for number, auc in enumerate(aucs, start=first)
    )
    last = sent * points[-1].round
    traffic = tuple(Traffic(client=c, rows=10, up=last, down=last) for c in "ab")
    return Run(
        kind=kind,
        name=name,
        seed=seed,
        points=points,
        traffic=traffic if kind in ("distilled", "federated") else (),
        seconds=1.0,
        epsilon=2.0 if kind == "distilled" else None,
        delta=1e-5 if kind == "distilled" else None,
    )


def comparison(runs: list[Run]) -> Comparison:
    """A comparison of made-up runs."""
    distilled = [r for r in runs if r.kind == "distilled"]
    seeds = sorted({r.seed for r in runs})
    people = (ClientRows(client="a", rows=10, shares=(0.5, 0.5)), ClientRows(client="b", rows=10, shares=(1.0, 0.0)))
    return Comparison(
        created="2025-01-01T00:00:00+00:00",
        versions={"distill": "0"},
        table="loans",
        target="default",
        classes=("0", "1"),
        architecture=(5, 4, 2),
        parameters=34,
        settings={
            "epsilon": 2.0,
            "delta": 1e-5,
            "rounds": 3,
            "participation": 1.0,
            "local": {"epochs": 1, "batch_size": 64, "learning_rate": 0.1},
            "compression": "none",
            "tiers": ["high"],
            "unit": "row",
            "private": None,
        },
        deals=tuple(Deal(seed=s, words="iid", digest="0" * 64, test_rows=20, clients=people) for s in seeds),
        runs=tuple(runs),
        reaches=tuple(reach_of(b, d) for b in runs if b.kind == "federated" for d in distilled if d.seed == b.seed),
        notes=("one client <was> left out",),
    )
