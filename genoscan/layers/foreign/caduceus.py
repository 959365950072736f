"""Conversion of Caduceus (Schiff et al., arXiv 2403.03234), PlantCaduceus (Zhai et al.) and GENATATOR.

All of these are bidirectional Mamba models. Ph models process one strand, and PS models process both
strands. For the effect of `fused_add_norm` on PS models, see layers/bidirectional.py. The possible heads
are:

    lm_head         masked language model
    score           classification of windows (CaduceusForSequenceClassification); in PS models, the
                    logits are the mean over both strands, to which the same weights are applied
    fc              per-base segmentation of a transcript (GENATATOR); in PS models, the input is the
                    concatenation of the features of both strands
    type_head       classification of a transcript (GENATATOR); the input is the same as that of `fc`,
                    but only at the last base

A checkpoint with one of the last three heads has no language-model head.
"""

import math
import re
from typing import Literal

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.config import ModelConfig
from genoscan.layers.foreign.heads import TaskHead, classification_head, head_tensors, linear_tensors
from genoscan.layers.foreign.mixers import DEFAULT_SSM, Ssm, mixer_tensors, norm_tensors, projection_tensors
from genoscan.layers.foreign.settings import Epsilon, Settings, read_settings
from genoscan.layers.foreign.source import CONFIG, Source
from genoscan.layers.heads import HeadConfig, Pooling
from genoscan.layers.norm import NormConfig

_MAX_CONTEXT = 4096
_MAX_TOKENS = 64

_GENATATOR = {
    "fc": ("segments", HeadConfig(kind="per_base", labels=("5UTR", "exon", "intron", "3UTR", "CDS"), link="sigmoid")),
    "type_head": ("transcript", HeadConfig(kind="pooled", labels=("lncRNA",), pool="last", link="sigmoid")),
}
"""Name and configuration of each task head of GENATATOR in this package, by its name in GENATATOR's files."""

_GENATATOR_WINDOW = 250_000


class _Vocabulary(BaseModel):
    """Meanings of the token ids of a model.

    In Caduceus, the symbol for unknown bases is [PAD], because the tokenizer encodes N as [PAD] and did so
    when the models were trained.
    """

    symbols: str
    base_columns: tuple[int, int, int, int]
    mask: int
    unknown: int


_VOCABULARIES: dict[tuple[tuple[int, int], ...], _Vocabulary] = {
    # [CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK] A C G T N, then padding.
    ((7, 10), (8, 9)): _Vocabulary(symbols=".......ACGTN....", base_columns=(7, 8, 9, 10), mask=3, unknown=4),
    # [PAD] [MASK] [UNK] a c g t, then padding.
    ((3, 6), (4, 5)): _Vocabulary(symbols="...ACGT.", base_columns=(3, 4, 5, 6), mask=1, unknown=2),
}


class _Config(Settings):
    """Settings in config.json that affect the output of the model."""

    d_model: PositiveInt = 2560
    n_layer: PositiveInt = 64
    vocab_size: PositiveInt = 50277
    pad_vocab_size_multiple: PositiveInt = 8
    complement_map: dict[int, int] | None = None
    rcps: bool = False
    bidirectional: Literal[True] = True
    bidirectional_strategy: Literal["add", "ew_multiply"] | None = "add"
    bidirectional_weight_tie: bool = True
    rms_norm: bool = True
    norm_epsilon: Epsilon = 1e-5
    fused_add_norm: bool = True
    d_intermediate: int = Field(0, le=0)
    tie_word_embeddings: bool = True
    ssm_cfg: Ssm = DEFAULT_SSM


def read(source: Source, pooling: Pooling | None) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Convert a checkpoint to a configuration and tensors in this package's format.

    Parameters
    ----------
    source
        The checkpoint to convert.
    pooling
        Pooling of the classification head. If None, the mean over positions is used.

    Returns
    -------
    config
        Configuration of the model.
    tensors
        Weights by name. A weight is float64 if it is stored as float64; otherwise, it is float32.

    Raises
    ------
    ModelError
        If a setting is not supported, or if a tensor does not match the configuration.
    """
    config = read_settings(source, _Config)
    prefix = "caduceus." if any(name.startswith("caduceus.") for name in source.names) else ""
    width, mamba2 = config.d_model, config.ssm_cfg.layer == "Mamba2"
    # The configuration of PlantCAD2 does not name the layer type; the tensor names identify it.
    mamba2 = mamba2 or any(name.endswith("mamba_fwd.dt_bias") for name in source.names)
    inner = config.ssm_cfg.inner(source, width, mamba2=mamba2)
    complement = _complement(source, config, prefix + "backbone.")
    vocabulary = _vocabulary(source, complement)
    tasks, note = _task_heads(source, config, pooling)
    rows = _io_weights(source, config, len(complement), prefix + "backbone.", language_model=not tasks)
    if config.rcps:
        rows = {name: torch.cat([one, one[complement]], 1) for name, one in rows.items()}
    tensors = rows | {"embed.weight": rows["embed.weight"].T} | head_tensors(tasks)
    # PS models without fused_add_norm wrap their norms.
    wrapper = "submodule." if config.rcps and not config.fused_add_norm else ""
    norm, norm_f = f"norm.{wrapper}", f"norm_f.{wrapper}"
    for i in range(config.n_layer):
        layer = f"{prefix}backbone.layers.{i}."
        tensors |= norm_tensors(source, layer + norm, f"layers.{i}.norm.", width, bias=not config.rms_norm)
        mixers = layer + ("mixer.submodule." if config.rcps else "mixer.")
        tied = config.bidirectional_weight_tie
        for direction, other in (("fwd", "rev"), ("rev", "fwd")):
            names = f"{mixers}mamba_{direction}.", f"layers.{i}.{direction}."
            tensors |= mixer_tensors(source, *names, inner, width)
            if direction == "fwd" or not tied:
                partner = f"{mixers}mamba_{other}." if tied else None
                tensors |= projection_tensors(source, *names, inner, width, partner)
    tensors |= norm_tensors(source, f"{prefix}backbone.{norm_f}", "norm.", width, bias=not config.rms_norm)
    source.check_all_used()
    block = BidirectionalConfig(
        inner=inner,
        strategy="multiply" if config.bidirectional_strategy == "ew_multiply" else "add",
        rcps=config.rcps,
        fused_add_norm=config.fused_add_norm and config.rcps,
        tied=config.bidirectional_weight_tie,
    )
    window = _trained_window(source) or (_GENATATOR_WINDOW if _is_genatator(source) else None)
    native = ModelConfig(
        d_model=width,
        norm=NormConfig(kind="rms" if config.rms_norm else "layer", eps=config.norm_epsilon),
        layers=(block,) * config.n_layer,
        **vocabulary.model_dump(),
        complement=tuple(complement.tolist()),
        label_offset=0,
        context=_MAX_CONTEXT if window is None else min(_MAX_CONTEXT, window // 4),
        reach=_MAX_CONTEXT if window is None else min(_MAX_CONTEXT, window // 4),
        window=window,
        language_model=not tasks,
        heads={task.name: task.config for task in tasks},
        trained_on=source.origin + note,
    )
    return native, tensors


def _complement(source: Source, config: _Config, backbone: str) -> Tensor:
    """Return the id of the complementary token for each token.

    An error is raised if the checkpoint contains no complement map, or if its complement maps differ.
    """
    multiple = config.pad_vocab_size_multiple
    size = -(-config.vocab_size // multiple) * multiple
    buffers = f"{backbone}embeddings.word_embeddings.complement_map", "lm_head.complement_map"
    stored = {name: source.take_indices(name, size) for name in buffers if name in source.names}
    if config.complement_map is not None and size <= _MAX_TOKENS:
        # Look tokens up by key: transformers sorts the keys as strings when it saves the map.
        complement = torch.tensor([config.complement_map.get(i, i) for i in range(size)])
    elif stored:
        complement = next(iter(stored.values()))
    else:
        raise ModelError(
            f"{source.folder / CONFIG}: complement_map for {size:,} tokens: expected one, and "
            f"at most {_MAX_TOKENS} tokens, to identify the bases"
        )
    for name, buffer in stored.items():
        if not torch.equal(buffer, complement):
            raise ModelError(f'{source.path}: tensor "{name}" differs from complement_map in {CONFIG}')
    return complement


def _task_heads(source: Source, config: _Config, pooling: Pooling | None) -> tuple[list[TaskHead], str]:
    """Return the task heads, and a note on their pooling for the description of the model's origin."""
    if config.rcps and pooling in ("first", "last"):
        raise ModelError(
            f"{source.path}: --pooling {pooling}: a model of both strands (rcps) would read the first base of one "
            "strand and the last of the other, which is not supported: expected mean or max"
        )
    if not _is_genatator(source):
        return classification_head(source, {"score": "mean"}, config.d_model, pooling, fold=config.rcps)
    if pooling is not None:
        raise ModelError(f"{source.path}: --pooling {pooling}: the pooling of the heads of GENATATOR cannot be chosen")
    heads = []
    for name, (own_name, head) in _GENATATOR.items():
        if f"{name}.weight" in source.names:
            tensors = linear_tensors(source, name, len(head.labels), (1 + config.rcps) * config.d_model)
            if config.rcps:  # Caduceus stores the channels of the reverse strand in reverse order.
                forward, reverse = tensors["weight"].chunk(2, 1)
                tensors["weight"] = torch.cat([forward, reverse.flip(1)], 1)
            heads.append(TaskHead(own_name, head, tensors))
            source.omit(f"{name}_middle.")  # used by the loss only
    return heads, ""


def _is_genatator(source: Source) -> bool:
    return any(f"{name}.weight" in source.names for name in _GENATATOR)


def _io_weights(
    source: Source, config: _Config, size: int, backbone: str, *, language_model: bool
) -> dict[str, Tensor]:
    """Return the embedding and, for a language model, the head; both have one row per token.

    In models that represent both strands, these weights are those for one strand.
    """
    embedding, head = backbone + "embeddings.word_embeddings.", "lm_head."
    embedding += "embedding.weight" if config.rcps else "weight"
    head += "lm_head.weight" if config.rcps else "weight"
    if not language_model:
        return {"embed.weight": source.take(embedding, size, config.d_model)}
    # PS models tie embedding and head regardless of their configuration.
    if config.rcps or config.tie_word_embeddings:
        weight = source.take_tied(embedding, head, size, config.d_model)
        return {"embed.weight": weight, "head.weight": weight}
    names = {"embed.weight": embedding, "head.weight": head}
    return {new: source.take(old, size, config.d_model) for new, old in names.items()}


def _vocabulary(source: Source, complement: Tensor) -> _Vocabulary:
    paired = complement.tolist()
    pairs = tuple((i, j) for i, j in enumerate(paired) if i < j)
    known = _VOCABULARIES.get(pairs)
    whole = {i: j for pair in pairs for i, j in (pair, pair[::-1])}
    symmetric = paired == [whole.get(i, i) for i in range(len(paired))]
    if known is None or len(known.symbols) != len(paired) or not symmetric:
        found = ", ".join(f"{i} and {j}" for i, j in enumerate(paired) if i != j)
        raise ModelError(
            f"{source.folder / CONFIG}: complement_map pairs the tokens {found or 'none'} of "
            f"{len(paired)}: expected 7 and 10, 8 and 9 of 16 (Caduceus) or 3 and 6, 4 and 5 of 8 "
            "(PlantCaduceus), in both directions"
        )
    return known


def _trained_window(source: Source) -> int | None:
    """Return the longest training window, in bases, that is stated in the name of a checkpoint.

    The result is None if the name does not contain a part such as "seqlen-131k".
    """
    thousands = re.search(r"seqlen-(\d+)k", source.name)
    # Powers of two, abbreviated in thousands: 131k is 131,072.
    return 2 ** round(math.log2(1000 * int(thousands[1]))) if thousands else None
