"""What differs between two versions of a model: bundles, weights, settings, figures, columns."""

from collections.abc import Mapping
from typing import Any

from server_train.registry.version import Input, Record, Version

WEIGHTS = ("row_share", "head_share", "weight")  # of an institution; `weight` where its card has one


def difference(one: Version, two: Version) -> dict[str, Any]:
    """All that differs, as one JSON object; what is alike is left out, and a part without differences is empty.

    Bundles are told by their digests. An institution is told by its name, which is all that a new bundle shares with an old one.
    """
    a, b = one.record, two.record
    return {
        "versions": [one.number, two.number],
        "inputs": _inputs(a, b),
        "weights": _changes(_weights(a), _weights(b)),
        "settings": _changes(_flat(a.recipe), _flat(b.recipe)),
        "metrics": _changes(a.metrics, b.metrics),
        "privacy": _changes(_privacy(a), _privacy(b)),
        "features": {
            "added": [f for f in b.features if f not in a.features],
            "removed": [f for f in a.features if f not in b.features],
        },
        "model": _changes(_facts(a), _facts(b)),
        "software": _changes(a.software, b.software),
        "files": _changes(*({n: f.sha256 for n, f in v.files.items()} for v in (one, two))),
    }


def _inputs(a: Record, b: Record) -> dict[str, Any]:
    old, new = ({i.sha256: i for i in record.inputs} for record in (a, b))
    return {
        "added": [_named(i) for digest, i in new.items() if digest not in old],
        "removed": [_named(i) for digest, i in old.items() if digest not in new],
        "kept": len(old.keys() & new.keys()),
    }


def _named(bundle: Input) -> dict[str, str]:
    return {"institution": bundle.institution, "sha256": bundle.sha256, "public_key": bundle.public_key}


def _weights(record: Record) -> dict[str, Any]:
    return {
        f"{i.institution}: {name}": facts[name]
        for i in record.inputs
        for facts in [i.model_dump()]
        for name in WEIGHTS
        if name in facts
    }


def _privacy(record: Record) -> dict[str, float]:
    readings = {"disjoint": record.disjoint, "overlapping": record.overlapping}
    return {f"{name} {part}": value for name, r in readings.items() for part, value in r.model_dump().items()}


def _facts(record: Record) -> dict[str, Any]:
    names = ("kind", "schema_name", "schema_digest", "target", "rehearsal")
    return {name: getattr(record, name) for name in names}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as `training.steps`-like names."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return out


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Name -> [old, new] of what is not the same; None where a side has nothing of this name."""
    names = [*old, *(n for n in new if n not in old)]
    return {n: [old.get(n), new.get(n)] for n in names if old.get(n) != new.get(n) or (n in old) != (n in new)}
