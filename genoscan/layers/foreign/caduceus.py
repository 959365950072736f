"""Caduceus and PlantCaduceus (Schiff et al., arXiv 2403.03234; Zhai et al., PlantCaduceus).

Both are two-way Mamba under a masked-language-model head, of one strand (Ph) or of both (PS).
Tokens, tied tensors and what `fused_add_norm` does to PS: layers/two_way.py and the comments here.
"""

import math
import re
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.foreign.mixers import SHARED, Ssm, mixer
from genoscan.layers.foreign.source import CONFIG, Source
from genoscan.layers.two_way import TwoWayConfig
from genoscan.layers.weights import ModelConfig, NormConfig

_MOST_CONTEXT = 4096


class _Vocabulary(BaseModel):
    """Which token is what; the tokenizer writes N as [PAD], which is what training did."""

    symbols: str
    base_columns: tuple[int, int, int, int]
    mask: int
    unknown: int


_VOCABULARIES: dict[tuple[tuple[int, int], ...], _Vocabulary] = {
    # [CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK] A C G T N, then padding.
    ((7, 10), (8, 9)): _Vocabulary(
        symbols=".......ACGTN....", base_columns=(7, 8, 9, 10), mask=3, unknown=4
    ),
    # [PAD] [MASK] [UNK] a c g t, then padding.
    ((3, 6), (4, 5)): _Vocabulary(symbols="...ACGT.", base_columns=(3, 4, 5, 6), mask=1, unknown=2),
}


class _Config(BaseModel):
    """What of config.json decides the function; anything else is for training."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    d_model: PositiveInt
    n_layer: PositiveInt
    vocab_size: PositiveInt
    pad_vocab_size_multiple: PositiveInt = 8
    complement_map: dict[int, int]
    rcps: bool = False
    bidirectional: Literal[True] = True
    bidirectional_strategy: Literal["add", "ew_multiply"] | None = "add"
    bidirectional_weight_tie: bool = True
    rms_norm: Literal[True] = True
    norm_epsilon: float = 1e-5
    fused_add_norm: bool = True
    d_intermediate: int = Field(0, le=0)
    ssm_cfg: Ssm = Ssm()


def read(source: Source) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return the model and its tensors under the names that they have here.

    Raises
    ------
    ModelError
        If the config asks for what is not supported, or a tensor is not as it says.
    """
    config = _checked(source)
    prefix = "caduceus." if any(name.startswith("caduceus.") for name in source.names) else ""
    width, told = config.d_model, config.ssm_cfg.layer == "Mamba2"
    # PlantCAD2 does not say so: its tensors do.
    mamba2 = told or any(name.endswith("mamba_fwd.dt_bias") for name in source.names)
    inner = config.ssm_cfg.inner(width, mamba2=mamba2)
    words, complement = _embedding(source, config, prefix + "backbone.")
    strands = [words, words[complement]] if config.rcps else [words]
    made = {"embed.weight": torch.cat(strands, 1).T, "head.weight": torch.cat(strands, 1)}
    for i in range(config.n_layer):
        layer = f"{prefix}backbone.layers.{i}."
        made[f"layers.{i}.norm.weight"] = source.take(layer + _norm(config, "norm"), width)
        mixers = layer + ("mixer.submodule." if config.rcps else "mixer.")
        for way in ("fwd", "rev"):
            theirs, ours, tied = f"{mixers}mamba_{way}.", f"layers.{i}.{way}.", None
            if way == "rev" and config.bidirectional_weight_tie:
                tied = {name: made[f"layers.{i}.fwd.{name}"] for name in SHARED}
            made |= mixer(source, theirs, ours, inner, width, tied)
    made["norm.weight"] = source.take(f"{prefix}backbone.{_norm(config, 'norm_f')}", width)
    source.finish()
    block = TwoWayConfig(
        inner=inner,
        strategy="multiply" if config.bidirectional_strategy == "ew_multiply" else "add",
        rcps=config.rcps,
        fused_add_norm=config.fused_add_norm and config.rcps,
        tied=config.bidirectional_weight_tie,
    )
    vocabulary, window = _vocabulary(source, complement), _trained_window(source)
    native = ModelConfig(
        d_model=width,
        norm=NormConfig(eps=config.norm_epsilon),
        layers=(block,) * config.n_layer,
        **vocabulary.model_dump(),
        complement=tuple(complement.tolist()),
        label_offset=0,
        context=_MOST_CONTEXT if window is None else min(_MOST_CONTEXT, window // 4),
        reach=_MOST_CONTEXT if window is None else min(_MOST_CONTEXT, window // 4),
        window=window,
        trained_on=f"unknown: imported from {source.name}",
    )
    return native, made


def _checked(source: Source) -> _Config:
    try:
        return _Config.model_validate(source.config)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{source.folder / CONFIG}: {place} is {first['input']!r}: {first['msg']}; nothing "
            "else is supported"
        ) from None


def _embedding(source: Source, config: _Config, backbone: str) -> tuple[Tensor, Tensor]:
    """Return the embedding, a row a token, and each token's complement."""
    multiple = config.pad_vocab_size_multiple
    size = -(-config.vocab_size // multiple) * multiple
    words = backbone + "embeddings.word_embeddings."
    name = words + ("embedding.weight" if config.rcps else "weight")
    weight = source.take(name, size, config.d_model)
    head = "lm_head.lm_head.weight" if config.rcps else "lm_head.weight"
    source.tied(head, weight)
    # By key: transformers saves a map again with its keys sorted as strings.
    complement = torch.tensor([config.complement_map.get(i, i) for i in range(size)])
    for buffer in (words + "complement_map", "lm_head.complement_map"):
        if buffer in source.names and not torch.equal(source.take(buffer, size), complement):
            raise ModelError(
                f'{source.path}: tensor "{buffer}" differs from complement_map in {CONFIG}'
            )
    return weight, complement


def _vocabulary(source: Source, complement: Tensor) -> _Vocabulary:
    pairs = tuple((i, j) for i, j in enumerate(complement.tolist()) if i < j)
    known = _VOCABULARIES.get(pairs)
    if known is None or len(known.symbols) != len(complement):
        raise ModelError(
            f"{source.folder / CONFIG}: complement_map pairs the tokens "
            f"{', '.join(f'{i} and {j}' for i, j in pairs) or 'none'} of {len(complement)}: "
            "expected 7 and 10, 8 and 9 of 16 (Caduceus) or 3 and 6, 4 and 5 of 8 (PlantCaduceus)"
        )
    return known


def _trained_window(source: Source) -> int | None:
    """Return the longest window of training, which only a checkpoint's name tells."""
    told = re.search(r"seqlen-(\d+)k", source.name)
    # Powers of two, told in thousands: 131k is 131,072.
    return 2 ** round(math.log2(1000 * int(told[1]))) if told else None


def _norm(config: _Config, name: str) -> str:
    """Return a norm's name: PS without fused_add_norm wraps it."""
    wrapped = config.rcps and not config.fused_add_norm
    return f"{name}.submodule.weight" if wrapped else f"{name}.weight"
