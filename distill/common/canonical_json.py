"""One way to write a value as JSON bytes, so that hashes and signatures mean the same on every machine.

Keys are sorted, nothing is padded, text is ASCII with escapes, floats are written so that they read back to the very
same number (`repr`), and NaN or infinity cannot be written. Reading accepts only bytes that this module would have
written: a repeated key, another order or another spelling of the same number is refused.
"""

import json
from typing import Any


def canonical(value: Any) -> bytes:
    """The canonical JSON of `value`. Raises ValueError for NaN or infinity, TypeError for what JSON cannot hold."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def parse_canonical(data: bytes) -> Any:
    """The value that `data` is the canonical JSON of. Raises ValueError for anything else, however deep or long."""
    try:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses lone surrogates, which no terminal can print
        same = canonical(value) == data
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({type(error).__name__})") from None
    if not same:
        raise ValueError("not in canonical form (order, spacing, a repeated key or another spelling of a number)")
    return value
