"""The attacks of benchmarks/attacks: plants still fit the code, the runner tells what was caught, and attacks work where they should."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.attacks import batch_sizes, floating_point, mutations
from benchmarks.attacks.tools.planted import PLANTS, Change, Plant

SIMPLEX, ITS_TEST = "distill/synthesis/statistics/simplex.py", "tests/distill/synthesis/statistics/test_simplex.py"


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_plant_fits_the_code_and_its_tests_are_there(plant: Plant) -> None:
    for change in plant.changes:
        assert (mutations.ROOT / change.file).read_text(encoding="utf-8").count(change.old) == 1, change
        assert change.new != change.old
    assert plant.tests
    for test in plant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (mutations.ROOT / file).read_text(encoding="utf-8")


def test_each_plant_has_a_name_of_its_own_and_kinds_stand_together() -> None:
    names = [plant.name for plant in PLANTS]
    assert len(set(names)) == len(names)
    kinds = [plant.kind for plant in PLANTS]
    assert kinds == sorted(kinds, key=kinds.index)


def planted(old: str, new: str) -> Plant:
    return Plant("made up", "none", "of a test", (Change(SIMPLEX, old, new),), (ITS_TEST,))


@pytest.mark.slow
def test_the_runner_catches_a_planted_bug(tmp_path: Path) -> None:
    real = next(plant for plant in PLANTS if plant.name == "cluster-by-float32-product")
    tried = mutations.tried(real, tmp_path / "copy")
    assert tried.verdict == "caught"
    assert tried.test.startswith(real.tests[0])
    assert real.changes[0].new not in (mutations.ROOT / real.changes[0].file).read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_changes_nothing_what_only_breaks_the_code_and_what_fits_no_longer_are_not_caught(tmp_path: Path) -> None:
    text = (mutations.ROOT / SIMPLEX).read_text(encoding="utf-8")
    (head,) = (line for line in text.splitlines() if line.startswith("def "))
    tried = mutations.tried(planted(head, f"{head}  # as before"), tmp_path / "copy")
    assert (tried.verdict, tried.failures) == ("NOT caught", ())
    tried = mutations.tried(planted(head, f"@property\n{head}"), tmp_path / "copy")
    assert (tried.verdict, {f.kind for f in tried.failures}) == ("crashed", {"TypeError"})
    tried = mutations.tried(planted("there is no such line", ""), tmp_path / "copy")
    assert tried.verdict.startswith(f"does not fit: {SIMPLEX} holds 0 times")
    assert "| none | of a test | does not fit" in mutations.table([tried])


def test_tests_that_import_another_tree_are_stopped(tmp_path: Path) -> None:
    mutations.copy_tree(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "cli")
    with pytest.raises(RuntimeError, match="cli"):
        mutations.run_tests(tmp_path / "copy", [ITS_TEST], 60)


def test_low_bits_tell_a_record_through_the_float_door_and_not_through_ours() -> None:
    (old,) = floating_point.attacked(floating_point.float32_door, 40)
    assert old.advantage > 0.5
    assert old.interval[0] > 0.5
    for result in floating_point.attacked(floating_point.lattice_door, 10):
        assert result.advantage == 0
        low, high = result.interval
        assert low < 0 < high


def test_answers_of_a_division_are_told_from_others() -> None:
    step, normaliser = floating_point.SINGLE, floating_point.NORMALISER
    made = (np.arange(-3000, 3000) * 997 * step).astype(np.float32) / np.float32(normaliser)
    assert floating_point.whole(made, step, normaliser)
    assert not any(
        floating_point.whole(a[None], step, normaliser) for a in made[1:-1] + np.float32(step / 3 / normaliser)
    )


@pytest.mark.slow
def test_with_the_same_answers_no_size_of_a_table_shows() -> None:
    ((first, second),) = batch_sizes.compared(batch_sizes.PAIRS[:1])
    assert first == second
    assert first.states.count("PCG64") > 5  # those of the stages among them
    assert batch_sizes.table([(first, second)]).endswith("| 1 | 0 | 0 | 0 | 0.000 |")
