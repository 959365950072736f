"""Interfaces between models and the engine: causal layers, bidirectional layers, and carries."""

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
    """A causal map that is applied tile by tile and passes a carry from each tile to the next.

    Notes
    -----
    Split law: for 0 <= k <= n, `forward` over positions [0, n) is equivalent to `forward` over [0, k)
    followed by `forward` over [k, n).

    Purity law: the result of `forward` depends only on the tile and the carry, and `forward` does not
    change any attribute.
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
        """Yield the trainable tensors."""
        ...


@runtime_checkable
class Chain(Layer, Protocol):
    """Composition of causal layers, which can be split into consecutive parts.

    Notes
    -----
    Chain law: applying the parts in sequence is equivalent to applying the whole chain. The carry of
    the chain is a tuple that concatenates the carries of the parts.
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
    """Return a list of the tensors in a carry, in order."""
    if isinstance(carry, Tensor):
        return [carry]
    return [leaf for part in carry for leaf in leaves(part)]


def map_leaves(function: Callable[[Tensor], Tensor], carry: Carry) -> Carry:
    """Apply a function to every tensor in a carry, and return a tree with the same structure."""
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
        """Return the input that both directions receive; it may have any number of channels."""
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
            Input to the layer, of shape (batch, tile, width).
        left, right
            Outputs of `left_to_right` and `right_to_left`, both in window order.

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
        """Return the input to the first layer, of shape (batch, tile, width)."""
        ...

    def decode(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile d_out"]:
        """Return the outputs of the network, computed from the output of the last layer.

        The shape of the outputs is (batch, tile, d_out).
        """
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the trainable tensors."""
        ...
