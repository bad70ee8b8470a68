"""A message comes back as it was, its size is what is stated, and what is no message is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import DataError
from server_train.federated.messages.codec import Message, decode, encode, framing_bytes

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    sizes=st.lists(st.integers(0, 50), max_size=4),
    numbers=st.dictionaries(st.text("abc._", min_size=1), FINITE, max_size=4),
    dtype=st.sampled_from(["float16", "float32", "float64", "int32", "uint8"]),
)
def test_a_message_comes_back_and_weighs_its_tensors_and_the_framing(sizes, numbers, dtype):
    tensors = {f"t{i}": np.arange(size).astype(dtype) for i, size in enumerate(sizes)}
    message = Message(tensors, numbers)
    data = encode(message)
    back = decode(data)
    assert back.numbers == numbers
    assert back.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back.tensors[name].dtype == tensor.dtype
        assert np.array_equal(back.tensors[name], tensor)
    assert len(data) == message.tensor_bytes + framing_bytes(data)
    assert message.tensor_bytes == sum(sizes) * np.dtype(dtype).itemsize + 8 * len(numbers)


def test_framing_is_small_beside_a_model():
    data = encode(Message({"update": np.ones(8897, dtype=np.float32)}, {"rows": 7815}))
    assert len(data) - (4 * 8897 + 8) == framing_bytes(data) <= 200


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_does_not_travel(value):
    with pytest.raises(DataError, match=r"a message cannot be sent: .*update"):
        encode(Message({"update": np.array([1.0, value])}))
    with pytest.raises(DataError, match=r"a message cannot be sent: .*loss"):
        encode(Message({}, {"loss": value}))


def test_a_type_without_fixed_width_does_not_travel():
    with pytest.raises(DataError, match=r"a message cannot be sent: .*object"):
        encode(Message({"update": np.array([1, None])}))


def test_a_value_that_is_not_finite_is_refused_on_arrival():
    data = encode(Message({"update": np.zeros(3, dtype=np.float64)}))
    spoilt = data[:-8] + np.float64(np.nan).tobytes()
    with pytest.raises(DataError, match=r"a message cannot be read: .*update"):
        decode(spoilt)


GOOD = encode(Message({"update": np.arange(5.0)}, {"rows": 3}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a message",
        GOOD[:7],
        GOOD[:-1],
        GOOD + b"x",
        b"\xff" * 8 + GOOD[8:],
        GOOD[:8] + b"{" * (len(GOOD) - 8),
        GOOD.replace(b"F64", b"F99"),
    ],
    ids=["empty", "words", "no header", "cut short", "too long", "huge header", "no json", "unknown type"],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(DataError, match="a message cannot be read"):
        decode(data)


@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused_without_another_error(data):
    with pytest.raises(DataError, match="a message cannot be read"):
        decode(data)
