"""`distill demo`: the whole job on generated banks, in an empty folder, with one table at the end."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from distill.common.keys import load_public_key
from distill.data.demo import BANKS, demo_schema
from distill.data.schema import load_schema
from distill.data.tables import read_table
from distill.exchange.bundle import read_bundle
from distill.ledger import open_ledger
from tests.end_to_end.small_banks import distill, quicken

ROWS = 0.05  # of the usual sizes; no bank gets fewer than 1000


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the demo printed as JSON, run in an empty folder with few optimiser steps."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        patch.chdir(folder)
        ran = distill("demo", "--rows", ROWS, "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.stderr == ""
    assert [p.name for p in folder.iterdir()] == ["demo-out"]
    said = json.loads(ran.stdout)
    return said | {"root": folder / said["folder"]}


def test_the_demo_tells_every_figure_of_its_table(demo):
    assert [b["name"] for b in demo["banks"]] == [b.name for b in BANKS]
    for bank in demo["banks"]:
        assert 0.5 < bank["auc_alone"] < 1
        assert 1.95 < bank["epsilon"] <= demo["epsilon"] == 2
        assert bank["bytes_sent"] == (demo["root"].parent / bank["bundle"]).stat().st_size
    assert demo["delta"] == 1e-5
    assert 0.5 < demo["auc_global"] < 1
    assert 0.5 < demo["auc_central"] < 1


def test_each_banks_ledger_accounts_for_its_bundle(demo):
    for bank in demo["banks"]:
        folder = demo["root"] / bank["name"]
        public = load_public_key(folder / "keys" / "operator.pub")
        bundle = read_bundle(folder / f"{bank['name']}.distill", key=public)
        found = open_ledger(folder / "ledger.db").verify(public)
        (release,) = found.summary.releases
        assert (release.status, release.bundle) == ("committed", bundle.digest)
        assert found.releases[0].epsilon_pld == bank["epsilon"]
        assert not bundle.manifest.rehearsal


def test_the_demo_leaves_tables_and_a_model_to_play_with(demo):
    root: Path = demo["root"]
    schema = load_schema(root / "schema.json")
    assert schema == demo_schema()
    for bank in BANKS:
        assert len(read_table(root / bank.name / "customers.csv", schema)) >= 1000
    assert len(read_table(root / "hub" / "held_out.csv", schema)) >= 2000
    assert (root / "hub" / "global-model" / "report.html").is_file()
    model = root / "hub" / "global-model"
    ran = distill("evaluate", model, root / "hub" / "held_out.csv", "--json")
    assert json.loads(ran.stdout)["roc_auc"] == pytest.approx(demo["auc_global"])
    assert not list(root.rglob("*.tmp"))


def test_the_demo_prints_one_table_that_fits_80_columns(demo):
    from cli.research.demo import _table

    console = Console(width=80, file=io.StringIO())
    console.print(_table(demo))
    shown = console.file.getvalue()
    for bank in demo["banks"]:
        assert f"{bank['name']} alone, on own real rows" in shown
        assert f"{bank['auc_alone']:.4f}" in shown
        assert f"{bank['bytes_sent']:,}" in shown
    for text in ("global model, from three bundles", "central model, on pooled real rows", "epsilon at delta 1e-05"):
        assert text in shown
    assert f"{demo['auc_global']:.4f}" in shown
    assert f"{demo['auc_central']:.4f}" in shown


def test_the_demo_does_not_write_into_a_folder_that_is_there(tmp_path):
    (tmp_path / "mine").write_text("kept")
    for place in (tmp_path, tmp_path / "mine"):
        ran = distill("demo", "--out", place)
        assert ran.exit_code == 2
        assert f"{place} exists already" in ran.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("epsilon", ["0", "-1", "nan"])
def test_the_demo_refuses_a_senseless_budget_before_it_makes_anything(tmp_path, epsilon):
    ran = distill("demo", "--out", tmp_path / "new", "--epsilon", epsilon)
    assert ran.exit_code == 2
    assert "epsilon must be a finite number above 0" in ran.stderr
    assert not (tmp_path / "new").exists()
