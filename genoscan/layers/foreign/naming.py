"""Tensor names without the prefixes of training tools.

torch.compile, DistributedDataParallel, FSDP, DeepSpeed and Lightning each put a segment into a
tensor's name.  Names here are those of the model alone: `backbone.…`, `caduceus.…`, `lm_head.…`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from genoscan.errors import ModelError

_WRAPPERS = frozenset(
    {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Modules that compute what the module inside them does, wherever they stand in a name."""

_HOLDERS = _WRAPPERS | {"model"}
"""What may stand before one model's names and be absent before others'."""

_ROOTS = frozenset({"caduceus", "backbone", "lm_head"})
_BACKBONE = frozenset({"embedding", "embeddings", "layers", "norm_f"})
"""Where names start.  In a file of the backbone alone they lack `backbone.`"""

_ALIASES = {"backbone.embedding.weight": "backbone.embeddings.weight"}
"""state-spaces' name of a tensor, and transformers', which reads both."""


class Names(NamedTuple):
    """Which tensor of the file is which of the model.

    inside   model's name -> names in the file, more than one if the file has it under several
    outside  names in the file that belong to what was around the model in training
    """

    inside: dict[str, list[str]]
    outside: list[str]


def is_model(names: Iterable[str]) -> bool:
    """Return whether names are those of a model, bare or under prefixes."""
    return any((_ROOTS | _BACKBONE) & set(name.split(".")) for name in names)


def model_names(file: object, names: Iterable[str]) -> Names:
    """Find the model's tensors among those of a file.

    Raises
    ------
    ModelError
        If they lie under prefixes that are of more than one model.
    """
    split = {name: name.split(".") for name in sorted(names)}
    whole = any("backbone" in segments for segments in split.values())
    first = _ROOTS if whole else _BACKBONE | {"lm_head"}
    starts = {
        name: next((i for i, segment in enumerate(segments) if segment in first), None)
        for name, segments in split.items()
    }
    roots = sorted({tuple(split[name][:i]) for name, i in starts.items() if i is not None})
    if len(roots) > 1 and not all(_HOLDERS.issuperset(root) for root in roots):
        places = " and ".join(f'"{".".join(root)}."' if root else "no prefix" for root in roots)
        raise ModelError(
            f"{file}: tensors of a model under {places}: expected one model; save the one that is "
            "meant as safetensors"
        )
    inside: dict[str, list[str]] = {}
    outside = []
    for name, i in starts.items():
        segments = split[name]
        if i is None:
            around = [root for root in roots if tuple(segments[: len(root)]) == root]
            if roots and not around:
                outside.append(name)
                continue
            i = max(map(len, around), default=0)
        kept = [segment for segment in segments[i:] if segment not in _WRAPPERS]
        if not whole and kept and kept[0] in _BACKBONE:
            kept.insert(0, "backbone")
        known = ".".join(kept) or name
        inside.setdefault(_ALIASES.get(known, known), []).append(name)
    return Names(inside, outside)
