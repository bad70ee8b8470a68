"""Draws rows from what was released: soft records, class head, critic and bins. Pure post-processing.

Stage 6, select, in one place for both sides: the institution draws the bundle's samples with it, and whoever holds the
bundle draws as many more as wanted. Over-generate, label from the class head, weigh by the critic, rake to the released
one-way shares, resample, and keep the rows that together come nearest to what the soft records say of pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from distill.data.bins import ColumnBins
from distill.data.grids import encode_table
from distill.data.schema import Schema
from distill.data.tables import OTHER, to_public
from distill.synthesis.generator.draws import draw_by_weight
from distill.synthesis.generator.label_draw import balanced_labels
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.generator.row_selection import choose_rows
from distill.synthesis.statistics.class_odds import match_prior
from distill.synthesis.statistics.raking import rake_rows

OVER_GENERATE = 2
CHUNK = 20_000
MOST_TOGETHER = 50_000  # rows chosen in one go; more are chosen in parts
LEAST_BATCH = 2000
Critic = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # hidden weight and bias, output weight and bias


@dataclass(frozen=True, eq=False)
class Generator:
    """A released joint model of one institution's table.

    Attributes:
        schema: Public schema.
        bins: Coarse bins of each column, in table order. The target's are its classes, also where it is a number; without
            a target there is one class.
        logits, weights: Soft records, (K, feature_width) and (K,).
        head: Class head on one-hot features: weight (classes, feature_width), bias (classes,).
        critic: Hidden weight (h, width), hidden bias (h,), output weight (h,), output bias (1,), on unscaled one-hot rows;
            None: it did not travel, and selection goes by raking alone.
        shares: Released share of each bin of each feature.
        class_prior: Released class shares, (classes,).
        noisy_rows: Released number of rows.
        critic_power: Exponent of the critic's density ratio in selection, 0 (ignore) to 1.
        count_noise: Stddev of the noise on one released class count, in rows.
    """

    schema: Schema
    bins: tuple[ColumnBins, ...]
    logits: np.ndarray
    weights: np.ndarray
    head: tuple[np.ndarray, np.ndarray]
    critic: Critic | None
    shares: tuple[np.ndarray, ...]
    class_prior: np.ndarray
    noisy_rows: int
    critic_power: float = 1.0
    count_noise: float = 0.0
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        widths = tuple(b.n_bins for b in self.feature_bins)
        object.__setattr__(self, "layout", Layout(widths, len(self.class_prior)))

    @property
    def feature_bins(self) -> list[ColumnBins]:
        """Bins of the features only, in table order."""
        return [b for b in self.bins if b.grid.column.name != self.schema.target]

    @property
    def head_information(self) -> float:
        """Noisy rows times the prior's Gini impurity: how much the class head can know; 0 for a single class."""
        return float(self.noisy_rows * (1 - np.square(self.class_prior).sum()))

    def draw(self, n: int, seed: int | np.random.Generator) -> pd.DataFrame:
        """Draw `n` selected rows in public terms (original names, order and types), the target included.

        Args:
            n: Rows; drawing is post-processing, so any number of them is free.
            seed: Makes the draw repeatable; or a stream of random numbers to draw from.
        """
        rng = np.random.default_rng(seed)  # a stream stays itself
        codes = self.draw_codes(n, rng)
        columns, feature = {}, 0
        for bins in self.bins:
            name = bins.grid.column.name
            if name == self.schema.target:
                columns[name] = bins.draw(codes[:, -1], rng)
            else:
                columns[name] = bins.draw(codes[:, feature], rng)
                feature += 1
        return to_public(pd.DataFrame(columns), self.schema)

    def draw_codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` selected rows as coarse codes, (n, features + 1), the class last."""
        if n < LEAST_BATCH:  # selection and class shares are judged on a batch: a few rows are some of a larger one
            return self.draw_codes(LEAST_BATCH, rng)[:n]
        parts = np.array_split(np.arange(n), -(-n // MOST_TOGETHER))
        codes = np.concatenate([self._selected(len(part), rng) for part in parts])
        chances = np.exp(match_prior(self.class_logits(codes), self.class_prior))
        cells = codes[:, :-1] + self.layout.starts[:-1]
        codes[:, -1] = balanced_labels(chances, cells, self.layout.feature_width, rng)
        return np.asarray(codes)

    def _selected(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` rows of a larger pool; their labels are those the critic saw."""
        pool = np.concatenate([self._candidates(m, rng) for m in _chunks(n * OVER_GENERATE)])
        return np.asarray(pool[self.select(pool, n, rng)])

    def select(self, codes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of `n` of the rows: resampled by critic and raking, then chosen to agree on pairs; in random order."""
        known = self.critic is not None and self.critic_power > 0
        weight = np.exp(self.critic_power * self.critic_logit(codes).clip(-3, 3)) if known else np.ones(len(codes))
        weight = rake_rows(codes, weight, [*self.shares, self.class_prior])
        points = (np.arange(len(codes)) + rng.random()) * (weight.sum() / len(codes))
        kept = rng.permutation(np.searchsorted(np.cumsum(weight), points).clip(max=len(codes) - 1))
        features = torch.from_numpy(codes[kept, :-1].astype(np.int64))
        chosen = choose_rows(features, self.layout, self.pair_shares, n)
        return np.asarray(rng.permutation(kept[chosen]))

    @cached_property
    def pair_shares(self) -> Tensor:
        """Share of rows with each two feature values, (feature_width, feature_width), as the soft records have it.

        It is raked to the released one-way shares, which stand on the diagonal.
        """
        probabilities = self.layout.softmax(torch.from_numpy(self.logits.astype(np.float32)))
        weighted = probabilities * torch.from_numpy(self.weights.astype(np.float32)).unsqueeze(1)
        released = torch.from_numpy(np.concatenate(self.shares).astype(np.float32))
        factor = (released / weighted.sum(0).clamp_min(1e-9)).clamp(1 / 3, 3)
        together = (probabilities.T @ weighted) * factor * factor.unsqueeze(1)
        for start, width in zip(self.layout.starts, self.layout.features, strict=False):
            own = slice(int(start), int(start) + width)
            together[own, own] = torch.diag(released[own])
        return together

    def critic_logit(self, codes: np.ndarray) -> np.ndarray:
        """Critic's logit that each row (codes with class) is real, (n,); the critic must be there."""
        assert self.critic is not None
        hidden_weight, hidden_bias, out_weight, out_bias = (
            torch.from_numpy(np.asarray(p, np.float32)) for p in self.critic
        )
        parts = []
        for part in torch.from_numpy(codes.astype(np.int64)).split(CHUNK):
            hidden = (self.layout.one_hot(part) @ hidden_weight.T + hidden_bias).relu()
            parts.append((hidden @ out_weight + out_bias).numpy())
        return np.concatenate(parts)

    def class_logits(self, codes: np.ndarray) -> np.ndarray:
        """Class head on feature codes (n, features) -> log-probabilities (n, classes)."""
        weight, bias = (torch.from_numpy(np.asarray(p, np.float32)) for p in self.head)
        parts = [
            (self.layout.one_hot(part) @ weight.T + bias).log_softmax(1).numpy()
            for part in torch.from_numpy(codes[:, : len(self.layout.features)].astype(np.int64)).split(CHUNK)
        ]
        return np.concatenate(parts)

    def class_log_probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Class head on rows in public terms (the target is not looked at): log p(class | features), (n, classes)."""
        return self.class_logits(self.encode(frame))

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Coarse feature codes of rows in public terms, (n, features)."""
        return encode_rows(frame, self.feature_bins)

    def _candidates(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` raw rows with labels drawn from the class head."""
        chosen = draw_by_weight(torch.from_numpy(self.weights), n, rng)
        codes = self.layout.draw(torch.from_numpy(self.logits.astype(np.float32))[chosen], rng).numpy()
        chances = np.exp(match_prior(self.class_logits(codes), self.class_prior))
        label = (rng.random((n, 1)) > np.cumsum(chances, axis=1)).sum(axis=1).clip(max=chances.shape[1] - 1)
        return np.concatenate([codes, label[:, None]], axis=1)


def encode_rows(frame: pd.DataFrame, bins: Sequence[ColumnBins]) -> np.ndarray:
    """Coarse codes of rows in public terms, one column for each of `bins`, int64."""
    leaves = encode_table(_canonical(frame, bins), tuple(b.grid for b in bins))
    return np.stack([b.coarse(leaf) for b, leaf in zip(bins, leaves, strict=True)], axis=1).astype(np.int64)


def _chunks(total: int) -> list[int]:
    return [CHUNK] * (total // CHUNK) + ([total % CHUNK] if total % CHUNK else [])


def _canonical(frame: pd.DataFrame, bins: Sequence[ColumnBins]) -> pd.DataFrame:
    """Rows in public terms, as `tables.read_table` would give them."""
    columns = {}
    for b in bins:
        column, values = b.grid.column, frame[b.grid.column.name]
        if column.kind != "categorical":
            columns[column.name] = pd.to_numeric(values).astype(np.float64)
            continue
        texts = values.astype(object).map(str, na_action="ignore")
        if column.other:
            texts = texts.where(texts.isna() | texts.isin(b.grid.labels), OTHER)
        columns[column.name] = pd.Series(pd.Categorical(texts, categories=b.grid.labels), index=values.index)
    return pd.DataFrame(columns)


def critic_of(hidden: Tensor, hidden_bias: Tensor, out: Tensor, out_bias: Tensor, columns: int) -> Critic:
    """Critic parameters for unscaled one-hot rows (training scales rows by 1 / sqrt(columns))."""
    return (hidden / columns**0.5).numpy(), hidden_bias.numpy(), out.squeeze(0).numpy(), out_bias.numpy()
