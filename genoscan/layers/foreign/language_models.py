"""Causal language models from state-spaces (MambaLMHeadModel) and transformers (Mamba and Mamba-2).

Each model consists of blocks that compute x + mixer(norm(x)), a final norm, and a head. The head is
either tied to the embedding or a separate matrix. The projects state-spaces and transformers use
different names for the settings and for one tensor.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import Field, PositiveInt
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.config import ModelConfig
from genoscan.layers.foreign.mixers import (
    DEFAULT_SSM,
    MixerConfig,
    Ssm,
    StepLimits,
    check_heads,
    dt_limit,
    mixer_tensors,
    projection_tensors,
)
from genoscan.layers.foreign.settings import Epsilon, Settings, read_settings
from genoscan.layers.foreign.source import CONFIG, Source
from genoscan.layers.foreign.tokens import vocabulary
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.norm import NormConfig

_CONTEXT, _REACH = 4096, 1024
_HEAD = "lm_head.weight"


class _Architecture(NamedTuple):
    """Settings that models from state-spaces and transformers have in common."""

    width: int
    n_layers: int
    vocabulary: int
    eps: float
    inner: MixerConfig
    tied: bool


class _StateSpaces(Settings):
    d_model: PositiveInt = 2560
    n_layer: PositiveInt = 64
    vocab_size: PositiveInt = 50277
    pad_vocab_size_multiple: PositiveInt = 8
    rms_norm: Literal[True] = True
    d_intermediate: int = Field(0, le=0)
    tie_embeddings: bool = True
    ssm_cfg: Ssm = DEFAULT_SSM

    def architecture(self, source: Source) -> _Architecture:
        """Return the architecture; round `vocab_size` up to a multiple of `pad_vocab_size_multiple`."""
        multiple = self.pad_vocab_size_multiple
        inner = self.ssm_cfg.inner(source, self.d_model, mamba2=self.ssm_cfg.layer == "Mamba2")
        size = -(-self.vocab_size // multiple) * multiple
        return _Architecture(self.d_model, self.n_layer, size, 1e-5, inner, self.tie_embeddings)


class _Transformers(Settings):
    """Settings that Mamba and Mamba-2 have in common; subclasses set the defaults that differ."""

    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    vocab_size: PositiveInt
    state_size: PositiveInt
    tie_word_embeddings: bool
    conv_kernel: PositiveInt = 4
    expand: PositiveInt = 2
    layer_norm_epsilon: Epsilon = 1e-5
    use_bias: Literal[False] = False
    use_conv_bias: Literal[True] = True
    hidden_act: Literal["silu", "swish"] = "silu"

    def _architecture(self, inner: MixerConfig) -> _Architecture:
        return _Architecture(
            self.hidden_size,
            self.num_hidden_layers,
            self.vocab_size,
            self.layer_norm_epsilon,
            inner,
            self.tie_word_embeddings,
        )


class _TransformersMamba(_Transformers):
    hidden_size: PositiveInt = 768
    num_hidden_layers: PositiveInt = 32
    vocab_size: PositiveInt = 50280
    state_size: PositiveInt = 16
    tie_word_embeddings: bool = True
    time_step_rank: PositiveInt | Literal["auto"] = "auto"
    intermediate_size: PositiveInt | None = None

    def architecture(self, source: Source) -> _Architecture:
        """Return the architecture; `intermediate_size`, if given, overrides `expand`."""
        given = self.time_step_rank
        rank = math.ceil(self.hidden_size / 16) if given == "auto" else given
        channels = self.intermediate_size or self.expand * self.hidden_size
        if channels % self.hidden_size:
            raise ModelError(
                f"{source.folder / CONFIG}: intermediate_size is {channels}: expected a multiple "
                f"of hidden_size, {self.hidden_size}{source.assumed}"
            )
        expand = channels // self.hidden_size
        return self._architecture(
            MambaConfig(d_state=self.state_size, d_conv=self.conv_kernel, expand=expand, dt_rank=rank)
        )


class _TransformersMamba2(_Transformers):
    hidden_size: PositiveInt = 4096
    num_hidden_layers: PositiveInt = 64
    vocab_size: PositiveInt = 32768
    state_size: PositiveInt = 128
    tie_word_embeddings: bool = False
    num_heads: PositiveInt = 128
    head_dim: PositiveInt = 64
    n_groups: PositiveInt = 8
    time_step_limit: StepLimits = (0.0, math.inf)

    def architecture(self, source: Source) -> _Architecture:
        """Return the architecture."""
        channels = self.expand * self.hidden_size
        if self.num_heads * self.head_dim != channels:
            raise ModelError(
                f"{source.folder / CONFIG}: num_heads {self.num_heads} x head_dim {self.head_dim}: "
                f"expected expand x hidden_size, {channels}" + source.assumed
            )
        inner = Mamba2Config(
            d_state=self.state_size,
            head_dim=self.head_dim,
            n_groups=self.n_groups,
            d_conv=self.conv_kernel,
            expand=self.expand,
            gate_eps=self.layer_norm_epsilon,
            dt_limit=dt_limit(self.time_step_limit),
        )
        check_heads(source, inner, self.hidden_size)
        return self._architecture(inner)


_CONFIGS: dict[str | None, type[_StateSpaces | _TransformersMamba | _TransformersMamba2]] = {
    None: _StateSpaces,
    "mamba": _TransformersMamba,
    "mamba2": _TransformersMamba2,
}


def read(source: Source, tokens: Mapping[str, int] | None) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Convert a checkpoint to a configuration and tensors in this package's format.

    Parameters
    ----------
    source
        The checkpoint.
    tokens
        Token ids of the bases. If None, the token ids are read from the checkpoint's vocabulary.

    Returns
    -------
    config
        Configuration of the model.
    tensors
        Weights by name. A weight is float64 if it is stored as float64; otherwise, it is float32.

    Raises
    ------
    ModelError
        If a setting is not supported, a tensor does not match the configuration, or the tokens of
        the bases are unknown.
    """
    shape = read_settings(source, _CONFIGS[source.config.get("model_type")]).architecture(source)
    embedding, head = _io_weights(source, shape)
    tensors = {"embed.weight": embedding.T, "head.weight": head}
    for i in range(shape.n_layers):
        layer = f"backbone.layers.{i}."
        tensors[f"layers.{i}.norm.weight"] = source.take(layer + "norm.weight", shape.width)
        names = layer + "mixer.", f"layers.{i}."
        tensors |= projection_tensors(source, *names, shape.inner, shape.width)
        tensors |= mixer_tensors(source, *names, shape.inner, shape.width)
    tensors["norm.weight"] = source.take("backbone.norm_f.weight", shape.width)
    source.check_all_used()
    native = ModelConfig(
        d_model=shape.width,
        norm=NormConfig(eps=shape.eps),
        layers=(shape.inner,) * shape.n_layers,
        **vocabulary(source, shape.vocabulary, tokens)._asdict(),
        context=_CONTEXT,
        reach=_REACH,
        trained_on=source.origin,
    )
    return native, tensors


def _io_weights(source: Source, shape: _Architecture) -> tuple[Tensor, Tensor]:
    """Return the embedding and the head, each with one row per token."""
    embedding, size = "backbone.embeddings.weight", (shape.vocabulary, shape.width)
    if shape.tied:
        weight = source.take_tied(embedding, _HEAD, *size)
        return weight, weight
    if _HEAD not in source.names and embedding in source.names:
        key = "tie_word_embeddings" if "model_type" in source.config else "tie_embeddings"
        origin = "" if key in source.config else " by the default of its family"
        raise ModelError(
            f'{source.path}: tensor "{_HEAD}" is missing, and {key} is false{origin}: expected '
            f"that tensor, or {key} true in {CONFIG} if the embedding is also the head"
        )
    return source.take(embedding, *size), source.take(_HEAD, *size)
