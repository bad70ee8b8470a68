"""Who, when and with what: the facts about a run that documents name."""

import getpass
import platform
from datetime import UTC, datetime
from importlib import metadata


def software() -> str:
    """This software and its version, as entries and bundles name it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"distill {version('distill')}"
    except PackageNotFoundError:
        return "distill (not installed)"


def acting_user() -> str:
    """Name of the user who runs this, for the ledger."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "unknown user"


def today() -> str:
    """The day in UTC, ISO, as midnight: a finer time would tell how long a release took, which depends on the rows."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).isoformat(timespec="minutes")


def now() -> str:
    """The time in UTC, ISO, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Of this software and the libraries that matter for the scores."""
    out = {"python": platform.python_version()}
    for name in ("distill", "torch", "numpy", "pandas", "safetensors", "scikit-learn"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            out[name] = "unknown"
    return out
