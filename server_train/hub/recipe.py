"""What makes a model again from the same bundles, as plain values that the registry of models keeps."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue, TypeAdapter, ValidationError

from distill.errors import ConfigError
from server_train.training.fit import ModelChoice
from server_train.training.network import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides on a model beside its bundles.

    Attributes:
        rows: Rows of the pool.
        settings: Optimiser settings; their seed also draws the pool.
        choice: Kind of model, class weights, calibration.
        personalise: Whether each institution got a model of its own.
    """

    rows: int
    settings: TrainingSettings
    choice: ModelChoice
    personalise: bool = False

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the recipe ready for JSON."""
        plain: dict[str, JsonValue] = _RECIPE.dump_python(self, mode="json")
        return plain


_RECIPE = TypeAdapter(Recipe)


def read_recipe(plain: Mapping[str, JsonValue]) -> Recipe:
    """Return what `Recipe.as_dict` was made from. Raises ConfigError for settings that this version does not know or take."""
    try:
        recipe = _RECIPE.validate_python(dict(plain))
    except (TypeError, ValidationError):
        recipe = None
    if recipe is None or recipe.as_dict() != dict(plain):  # what is not known here would be dropped in silence
        raise ConfigError("the settings are not those of this version of the software; use the one that made them.")
    return recipe
