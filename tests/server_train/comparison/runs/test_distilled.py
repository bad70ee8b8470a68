"""Clients' releases inside a comparison: kept, found again, paid for again where one was cut short, left out where too small."""

from dataclasses import replace

import pytest

from distill.errors import BudgetError
from distill.project import Project
from distill.releases import fit as pipeline
from distill.synthesis.effort import Effort
from server_train.comparison.deal.institutions import Budget
from server_train.comparison.deal.tables import deal, read_tables
from server_train.comparison.record.cache import Parts
from server_train.comparison.runs.distilled import distilled_run, fit_client
from server_train.comparison.runs.repetition import Repetition
from server_train.federated.engine.clock import LOW, Clock
from tests.fakes.comparisons import folder_source
from tests.fakes.private_tables import shorten_fits

pytestmark = pytest.mark.slow
BUDGET = Budget(epsilon=2.0, delta=1e-5)


@pytest.fixture
def quick(monkeypatch):
    """Take few optimiser steps (planned and charged as few), on few samples."""
    shorten_fits(monkeypatch, effort=Effort(first_steps=5, warm_up_steps=5, private_samples=300), steps=4)


@pytest.fixture
def rows(tmp_path):
    return deal(read_tables(folder_source(tmp_path, {"north": 700, "tiny": 40})), 0)


def fit(rows, out, client="north", *, budget=BUDGET, seed=0, levels=("default",)):
    return fit_client(repetition(rows, out, budget=budget, seed=seed), client, levels, progress=lambda *_: None)


def repetition(rows, out, *, budget=BUDGET, seed=0):
    return Repetition(seed=seed, dealt=rows, budget=budget, out=out, parts=Parts(out / "runs"))


def books(rows, out, client="north"):
    project = Project.open(out / "institutions" / rows.digest[:8] / client)
    return project.ledger().summary()


def test_a_fit_is_made_once_and_found_again(rows, tmp_path, quick, monkeypatch):
    made = fit(rows, tmp_path)
    assert set(made.bundles) == {"full", "default"}
    for bundle in made.bundles.values():
        assert (tmp_path / bundle.path).stat().st_size == bundle.bytes
    assert made.bundles["default"].bytes < 0.5 * made.bundles["full"].bytes
    assert made.epsilon == pytest.approx(2.0, rel=0.02)
    monkeypatch.setattr("server_train.comparison.runs.distilled.distill_table", None)  # any further fit would fail
    assert fit(rows, tmp_path) == made
    (tmp_path / "moved").mkdir()
    (tmp_path / "runs").rename(tmp_path / "moved" / "runs")
    (tmp_path / "institutions").rename(tmp_path / "moved" / "institutions")
    assert fit(rows, tmp_path / "moved") == made
    smaller = fit(rows, tmp_path / "moved", levels=("compact",))  # made of the one that is there, and not charged
    assert smaller.bundles["compact"].bytes < smaller.bundles["default"].bytes
    assert books(rows, tmp_path / "moved").spent_epsilon == pytest.approx(made.epsilon, rel=1e-3)


def test_a_fit_that_was_cut_short_stays_spent_and_the_next_is_granted_anew(rows, tmp_path, quick):
    def cut(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "distil", cut)
        with pytest.raises(KeyboardInterrupt):
            fit(rows, tmp_path)
    made = fit(rows, tmp_path)
    assert made.bundles
    found = books(rows, tmp_path)
    assert len(found.standing) == 1
    assert found.spent_epsilon == pytest.approx(2.0 + made.epsilon, rel=1e-3)
    assert found.granted_epsilon == pytest.approx(4.0)


def test_a_lost_bundle_is_made_anew_and_charged_anew(rows, tmp_path, quick):
    rehearsal = replace(BUDGET, rehearsal=5)
    made = fit(rows, tmp_path, budget=rehearsal)
    (tmp_path / made.bundles["default"].path).unlink()
    again = fit(rows, tmp_path, budget=rehearsal)  # a smaller one is made of the largest again
    assert (tmp_path / again.bundles["default"].path).is_file()
    assert len(books(rows, tmp_path).releases) == 1
    (tmp_path / made.bundles["full"].path).unlink()
    fit(rows, tmp_path, budget=rehearsal)
    assert len(books(rows, tmp_path).releases) == 2


def test_a_client_too_small_to_fit_is_left_out_and_told(rows, tmp_path, quick):
    budget = replace(BUDGET, rehearsal=5)
    fits = [fit(rows, tmp_path, name, budget=budget) for name in rows.clients]
    north, tiny = fits
    assert tiny.bundles == {}
    assert "below 200" in tiny.left_out
    shared = repetition(rows, tmp_path, budget=budget)
    run = distilled_run(shared, fits, "default", clock=Clock(tiers=(LOW,)), progress=lambda *_: None)
    model = tmp_path / run.settings["model"]
    assert run.settings["model bytes"] == sum(p.stat().st_size for p in model.glob("model.*"))
    assert [(t.client, t.up, t.down) for t in run.traffic] == [("north", north.bundles["default"].bytes, 0)]
    assert (run.final.up, run.final.down) == (north.bundles["default"].bytes, 0)
    assert run.rehearsal
    assert [n.split(":")[0] for n in run.notes] == ["tiny was left out"]
    assert run.final.seconds > north.seconds / LOW.speed + run.final.up / LOW.up
    with pytest.raises(BudgetError, match="no client has enough rows"):
        distilled_run(shared, [tiny], "default", clock=Clock(), progress=lambda *_: None)
