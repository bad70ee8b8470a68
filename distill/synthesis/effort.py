"""How hard the optimisers of a fit work."""

from dataclasses import dataclass, fields

from distill.common import checks


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard the optimisers of a fit work. Public, and moves no epsilon: all of it works on what was released already.

    Attributes:
        first_candidates: Soft records that fit the statistics, from which the autoencoder's warm-up draws.
        first_steps: Their optimiser steps.
        warm_up_steps: Optimiser steps of the autoencoder on their draws, before its steps on private rows.
        private_samples: Samples of the autoencoder that are clustered.
        settle_before: Steps of the candidates on the statistics alone, before the critic.
        settle_after: The same, after it.
        adversarial_rows: Rows of the candidates in one step against the critic.
        head_trial_rows: Rows drawn to see which class head explains the class counts.
        trial_rows: Rows drawn to judge one strength of the critic.
    """

    first_candidates: int = 300
    first_steps: int = 400
    warm_up_steps: int = 300
    private_samples: int = 3000
    settle_before: int = 300
    settle_after: int = 200
    adversarial_rows: int = 1000
    head_trial_rows: int = 20_000
    trial_rows: int = 20_000

    def __post_init__(self) -> None:
        """Refuse numbers below 1. Raises ConfigError."""
        checks.positive(**{field.name: getattr(self, field.name) for field in fields(self)})
