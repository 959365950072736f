"""Base class and field types for the objects in config.json."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=1, le=1 << 16)]
"""Positive integer for the size of a tensor axis; the limit prevents overflow and exceeds any practical size."""

Bases = Annotated[int, Field(ge=0, le=1 << 40)]
"""Non-negative number of bases."""


Share = Annotated[float, Field(ge=0, le=1)]
"""Fraction between 0 and 1."""


class Schema(BaseModel):
    """Base class for immutable objects in config.json; unknown keys and non-finite numbers are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
