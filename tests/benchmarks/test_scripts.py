"""The benchmark's own arithmetic: the yardstick is sane, the deals are deals, the table it prints is the one it got."""

import dataclasses
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks import yardstick
from benchmarks.cost import proof_bytes, scale, speed
from benchmarks.quality import cycles, models, peer_runs, regression, representation, splits, utility
from distill.data.demo import demo_schema, mixed_table
from distill.data.schema import load_schema
from distill.data.tables import check_table, read_table

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "quality" / "peers"
sys.path[:0] = [str(PEERS)]  # as where the scripts run: in environments of their own
SCHEMA = demo_schema().model_dump(mode="json", exclude_none=True)

import aim  # noqa: E402 - a peer, without its tool
import mst  # noqa: E402 - a peer, without its tool
import peer  # noqa: E402 - from its peers
import pgm  # noqa: E402

FAKE_PEER = """
import sys
sys.path.insert(0, {peers!r})
import peer

def fit(task):
    {body}
    return lambda rows: task.train.sample(rows, replace=True, random_state=task.seed)

peer.leave(peer.run(fit, install="a-tool", private=True, notes=["a fake"]))
"""


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return mixed_table(rows=2_000, rng=np.random.default_rng(0))


@pytest.fixture
def table_folder(frame: pd.DataFrame, tmp_path: Path) -> Path:
    """A folder with one table and its schema."""
    folder = tmp_path / "tables"
    folder.mkdir()
    frame.to_parquet(folder / "loans.parquet")
    (folder / "loans.schema.json").write_text(json.dumps(SCHEMA))
    return folder


def peers_with(tmp_path: Path, body: str, timeout: float = 120.0) -> Any:
    """Peers with one more, called `fake`, whose fit does `body`."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE_PEER.format(peers=str(PEERS), body=body))
    return peer_runs.Peers(scripts={"fake": script}, timeout=timeout)


def run_fake(peers: Any, frame: pd.DataFrame, **changed: Any) -> Any:
    """Rows of the fake peer and what it says of itself."""
    return peer_runs.run_peer(
        peers, "fake", frame, SCHEMA, **({"epsilon": 2.0, "delta": 1e-5, "seed": 3, "rows": 50} | changed)
    )


def test_a_peer_gets_the_table_and_the_schema_and_gives_rows_and_costs(frame: pd.DataFrame, tmp_path: Path) -> None:
    body = (
        "assert (task.epsilon, task.delta, task.seed, task.rows) == (1.5, 1e-6, 4, 70), task; task.columns[0]['name']"
    )
    rows, said = run_fake(peers_with(tmp_path, body), frame, epsilon=1.5, delta=1e-6, seed=4, rows=70)
    pd.testing.assert_frame_equal(rows, frame.sample(70, replace=True, random_state=4).reset_index(drop=True))
    assert said["notes"] == ["a fake"]
    assert said["private"] is True
    assert 0 <= said["seconds"] < 60
    assert said["peak_mb"] > 10


def test_a_peer_without_its_tool_is_named_with_the_mend(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(peer_runs.PeerNotInstalled, match=r"not installed \(no_such_tool\): pip install a-tool"):
        run_fake(peers_with(tmp_path, "import no_such_tool"), frame)


def test_a_peer_whose_python_is_not_there_counts_as_not_installed(frame: pd.DataFrame, tmp_path: Path) -> None:
    peers = dataclasses.replace(peers_with(tmp_path, "pass"), pythons={"fake": str(tmp_path / "nowhere")})
    with pytest.raises(peer_runs.PeerNotInstalled, match="nowhere is not there"):
        run_fake(peers, frame)


@pytest.mark.parametrize(
    ("body", "timeout", "words"),
    [
        ("raise ValueError('too wide')", 120.0, "failed: ValueError: too wide"),
        ("import os; os.kill(os.getpid(), 9)", 120.0, "failed"),
        ("import time; time.sleep(600)", 3.0, "stopped after 3 s"),
    ],
)
def test_a_peer_that_fails_or_takes_too_long_gives_a_line_and_the_rest_goes_on(
    body: str, timeout: float, words: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    peers = peers_with(tmp_path, body, timeout)
    settings = utility.Settings(epsilon=2.0, delta=1e-5, sources=("fake", "real"), peers=peers)
    failed, real = utility.run_table("loans", frame, SCHEMA, 0, settings, yardstick)
    assert failed["source"] == "fake"
    assert failed["note"].startswith(words)
    assert "auc" not in failed
    assert real["source"] == "real rows"
    assert words in utility.markdown([failed, real]).splitlines()[2]


def test_a_peer_that_is_not_installed_is_skipped_with_one_line(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = peers_with(tmp_path, "import no_such_tool")
    settings = utility.Settings(epsilon=2.0, delta=1e-5, sources=("fake",), peers=peers)
    assert list(utility.run_table("loans", frame, SCHEMA, 0, settings, yardstick)) == []
    assert capsys.readouterr().err == "fake skipped: not installed (no_such_tool): pip install a-tool\n"


def test_private_controls_feed_each_private_peer_with_permuted_labels(frame: pd.DataFrame, tmp_path: Path) -> None:
    """The fake gives back what it is fed, so its control knows nothing of the label and its other columns are intact."""
    settings = utility.Settings(
        epsilon=2.0, delta=1e-5, sources=("fake",), private_controls=True, peers=peers_with(tmp_path, "pass")
    )
    with threadpool_limits(1):
        fed, control = utility.run_table("loans", frame, SCHEMA, 0, settings, yardstick)
    assert control["source"] == "fake, permuted labels"
    assert fed["auc"] > 0.70
    assert abs(control["auc"] - 0.5) < 0.15


def test_permuted_labels_keep_their_number_and_all_other_columns(frame: pd.DataFrame) -> None:
    shuffled = yardstick.permuted(frame, "default", seed=1)
    assert sorted(shuffled["default"]) == sorted(frame["default"])
    assert (shuffled["default"] != frame["default"]).any()
    pd.testing.assert_frame_equal(shuffled.drop(columns="default"), frame.drop(columns="default"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--sources", "mts"], "--sources mts: choose from real, ours, more, model, control, independent"),
        (["--peer-python", "mst"], "--peer-python mst: write NAME=PATH"),
        (["--clients", "5", "--sources", "ours", "mst"], "with several institutions there is `real` and `ours` only"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_runs(asked: list[str], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        utility.settings_of(utility.parser().parse_args(asked))


def test_peers_stands_for_all_peers_and_by_default_all_sources_run() -> None:
    settings = utility.settings_of(utility.parser().parse_args(["--sources", "ours", "peers", "--peer", "mine=x.py"]))
    peers = ["independent", "naive_bayes", "mst", "aim", "mostlyai", "ctgan", "tvae", "mine"]
    assert list(settings.sources) == ["ours", *peers]
    everything = ["real", "ours", "more", "model", "control", *peers[:-1]]
    assert list(utility.settings_of(utility.parser().parse_args([])).sources) == everything
    shared = utility.settings_of(utility.parser().parse_args(["--clients", "5", "--no-real"]))
    assert list(shared.sources) == ["ours"]


def test_the_public_grid_gives_back_categories_and_nulls_and_numbers_of_the_same_cell(frame: pd.DataFrame) -> None:
    task = peer.Task(train=frame, schema=SCHEMA, epsilon=2.0, delta=1e-5, seed=0, rows=10, quick=True)
    grids, cells = peer.encode(task)
    back = peer.decode(grids, cells, seed=0)
    again = peer.encode(dataclasses.replace(task, train=back))[1]
    for grid in grids:
        assert (cells[grid.name] == again[grid.name]).all(), grid.name
        assert cells[grid.name].max() < grid.cells
        assert (back[grid.name].isna() == frame[grid.name].isna()).all()
        if grid.categories is not None:
            assert (back[grid.name].dropna() == frame[grid.name].dropna()).all()


def test_the_public_grid_knows_the_schema_only() -> None:
    column = {"name": "a", "kind": "integer", "min": 0, "max": 9, "nullable": True}
    grid = peer.PublicGrid(column)
    assert list(grid.encode(pd.Series([0, 9, 12, -3, None]))) == [0, 9, 9, 0, 10]
    assert list(grid.decode(np.array([0, 9]), np.random.default_rng(0))) == [0, 9]
    wide = peer.PublicGrid({"name": "b", "kind": "continuous", "min": -1.0, "max": 1.0})
    assert wide.cells == peer.NUMBER_CELLS
    with pytest.raises(ValueError, match="column 'b' has missing values"):
        wide.encode(pd.Series([0.5, None]))


def test_a_zcdp_budget_is_the_largest_that_the_conversion_allows() -> None:
    """Against the conversion's own formula on a fine grid of orders (arXiv:2004.00010, proposition 12)."""
    for epsilon, delta in ((0.5, 1e-5), (2.0, 1e-5), (8.0, 1e-6)):
        rho = pgm.zcdp_of(epsilon, delta)
        orders = 1 + np.geomspace(1e-4, 1e4, 400_000)

        def least(rho: float, epsilon: float = epsilon, orders: Any = orders) -> float:
            logs = (orders - 1) * (orders * rho - epsilon) + orders * np.log1p(-1 / orders) - np.log(orders - 1)
            return float(np.exp(logs.min()))

        assert least(rho) <= delta * (1 + 1e-3)
        assert least(1.01 * rho) > delta


def test_the_exponential_mechanism_draws_by_its_law(seed: int) -> None:
    """Three scores, 20,000 draws; each share within 6 standard deviations: false alarm below 1e-8."""
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the peers draw from the global generator
    scores, draws = np.array([0.0, 1.0, 2.0]), 20_000
    expected = np.exp(scores * 1.5 / 2) / np.exp(scores * 1.5 / 2).sum()
    drawn = np.bincount([pgm.exponential(scores, epsilon=1.5, sensitivity=1.0) for _ in range(draws)], minlength=3)
    assert (np.abs(drawn / draws - expected) < 6 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_mst_merges_what_the_noise_drowns_and_draws_it_back() -> None:
    merged = mst.Merged(np.array([500.0, 2.0, 300.0, -4.0]), stddev=10.0)
    assert list(merged.cells_of(np.arange(4))) == [0, 2, 1, 2]
    assert merged.size == 3
    drawn = merged.draw(np.array([0, 1] + [2] * 200))
    assert list(drawn[:2]) == [0, 2]
    assert set(drawn[2:]) == {1, 3}
    assert mst.Merged(np.zeros(4), stddev=10.0).size == 4


def test_the_tree_of_mst_joins_all_columns_by_their_strongest_pairs() -> None:
    """a drives b, b drives c, d is alone: with ample budget the tree has the edges a-b and b-c and spans all four."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 5_000)
    b = np.where(rng.random(5_000) < 0.9, a, rng.integers(0, 3, 5_000))
    c = np.where(rng.random(5_000) < 0.9, b, rng.integers(0, 3, 5_000))
    cells = {"a": a, "b": b, "c": c, "d": rng.integers(0, 3, 5_000)}

    class OneWay:
        total = 5_000.0

        def project(self, clique: tuple[str]) -> Any:
            counts = np.bincount(cells[clique[0]], minlength=3)
            return types.SimpleNamespace(datavector=lambda: counts)

    edges = mst.spanning_tree(OneWay(), cells, dict.fromkeys(cells, 3), rho=100.0)
    assert {("a", "b"), ("b", "c")} <= set(edges)
    assert len(edges) == 3
    assert {name for edge in edges for name in edge} == set(cells)


def test_the_workload_of_aim_is_all_small_pairs_weighed_by_overlap() -> None:
    weights = aim.workload_weights({"a": 2, "b": 3, "c": 9_999})
    assert weights == {("a",): 1.0, ("b",): 1.0, ("c",): 0.0, ("a", "b"): 2.0}


def test_a_table_is_at_no_distance_from_itself(frame: pd.DataFrame) -> None:
    assert yardstick.marginal_errors(SCHEMA, frame, frame) == (0.0, 0.0)


def test_tables_without_a_value_in_common_are_at_distance_one() -> None:
    schema = {
        "target": "y",
        "columns": [
            {"name": "a", "kind": "categorical", "categories": ["u", "v"]},
            {"name": "y", "kind": "categorical", "categories": [0, 1]},
        ],
    }
    one = pd.DataFrame({"a": ["u"] * 4, "y": [0] * 4})
    other = pd.DataFrame({"a": ["v"] * 4, "y": [1] * 4})
    assert yardstick.marginal_errors(schema, one, other) == (1.0, 1.0)


def test_shuffling_each_column_keeps_one_way_and_breaks_two_way_marginals(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    shuffled = frame.apply(lambda column: column.iloc[rng.permutation(len(column))].reset_index(drop=True))
    one, two = yardstick.marginal_errors(SCHEMA, frame, shuffled)
    assert one == pytest.approx(0, abs=1e-12)
    assert two > 0.05


def test_real_rows_teach_and_shuffled_labels_do_not(frame: pd.DataFrame) -> None:
    train, test = yardstick.split(frame, "default")
    shuffled = train.assign(default=np.random.default_rng(0).permutation(train["default"]))
    with threadpool_limits(1):
        taught = yardstick.downstream(SCHEMA, train, test)
        fooled = yardstick.downstream(SCHEMA, shuffled, test)
    assert taught["auc"] > 0.70
    assert abs(fooled["auc"] - 0.5) < 0.15
    assert taught["auc"] == pytest.approx(np.mean([taught[f"{m}_auc"] for m in ("hgb", "lr", "mlp")]))


def test_rows_of_one_class_score_a_half(frame: pd.DataFrame) -> None:
    assert yardstick.downstream(SCHEMA, frame.assign(default=0), frame)["auc"] == 0.5


@pytest.mark.parametrize("alpha", [0.5, None])
def test_every_row_is_dealt_to_exactly_one_institution(frame: pd.DataFrame, alpha: float | None) -> None:
    marked = frame.assign(number=np.arange(len(frame)))
    parts = yardstick.clients(marked, "default", 3, alpha, min_rows=20)
    assert sorted(pd.concat(parts)["number"]) == list(range(len(frame)))
    by_age = yardstick.clients_by(marked, "age", 3)
    assert sorted(pd.concat(by_age)["number"]) == list(range(len(frame)))
    assert by_age[0]["age"].max() <= by_age[1]["age"].min()


def test_a_folder_without_tables_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"put NAME\.parquet and NAME\.schema\.json there"):
        list(utility.tables(tmp_path, None, 100, quick=False))


def test_tables_of_a_folder_are_read_with_their_schemas(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "loans.parquet")
    (tmp_path / "loans.schema.json").write_text(json.dumps(SCHEMA))
    ((name, rows, schema),) = utility.tables(tmp_path, ["loans"], 500, quick=False)
    assert (name, len(rows), schema) == ("loans", 500, SCHEMA)


def test_results_become_one_line_a_source_with_means_over_seeds() -> None:
    scores = {"hgb_auc": 0.8, "lr_auc": 0.7, "mlp_auc": 0.6, "tvd1": 0.1, "tvd2": 0.2}
    results: list[dict[str, Any]] = [
        {"table": "t", "seed": seed, "source": "samples", "auc": auc, **scores, "fit_seconds": 2.0}
        for seed, auc in ((0, 0.70), (1, 0.72))
    ]
    (line,) = utility.markdown(results).splitlines()[2:]
    assert (
        line == "| t | samples | 2 | 0.7100 | 0.0141 | 0.8000 | 0.7000 | 0.6000 | 0.1000 | 0.2000 | 2.0 |  |  |  |  |"
    )


def test_a_command_that_fails_stops_the_benchmark_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"`distill bundle verify .*` failed:\nerror: "):
        utility.distill("bundle", "verify", tmp_path / "none.distill")


@pytest.mark.nightly
def test_the_quick_size_runs_from_table_to_score(frame: pd.DataFrame, tmp_path: Path) -> None:
    """The whole way in small: init, grant, fit, export, score; keeps the benchmark alive, judges nothing."""
    frame.to_parquet(tmp_path / "loans.parquet")
    (tmp_path / "loans.schema.json").write_text(json.dumps(SCHEMA))
    out = tmp_path / "results.csv"
    plot = tmp_path / "results.png"
    sources = ("--sources", "ours", "more", "model", "control", "independent", "naive_bayes")
    assert utility.main(["--quick", *sources, "--data", str(tmp_path), "--out", str(out), "--plot", str(plot)]) == 0
    results = pd.read_csv(out).set_index("source")
    own = ["samples", "more samples", "the hub's model", "samples, permuted labels"]
    assert list(results.index) == [*own, "independent columns", "DP naive Bayes"]
    assert results["auc"].between(0, 1, inclusive="neither").all()
    results = results.drop(index="the hub's model")
    assert (results[["fit_seconds", "fit_cpu_seconds", "fit_peak_mb"]] > 0).all(axis=None)
    assert results.loc["samples", "bundle_kb"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.nightly
def test_the_quick_speed_comparison_runs_from_table_to_picture(table_folder: Path, tmp_path: Path) -> None:
    """With a baseline for the tools that a test environment does not have."""
    out, plot = tmp_path / "speed.csv", tmp_path / "speed.png"
    where = ("--data", str(table_folder), "--table", "loans", "--out", str(out), "--plot", str(plot))
    assert speed.main(["--quick", "--sources", "ours", "naive_bayes", *where]) == 0
    results = pd.read_csv(out)
    assert list(results["source"]) == ["samples", "DP naive Bayes"]
    assert (results["fit_seconds"] > 0).all()
    assert plot.read_bytes().startswith(b"\x89PNG")


def three_classes(rows: int, seed: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """A table whose third class is rare (4 %) and told by x; y is a number that follows x."""
    rng = np.random.default_rng(seed)
    x, c = rng.random(rows), rng.choice(["u", "v"], rows)
    grade = np.where((x > 0.92) & (rng.random(rows) < 0.5), "lost", np.where(x > 0.5, "late", "paid"))
    schema = {
        "target": "grade",
        "columns": [
            {"name": "x", "kind": "continuous", "min": 0, "max": 1},
            {"name": "c", "kind": "categorical", "categories": ["u", "v"]},
            {"name": "grade", "kind": "categorical", "categories": ["paid", "late", "lost"]},
        ],
    }
    return schema, pd.DataFrame({"x": x, "c": c, "grade": grade, "y": 3 * x + 0.1 * rng.normal(size=rows)})


def test_more_than_two_classes_are_judged_one_against_the_rest() -> None:
    schema, frame = three_classes(4000, 0)
    train, test = yardstick.split(frame, "grade")
    assert (test["grade"] == "lost").mean() == pytest.approx((frame["grade"] == "lost").mean(), abs=0.002)
    with threadpool_limits(1):
        taught = yardstick.evaluate(schema, train, train, test)
        rare = yardstick.downstream(schema, train[train["grade"] != "lost"], test)
        shuffled = train.assign(grade=np.random.default_rng(1).permutation(train["grade"]))
        fooled = yardstick.downstream(schema, shuffled, test)
    assert taught["auc"] > 0.95
    assert taught["tvd2"] == 0.0
    assert taught["positives"] == pytest.approx((train["grade"] == "lost").mean())
    assert taught["auc"] - 0.25 < rare["auc"] < taught["auc"] - 0.1  # one of three classes at .5
    assert rare["positives"] == 0
    assert fooled["auc"] == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="outside its classes"):
        yardstick.downstream(schema, train.assign(grade="other"), test)


def test_a_number_is_judged_by_r2_and_nothing_by_marginals_alone() -> None:
    schema, frame = three_classes(3000, 1)
    number = {"target": "y", "columns": [*schema["columns"][:2], {"name": "y", "kind": "continuous"}]}
    train, test = yardstick.split(frame, "y", by_class=False)
    with threadpool_limits(1):
        taught = yardstick.evaluate(number, train, train, test)
        fooled = yardstick.downstream_number(number, train.assign(y=train["y"].to_numpy()[::-1]), test)
    assert taught["r2"] > 0.95
    assert set(taught) == {"hgb_r2", "lr_r2", "mlp_r2", "r2", "tvd1", "tvd2"}
    assert fooled["r2"] < 0.1
    with pytest.raises(ValueError, match="the target has no classes"):
        yardstick.downstream(number, train, test)
    bare = {"target": None, "columns": schema["columns"][:2]}
    assert set(yardstick.evaluate(bare, train, train, test)) == {"tvd1", "tvd2"}
    assert len(yardstick.split(frame, None)[1]) == 600


def test_the_regression_benchmarks_law_and_figures_agree() -> None:
    """Its oracle explains what the law explains: no figure of the benchmark can honestly be above it."""
    rng = np.random.default_rng(0)
    train, test = regression.claims(3000, rng), regression.claims(3000, rng)
    oracle = regression.r2(test, np.exp(regression.law(test) + regression.NOISE**2 / 2))
    with threadpool_limits(1):
        learnt = regression.boosted(train, test)
    assert 0.4 < learnt < oracle < 0.85
    assert list(test.columns) == [c["name"] for c in regression.SCHEMA["columns"]]


@pytest.mark.nightly
def test_the_regression_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert regression.main(["--quick"]) == 0
    said = capsys.readouterr().out
    figures = {line.split("|")[1].strip(): float(line.split("|")[2]) for line in said.splitlines()[3:]}
    assert len(figures) == 4
    assert 0.2 < figures["bundles, the hub's model"] < figures["oracle: the law itself"]


# ---- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_the_benchmark_of_models_runs_and_takes_kept_bundles(
    table_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--quick", "--data", str(table_folder), "--clients", "2", "--keep", str(tmp_path / "kept")]
    with threadpool_limits(1):
        assert models.main([*words, "--out", str(tmp_path / "models.csv")]) == 0
        first = capsys.readouterr().out
        monkeypatch.setattr(sys.modules["splits"], "fit", lambda *_: pytest.fail("a kept bundle was made again"))
        assert models.main(words) == 0
    figures = pd.read_csv(tmp_path / "models.csv")
    assert list(figures.groupby("kind", sort=False).size()) == [4, 4, 4]
    assert figures["roc_auc"].between(0.5, 0.9).all()
    balanced = figures[figures["class weights"] == "balanced"].groupby("calibrated")["brier"].mean()
    assert balanced["yes"] < balanced["no"]  # the shift of the class frequencies is taken back
    lines = first.splitlines()
    assert len(lines) == 2 + 12
    assert [line.split("|")[1:9] for line in capsys.readouterr().out.splitlines()] == [
        line.split("|")[1:9] for line in lines
    ]


# ---- scale ----------------------------------------------------------------------------------------------------------


def test_the_made_up_table_fits_its_schema_however_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "CHUNK", 700)
    scale.make_table(tmp_path / "table", 2_000, 30)
    schema = load_schema(tmp_path / "table" / "schema.json")
    rows = read_table(tmp_path / "table" / "table.parquet", schema)  # raises if a value does not fit
    assert (len(rows), len(schema.columns)) == (2_000, 30)
    assert not check_table(tmp_path / "table" / "table.parquet", schema) or rows["f01"].max() == 1_000_000
    assert {c.kind for c in schema.columns} == {"continuous", "integer", "categorical"}
    assert 0.2 < (rows["label"].astype(str) == "1").mean() < 0.6
    assert abs(rows["f00"].corr(rows["f02"])) > 0.3  # columns go together, so that there is something to learn


def test_every_second_of_a_fit_is_given_to_one_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0])
    monkeypatch.setattr(scale.time, "process_time", lambda: next(now))
    clock = scale.StageClock()
    clock("size", 0, 1)  # 1 s of reading
    clock("size", 1, 1)  # 2 s
    clock("encode", 0, 2)  # 3 s of planning, which count as size
    clock("encode", 2, 2)  # 4 s
    clock("relate", 1, 1)  # 5 s: told at its end only
    clock("select", 1, 1)  # 6 s
    told = clock.finish()  # 7 s of writing
    assert {stage: seconds for stage, seconds in told.items() if seconds} == {
        "read": 1,
        "size": 5,
        "encode": 4,
        "relate": 5,
        "select": 6,
        "write": 7,
    }


@pytest.mark.nightly
def test_the_quick_size_of_the_scale_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["--quick", "--out", str(tmp_path / "out"), "--scratch", str(tmp_path)]) == 0
    results = pd.read_csv(tmp_path / "out" / "scale.csv")
    assert list(results["rows"]) == list(scale.QUICK_SIZES)
    assert (results["peak_mb"] > 100).all()
    assert (results[["read", "encode", "represent", "refine"]] > 0).all(axis=None)
    assert results[list(scale.STAGES)].sum(axis=1).to_numpy() == pytest.approx(results["seconds"].to_numpy(), rel=0.01)
    assert (tmp_path / "out" / "scale.png").read_bytes().startswith(b"\x89PNG")
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(scale.QUICK_SIZES)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # the made-up tables are gone


def test_a_fit_that_fails_stops_the_scale_benchmark_with_its_words(tmp_path: Path) -> None:
    scale.make_table(tmp_path / "few", 60, 4)
    with pytest.raises(SystemExit, match=r"the fit in .* failed:\n(.*\n)*.*the noisy row count is below 200"):
        scale.measured_fit(tmp_path / "few", 100.0, 1e-5)  # the count is exact but for a few rows


def test_the_joint_components_are_timed_and_come_near_the_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    assert representation.main(["--quick"]) == 0
    found = re.fullmatch(
        r"3 institutions x 5 columns: .* common bins, distance to the pairs (.*) to (.*) of the noise\n",
        capsys.readouterr().out,
    )
    assert found
    assert 0.5 < float(found[1]) <= float(found[2]) < 1.5


@pytest.mark.nightly
def test_the_chain_of_a_ledger_weighs_about_forty_bytes_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """A digest holds 32 bytes that nothing can pack; written as digits it costs some more."""
    assert proof_bytes.main(["--quick"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(level, entries) for level, entries, *_ in lines] == [
        ("compact", "4"),
        ("compact", "40"),
        ("compact", "400"),
    ]
    chains = [int(chain.replace(",", "")) for *_, chain in lines]
    for entries, chain in zip((4, 40, 400), chains, strict=True):
        assert 32 * entries < chain < 45 * entries


@pytest.mark.nightly
def test_the_benchmark_of_splits_keeps_its_bundles_and_scores_every_source(
    table_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--quick", "--data", str(table_folder), "--keep", str(tmp_path / "kept")]
    assert splits.main([*command, "--sources", *splits.SOURCES]) == 0
    bundles = sorted((tmp_path / "kept" / "loans-2-iid-0").iterdir())
    assert [b.name for b in bundles] == ["site_00.distill", "site_01.distill"]
    digests = [b.read_bytes() for b in bundles]
    assert splits.main([*command, "--sources", "pool", "--out", str(tmp_path / "out.csv")]) == 0
    assert [b.read_bytes() for b in bundles] == digests
    assert list(pd.read_csv(tmp_path / "out.csv")["source"]) == ["hub's pool"]
    printed = capsys.readouterr().out
    for source in ("union of samples", "hub's pool, its own size", "hub's model", "independent histograms"):
        assert f"| loans 2-iid | {source} | 1 | 0." in printed


def test_splits_are_told_apart_and_wrong_ones_refused() -> None:
    options = splits.parser().parse_args(["--splits", "5:iid", "10:0.3", "4:net income/debt"])
    base = utility.Settings(epsilon=2.0, delta=1e-5)
    told = [(s.label, s.settings(base)) for s in splits.splits_of("loans", options)]
    assert [(label, s.clients, s.alpha, s.by) for label, s in told] == [
        ("5-iid", 5, None, None),
        ("10-0.3", 10, 0.3, None),
        ("4-net_income_debt", 4, None, "net income/debt"),
    ]
    with pytest.raises(SystemExit, match="--splits iid: write INSTITUTIONS:HOW"):
        splits.splits_of("loans", splits.parser().parse_args(["--splits", "iid"]))


@pytest.mark.nightly
def test_a_small_institution_is_fitted_with_and_without_a_prior(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cycles.csv"
    assert cycles.main(["--quick", "--out", str(out)]) == 0
    results = pd.read_csv(out)
    assert results["what"].tolist() == ["small alone", "small with prior"]
    assert results[["auc", "head_auc"]].stack().between(0.3, 1).all()
    assert results["tvd2"].between(0, 1).all()
    assert "| small with prior | 1 |" in capsys.readouterr().out
