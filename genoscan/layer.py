"""The contract between models and the engine: a causal layer and its carry."""

from collections.abc import Callable, Iterator
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
