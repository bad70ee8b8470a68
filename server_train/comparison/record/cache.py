"""Finished parts of a comparison on disk, so that an interrupted one goes on where it stopped.

A part's name is a digest of everything that decides its result: settings, rows, seed. A file that is damaged, of
another version or of another kind counts as not there.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from distill.common import files
from distill.common.canonical_json import canonical
from distill.errors import ConfigError

FORMAT = 1  # raise it when the same settings no longer give the same result

P = TypeVar("P", bound=BaseModel)


def part_key(**decides: Any) -> str:
    """Digest (hex, 16 digits) of what decides a part's result; plain JSON values only."""
    return hashlib.sha256(canonical({"format": FORMAT, **decides})).hexdigest()[:16]


class Parts:
    """The folder of finished parts."""

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        """With `fresh` parts of earlier runs are not looked at; they are replaced as new ones finish."""
        self.folder, self._ignored = folder, fresh
        self._written: set[Path] = set()

    def find(self, name: str, key: str, kind: type[P]) -> P | None:
        """The finished part, if it is there and whole."""
        path = self._path(name, key)
        if self._ignored and path not in self._written:
            return None
        try:
            content: Mapping[str, Any] = json.loads(path.read_bytes())
            return kind.model_validate(content["part"]) if content["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None

    def keep(self, name: str, key: str, part: BaseModel) -> None:
        """Write a finished part, whole or not at all. Raises ConfigError where it cannot be written."""
        path = self._path(name, key)
        content = {"key": key, "part": part.model_dump(mode="json")}
        with files.wrapped("keep a finished part", path, ConfigError):
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
        self._written.add(path)

    def _path(self, name: str, key: str) -> Path:
        return self.folder / f"{slug(name)}-{key}.json"


def slug(name: str) -> str:
    """A name as a file can have it: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "part"
