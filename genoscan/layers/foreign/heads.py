"""Conversion of task heads, which are linear maps of the final features of a model."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.foreign.source import CONFIG, Source, format_value
from genoscan.layers.heads import HeadConfig, Link, Pooling

TRANSFORMERS, STATE_SPACES = ("score", "classifier"), "classification_head.classification_head"
"""Names of classification heads in transformers, and in models based on the Mamba of state-spaces."""

_LINKS: dict[str, Link] = {
    "regression": "none",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}
"""Function that converts logits to probabilities for each `problem_type`, as defined by transformers."""


class TaskHead(NamedTuple):
    """A task head in this package's format.

    Attributes
    ----------
    name
        Name of the head.
    config
        Configuration of the head.
    tensors
        Tensors named "weight" and, if the head has a bias, "bias".
    """

    name: str
    config: HeadConfig
    tensors: dict[str, Tensor]


def classification_head(
    source: Source, defaults: Mapping[str, Pooling], width: int, pooling: Pooling | None, *, fold: bool = False
) -> tuple[list[TaskHead], str]:
    """Return the head that classifies windows, if the checkpoint has one.

    Parameters
    ----------
    source
        The checkpoint.
    defaults
        Default pooling for each name that the head may have in the checkpoint.
    width
        Number of features.
    pooling
        Method of pooling over positions. If None, the default for the name of the head is used.
    fold
        Whether the logits are averaged over both strands.

    Returns
    -------
    heads
        List that contains the head, or an empty list if there is none.
    note
        Statement about the pooling, to be appended to the description of the model's origin.

    Raises
    ------
    ModelError
        If a tensor or a setting of the head is invalid, or if `pooling` is given but there is no head.
    """
    found = next((name for name in defaults if f"{name}.weight" in source.names), None)
    if found is None:
        if pooling is not None:
            names = " or ".join(f"{name}.weight" for name in defaults)
            raise ModelError(f"{source.path}: --pooling {pooling}: no classification head, expected {names}")
        return [], ""
    labels = _labels(source, source.n_rows(f"{found}.weight"))
    config = HeadConfig(
        kind="pooled",
        labels=labels,
        pool=pooling or defaults[found],
        link=_link(source, len(labels)),
        fold=fold,
        bias=f"{found}.bias" in source.names,
    )
    note = f", with {config.pool} pooling" + ("" if pooling else f", the default, which {CONFIG} does not state")
    return [TaskHead("classes", config, linear_tensors(source, found, len(labels), width, bias=config.bias))], note


def linear_tensors(source: Source, name: str, n_labels: int, width: int, *, bias: bool = True) -> dict[str, Tensor]:
    """Return the weight of a linear map, of shape (n_labels, width), and its bias if `bias` is true."""
    tensors = {"weight": source.take(f"{name}.weight", n_labels, width)}
    return tensors | ({"bias": source.take(f"{name}.bias", n_labels)} if bias else {})


def head_tensors(heads: list[TaskHead]) -> dict[str, Tensor]:
    """Return the weights of all heads, by the names of the tensors in this package."""
    return {f"heads.{i}.{name}": tensor for i, head in enumerate(heads) for name, tensor in head.tensors.items()}


def _labels(source: Source, count: int) -> tuple[str, ...]:
    """Return the names of the labels in config.json, or label_0, label_1, ... if it contains no names.

    Characters that are not permitted in a label, and a plus or minus sign at its end, are replaced by
    underscores. If the resulting names are not distinct, or one of them is empty, the numbered names are
    used instead.
    """
    given = source.config.get("id2label")
    if given is None:
        return tuple(f"label_{i}" for i in range(count))
    try:
        names = {int(number): str(name) for number, name in given.items()}
    except (AttributeError, ValueError):
        names = {}
    if sorted(names) != list(range(count)):
        raise ModelError(
            f"{source.folder / CONFIG}: id2label is {format_value(given)}: expected a name for each of the "
            f"{count} rows of the head, 0 to {count - 1}"
        )
    # A sign at the end would mean a strand.
    labels = tuple(re.sub(r"[^A-Za-z0-9_.'+-]|[+-]$", "_", names[i]) for i in range(count))
    return labels if len(set(labels)) == count and all(labels) else tuple(f"label_{i}" for i in range(count))


def _link(source: Source, n_labels: int) -> Link:
    problem = source.config.get("problem_type")
    if problem is None:
        return "softmax" if n_labels > 1 else "none"
    if not isinstance(problem, str) or problem not in _LINKS:
        raise ModelError(
            f"{source.folder / CONFIG}: problem_type is {format_value(problem)}: expected {', '.join(_LINKS)} or null"
        )
    return _LINKS[problem]
