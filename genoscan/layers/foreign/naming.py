"""Removal of the segments that training frameworks insert into tensor names.

torch.compile, DistributedDataParallel, FSDP, DeepSpeed and Lightning each insert a segment into the names
of tensors. Without these segments, the tensor names of a model begin with `backbone.`, `caduceus.`,
`lm_head.` or the name of a task head.
"""

from collections.abc import Iterable
from typing import NamedTuple

from genoscan.errors import ModelError

_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Segments that wrapper modules insert into tensor names, at any position."""

_OPTIONAL = _WRAPPERS | {"model"}
"""Segments with which some of a model's tensor names may begin while others do not."""

_ROOTS = frozenset({"caduceus", "caduceus_model", "backbone", "lm_head"})
_TASK_HEADS = frozenset(
    {"score", "classifier", "classification_head", "fc", "fc_middle", "type_head", "type_head_middle"}
)
"""First segments of the tensor names of task heads.

These words are also common in other models, so they are not used to identify a model.
"""

_BACKBONE = frozenset({"embedding", "embeddings", "layers", "norm_f"})
"""First segments of tensor names in files that contain only a backbone, without the prefix `backbone.`."""

_ALIASES = {
    "backbone.embedding.weight": "backbone.embeddings.weight",
    "backbone.embedding.bias": "backbone.embeddings.bias",
}
"""Tensor names in state-spaces, and the corresponding names in transformers.

The project transformers accepts both names.
"""


class Names(NamedTuple):
    """Names of the tensors in a file, assigned to the tensors of the model.

    Attributes
    ----------
    inside
        For each tensor of the model, by its name in the model, the list of its names in the file. There is
        more than one name if the file contains copies of the tensor.
    outside
        Names of the tensors in the file that are not part of the model.
    prefixes
        Prefixes, such as `student.net.`, that were removed from tensor names although no known framework
        inserts them.
    """

    inside: dict[str, list[str]]
    outside: list[str]
    prefixes: list[str]


def is_model(names: Iterable[str]) -> bool:
    """Return whether any of the names, with or without a prefix, is that of a tensor of a supported model."""
    return any((_ROOTS | _BACKBONE) & set(name.split(".")) for name in names)


def model_names(file: object, names: Iterable[str]) -> Names:
    """Identify the tensors of the model among all tensors in a file.

    Parameters
    ----------
    file
        Path of the file, for error messages.
    names
        Names of all tensors in the file.

    Returns
    -------
    Names
        Names of the tensors of the model, names of all other tensors, and the prefixes that were removed.

    Raises
    ------
    ModelError
        If the prefixes indicate that the file contains more than one model.
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
