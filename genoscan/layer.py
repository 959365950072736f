"""Interfaces that networks implement to be differentiated tile by tile: layers, networks and carries."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Carry: TypeAlias = Any
"""State of a causal layer after all preceding positions: a tensor, or nested tuples of tensors.

No tensor may be a view of a tile, because a view would keep the memory of the whole tile allocated.
"""


@runtime_checkable
class Layer(Protocol):
    """A causal map that is applied tile by tile and passes a carry from each tile to the next.

    Notes
    -----
    Split law: for 0 <= k <= n, `forward` over positions [0, n) is equivalent to `forward` over [0, k)
    followed by `forward` over [k, n).

    Purity law: the result of `forward` depends only on the tile and the carry, and `forward` does not
    change any attribute.

    On a GPU, tiles of a layer whose weights are frozen are replayed as CUDA graphs. A layer, or a module in
    it, that waits for the GPU or reads settings that may change has an attribute `capturable` that is False.
    """

    def begin(self, batch: int) -> Carry:
        """Return the initial carry, which precedes the first position.

        Parameters
        ----------
        batch
            Number of sequences in the batch.

        Returns
        -------
        Carry
            Carry at the left edge of the first tile.
        """
        ...

    def forward(
        self, x: Float[Tensor, "batch tile d_in"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile d_out"], Carry]:
        """Return the output over one tile and the carry at the right edge of the tile.

        Parameters
        ----------
        x
            Input over the tile, of shape (batch, tile, d_in).
        carry
            Carry at the left edge of the tile.

        Returns
        -------
        y
            Output over the tile, of shape (batch, tile, d_out).
        carry
            Carry at the right edge of the tile.
        """
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the trainable parameters."""
        ...


@runtime_checkable
class Chain(Layer, Protocol):
    """Composition of causal layers that can be split into consecutive parts.

    Notes
    -----
    Chain law: applying the parts in sequence is equivalent to applying the whole chain. The carry of
    the chain is a tuple: the concatenation of the carries of the parts.
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
            Layers in the order in which they are applied. They share their weights with the chain.
        """
        ...


def leaves(carry: Carry) -> list[Tensor]:
    """Return the tensors in a carry as a flat list, in depth-first order."""
    if isinstance(carry, Tensor):
        return [carry]
    return [leaf for part in carry for leaf in leaves(part)]


def map_leaves(function: Callable[[Tensor], Tensor], carry: Carry) -> Carry:
    """Apply a function to every tensor in a carry, and return a carry with the same structure."""
    if isinstance(carry, Tensor):
        return function(carry)
    return tuple(map_leaves(function, part) for part in carry)


@runtime_checkable
class BidirectionalLayer(Protocol):
    """A pair of causal layers that process the same input in opposite directions.

    Notes
    -----
    Pointwise law: `prepare` and `merge` act on each position independently.

    Residual law: `merge(x, left, right)` equals `f(x) + g(left, right)` for some functions `f` and `g`.
    """

    @property
    def left_to_right(self) -> Layer:
        """Causal layer that is applied from left to right."""
        ...

    @property
    def right_to_left(self) -> Layer:
        """Causal layer that is applied from right to left."""
        ...

    @property
    def additive(self) -> bool:
        """Whether `merge` adds the outputs of the two directions.

        If it does not, the derivative of `merge` depends on these outputs.
        """
        ...

    def prepare(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile read"]:
        """Return the common input of the two causal layers, computed from the input of this layer.

        It may have any number of channels.
        """
        ...

    def merge(
        self,
        x: Float[Tensor, "batch tile width"],
        left: Float[Tensor, "batch tile read"],
        right: Float[Tensor, "batch tile read"],
    ) -> Float[Tensor, "batch tile width"]:
        """Combine the input of the layer with the outputs of the two directions.

        Parameters
        ----------
        x
            Input of the layer, of shape (batch, tile, width).
        left, right
            Outputs of `left_to_right` and `right_to_left`, both ordered from left to right.

        Returns
        -------
        Tensor
            Output of the layer, of shape (batch, tile, width).
        """
        ...


@runtime_checkable
class BidirectionalNetwork(Protocol):
    """Sequence of bidirectional layers between a pointwise encoder and a pointwise decoder."""

    @property
    def blocks(self) -> Sequence[BidirectionalLayer]:
        """Bidirectional layers, from first to last."""
        ...

    @property
    def width(self) -> int:
        """Number of channels of the activations between layers."""
        ...

    def encode(self, x: Float[Tensor, "batch tile d_in"]) -> Float[Tensor, "batch tile width"]:
        """Map the input of the network to the input of the first layer, of shape (batch, tile, width)."""
        ...

    def decode(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile d_out"]:
        """Map the output of the last layer to the outputs of the network, of shape (batch, tile, d_out)."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the trainable parameters."""
        ...
