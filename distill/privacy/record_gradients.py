"""What may be learnt of private rows: networks whose gradient, record by record, the door may sum, said in public terms.

A stage does not look at rows. It says by one of the values below, all of whose fields are public or released already, of
which network it wants the gradient, and the door (`private_table`) computes, clips and sums it. What a record adds follows
from that record and these fields alone: nothing here knows how many records there are, or draws anything.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill.common import checks, exact
from distill.errors import ConfigError
from distill.privacy.dpsgd import Factor
from distill.privacy.row_vectors import Dense, OneHot

Layer = tuple[np.ndarray, np.ndarray]  # weight (out, in), bias (out,)


@dataclass(frozen=True, eq=False)
class Records:
    """Some private rows as gradients see them.

    Attributes:
        codes: Coarse codes, the class last, (n, columns); None where there are features.
        features: Numbers, (n, width); None where there are codes.
        classes: (n,), int64.
    """

    codes: np.ndarray | None
    features: np.ndarray | None
    classes: np.ndarray

    def vectors(self, starts: np.ndarray | None, width: int) -> Dense | OneHot:
        """The rows as vectors: features, or one-hot segments of the first columns that begin at `starts`."""
        if self.features is not None:
            return Dense(self.features)
        assert self.codes is not None
        assert starts is not None, "codes need to know where their segments begin"
        return OneHot(self.codes[:, : len(starts)], starts, width)


@dataclass(frozen=True, eq=False)
class Network:
    """A perceptron with rectified hidden layers.

    Attributes:
        layers: From the first to the last.
        loss: `classes`: cross-entropy of the class, one output a class. `real`: softplus of minus the one output, the loss
            of a critic on real rows.
        clip: Bound on one record's gradient, L2.
        share: Of the squared sensitivity of the step.
        starts: Where the segments of coarse columns begin in a one-hot row; None: rows are features.
    """

    layers: tuple[Layer, ...]
    loss: Literal["classes", "real"]
    clip: float = 1.0
    share: float = 1.0
    starts: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        _check_bounds(self.clip, self.share)

    @property
    def size(self) -> int:
        """Weights and biases."""
        return _size(self.layers)

    @np.errstate(over="ignore", invalid="ignore")  # else a warning would tell of a record; `clipped_sum` finds it
    def factors(self, records: Records) -> list[Factor]:
        """Inputs and output gradients of every layer."""
        inputs: list[Dense | OneHot] = [records.vectors(self.starts, self.layers[0][0].shape[1])]
        for weight, bias in self.layers[:-1]:
            inputs.append(Dense(np.maximum(inputs[-1].times(weight) + bias, 0)))
        weight, bias = self.layers[-1]
        scores = inputs[-1].times(weight) + bias
        gradients = [self._error(scores, records.classes)]
        for (weight, _), below in zip(self.layers[:0:-1], inputs[:0:-1], strict=True):
            assert isinstance(below, Dense)
            gradients.insert(0, exact.product(gradients[0], weight) * (below.values > 0))
        return [Factor(x, gradient) for x, gradient in zip(inputs, gradients, strict=True)]

    def _error(self, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Gradient of each record's loss in its scores."""
        if self.loss == "real":
            return np.asarray(-1 / (1 + np.exp(np.minimum(scores, 700.0))))
        error = segment_softmax(scores, np.zeros(1, dtype=np.int64))
        error[np.arange(len(classes)), classes] -= 1
        return error


@dataclass(frozen=True, eq=False)
class Variational:
    """A variational autoencoder of coarse codes, one softmax a column; its loss is the negative evidence lower bound.

    The latent noise of a record is one of a public pool, chosen by what the record holds: so it belongs to the record, and neither
    its place nor how many others there are can show in it.

    Attributes:
        layers: Two of the encoder (mean and log-variance come out), two of the decoder.
        starts: Where each column's segment begins in a one-hot row.
        pool: Latent noise, (pool, latent).
        multipliers: Odd whole numbers that mix a record's codes, int64, (columns,).
        log_variance: Least and greatest that the encoder may say.
        clip: Bound on one record's gradient, L2.
        share: Of the squared sensitivity of the step.
    """

    layers: tuple[Layer, ...]
    starts: np.ndarray
    pool: np.ndarray
    multipliers: np.ndarray
    log_variance: tuple[float, float] = (-8.0, 4.0)
    clip: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        _check_bounds(self.clip, self.share)

    @property
    def size(self) -> int:
        """Weights and biases."""
        return _size(self.layers)

    @np.errstate(over="ignore", invalid="ignore")  # else a warning would tell of a record; `clipped_sum` finds it
    def factors(self, records: Records) -> list[Factor]:
        """Inputs and output gradients of every layer. Source: arXiv:1312.6114, equation 10."""
        assert records.codes is not None
        codes = records.codes.astype(np.int64)
        (w1, b1), (w2, b2), (w3, b3), (w4, b4) = self.layers
        rows = OneHot(codes, self.starts, w1.shape[1])
        encoded = Dense(np.maximum(rows.times(w1) + b1, 0))
        mean, said = np.split(encoded.times(w2) + b2, 2, axis=1)
        log_variance = np.clip(said, *self.log_variance)
        noise = self.pool[(codes @ self.multipliers) % len(self.pool)]
        latent = Dense(mean + noise * np.exp(0.5 * log_variance))
        decoded = Dense(np.maximum(latent.times(w3) + b3, 0))
        to_logits = segment_softmax(decoded.times(w4) + b4, self.starts)
        np.put_along_axis(to_logits, codes + self.starts, np.take_along_axis(to_logits, codes + self.starts, 1) - 1, 1)
        to_decoded = exact.product(to_logits, w4) * (decoded.values > 0)
        to_latent = exact.product(to_decoded, w3)
        to_variance = 0.5 * (to_latent * noise * np.exp(0.5 * log_variance) + np.exp(log_variance) - 1)
        to_code = np.hstack([to_latent + mean, to_variance * (said == log_variance)])
        to_encoded = exact.product(to_code, w2) * (encoded.values > 0)
        return [
            Factor(rows, to_encoded),
            Factor(encoded, to_code),
            Factor(latent, to_decoded),
            Factor(decoded, to_logits),
        ]


Gradients = Network | Variational


def segment_softmax(scores: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Chances within each segment of a row of scores (n, width); row by row, in a new array."""
    widths = np.diff(np.append(starts, scores.shape[1]))
    chances = scores - np.repeat(np.maximum.reduceat(scores, starts, axis=1), widths, axis=1)
    np.exp(chances, out=chances)
    chances /= np.repeat(np.add.reduceat(chances, starts, axis=1), widths, axis=1)
    return np.asarray(chances)


def _check_bounds(clip: float, share: float) -> None:
    checks.positive(clip=clip)
    if not 0 <= share <= 1:
        raise ConfigError(f"share must be within 0..1, not {share!r}.")


def _size(layers: tuple[Layer, ...]) -> int:
    return sum(weight.size + bias.size for weight, bias in layers)
