"""Stage 3, represent: a variational autoencoder of the coarse codes, warmed up on private samples, trained by DP-SGD.

Per-column softmax heads, sampled from and never argmaxed; no batch norm. One release a step: the sum of clipped
per-record gradients over a Poisson sample (L2 norm at most 1 a record, add or remove one row).
Source: arXiv:1312.6114 (the evidence lower bound, equation 10), arXiv:1607.00133 (DP-SGD).
"""

import numpy as np
import torch
from torch import Tensor, nn

from distill.dpsgd import Taps, clipped_gradient_sum, set_gradients
from distill.layout import Layout
from distill.plan import Plan
from distill.private_table import PrivateTable

LATENT, ENCODER, DECODER = 16, 96, 96
EVENT = "represent"
LEARNING_RATE = 2e-3
WARM_UP_STEPS = 300


class Autoencoder:
    """Encoder (width -> 96 -> latent mean and log-variance), decoder (latent -> 96 -> one softmax a column)."""

    def __init__(self, layout: Layout, generator: torch.Generator) -> None:
        self.layout, self.generator = layout, generator
        self.encode_1, self.encode_2 = nn.Linear(layout.width, ENCODER), nn.Linear(ENCODER, 2 * LATENT)
        self.decode_1, self.decode_2 = nn.Linear(LATENT, DECODER), nn.Linear(DECODER, layout.width)
        self._layers = [self.encode_1, self.encode_2, self.decode_1, self.decode_2]
        with torch.no_grad():
            for layer in self._layers:
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-1, 1, generator=generator).mul_(bound)
                layer.bias.zero_()
            self.encode_1.weight.mul_(layout.width**0.5)
        self._parameters = [p for layer in self._layers for p in layer.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=LEARNING_RATE)

    def warm_up(self, samples: Tensor, *, steps: int = WARM_UP_STEPS, batch: int = 512) -> None:
        """Train on private samples (codes, (n, columns)): free, for they are post-processing."""
        optimizer = torch.optim.Adam(self._parameters, lr=3e-3)
        for _ in range(steps):
            chosen = torch.randint(len(samples), (batch,), generator=self.generator)
            loss = self._losses(samples[chosen], Taps()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def step(self, table: PrivateTable, plan: Plan, *, rows: float) -> None:
        """One DP-SGD step; `rows` is the noisy number of rows, the public normaliser."""

        def gradient(codes: np.ndarray) -> np.ndarray:
            taps = Taps()
            losses = self._losses(torch.as_tensor(codes.astype(np.int64)), taps)
            return clipped_gradient_sum(losses, taps, clip_norm=1.0).numpy(force=True)

        noisy = torch.as_tensor(table.noisy_gradient(EVENT, gradient, clip_norm=1.0))
        set_gradients(self._layers, noisy / (rows * plan.event(EVENT).sampling_rate))
        self._optimizer.step()

    @torch.no_grad()
    def latent_mean(self, codes: Tensor) -> Tensor:
        """Mean of q(z | row), (n, latent)."""
        return self._encode(codes, Taps())[0]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Logits of every column's softmax, the class last; (n, latent) -> (n, width)."""
        return self._decode(latents, Taps())

    def _encode(self, codes: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        rows = self.layout.one_hot(codes) / len(self.layout.widths) ** 0.5
        both = taps.apply(self.encode_2, taps.apply(self.encode_1, rows).relu())
        return both[:, :LATENT], both[:, LATENT:].clamp(-8, 4)

    def _decode(self, latents: Tensor, taps: Taps) -> Tensor:
        return taps.apply(self.decode_2, taps.apply(self.decode_1, latents).relu())

    def _losses(self, codes: Tensor, taps: Taps) -> Tensor:
        """Negative evidence lower bound of each row, (n,)."""
        mean, log_variance = self._encode(codes, taps)
        noise = torch.randn(mean.shape, generator=self.generator)
        logits = self._decode(mean + noise * (0.5 * log_variance).exp(), taps)
        picked = self.layout.log_softmax(logits).gather(1, codes + torch.as_tensor(self.layout.starts))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return divergence - picked.sum(1)
