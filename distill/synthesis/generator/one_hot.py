"""Where each column sits in a one-hot row: features in table order, then the class."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Widths of the one-hot segments.

    Attributes:
        features: Coarse bins of each feature.
        classes: Number of classes; their segment comes last.
    """

    features: tuple[int, ...]
    classes: int

    @property
    def feature_width(self) -> int:
        """Length of a one-hot row without the class."""
        return sum(self.features)

    @property
    def width(self) -> int:
        """Length of a one-hot row with the class."""
        return self.feature_width + self.classes

    @property
    def widths(self) -> tuple[int, ...]:
        """All segments, the class last."""
        return (*self.features, self.classes)

    @property
    def starts(self) -> np.ndarray:
        """First position of each segment, the class last."""
        return np.concatenate([[0], np.cumsum(self.widths)[:-1]])

    def one_hot(self, codes: Tensor) -> Tensor:
        """Unscaled one-hot rows; (n, m) codes of the first m columns -> (n, width of those columns)."""
        columns = codes.shape[1]
        rows = torch.zeros(codes.shape[0], sum(self.widths[:columns]), device=codes.device)
        return rows.scatter_(1, codes + torch.as_tensor(self.starts[:columns], device=codes.device), 1.0)

    def softmax(self, logits: Tensor) -> Tensor:
        """Probabilities within each feature's segment; (n, feature_width) -> same."""
        return torch.cat([part.softmax(1) for part in logits.split(self.features, dim=1)], dim=1)

    def log_softmax(self, logits: Tensor) -> Tensor:
        """Log-probabilities within each segment (the class too, if `logits` has it)."""
        widths = self.widths if logits.shape[1] == self.width else self.features
        return torch.cat([part.log_softmax(1) for part in logits.split(widths, dim=1)], dim=1)

    def draw(self, logits: Tensor, rng: np.random.Generator) -> Tensor:
        """Codes drawn from the softmax of each segment, never the argmax; (n, m columns), int64."""
        widths = self.widths if logits.shape[1] == self.width else self.features
        uniform = torch.as_tensor(rng.random(tuple(logits.shape), dtype=np.float32), device=logits.device).clamp_(
            1e-10, 1 - 1e-7
        )
        noisy = logits - (-uniform.log()).log()  # Gumbel-max
        return torch.stack([part.argmax(1) for part in noisy.split(widths, dim=1)], dim=1)
