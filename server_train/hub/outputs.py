"""What the hub writes, and where."""

from dataclasses import dataclass, replace
from pathlib import Path

from distill.common import files as durable
from distill.data.sources import PARQUET_SUFFIXES, check_suffix
from distill.errors import ConfigError
from server_train.hub.prior import PriorPlace
from server_train.hub.request import TrainingRequest
from server_train.models.folder import settle
from server_train.models.onnx_scorer import onnx_packages
from server_train.registry.registry import Registry
from server_train.training.fit import IN_MEMORY


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What is written, and where.

    Attributes:
        folder: Folder for the model; made if absent. Files of an earlier model in it are replaced, others are left alone.
            Personalised models go into `folder`/personal/NAME.
        export_pool: File for the pooled rows (CSV or Parquet); None: they are not written.
        prepare: File for the pool with its soft labels, for `python -m server_train`; nothing is trained then.
        onnx: Whether model.onnx is written too.
        prior: Where the institutions' joint model goes, for their next releases; it comes last.
        registry: Keeps the model as a version; it is there before `folder` is touched. None: nothing is kept.
    """

    folder: Path
    export_pool: Path | None = None
    prepare: Path | None = None
    onnx: bool = False
    prior: PriorPlace | None = None
    registry: Registry | None = None

    def absolute(self) -> "Outputs":
        """Return the same outputs, with model and exported pool at absolute paths."""
        return replace(
            self, folder=self.folder.absolute(), export_pool=self.export_pool and self.export_pool.absolute()
        )

    def check(self, request: TrainingRequest) -> None:
        """Refuse, before any work, what cannot be written; clear away what killed runs left. Raises ConfigError."""
        if self.onnx:
            onnx_packages()
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"--out {self.folder} is a file; name a folder.")
        self._check_pool()
        settle(self.folder)
        for written in filter(None, (self.export_pool, self.prepare)):
            durable.sweep(written)

        if request.personalise and (self.prepare is not None or (request.rows or 0) > IN_MEMORY):
            raise ConfigError(
                f"--personalise needs a pool in memory: at most {IN_MEMORY:,} rows (--rows), and no --prepare."
            )

    def _check_pool(self) -> None:
        """Refuse places that the pooled rows cannot be written to."""
        export_pool, prepare = self.export_pool, self.prepare
        if export_pool is not None:
            check_suffix(export_pool)
            if export_pool.is_dir() or not (export_pool.parent.is_dir() or export_pool.parent == self.folder):
                raise ConfigError(f"--export-pool {export_pool}: its folder does not exist, or it is a folder itself.")
        if prepare is not None:
            if export_pool is not None:
                raise ConfigError(
                    "--prepare trains nothing and --export-pool belongs to a training: ask for one of them."
                )
            if prepare.suffix.lower() not in PARQUET_SUFFIXES or prepare.is_dir() or not prepare.parent.is_dir():
                raise ConfigError(f"--prepare {prepare}: name a .parquet file in a folder that exists.")
