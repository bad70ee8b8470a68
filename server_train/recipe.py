"""What makes a model again from the same bundles: arguments of `train_global`, as JSON holds them and back.

Values are read back by the annotations of the function's own signature, so an argument that is added there needs nothing here.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from distill.errors import ConfigError


def recipe_of(**arguments: Any) -> dict[str, Any]:
    """Arguments as JSON holds them; settings (dataclasses) become objects."""
    return dict(json.loads(json.dumps(arguments, default=_plain)))


def arguments_of(recipe: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of `function` that `recipe_of` was given.

    Raises:
        ConfigError: an argument or a setting that this version of the software does not know or take.
    """
    hints = get_type_hints(function)
    found = {}
    for name, value in recipe.items():
        try:
            found[name] = TypeAdapter(hints[name]).validate_python(value)
        except (KeyError, ValidationError):
            raise _unknown(name) from None
        if recipe_of(**{name: found[name]}) != {name: value}:  # a setting that is unknown here was left out
            raise _unknown(name)
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"a recipe cannot hold a {type(value).__name__}")


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        f"{name!r} of this version is not what this version of the software takes; use the one that made the model."
    )
