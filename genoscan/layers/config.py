"""Model configuration, which is read from config.json and validated."""

import shlex
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, ValidationError, model_validator
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.json_input import first_problem, parse_json
from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.downloads import check_downloaded
from genoscan.layers.heads import HeadConfig, HeadName
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.norm import NormConfig
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.layers.schema import Bases, Schema, Share, Size
from genoscan.layers.window_error import WindowErrors

LayerConfig = Annotated[MambaConfig | Mamba2Config | PdSsmConfig | BidirectionalConfig, Field(discriminator="kind")]

_MAX_LAYERS, _MAX_HEADS = 10_000, 1_000
_KINDS = {"mamba", "mamba2", "pd_ssm", "two_way"}

MASK = 5
"""Base code of a masked position."""

CONFIG = "config.json"

_FOREIGN = {"model_type", "architectures", "transformers_version", "hidden_size", "n_layer", "ssm_cfg"}
"""Keys by which a config.json from Hugging Face or state-spaces is recognised."""


class ValidationResult(Schema):
    """How well a language model that predicts the next base predicts its validation data.

    Attributes
    ----------
    bits
        Bits per base of the model.
    composition
        Entropy of the base composition of the validation data, in bits.
    """

    bits: Annotated[float, Field(ge=0)]
    composition: Annotated[float, Field(ge=0, le=2)]


class ModelConfig(Schema):
    """Configuration of a model, as stored in config.json.

    Attributes
    ----------
    format
        Name and version of the file format.
    d_model
        Number of channels of the activations between blocks, per strand.
    norm
        Settings of the norm that precedes each block and the heads.
    embed_bias
        Whether the embedding has a bias.
    layers
        Configurations of the blocks, from first to last.
    symbols
        Symbols that the model reads, one character per symbol. Each symbol has one input column and, in a
        model with a language-model head, one logit.
    base_columns
        Columns of A, C, G and T, in this order.
    complement
        For each column, the column of the complementary symbol.
    mask
        Column of the mask symbol. None for models without a mask symbol, such as causal models.
    unknown
        Column of the symbol for bases other than A, C, G and T. If None, such a base is encoded as the mean
        of A, C, G and T.
    label_offset
        Offset of the labels: the output at position `t` predicts the base at position `t + label_offset`.
    context
        Default number of bases upstream of a region that the model also reads.
    reach
        Default number of bases downstream of a region that are also included in the log-likelihood.
    language_model
        Whether the model has a language-model head.
    heads
        Configurations of the task heads, by head name.
    trained_on
        Description of the training data.
    window
        Length of the longest training window, in bases. None if it is unknown or unlimited.
    gc_range
        Lowest and highest G+C content in the training data, as fractions between 0 and 1. None if they are
        unknown.
    validation
        Results on the validation data; None if they are unknown, or if the model does not predict the next base.
    window_errors
        How much scores depend on the window. None if this has not been measured.
    weights
        Expected SHA-256 checksum of model.safetensors, in hexadecimal. If None, the file is not verified.
    """

    format: Literal["genoscan-model/1"] = "genoscan-model/1"
    d_model: Size
    norm: NormConfig = NormConfig()
    embed_bias: bool = False
    layers: Annotated[tuple[LayerConfig, ...], Field(max_length=_MAX_LAYERS)]
    symbols: str = "ACGT"
    base_columns: tuple[int, int, int, int] = (0, 1, 2, 3)
    complement: tuple[int, ...] = (3, 2, 1, 0)
    mask: NonNegativeInt | None = None
    unknown: NonNegativeInt | None = None
    label_offset: Bases = 1
    context: Bases
    reach: Bases
    language_model: bool = True
    heads: dict[HeadName, HeadConfig] = Field(default_factory=dict, max_length=_MAX_HEADS)
    trained_on: str
    window: Annotated[Bases, Field(ge=1)] | None = None
    gc_range: tuple[Share, Share] | None = None
    validation: ValidationResult | None = None
    window_errors: WindowErrors | None = None
    weights: str | None = None

    @model_validator(mode="after")
    def _columns_exist(self) -> "ModelConfig":
        columns = range(len(self.symbols))
        if sorted(self.complement) != list(columns):
            raise ValueError(f"complement must list each of the {len(columns)} columns once")
        if len(set(self.base_columns)) != 4 or not set(self.base_columns) <= set(columns):
            raise ValueError(f"base_columns must be 4 different columns in 0 to {len(columns) - 1}")
        if any(self.complement[other] != i for i, other in enumerate(self.complement)):
            raise ValueError("complement must be its own inverse")
        a, c, g, t = self.base_columns
        if (self.complement[a], self.complement[c]) != (t, g):
            raise ValueError("complement must pair A with T and C with G")
        for name, column in (("mask", self.mask), ("unknown", self.unknown)):
            if column is not None and column not in columns:
                raise ValueError(f"{name} must be a column in 0 to {len(columns) - 1}")
        if not self.layers:
            raise ValueError("layers: expected at least one")
        for layer in self.layers:
            mixer = layer.inner if layer.kind == "two_way" else layer
            if mixer.kind == "mamba2":
                mixer.check_width(self.d_model)
        bidirectional = [layer for layer in self.layers if layer.kind == "two_way"]
        if bidirectional and len(bidirectional) < len(self.layers):
            raise ValueError("layers: bidirectional (two_way) and causal layers cannot be combined")
        if len({layer.rcps for layer in bidirectional}) > 1:
            raise ValueError("layers: rcps must be the same in all layers")
        if not (self.language_model or self.heads):
            raise ValueError("heads: expected at least one in a model without a language model")
        for name, head in self.heads.items():
            if head.fold and self.strands == 1:
                raise ValueError(f"heads.{name}.fold: expected false, because the model represents one strand")
        return self

    @property
    def output_columns(self) -> dict[str, slice]:
        """Columns of the network's output that belong to each head, as slices by head name.

        The name of the language-model head is "".
        """
        widths = {"": len(self.symbols)} if self.language_model else {}
        for name, head in self.heads.items():
            widths[name] = self.strands * self.d_model if head.pool == "max" else len(head.labels)
        ends = list(accumulate(widths.values()))
        return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}

    @property
    def mixers(self) -> tuple[str, ...]:
        """Kind of the mixer of each block, from first to last; both directions of a block have the same kind."""
        return tuple(layer.inner.kind if layer.kind == "two_way" else layer.kind for layer in self.layers)

    @property
    def strands(self) -> int:
        """Number of strands, 1 or 2, that are represented by the features at each position."""
        first = self.layers[0]
        return 2 if isinstance(first, BidirectionalConfig) and first.rcps else 1


def read_config(path: Path) -> ModelConfig:
    """Read and validate the config.json of a model folder.

    Parameters
    ----------
    path
        Model folder.

    Returns
    -------
    ModelConfig
        The validated configuration.

    Raises
    ------
    ModelError
        If the file is missing, unreadable or invalid. The error message names the first invalid
        entry.
    """
    file = path / CONFIG
    check_downloaded(file, "JSON")
    try:
        content = parse_json(file.read_bytes())
        return ModelConfig.model_validate(content)
    except FileNotFoundError:
        raise ModelError(f"{path}: {CONFIG} not found; is this a model folder?") from None
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        if _is_foreign(content):
            raise ModelError(
                f"{path}: is a checkpoint of another project, not a model folder of genoscan; import it: "
                f"genoscan models import {shlex.quote(str(path))} --name NAME"
            ) from None
        # pydantic inserts the kind of a layer, which is not a key of the file.
        raise ModelError(f"{file}: {first_problem(error, omit=_KINDS)}") from None
    except ValueError as error:
        raise ModelError(f"{file}: not valid JSON: {error}") from None


def _is_foreign(settings: object) -> bool:
    """Return whether the contents of a config.json are in the format of Hugging Face or state-spaces.

    This is the case if they include at least one key that is typical of these formats, but neither `format`
    nor `layers`.
    """
    if not isinstance(settings, dict):
        return False
    return not settings.keys() & {"format", "layers"} and bool(settings.keys() & _FOREIGN)


def base_table(
    config: ModelConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Float[Tensor, "codes symbols"]:
    """Return a table that contains the network input for each base code.

    Parameters
    ----------
    config
        Configuration of the model.
    dtype, device
        Data type and device of the table.

    Returns
    -------
    Tensor
        Table of shape (6, symbols). The rows represent A, C, G, T, N and a masked base, in this order. In
        models without a mask symbol, the row for a masked base is zero.

    Notes
    -----
    N is encoded as the model's symbol for unknown bases or, if there is no such symbol, as the mean of A,
    C, G and T. It is not encoded as zero because RMSNorm is nearly singular at zero: the derivative would
    grow by a factor of `eps ** -0.5` in each layer.
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
