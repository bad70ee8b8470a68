"""The poisoning benchmark still runs at its quick size, and what it claims holds there."""

import pandas as pd
import pytest

from benchmarks.attacks import poisoning


@pytest.mark.nightly
def test_the_quick_size_leaves_out_what_contradicts_itself_and_goes_on_from_kept_bundles(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(poisoning.utility, "DATA_FOLDERS", ())  # no data at hand: the demo's made-up table
    out = tmp_path / "out.csv"
    command = ["--quick", "--keep", str(tmp_path / "kept"), "--out", str(out)]
    assert poisoning.main([*command, "--poisons", "flipped", "scaled"]) == 0
    results = pd.read_csv(out).set_index(["case", "weighted"])
    assert results.loc[("scaled", True), "weights"].startswith("0 ")  # eight stddevs away: no chance in it
    for case in ("flipped", "scaled"):
        assert results.loc[(case, False), "weights"] == "1 1 1 1 1"
    assert "| flipped |" in capsys.readouterr().out
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("kept/**/*.distill")}
    assert len(kept) == 5
    assert poisoning.main([*command, "--honest"]) == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("kept/**/*.distill")} == kept
