"""The contract between models and the engine: a causal layer and its carry."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Carry: TypeAlias = Any
"""A tree of tensors (nested tuples): all that a layer remembers of the bases to its left.

A carry owns its memory: a view would keep the whole tile alive that it was cut from.
"""


@runtime_checkable
class Layer(Protocol):
    """A causal map over one tile, plus what it remembers of the tiles before.

    split law   forward over [0, n) equals forward over [0, k), then [k, n), for every k
    purity law  the same tile and carry give the same answer; no attribute changes
    """

    def begin(self, batch: int) -> Carry:
        """Return the carry to the left of the first base."""
        ...

    def forward(
        self, x: Float[Tensor, "batch tile d_in"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile d_out"], Carry]:
        """Return the layer's output over the tile, and the carry at its right edge."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the trained tensors."""
        ...


@runtime_checkable
class Chain(Layer, Protocol):
    """A layer that is other layers in sequence, each as causal as the whole.

    chain law  running the parts one after another is running the whole; the carry is a tuple,
               the parts' carries put end to end
    """

    def cut(self, parts: int) -> "list[Layer]":
        """Return at most so many layers of about equal cost, which share the weights."""
        ...


def leaves(carry: Carry) -> list[Tensor]:
    """List the carry's tensors, in order."""
    if isinstance(carry, Tensor):
        return [carry]
    return [leaf for part in carry for leaf in leaves(part)]


def map_leaves(function: Callable[[Tensor], Tensor], carry: Carry) -> Carry:
    """Apply the function to every tensor of the carry and keep its shape."""
    if isinstance(carry, Tensor):
        return function(carry)
    return tuple(map_leaves(function, part) for part in carry)


@runtime_checkable
class BidirectionalLayer(Protocol):
    """A layer that looks both ways: two causal layers read the same, one from either end.

    pointwise law  what `before` and `merge` say at a position depends on that position alone
    residual law   merge(x, left, right) is a map of x plus one of left and right
    """

    @property
    def left_to_right(self) -> Layer:
        """The layer that reads left to right."""
        ...

    @property
    def right_to_left(self) -> Layer:
        """The layer that reads right to left."""
        ...

    @property
    def additive(self) -> bool:
        """Whether `merge` adds what the two say; otherwise its derivative depends on it."""
        ...

    def before(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile read"]:
        """Return what both read."""
        ...

    def merge(
        self,
        x: Float[Tensor, "batch tile width"],
        left: Float[Tensor, "batch tile read"],
        right: Float[Tensor, "batch tile read"],
    ) -> Float[Tensor, "batch tile width"]:
        """Return the layer's output, from its input and from what the two say of it."""
        ...


@runtime_checkable
class BidirectionalNetwork(Protocol):
    """Two-way layers in sequence, between two maps that are pointwise."""

    @property
    def blocks(self) -> Sequence[BidirectionalLayer]:
        """The layers, first to last."""
        ...

    @property
    def width(self) -> int:
        """Numbers a position between two layers."""
        ...

    def enter(self, x: Float[Tensor, "batch tile d_in"]) -> Float[Tensor, "batch tile width"]:
        """Return what the first layer reads."""
        ...

    def leave(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile d_out"]:
        """Return the outputs, from what the last layer says."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the trained tensors."""
        ...
