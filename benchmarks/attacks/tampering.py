"""Can a ledger be changed without anybody noticing? Every bit, every length, every order, every signed replacement.

    python -m benchmarks.attacks.tampering --out tampering.csv
    python -m benchmarks.attacks.tampering --quick

A changed file is *detected* if opening it (every command does) or `verify` refuses it; *without meaning* if it is accepted and
entries, books and verification are what they were; *an older ledger* if it reads as the same ledger was before, or as one that
the same key has signed in its place: no file can show that by itself, and a head that left the house does; *read
differently* is anything else, and then the benchmark ends with 1. *Refused by a defect*: nothing is read, but the refusal is
none of our errors.
"""

import argparse
import contextlib
import copy
import functools
import itertools
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.attacks.tools.sqlite_regions import in_order, regions_of
from distill.common.keys import SigningKey, generate_key
from distill.errors import LedgerError
from distill.ledger import Ledger, Reservation, Verification, create_ledger, open_ledger
from distill.ledger.entries import store as ledger_store
from distill.privacy.events import Event

DATASET, BUNDLE, OTHER_BUNDLE = "0123456789abcdef0123456789abcdef", "ab" * 32, "cd" * 32
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0, purpose="noisy row count")
REST = (
    Event(name="encode", mechanism="gaussian", noise_multiplier=20.0, blocks=10, round=1),
    Event(name="sgd", mechanism="poisson_gaussian", noise_multiplier=6.0, sampling_rate=0.05, count=200, round=1),
)
DETECTED, BY_VERIFY, MEANINGLESS, OLDER = "detected", "detected by verify", "without meaning", "an older ledger"
UNTOLD, DIFFERENT = "refused by a defect", "read differently"
OUTCOMES = (DETECTED, BY_VERIFY, MEANINGLESS, OLDER, UNTOLD, DIFFERENT)
QUICK_STRIDE = 1009  # prime, so that all bits of a byte have their turn
PROBES = 100  # meaningless bits, of 200,000 or so, that are also looked at in full; beside the first of each region
Content = tuple[list[tuple[int, bytes]], tuple[int, str]]


@dataclass(frozen=True, eq=False)
class Story:
    """A ledger, and the states that it went through.

    Attributes:
        ledger, key: The ledger, and who signed it.
        before: A copy of the file before each entry after the first.
        forks: For each of them, a copy in which the same key went on with another entry of the same kind.
    """

    ledger: Ledger
    key: SigningKey
    before: list[Path]
    forks: list[Path]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    stride = QUICK_STRIDE if options.quick else options.stride
    shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    started, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory(dir=shared_memory) as folder:
        story = told(Path(folder))
        for part in options.parts:
            for change, counted in PARTS[part](story, stride).items():
                rows.append({"change": change, "cases": counted.total(), **{name: counted[name] for name in OUTCOMES}})
            print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    if options.out:
        pd.DataFrame(rows).to_csv(options.out, index=False)
    print(markdown(rows))
    return int(any(row[DIFFERENT] for row in rows))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help=f"each {QUICK_STRIDE}th bit and length only")
    p.add_argument("--stride", type=int, default=1, help="each n-th bit and length only (default: 1)")
    p.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    p.add_argument("--out", type=Path, metavar="FILE.csv")
    return p


# --- the ledger ------------------------------------------------------------------------------------------------------


def told(folder: Path) -> Story:
    """A small ledger of ten entries: a committed, an abandoned and a standing release under two grants."""
    key = generate_key(folder / "key.pem")
    ledger = create_ledger(folder / "ledger.db", dataset=DATASET, unit="row", key=key)
    held: dict[str, Reservation] = {}

    def granted(epsilon: float, book: Ledger) -> None:
        book.grant(epsilon=epsilon, delta=1e-4, reason="for the benchmark", actor="officer", key=key)

    def reserved(name: str, epsilon: float, book: Ledger) -> None:
        made = book.reserve(epsilon=epsilon, delta=1e-5, purpose="scores", actor="operator", events=[SIZE], key=key)
        held.setdefault(name, made)

    def of(name: str, book: Ledger) -> Reservation:
        mine = copy.copy(held[name])
        mine.ledger = book
        return mine

    # Each step as it was, and as it might have been.
    steps: list[tuple[Callable[[Ledger], Any], Callable[[Ledger], Any]]] = [
        (lambda b: granted(2.0, b), lambda b: granted(9.0, b)),
        (lambda b: reserved("a", 0.5, b), lambda b: reserved("x", 0.4, b)),
        (lambda b: of("a", b).plan(REST), lambda b: of("a", b).plan(REST[:1])),
        (lambda b: of("a", b).commit(BUNDLE), lambda b: of("a", b).commit(OTHER_BUNDLE)),
        (lambda b: reserved("b", 0.5, b), lambda b: reserved("y", 0.4, b)),
        (lambda b: of("b", b).abandon("too small"), lambda b: of("b", b).abandon("too large")),
        (lambda b: granted(2.5, b), lambda b: granted(9.5, b)),
        (lambda b: reserved("c", 0.6, b), lambda b: reserved("z", 0.3, b)),
        (lambda b: of("c", b).plan(REST), lambda b: of("c", b).plan(REST[:1])),
    ]
    before, forks = [], []
    for number, (step, otherwise) in enumerate(steps, start=2):
        before.append(Path(shutil.copy(ledger.path, folder / f"before{number}.db")))
        forks.append(Path(shutil.copy(ledger.path, folder / f"fork{number}.db")))
        step(ledger)
        otherwise(open_ledger(forks[-1]))
    return Story(ledger, key, before, forks)


def content_of(path: Path) -> tuple[Content, bool]:
    """All that a ledger's file says (entries and seal, as stored), and whether SQLite finds its pages in order.

    The shape of the file is checked on the way. Raises LedgerError, or ValueError where there is no one seal.
    """
    with ledger_store.reading(path) as connection:
        content = list(ledger_store.rows(connection)), ledger_store.head(connection)
        try:
            ledger_store.check_pages(connection)
        except ValueError:
            return content, False
        return content, True


def outcome(path: Path, story: Story, content: Content, older: Sequence[Content] = ()) -> str:
    """What is made of a changed file, where `content` is what it says unchanged.

    Entries, books and verification follow from the content and from SQLite's check of the pages alone: where both are as
    they were, nothing needs to be verified twice. Where the content is another and the door lets it in, all are compared.
    """
    try:
        found, pages_in_order = content_of(path)
        if found == content:
            return MEANINGLESS if pages_in_order else BY_VERIFY
    except LedgerError:
        return DETECTED
    except Exception:  # whatever it is: what counts is what the door makes of it
        found = None
    try:
        opened = open_ledger(path)  # the door of every command
        if found in older:
            return OLDER
        return MEANINGLESS if says_the_same(opened, story) else DIFFERENT
    except LedgerError:
        return DETECTED
    except Exception:
        return UNTOLD


def says_the_same(changed: Ledger, story: Story) -> bool:
    """Whether all doors of a changed ledger answer as those of the unchanged one."""
    here, there = verified(story), changed.verify(story.key.public_hex)
    same = (there.summary, there.releases, there.checks) == (here.summary, here.releases, here.checks)
    return same and changed.entries() == story.ledger.entries() and changed.summary() == here.summary


def put(path: Path, data: bytes | bytearray) -> None:
    """Write a changed file, without what SQLite left beside the one before it."""
    for ending in ("-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{ending}")
    with open(path, "wb", buffering=0) as file:
        file.write(data)


# --- bits and lengths ------------------------------------------------------------------------------------------------


def flipped_bits(story: Story, stride: int) -> dict[str, Counter[str]]:
    """Flip one bit at a time: region -> outcomes. Some of the meaningless ones are looked at in full."""
    path = story.ledger.path
    data, (content, _) = path.read_bytes(), content_of(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"))
    regions, target = regions_of(data, roots), path.with_name("changed.db")
    counted: dict[str, Counter[str]] = {region: Counter() for region in in_order(regions)}
    meaningless = []
    for bit in range(0, 8 * len(data), stride):
        put(target, flipped(data, bit))
        found = outcome(target, story, content)
        counted[regions[bit // 8]][found] += 1
        if found == MEANINGLESS:
            meaningless.append(bit)
    first_of_each = {regions[bit // 8]: bit for bit in reversed(meaningless)}.values()
    probes = PROBES // stride + 1
    for bit in sorted({*first_of_each, *meaningless[:: len(meaningless) // probes + 1]}):
        put(target, flipped(data, bit))
        counted[regions[bit // 8]].update(looked_at_in_full(target, story))
    return {f"bit: {region}": found for region, found in counted.items() if found}


def flipped(data: bytes, bit: int) -> bytearray:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return changed


@functools.cache
def verified(story: Story) -> Verification:
    """What verifying the unchanged ledger gives."""
    return story.ledger.verify(story.key.public_hex)


def looked_at_in_full(path: Path, story: Story) -> Counter[str]:
    """Nothing, if a meaningless change really has no meaning: all doors say the same, and a further entry is safe."""
    changed, public, before = open_ledger(path), story.key.public_hex, story.ledger.entries()
    same = says_the_same(changed, story)
    try:
        changed.grant(epsilon=3.0, delta=1e-4, reason="after the change", actor="officer", key=story.key)
        same = same and changed.verify(public).summary.granted_epsilon == 3.0 and changed.entries()[:-1] == before
    except LedgerError:  # it may refuse to be written; then it must be as it was
        same = same and changed.entries() == before
    return Counter() if same else Counter({DIFFERENT: 1})


def cut_short(story: Story, stride: int) -> dict[str, Counter[str]]:
    """The file's first bytes alone, for every length."""
    path = story.ledger.path
    data, (content, _), target = path.read_bytes(), content_of(path), path.with_name("changed.db")
    older = [content_of(before)[0] for before in story.before]
    counted: Counter[str] = Counter()
    for length in range(0, len(data), stride):
        put(target, data[:length])
        counted[outcome(target, story, content, older)] += 1
    return {"cut short, to every length": counted}


# --- entries ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def meddling(path: Path) -> Iterator[sqlite3.Connection]:
    """Change a file as any SQLite tool can, triggers off, and leave it as it looked before."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
        for name in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for sql in triggers.values():
            connection.execute(sql)


def with_entries(story: Story, changes: dict[int, bytes]) -> str:
    """The outcome of putting other texts in the places of some entries."""
    target = story.ledger.path.with_name("changed.db")
    put(target, story.ledger.path.read_bytes())
    with meddling(target) as connection:
        for sequence, text in changes.items():
            connection.execute("UPDATE entries SET entry = ? WHERE sequence = ?", (text.decode(), sequence))
    return outcome(target, story, content_of(story.ledger.path)[0])


def swapped(story: Story) -> Counter[str]:
    """Each pair of entries in each other's place."""
    texts = dict(content_of(story.ledger.path)[0][0])
    pairs = itertools.combinations(texts, 2)
    return Counter(with_entries(story, {one: texts[other], other: texts[one]}) for one, other in pairs)


def repeated(story: Story) -> Counter[str]:
    """Each entry once more, in the place of each other one."""
    texts = dict(content_of(story.ledger.path)[0][0])
    return Counter(with_entries(story, {one: texts[other]}) for one, other in itertools.permutations(texts, 2))


def replaced(story: Story) -> dict[str, Counter[str]]:
    """Each entry by one of the same number and kind that the same key signed after the same entry, in a fork of the ledger."""
    alone: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for number, fork in enumerate(story.forks, start=2):
        texts = dict(content_of(fork)[0][0])
        alone[with_entries(story, {number: texts[number]})] += 1
        forked = open_ledger(fork)
        forked.verify(story.key.public_hex)
        caught = not forked.knows(story.ledger.head()) and not open_ledger(story.before[number - 2]).knows(
            story.ledger.head()
        )
        whole[OLDER if caught else DIFFERENT] += 1
    return {"an entry by a signed one of a fork": alone, "the whole file by the fork": whole}


def log_of_a_killed_writer(story: Story, stride: int) -> dict[str, Counter[str]]:
    """Flip bits of the write-ahead log that a killed writer leaves: SQLite drops a log from its first damaged frame on."""
    path = story.ledger.path.with_name("torn.db")
    put(path, story.before[-1].read_bytes())
    (before, _) = content_of(path)
    with ledger_store.reading(path):  # while a reader is there, a writer leaves its log
        open_ledger(path).grant(epsilon=3.0, delta=1e-4, reason="torn", actor="officer", key=story.key)
        main_file, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    target, counted = path.with_name("changed.db"), Counter[str]()
    put(target, main_file)
    Path(f"{target}-wal").write_bytes(log)
    (after, _) = content_of(target)
    for bit in range(0, 8 * len(log), stride):
        put(target, main_file)
        Path(f"{target}-wal").write_bytes(flipped(log, bit))
        counted[outcome(target, story, after, [before])] += 1
    return {"bit: write-ahead log after kill -9": counted}


def entries_moved(story: Story, stride: int) -> dict[str, Counter[str]]:
    """All that can be done with entries that are signed as they should be; few enough to try all."""
    return {
        "two entries swapped, every pair": swapped(story),
        "an entry in the place of another, every pair": repeated(story),
        **replaced(story),
    }


PARTS: dict[str, Callable[[Story, int], dict[str, Counter[str]]]] = {
    "bits": flipped_bits,
    "lengths": cut_short,
    "entries": entries_moved,
    "log": log_of_a_killed_writer,
}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table; the bits of the file itself are added up in a line of their own."""
    bits = [row for row in rows if row["change"].startswith("bit: ") and "log" not in row["change"]]
    total = {"change": "**all bits of the file**", **{n: sum(row[n] for row in bits) for n in ("cases", *OUTCOMES)}}
    lines = [list(total), ["---"] * len(total)]
    shown = [*bits, *[total] * bool(bits), *(row for row in rows if row not in bits)]
    lines += [[str(value) for value in row.values()] for row in shown]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
