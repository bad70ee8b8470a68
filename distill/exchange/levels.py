"""How much of a release travels: three sizes of one bundle.

What a hub learns a model from, class histograms and class head, is in all of them. Measured figures are in the README.
"""

from dataclasses import dataclass
from typing import Literal

Level = Literal["full", "default", "compact"]  # from the largest to the smallest


@dataclass(frozen=True, kw_only=True)
class LevelSettings:
    """What a level keeps.

    Attributes:
        rows: Refined rows stored, at most; any number can be drawn from the rest anyway.
        cells: Soft records times feature width, about; 0: as many records as there are.
        probability_steps: A record's probabilities are stored as multiples of 1 over this; 0: no records, features are then
            independent given the class.
        pair_step: Pair statistics are stored in this fraction of their noise stddev; 0: not at all.
        critic: Whether the critic travels.
    """

    rows: int
    cells: int
    probability_steps: int
    pair_step: float
    critic: bool

    def records_for(self, width: int) -> int:
        """Soft records kept for a feature width: between 40 and 200."""
        return max(40, min(200, self.cells // width))


LEVELS: dict[Level, LevelSettings] = {
    "full": LevelSettings(rows=10_000, cells=0, probability_steps=255, pair_step=0.25, critic=True),
    "default": LevelSettings(rows=0, cells=8_000, probability_steps=63, pair_step=1.0, critic=False),
    "compact": LevelSettings(rows=0, cells=0, probability_steps=0, pair_step=0.0, critic=False),
}
