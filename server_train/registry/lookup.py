"""Where a model is: in a folder, or in a registry (`models.db`: its promoted version; `models.db@3`: version 3)."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from server_train.models.folder import write_folder
from server_train.registry.registry import Registry, chosen_schema

REGISTRY_SUFFIX = ".db"
_NUMBERED = re.compile(r"(.+\.db)@([0-9]{1,9})", re.DOTALL)


@contextlib.contextmanager
def model_at(place: Path) -> Iterator[Path]:
    """The folder (or file) that `place` names, or a folder with the version that it names in a registry, while the block runs.

    Raises:
        ConfigError: there is no such version, none is promoted, or there is one for each of several schemas.
        RegistryError, RegistryTamperedError: see `Registry`.
    """
    numbered = None if place.exists() else _NUMBERED.fullmatch(place.name)
    if numbered is None and (place.suffix != REGISTRY_SUFFIX or place.is_dir()):
        yield place
        return
    registry = Registry(place if numbered is None else place.with_name(numbered[1]))
    number = current_version(registry) if numbered is None else int(numbered[2])
    with tempfile.TemporaryDirectory() as folder:
        write_folder(registry.files(number), Path(folder) / "model")
        yield Path(folder) / "model"


def current_version(registry: Registry) -> int:
    """The number of the promoted version, where there is one of one schema. Raises ConfigError otherwise."""
    history = registry.history()
    return history.current[chosen_schema(history, None)]
