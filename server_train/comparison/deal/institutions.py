"""The clients as institutions: each with a project, a key and a ledger of its own under the comparison's folder.

The ledger tells everything that a comparison spends on a client's rows: each release is granted by itself, one that was
cut short stays spent, and runs that are compared add up there although only one of them would be made in earnest.
"""

from dataclasses import dataclass
from pathlib import Path

from distill.common.keys import SigningKey, load_signing_key
from distill.data.tables import to_public, write_table
from distill.ledger import Ledger
from distill.project import PROJECT_FILE, Project
from server_train.comparison.deal.tables import Dealt

FOLDER = "institutions"
SEEDS_APART = 1000  # between the rehearsals of two repetitions


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What each client's release may cost.

    Attributes:
        epsilon, delta: Of one release.
        rehearsal: Seed of repeatable noise that is NOT PRIVATE, for tests; None for a real release.
    """

    epsilon: float
    delta: float
    rehearsal: int | None = None

    def rehearsal_of(self, seed: int, client: int) -> int | None:
        """Seed of one client's rehearsal in one repetition; None for a real release."""
        return None if self.rehearsal is None else self.rehearsal + SEEDS_APART * seed + client


def institution(dealt: Dealt, client: str, out: Path) -> Project:
    """The client's project; its table is written once and holds the rows dealt to it.

    Raises:
        ConfigError: the client's name cannot be an institution's.
    """
    folder, schema, frame = out / FOLDER / dealt.digest[:8] / client, dealt.schema, dealt.clients[client]
    if (folder / PROJECT_FILE).exists():
        return Project.open(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = to_public(frame, schema)
    if schema.unit is not None:
        table[schema.unit] = frame[schema.unit]
    write_table(table, folder / "table.parquet")
    (folder / "schema.json").write_text(schema.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
    return Project.create(folder, data=folder / "table.parquet", schema=folder / "schema.json", name=client)


def books(project: Project) -> tuple[Ledger, SigningKey]:
    """An institution's ledger, and its operator's key."""
    return project.ledger(), load_signing_key(project.key)


def grant_another(project: Project, budget: Budget, reason: str) -> tuple[Ledger, SigningKey]:
    """Raise the grant by one release above what is spent; the ledger and its key."""
    ledger, key = books(project)
    officer = load_signing_key(project.officer)
    spent = ledger.summary()
    ledger.grant(
        epsilon=spent.spent_epsilon + budget.epsilon,
        delta=spent.spent_delta + budget.delta,
        reason=reason,
        actor="comparison",
        key=officer,
    )
    return ledger, key
