"""Rows as a network reads them, in every baseline alike, with the bytes it took to agree on that.

`prepare` merges the clients' sketches, which are computed without noise: it belongs to runs without privacy only. Runs
under a budget agree by noisy sketches (`private_client.agree`).
"""

from dataclasses import dataclass

import numpy as np

from server_train.comparison.deal.tables import Dealt
from server_train.federated.messages.codec import encode
from server_train.federated.messages.sketches import answer, class_shares, curves_of, merge, one_hot, sketch
from server_train.models.features import Encoder, class_codes


@dataclass(frozen=True, eq=False, kw_only=True)
class Agreed:
    """What server and clients agreed on before the first round.

    Attributes:
        test_x, test_y: Encoded test rows, float32, shape (rows, inputs), and their classes, int64, shape (rows,).
        prior: Shares of the classes as the set-up told them to the server, shape (classes,).
        up, down: Set-up bytes from and to each client.
    """

    test_x: np.ndarray
    test_y: np.ndarray
    prior: np.ndarray
    up: tuple[int, ...]
    down: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared(Agreed):
    """The clients' rows too, as the network reads them.

    Attributes:
        x, y: Each client's encoded rows and their classes, as those of the test.
    """

    x: tuple[np.ndarray, ...]
    y: tuple[np.ndarray, ...]


def prepare(dealt: Dealt) -> Prepared:
    """Encode all rows with curves merged from the clients' sketches, as every client reads them from the answer."""
    schema, frames = dealt.schema, list(dealt.clients.values())
    sketches = [sketch(schema, frame) for frame in frames]
    message = answer(merge(schema, sketches))
    encoder = Encoder(schema, curves_of(schema, message))
    test_x, test_y = read_test(dealt, encoder)
    return Prepared(
        test_x=test_x,
        test_y=test_y,
        prior=class_shares(sketches),
        up=tuple(len(encode(s)) for s in sketches),
        down=(len(encode(message)),) * len(sketches),
        x=tuple(one_hot(encoder.encode(frame), encoder.n_codes) for frame in frames),
        y=tuple(class_codes(schema, frame) for frame in frames),
    )


def read_test(dealt: Dealt, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    """Encoded test rows and their classes."""
    return one_hot(encoder.encode(dealt.test), encoder.n_codes), class_codes(dealt.schema, dealt.test)
