"""The calibration benchmark runs, and tells a plan that costs too much from one that does not."""

import pandas as pd
import pytest

from benchmarks.quality import calibration
from distill.privacy import accountant as recompute


def test_the_quick_size_finds_plans_at_or_just_under_their_grants(tmp_path, capsys):
    out = tmp_path / "calibration.csv"
    assert calibration.main(["--quick", "--out", str(out)]) == 0
    results = pd.read_csv(out)
    assert len(results) == 4
    assert results["ratio"].between(calibration.LEAST_USED, 1, inclusive="right").all()
    assert (results["rdp_over_pld"] >= 1).all()
    assert "| ratio |" in capsys.readouterr().out


@pytest.mark.parametrize(("factor", "code"), [(0.5, 1), (1.01, 1)], ids=["contradiction", "over"])
def test_a_wrong_answer_of_an_accountant_ends_with_one(monkeypatch, factor, code):
    """Half of RDP is below PLD; a hundredth more of PLD is above the grant (after the plan was calibrated)."""
    plan = calibration.random_plan
    truth = recompute.epsilon
    wrong = "rdp" if factor < 1 else "pld"

    def mistaken(events, delta, accountant="pld"):
        return truth(events, delta, accountant) * (factor if accountant == wrong else 1)

    def planned(rng):
        monkeypatch.setattr(recompute, "epsilon", truth)
        made = plan(rng)
        monkeypatch.setattr(recompute, "epsilon", mistaken)
        return made

    monkeypatch.setattr(calibration, "random_plan", planned)
    assert calibration.main(["--plans", "1"]) == code
