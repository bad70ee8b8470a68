"""The fuzzer of bundles runs, and would notice a reader that accepts too much, breaks or writes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.attacks import hostile_bundles
from benchmarks.attacks.tools import hostile_mutations
from distill.exchange import bundle as reader
from distill.exchange.bundle import Bundle, parse_bundle
from tests.assets.forge import House, make_house


@pytest.fixture(scope="module")
def house() -> House:
    return make_house()


@pytest.fixture(scope="module")
def good(house: House) -> Bundle:
    return parse_bundle(house.data, path=hostile_bundles.NAMED)


def test_the_quick_size_finds_nothing_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert hostile_bundles.main(["--quick", "--out", str(tmp_path / "t.csv")]) == 0
    said = capsys.readouterr().out
    assert "Nothing went wrong." in said
    kinds = ["every bit", "every length", *hostile_bundles.MUTATIONS]
    assert [line.split(",")[0] for line in (tmp_path / "t.csv").read_text().splitlines()[1:]] == kinds
    assert f"| bits | {260 // len(hostile_bundles.MUTATIONS)} |" in said


def test_a_case_is_the_same_each_time(house: House) -> None:
    for case in range(len(hostile_bundles.MUTATIONS)):
        name, data = hostile_bundles.fuzz(house, 3, case)
        assert hostile_bundles.fuzz(house, 3, case) == (name, data)
        assert hostile_bundles.fuzz(house, 4, case) != (name, data)


def test_the_owners_changes_get_past_the_signature(house: House) -> None:
    for name, mutation in hostile_mutations.OWNER.items():
        if name == "containers":
            continue  # most of these break the layout, which is read first
        for seed in range(10):
            reader._check_signature(
                reader.open_container(mutation(np.random.default_rng(seed), house)), house.key.public_hex
            )


def test_a_reader_that_does_not_look_at_the_signature_is_caught(
    house: House, good: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_check_signature", lambda container, public_hex: None)
    data = house.data
    place = data.rindex(b'"signature":"') + 20  # a digit of the signature; its CRC, twice, is put right
    other = data[:place] + (b"0" if data[place : place + 1] != b"0" else b"1") + data[place + 1 :]
    start = data.rindex(b"PK\x03\x04")
    old, new = (reader_crc(d[start:]) for d in (data, other))
    other = other[:start] + other[start:].replace(old, new)
    outcome = hostile_bundles.verdict(other, good, house, signed=False)
    assert outcome == ("accepted: unchanged", "bytes that nobody signed were accepted")


def reader_crc(last: bytes) -> bytes:
    """The CRC of the signature member at the start of `last`, as its header has it."""
    import zlib

    size = int.from_bytes(last[18:22], "little")
    begin = 30 + int.from_bytes(last[26:28], "little")
    return zlib.crc32(last[begin : begin + size]).to_bytes(4, "little")


def test_exceptions_of_others_are_told_apart(house: House, good: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(reader, "check_manifest", breaks)
    outcome, problem = hostile_bundles.verdict(house.data, good, house, signed=True)
    assert (outcome, "KeyError" in problem) == ("unforeseen", True)
    monkeypatch.setattr(hostile_bundles, "parse_bundle", breaks)
    assert hostile_bundles.verdict(house.data, good, house, signed=True) == ("foreign", "KeyError: 'x'")


def test_the_second_look_sees_what_a_reader_should_have_refused(good: Bundle) -> None:
    assert hostile_bundles.look_again(good) == ""
    frame = good.samples
    for column, value, problem in [
        ("age", 101, "age is out of bounds"),
        ("job", "pilot", "job holds a strange category"),
        ("income", np.inf, "income is out of bounds"),
    ]:
        samples = frame.assign(**{column: [value, *frame[column].iloc[1:]]})
        assert hostile_bundles.look_again(dataclasses.replace(good, samples=samples)) == problem
    without = frame.assign(grade=[None, 1, 2])
    assert hostile_bundles.look_again(dataclasses.replace(good, samples=without)) == "grade lacks values"
    tensors = {"heads": {"w": np.array([np.nan])}}
    assert hostile_bundles.look_again(dataclasses.replace(good, tensors=tensors)) == "a tensor is not finite"
    cheap = good.manifest.privacy.model_copy(update={"epsilon": 0.1})
    manifest = good.manifest.model_copy(update={"privacy": cheap})
    assert "its events cost" in hostile_bundles.look_again(dataclasses.replace(good, manifest=manifest))


def test_a_write_a_leftover_and_too_much_memory_are_faults() -> None:
    nothing = {"wrong": [], "attempts": [], "left": []}
    assert hostile_bundles.faults(nothing, 1 << 30) == []
    found = {"wrong": ["case 1: x"], "attempts": ["open 'y' for writing"], "left": ["z"]}
    assert hostile_bundles.faults(found, 3 << 30) == [
        "case 1: x",
        "open 'y' for writing",
        "left behind: z",
        "it took 3072 MB",
    ]
