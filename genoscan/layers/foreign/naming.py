"""Tensor names without the prefixes that training frameworks add.

torch.compile, DistributedDataParallel, FSDP, DeepSpeed and Lightning each insert a segment into
tensor names.  Names of the model alone are `backbone.…`, `caduceus.…` and `lm_head.…`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from genoscan.errors import ModelError

_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Segments for modules that wrap another one, anywhere in a name."""

_OPTIONAL = _WRAPPERS | {"model"}
"""Segments that may precede some names of a model and not others."""

_ROOTS = frozenset({"caduceus", "backbone", "lm_head"})
_BACKBONE = frozenset({"embedding", "embeddings", "layers", "norm_f"})
"""First segments of names; files with only the backbone omit `backbone.`"""

_ALIASES = {"backbone.embedding.weight": "backbone.embeddings.weight"}
"""Name of a tensor in state-spaces, and in transformers, which accepts both."""


class Names(NamedTuple):
    """Names of the tensors in a file.

    Attributes
    ----------
    inside
        For each tensor of the model, its names in the file, of which there may be several.
    outside
        Names in the file of tensors that belong to the training setup around the model.
    """

    inside: dict[str, list[str]]
    outside: list[str]


def is_model(names: Iterable[str]) -> bool:
    """Return whether any name is that of a model, with or without prefixes."""
    return any((_ROOTS | _BACKBONE) & set(name.split(".")) for name in names)


def model_names(file: object, names: Iterable[str]) -> Names:
    """Find the tensors of the model among those of a file.

    Parameters
    ----------
    file
        The file, named in messages.
    names
        Names of all its tensors.

    Returns
    -------
    Names
        Names of the tensors of the model and of others.

    Raises
    ------
    ModelError
        If the prefixes are those of more than one model.
    """
    split = {name: name.split(".") for name in sorted(names)}
    whole = any("backbone" in segments for segments in split.values())
    first = _ROOTS if whole else _BACKBONE | {"lm_head"}
    starts = {
        name: next((i for i, segment in enumerate(segments) if segment in first), None)
        for name, segments in split.items()
    }
    roots = sorted({tuple(split[name][:i]) for name, i in starts.items() if i is not None})
    if len(roots) > 1 and not all(_OPTIONAL.issuperset(root) for root in roots):
        places = " and ".join(f'"{".".join(root)}."' if root else "no prefix" for root in roots)
        raise ModelError(
            f"{file}: tensors of a model under {places}: expected one model; save the intended one as safetensors"
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
