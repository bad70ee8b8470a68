"""The file of a released evaluation: one JSON document with the noisy table, its figures, what paid for it, and a signature.

Its SHA-256 is in the ledger, as a bundle's is, so `ledger verify --against` tells whose release it is.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.common import files
from distill.common.canonical_json import canonical
from distill.common.keys import SigningKey, verify_signature
from distill.common.metadata import software
from distill.errors import BundleError, BundleManifestError, BundleSignatureError
from distill.exchange.noisy_scores import NoisyBlock
from distill.ledger.entries.entry import RELATION

FORMAT = "distill dp evaluation 1"
MOST_BYTES = 1 << 24
WORD = (
    "Differentially private: every figure follows from the noisy table of this release, which the ledger paid for. It may be published; "
    "what it adds to the spending of this data set is epsilon {epsilon:g} at delta {delta:g}."
)
REHEARSED = "REHEARSAL, NOT PRIVATE: the noise of these figures can be repeated, so they must not leave the house."
_DOMAIN = b"distill dp evaluation 1\n"  # one key signs ledgers, bundles and these: no signature fits two of them


def evaluation_document(
    blocks: Sequence[NoisyBlock],
    figures: dict[str, Any],
    *,
    privacy: dict[str, Any],
    rehearsal: bool,
    created: str,
    key: SigningKey,
    **about: Any,
) -> dict[str, Any]:
    """The document, signed.

    Args:
        blocks: The noisy table.
        figures: That follow from it.
        privacy: Epsilon, delta, unit and events.
        rehearsal: Whether its noise is repeatable.
        created: The day of its reservation.
        key: Of an operator of the ledger.
        about: Further fields: institution, data set, release, ledger head, model.
    """
    first = blocks[0]
    document = {
        "format": FORMAT,
        "word": REHEARSED if rehearsal else WORD.format(**privacy),
        "created": created,
        "software": software(),
        "rehearsal": rehearsal,
        **about,
        "privacy": {**privacy, "relation": RELATION},
        "noise": {"law": f"rounded {first.law}", "scale": first.scale, "stddev": float(first.stddev)},
        "table": [
            {
                "of": b.block.name,
                "edges": list(b.block.edges),
                "middles": list(b.block.middles),
                "wins": list(b.block.wins),
                "losses": [list(side) for side in b.block.losses],
                "others": b.counts[0].tolist(),
                "rows": b.counts[1].tolist(),
            }
            for b in blocks
        ],
        "figures": figures,
        "public_key": key.public_hex,
    }
    return {**document, "signature": key.sign(_DOMAIN + canonical(document)).hex()}


def write_document(place: Path, document: dict[str, Any]) -> str:
    """Write a document and return the SHA-256 of its bytes. Raises OSError."""
    data = (json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")
    files.write_exactly(place, data)
    return hashlib.sha256(data).hexdigest()


def is_evaluation(path: Path) -> bool:
    """Whether a file is JSON, as a released evaluation is, and no bundle. False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError:
        return False


def read_document(path: Path, *, public_hex: str | None = None) -> tuple[dict[str, Any], str]:
    """A released evaluation, its signature checked, and the SHA-256 of the file.

    Args:
        path: The file.
        public_hex: The institution's key, from outside; None: the file vouches for itself.

    Raises:
        BundleManifestError: It is no released evaluation.
        BundleSignatureError: It was changed, or another key signed it.
    """
    with files.wrapped("read", path, BundleError), path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        if len(data) > MOST_BYTES:
            raise ValueError("it is too large")
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError("its format is another one")
        signature, key = bytes.fromhex(document["signature"]), str(document["public_key"])
        signed = canonical({name: value for name, value in document.items() if name != "signature"})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleManifestError(f"{path} is not a released evaluation ({type(error).__name__}).") from None
    if not verify_signature(key, signature, _DOMAIN + signed):
        raise BundleSignatureError(f"{path}: the signature does not match. Ask the institution for the file again.")
    if public_hex is not None and key != public_hex:
        raise BundleSignatureError(f"{path} is signed by key {key}, and {public_hex} was expected.")
    return document, hashlib.sha256(data).hexdigest()
