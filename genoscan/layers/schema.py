"""Base class and types of the tables in config.json."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=1, le=1 << 16)]
"""Size of an axis of a tensor; the limit is far above that of any model, and prevents overflow."""

Bases = Annotated[int, Field(ge=0, le=1 << 40)]
"""Number of bases."""


class Schema(BaseModel):
    """A table of config.json: immutable, without unknown keys and non-finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
