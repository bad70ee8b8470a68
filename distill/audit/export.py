"""The ledger as one JSON file, for an auditor who has no need of the database: all entries as stored, and the seal.

`python -m distill.recompute FILE` recomputes every epsilon from it. Reading it checks what reading the ledger checks: each
hash and signature, every rule of the books, and the seal on the end.
"""

import json
from pathlib import Path
from typing import Any

from distill.common import files
from distill.common.canonical_json import canonical
from distill.errors import LedgerError, LedgerTamperedError
from distill.ledger import Ledger
from distill.ledger.entries import store
from distill.ledger.entries.entry import RELATION, head_is_sealed
from distill.ledger.rules.state import State
from distill.ledger.verification import admit, replay

FORMAT = "distill ledger export 1"
MOST_BYTES = 1 << 28


def export_ledger(ledger: Ledger) -> dict[str, Any]:
    """The whole ledger as plain values, from one snapshot of the file. Raises LedgerError, LedgerTamperedError."""
    with store.reading(ledger.path) as connection:
        state = replay(ledger.path, connection)
        _, seal = store.head(connection)
    return {
        "format": FORMAT,
        "dataset": state.first.dataset,
        "unit": state.first.unit,
        "relation": RELATION,
        "head": state.last.hash,
        "seal": seal,
        "entries": [entry.model_dump(mode="json") for entry in state.entries],
    }


def export_bytes(exported: dict[str, Any]) -> bytes:
    """The file's contents: JSON with one entry a line, so that two exports compare line by line."""
    head = {key: value for key, value in exported.items() if key != "entries"}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    entries = ",\n".join("  " + canonical(entry).decode() for entry in exported["entries"])
    return ("{\n" + ",\n".join([*lines, f' "entries": [\n{entries}\n ]']) + "\n}\n").encode()


def read_export(path: Path) -> State:
    """The books of an exported ledger, every entry checked. Raises LedgerError, LedgerTamperedError naming the entry."""
    with files.wrapped("read", path, LedgerError), path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        if len(data) > MOST_BYTES:
            raise ValueError("it is too large")
        exported = json.loads(data)
        entries, sealed = list(exported["entries"]), str(exported["seal"])
        if exported["format"] != FORMAT:
            raise ValueError("its format is another one")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerError(
            f"{path} is not an exported ledger ({type(error).__name__}). `distill ledger export -o FILE` makes one."
        ) from None
    try:
        state = admit((number, canonical(raw)) for number, raw in enumerate(entries, start=1))
        if not entries or not head_is_sealed(state.last, sealed):
            raise ValueError(
                "the end of the chain: the seal is not that of the last entry: entries were cut off or put on"
            )
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerTamperedError(
            f"{path}: {error}. The export was altered or damaged: make it again from the ledger."
        ) from None
    return state
