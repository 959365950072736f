"""Validation of config.json files from other projects; each model family has its own default values."""

import re
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genoscan.errors import ModelError
from genoscan.layers.foreign.source import CONFIG, Source, format_value

Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base class for the settings that affect the output of a model.

    All other settings in config.json are ignored.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


def read_settings(source: Source, kind: type[SettingsT]) -> SettingsT:
    """Return the validated settings of a checkpoint.

    Parameters
    ----------
    source
        The checkpoint. If sizes are missing from config.json, their default values are stored in its
        attribute `defaults`.
    kind
        Settings class of the model family.

    Returns
    -------
    Settings
        An instance of `kind`.

    Raises
    ------
    ModelError
        If a value is not supported, or if a value is missing and has no default.
    """
    try:
        settings = kind.model_validate(source.config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # pydantic adds the matching member of a union to the location; it is not a key of the file.
        place = ".".join(str(part) for part in first["loc"] if re.fullmatch(r"\w+", str(part)))
        where = f"{source.folder / CONFIG}: {place}".removesuffix(": ")
        if first["type"] == "missing":
            raise ModelError(f"{where} is missing and has no default") from None
        reason = first["msg"].removeprefix("Value error, ")
        if not place:
            raise ModelError(f"{where}: {reason}") from None
        if first["type"] == "extra_forbidden":
            raise ModelError(f"{where} is an unknown setting, which may change the model") from None
        found = format_value(first["input"])
        raise ModelError(f"{where} is {found}: {reason}; other values are not supported") from None
    absent = set(kind.model_fields) - settings.model_fields_set
    source.defaults = {
        name: value
        for name, value in settings
        if name in absent and isinstance(value, int) and value > 1  # neither flags nor None
    }
    return settings
