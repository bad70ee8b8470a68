"""Making a registered model again from its bundles, to see that it is the same.

Training is post-processing, so its seed is recorded: the same bundles, settings and library versions give the very same weights on the
same kind of machine. Another processor or another library may round differently; then the digests differ.
"""

import hashlib
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.common import files as durable
from distill.common.metadata import versions
from distill.errors import ConfigError
from server_train.hub.job import Progress, silent, train_global
from server_train.hub.outputs import Outputs
from server_train.hub.recipe import read_recipe
from server_train.hub.request import TrainingRequest
from server_train.hub.results import GlobalResult
from server_train.intake.admission import Admission
from server_train.intake.intake import find_bundles
from server_train.models.folder import read_folder, write_folder
from server_train.registry.version import Version

WEIGHT_FILES = ".safetensors"


@dataclass(frozen=True)
class Reproduction:
    """What came of it.

    Attributes:
        version: The registered one.
        same, other: Names of the weight files that are the same, byte by byte, and that are not.
        software: Name -> [then, now] of the versions that differ.
    """

    version: Version
    same: tuple[str, ...]
    other: tuple[str, ...]
    software: dict[str, list[str]]

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "version": self.version.number,
            "reproduced": not self.other,
            "same": list(self.same),
            "different": list(self.other),
            "software": self.software,
        }


def reproduce(
    version: Version, places: Sequence[Path], *, out: Path | None = None, progress: Progress = silent
) -> Reproduction:
    """Train the model of `version` again and compare its weights. Nothing is registered and nothing remembered.

    Args:
        version: As the registry has it.
        places: Its bundles, or folders that hold them; others in these folders are left out.
        out: Folder for the model that was made again; None: it is thrown away.
        progress: As `train_global`.

    Raises:
        ConfigError: a bundle is missing, or the settings are those of another version of the software.
        BundleError: see `intake.receive`.
    """
    bundles, record = chosen_bundles(version, places), version.record
    recipe = read_recipe(record.recipe)
    request = TrainingRequest(
        bundles=tuple(bundles),
        rows=recipe.rows,
        personalise=recipe.personalise,
        settings=recipe.settings,
        choice=recipe.choice,
        admission=Admission(
            trusted=frozenset(i.public_key for i in record.inputs),  # their bundles were taken then, and are the same
            allow_rehearsal=record.rehearsal,
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        made = train_global(request, Outputs(folder=Path(folder) / "model"), progress=progress)
        assert isinstance(made, GlobalResult)
        files = read_folder(made.folder)
        if out is not None:
            with durable.wrapped("write the model", out, ConfigError):
                write_folder(files, out)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name.endswith(WEIGHT_FILES)}
    stored = {name: entry.sha256 for name, entry in version.files.items() if name.endswith(WEIGHT_FILES)}
    names = sorted({*digests, *stored})
    now = versions()
    return Reproduction(
        version,
        same=tuple(n for n in names if digests.get(n) == stored.get(n)),
        other=tuple(n for n in names if digests.get(n) != stored.get(n)),
        software={n: [v, now.get(n, "absent")] for n, v in record.software.items() if now.get(n) != v},
    )


def chosen_bundles(version: Version, places: Sequence[Path]) -> list[Path]:
    """The bundles of a version among those that `places` name. Raises ConfigError if one is not there."""
    wanted = {i.sha256: i.institution for i in version.record.inputs}
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in find_bundles(places)}
    missing = [f"{name!r} (SHA-256 {digest})" for digest, name in wanted.items() if digest not in found]
    if missing:
        raise ConfigError(
            f"version {version.number} needs {len(missing)} bundle(s) that are not there: {', '.join(missing)}."
        )
    return [found[digest] for digest in wanted]


def command(version: Version) -> str:
    """What to type to make a version again, with the bundles' names as they were."""
    files = (str((i.model_extra or {}).get("file", f"{i.institution}.distill")) for i in version.record.inputs)
    return shlex.join(["distill", "models", "reproduce", str(version.number), *files])
