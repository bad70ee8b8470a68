"""The benchmark of published figures runs, and tells figures that are far off from those that are not."""

import pandas as pd

from benchmarks.quality import dp_evaluation


def test_the_quick_size_finds_figures_near_the_exact_ones(tmp_path, capsys):
    """Seeded: the same in each run."""
    out = tmp_path / "found.csv"
    assert dp_evaluation.main(["--quick", "--out", str(out)]) == 0
    results = pd.read_csv(out)
    assert len(results) == 18
    assert results[(results["rows"] == 5000) & (results["epsilon"] == 1.0)]["auc_off"].max() < 0.01
    assert results["held"].astype(bool).mean() > 0.8
    assert "| AUC off |" in capsys.readouterr().out


def test_figures_that_are_far_off_end_with_one(monkeypatch):
    monkeypatch.setattr(dp_evaluation, "roc_auc_score", lambda holds, scores: 0.3)
    assert dp_evaluation.main(["--quick"]) == 1
