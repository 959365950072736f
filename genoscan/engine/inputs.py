"""What the engine reads: a window as something that yields one tile at a time."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genoscan.errors import InputError


@runtime_checkable
class Inputs(Protocol):
    """A window, or a batch of windows of one length, ready to be read in tiles."""

    @property
    def length(self) -> int:
        """Positions in the window."""
        ...

    @property
    def batch(self) -> int:
        """Windows read side by side."""
        ...

    def tile(self, span: slice) -> Float[Tensor, "batch tile d_in"]:
        """Return the layer's input over the span."""
        ...


@dataclass(frozen=True)
class OneHot:
    """Bases as codes, turned into the layer's input one tile at a time.

    Memory: 1 byte a base.  `table` has a row for each code and a column for each symbol of
    the model; the row of a base that the model does not know is zeros.
    """

    codes: UInt8[Tensor, "batch length"]
    table: Float[Tensor, "codes symbols"]

    @property
    def length(self) -> int:
        return self.codes.shape[1]

    @property
    def batch(self) -> int:
        return self.codes.shape[0]

    def tile(self, span: slice) -> Float[Tensor, "batch tile symbols"]:
        return self.table[self.codes[:, span].to(self.table.device, torch.long)]


@dataclass(frozen=True)
class Dense:
    """An input that is already numbers, whole in memory."""

    x: Float[Tensor, "batch length d_in"]

    @property
    def length(self) -> int:
        return self.x.shape[1]

    @property
    def batch(self) -> int:
        return self.x.shape[0]

    def tile(self, span: slice) -> Float[Tensor, "batch tile d_in"]:
        return self.x[:, span]


def spans(length: int, tile: int) -> list[slice]:
    """Cut positions 0..length into tiles, left to right; the first may be shorter."""
    if tile < 1:
        raise InputError(f"tile {tile}: at least 1 base is needed")
    edges = [0, *range((length - 1) % tile + 1, length + 1, tile)]
    return [slice(*edge) for edge in pairwise(edges)]
