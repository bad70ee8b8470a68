"""The training of a global model as a Python user calls it: plain arguments in, a finished folder out."""

from collections.abc import Callable, Sequence
from pathlib import Path

from distill.common.keys import SigningKey, public_hex_of
from server_train.hub import job
from server_train.hub.outputs import Outputs
from server_train.hub.request import TrainingRequest
from server_train.hub.results import GlobalResult, PoolResult
from server_train.intake.admission import Admission
from server_train.intake.store import HubStore
from server_train.models.model import Kind
from server_train.registry.registry import Registry
from server_train.training.class_weights import ClassWeights
from server_train.training.fit import ModelChoice
from server_train.training.network import TrainingSettings


def train_global(
    bundles: Sequence[Path | str],
    *,
    out: Path | str,
    trusted: Sequence[SigningKey | Path | str] = (),
    hub: Path | str | None = None,
    registry: Registry | None = None,
    rows: int | None = None,
    model: Kind = "mlp",
    class_weights: ClassWeights = None,
    calibrate: bool = True,
    seed: int = 0,
    onnx: bool = False,
    personalise: bool = False,
    export_pool: Path | str | None = None,
    allow_unknown_signers: bool = False,
    allow_rehearsal: bool = False,
    progress: Callable[[str, int, int], None] = job.silent,
) -> GlobalResult | PoolResult:
    """Verify bundles, pool them, and train one model.

    Args:
        bundles: Bundle files, or folders that hold them.
        out: Folder for the model; made if absent. Files of an earlier model in it are replaced, others are left alone.
        trusted: Public keys of institutions: `.pub` files or 64 hex digits each. A bundle of another signer is refused.
        hub: The hub's memory (hub.db): keys that it trusts beside these, and what it has seen of each ledger, so that
            one that was rolled back is noticed. None: nothing is known and nothing remembered.
        registry: Keeps the model as a version; None: nothing is kept beside `out`.
        rows: Size of the pool; None: by the institutions' noisy sizes.
        model: Kind of model: a network, a logistic regression, gradient-boosted trees.
        class_weights: How much more a class counts in training: `balanced`, or a weight for each name; None: all alike.
        calibrate: Fit the scores to held-out synthetic rows.
        seed: Repeats pool and training.
        onnx: Also write model.onnx, for other systems.
        personalise: Also train a model for each institution, into `out`/personal/NAME.
        export_pool: Also write the pooled rows there (CSV or Parquet); alone where the schema names no target.
        allow_unknown_signers: Take bundles of anybody, for a trial.
        allow_rehearsal: Take bundles that are NOT PRIVATE.
        progress: Called with stage, steps done, steps in all.

    Returns:
        What was made; `PoolResult` where the schema names no target, so that rows were pooled and no model was trained.

    Raises:
        ConfigError: An argument cannot be used, or there is nothing to predict and no pool is asked for.
        KeyFileError: A trusted key is no public key.
        BundleError, HubFileError: A bundle is refused, or the hub's memory cannot be used.
        RegistryError: The model cannot be registered; `out` is as it was then.
    """
    request = TrainingRequest(
        bundles=tuple(Path(bundle) for bundle in bundles),
        rows=rows,
        personalise=personalise,
        settings=TrainingSettings(seed=seed),
        choice=ModelChoice(kind=model, class_weights=class_weights, calibrate=calibrate),
        admission=Admission(
            trusted=frozenset(public_hex_of(key) for key in trusted),
            hub=None if hub is None else HubStore(Path(hub)),
            allow_unknown_signers=allow_unknown_signers,
            allow_rehearsal=allow_rehearsal,
        ),
    )
    outputs = Outputs(
        folder=Path(out),
        export_pool=None if export_pool is None else Path(export_pool),
        onnx=onnx,
        registry=registry,
    )
    return job.train_global(request, outputs, progress=progress)
