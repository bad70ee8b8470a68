"""The grid of comparisons: a setting is a table dealt in one way to a number of clients, an outcome what came of it.

Every setting has a folder of its own, in which `outcome.json` says that it is finished. A setting that cannot be run is an
outcome too: it has no comparison but the reason, and tables and figures show it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distill.common import files
from server_train.comparison.record.results import Comparison
from server_train.comparison.record.summary import Line, ReachLine, lines, reach_lines
from server_train.comparison.report.outputs import JSON

OUTCOME = "outcome.json"
DISTILLED = ("distillation", "distillation, compact")


@dataclass(frozen=True, order=True)
class Setting:
    """One place in the grid.

    Attributes:
        table: Name of the table.
        clients: That it is dealt to.
        split: How, as `distill compare --partition` takes it.
    """

    table: str
    clients: int
    split: str

    @property
    def folder(self) -> Path:
        """Where it lies in the grid's folder."""
        return Path(self.table) / f"{self.clients}-clients-{self.split.replace(':', '-')}"

    @property
    def words(self) -> str:
        """For a line of progress or a heading."""
        return f"{self.table}, {self.clients} clients, {split_words(self.split)}"


@dataclass(frozen=True)
class Outcome:
    """What came of a setting: a comparison, or the reason why there is none."""

    setting: Setting
    comparison: Comparison | None
    refused: str = ""

    @property
    def lines(self) -> list[Line]:
        """Every way to a model, means over repetitions; none where the setting was refused."""
        return lines(self.comparison) if self.comparison else []

    @property
    def reaches(self) -> dict[tuple[str, str], ReachLine]:
        """When a baseline first has a distilled model's AUC, by the names of both."""
        return {(r.baseline, r.distilled): r for r in reach_lines(self.comparison)} if self.comparison else {}

    @property
    def commonest(self) -> float:
        """Accuracy of always naming the commonest class.

        Test rows are drawn class by class in proportion, so their classes follow from the clients' to within a row.
        """
        assert self.comparison is not None
        deal = self.comparison.deals[0]
        share = deal.test_rows / sum(c.rows for c in deal.clients)
        counts = [
            round(share * sum(c.rows * c.shares[k] for c in deal.clients)) for k in range(len(self.comparison.classes))
        ]
        return max(counts) / sum(counts)

    def of_seed(self, seed: int) -> "Outcome":
        """The same with one repetition alone."""
        assert self.comparison is not None
        kept = {
            name: tuple(part for part in getattr(self.comparison, name) if part.seed == seed)
            for name in ("deals", "runs", "reaches")
        }
        return Outcome(self.setting, self.comparison.model_copy(update=kept))

    @property
    def seeds(self) -> list[int]:
        """Of the repetitions."""
        return [deal.seed for deal in self.comparison.deals] if self.comparison else []


def split_words(split: str) -> str:
    """`iid` -> IID, `dirichlet:0.5` -> Dirichlet 0.5."""
    return "IID" if split == "iid" else split.replace(":", " ").capitalize()


def keep(outcome: Outcome, out: Path) -> None:
    """Mark a setting as finished; its comparison is in its folder already."""
    folder = out / outcome.setting.folder
    folder.mkdir(parents=True, exist_ok=True)
    content = {**asdict(outcome.setting), "refused": outcome.refused}
    files.write_whole(folder / OUTCOME, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


def read(out: Path) -> list[Outcome]:
    """All finished settings of a grid's folder: by table, number of clients, and split from even to uneven."""
    return sorted(_found(out), key=lambda outcome: place(outcome.setting))


def place(setting: Setting) -> tuple[str, int, bool, float, str]:
    """Where a setting stands among others."""
    kind, _, strength = setting.split.partition(":")
    return (setting.table, setting.clients, kind != "iid", -float(strength or "inf"), setting.split)


def tables_of(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by table, in their order."""
    names = dict.fromkeys(o.setting.table for o in outcomes)
    return {name: [o for o in outcomes if o.setting.table == name] for name in names}


def _found(out: Path) -> Iterator[Outcome]:
    for path in out.glob(f"*/*/{OUTCOME}"):
        content = json.loads(path.read_bytes())
        refused = content.pop("refused")
        comparison = None if refused else Comparison.model_validate_json(path.with_name(JSON).read_bytes())
        yield Outcome(Setting(**content), comparison, refused)
