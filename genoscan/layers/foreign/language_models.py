"""Causal language models: state-spaces' MambaLMHeadModel, transformers' Mamba and Mamba-2.

All are x + mixer(norm(x)), block after block, with one norm and the embedding or a matrix of its
own as head; the two projects differ in the names of the config, and of one tensor.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.foreign.mixers import Inner, Ssm, limit, mixer
from genoscan.layers.foreign.source import CONFIG, Source
from genoscan.layers.foreign.tokens import vocabulary
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.weights import ModelConfig, NormConfig

_CONTEXT, _REACH = 4096, 1024


class _Shape(NamedTuple):
    """What both projects say, in their own words."""

    width: int
    n_layers: int
    vocabulary: int
    eps: float
    inner: Inner
    embedding: str


class _Settings(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _StateSpaces(_Settings):
    d_model: PositiveInt
    n_layer: PositiveInt
    vocab_size: PositiveInt
    pad_vocab_size_multiple: PositiveInt = 8
    rms_norm: Literal[True] = True
    d_intermediate: int = Field(0, le=0)
    ssm_cfg: Ssm = Ssm()

    def shape(self) -> _Shape:
        """Return the sizes; the vocabulary is stored without its padding."""
        multiple = self.pad_vocab_size_multiple
        inner = self.ssm_cfg.inner(self.d_model, mamba2=self.ssm_cfg.layer == "Mamba2")
        size = math.ceil(self.vocab_size / multiple) * multiple
        return _Shape(self.d_model, self.n_layer, size, 1e-5, inner, "backbone.embedding.weight")


class _Transformers(_Settings):
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    vocab_size: PositiveInt
    state_size: PositiveInt
    conv_kernel: PositiveInt = 4
    expand: PositiveInt = 2
    layer_norm_epsilon: float = 1e-5
    use_bias: Literal[False] = False
    use_conv_bias: Literal[True] = True
    hidden_act: Literal["silu"] = "silu"

    def _shape(self, inner: Inner) -> _Shape:
        return _Shape(
            self.hidden_size, self.num_hidden_layers, self.vocab_size, self.layer_norm_epsilon,
            inner, "backbone.embeddings.weight",
        )  # fmt: skip


class _TransformersMamba(_Transformers):
    time_step_rank: PositiveInt | Literal["auto"] = "auto"

    def shape(self) -> _Shape:
        """Return the sizes."""
        told = self.time_step_rank
        rank = math.ceil(self.hidden_size / 16) if told == "auto" else told
        return self._shape(
            MambaConfig(
                d_state=self.state_size, d_conv=self.conv_kernel, expand=self.expand, dt_rank=rank
            )
        )


class _TransformersMamba2(_Transformers):
    head_dim: PositiveInt = 64
    n_groups: PositiveInt = 8
    time_step_limit: tuple[float, float] = (0.0, math.inf)

    @field_validator("time_step_limit", mode="before")
    @classmethod
    def _infinity(cls, value: Any) -> Any:
        """Read {"__float__": "Infinity"}, which newer files write."""
        if not isinstance(value, list | tuple):
            return value
        return [float(v["__float__"]) if isinstance(v, dict) else v for v in value]

    def shape(self) -> _Shape:
        """Return the sizes."""
        return self._shape(
            Mamba2Config(
                d_state=self.state_size, head_dim=self.head_dim, n_groups=self.n_groups,
                d_conv=self.conv_kernel, expand=self.expand, gate_eps=self.layer_norm_epsilon,
                dt_limit=limit(self.time_step_limit),
            )
        )  # fmt: skip


_CONFIGS: dict[str | None, type[_StateSpaces | _TransformersMamba | _TransformersMamba2]] = {
    None: _StateSpaces,
    "mamba": _TransformersMamba,
    "mamba2": _TransformersMamba2,
}


def read(source: Source, tokens: Mapping[str, int] | None) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return the model and its tensors under the names that they have here.

    Raises
    ------
    ModelError
        If the config asks for what is not supported, a tensor is not as it says, or it is not
        known which token is which base.
    """
    shape = _checked(source)
    words = source.take(shape.embedding, shape.vocabulary, shape.width)
    head = words
    if "lm_head.weight" in source.names:
        head = source.take("lm_head.weight", shape.vocabulary, shape.width)
    elif source.config.get("tie_word_embeddings", True) is False:
        raise ModelError(f'{source.path}: tensor "lm_head.weight" is missing')
    made = {"embed.weight": words.T, "head.weight": head}
    for i in range(shape.n_layers):
        layer = f"backbone.layers.{i}."
        made[f"layers.{i}.norm.weight"] = source.take(layer + "norm.weight", shape.width)
        made |= mixer(source, layer + "mixer.", f"layers.{i}.", shape.inner, shape.width)
    made["norm.weight"] = source.take("backbone.norm_f.weight", shape.width)
    source.finish()
    native = ModelConfig(
        d_model=shape.width,
        norm=NormConfig(eps=shape.eps),
        layers=(shape.inner,) * shape.n_layers,
        **vocabulary(source, shape.vocabulary, tokens)._asdict(),
        context=_CONTEXT,
        reach=_REACH,
        trained_on=f"unknown: imported from {source.name}",
    )
    return native, made


def _checked(source: Source) -> _Shape:
    kind = _CONFIGS[source.config.get("model_type")]
    try:
        return kind.model_validate(source.config).shape()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{source.folder / CONFIG}: {place} is {first['input']!r}: {first['msg']}"
        ) from None
