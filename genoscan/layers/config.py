"""config.json: what a model is, without its weights."""

from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.pd_ssm import PdSsmConfig

LayerConfig = Annotated[
    MambaConfig | Mamba2Config | PdSsmConfig | BidirectionalConfig, Field(discriminator="kind")
]

_KINDS = {"mamba", "mamba2", "pd_ssm", "two_way"}

MASK = 5
"""The code of a base that is hidden from a masked model."""

CONFIG = "config.json"


class NormConfig(BaseModel):
    """The norm before every block and before the head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["rms"] = "rms"
    eps: PositiveFloat = 1e-5


class ModelConfig(BaseModel):
    """config.json.

    symbols       one letter an input column and output logit
    base_columns  the columns of A, C, G and T
    complement    for each column, that of its complement
    mask          the column of the mask symbol; None for causal models
    unknown       the column of the symbol for bases that are not A, C, G or T; None: such a base
                  is read as the mean of A, C, G and T
    label_offset  an output at position t predicts the base at t + label_offset
    context       bases read before a region, unless the user says otherwise
    reach         bases read past a region, whose likelihood the region's bases can change
    window        the longest window that training saw; None: not known, or any
    weights       sha256 of model.safetensors; None: not checked
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["genoscan-model/1"] = "genoscan-model/1"
    d_model: PositiveInt
    norm: NormConfig = NormConfig()
    layers: tuple[LayerConfig, ...]
    symbols: str = "ACGT"
    base_columns: tuple[int, int, int, int] = (0, 1, 2, 3)
    complement: tuple[int, ...] = (3, 2, 1, 0)
    mask: NonNegativeInt | None = None
    unknown: NonNegativeInt | None = None
    label_offset: NonNegativeInt = 1
    context: NonNegativeInt
    reach: NonNegativeInt
    trained_on: str
    window: PositiveInt | None = None
    weights: str | None = None

    @model_validator(mode="after")
    def _columns_exist(self) -> "ModelConfig":
        columns = range(len(self.symbols))
        if sorted(self.complement) != list(columns):
            raise ValueError(f"complement must hold each of the {len(columns)} columns once")
        if len(set(self.base_columns)) != 4 or not set(self.base_columns) <= set(columns):
            raise ValueError(f"base_columns must be 4 of the columns 0 to {len(columns) - 1}")
        if any(self.complement[other] != i for i, other in enumerate(self.complement)):
            raise ValueError("complement must give every column back when it is applied twice")
        a, c, g, t = self.base_columns
        if (self.complement[a], self.complement[c]) != (t, g):
            raise ValueError("complement must pair A with T and C with G")
        for name, column in (("mask", self.mask), ("unknown", self.unknown)):
            if column is not None and column not in columns:
                raise ValueError(f"{name} must be one of the columns 0 to {len(columns) - 1}")
        if not self.layers:
            raise ValueError("layers: at least one is needed")
        two_way = [layer for layer in self.layers if layer.kind == "two_way"]
        if two_way and len(two_way) < len(self.layers):
            raise ValueError("layers: two-way ones cannot stand among causal ones")
        if len({layer.rcps for layer in two_way}) > 1:
            raise ValueError("layers: rcps must be the same in all")
        return self


def read_config(path: Path) -> ModelConfig:
    """Read and validate a model folder's config.json."""
    file = path / CONFIG
    try:
        return ModelConfig.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path}: no {CONFIG} in it: is this a model folder?") from None
    except (NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise ModelError(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        # A layer's kind picked what it is checked by, and is no place in the file.
        parts = (str(part) for part in first["loc"] if part not in _KINDS)
        place = ".".join(parts) or "the file"
        raise ModelError(f"{file}: {place}: {first['msg']}") from None


def base_table(
    config: ModelConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Float[Tensor, "codes symbols"]:
    """Return the input row of each base code: A, C, G, T, N and, where there is one, the mask.

    N is the model's own symbol for unknown bases or, without one, the mean of A, C, G and T: a row
    of zeros would be a singular point of RMSNorm, whose derivative there grows as eps ** -0.5 with
    every layer.
    """
    table = torch.zeros(6, len(config.symbols), dtype=dtype, device=device)
    for code, column in enumerate(config.base_columns):
        table[code, column] = 1
    if config.unknown is None:
        table[4] = table[:4].mean(0)
    else:
        table[4, config.unknown] = 1
    if config.mask is not None:
        table[MASK, config.mask] = 1
    return table
