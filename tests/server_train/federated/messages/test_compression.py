"""Compression of messages: error bounds, error feedback, sizes, and replies made to harm."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill.errors import ConfigError, DataError
from server_train.federated.messages.codec import Message, decode, encode
from server_train.federated.messages.compression import BLOCK, MAX_PACKED, Compression, parse_compression, unpack

LOSSY = ("float16", "int8", "topk:0.1")
VECTORS = arrays(
    np.float32, st.integers(1, 3 * BLOCK), elements=st.floats(-(2.0**120), 2.0**120, width=32), fill=st.just(0.0)
)


def sent(word: str, update: np.ndarray, memory: dict[str, Any] | None = None) -> np.ndarray:
    """What arrives of `update` after packing, the wire and unpacking."""
    packed = parse_compression(word).pack(Message({"update": update}), ["update"], memory)
    return unpack(decode(encode(packed)), update.size).tensors["update"]


@pytest.mark.parametrize("word", ["none", *LOSSY])
def test_names_shapes_and_numbers_come_back(word: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensors = {"update": rng.normal(size=1000).astype(np.float32), "other": np.arange(6).reshape(2, 3)}
    packed = parse_compression(word).pack(Message(tensors, {"rows": 7.0}), ["update", "control"], {})
    back = unpack(decode(encode(packed)), 1000)
    assert back.numbers == {"rows": 7.0}
    assert set(back.tensors) == set(tensors)
    assert back.tensors["update"].shape == (1000,)
    assert back.tensors["update"].dtype == np.float32
    assert np.array_equal(back.tensors["other"], tensors["other"])


def test_no_compression_changes_nothing() -> None:
    message = Message({"update": np.array([1.0, -2.0], np.float32)})
    assert Compression().pack(message, ["update"], {}) is message


@given(VECTORS)
def test_float16_errs_by_at_most_its_rounding_within_its_range(update: np.ndarray) -> None:
    exact = np.clip(update.astype(np.float64), -65504, 65504)
    assert (np.abs(sent("float16", update) - exact) <= np.abs(exact) * 2.0**-11 + 2.0**-25).all()


@given(VECTORS)
def test_int8_errs_by_at_most_half_a_step_of_its_block(update: np.ndarray) -> None:
    error = np.abs(sent("int8", update) - update.astype(np.float64))
    for start in range(0, len(update), BLOCK):
        largest = float(np.abs(update[start : start + BLOCK]).max())
        # Half a step, rounding of the float32 scale, and its smallest value.
        assert (error[start : start + BLOCK] <= largest / 254 * (1 + 1e-4) + 1e-43).all()


@given(VECTORS)
def test_topk_keeps_the_largest_entries_as_they_are(update: np.ndarray) -> None:
    got = sent("topk:0.1", update)
    kept = got != 0
    assert (got[kept] == update[kept]).all()
    assert kept.sum() <= -(-len(update) // 10)
    if (~kept).any() and kept.any():
        assert np.abs(update[~kept]).max() <= np.abs(update[kept]).min()
    assert np.count_nonzero(update) <= kept.sum() or kept.sum() == -(-len(update) // 10)


@pytest.mark.parametrize(
    ("size", "share", "kept"), [(1000, 0.1, 100), (1000, 0.0001, 1), (1001, 0.5, 501), (3, 1.0, 3)]
)
def test_topk_keeps_its_share_rounded_up(size: int, share: float, kept: int) -> None:
    update = np.random.default_rng(0).normal(size=size).astype(np.float32)
    packed = Compression("topk", share).pack(Message({"update": update}), ["update"])
    assert len(packed.tensors["update@index"]) == kept


def test_tensor_bytes_are_what_each_method_states() -> None:
    update = np.random.default_rng(0).normal(size=8897).astype(np.float32)

    def size(word: str) -> int:
        return parse_compression(word).pack(Message({"update": update}), ["update"]).tensor_bytes

    assert size("none") == 4 * 8897
    assert size("float16") == 2 * 8897
    assert size("int8") == 8897 + 4 * 18  # 18 blocks of 512
    assert size("topk:0.1") == 890 * (2 + 4)


def test_places_beyond_sixteen_bits_take_four_bytes() -> None:
    update = np.zeros(70_000, np.float32)
    update[69_999] = 1.0
    packed = parse_compression("topk:0.1").pack(Message({"update": update}), ["update"])
    assert packed.tensor_bytes == 7_000 * (4 + 4)
    assert sent("topk:0.1", update)[69_999] == 1.0


@pytest.mark.parametrize("word", LOSSY)
def test_with_error_feedback_the_sum_of_what_arrives_follows_the_sum_of_updates(word: str, seed: int) -> None:
    """What has not arrived is just what the client still remembers, and that stays bounded."""
    rng = np.random.default_rng(seed)
    memory: dict[str, Any] = {}
    updates = rng.normal(size=(200, 300)).astype(np.float32)
    arrived = np.zeros(300)
    for update in updates:
        arrived += sent(word, update, memory)
    missing = updates.astype(np.float64).sum(axis=0) - arrived
    (residual,) = memory.values()
    assert np.allclose(missing, residual, atol=1e-3)
    assert np.linalg.norm(residual) < 10 * np.linalg.norm(updates[0])


def test_topk_delivers_a_constant_update_in_full_over_time() -> None:
    """Sum 210, two entries a round: none waits until it is much above 210 / 2, so the mean errs by about 0.1 at most."""
    update = np.arange(1, 21, dtype=np.float32)
    memory: dict[str, Any] = {}
    arrived = sum(sent("topk:0.1", update, memory).astype(np.float64) for _ in range(1000))
    assert np.abs(arrived / 1000 - update).max() < 0.13
    without = sum(sent("topk:0.1", update).astype(np.float64) for _ in range(1000))
    assert np.count_nonzero(without) == 2


def test_tensors_of_two_names_are_packed_apart_each_with_its_own_memory() -> None:
    """As SCAFFOLD would send them: an update and a change of control."""
    memory: dict[str, Any] = {}
    update, control = np.array([4.0, 1.0], np.float32), np.array([2.0, -8.0], np.float32)
    names, topk = ("update", "control"), Compression("topk", 0.5)
    unpack(topk.pack(Message({"update": update, "control": control}), names, memory), 2)
    nothing = {name: np.zeros(2, np.float32) for name in names}
    back = unpack(topk.pack(Message(nothing), names, memory), 2)
    assert {name: tensor.tolist() for name, tensor in back.tensors.items()} == {
        "update": [0.0, 1.0],
        "control": [2.0, 0.0],
    }


def test_without_a_memory_nothing_is_remembered() -> None:
    update = np.array([1.0, 0.3], np.float32)
    assert sent("topk:0.5", update).tolist() == [1.0, 0.0]
    memory: dict[str, Any] = {}
    sent("topk:0.5", update, memory)
    assert sent("topk:0.5", np.zeros(2, np.float32), memory).tolist() == [0.0, np.float32(0.3)]


def test_zeros_and_tiny_numbers_travel() -> None:
    for word in LOSSY:
        assert not sent(word, np.zeros(700, np.float32)).any()
    tiny = np.full(5, 1e-44, np.float32)
    assert np.abs(sent("int8", tiny)).max() <= 2e-44


@pytest.mark.parametrize("word", LOSSY)
def test_a_vector_that_is_not_finite_is_refused_and_not_remembered(word: str) -> None:
    memory: dict[str, Any] = {}
    with pytest.raises(DataError, match="NaN or infinity"):
        sent(word, np.array([1.0, np.nan], np.float32), memory)
    assert not memory


def test_a_tensor_that_is_not_a_flat_float_vector_is_refused() -> None:
    for tensor in (np.ones((2, 2), np.float32), np.arange(3)):
        with pytest.raises(ConfigError, match="not a flat float vector"):
            sent("int8", tensor)


@pytest.mark.parametrize("word", ["none", "float16", "int8", "topk:0.1", "topk:1"])
def test_words_are_read_and_written(word: str) -> None:
    assert str(parse_compression(word)) == word


@pytest.mark.parametrize("word", ["zip", "topk", "topk:", "topk:much", "topk:0", "topk:1.5", "topk:nan", "int8:2", ""])
def test_words_that_name_no_compression_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"compression|share"):
        parse_compression(word)


INDEX, VALUE = np.array([0, 3], np.uint16), np.array([1.0, 2.0], np.float32)
HOSTILE = {
    "an index out of range": {"update@index": np.array([0, 4], np.uint16), "update@value": VALUE},
    "an index twice": {"update@index": np.array([3, 3], np.uint16), "update@value": VALUE},
    "indices out of order": {"update@index": np.array([3, 0], np.uint16), "update@value": VALUE},
    "signed indices": {"update@index": np.array([0, -1], np.int32), "update@value": VALUE},
    "more indices than values": {"update@index": INDEX, "update@value": VALUE[:1]},
    "indices alone": {"update@index": INDEX},
    "a table of indices": {"update@index": INDEX[None], "update@value": VALUE[None]},
    "doubles as values": {"update@index": INDEX, "update@value": VALUE.astype(np.float64)},
    "too short": {"update@float16": np.zeros(3, np.float16)},
    "too long": {"update@float16": np.zeros(5, np.float16)},
    "single for half": {"update@float16": np.zeros(4, np.float32)},
    "no scale": {"update@int8": np.zeros(4, np.int8)},
    "two scales for one block": {"update@int8": np.zeros(4, np.int8), "update@scale": np.ones(2, np.float32)},
    "a scale that overflows": {
        "update@int8": np.full(4, 127, np.int8),
        "update@scale": np.array([3e38], np.float32),
    },
    "an unknown part": {"update@zip": np.zeros(4, np.uint8)},
    "two methods at once": {"update@float16": np.zeros(4, np.float16), "update@index": INDEX, "update@value": VALUE},
    "packed and plain": {"update": np.zeros(4, np.float32), "update@float16": np.zeros(4, np.float16)},
    "very many": {f"{i}@float16": np.zeros(4, np.float16) for i in range(MAX_PACKED + 1)},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_packed_parts_made_to_harm_are_refused(case: str) -> None:
    message = decode(encode(Message(HOSTILE[case])))
    with pytest.raises(DataError, match="packed"):
        unpack(message, 4)
