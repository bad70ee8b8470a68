import pytest

from distill.errors import ConfigError
from server_train.comparison.record.cache import Parts, part_key, slug
from server_train.comparison.record.results import Run, Traffic
from tests.fakes.comparisons import run

RUN = run("federated", "FedAvg", [0.5, 0.6])


def test_a_part_is_found_as_it_was_kept(tmp_path):
    parts = Parts(tmp_path / "runs")
    assert parts.find("FedAvg 0", "k", Run) is None
    parts.keep("FedAvg 0", "k", RUN)
    assert parts.find("FedAvg 0", "k", Run) == RUN
    assert Parts(tmp_path / "runs").find("FedAvg 0", "k", Run) == RUN
    assert parts.find("FedAvg 0", "other", Run) is None
    assert parts.find("FedAvg 0", "k", Traffic) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"key": "k"}', b'{"key": "k", "part": {"kind": "alone"}}'])
def test_a_damaged_part_counts_as_not_there(tmp_path, damage):
    parts = Parts(tmp_path)
    parts.keep("x", "k", RUN)
    next(tmp_path.iterdir()).write_bytes(damage)
    assert parts.find("x", "k", Run) is None


def test_fresh_looks_only_at_what_it_made_itself(tmp_path):
    Parts(tmp_path).keep("x", "k", RUN)
    fresh = Parts(tmp_path, fresh=True)
    assert fresh.find("x", "k", Run) is None
    fresh.keep("x", "k", RUN)
    assert fresh.find("x", "k", Run) == RUN


def test_a_key_follows_every_setting_and_no_order():
    assert part_key(a=1, b={"c": 2.0}) == part_key(b={"c": 2.0}, a=1)
    assert len({part_key(a=1), part_key(a=2), part_key(a=1, b=None)}) == 3


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match="cannot keep a finished part"):
        Parts(tmp_path / "runs").keep("x", "k", RUN)


def test_slugs_are_safe_names():
    assert [slug(n) for n in ("q-FedAvg", "FedProx (mu 0.1)", "../x", "é")] == [
        "q-fedavg",
        "fedprox-mu-0-1",
        "x",
        "part",
    ]
