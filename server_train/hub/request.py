"""What to train: bundles, size of the pool, settings. It says nothing of where results go."""

from dataclasses import dataclass, field
from pathlib import Path

from distill.common import checks
from server_train.intake.admission import Admission
from server_train.training.fit import ModelChoice
from server_train.training.network import TrainingSettings

LARGEST_POOL = 100_000_000


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What to train. All of it is public, and none of it moves epsilon.

    Attributes:
        bundles: Bundle files, or folders that hold them.
        rows: Size of the pool; None: by the institutions' noisy sizes.
        personalise: Also train a model for each institution.
        settings: Optimiser settings; their seed also draws the pool.
        choice: Kind of model, class weights, calibration.
        admission: Whose bundles are taken.
    """

    bundles: tuple[Path, ...]
    rows: int | None = None
    personalise: bool = False
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    choice: ModelChoice = field(default_factory=ModelChoice)
    admission: Admission = field(default_factory=Admission)

    def __post_init__(self) -> None:
        """Refuse a pool that cannot be drawn. Raises ConfigError."""
        if self.rows is not None:
            checks.positive(rows=self.rows)
            checks.at_most(LARGEST_POOL, rows=self.rows)
