"""How the registry of models reads on a terminal: the list, one version, and what differs between two."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from server_train.registry.registry import History
from server_train.registry.version import Version

SHOWN_CHARACTERS = 60  # of a value; the rest is in --json


def versions_table(history: History) -> Group | Table:
    """One line a version, the newest last."""
    table = _table("no", "made", "schema", "kind", "from", "rows", "AUC, R2", "epsilon", right=(0, 4, 5, 6, 7))
    table.collapse_padding, table.columns[2].min_width = True, 12  # fits 80 characters
    for version in history.versions:
        record, (_, value) = version.record, version.headline
        table.add_row(
            f"{'* ' if history.current.get(record.schema_digest) == version.number else ''}{version.number}",
            version.made[:10],
            _text(record.schema_name + (" (REHEARSAL)" if record.rehearsal else "")),
            record.kind,
            str(len(record.inputs)),
            f"{record.recipe.get('rows', 0):,}",
            f"{value:.3f}" if value is not None else "-",
            f"{record.disjoint.epsilon:.2f}/{record.overlapping.epsilon:.2f}",
        )
    words = (
        "* current for its schema; from: institutions; AUC, R2: on held-out synthetic rows; "
        "epsilon: customers disjoint / overlapping."
    )
    return Group(table, _text(words if history.current else f"{words} No version is promoted yet."))


def version_page(version: Version, history: History, command: str) -> Group:
    """All that a person asks of one version."""
    record = version.record
    current = history.current.get(record.schema_digest) == version.number
    members = _table("institution", "rows", "head", "bundle", "signer", "ledger head", right=(1, 2))
    for i in record.inputs:
        shares = (f"{i.row_share:.1%}", f"{i.head_share:.1%}")
        members.add_row(_text(i.institution), *shares, _short(i.sha256), _short(i.public_key), _short(i.ledger_head))
    files = _table("file", "bytes", "SHA-256", right=(1,))
    for name, entry in version.files.items():
        files.add_row(_text(name), f"{entry.size:,}", _short(entry.sha256))
    lines = [
        f"version {version.number}"
        + (", current" if current else "")
        + (", REHEARSAL: NOT PRIVATE" if record.rehearsal else ""),
        f"made {version.made} by {version.made_by}; digest {version.digest}",
        f"{record.kind} for {record.target!r} of {record.schema_name} from {len(record.features)} columns",
        f"epsilon {record.disjoint.epsilon:.4g} if no customer is at two institutions, "
        f"{record.overlapping.epsilon:.4g} if one may be at all",
    ]
    said = {"promote": "promoted", "rollback": "back by rollback"}
    marks = [
        f"{said[m.action]} {m.at} by {m.by}: {m.reason or 'no reason given'}"
        for m in history.marks
        if m.version == version.number
    ]
    return Group(
        *map(_text, lines),
        members,
        _pairs("settings", _flat(record.recipe)),
        _pairs("on held-out synthetic rows", record.metrics),
        _pairs("software", record.software),
        files,
        *map(_text, marks),
        _text(f"to make it again: {command}"),
    )


def difference_text(found: Mapping[str, Any]) -> Group | str:
    """Only what differs."""
    one, two = found["versions"]
    parts: list[Any] = []
    for sign, change in (("+", "added"), ("-", "removed")):
        parts += [_text(f"{sign} bundle of {i['institution']}  {i['sha256']}") for i in found["inputs"][change]]
        parts += [_text(f"{sign} column {name}") for name in found["features"][change]]
    for part in ("weights", "settings", "metrics", "privacy", "model", "software", "files"):
        if found[part]:
            table = _table(part, f"version {one}", f"version {two}")
            for name, (old, new) in found[part].items():
                table.add_row(_text(name), _text(_value(old)), _text(_value(new)))
            parts.append(table)
    return (
        Group(*parts) if parts else f"Versions {one} and {two} are the same in everything but their numbers and times."
    )


def _pairs(title: str, values: Mapping[str, Any]) -> Table:
    table = _table(title, "")
    for name, value in values.items():
        table.add_row(_text(name), _text(_value(value)))
    return table


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those inside of settings."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= value if isinstance(value, Mapping) else {name: value}
    return out


def _short(digest: str) -> str:
    """Enough of a digest to tell it from others; all of it is in --json."""
    return f"{digest[:12]}…"


def _value(value: Any) -> str:
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _table(*columns: str, right: tuple[int, ...] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        folded = name in ("schema", "institution", "file")
        table.add_column(name, overflow="fold", no_wrap=not folded, justify="right" if place in right else "left")
    return table


def _text(words: str) -> Text:
    """Other people's words as they are, without markup."""
    return Text(words)
