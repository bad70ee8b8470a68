"""Eight processes at one ledger, each with whole releases: never more than the grant, nothing lost, nobody waits for ever."""

import contextlib
import hashlib
import multiprocessing
import os
import queue
import time
from collections import Counter

import pytest

from distill.common.keys import generate_key, load_signing_key
from distill.errors import BudgetError
from distill.ledger import create_ledger, open_ledger
from distill.privacy.events import Event

CROWD, GRANT, EPSILON = 8, 4.0, 0.3  # 13 releases fit
STEPS = ("reserve", "plan", "commit", "abandon")
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0)
REST = Event(name="encode", mechanism="gaussian", noise_multiplier=20.0, round=1)
LIMIT_SECONDS = 240.0  # of a machine that is busy with other things; a deadlock lasts longer


def release_until_refused(number, ledger_path, key_path, start, results):
    """Release again and again, cut short now and then; the last thing told is the refusal. The eighth dies in the middle."""
    ledger, key = open_ledger(ledger_path), load_signing_key(key_path)

    def reserve(turn):
        return ledger.reserve(
            epsilon=EPSILON, delta=1e-5, purpose=f"{number}.{turn}", actor="operator", events=[SIZE], key=key
        )

    if number == CROWD - 1:
        results.put((number, 0, "reserve", reserve(0).release))
        results.close()
        results.join_thread()  # what was told is told
        start.wait(LIMIT_SECONDS)
        os._exit(9)
    start.wait(LIMIT_SECONDS)
    for turn in range(100):
        try:
            mine = reserve(turn)
        except BudgetError:
            results.put((number, turn, "refused", ""))
            return
        results.put((number, turn, "reserve", mine.release))
        if (number + turn) % 3 == 1:
            mine.abandon("too small")
            results.put((number, turn, "abandon", mine.release))
            continue
        mine.plan([REST])
        results.put((number, turn, "plan", mine.release))
        mine.commit(digest_of(mine.release))
        results.put((number, turn, "commit", mine.release))


def digest_of(release):
    return hashlib.sha256(release.encode()).hexdigest()


@pytest.fixture
def forkserver():
    """Processes that start with everything imported, all from one clean parent."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distill.ledger", "dp_accounting.pld"])
    return context


def test_eight_processes_with_whole_releases_never_overspend_and_lose_nothing(tmp_path, forkserver):
    key = generate_key(tmp_path / "key.pem")
    ledger = create_ledger(tmp_path / "ledger.db", dataset="0" * 32, unit="row", key=key)
    ledger.grant(epsilon=GRANT, delta=1e-3, reason="r", actor="officer", key=key)
    start, results = forkserver.Barrier(CROWD), forkserver.Queue()
    processes = [
        forkserver.Process(
            target=release_until_refused, args=(number, ledger.path, tmp_path / "key.pem", start, results)
        )
        for number in range(CROWD)
    ]
    for process in processes:
        process.start()
    told, give_up = [], time.monotonic() + LIMIT_SECONDS
    while sum(what == "refused" for _, _, what, _ in told) < CROWD - 1:
        with contextlib.suppress(queue.Empty):
            told.append(results.get(timeout=1.0))
        assert all(process.exitcode in (None, 0, 9) for process in processes), "a process ended in an error"
        assert time.monotonic() < give_up, "the processes wait for each other"
    for process in processes:
        process.join(LIMIT_SECONDS)
    assert [process.exitcode for process in processes] == [0] * (CROWD - 1) + [9]
    while not results.empty():
        told.append(results.get())
    results.close()
    results.join_thread()

    found = ledger.verify(key.public_hex)
    books = found.summary
    assert books.spent_epsilon <= GRANT * (1 + 1e-9)
    assert books.remaining_epsilon < EPSILON, "the processes stopped while a release still fitted"
    # Every step that a process was told is done is in the books, and nothing else is.
    assert Counter(e.kind for e in ledger.entries()) == Counter(
        {"open": 1, "grant": 1, **Counter(what for _, _, what, _ in told if what in STEPS)}
    )
    last = {release: what for _, _, what, release in told if release}
    ended = {"commit": "committed", "abandon": "abandoned", "reserve": "reserved"}
    assert {r.release: r.status for r in books.releases} == {release: ended[what] for release, what in last.items()}
    assert all(r.bundle == digest_of(r.release) for r in books.releases if r.status == "committed")
    assert len(books.standing) == 1, "that of the process that died"
    assert books.spent_epsilon == pytest.approx(sum(r.charged.epsilon for r in books.releases))
    assert [e.sequence for e in ledger.entries()] == list(range(1, books.entries + 1))
