"""Interfaces between models and the engine: causal and bidirectional layers, and carries."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Carry: TypeAlias = Any
"""Tree of tensors (nested tuples) with the state of a layer after all preceding positions.

No tensor may be a view of a tile, because a view keeps the memory of the whole tile allocated.
"""


@runtime_checkable
class Layer(Protocol):
    """A causal map that is applied tile by tile, with a carry passed from each tile to the next.

    Notes
    -----
    Split law: `forward` over [0, n) equals `forward` over [0, k) followed by `forward` over [k, n), for 0 <= k <= n.
    Purity law: `forward` depends only on the tile and the carry, and does not change attributes.
    """

    def begin(self, batch: int) -> Carry:
        """Return the carry before the first base.

        Parameters
        ----------
        batch
            Number of sequences.
        """
        ...

    def forward(
        self, x: Float[Tensor, "batch tile d_in"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile d_out"], Carry]:
        """Return the output over one tile and the carry at its right edge.

        Parameters
        ----------
        x
            Input over the tile, (batch, tile, d_in).
        carry
            Carry at the left edge of the tile.

        Returns
        -------
        y
            Output over the tile, (batch, tile, d_out).
        carry
            Carry at the right edge of the tile.
        """
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the trainable tensors."""
        ...


@runtime_checkable
class Chain(Layer, Protocol):
    """A composition of causal layers that can be split into consecutive parts.

    Notes
    -----
    Chain law: applying the parts in sequence is equivalent to applying the whole chain. The carry of
    the chain is a tuple, the concatenation of the carries of its parts.
    """

    def cut(self, parts: int) -> "list[Layer]":
        """Split the chain into consecutive layers of similar cost.

        Parameters
        ----------
        parts
            Maximum number of layers to return.

        Returns
        -------
        list of Layer
            Layers in the order in which they are applied; they share their weights with the chain.
        """
        ...


def leaves(carry: Carry) -> list[Tensor]:
    """Return a list of the tensors in a carry, in order."""
    if isinstance(carry, Tensor):
        return [carry]
    return [leaf for part in carry for leaf in leaves(part)]


def map_leaves(function: Callable[[Tensor], Tensor], carry: Carry) -> Carry:
    """Apply a function to every tensor of a carry; return a tree of the same structure."""
    if isinstance(carry, Tensor):
        return function(carry)
    return tuple(map_leaves(function, part) for part in carry)


@runtime_checkable
class BidirectionalLayer(Protocol):
    """A pair of causal layers that process the same input in opposite directions.

    Notes
    -----
    Pointwise law: `prepare` and `merge` act on each position independently.
    Residual law: merge(x, left, right) = f(x) + g(left, right) for some functions f and g.
    """

    @property
    def left_to_right(self) -> Layer:
        """Causal layer applied from left to right."""
        ...

    @property
    def right_to_left(self) -> Layer:
        """Causal layer applied from right to left."""
        ...

    @property
    def additive(self) -> bool:
        """Whether `merge` adds the outputs of the two directions; otherwise, its derivative depends on them."""
        ...

    def prepare(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile read"]:
        """Return the input shared by the two directions, which may have any number of channels."""
        ...

    def merge(
        self,
        x: Float[Tensor, "batch tile width"],
        left: Float[Tensor, "batch tile read"],
        right: Float[Tensor, "batch tile read"],
    ) -> Float[Tensor, "batch tile width"]:
        """Combine the input to the layer with the outputs of the two directions.

        Parameters
        ----------
        x
            Input to the layer, (batch, tile, width).
        left, right
            Outputs of `left_to_right` and `right_to_left`, both in the order of the window.

        Returns
        -------
        Tensor
            Output of the layer, (batch, tile, width).
        """
        ...


@runtime_checkable
class BidirectionalNetwork(Protocol):
    """Bidirectional layers in sequence, between a pointwise encoder and a pointwise decoder."""

    @property
    def blocks(self) -> Sequence[BidirectionalLayer]:
        """Bidirectional layers, first to last."""
        ...

    @property
    def width(self) -> int:
        """Number of channels of the activations between layers."""
        ...

    def encode(self, x: Float[Tensor, "batch tile d_in"]) -> Float[Tensor, "batch tile width"]:
        """Return the input to the first layer, (batch, tile, width)."""
        ...

    def decode(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile d_out"]:
        """Return the outputs of the network, (batch, tile, d_out), from the output of the last layer."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the trainable tensors."""
        ...
