"""What all runs of one repetition share."""

from dataclasses import dataclass
from pathlib import Path

from server_train.comparison.deal.institutions import Budget
from server_train.comparison.deal.tables import Dealt
from server_train.comparison.record.cache import Parts


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """One repetition of a comparison.

    Attributes:
        seed: Seed of the repetition; repeats its modelling, never its privacy noise.
        dealt: All rows, as they were dealt to clients.
        budget: What each client's release may cost.
        out: Folder of the comparison, with the clients' ledgers.
        parts: Finished parts of earlier calls.
    """

    seed: int
    dealt: Dealt
    budget: Budget
    out: Path
    parts: Parts
