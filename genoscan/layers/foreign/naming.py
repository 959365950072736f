"""Removal of the segments that training frameworks insert into tensor names.

torch.compile, DistributedDataParallel, FSDP, DeepSpeed and Lightning each insert a segment into
tensor names. Without these segments, the tensor names of a model begin with `backbone.`, `caduceus.`,
`lm_head.` or the name of a task head.
"""

from collections.abc import Iterable
from typing import NamedTuple

from genoscan.errors import ModelError

_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Segments inserted by wrapper modules, at any position in a name."""

_OPTIONAL = _WRAPPERS | {"model"}
"""Segments that may precede only some of the names of a model."""

_ROOTS = frozenset({"caduceus", "caduceus_model", "backbone", "lm_head"})
_TASK_HEADS = frozenset(
    {"score", "classifier", "classification_head", "fc", "fc_middle", "type_head", "type_head_middle"}
)
"""First segments of the names of task heads. They are common words elsewhere, so that they do not identify a model."""

_BACKBONE = frozenset({"embedding", "embeddings", "layers", "norm_f"})
"""First segments of tensor names in files that contain only the backbone and omit `backbone.`."""

_ALIASES = {
    "backbone.embedding.weight": "backbone.embeddings.weight",
    "backbone.embedding.bias": "backbone.embeddings.bias",
}
"""Tensor names in state-spaces and their equivalents in transformers, which accepts both."""


class Names(NamedTuple):
    """Names of the tensors in a file.

    Attributes
    ----------
    inside
        For each tensor of the model, the names of the tensor in the file. A tensor has several names if
        the file contains copies of it. The keys are the names of the tensors in the model.
    outside
        Names of the tensors in the file that are not part of the model.
    prefixes
        Removed prefixes that no known framework inserts, such as `student.net.`.
    """

    inside: dict[str, list[str]]
    outside: list[str]
    prefixes: list[str]


def is_model(names: Iterable[str]) -> bool:
    """Return whether any of the names belongs to a model tensor, with or without a prefix."""
    return any((_ROOTS | _BACKBONE) & set(name.split(".")) for name in names)


def model_names(file: object, names: Iterable[str]) -> Names:
    """Find the tensors of the model among all tensors in a file.

    Parameters
    ----------
    file
        The file. Error messages name it.
    names
        Names of all tensors in the file.

    Returns
    -------
    Names
        Names of the tensors of the model, names of all other tensors, and the prefixes that were removed.

    Raises
    ------
    ModelError
        If the prefixes indicate more than one model.
    """
    split = {name: name.split(".") for name in sorted(names)}
    whole = any("backbone" in segments for segments in split.values())
    first = _ROOTS if whole else _BACKBONE | {"lm_head"}
    starts = {
        name: next((i for i, segment in enumerate(segments) if segment in first), None)
        for name, segments in split.items()
    }
    roots = sorted({tuple(split[name][:i]) for name, i in starts.items() if i is not None})
    unknown = [root for root in roots if not _OPTIONAL.issuperset(root)]
    # The head and the backbone may have different prefixes, if there is one of each.
    parts = {(split[name][i] == "lm_head", *split[name][:i]) for name, i in starts.items() if i is not None}
    n_heads = sum(bool(is_head) for is_head, *_ in parts)
    if len(roots) > 1 and unknown and (n_heads > 1 or len(parts) - n_heads > 1):
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
            i = max(map(len, around), default=0)
            if roots and not around:
                bare = [segment for segment in segments if segment not in _OPTIONAL]
                if not bare or bare[0] not in _TASK_HEADS:
                    outside.append(name)
                    continue
                i = segments.index(bare[0])
        kept = [segment for segment in segments[i:] if segment not in _WRAPPERS]
        if not whole and kept and kept[0] in _BACKBONE:
            kept.insert(0, "backbone")
        if kept[:1] == ["caduceus_model"]:  # GENATATOR's name for it
            kept[0] = "caduceus"
        known = ".".join(kept) or name
        inside.setdefault(_ALIASES.get(known, known), []).append(name)
    return Names(inside, outside, [f"{'.'.join(root)}." for root in unknown])
