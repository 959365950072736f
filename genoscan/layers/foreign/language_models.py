"""Conversion of causal Mamba models from the projects state-spaces and transformers.

The supported models are MambaLMHeadModel from state-spaces, Mamba and Mamba-2 from transformers, and
classifiers that are based on them. Each model consists of blocks that compute x + mixer(norm(x)), a final
norm, and a head. The head of a language model is either tied to the embedding or a separate matrix. A
classifier has a classification head instead. The two projects use different names for the settings and for
one tensor.

Checkpoints do not state how a classification head pools over positions. By default, the heads `score` and
`classifier`, which transformers writes, are applied to the last base. The head `classification_head`, which
the code of Plant DNAMamba adds to models of state-spaces, is applied to the mean over bases.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import Field, PositiveInt
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.config import ModelConfig
from genoscan.layers.foreign.heads import STATE_SPACES, TRANSFORMERS, classification_head, head_tensors
from genoscan.layers.foreign.mixers import (
    DEFAULT_SSM,
    MixerConfig,
    Ssm,
    StepLimits,
    check_heads,
    check_unbiased,
    dt_limit,
    mixer_tensors,
    norm_tensors,
    projection_tensors,
)
from genoscan.layers.foreign.settings import Epsilon, Settings, read_settings
from genoscan.layers.foreign.source import CONFIG, Source
from genoscan.layers.foreign.tokens import vocabulary
from genoscan.layers.heads import Pooling
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.norm import NormConfig

_CONTEXT, _REACH = 4096, 1024
_HEAD = "lm_head.weight"
_POOLING: dict[str, Pooling] = {**dict.fromkeys(TRANSFORMERS, "last"), STATE_SPACES: "mean"}


class _Architecture(NamedTuple):
    """Architecture of a model, in terms that are common to state-spaces and transformers."""

    width: int
    n_layers: int
    vocabulary: int
    eps: float
    inner: MixerConfig
    tied: bool
    norm: Literal["rms", "layer"] = "rms"


class _StateSpaces(Settings):
    d_model: PositiveInt = 2560
    n_layer: PositiveInt = 64
    vocab_size: PositiveInt = 50277
    pad_vocab_size_multiple: PositiveInt = 8
    rms_norm: bool = True
    d_intermediate: int = Field(0, le=0)
    tie_embeddings: bool = True
    ssm_cfg: Ssm = DEFAULT_SSM

    def architecture(self, source: Source) -> _Architecture:
        """Return the architecture of the model.

        The size of the vocabulary is `vocab_size`, rounded up to a multiple of `pad_vocab_size_multiple`.
        """
        multiple = self.pad_vocab_size_multiple
        inner = self.ssm_cfg.inner(source, self.d_model, mamba2=self.ssm_cfg.layer == "Mamba2")
        size = -(-self.vocab_size // multiple) * multiple
        norm: Literal["rms", "layer"] = "rms" if self.rms_norm else "layer"
        return _Architecture(self.d_model, self.n_layer, size, 1e-5, inner, self.tie_embeddings, norm)


class _Transformers(Settings):
    """Settings that the Mamba and Mamba-2 models of transformers have in common.

    Subclasses override the defaults that differ.
    """

    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    vocab_size: PositiveInt
    state_size: PositiveInt
    tie_word_embeddings: bool
    conv_kernel: PositiveInt = 4
    expand: PositiveInt = 2
    layer_norm_epsilon: Epsilon = 1e-5
    use_bias: bool = False
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
        """Return the architecture of the model; `intermediate_size`, if given, takes precedence over `expand`."""
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
            MambaConfig(
                d_state=self.state_size, d_conv=self.conv_kernel, expand=expand, dt_rank=rank, bias=self.use_bias
            )
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
        """Return the architecture of the model.

        An error is raised if the channels cannot be divided into the given heads and groups.
        """
        check_unbiased(source, "use_bias", self.use_bias)
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


def read(
    source: Source, tokens: Mapping[str, int] | None, pooling: Pooling | None
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Convert a checkpoint to a configuration and tensors in this package's format.

    Parameters
    ----------
    source
        The checkpoint to convert.
    tokens
        Token ids of the bases. If None, the token ids are read from the checkpoint's vocabulary.
    pooling
        Pooling of the classification head. If None, the default for the name of the head is used.

    Returns
    -------
    config
        Configuration of the model.
    tensors
        Weights by name. A weight is float64 if it is stored as float64; otherwise, it is float32.

    Raises
    ------
    ModelError
        If a setting is not supported, a tensor does not match the configuration, or the token ids of the
        bases are unknown.
    """
    shape = read_settings(source, _CONFIGS[source.config.get("model_type")]).architecture(source)
    heads, note = classification_head(source, _POOLING, shape.width, pooling)
    rows = _io_weights(source, shape, language_model=not heads)
    tensors = rows | {"embed.weight": rows["embed.weight"].T} | head_tensors(heads)
    biased = shape.norm == "layer"
    for i in range(shape.n_layers):
        layer = f"backbone.layers.{i}."
        tensors |= norm_tensors(source, layer + "norm.", f"layers.{i}.norm.", shape.width, bias=biased)
        names = layer + "mixer.", f"layers.{i}."
        tensors |= projection_tensors(source, *names, shape.inner, shape.width)
        tensors |= mixer_tensors(source, *names, shape.inner, shape.width)
    tensors |= norm_tensors(source, "backbone.norm_f.", "norm.", shape.width, bias=biased)
    source.check_all_used()
    native = ModelConfig(
        d_model=shape.width,
        norm=NormConfig(kind=shape.norm, eps=shape.eps),
        layers=(shape.inner,) * shape.n_layers,
        **vocabulary(source, shape.vocabulary, tokens)._asdict(),
        context=_CONTEXT,
        reach=_REACH,
        language_model=not heads,
        heads={head.name: head.config for head in heads},
        trained_on=source.origin + note,
    )
    return native, tensors


def _io_weights(source: Source, shape: _Architecture, *, language_model: bool) -> dict[str, Tensor]:
    """Return the embedding and, for a language model, the head; both have one row per token."""
    embedding, size = "backbone.embeddings.weight", (shape.vocabulary, shape.width)
    if not language_model:
        return {"embed.weight": source.take(embedding, *size)}
    if shape.tied:
        weight = source.take_tied(embedding, _HEAD, *size)
        return {"embed.weight": weight, "head.weight": weight}
    if _HEAD not in source.names and embedding in source.names:
        key = "tie_word_embeddings" if "model_type" in source.config else "tie_embeddings"
        origin = "" if key in source.config else " by the default of its family"
        raise ModelError(
            f'{source.path}: tensor "{_HEAD}" is missing, and {key} is false{origin}: expected '
            f"that tensor, or {key} true in {CONFIG} if the embedding is also the head"
        )
    return {"embed.weight": source.take(embedding, *size), "head.weight": source.take(_HEAD, *size)}
