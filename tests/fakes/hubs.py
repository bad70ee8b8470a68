"""Small stand-ins for institutions: a schema of every kind of column, tables, and generators that resample a table."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from distill.data.schema import Schema
from distill.exchange import generator_codec as generators
from server_train.intake import intake
from server_train.models.features import class_codes

BINARY = Schema.model_validate(
    {
        "name": "loans",
        "target": "default",
        "columns": [
            {"name": "income", "kind": "continuous", "min": 0, "max": 1000, "nullable": True},
            {"name": "age", "kind": "integer", "min": 18, "max": 100},
            {"name": "region", "kind": "categorical", "categories": ["north", "south", "east"], "nullable": True},
            {"name": "grade", "kind": "categorical", "categories": [1, 2, 3]},
            {"name": "default", "kind": "categorical", "categories": [0, 1]},
        ],
    }
)
TERNARY = BINARY.model_copy(
    update={
        "target": "outcome",
        "columns": (
            *BINARY.columns[:-1],
            BINARY.columns[-1].model_copy(update={"name": "outcome", "categories": ("paid", "late", "lost")}),
        ),
    }
)


def class_chances(frame: pd.DataFrame, classes: int) -> np.ndarray:
    """The truth behind every table: the chance of each class of each row."""
    income = frame["income"].to_numpy(float, na_value=np.nan)
    poor = np.where(np.isnan(income), 0.3, 1 - income / 1000)
    score = 3 * poor - 1.5 + (frame["grade"].to_numpy(int) - 2) + 0.8 * (frame["region"] == "south").to_numpy()
    logits = np.stack([score * c - 1.2 * c for c in range(classes)], axis=1)
    chances = np.exp(logits)
    return chances / chances.sum(axis=1, keepdims=True)


def table(rows: int, schema: Schema, seed: int) -> pd.DataFrame:
    """Rows in public values, some incomes and regions missing."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": np.where(rng.random(rows) < 0.1, np.nan, rng.gamma(2, 150, rows).clip(0, 1000)),
            "age": rng.integers(18, 90, rows),
            "region": rng.choice(np.array(["north", "south", "east", None], dtype=object), rows),
            "grade": rng.integers(1, 4, rows),
        }
    )
    chances = class_chances(frame, len(schema.classes))
    codes = (chances.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    values = np.array(schema.classes, dtype=int if isinstance(schema.classes[0], int) else object)
    return frame.assign(**{schema.target: values[codes]})


@dataclass
class TableGenerator:
    """Resamples a table; its head is the truth, shifted to the table's own class frequencies."""

    schema: Schema
    frame: pd.DataFrame

    def __post_init__(self) -> None:
        codes = class_codes(self.schema, self.frame)
        self.noisy_rows = len(self.frame)
        self.class_prior = np.bincount(codes, minlength=len(self.schema.classes)) / len(codes)
        self.head_information = float(self.noisy_rows * (1 - np.square(self.class_prior).sum()))
        self.count_noise = 10.0

    def draw(self, n: int, rng: np.random.Generator) -> pd.DataFrame:
        return self.frame.iloc[rng.integers(len(self.frame), size=n)].reset_index(drop=True)

    def class_log_probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        chances = class_chances(frame, len(self.schema.classes))
        base = class_chances(self.frame, len(self.schema.classes)).mean(axis=0)
        shifted = np.log(chances) + np.log(np.maximum(self.class_prior, 1e-9)) - np.log(base)
        return shifted - np.logaddexp.reduce(shifted, axis=1, keepdims=True)


def skewed(frame: pd.DataFrame, schema: Schema, keep: float) -> pd.DataFrame:
    """The table with only the share `keep` of the rows that are not of the first class."""
    codes = class_codes(schema, frame)
    chosen = (codes == 0) | (np.random.default_rng(5).random(len(frame)) < keep)
    return frame[chosen].reset_index(drop=True)


def fake_chain(*entries: str) -> tuple[str, ...]:
    """Hashes of a ledger with these entries: as in a real one, each covers all before it."""
    return tuple(hashlib.sha256("/".join(entries[: n + 1]).encode()).hexdigest() for n in range(len(entries)))


def fake_proven(release: str, chain: tuple[str, ...], **changes: object) -> SimpleNamespace:
    """What the ledger proof in a bundle would say: the release was reserved by the last entry but one."""
    fields: dict[str, object] = {
        "release": hashlib.md5(release.encode()).hexdigest(),
        "sequence": len(chain) - 1,
        "epsilon": 2.0,
        "delta": 1e-5,
        "epsilon_total": 2.0,
        "rehearsal": False,
        "grant": SimpleNamespace(order=None),
        "predecessors": (),
        "hashes": chain,
    }
    return SimpleNamespace(**{**fields, **changes})


def fake_bundle(
    name: str, schema: Schema, frame: pd.DataFrame, *, proven: SimpleNamespace | None = None, **changes: object
) -> SimpleNamespace:
    """What `read_bundle` would give for an institution: a manifest with every field that the hub reads."""
    fields: dict[str, object] = {
        "institution": name,
        "dataset": f"{name:0<32}"[:32],
        "created": "2026-01-01T00:00:00+00:00",
        "software": "distill 0.1.0",
        "schema_": schema,
        "schema_digest": schema.digest(),
        "rehearsal": False,
        "level": "default",
        "derived_from": None,
        "privacy": SimpleNamespace(epsilon=2.0, delta=1e-5, unit="row", relation="add or remove one unit"),
        "generator": {},
        "public_key": ("a" if name < "m" else "b") * 64,
        "ledger": SimpleNamespace(head="c" * 64, entries=[]),
    }
    digest = f"{abs(hash((name, str(changes), str(proven)))):064x}"[:64]
    proven = proven or fake_proven(name, fake_chain(name, "grant", "reserve", "plan"))
    manifest = SimpleNamespace(**{**fields, **changes})
    path = Path(f"{name}.distill")
    return SimpleNamespace(
        manifest=manifest, proven=proven, schema=schema, samples=frame, path=path, digest=digest, size=1234
    )


def put_bundles(monkeypatch, tmp_path: Path, schema: Schema) -> Path:
    """A folder with three institutions' bundles: a large one, a skewed one, and one with a single class."""
    tables = {
        "Alder Bank": table(5000, schema, 1),
        "Birch <b>& Sons</b>": skewed(table(3000, schema, 2), schema, 0.3),
        "Cedar $x$": skewed(table(1000, schema, 3), schema, 0.0),
    }
    found = {}
    folder = tmp_path / "in"
    folder.mkdir()
    for i, (name, frame) in enumerate(tables.items()):
        path = folder / f"{i}.distill"
        path.touch()
        bundle = fake_bundle(name, schema, frame, dataset=f"{i}" * 32)
        bundle.path = path
        bundle.manifest.privacy.epsilon = 1.0 + i
        found[path.name] = bundle
    monkeypatch.setattr(intake, "read_bundle", lambda path: found[path.name])
    monkeypatch.setattr(generators, "generator_of", lambda b: TableGenerator(b.schema, b.samples), raising=False)
    return folder
