"""config.json of any family, validated: what is missing has the default of the family's class."""

import re
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genoscan.errors import ModelError
from genoscan.layers.foreign.source import CONFIG, Source, shown

Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """What of a config decides the function; anything else is for training."""

    model_config = ConfigDict(extra="ignore", frozen=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


def read_settings(source: Source, kind: type[SettingsT]) -> SettingsT:
    """Return the validated settings, and note in `source` which sizes are defaults.

    Raises
    ------
    ModelError
        If one is not supported, or is missing and has no default.
    """
    try:
        settings = kind.model_validate(source.config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Which member of a union was tried is no place in the file.
        place = ".".join(str(part) for part in first["loc"] if re.fullmatch(r"\w+", str(part)))
        where = f"{source.folder / CONFIG}: {place}".removesuffix(": ")
        if first["type"] == "missing":
            raise ModelError(f"{where} is missing, and has no default") from None
        said = first["msg"].removeprefix("Value error, ")
        if not place:
            raise ModelError(f"{where}: {said}") from None
        if first["type"] == "extra_forbidden":
            raise ModelError(f"{where} is not a known setting, and may change the model") from None
        found = shown(first["input"])
        raise ModelError(f"{where} is {found}: {said}; nothing else is supported") from None
    absent = set(kind.model_fields) - settings.model_fields_set
    source.defaults = {
        name: value
        for name, value in settings
        if name in absent and isinstance(value, int) and value > 1  # no flags, nothing absent
    }
    return settings
