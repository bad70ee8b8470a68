"""What makes a model again from the same bundles: arguments of `hub.train_global`, as plain values."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from distill.errors import ConfigError
from server_train.training.fit import ModelChoice
from server_train.training.network import TrainingSettings

_SETTINGS, _CHOICE = TypeAdapter(TrainingSettings), TypeAdapter(ModelChoice)


def recipe_of(
    rows: int, settings: TrainingSettings, choice: ModelChoice, *, personalise: bool = False
) -> dict[str, Any]:
    """Arguments of `train_global` that decide on the model, ready for JSON."""
    return {
        "rows": rows,
        "settings": _SETTINGS.dump_python(settings, mode="json"),
        "choice": _CHOICE.dump_python(choice, mode="json"),
        "personalise": personalise,
    }


def arguments_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What `recipe_of` was made from. Raises ConfigError for settings that this version does not know or take."""
    try:
        arguments = {
            **recipe,
            "settings": _SETTINGS.validate_python(recipe["settings"]),
            "choice": _CHOICE.validate_python(recipe["choice"]),
        }
    except (KeyError, TypeError, ValidationError):
        arguments = {}
    if not arguments or recipe_of(**arguments) != dict(recipe):  # what is not known here would be dropped in silence
        raise ConfigError("the settings are not those of this version of the software; use the one that made them.")
    return arguments
