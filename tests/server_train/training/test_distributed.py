"""Training shared by real processes that talk over gloo on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.errors import ConfigError
from server_train import __main__ as command
from server_train.evaluation.metrics import evaluate_scores
from server_train.models.features import class_codes
from server_train.models.model import load_model
from server_train.training import rows as row_source
from server_train.training.distributed import Group, joined
from tests.fakes.hubs import BINARY, class_chances, table
from tests.fakes.pools import stored_pool

ROOT = Path(__file__).resolve().parents[3]
PROCESS = Path(__file__).with_name("training_process.py")
# The same steps up to the order in which float32 gradients are added up: of 60 steps, a few units in the fifth digit.
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return stored_pool(tmp_path_factory.mktemp("pool") / "pool.parquet", BINARY, 5003)


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def processes(pool, folder, what):
    """Start two processes of one training by hand, as a scheduler would that does not watch them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, str(PROCESS), str(pool.path), str(folder), what],
            env=environment(**{k: str(v) for k, v in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def ended(started, timeout):
    """Exit codes and errors of processes, all of which must end in time."""
    try:
        said = [process.communicate(timeout=timeout)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains(pool, tmp_path, monkeypatch):
    """With dropout, batches that do not divide evenly, and early stopping decided together."""
    codes, said = ended(processes(pool, tmp_path / "many", "train"), 240)
    assert codes == [0, 0], said
    assert not any("Warning" in words for words in said), said
    many = json.loads((tmp_path / "many" / "result.json").read_text())
    monkeypatch.syspath_prepend(str(PROCESS.parent))
    from tests.server_train.training import training_process

    monkeypatch.setattr(row_source, "BLOCK_ROWS", row_source.BLOCK_ROWS)  # what the process sets is undone at the end
    monkeypatch.setattr(row_source, "BUFFER_BLOCKS", row_source.BUFFER_BLOCKS)
    (tmp_path / "one").mkdir()
    assert training_process.main(pool.path, tmp_path / "one", "train") == 0
    one = json.loads((tmp_path / "one" / "result.json").read_text())
    assert (many["size"], one["size"]) == (2, 1)
    assert np.array(many["curve"]) == pytest.approx(np.array(one["curve"]), abs=TOLERANCE)
    assert np.array(many["scores"]) == pytest.approx(np.array(one["scores"]), abs=TOLERANCE)
    assert [p.name for p in (tmp_path / "many").iterdir()] == ["result.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "fate"), [("die", 9), ("hang", None)])
def test_a_process_that_dies_or_hangs_stops_the_others_soon(pool, tmp_path, what, fate):
    """The other says that it lost it, long before the hanging one would wake up."""
    first, last = processes(pool, tmp_path / "out", what)
    try:
        said = first.communicate(timeout=200)[1]
        assert first.returncode in (2, -signal.SIGABRT), (
            said
        )  # gloo's own thread may end the process before Python hears of it
        if first.returncode == 2:
            assert "PeerError: lost the other processes of this training" in said
        assert (last.poll() if fate is None else last.wait(10)) == fate
    finally:
        for process in (first, last):
            process.kill()
            process.communicate()
    assert list((tmp_path / "out").iterdir()) == []


def torchrun(*arguments):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, "-m", "server_train", *map(str, arguments)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_torchrun_makes_the_model_that_one_process_makes(pool, tmp_path, capsys):
    done = torchrun("--pool", pool.path, "--out", tmp_path / "two", "--seed", 3, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["processes"], said["rows"]) == (2, 5003)
    assert command.main(["--pool", str(pool.path), "--out", str(tmp_path / "one"), "--seed", "3"]) == 0
    assert "by one process" in capsys.readouterr().out
    two, one = (load_model(tmp_path / name) for name in ("two", "one"))
    rows = table(2000, BINARY, 9)
    assert two.predict(rows) == pytest.approx(one.predict(rows), abs=5e-3)  # of 1500 steps
    labels, truth = class_codes(BINARY, rows), class_chances(rows, 2)
    best = evaluate_scores(labels, truth, BINARY.classes).roc_auc
    assert evaluate_scores(labels, two.predict(rows), BINARY.classes).roc_auc > best - 0.02
    assert two.card.institutions == one.card.institutions == pool.card.institutions
    assert two.card.privacy == pool.card.privacy
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["model.json", "model.safetensors", "report.html"]


@pytest.mark.slow
def test_a_fault_that_one_process_meets_stops_all_and_is_told_once(pool, tmp_path):
    """A row group that only the second process reads is damaged."""
    from server_train.pooling import streaming

    path = tmp_path / "pool.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "FIRST_ROWS", 2000)
        patch.setattr(streaming, "GROUP_ROWS", 2000)
        damaged = stored_pool(path, BINARY, 10_000)
    place = damaged._file.metadata.row_group(3).column(5)  # a soft label: no other process looks at it
    data = bytearray(path.read_bytes())
    start = place.dictionary_page_offset or place.data_page_offset
    data[start : start + place.total_compressed_size] = bytes(place.total_compressed_size)
    path.write_bytes(data)
    done = torchrun("--pool", path, "--out", tmp_path / "model")
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "is not a readable Parquet file" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pool.parquet"]


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8192])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_of_all_processes_are_all_rows(rows, size):
    shares = [Group(rank=rank, size=size).share(rows) for rank in range(size)]
    assert [row for share in shares for row in range(rows)[share]] == list(range(rows))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_an_environment_that_cannot_be_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match="must be whole numbers"), joined():
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--batch-size", "0"], "batch_size must be a finite number above 0"),
        (["--timeout", "0"], "timeout must be a finite number above 0"),
        (["--pool", "absent.parquet"], "no pool at absent.parquet"),
        (["--out", __file__], "is a file; name a folder"),
        (["--device", "cuda"], "want a GPU each"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(pool, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    given = ["--pool", str(pool.path), "--out", str(tmp_path / "model"), *arguments]
    assert command.main(given) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "model").exists()
