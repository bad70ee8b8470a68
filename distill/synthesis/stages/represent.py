"""Stage 3, represent: a variational autoencoder of the coarse codes, warmed up on private samples, trained by DP-SGD.

Per-column softmax heads, sampled from and never argmaxed; no batch norm. One release a step: the sum of clipped
per-record gradients over a Poisson sample (L2 norm at most 1 a record, add or remove one row).
Source: arXiv:1312.6114 (the evidence lower bound, equation 10), arXiv:1607.00133 (DP-SGD).
"""

import numpy as np
import torch
from torch import Tensor, nn

from distill.privacy.private_table import PrivateTable
from distill.privacy.record_gradients import Variational
from distill.synthesis.generator.draws import draw_normal
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.planning.plan import Plan
from distill.synthesis.weights import arrays_of, set_gradients, uniform_start

LATENT, ENCODER, DECODER = 16, 96, 96
LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE = -8.0, 4.0
EVENT = "represent"
LEARNING_RATE = 2e-3
POOL = 256  # latent noises of a step, from which each record takes one by what it holds


class Autoencoder:
    """Encoder (width -> 96 -> latent mean and log-variance), decoder (latent -> 96 -> one softmax a column)."""

    def __init__(self, layout: Layout, rng: np.random.Generator) -> None:
        self.layout, self.rng = layout, rng
        self.encode_1, self.encode_2 = nn.Linear(layout.width, ENCODER), nn.Linear(ENCODER, 2 * LATENT)
        self.decode_1, self.decode_2 = nn.Linear(LATENT, DECODER), nn.Linear(DECODER, layout.width)
        self._layers = [self.encode_1, self.encode_2, self.decode_1, self.decode_2]
        uniform_start(self._layers, rng)
        with torch.no_grad():
            self.encode_1.weight.mul_(layout.width**0.5)
        self._parameters = [p for layer in self._layers for p in layer.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=LEARNING_RATE)

    def warm_up(self, samples: Tensor, *, steps: int, batch: int = 512) -> None:
        """Train on private samples (codes, (n, columns)): free, for they are post-processing."""
        optimizer = torch.optim.Adam(self._parameters, lr=3e-3)
        for _ in range(steps):
            chosen = torch.as_tensor(self.rng.integers(len(samples), size=batch))
            loss = self._losses(samples[chosen]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def step(self, table: PrivateTable, plan: Plan, *, rows: float) -> None:
        """One DP-SGD step; `rows` is the noisy number of rows, the public normaliser."""
        (noisy,) = table.noisy_gradient(EVENT, [self.record_gradient()])
        set_gradients(self._layers, noisy / (rows * plan.event(EVENT).sampling_rate))
        self._optimizer.step()

    def record_gradient(self) -> Variational:
        """What the door is asked to sum; its latent noise and its mixing of codes are drawn here, before any record is seen."""
        return Variational(
            layers=tuple(map(arrays_of, self._layers)),
            starts=self.layout.starts,
            pool=self.rng.standard_normal((POOL, LATENT)),
            multipliers=2 * self.rng.integers(2**30, size=len(self.layout.widths)) + 1,
            log_variance=(LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE),
        )

    def encoder(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Weight and bias of both layers of the encoder; the first `LATENT` outputs are the mean."""
        return arrays_of(self.encode_1), arrays_of(self.encode_2)

    @torch.no_grad()
    def latent_mean(self, codes: Tensor) -> Tensor:
        """Mean of q(z | row), (n, latent)."""
        return self._encode(codes)[0]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Logits of every column's softmax, the class last; (n, latent) -> (n, width)."""
        return self._decode(latents)

    def _encode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.layout.one_hot(codes) / len(self.layout.widths) ** 0.5
        both = self.encode_2(self.encode_1(rows).relu())
        return both[:, :LATENT], both[:, LATENT:].clamp(LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE)

    def _decode(self, latents: Tensor) -> Tensor:
        return torch.as_tensor(self.decode_2(self.decode_1(latents).relu()))

    def _losses(self, codes: Tensor) -> Tensor:
        """Negative evidence lower bound of each private sample, (n,)."""
        mean, log_variance = self._encode(codes)
        noise = draw_normal(mean.shape, self.rng)
        logits = self._decode(mean + noise * (0.5 * log_variance).exp())
        picked = self.layout.log_softmax(logits).gather(1, codes + torch.as_tensor(self.layout.starts))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return divergence - picked.sum(1)
