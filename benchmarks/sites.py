"""(not a benchmark) Institutions that share a public table, and their rehearsal fits, which a folder keeps for the next run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from distill.bundle import Bundle, read_bundle
from distill.schema import Schema
from distill.tables import canonical_table
from server_train.comparison.data import Dealt, digest_of
from server_train.comparison.distilled import fit_client
from server_train.comparison.institutions import Budget
from server_train.comparison.parts import Parts

FIRST_REHEARSAL = 7  # noise is repeatable, so that what two runs of the hub make of one fit can be compared


@dataclass(frozen=True)
class Split:
    """How a table is dealt to institutions.

    Attributes:
        name: As results show it.
        clients: How many institutions.
        alpha: Dirichlet concentration of the labels; None: at random.
        by: Column by whose values the rows are dealt instead.
    """

    name: str
    clients: int = 5
    alpha: float | None = None
    by: str | None = None

    def deal(self, train: pd.DataFrame, target: str, seed: int, yardstick: Any) -> list[pd.DataFrame]:
        """The rows of each institution."""
        if self.by:
            return list(yardstick.clients_by(train, self.by, self.clients))
        return list(yardstick.clients(train, target, self.clients, self.alpha, seed))


def fit_sites(
    schema: Mapping[str, Any], parts: list[pd.DataFrame], test: pd.DataFrame, folder: Path, *, seed: int, epsilon: float
) -> list[Bundle]:
    """Rehearsal bundles of all institutions, made now or found in `folder`; one with too few rows for a plan is left out."""
    parsed = Schema.model_validate_json(json.dumps(schema))
    clients = {f"site {i}": canonical_table(part, parsed) for i, part in enumerate(parts)}
    digest = digest_of(pd.concat(clients.values(), ignore_index=True), parsed)
    dealt = Dealt(parsed, clients, test, "as the benchmark deals", None, digest)
    budget = Budget(epsilon=epsilon, delta=1e-5, rehearsal=FIRST_REHEARSAL)
    fits = [
        fit_client(
            dealt,
            client,
            folder,
            Parts(folder / "parts"),
            levels=("full",),
            seed=seed,
            budget=budget,
            progress=lambda done, total: None,
        )
        for client in clients
    ]
    return [read_bundle(folder / f.bundles["full"].path) for f in fits if f.bundles]
