"""Conversion of Orthrus (Fradkin et al.), a causal Mamba model of RNA, with a head added by the user.

Published checkpoints have no head. Orthrus is trained by contrastive learning on pooled features, and users
fit linear models to these features. The embedding is a linear map of one-hot bases, with a bias, and all
norms are LayerNorm. Models with six input tracks, which also read the positions of codon starts and splice
sites, are not supported.
"""

import math
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from genoscan.errors import ModelError
from genoscan.layers.config import ModelConfig
from genoscan.layers.foreign.heads import STATE_SPACES, TRANSFORMERS, classification_head, head_tensors
from genoscan.layers.foreign.mixers import mixer_tensors, norm_tensors, projection_tensors
from genoscan.layers.foreign.settings import Settings, read_settings
from genoscan.layers.foreign.source import Source
from genoscan.layers.heads import Pooling
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.norm import NormConfig

_CONTEXT = 4096


class _Config(Settings):
    """Settings in config.json that affect the output of the model."""

    n_tracks: Literal[4] = 4
    ssm_model_dim: PositiveInt = 256
    ssm_n_layers: PositiveInt = 3
    has_mlm_head: Literal[False] = False


def read(source: Source, pooling: Pooling | None) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Convert a checkpoint to a configuration and tensors in this package's format.

    Parameters
    ----------
    source
        The checkpoint to convert.
    pooling
        Pooling of the head. If None, the mean over positions is used.

    Returns
    -------
    config
        Configuration of the model.
    tensors
        Weights by name. A weight is float64 if it is stored as float64; otherwise, it is float32.

    Raises
    ------
    ModelError
        If there is no head, if a setting is not supported, or if a tensor does not match the configuration.
    """
    config = read_settings(source, _Config)
    width = config.ssm_model_dim
    defaults: dict[str, Pooling] = dict.fromkeys((*TRANSFORMERS, STATE_SPACES), "mean")
    if not any(f"{name}.weight" in source.names for name in defaults):
        raise ModelError(
            f"{source.path}: has no head, without which Orthrus makes no predictions: fit a linear model to its "
            f"mean-pooled features, and add its weight, (labels, {width}), and bias to the file as "
            "classifier.weight and classifier.bias"
        )
    heads, note = classification_head(source, defaults, width, pooling)
    inner = MambaConfig(dt_rank=math.ceil(width / 16))
    embedding = source.take("backbone.embeddings.weight", width, 4)
    # Other bases are rows of zeros in Orthrus: a fifth symbol, to which the embedding adds only its bias.
    tensors = {"embed.weight": F.pad(embedding, (0, 1)), "embed.bias": source.take("backbone.embeddings.bias", width)}
    for i in range(config.ssm_n_layers):
        layer = f"backbone.layers.{i}."
        tensors |= norm_tensors(source, layer + "norm.", f"layers.{i}.norm.", width, bias=True)
        names = layer + "mixer.", f"layers.{i}."
        tensors |= projection_tensors(source, *names, inner, width)
        tensors |= mixer_tensors(source, *names, inner, width)
    tensors |= norm_tensors(source, "backbone.norm_f.", "norm.", width, bias=True)
    tensors |= head_tensors(heads)
    source.check_all_used()
    native = ModelConfig(
        d_model=width,
        norm=NormConfig(kind="layer"),
        embed_bias=True,
        layers=(inner,) * config.ssm_n_layers,
        symbols="ACGTN",
        complement=(3, 2, 1, 0, 4),
        unknown=4,
        context=_CONTEXT,
        reach=0,
        language_model=False,
        heads={head.name: head.config for head in heads},
        trained_on=source.origin + note,
    )
    return native, tensors
