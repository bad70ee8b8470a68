"""What the terms of a contribution are called and how they read, for the report; a term that is not known here is shown all the same.

The report shows whatever a card says of an institution: a number that is no fact of identity is a term.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from server_train.models.cards import InstitutionCard

Form = Literal["share", "count", "figure"]
# Who, from where, at what cost: shown elsewhere in the report.
FACTS = {"bytes", "epsilon", "delta", "pooled_rows", "created", "class_prior", "rehearsal"}
SHARES = ("row_share", "head_share")


@dataclass(frozen=True)
class Term:
    """One term: its label, how its values are written, and what it means, in a sentence (empty: nobody said)."""

    name: str
    label: str
    form: Form
    meaning: str = ""


_KNOWN = [
    Term("noisy_rows", "rows (noisy)", "count", "Size of the institution's table, as its bundle releases it."),
    Term("counted_rows", "rows counted", "count", "As many of them as count."),
    Term("label_balance", "label balance", "figure", "1: all classes equally frequent; 0: one class only."),
    Term(
        "head_information",
        "head information",
        "count",
        "What its class head knows: much where many balanced rows met little noise.",
    ),
    Term("diversity", "diversity", "figure", "Effective number of groups of customers that its rows are spread over."),
    Term(
        "agreement",
        "agreement",
        "figure",
        "1: its statistics are those of the others, up to noise; 0: nothing in common.",
    ),
    Term(
        "direction", "direction", "figure", "Whether its class head says what the others' say; below 0: the opposite."
    ),
    Term("effect", "effect", "figure", "What its class head adds to what the others' explain; below 0: it harms."),
    Term("weight", "weight", "share", "How far its report is trusted; both shares carry it."),
    Term("row_share", "share of rows", "share", "Part of the pooled rows that are drawn from its bundle."),
    Term("head_share", "share of head", "share", "Part in labelling the pooled rows."),
]
KNOWN = {term.name: term for term in _KNOWN}


def terms_of(members: Sequence[InstitutionCard]) -> list[Term]:
    """The terms that any institution has: those known first, in their order, then others as they come."""
    found = {name for m in members for name in terms_in(m)}
    others = [name for m in members for name in terms_in(m) if name not in KNOWN]
    return [term for term in _KNOWN if term.name in found] + [_named(name) for name in dict.fromkeys(others)]


def terms_in(member: InstitutionCard) -> dict[str, float]:
    """Return the numbers of one institution that are terms, also those one level down."""
    return _numbers(member.entries())


def _numbers(entries: Iterable[tuple[str, Any]]) -> dict[str, float]:
    """Return the numbers among entries that are terms."""
    found: dict[str, float] = {}
    for name, value in entries:
        if isinstance(value, Mapping):
            found |= _numbers(value.items())
        elif name not in FACTS and isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def reasons_of(member: InstitutionCard) -> list[str]:
    """What a card says of one institution in words: every list of sentences."""
    lists = (value for _, value in member.entries() if isinstance(value, list | tuple))
    return [words for values in lists for words in values if isinstance(words, str)]


def _named(name: str) -> Term:
    form: Form = "share" if name.endswith("_share") else "count" if name.endswith(("_rows", "_bytes")) else "figure"
    return Term(name, name.replace("_", " "), form)
