"""Two copies of one ledger, compared: the same, one an older copy of the other, or parted ways.

A copy is a ledger's file, an export of it, or a bundle, which carries the chain of its time: of most entries only the
fingerprint. Each is verified as it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill.audit.export import read_export
from distill.common import files
from distill.errors import LedgerError
from distill.ledger import Entry, open_ledger
from distill.ledger.rules.state import State

Kind = Literal["ledger", "export", "bundle"]
Relation = Literal["equal", "first is older", "second is older", "forked"]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A chain of entries, as far as a copy knows it.

    Attributes:
        hashes: Of all entries, in order.
        entries: Those that the copy shows, by their number.
        state: The books; None for a bundle, which does not show all entries.
    """

    path: Path
    kind: Kind
    dataset: str
    hashes: tuple[str, ...]
    entries: Mapping[int, Entry]
    state: State | None

    def described(self, number: int) -> str:
        """An entry in a line."""
        entry = self.entries.get(number)
        if entry is None:
            return f"{number}  (not shown by the {self.kind})  {self.hashes[number - 1][:16]}..."
        return f"{number}  {entry.time[:10]}  {entry.kind} by {entry.actor}  {entry.hash[:16]}..."


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two chains of one data set relate.

    Attributes:
        common: Entries that both begin with.
        together: (epsilon, delta) that both copies of a forked ledger spent, added up; None: not forked, or not known,
            since a bundle does not show all entries.
    """

    first: Chain
    second: Chain
    relation: Relation
    common: int
    together: tuple[float, float] | None

    def after(self, chain: Chain) -> range:
        """The numbers of the entries that follow the common ones."""
        return range(self.common + 1, len(chain.hashes) + 1)


def compare(first: Chain, second: Chain) -> Comparison:
    """How they relate. Raises LedgerError if they are of different data sets."""
    if first.dataset != second.dataset:
        raise LedgerError(
            f"{first.path} is of data set {first.dataset} and {second.path} of {second.dataset}: each has a ledger of its "
            "own, and there is nothing to compare. If they share customers, `distill ledger link` declares it."
        )
    pairs = enumerate(zip(first.hashes, second.hashes, strict=False))
    shorter = min(len(first.hashes), len(second.hashes))
    common = next((number for number, (a, b) in pairs if a != b), shorter)
    relation: Relation = "forked"
    if common == len(first.hashes) == len(second.hashes):
        relation = "equal"
    elif common == shorter:
        relation = "first is older" if shorter == len(first.hashes) else "second is older"
    together = _together(first, second, common) if relation == "forked" else None
    return Comparison(first=first, second=second, relation=relation, common=common, together=together)


def read_chain(path: Path) -> Chain:
    """Read a ledger, an export or a bundle, each by its first bytes, and check it. Raises LedgerError, BundleError."""
    with files.wrapped("read", path, LedgerError), path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        return _from_bundle(path)
    if start.startswith(b"SQLite format 3"):
        return _from_state(path, "ledger", open_ledger(path).state())
    if start.lstrip().startswith(b"{"):
        return _from_state(path, "export", read_export(path))
    raise LedgerError(f"{path} is neither a ledger, nor an exported one (JSON), nor a bundle.")


def _from_state(path: Path, kind: Kind, state: State) -> Chain:
    return Chain(
        path=path,
        kind=kind,
        dataset=state.first.dataset,
        hashes=tuple(e.hash for e in state.entries),
        entries={e.sequence: e for e in state.entries},
        state=state,
    )


def _from_bundle(path: Path) -> Chain:
    from distill.exchange.bundle import read_bundle  # heavy: it checks every sample

    bundle = read_bundle(path)
    shown = [Entry.model_validate(raw) for raw in bundle.manifest.ledger.entries]
    return Chain(
        path=path,
        kind="bundle",
        dataset=bundle.manifest.dataset,
        hashes=bundle.proven.hashes,
        entries={e.sequence: e for e in shown},
        state=None,
    )


def _together(first: Chain, second: Chain, common: int) -> tuple[float, float] | None:
    """What both spent, each release once, or twice where both copies went on with it."""
    if first.state is None or second.state is None:
        return None
    books = (first.state, second.state)
    moved = [{e.body["release"] for e in s.entries[common:] if "release" in e.body} for s in books]
    twice = moved[0] & moved[1]
    epsilon = delta = 0.0
    for release in {*books[0].releases, *books[1].releases}:
        charges = [s.releases[release].charged for s in books if release in s.releases]
        counted = charges if release in twice else [max(charges, key=lambda c: (c.epsilon, c.delta))]
        epsilon += sum(c.epsilon for c in counted)
        delta += sum(c.delta for c in counted)
    return epsilon, delta
