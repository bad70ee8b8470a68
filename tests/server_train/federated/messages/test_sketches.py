"""Curves that all clients share: from public bounds, or merged from sketches; as they come off the wire."""

import numpy as np
import pandas as pd
import pytest

from distill.errors import DataError
from server_train.federated.messages.codec import Message, decode, encode
from server_train.federated.messages.sketches import (
    answer,
    check_sketch,
    class_shares,
    curves_of,
    merge,
    public_curves,
    sketch,
)
from server_train.models.features import Encoder
from tests.fakes.federations import NARROW, SCHEMA, bank


def test_public_curves_tell_nothing_but_the_bounds():
    curves = public_curves(SCHEMA)
    assert set(curves) == {c.name for c in SCHEMA.features if c.kind != "categorical"}
    for name, curve in curves.items():
        column = SCHEMA.column(name)
        assert curve.knots == (column.min, column.max)
        assert curve.ranks == (0.0, 1.0)


def test_a_number_spread_evenly_over_its_bounds_comes_out_with_mean_0_and_spread_1():
    encoder = Encoder(NARROW, public_curves(NARROW))
    frame = pd.DataFrame({"amount": np.linspace(0.0, 250.0, 10_001)})
    dense = encoder.encode(frame).dense
    np.testing.assert_allclose(dense.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(dense.std(axis=0), 1.0, atol=1e-3)


@pytest.mark.parametrize("source", ["bounds", "sketches"])
def test_curves_come_off_the_wire_as_they_were(source):
    sketches = [sketch(SCHEMA, bank(200, i)) for i in range(2)]
    curves = public_curves(SCHEMA) if source == "bounds" else merge(SCHEMA, sketches)
    got = curves_of(SCHEMA, decode(encode(answer(curves))))
    assert got.keys() == curves.keys()
    for name, curve in curves.items():
        np.testing.assert_allclose(got[name].knots, curve.knots, rtol=1e-6)
        np.testing.assert_allclose(got[name].ranks, curve.ranks, atol=1e-6)
        assert got[name].mean == pytest.approx(curve.mean, rel=1e-6)


def test_knots_that_the_wire_cannot_tell_apart_become_one_or_the_public_bounds():
    curves = public_curves(NARROW)
    close = curves["amount"].model_copy(update={"knots": (0.0, 200.0, 200.0 + 1e-9), "ranks": (0.0, 0.5, 1.0)})
    assert curves_of(NARROW, decode(encode(answer({"amount": close}))))["amount"].knots == (0.0, 200.0)
    same = curves["amount"].model_copy(update={"knots": (200.0, 200.0 + 1e-9)})
    assert curves_of(NARROW, decode(encode(answer({"amount": same}))))["amount"] == curves["amount"]


@pytest.mark.parametrize("part", ["knots", "ranks", "lengths", "mean", "spread"])
def test_curves_with_a_part_missing_or_short_are_refused(part):
    whole = answer(public_curves(SCHEMA)).tensors
    for changed in ({k: v for k, v in whole.items() if k != part}, {**whole, part: whole[part][:1]}):
        with pytest.raises(DataError, match="curves of the numbers"):
            curves_of(SCHEMA, Message(changed))


def test_a_sketch_that_is_none_is_refused():
    good = sketch(SCHEMA, bank(50, 0))
    check_sketch(SCHEMA, good)
    falling = good.tensors["quantiles"][:, ::-1]
    for changed in (
        {"quantiles": falling},
        {"known": -good.tensors["known"] - 1},
        {"classes": np.ones(7)},
        {"more": np.ones(2)},
    ):
        with pytest.raises(DataError, match="a sketch must hold"):
            check_sketch(SCHEMA, Message({**good.tensors, **changed}))


def test_class_shares_count_one_row_more_of_each_class():
    parts = [Message({"classes": np.array(c, dtype=np.float32)}) for c in ([3, 0], [1, 0])]
    np.testing.assert_allclose(class_shares(parts), [5 / 6, 1 / 6])
