"""Base class and field types for the tables in config.json."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=1, le=1 << 16)]
"""Size of a tensor axis; the limit prevents overflow and far exceeds the size of any model."""

Bases = Annotated[int, Field(ge=0, le=1 << 40)]
"""Number of bases."""


Share = Annotated[float, Field(ge=0, le=1)]
"""Part of a whole."""


class Schema(BaseModel):
    """An immutable table in config.json; unknown keys and non-finite numbers are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
