"""From a registered version back to its weights, by its recipe and its bundles; and what differs between versions."""

import hashlib
import json

import pytest

from distill.errors import ConfigError, RegistryError
from server_train.hub import job, reproduction
from server_train.hub.job import train_global
from server_train.hub.outputs import Outputs
from server_train.hub.recipe import Recipe, read_recipe
from server_train.hub.request import TrainingRequest
from server_train.intake import intake
from server_train.intake.admission import Admission
from server_train.models.folder import read_folder
from server_train.models.model import load_model
from server_train.registry.diff import difference
from server_train.registry.lookup import model_at
from server_train.registry.registry import Registry
from server_train.training.fit import ModelChoice
from server_train.training.network import TrainingSettings
from tests.fakes.hubs import BINARY, put_bundles
from tests.fakes.registries import FILES, institution, register

QUICK = TrainingSettings(steps=60, hidden=(8,), seed=3)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "models.db", by="ann")


@pytest.fixture
def bundles(monkeypatch, tmp_path):
    """Three bundles whose digests are those of their files."""
    folder = put_bundles(monkeypatch, tmp_path, BINARY)
    read = intake.read_bundle

    def reading(path):
        bundle = read(path)
        bundle.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return bundle

    for path in folder.iterdir():
        path.write_text(path.name)
    monkeypatch.setattr(intake, "read_bundle", reading)
    return folder


def trained(bundles, out, registry, **changes):
    outputs = Outputs(folder=out, registry=registry, export_pool=changes.pop("export_pool", None))
    asked = {"rows": 400, "settings": QUICK, **changes}
    request = TrainingRequest(bundles=(bundles,), admission=Admission(allow_unknown_signers=True), **asked)
    return train_global(request, outputs)


def test_a_run_is_registered_with_the_very_files_of_its_folder(bundles, tmp_path, registry):
    result = trained(bundles, tmp_path / "m", registry, export_pool=tmp_path / "m" / "pool.csv")
    history = registry.verify()
    assert history.versions == (result.version,)
    assert registry.files(1) == {n: c for n, c in read_folder(tmp_path / "m").items() if n != "pool.csv"}
    record = result.version.record
    assert read_recipe(record.recipe) == Recipe(rows=400, settings=QUICK, choice=ModelChoice())
    assert {i.sha256 for i in record.inputs} == {hashlib.sha256(p.read_bytes()).hexdigest() for p in bundles.iterdir()}
    assert record.disjoint.epsilon == 3.0
    assert result.as_dict()["version_digest"] == result.version.digest


def test_a_model_that_cannot_be_registered_leaves_the_folder_as_it_was(bundles, tmp_path, registry):
    trained(bundles, tmp_path / "m", registry)
    before = read_folder(tmp_path / "m")
    registry.path.write_bytes(b"no database, but long enough to be taken for one" * 10)
    for out in (tmp_path / "m", tmp_path / "fresh"):
        with pytest.raises(RegistryError, match="not a registry of models"):
            trained(bundles, out, registry, rows=300)
    assert read_folder(tmp_path / "m") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "m", "models.db"]


def test_a_folder_that_cannot_be_written_leaves_a_whole_version_to_export(bundles, tmp_path, registry, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "put", full)
    with pytest.raises(OSError, match="No space"):
        trained(bundles, tmp_path / "m", registry)
    assert [v.number for v in registry.verify().versions] == [1]
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("rows", [400, None])
def test_a_version_is_made_again_bit_by_bit(bundles, tmp_path, registry, rows):
    trained(bundles, tmp_path / "m", registry, rows=rows)
    (bundles / "x.distill").write_text("a bundle that was not in it")
    version = registry.history().version(1)
    result = reproduction.reproduce(version, [bundles], out=tmp_path / "again")
    assert (result.same, result.other, result.software) == (("model.safetensors",), (), {})
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("m", "again")]
    assert weights[0] == weights[1]
    assert len(registry.history().versions) == 1


def test_another_seed_or_software_is_told(bundles, tmp_path, registry, monkeypatch):
    trained(bundles, tmp_path / "m", registry)
    version = registry.history().version(1)
    recipe = {**version.record.recipe, "settings": {**version.record.recipe["settings"], "seed": 4}}
    changed = version.model_copy(update={"record": version.record.model_copy(update={"recipe": recipe})})
    monkeypatch.setattr(reproduction, "versions", lambda: {**version.record.software, "numpy": "99"})
    result = reproduction.reproduce(changed, [bundles])
    assert (result.same, result.other) == ((), ("model.safetensors",))
    assert result.as_dict()["reproduced"] is False
    assert result.software == {"numpy": [version.record.software["numpy"], "99"]}


def test_a_bundle_that_is_missing_is_named(bundles, tmp_path, registry):
    trained(bundles, tmp_path / "m", registry)
    (bundles / "0.distill").unlink()
    with pytest.raises(ConfigError, match=r"version 1 needs 1 bundle\(s\) that are not there: 'Alder Bank'"):
        reproduction.reproduce(registry.history().version(1), [bundles])


def test_the_command_names_the_bundles_as_they_were_called(registry):
    register(registry, members=[institution(file="a b.distill"), institution("birch", sha256="f" * 64)])
    said = reproduction.command(registry.history().version(1))
    assert said == "distill models reproduce 1 'a b.distill' birch.distill"


def test_a_recipe_comes_back_as_it_was():
    choice = ModelChoice(kind="boosting", class_weights={"1": 2.0})
    recipe = Recipe(rows=5, settings=QUICK, choice=choice, personalise=True)
    assert read_recipe(json.loads(json.dumps(recipe.as_dict()))) == recipe


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("settings", {"speed": 3}),
        ("settings", {"steps": "many"}),
        ("settings", {"steps": "60"}),
        ("choice", {"kind": "oracle"}),
        ("choice", None),
        ("pace", {"steps": 3}),
    ],
)
def test_settings_of_another_version_of_the_software_are_refused(part, changes):
    recipe = Recipe(rows=5, settings=QUICK, choice=ModelChoice()).as_dict()
    recipe[part] = changes and {**recipe.get(part, {}), **changes}
    with pytest.raises(ConfigError, match="use the one that made them"):
        read_recipe(recipe)


def test_what_differs_between_versions_is_told_and_what_is_alike_is_not(registry):
    one = register(registry, members=[institution(), institution("birch", sha256="1" * 64, row_share=0.4, weight=1.0)])
    two = register(
        registry,
        rows=800,
        auc=0.8,
        files={**FILES, "model.safetensors": b"others"},
        members=[
            institution(),
            institution("birch", sha256="2" * 64, row_share=0.5, weight=0.0),
            institution("cedar", sha256="3" * 64),
        ],
    )
    found = difference(one, two)
    assert [(i["institution"], i["sha256"][0]) for i in found["inputs"]["added"]] == [("birch", "2"), ("cedar", "3")]
    assert [i["institution"] for i in found["inputs"]["removed"]] == ["birch"]
    assert found["inputs"]["kept"] == 1
    assert found["weights"]["birch: row_share"] == [0.4, 0.5]
    assert found["weights"]["birch: weight"] == [1.0, 0.0]
    assert found["weights"]["cedar: head_share"] == [None, 1.0]
    assert found["settings"] == {"rows": [900, 800]}
    assert found["metrics"] == {"roc_auc": [0.75, 0.8]}
    assert list(found["files"]) == ["model.safetensors"]
    assert found["features"] == {"added": [], "removed": []}
    assert found["privacy"] == found["model"] == found["software"] == {}
    same = difference(one, one)
    assert not any(same[part] for part in ("weights", "settings", "metrics", "privacy", "model", "software", "files"))


def test_columns_that_came_and_went_are_told(registry):
    fewer = BINARY.model_copy(update={"columns": BINARY.columns[1:]})
    found = difference(register(registry), register(registry, schema=fewer))
    assert found["features"] == {"added": [], "removed": ["income"]}
    assert "schema_digest" in found["model"]


def test_a_registry_stands_for_its_current_model(bundles, tmp_path, registry):
    cards = [trained(bundles, tmp_path / "m", registry, rows=rows).card for rows in (300, 400)]
    with pytest.raises(ConfigError, match="no version is promoted"), model_at(registry.path):
        pass
    registry.promote(1)
    for place, card in (
        ("models.db", cards[0]),
        ("models.db@2", cards[1]),
        ("m", cards[1]),
        ("m/model.json", cards[1]),
    ):
        with model_at(tmp_path / place) as found:
            assert load_model(found).card == card
    with pytest.raises(ConfigError, match="no version 7"), model_at(tmp_path / "models.db@7"):
        pass
    with pytest.raises(RegistryError, match="no registry of models at"), model_at(tmp_path / "absent.db@1"):
        pass


def test_the_model_of_a_registry_is_gone_when_the_block_is_over(bundles, tmp_path, registry):
    trained(bundles, tmp_path / "m", registry)
    with model_at(tmp_path / "models.db@1") as found:
        assert found.is_dir()
    assert not found.exists()
