"""Data sets that hold some of the same customers: for a customer in all of them, what they spend adds up.

Which data sets do, only an officer can know; a `link` entry declares it. A ledger counts its own data set only, so the sum
is drawn up here, from ledgers that are each verified. Epsilons and deltas add up whatever the releases were (basic
composition, Dwork & Roth 2014, theorem 3.16).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import ConfigError
from distill.ledger import Ledger, Verification, open_ledger


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A linked data set whose ledger was given and verifies."""

    name: str
    verification: Verification


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A data set that was declared to share customers and whose ledger was not given: its part of the sum is unknown."""

    name: str
    dataset: str
    declared_by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Linked:
    """The sum for a customer who is in all given data sets.

    Attributes:
        neighbours: Given and verified, beside the ledger itself.
        missing: Declared and not given; with any, the sums are only a part.
        spent_epsilon, spent_delta: So far, all given ledgers together.
        granted_epsilon, granted_delta: What they may spend at most, as granted now.
        units_differ: Their units are not the same, so a customer may count in one as several.
    """

    neighbours: tuple[Neighbour, ...]
    missing: tuple[Missing, ...]
    spent_epsilon: float
    spent_delta: float
    granted_epsilon: float
    granted_delta: float
    units_differ: bool


def add_up(own: Verification, others: Sequence[Path], *trusted: str) -> Linked:
    """Verify the other ledgers and add up what all of them spend.

    Args:
        own: Of the ledger that is reported on.
        others: Ledgers of data sets that are linked with it, in either direction.
        trusted: Public keys from outside; each ledger that one of them signed is checked against it.

    Raises:
        ConfigError: A ledger is given twice, or is not linked.
        LedgerError, LedgerTamperedError: A ledger cannot be read or does not verify.
    """
    neighbours: list[Neighbour] = []
    seen = {own.summary.dataset}
    for path in others:
        found = _verified(open_ledger(path), trusted)
        _require_new(path, found, seen, own)
        neighbours.append(Neighbour(name=_name_of(own, found), verification=found))
        seen.add(found.summary.dataset)
    books = [own.summary, *(n.verification.summary for n in neighbours)]
    return Linked(
        neighbours=tuple(neighbours),
        missing=tuple(_missing(own, neighbours, seen)),
        spent_epsilon=sum(b.spent_epsilon for b in books),
        spent_delta=sum(b.spent_delta for b in books),
        granted_epsilon=sum(b.granted_epsilon for b in books),
        granted_delta=sum(b.granted_delta for b in books),
        units_differ=len({b.unit for b in books}) > 1,
    )


def _verified(ledger: Ledger, trusted: Sequence[str]) -> Verification:
    """The other ledger's verification, against those of the given keys that signed in it."""
    signers = {e.public_key for e in ledger.entries()}
    return ledger.verify(*(key for key in trusted if key in signers))


def _require_new(path: Path, found: Verification, seen: set[str], own: Verification) -> None:
    """Raise ConfigError unless the ledger is of a further data set and linked with `own`."""
    dataset = found.summary.dataset
    if dataset == own.summary.dataset:
        raise ConfigError(
            f"{path} is a ledger of the same data set {dataset} as {own.path}; it would count twice. "
            "`distill ledger diff` compares two copies of a ledger."
        )
    if dataset in seen:
        raise ConfigError(f"{path}: data set {dataset} was given already; give each ledger once.")
    declared = {link.dataset for link in own.summary.links} | (
        {dataset} if any(link.dataset == own.summary.dataset for link in found.summary.links) else set()
    )
    if dataset not in declared:
        raise ConfigError(
            f"{path} (data set {dataset}) is not linked with {own.path}, in either direction. If they share customers, an "
            f"officer declares it with `distill ledger link {path} --reason TEXT`; else leave it out."
        )


def _name_of(own: Verification, found: Verification) -> str:
    """What the officer called the other data set; where only the other ledger declares the link, its folder's name."""
    called = next((link.name for link in own.summary.links if link.dataset == found.summary.dataset), None)
    return called or found.path.resolve().parent.name


def _missing(own: Verification, neighbours: Sequence[Neighbour], seen: set[str]) -> Iterator[Missing]:
    """Declared by any of the given ledgers, and not given."""
    named: set[str] = set()
    for by, found in [("this ledger", own), *((n.name, n.verification) for n in neighbours)]:
        for link in found.summary.links:
            if link.dataset not in seen | named:
                named.add(link.dataset)
                yield Missing(name=link.name, dataset=link.dataset, declared_by=by, reason=link.reason)
