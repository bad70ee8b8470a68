"""`server_train.train_global` with plain arguments: it asks the hub's job for the same, and lets nobody in unasked."""

import pytest

from distill.common.keys import generate_key
from distill.errors import BundleError, KeyFileError
from server_train.hub import job
from server_train.hub.door import train_global
from server_train.hub.outputs import Outputs
from server_train.hub.request import TrainingRequest
from server_train.hub.results import GlobalResult
from server_train.intake.admission import Admission
from server_train.registry.registry import Registry
from server_train.training.fit import ModelChoice
from server_train.training.network import TrainingSettings
from tests.fakes.hubs import BINARY, put_bundles


@pytest.fixture
def bundles(monkeypatch, tmp_path):
    """A folder with three institutions' bundles."""
    return put_bundles(monkeypatch, tmp_path, BINARY)


def test_plain_arguments_make_the_model_that_the_job_makes(bundles, tmp_path):
    choice = ModelChoice(kind="logistic", class_weights={"1": 3.0}, calibrate=False)
    request = TrainingRequest(
        bundles=(bundles,),
        rows=2000,
        settings=TrainingSettings(seed=4),
        choice=choice,
        admission=Admission(allow_unknown_signers=True),
    )
    wanted = job.train_global(request, Outputs(folder=tmp_path / "wanted"))
    found = train_global(
        [str(bundles)],
        out=str(tmp_path / "found"),
        rows=2000,
        allow_unknown_signers=True,
        seed=4,
        model="logistic",
        class_weights={"1": 3.0},
        calibrate=False,
        export_pool=str(tmp_path / "pool.csv"),
        registry=Registry(tmp_path / "models.db"),
    )
    assert isinstance(wanted, GlobalResult)
    assert isinstance(found, GlobalResult)
    assert found.card.weights_sha256 == wanted.card.weights_sha256
    assert found.folder == tmp_path / "found"
    assert found.pool_path == tmp_path / "pool.csv"
    assert found.version is not None


def test_a_signer_that_is_not_trusted_is_refused(bundles, tmp_path):
    stranger = generate_key(tmp_path / "stranger.pem")
    for trusted in ([], [stranger.public_hex], [str(tmp_path / "stranger.pub")]):
        with pytest.raises(BundleError, match="trust"):
            train_global([bundles], out=tmp_path / "model", trusted=trusted, hub=tmp_path / "hub.db")
    with pytest.raises(KeyFileError, match="no public key"):
        train_global([bundles], out=tmp_path / "model", trusted=["nowhere.pub"])
    assert not (tmp_path / "model").exists()
