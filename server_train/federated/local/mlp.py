"""The network that clients train: the hub's architecture as one flat vector, with gradients in closed form.

A step on 64 rows of a small network is too short for an autograd engine: written out in numpy it takes a quarter of the time.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]  # flat weights, gradients, updates: float32, or float64 where a test wants it
# From representations (n, h) to the gradient of an extra mean loss in them, (n, h), and the rows' extra losses, (n,).
Pull = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Mlp:
    """A multi-layer perceptron with softmax output and cross-entropy loss.

    Attributes:
        sizes: Width of the input, of each hidden layer, and the number of classes; without hidden layers it is
            multinomial logistic regression.
        size: Number of weights.
        dtype: Of the weights.
    """

    def __init__(self, sizes: Sequence[int], *, dtype: Any = np.float32) -> None:
        """Only the shape; weights are handed in with every call."""
        self.sizes, self.dtype = tuple(sizes), np.dtype(dtype)
        self._shapes = [shape for a, b in itertools.pairwise(self.sizes) for shape in ((a, b), (b,))]
        self._cuts = np.cumsum([int(np.prod(s)) for s in self._shapes])
        self.size = int(self._cuts[-1])

    def initial(self, rng: np.random.Generator, prior: np.ndarray | None = None) -> Vector:
        """He initialisation, biases zero; the last bias starts at the log of `prior` (classes,) where given."""
        parts = []
        for shape in self._shapes:
            bound = (2.0 / shape[0]) ** 0.5 if len(shape) == 2 else 0.0
            parts.append(rng.normal(0.0, 1.0, shape) * bound)
        if prior is not None:
            parts[-1] = np.log(np.maximum(prior, 1e-6))
        return np.concatenate([p.ravel() for p in parts]).astype(self.dtype)

    def layers(self, weights: Vector) -> list[np.ndarray]:
        """Matrices and biases in turn, as views of `weights`, shape (size,)."""
        parts = np.split(weights, self._cuts[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def logits(self, weights: Vector, x: np.ndarray) -> np.ndarray:
        """Before the softmax, shape (n, classes)."""
        return self._forward(self.layers(weights), x)[-1]

    def probabilities(self, weights: Vector, x: np.ndarray) -> np.ndarray:
        """Of each class, float64, shape (n, classes)."""
        return softmax(self.logits(weights, x).astype(np.float64))

    def representation(self, weights: Vector, x: np.ndarray) -> np.ndarray:
        """What the last layer reads: the last hidden layer's output, shape (n, h)."""
        return self._forward(self.layers(weights), x)[-2]

    def losses(self, weights: Vector, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Cross-entropy of each row, float64, shape (n,)."""
        return row_losses(self.logits(weights, x), y)

    def gradient(self, weights: Vector, x: np.ndarray, y: np.ndarray, pull: Pull | None = None) -> Vector:
        """Gradient of the mean loss over the rows, flat; with `pull`, of the mean of loss and extra loss."""
        layers = self.layers(weights)
        outputs = self._forward(layers, x)
        deltas = self._deltas(layers, outputs, self._error(outputs[-1], y) / len(y), pull)
        return self._sum(outputs, deltas)

    def _forward(self, layers: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
        """Input, each hidden layer's output, logits."""
        outputs = [x]
        last = len(layers) // 2 - 1
        for i in range(last + 1):
            z = outputs[-1] @ layers[2 * i] + layers[2 * i + 1]
            outputs.append(z if i == last else np.maximum(z, 0, out=z))
        return outputs

    def _error(self, logits: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Gradient of each row's loss in its logits."""
        error = softmax(logits)
        error[np.arange(len(y)), y] -= 1
        return error

    def _deltas(
        self, layers: list[np.ndarray], outputs: list[np.ndarray], error: np.ndarray, pull: Pull | None
    ) -> list[np.ndarray]:
        """Gradient in every layer's output before its activation, first layer first."""
        deltas = [error]
        for i in range(len(layers) // 2 - 1, 0, -1):
            back = deltas[0] @ layers[2 * i].T
            if pull is not None and i == len(layers) // 2 - 1:
                back = back + pull(outputs[i])[0].astype(back.dtype, copy=False)
            deltas.insert(0, back * (outputs[i] > 0))
        return deltas

    def _sum(self, outputs: list[np.ndarray], deltas: list[np.ndarray]) -> Vector:
        """Weight and bias gradients of all layers, summed over rows, flat."""
        parts = []
        for inputs, delta in zip(outputs, deltas, strict=False):
            parts += [(inputs.T @ delta).ravel(), delta.sum(axis=0)]
        return np.concatenate(parts).astype(self.dtype, copy=False)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise, in a new array."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return np.asarray(shifted)


def row_losses(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row, float64, shape (n,)."""
    z = logits.astype(np.float64)
    top = z.max(axis=1)
    return np.asarray(np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[np.arange(len(y)), y])
