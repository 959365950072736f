"""Task heads: linear maps from the final features of a model to the logits of named labels.

A per-base head assigns labels to each base. A pooled head assigns labels to a whole window, and pools over
positions in one of the following ways:

    mean, first, last       the logits are pooled over positions, which is equivalent to pooling the
                            features, because the head is linear
    max                     each feature channel is reduced to its maximum over positions, and the
                            head is applied to the maxima

In a model that represents both strands (rcps: reverse-complement parameter sharing), the features at each
position are those of the forward strand, `a`, and those of the reverse strand, `b`. A head that folds the
strands has weights for one strand only. Let `f` be the linear map with these weights. The logits are the
mean of `f(a)` and of `f(b)` with the labels complemented. If a window is replaced by its reverse
complement, the logits of complementary labels are therefore exchanged.
"""

import re
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from genoscan.layers.schema import Schema
from genoscan.ops.kernels import Kernels

RESERVED = "log-likelihood", "logit", "log-odds"
"""Names of the targets of language models; a task head cannot have one of these names."""

_NAME = re.compile(r"[A-Za-z0-9_.'+-]+")


LETTERS = "letters, digits and _ . ' + -"
"""Characters of the names of labels and heads."""


def is_label(name: str) -> bool:
    """Return whether a text can be the name of a label."""
    return _NAME.fullmatch(name) is not None


def _check_label(name: str) -> str:
    if not is_label(name):
        raise ValueError(f"{name!r}: expected {LETTERS} only")
    return name


def _check_head_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is the name of a target, choose another name")
    return _check_label(name)


Pooling = Literal["mean", "max", "first", "last"]
"""Method of pooling over positions: the mean, the maximum, or the value at the first or the last position."""

Link = Literal["softmax", "sigmoid", "none"]
"""Name of the function that converts logits to probabilities."""

Label = Annotated[str, AfterValidator(_check_label)]
HeadName = Annotated[str, AfterValidator(_check_head_name)]


class HeadConfig(Schema):
    """Configuration of a task head: one entry of `heads` in config.json.

    Attributes
    ----------
    kind
        Whether the labels belong to a base ("per_base") or to the whole window ("pooled").
    labels
        Names of the labels, one per logit.
    complement
        For each label, the index of the corresponding label on the reverse strand. If None, each label
        corresponds to itself. The attribute is required if a label ends in + or -.
    pool
        Method of pooling over positions. None for a per-base head.
    link
        Function that converts logits to probabilities: "softmax" over the labels, "sigmoid" of each logit,
        or "none" if the logits are not converted.
    fold
        Whether the head has weights for one strand only, and its logits are averaged over both strands.
        This requires a model that represents both strands.
    bias
        Whether a bias is added.
    """

    kind: Literal["per_base", "pooled"]
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=1 << 16)]
    complement: tuple[int, ...] | None = None
    pool: Pooling | None = None
    link: Link
    fold: bool = False
    bias: bool = True

    @model_validator(mode="after")
    def _is_consistent(self) -> "HeadConfig":
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: expected different names")
        if (self.pool is None) != (self.kind == "per_base"):
            raise ValueError(f"pool {self.pool or 'null'}: expected mean, max, first or last for a pooled head only")
        if self.complement is None:
            stranded = [label for label in self.labels if label.endswith(("+", "-"))]
            if stranded:
                raise ValueError(f"complement: required, because the label {stranded[0]} has a strand")
            return self
        if sorted(self.complement) != list(range(len(self.labels))):
            raise ValueError(f"complement: expected each index from 0 to {len(self.labels) - 1} once")
        for i, other in enumerate(self.complement):
            if self.complement[other] != i:
                raise ValueError("complement: expected a permutation that is its own inverse")
            name, partner = self.labels[i], self.labels[other]
            turned = name[:-1] + {"+": "-", "-": "+"}.get(name[-1], name[-1])
            if turned != name and partner != turned:
                raise ValueError(f"complement: pairs {name} with {partner}, expected {turned}")
        return self

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits to probabilities; return them unchanged if the link is "none".

        The last axis of `logits` is the axis of labels.
        """
        if self.link == "softmax":
            return torch.softmax(logits, -1)
        return torch.sigmoid(logits) if self.link == "sigmoid" else logits

    @property
    def complements(self) -> tuple[int, ...]:
        """For each label, the index of the corresponding label on the reverse strand."""
        return self.complement or tuple(range(len(self.labels)))


class Head(nn.Module):
    """A task head, which is a linear map from features to the logits of labels.

    Parameters
    ----------
    config
        Settings of the head.
    d_model
        Number of channels per strand.
    strands
        Number of strands, 1 or 2, that the features represent.
    kernels
        Kernel set that computes the linear map.
    """

    decays: ClassVar = {"weight": True, "bias": False}

    def __init__(self, config: HeadConfig, d_model: int, strands: int, kernels: Kernels) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        self._folds = config.fold and strands == 2
        width = d_model if self._folds else strands * d_model
        linear = nn.Linear(width, len(config.labels), bias=config.bias)
        self.weight, self.bias = linear.weight, linear.bias

    def matrix(self) -> Float[Tensor, "labels features"]:
        """Return the weight matrix, of shape (labels, features).

        If the head folds the strands, the matrix is expanded so that it applies to the features of both
        strands.
        """
        if not self._folds:
            return self.weight
        return torch.cat([self.weight, self.weight[list(self.config.complements)]], 1) / 2

    def offset(self) -> Float[Tensor, " labels"] | None:
        """Return the bias of each label, of shape (labels,), or None if the head has no bias."""
        if self.bias is None or not self._folds:
            return self.bias
        return (self.bias + self.bias[list(self.config.complements)]) / 2

    def forward(self, x: Float[Tensor, "batch tile features"]) -> Float[Tensor, "batch tile out"]:
        """Return the logits at each position or, if the head pools by the maximum, the features.

        In the latter case, the linear map is applied later, to the maxima over positions.
        """
        if self.config.pool == "max":
            return x
        offset = self.offset()
        return self.kernels.linear(x, self.matrix(), *(() if offset is None else (offset,)))
