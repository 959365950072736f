"""Inputs to the engine: windows that are read tile by tile."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genoscan.errors import InputError


@runtime_checkable
class Inputs(Protocol):
    """A window, or a batch of windows of equal length, that is read tile by tile."""

    @property
    def length(self) -> int:
        """Number of positions in a window."""
        ...

    @property
    def batch(self) -> int:
        """Number of windows in the batch."""
        ...

    def tile(self, span: slice) -> Float[Tensor, "batch tile d_in"]:
        """Return the input to the network at the positions of the span."""
        ...


@dataclass(frozen=True)
class OneHot:
    """Bases stored as one-byte codes; each tile is converted to network input when it is read.

    `table` has one row per code and one column per symbol of the model.
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
    """Inputs stored as one array."""

    x: Float[Tensor, "batch length d_in"]

    @property
    def length(self) -> int:
        return self.x.shape[1]

    @property
    def batch(self) -> int:
        return self.x.shape[0]

    def tile(self, span: slice) -> Float[Tensor, "batch tile d_in"]:
        return self.x[:, span]


class Spans:
    """Sequence of the spans of all tiles in a window, from left to right.

    The tiles cover positions 0 to `length - 1`. The first tile may be shorter than the others. The
    sequence uses the same amount of memory for any `length`.
    """

    def __init__(self, length: int, tile: int) -> None:
        if tile < 1:
            raise InputError(f"tile {tile}: at least 1 base is needed")
        self._stops = range((length - 1) % tile + 1, length + 1, tile)

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, number: int) -> slice:
        return slice(self._stops[number - 1] if number else 0, self._stops[number])

    def __iter__(self) -> Iterator[slice]:
        return map(self.__getitem__, range(len(self)))
