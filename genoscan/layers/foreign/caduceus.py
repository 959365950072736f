"""Caduceus and PlantCaduceus (Schiff et al., arXiv 2403.03234; Zhai et al., PlantCaduceus).

Both are two-way Mamba under a masked-language-model head, of one strand (Ph) or of both (PS).
Tokens, tied tensors and what `fused_add_norm` does to PS: layers/bidirectional.py and the comments
here.
"""

import math
import re
from typing import Literal

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.config import ModelConfig, NormConfig
from genoscan.layers.foreign.mixers import NO_SSM, Ssm, mixer, projections
from genoscan.layers.foreign.settings import Epsilon, Settings, read_settings
from genoscan.layers.foreign.source import CONFIG, Source

_MOST_CONTEXT = 4096
_MOST_TOKENS = 64


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


class _Config(Settings):
    """What of config.json decides the function; anything else is for training."""

    d_model: PositiveInt = 2560
    n_layer: PositiveInt = 64
    vocab_size: PositiveInt = 50277
    pad_vocab_size_multiple: PositiveInt = 8
    complement_map: dict[int, int] | None = None
    rcps: bool = False
    bidirectional: Literal[True] = True
    bidirectional_strategy: Literal["add", "ew_multiply"] | None = "add"
    bidirectional_weight_tie: bool = True
    rms_norm: Literal[True] = True
    norm_epsilon: Epsilon = 1e-5
    fused_add_norm: bool = True
    d_intermediate: int = Field(0, le=0)
    tie_word_embeddings: bool = True
    ssm_cfg: Ssm = NO_SSM


def read(source: Source) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return the model and its tensors under the names that they have here.

    Raises
    ------
    ModelError
        If the config asks for what is not supported, or a tensor is not as it says.
    """
    config = read_settings(source, _Config)
    prefix = "caduceus." if any(name.startswith("caduceus.") for name in source.names) else ""
    width, told = config.d_model, config.ssm_cfg.layer == "Mamba2"
    # PlantCAD2 does not say so: its tensors do.
    mamba2 = told or any(name.endswith("mamba_fwd.dt_bias") for name in source.names)
    inner = config.ssm_cfg.inner(source, width, mamba2=mamba2)
    complement = _complement(source, config, prefix + "backbone.")
    vocabulary = _vocabulary(source, complement)
    words, head = (
        torch.cat([one, one[complement]], 1) if config.rcps else one
        for one in _ends(source, config, len(complement), prefix + "backbone.")
    )
    made = {"embed.weight": words.T, "head.weight": head}
    for i in range(config.n_layer):
        layer = f"{prefix}backbone.layers.{i}."
        made[f"layers.{i}.norm.weight"] = source.take(layer + _norm(config, "norm"), width)
        mixers = layer + ("mixer.submodule." if config.rcps else "mixer.")
        tied = config.bidirectional_weight_tie
        for way, other in (("fwd", "rev"), ("rev", "fwd")):
            names = f"{mixers}mamba_{way}.", f"layers.{i}.{way}."
            made |= mixer(source, *names, inner, width)
            if way == "fwd" or not tied:
                partner = f"{mixers}mamba_{other}." if tied else None
                made |= projections(source, *names, inner, width, partner)
    made["norm.weight"] = source.take(f"{prefix}backbone.{_norm(config, 'norm_f')}", width)
    source.finish()
    block = BidirectionalConfig(
        inner=inner,
        strategy="multiply" if config.bidirectional_strategy == "ew_multiply" else "add",
        rcps=config.rcps,
        fused_add_norm=config.fused_add_norm and config.rcps,
        tied=config.bidirectional_weight_tie,
    )
    window = _trained_window(source)
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
        trained_on=source.origin,
    )
    return native, made


def _complement(source: Source, config: _Config, backbone: str) -> Tensor:
    """Return each token's complement, of which a file has up to two copies."""
    multiple = config.pad_vocab_size_multiple
    size = -(-config.vocab_size // multiple) * multiple
    buffers = f"{backbone}embeddings.word_embeddings.complement_map", "lm_head.complement_map"
    held = {name: source.take_indices(name, size) for name in buffers if name in source.names}
    if config.complement_map is not None and size <= _MOST_TOKENS:
        # By key: transformers saves a map again with its keys sorted as strings.
        told = torch.tensor([config.complement_map.get(i, i) for i in range(size)])
    elif held:
        told = next(iter(held.values()))
    else:
        raise ModelError(
            f"{source.folder / CONFIG}: complement_map for {size:,} tokens: expected one, and "
            f"at most {_MOST_TOKENS} tokens; it shows which tokens are bases"
        )
    for name, buffer in held.items():
        if not torch.equal(buffer, told):
            raise ModelError(
                f'{source.path}: tensor "{name}" differs from complement_map in {CONFIG}'
            )
    return told


def _ends(source: Source, config: _Config, size: int, backbone: str) -> tuple[Tensor, Tensor]:
    """Return the embedding and the head of one strand, a row a token."""
    words, head = backbone + "embeddings.word_embeddings.", "lm_head."
    words += "embedding.weight" if config.rcps else "weight"
    head += "lm_head.weight" if config.rcps else "weight"
    # PS ties them whatever its config says.
    if config.rcps or config.tie_word_embeddings:
        weight = source.take_tied(words, head, size, config.d_model)
        return weight, weight
    return source.take(words, size, config.d_model), source.take(head, size, config.d_model)


def _vocabulary(source: Source, complement: Tensor) -> _Vocabulary:
    paired = complement.tolist()
    pairs = tuple((i, j) for i, j in enumerate(paired) if i < j)
    known = _VOCABULARIES.get(pairs)
    whole = {i: j for pair in pairs for i, j in (pair, pair[::-1])}
    symmetric = paired == [whole.get(i, i) for i in range(len(paired))]
    if known is None or len(known.symbols) != len(paired) or not symmetric:
        said = ", ".join(f"{i} and {j}" for i, j in enumerate(paired) if i != j)
        raise ModelError(
            f"{source.folder / CONFIG}: complement_map pairs the tokens {said or 'none'} of "
            f"{len(paired)}: expected 7 and 10, 8 and 9 of 16 (Caduceus) or 3 and 6, 4 and 5 of 8 "
            "(PlantCaduceus), and back"
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
