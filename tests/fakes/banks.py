"""A bank's project and a release of it, for tests of what is typed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from distill.common.keys import load_signing_key
from distill.data.schema import Schema
from distill.exchange.bundle import write_bundle
from distill.ledger import Reservation
from distill.privacy.events import Event
from distill.project import Project

SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0)
REST = Event(name="encode", mechanism="gaussian", noise_multiplier=10.0, round=1)
SCHEMA = {
    "name": "loans",
    "target": "default",
    "columns": [
        {"name": "age", "kind": "integer", "min": 18, "max": 100},
        {"name": "default", "kind": "categorical", "categories": [0, 1]},
    ],
}
GRANT = ("--epsilon", "2", "--delta", "1e-4", "--reason", "board of March")


def run(*arguments: str | Path, code: int = 0) -> Result:
    """What a command prints and exits with."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def answer(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """The JSON object that a command prints."""
    found: dict[str, Any] = json.loads(run(*arguments, "--json", code=code).stdout)
    return found


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A project folder as `init` leaves it."""
    (tmp_path / "loans.csv").write_text("age,default\n" + "30,0\n" * 10)
    (tmp_path / "loans.json").write_text(json.dumps(SCHEMA))
    run("init", tmp_path / "bank", "--data", tmp_path / "loans.csv", "--schema", tmp_path / "loans.json")
    return tmp_path / "bank"


def begin(bank: Path, *, rehearsal: bool = False) -> Reservation:
    """Reserve and plan a release in the project's ledger."""
    project = Project.open(bank)
    ledger, key = project.ledger(), load_signing_key(project.key)
    reservation = ledger.reserve(
        epsilon=0.5, delta=1e-5, purpose="scores", actor="operator", events=[SIZE], key=key, rehearsal=rehearsal
    )
    reservation.plan([REST])
    return reservation


def bundle_of(bank: Path, reservation: Reservation, name: str = "b.distill") -> Path:
    """A bundle of that release, committed."""
    project = Project.open(bank)
    digest = write_bundle(
        bank / name,
        institution="bank",
        dataset=project.dataset,
        schema=Schema.model_validate(SCHEMA),
        privacy={"epsilon": 0.5, "delta": 1e-5, "unit": "row", "events": list(reservation.events)},
        noisy_rows=10,
        class_prior=[0.5, 0.5],
        generator={},
        ledger=reservation.proof(),
        samples=pd.DataFrame({"age": [20, 30], "default": [0, 1]}),
        tensors={"heads": {"w": np.ones(2)}},
        key=load_signing_key(project.key),
        rehearsal=reservation.rehearsal,
    )
    reservation.commit(digest)
    return bank / name
